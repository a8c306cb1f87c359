from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_factory import (
    AXIAL,
    CASES,
    COLUMNS,
    CORONAL,
    ROWS,
    SLICES,
    STEP,
    enhanced,
    image,
    pixels,
    set_pixels,
    stack,
    uid,
    write,
)
from pydicom import FileDataset

from anomalyclip_monai.data.dicom_series import BETWEEN_SLICES, read_series, scan
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.exceptions import CaseError

pytestmark = pytest.mark.filterwarnings("ignore:.*VR (CS|UI|DS|IS):UserWarning")


def read(folder: Path, volume: int | None = None) -> Volume:
    series, _ = scan(folder)
    assert len(series) == 1
    return read_series(series[0], volume=volume, per_slice=True)


def content(ds: FileDataset) -> np.ndarray:
    """(X, Y) modality values."""
    return np.asarray(ds.pixel_array.T + float(ds.RescaleIntercept), np.float32)


def test_missing_slices_leave_the_others_in_order(tmp_path: Path) -> None:
    images = stack()
    del images[4]
    write(tmp_path, images, lambda i: f"{(5 * i) % 8}")
    volume = read(tmp_path)
    assert volume.data.shape == (1, COLUMNS, ROWS, SLICES - 1)
    assert not volume.source.regular
    for k, ds in enumerate(images):
        np.testing.assert_array_equal(volume.data[0, :, :, k], content(ds))
        assert volume.source.frames[k].path == tmp_path / f"{(5 * k) % 8}"
    # The first slice's own place, and its thickness of 2 mm in the place of a step.
    expected = [[-0.7, 0, 0, 31.5], [0, -0.9, 0, -12.25], [0, 0, 2.0, -100], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-12)
    (note,) = volume.source.warnings
    assert "no grid" in note
    assert "1 slice(s) missing" in note


def test_orientations_follow_each_other(tmp_path: Path) -> None:
    coronal, axial = stack(count=4, orientation=CORONAL, series="b"), stack(count=5)
    for ds in coronal:
        ds.SeriesInstanceUID = uid("series", "a")
    write(tmp_path, [x for pair in zip(coronal, axial, strict=False) for x in pair] + axial[4:])
    volume = read(tmp_path)
    # Sorted by direction cosines: those of a coronal slice, (1, 0, 0, 0, 0, -1), come first.
    for k, ds in enumerate([*coronal, *axial]):
        np.testing.assert_array_equal(volume.data[0, :, :, k], content(ds))
    np.testing.assert_allclose(volume.affine[:3, 1], [0, 0, -0.9], atol=1e-12)
    assert not volume.source.regular


def test_noise_in_the_directions_does_not_part_a_plane(tmp_path: Path) -> None:
    images = stack(count=6)
    images[0].ImagePositionPatient = [0, 0, -300]
    for k, ds in enumerate(images):
        ds.ImageOrientationPatient = [1, (-1) ** k * 1e-5, 0, 0, 1, 0]
    write(tmp_path, images)
    volume = read(tmp_path)
    assert [frame.path.name for frame in volume.source.frames] == [f"{k:03d}.dcm" for k in range(6)]


def test_slices_at_one_place_follow_their_instance_numbers(tmp_path: Path) -> None:
    again = [image(20 - k, series="b", position=(-31.5, 12.25, -100 + 4 * STEP)) for k in range(2)]
    for ds in again:
        ds.SeriesInstanceUID = uid("series", "a")
    write(tmp_path, [*again, *stack()])
    volume = read(tmp_path)
    assert not volume.source.regular
    np.testing.assert_array_equal(volume.data[0, :, :, 4], content(stack()[4]))
    np.testing.assert_array_equal(volume.data[0, :, :, 5], content(again[1]))  # instance 20
    np.testing.assert_array_equal(volume.data[0, :, :, 6], content(again[0]))  # instance 21


def test_a_regular_series_is_read_as_always(tmp_path: Path) -> None:
    write(tmp_path, stack(step=(0.0, 0.6, STEP)))
    series, _ = scan(tmp_path)
    expected, volume = read_series(series[0]), read(tmp_path)
    assert volume.source == expected.source
    assert volume.source.regular
    np.testing.assert_array_equal(volume.data, expected.data)
    np.testing.assert_array_equal(volume.affine, expected.affine)


def test_a_volume_is_chosen_first_where_slices_can_be_parted(tmp_path: Path) -> None:
    frames = [{"position": (0, 0, z)} for z in (0, 3, 6)]
    frames += [{"position": (0, 0, z), "stack": 2} for z in (50, 53, 59, 60)]
    write(tmp_path, [enhanced(frames, stored=pixels(1, shape=(7, ROWS, COLUMNS)))])
    with pytest.raises(CaseError, match=r"E_4D.*2 volume"):
        read(tmp_path)
    assert read(tmp_path, 0).source.regular
    irregular = read(tmp_path, 1)
    assert not irregular.source.regular
    assert [frame.number for frame in irregular.source.frames] == [3, 4, 5, 6]


def test_slices_that_cannot_be_parted_are_one_volume(tmp_path: Path) -> None:
    write(tmp_path, [*stack(), image(30, position=(-31.5, 12.25, -100))])
    assert read(tmp_path, 0).data.shape[-1] == SLICES + 1
    with pytest.raises(CaseError, match=r"E_4D.*no volume 1"):
        read(tmp_path, 1)


REFUSED = [case for case in CASES if case.code is not None]


@pytest.mark.parametrize("case", REFUSED, ids=[case.name for case in REFUSED])
def test_only_geometry_between_slices_is_forgiven(tmp_path: Path, case: object) -> None:
    case.make(tmp_path)  # type: ignore[attr-defined]
    code = case.code  # type: ignore[attr-defined]
    if code in BETWEEN_SLICES:
        assert not read(tmp_path).source.regular
        return
    with pytest.raises(CaseError) as caught:
        read(tmp_path)
    assert caught.value.code == code


@pytest.mark.parametrize(("change", "code"), [("matrix", "E_MATRIX"), ("spacing", "E_GEOMETRY")])
def test_another_fault_behind_the_first_still_refuses(tmp_path: Path, change: str, code: str) -> None:
    images = stack(count=5)
    images[1].ImageOrientationPatient = list(CORONAL)
    images[4].ImageOrientationPatient = list(AXIAL)
    if change == "matrix":
        set_pixels(images[4], pixels(1, shape=(ROWS + 2, COLUMNS)))
    else:
        images[4].PixelSpacing = [1.1, 0.7]
    write(tmp_path, images)
    with pytest.raises(CaseError) as caught:
        read(tmp_path)
    assert caught.value.code == code
