from __future__ import annotations

import numpy as np
import pytest

from anomalyclip_monai.metrics import ranking
from anomalyclip_monai.metrics.froc import FROC, FROCCurve
from anomalyclip_monai.metrics.pointing import pointing, slice_pointing
from anomalyclip_monai.metrics.ranking import BestF1
from anomalyclip_monai.metrics.undefined import Undefined
from anomalyclip_monai.metrics.volumes import measure_volume, millilitres, slice_auroc, slice_labels

SHAPE = (7, 9, 5)


def _volume() -> tuple[np.ndarray, np.ndarray]:
    """A lesion of eight voxels in slices 1 and 2 along the last axis, partly found; one false alarm in slice 4."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:4, 3:5, 1:3] = 1
    heatmap = np.zeros(SHAPE, np.float32)
    heatmap[2:4, 3:5, 1] = 0.9
    heatmap[2:4, 3:5, 2] = 0.4
    heatmap[6, 8, 4] = 0.6
    heatmap[0, 0, 2] = 0.5
    return heatmap, mask


def test_all_measures_of_one_volume():
    heatmap, mask = _volume()
    inside = np.zeros(SHAPE, bool)
    inside[1:6, 2:8] = True
    measures = measure_volume(
        heatmap,
        mask,
        [0.1, 0.9, 0.5, 0.1, 0.6],
        slice_axis=2,
        predicted=heatmap >= 0.6,
        voxel_volume=500.0,
        inside=inside,
    )
    # Slices 1 and 2 against 0, 3 and 4: five of six pairs.
    assert measures.slice_auroc == pytest.approx(5 / 6)
    assert measures.voxel_auroc == pytest.approx(ranking.auroc(mask, heatmap))
    assert measures.voxel_ap == pytest.approx(ranking.average_precision(mask, heatmap))
    # Inside, both false alarms are gone.
    assert measures.voxel_auroc_inside == pytest.approx(1.0)
    # From 0.4 up: all 8 found with 2 false voxels.
    assert measures.best_dice == BestF1(pytest.approx(2 * 8 / (8 + 10)), pytest.approx(0.4))
    assert measures.dice == pytest.approx(2 * 4 / (8 + 5))
    assert measures.pointing == 1.0
    assert measures.slice_pointing == pytest.approx(0.5)
    assert measures.false_alarm_ml == pytest.approx(0.5)


def test_a_normal_volume_is_undefined_but_for_its_false_alarms():
    heatmap, mask = _volume()
    measures = measure_volume(
        heatmap, np.zeros_like(mask), np.zeros(5), slice_axis=2, predicted=heatmap >= 0.6, voxel_volume=1000.0
    )
    assert measures.slice_auroc == Undefined("no abnormal slice")
    assert measures.voxel_auroc == measures.best_dice == measures.dice == Undefined("no abnormal voxel")
    assert measures.slice_pointing == Undefined("no abnormal slice")
    assert measures.voxel_auroc_inside == Undefined("the body is not known")
    assert measures.false_alarm_ml == pytest.approx(5.0)


def test_no_physical_size():
    assert millilitres(np.ones(3), None) == Undefined("no physical size")


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_slices_with_a_lesion(axis):
    _, mask = _volume()
    labels = slice_labels(mask, axis)
    expected = [mask.take(index, axis).any() for index in range(SHAPE[axis])]
    assert labels.tolist() == expected
    assert slice_auroc(labels.astype(float), mask, axis) == 1.0


def test_shapes_must_agree():
    heatmap, mask = _volume()
    with pytest.raises(ValueError, match="one shape"):
        measure_volume(heatmap, mask[:3], np.zeros(5), slice_axis=2, predicted=mask, voxel_volume=1.0)
    with pytest.raises(ValueError, match="equally many"):
        measure_volume(heatmap, mask, np.zeros(4), slice_axis=2, predicted=mask, voxel_volume=1.0)
    with pytest.raises(ValueError, match="one shape"):
        pointing(heatmap, mask[:3])
    with pytest.raises(ValueError, match="one shape"):
        FROC().update(heatmap, mask[:3])


def test_pointing():
    mask = [[0, 1], [0, 0]]
    assert pointing([[0.1, 0.9], [0.2, 0.3]], mask) == 1.0
    assert pointing([[0.1, 0.2], [0.2, 0.3]], mask) == 0.0
    assert pointing([[0.5, 0.5], [0.5, 0.5]], mask) == 0.25  # the chance of hitting it
    assert pointing([[0.5, 0.5], [0.5, 0.5]], np.zeros((2, 2))) == Undefined("no abnormal pixel")


def test_slice_pointing_skips_slices_without_a_lesion():
    heatmap, mask = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    heatmap[0, 0] = 1
    mask[0, 0, 1] = mask[1, 1, 2] = 1
    assert slice_pointing(heatmap, mask, 2) == 0.5


def test_froc_worked_volumes():
    froc = FROC([0.5, 0.3, 0.8])
    heatmap, mask = np.zeros((6, 6, 6), np.float32), np.zeros((6, 6, 6), int)
    mask[0, 0, 0] = mask[1, 1, 1] = 1  # joined at a corner: one lesion
    mask[5, 5, 5] = 1
    heatmap[0, 0, 0], heatmap[5, 5, 5] = 0.9, 0.4
    heatmap[3, 3, 3] = 0.6
    froc.update(heatmap, mask)
    other = np.zeros((4, 5, 6), np.float32)
    other[0, 0, 0] = other[3, 4, 5] = 0.5
    froc.update(other)
    curve = froc.curve()
    assert isinstance(curve, FROCCurve)
    assert (froc.volumes, froc.lesions) == (2, 2)
    assert curve.thresholds.tolist() == [0.8, 0.5, 0.3]
    assert curve.sensitivity.tolist() == [0.5, 0.5, 1.0]
    assert curve.false_positives.tolist() == [0.0, 1.5, 1.5]
    assert [curve.sensitivity_at(rate) for rate in (0, 1, 1.5, 8)] == [0.5, 0.5, 1.0, 1.0]


def test_a_component_over_everything_finds_nothing():
    mask = np.zeros((10, 10, 10), int)
    mask[4, 4, 4] = 1
    strict, lenient = FROC([0.5]), FROC([0.5], min_inside=0)
    for froc in (strict, lenient):
        froc.update(np.ones((10, 10, 10)), mask)
    assert strict.curve().sensitivity.tolist() == [0.0]
    assert strict.curve().false_positives.tolist() == [1.0]
    assert lenient.curve().sensitivity.tolist() == [1.0]


def test_false_alarms_that_grow_together_do_not_lower_the_rate():
    heatmap, mask = np.full((1, 9), 0.2), np.zeros((1, 9), int)
    heatmap[0, [0, 2, 4]] = 0.8
    mask[0, 6:] = 1
    froc = FROC([0.8, 0.2])
    froc.update(heatmap, mask)
    curve = froc.curve()
    assert isinstance(curve, FROCCurve)
    assert curve.false_positives.tolist() == [3.0, 0.0]
    assert curve.sensitivity_at(1) == 0.0
    assert curve.sensitivity_at(3) == 1.0


def test_froc_without_a_lesion_is_undefined():
    froc = FROC()
    assert froc.curve() == Undefined("no volume")
    froc.update(np.zeros((3, 3, 3)))
    assert froc.curve() == Undefined("no lesion")


def test_what_does_not_count_changes_nothing():
    heatmap, mask = _volume()
    counted = np.ones(SHAPE, bool)
    counted[:, 5:, 3:] = False  # the false alarm in slice 4, and a part of slice 3
    changed = heatmap.copy()
    changed[~counted] = np.random.default_rng(1).random(np.count_nonzero(~counted))
    options = {"slice_axis": 2, "voxel_volume": 500.0, "inside": heatmap >= 0, "counted": counted}
    scores = [0.1, 0.9, 0.5, 0.95, 0.96]
    measures = measure_volume(heatmap, mask, scores, predicted=heatmap >= 0.45, **options)
    assert measure_volume(changed, mask, scores, predicted=changed >= 0.45, **options) == measures
    assert (
        measures.voxel_auroc
        == measures.voxel_auroc_inside
        == pytest.approx(ranking.auroc(mask[counted], heatmap[counted]))
    )
    assert measures.dice == pytest.approx(2 * 4 / (8 + 5))  # half of the lesion, and (0, 0, 2)
    assert measures.false_alarm_ml == pytest.approx(0.5)
    assert measures.slice_auroc == 1.0  # slices 1 and 2 against 0: nobody knows of 3 and 4
    assert pointing(changed, mask, counted) == 1.0
    assert slice_pointing(changed, mask, 2, counted) == pytest.approx(0.5)
    alarms = []
    for given in (heatmap, changed):
        froc = FROC([0.55])
        froc.update(given, mask, counted)
        alarms.append([found.tolist() for found in froc.counts()])
    assert alarms == [[[1], [0]]] * 2
