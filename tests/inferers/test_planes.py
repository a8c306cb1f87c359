"""Slices along two or three axes, and the heatmap that comes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter1d
from torch import nn

from anomalyclip_monai.data.geometry import closest_axes, plane_distance
from anomalyclip_monai.inferers import SliceAnomalyInferer, slice_anomaly
from anomalyclip_monai.inferers.planes import parse_axes, resolve_axes

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (31, 44, 23)
WIDE = (71, 84, 66)
"""Slices along all three axes have enough pixels."""

VALUES = (0.9, 0.3, 0.6)
"""What :class:`ByPlane` says of slices along array axes 0, 1 and 2."""


class ByPlane(nn.Module):
    """Knows the axis of a slice by its size, and finds all of it equally abnormal."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most = most
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.most is not None and len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append(len(images))
        (axis,) = (axis for axis in range(3) if set(images.shape[-2:]) == {*SHAPE[:axis], *SHAPE[axis + 1 :]})
        abnormal = torch.full_like(images[:, :1], VALUES[axis])
        return torch.cat([1 - abnormal, abnormal], dim=1)


def _batch(data: np.ndarray, affine: np.ndarray, **meta: object) -> MetaTensor:
    return MetaTensor(torch.from_numpy(data)[None, None], affine=torch.from_numpy(affine), meta=meta)


def _point(index: tuple[int, int, int]) -> np.ndarray:
    data = np.zeros(SHAPE, dtype=np.float32)
    data[index] = 1
    return data


# --- which axes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1, 1),
        ("3", 3),
        (" 2 ", 2),
        ("auto", "auto"),
        (" auto ", "auto"),
        ("axial,sagittal", ("axial", "sagittal")),
        (["coronal", "axial"], ("coronal", "axial")),
        ([2], ("2",)),
        ((0, 2), ("0", "2")),
        ("axial", ("axial",)),
    ],
)
def test_a_number_or_a_list(given: object, expected: object) -> None:
    assert parse_axes(given) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [0, 4, "", ["auto"], ["axial", "axial"], ["axial", 2], [], "1.5", "0", [3], "axial,"])
def test_what_is_no_choice_of_axes(given: object) -> None:
    with pytest.raises(ValueError, match=r"axes \(.*must be auto, 1, 2, 3 or a list of different planes"):
        SliceAnomalyInferer(axes=given)  # type: ignore[arg-type]


def test_order_of_the_axes() -> None:
    even, shape = np.diag([1.0, 1, 1, 1]), WIDE
    assert resolve_axes(1, "auto", even, shape) == (2,)
    assert resolve_axes(2, "auto", even, shape) == (2, 0)  # axial, then sagittal
    assert resolve_axes(3, "auto", even, shape) == (2, 0, 1)
    assert resolve_axes(3, "coronal", even, shape) == (1, 2, 0)
    assert resolve_axes(3, "auto", even, shape, acquisition_axis=0) == (0, 2, 1)
    assert resolve_axes(2, "auto", np.diag([1.0, 1.2, 1, 1]), shape) == (2, 1)  # the larger distance
    thick = np.diag([1.0, 1.2, 4, 1])
    assert resolve_axes(3, "auto", thick, shape) == (2,)  # across thick slices pixels are too oblong
    assert resolve_axes(3, "sagittal", thick, shape) == (0, 2)
    assert resolve_axes(("axial", "coronal"), "auto", thick, shape) == (2, 1)  # unless they are named
    assert resolve_axes(("coronal", "axial"), "sagittal", even, shape) == (1, 2)
    assert resolve_axes(("0", "2"), "auto", even, shape) == (0, 2)
    stored_otherwise = np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # A, S, R
    assert resolve_axes(3, "auto", stored_otherwise, (84, 66, 71)) == (1, 2, 0)


def test_auto_is_three_axes_or_one() -> None:
    even = np.eye(4)
    assert resolve_axes("auto", "auto", even, WIDE) == (2, 0, 1)
    assert resolve_axes("auto", "coronal", even, WIDE) == (1, 2, 0)
    assert resolve_axes("auto", "auto", even, (71, 84, 64)) == (2, 0, 1)
    assert resolve_axes("auto", "auto", even, (71, 84, 63)) == (2,)  # further slices of 84 x 63 and 71 x 63
    assert resolve_axes("auto", "coronal", even, (71, 84, 63)) == (1,)  # the main one too
    assert resolve_axes("auto", "auto", np.diag([1.0, 1, 1.49, 1]), WIDE) == (2, 0, 1)
    assert resolve_axes("auto", "auto", np.diag([1.0, 1, 1.5, 1]), WIDE) == (2,)
    assert resolve_axes("auto", "axial", np.diag([1.0, 1.5, 1, 1]), WIDE) == (2,)  # one that passes is none


def test_a_number_leaves_out_slices_of_few_pixels() -> None:
    even, few = np.eye(4), (71, 84, 63)
    assert resolve_axes(3, "auto", even, few) == (2,)
    assert resolve_axes(3, "sagittal", even, few) == (0, 2)
    assert resolve_axes(("sagittal", "coronal"), "auto", even, few) == (0, 1)  # unless they are named


@pytest.mark.parametrize(("shape", "axes"), [(WIDE, [2, 0, 1]), ((71, 84, 63), [2, -1, -1])])
def test_auto_is_chosen_volume_by_volume(shape: tuple[int, ...], axes: list[int]) -> None:
    data = np.random.default_rng(26).random(shape, dtype=np.float32)
    heatmap = SliceAnomalyInferer(axes="auto")(_batch(data, np.eye(4)), lambda images: images)
    assert heatmap.meta["axes"].tolist() == [axes]
    np.testing.assert_allclose(heatmap.as_tensor()[0, 0], data, atol=1e-6)  # the mean of the same


# --- the heatmap


def test_three_planes_meet_in_the_voxel_that_is_bright(any_affine: np.ndarray) -> None:
    """Of each axis only the slice with the voxel is shown: its plane has a third of what the network says there."""
    index = (7, 40, 3)
    heatmap = SliceAnomalyInferer(axes=[0, 1, 2])(_batch(_point(index), any_affine), ByPlane())
    expected = np.zeros(SHAPE)
    expected[7] += 0.9 / 3
    expected[:, 40] += 0.3 / 3
    expected[:, :, 3] += 0.6 / 3
    assert expected[index] == pytest.approx(0.6)
    np.testing.assert_allclose(heatmap.as_tensor()[0, 0], expected, atol=1e-7)
    np.testing.assert_array_equal(heatmap.affine, any_affine)  # bit for bit


def test_slice_scores_are_the_top_2_percent_of_the_mean_along_the_first_axis() -> None:
    index = (7, 40, 3)
    heatmap = SliceAnomalyInferer(axes=[0, 2])(_batch(_point(index), np.eye(4)), ByPlane())
    assert heatmap.meta["axes"][:, 0].tolist() == [0]
    assert heatmap.meta["axes"].tolist() == [[0, 2, -1]]
    scores = heatmap.meta["slice_scores"][0]
    assert scores.shape == (31,)
    # of 44 x 23 = 1012 pixels the highest 20: the line that both planes share has .45 + .30 in slice 7
    assert scores[7] == pytest.approx(0.75)
    # elsewhere the slice along axis 2 alone: a line of 44 pixels of .30
    np.testing.assert_allclose(np.delete(scores.numpy(), 7), 0.3, atol=1e-7)


@pytest.mark.parametrize("axes", ["axial,coronal", [0, 1, 2], "coronal,sagittal"])
def test_points_and_ramps_come_back(any_affine: np.ndarray, identity_network: nn.Module, axes: object) -> None:
    index = tuple(int(i) for i in np.random.default_rng(21).integers(0, SHAPE))
    inferer = SliceAnomalyInferer(axes=axes)  # type: ignore[arg-type]
    heatmap = inferer(_batch(_point(index), any_affine), identity_network)
    assert np.unravel_index(int(heatmap.as_tensor().argmax()), SHAPE) == index
    ramp = np.linspace(0.2, 0.8, SHAPE[1], dtype=np.float32)
    data = np.broadcast_to(ramp[:, None], SHAPE).copy()
    shift = (inferer(_batch(data, any_affine), identity_network).as_tensor()[0, 0] - torch.from_numpy(data)).abs()
    assert shift[4:-4, 4:-4, 4:-4].max() <= 0.02 * (ramp[1] - ramp[0])


def test_one_axis_is_what_it_was(any_affine: np.ndarray, identity_network: nn.Module) -> None:
    data = np.random.default_rng(22).random(SHAPE, dtype=np.float32)
    one, default = (
        SliceAnomalyInferer(0, **more)(_batch(data, any_affine), identity_network)  # type: ignore[arg-type]
        for more in ({"axes": 1}, {})
    )
    mean = np.zeros(SHAPE, dtype=np.float64)
    for axis in range(3):
        mean += SliceAnomalyInferer(axis)(_batch(data, any_affine), identity_network).as_tensor().numpy()[0, 0]
    assert torch.equal(one.as_tensor(), default.as_tensor())
    assert torch.equal(one.meta["slice_scores"], default.meta["slice_scores"])
    three = SliceAnomalyInferer(axes=[0, 1, 2])(_batch(data, any_affine), identity_network)
    np.testing.assert_allclose(three.as_tensor()[0, 0], mean / 3, atol=1e-6)


def test_smoothing_is_across_the_planes_of_each_axis(any_affine: np.ndarray) -> None:
    index = (7, 40, 3)
    heatmap = SliceAnomalyInferer(axes=[2, 1], smooth_mm=3.0)(_batch(_point(index), any_affine), ByPlane())
    expected = np.zeros(SHAPE)
    for axis in (2, 1):
        alone = np.zeros(SHAPE)
        alone[(slice(None),) * axis + (index[axis],)] = VALUES[axis]
        expected += gaussian_filter1d(alone, 3.0 / plane_distance(any_affine, axis), axis=axis, mode="reflect") / 2
    np.testing.assert_allclose(heatmap.as_tensor()[0, 0], expected, atol=1e-6)


def test_progress_counts_the_slices_of_all_axes() -> None:
    done = []
    inferer = SliceAnomalyInferer(2, slice_batch=20, axes=[2, 0, 1], progress=lambda *counts: done.append(counts))
    inferer(_batch(np.ones(SHAPE, dtype=np.float32), np.eye(4)), ByPlane())
    total = 31 + 44 + 23
    assert done == [(count, total) for count in (20, 23, 43, 54, 74, 94, 98)]


def test_a_batch_that_was_halved_stays_so() -> None:
    network = ByPlane(most=10)
    heatmap = SliceAnomalyInferer(slice_batch=20, axes=[2, 0])(_batch(np.ones(SHAPE, np.float32), np.eye(4)), network)
    assert network.batches == [10, 10, 3, 10, 10, 10, 1]
    assert heatmap.meta["batch_halvings"].tolist() == [1]


def test_on_disk_and_in_slabs_the_same(monkeypatch: pytest.MonkeyPatch, identity_network: nn.Module) -> None:
    volume = _batch(np.random.default_rng(23).random(SHAPE, dtype=np.float32), np.eye(4))
    inferer = SliceAnomalyInferer(axes=[0, 1, 2], smooth_mm=1.5)
    in_memory = inferer(volume, identity_network)
    monkeypatch.setattr(slice_anomaly, "MEMORY_MAP_FROM", 1)
    monkeypatch.setattr(slice_anomaly, "SLAB_VOXELS", 5000)
    on_disk = inferer(volume, identity_network)
    torch.testing.assert_close(on_disk.as_tensor(), in_memory.as_tensor(), atol=1e-7, rtol=0)


# --- what has no second plane


@pytest.mark.parametrize("asked", [3, "auto"])
@pytest.mark.parametrize(
    ("shape", "meta", "axis"),
    [
        ((71, 84, 1), {}, 2),  # a single slice
        (WIDE, {"stacked_axis": 2}, 2),  # slices on no grid
        (WIDE, {"physical_size": 0, "acquisition_axis": 2}, 2),  # frames
    ],
)
def test_slices_that_are_no_volume_keep_to_one_axis(
    shape: tuple[int, ...], meta: dict[str, int], axis: int, asked: int | str
) -> None:
    data = np.random.default_rng(24).random(shape, dtype=np.float32)

    def network(images: torch.Tensor) -> torch.Tensor:
        return images

    one = SliceAnomalyInferer()(_batch(data, np.eye(4), **meta), network)
    three = SliceAnomalyInferer(axes=asked)(_batch(data, np.eye(4), **meta), network)
    assert three.meta["axes"].tolist() == [[axis, -1, -1]]
    assert torch.equal(three.as_tensor(), one.as_tensor())
    assert torch.equal(three.meta["slice_scores"], one.meta["slice_scores"])


def test_a_batch_of_volumes_has_axes_of_its_own(affines: dict[str, np.ndarray]) -> None:
    both = np.stack([affines["oblique"], affines["sagittal"]])
    data = torch.rand(2, 1, 64, 64, 64, generator=torch.Generator().manual_seed(25))
    inputs = MetaTensor(data, meta={"affine": torch.from_numpy(both)})
    inputs.affine = torch.from_numpy(both)
    inputs.is_batch = True
    heatmap = SliceAnomalyInferer("sagittal", axes=2)(inputs, lambda images: images)
    for affine, axes in zip(both, heatmap.meta["axes"].tolist(), strict=True):
        worlds = closest_axes(affine)[:, 0]
        assert worlds[axes[0]] == 0
        assert axes[2] == -1
    torch.testing.assert_close(heatmap.as_tensor(), data)
