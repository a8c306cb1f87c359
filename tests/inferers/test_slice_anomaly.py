from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SliceInferer
from scipy.ndimage import gaussian_filter1d
from torch import nn

from anomalyclip_monai.data.geometry import closest_axes, plane_distance
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.inferers import SliceAnomalyInferer, slice_anomaly
from anomalyclip_monai.networks import AnomalyCLIP, Symmetry

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (31, 44, 23)
"""Rows, columns and slices differ, and every slice fits the identity network's 64 pixels."""


class Recorder(nn.Module):
    """A network that keeps what it is shown; its map is the mean of the channels."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        self.most = most

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.most is not None and len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.seen.append(images.clone())
        abnormal = images.mean(dim=1, keepdim=True)
        return torch.cat([1 - abnormal, abnormal], dim=1)

    @property
    def batches(self) -> list[int]:
        return [len(images) for images in self.seen]


def _batch(data: np.ndarray, affine: np.ndarray, **meta: object) -> MetaTensor:
    """(C, X, Y, Z) -> a batch of one."""
    return MetaTensor(torch.from_numpy(data)[None], affine=torch.from_numpy(affine), meta=meta)


# --- the round trip


@pytest.mark.parametrize("slice_axis", ["auto", "axial", "coronal", "sagittal"])
def test_a_point_comes_back_at_its_index_and_its_world_point(
    any_affine: np.ndarray, identity_network: nn.Module, slice_axis: str
) -> None:
    random = np.random.default_rng(8)
    for _ in range(3):
        index = tuple(int(random.integers(0, count)) for count in SHAPE)
        data = np.zeros((1, *SHAPE), dtype=np.float32)
        data[0][index] = 1
        heatmap = SliceAnomalyInferer(slice_axis)(_batch(data, any_affine), identity_network)
        found = np.unravel_index(int(heatmap.as_tensor().argmax()), SHAPE)
        assert found == index
        affine = np.asarray(heatmap.affine)
        np.testing.assert_array_equal(affine, any_affine)  # bit for bit
        np.testing.assert_array_equal(affine @ [*found, 1], any_affine @ [*index, 1])


@pytest.mark.parametrize("slice_axis", ["auto", 0, 1, 2])
def test_ramps_stay_where_they_are(any_affine: np.ndarray, identity_network: nn.Module, slice_axis: str | int) -> None:
    for axis, count in enumerate(SHAPE):
        ramp = np.linspace(0.2, 0.8, count, dtype=np.float32)
        data = np.broadcast_to(np.expand_dims(ramp, tuple(a for a in range(3) if a != axis)), SHAPE).copy()[None]
        heatmap = SliceAnomalyInferer(slice_axis)(_batch(data, any_affine), identity_network)
        shift = (heatmap.as_tensor()[0] - torch.from_numpy(data)) / (ramp[1] - ramp[0])
        assert shift[:, 4:-4, 4:-4, 4:-4].abs().max() <= 0.02  # pixels


def test_result_is_float32_on_the_stored_grid(any_affine: np.ndarray, identity_network: nn.Module) -> None:
    for dtype in (torch.uint8, torch.bool, torch.float16, torch.float64):
        inputs = MetaTensor(torch.ones(1, 1, *SHAPE).to(dtype), affine=torch.from_numpy(any_affine))
        heatmap = SliceAnomalyInferer()(inputs, identity_network)
        assert heatmap.dtype == torch.float32
        assert heatmap.shape == (1, 1, *SHAPE)
        assert inputs.dtype == dtype
        torch.testing.assert_close(heatmap.as_tensor(), torch.ones(1, 1, *SHAPE))


# --- what the network sees


def _corner(affine: np.ndarray, **wanted: int) -> tuple[int, ...]:
    """Index of the corner voxel on the given side (+1 or -1) of world axes R, A, S."""
    index = [0, 0, 0]
    for array, (world, sign) in enumerate(closest_axes(affine)):
        if wanted.get("RAS"[world], 0) == sign:
            index[array] = SHAPE[array] - 1
    return tuple(index)


@pytest.mark.parametrize(
    ("plane", "corner", "place"),
    [
        ("axial", {"R": -1, "A": 1}, (0, -1)),  # left and anterior: right, top
        ("coronal", {"R": -1, "S": 1}, (0, -1)),  # left and superior: right, top
        ("sagittal", {"A": 1, "S": 1}, (0, 0)),  # anterior and superior: left, top
    ],
)
def test_slices_are_upright(any_affine: np.ndarray, plane: str, corner: dict[str, int], place: tuple[int, int]) -> None:
    data = np.full((1, *SHAPE), 0.5, dtype=np.float32)
    index = _corner(any_affine, **corner)
    data[0][index] = 1
    network = Recorder()
    heatmap = SliceAnomalyInferer(plane, slice_batch=99)(_batch(data, any_affine), network)
    (images,) = network.seen
    rows_run = "A" if plane == "axial" else "S"
    row_axis = next(a for a, (world, _) in enumerate(closest_axes(any_affine)) if "RAS"[world] == rows_run)
    assert images.shape[-2] == SHAPE[row_axis]
    marked = torch.nonzero(images[:, 0] == 1).tolist()
    assert len(marked) == 1
    assert marked[0][1:] == [place[0] % images.shape[-2], place[1] % images.shape[-1]]
    assert heatmap[0, 0][index] == 1


def test_batches_and_slices_in_order() -> None:
    data = np.zeros((1, 6, 5, 7), dtype=np.float32)
    data[:] = np.arange(1, 8) / 10
    network = Recorder()
    heatmap = SliceAnomalyInferer("axial", slice_batch=3)(_batch(data, np.eye(4)), network)
    assert network.batches == [3, 3, 1]
    assert {tuple(images.shape[1:]) for images in network.seen} == {(1, 5, 6)}  # rows run along Y
    seen = torch.cat(network.seen)[:, 0, 0, 0]
    np.testing.assert_allclose(seen, np.arange(1, 8) / 10, atol=1e-7)
    np.testing.assert_allclose(heatmap.meta["slice_scores"], [np.arange(1, 8) / 10], atol=1e-6)
    assert heatmap.meta["axes"][:, 0].tolist() == [2]
    assert heatmap.meta["batch_halvings"].tolist() == [0]
    torch.testing.assert_close(heatmap.as_tensor()[0], torch.from_numpy(data))


def test_three_channels_reach_the_network() -> None:
    data = np.random.default_rng(9).random((3, 6, 5, 2), dtype=np.float32)
    network = Recorder()
    heatmap = SliceAnomalyInferer(2)(_batch(data, np.eye(4)), network)
    assert network.seen[0].shape == (2, 3, 5, 6)
    np.testing.assert_allclose(heatmap.as_tensor()[0, 0], data.mean(axis=0), atol=1e-6)


def test_empty_slices_are_never_shown_and_score_0() -> None:
    data = np.zeros((1, 6, 5, 4), dtype=np.float32)
    data[..., 1] = 0.4
    data[..., 2] = 0.01  # not above the limit
    data[0, 5, 4, 3] = 0.02  # one pixel is enough
    network, done = Recorder(), []
    inferer = SliceAnomalyInferer(2, progress=lambda now, total: done.append((now, total)))
    heatmap = inferer(_batch(data, np.eye(4)), network)
    assert network.batches == [2]
    assert (heatmap.as_tensor()[..., [0, 2]] == 0).all()
    np.testing.assert_allclose(heatmap.meta["slice_scores"], [[0, 0.4, 0, 0.02]], atol=1e-6)
    assert done == [(2, 2)]


def test_a_black_volume_needs_no_network() -> None:
    network, done = Recorder(), []
    inferer = SliceAnomalyInferer(progress=lambda *counts: done.append(counts))
    heatmap = inferer(_batch(np.zeros((1, *SHAPE), dtype=np.float32), np.eye(4)), network)
    assert network.seen == []
    assert done == []
    assert not heatmap.any()
    assert not heatmap.meta["slice_scores"].any()


def test_progress_after_every_batch() -> None:
    done = []
    inferer = SliceAnomalyInferer(2, slice_batch=4, progress=lambda *counts: done.append(counts))
    inferer(torch.ones(1, 1, 3, 4, 10), Recorder())
    assert done == [(4, 10), (8, 10), (10, 10)]


# --- scores


def test_score_of_any_network_is_the_mean_of_its_top_2_percent(identity_network: nn.Module) -> None:
    data = np.random.default_rng(10).random((1, 20, 10, 3), dtype=np.float32)
    heatmap = SliceAnomalyInferer(2)(_batch(data, np.eye(4)), Recorder())
    top = np.sort(data[0].reshape(200, 3), axis=0)[-4:].mean(axis=0)
    np.testing.assert_allclose(heatmap.meta["slice_scores"][0], top, atol=1e-6)


@torch.no_grad()
def test_a_network_with_scores_of_its_own(tiny_network: AnomalyCLIP) -> None:
    data = np.random.default_rng(11).random((1, 20, 31, 3), dtype=np.float32)
    heatmap = SliceAnomalyInferer(2)(_batch(data, np.diag([-1.0, -1.0, 1.0, 1.0])), tiny_network)
    # this affine is upright as it is: rows run along Y, columns along X
    slices = torch.from_numpy(data).permute(3, 0, 2, 1)
    score, anomaly_map = tiny_network.score_and_map(slices)
    torch.testing.assert_close(heatmap.meta["slice_scores"][0], score)
    torch.testing.assert_close(heatmap.as_tensor()[0], anomaly_map.permute(1, 3, 2, 0))


def test_arguments_go_on_to_the_network() -> None:
    def network(images: torch.Tensor, scale: float, *, shift: float) -> torch.Tensor:
        return images * scale + shift

    heatmap = SliceAnomalyInferer(2)(torch.full((1, 1, 3, 4, 2), 0.5), network, 0.5, shift=0.25)
    assert (heatmap == 0.5).all()


# --- kinds of input


def test_plain_tensors_and_single_slices(identity_network: nn.Module) -> None:
    images = torch.rand(2, 3, 17, 9, generator=torch.Generator().manual_seed(12))
    heatmap = SliceAnomalyInferer(2)(images, Recorder())
    assert type(heatmap) is torch.Tensor
    torch.testing.assert_close(heatmap, images.mean(dim=1, keepdim=True))
    photo = MetaTensor(images, affine=torch.diag(torch.tensor([-1.0, -1, 1, 1])))
    found = SliceAnomalyInferer()(photo, identity_network)
    assert found.shape == (2, 1, 17, 9)
    assert found.meta["slice_scores"].shape == (2, 1)


def test_a_batch_of_two_volumes_with_affines_of_their_own(affines: dict[str, np.ndarray]) -> None:
    data = np.random.default_rng(13).random((2, 1, 9, 9, 9), dtype=np.float32)
    both = np.stack([affines["oblique"], affines["sagittal"]])
    meta = {"affine": torch.from_numpy(both), "acquisition_axis": torch.tensor([-1, -1])}
    inputs = MetaTensor(torch.from_numpy(data), meta=meta)
    inputs.affine = torch.from_numpy(both)
    inputs.is_batch = True
    heatmap = SliceAnomalyInferer("sagittal")(inputs, Recorder())
    assert heatmap.is_batch
    assert heatmap.meta["axes"][:, 0].tolist() == [0, 2]
    assert heatmap.meta["slice_scores"].shape == (2, 9)
    np.testing.assert_array_equal(heatmap.affine, both)
    np.testing.assert_allclose(heatmap.as_tensor(), data, atol=1e-6)


def test_acquisition_plane_is_used_where_spacings_do_not_decide() -> None:
    data = np.ones((1, 8, 9, 10), dtype=np.float32)
    for axis, expected in ((-1, 2), (0, 0), (1, 1)):
        heatmap = SliceAnomalyInferer()(_batch(data, np.eye(4), acquisition_axis=axis), Recorder())
        assert heatmap.meta["axes"][:, 0].tolist() == [expected]


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 3, 4, 5, 6)])
def test_shapes_that_are_no_volumes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is needed"):
        SliceAnomalyInferer()(torch.ones(shape), Recorder())


@pytest.mark.parametrize("option", [{"slice_batch": 0}, {"smooth_mm": -1.0}, {"smooth_slices": -0.1}])
def test_options_out_of_range(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        SliceAnomalyInferer(**option)
    with pytest.raises(ValueError, match="slice_axis"):
        SliceAnomalyInferer("oblique")(torch.ones(1, 1, 3, 4, 5), Recorder())


# --- memory


def test_out_of_memory_halves_the_batch_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    data = np.random.default_rng(14).random((1, 6, 5, 11), dtype=np.float32)
    network = Recorder(most=2)
    heatmap = SliceAnomalyInferer(2, slice_batch=8)(_batch(data, np.eye(4)), network)
    assert network.batches == [2, 2, 2, 2, 2, 1]
    assert heatmap.meta["batch_halvings"].tolist() == [2]  # 8 -> 4 -> 2
    np.testing.assert_allclose(heatmap.as_tensor()[0], data, atol=1e-6)
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory, going on with 4 slices at a time",
        "out of memory, going on with 2 slices at a time",
    ]


def test_not_even_one_slice_fits() -> None:
    with pytest.raises(CaseError) as caught:
        SliceAnomalyInferer(2)(torch.ones(1, 1, 3, 4, 5), Recorder(most=0))
    assert caught.value.code == "E_MEMORY"


def test_a_large_heatmap_is_assembled_on_disk(monkeypatch: pytest.MonkeyPatch, identity_network: nn.Module) -> None:
    volume = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(20))
    in_memory = SliceAnomalyInferer(2, smooth_mm=1.0)(volume, identity_network)
    monkeypatch.setattr(slice_anomaly, "MEMORY_MAP_FROM", 1)
    on_disk = SliceAnomalyInferer(2, smooth_mm=1.0)(volume, identity_network)
    assert torch.equal(on_disk, in_memory)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory."),
    ],
)
def test_every_way_of_running_out_of_memory(error: Exception) -> None:
    def network(images: torch.Tensor) -> torch.Tensor:
        if len(images) > 1:
            raise error
        return images

    heatmap = SliceAnomalyInferer(2, slice_batch=2)(_batch(np.ones((1, 3, 4, 5), np.float32), np.eye(4)), network)
    assert heatmap.meta["batch_halvings"].tolist() == [1]
    assert (heatmap == 1).all()


def test_other_errors_are_not_swallowed() -> None:
    def network(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        SliceAnomalyInferer(2)(torch.ones(1, 1, 3, 4, 5), network)


# --- smoothing through the planes


def test_smoothing_is_scipys_across_the_planes(any_affine: np.ndarray) -> None:
    data = np.random.default_rng(15).random((1, 9, 10, 11), dtype=np.float32)
    for axis in range(3):
        heatmap = SliceAnomalyInferer(axis, smooth_mm=3.0)(_batch(data, any_affine), Recorder())
        sigma = 3.0 / plane_distance(any_affine, axis)
        expected = gaussian_filter1d(data[0], sigma, axis=axis, mode="reflect")
        np.testing.assert_allclose(heatmap.as_tensor()[0, 0], expected, atol=1e-6)
        # the score of a slice is the mean of its highest 2 %, here of 2 of 99 or 110 and of 90 pixels
        planes = np.moveaxis(expected, axis, 0).reshape(data.shape[1 + axis], -1)
        highest = np.sort(planes, axis=1)[:, -max(1, round(0.02 * planes.shape[1])) :].mean(axis=1)
        np.testing.assert_allclose(heatmap.meta["slice_scores"][0], highest, atol=1e-6)


def test_smoothing_in_slices_and_in_millimetres_adds_up(any_affine: np.ndarray) -> None:
    data = np.random.default_rng(16).random((1, 9, 10, 11), dtype=np.float32)
    step = plane_distance(any_affine, 1)
    for inferer, sigma in (
        (SliceAnomalyInferer(1, smooth_slices=0.7), 0.7),
        (SliceAnomalyInferer(1, smooth_slices=0.9, smooth_mm=1.2 * step), 1.5),
    ):
        heatmap = inferer(_batch(data, any_affine), Recorder())
        expected = gaussian_filter1d(data[0], sigma, axis=1, mode="reflect")
        np.testing.assert_allclose(heatmap.as_tensor()[0, 0], expected, atol=1e-6)


def test_a_finding_in_one_slice_of_many_falls_to_about_half() -> None:
    data = np.zeros((1, 9, 10, 11), dtype=np.float32)
    data[0, 3:6, 3:6, 5] = 0.9
    heatmap = SliceAnomalyInferer(2, smooth_slices=0.7)(_batch(data, np.eye(4)), Recorder()).as_tensor()[0, 0]
    # weights exp(-k^2 / .98): 1, .360 and .017 on both sides, so .57 of the value stays
    assert heatmap[4, 4, 5] == pytest.approx(0.9 * 0.5704, abs=1e-3)
    assert heatmap[4, 4, 6] == pytest.approx(0.9 * 0.2056, abs=1e-3)


class LeftOfCentre(nn.Module):
    """Finds whatever lies in the left half of a picture."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        abnormal = images.mean(dim=1, keepdim=True).clone()
        abnormal[..., images.shape[-1] // 2 :] = 0
        return torch.cat([1 - abnormal, abnormal], dim=1)


def test_mirrored_slices_along_one_axis_only() -> None:
    data = np.random.default_rng(18).random((1, 8, 10, 12), dtype=np.float32)
    mirrored = SliceAnomalyInferer(2, mirror=True)(_batch(data, np.eye(4)), LeftOfCentre()).as_tensor()[0]
    np.testing.assert_allclose(mirrored, data / 2, atol=1e-6)  # either half is found once
    options = {"axes": ["axial", "coronal"]}
    one, other = (
        SliceAnomalyInferer(mirror=mirror, **options)(_batch(data, np.eye(4)), LeftOfCentre())
        for mirror in (False, True)
    )
    assert torch.equal(one, other)


def test_a_single_slice_keeps_the_network_s_score(tiny_network: AnomalyCLIP) -> None:
    image = torch.rand(1, 1, 20, 31, generator=torch.Generator().manual_seed(21))
    plain = SliceAnomalyInferer()(_batch(image[0, ..., None].numpy(), np.eye(4)), tiny_network)
    smoothed = SliceAnomalyInferer(smooth_slices=0.7)(_batch(image[0, ..., None].numpy(), np.eye(4)), tiny_network)
    assert torch.equal(smoothed.as_tensor(), plain.as_tensor())
    assert torch.equal(smoothed.meta["slice_scores"], plain.meta["slice_scores"])


@pytest.mark.parametrize("meta", [{"stacked_axis": 2}, {"physical_size": 0}])
def test_slices_that_are_no_neighbours_are_not_smoothed(meta: dict[str, int]) -> None:
    data = np.random.default_rng(17).random((1, 9, 10, 11), dtype=np.float32)
    heatmap = SliceAnomalyInferer(2, smooth_slices=0.7)(_batch(data, np.eye(4), **meta), Recorder())
    np.testing.assert_allclose(heatmap.as_tensor()[0], data, atol=1e-6)


def test_no_gradient_and_mixed_precision_on_request(tiny_network: AnomalyCLIP) -> None:
    volume = torch.rand(1, 1, 20, 31, 2, generator=torch.Generator().manual_seed(16))
    exact = SliceAnomalyInferer(2)(volume, tiny_network)
    assert not exact.requires_grad
    mixed = SliceAnomalyInferer(2, amp=True)(volume, tiny_network)
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - exact).abs().max() < 0.1


def test_stock_slice_inferer_gives_the_same_map(identity_network: nn.Module) -> None:
    volume = torch.rand(1, 1, 20, 17, 4, generator=torch.Generator().manual_seed(17))
    stock = SliceInferer(roi_size=(-1, -1), spatial_dim=2, progress=False)(volume, identity_network)
    own = SliceAnomalyInferer(2)(volume, identity_network)
    torch.testing.assert_close(own, stock[:, 1:], atol=1e-5, rtol=0)


def test_every_stored_orientation_shows_the_same_slices(identity_network: nn.Module) -> None:
    """The same body stored in all 48 ways: the network sees the same pictures, the heatmap follows the storage."""
    body = np.random.default_rng(18).random((5, 6, 7)).astype(np.float32)
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    reference = Recorder()
    SliceAnomalyInferer()(_batch(body[None], affine), reference)
    expected = torch.cat(reference.seen)
    make: Callable[[tuple[int, ...], tuple[int, ...]], tuple[np.ndarray, np.ndarray]] = _stored(body, affine)
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            data, stored_affine = make(axes, flips)
            network = Recorder()
            heatmap = SliceAnomalyInferer()(_batch(data[None], stored_affine), network)
            seen = torch.cat(network.seen)
            order = seen if flips[axes.index(2)] == 1 else seen.flip(0)
            assert torch.equal(order, expected)
            np.testing.assert_allclose(heatmap.as_tensor()[0, 0], data, atol=1e-6)


def _stored(body: np.ndarray, affine: np.ndarray) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    def make(axes: tuple[int, ...], flips: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        data = body.transpose(axes)
        columns = affine[:, list(axes)]
        origin = affine[:, 3].copy()
        for array, sign in enumerate(flips):
            if sign < 0:
                data = np.flip(data, array)
                origin = origin + columns[:, array] * (data.shape[array] - 1)
                columns[:, array] *= -1
        return np.ascontiguousarray(data), np.column_stack([columns, origin])

    return make


def test_slices_on_no_grid_are_taken_as_they_are_stacked(tiny_network: AnomalyCLIP) -> None:
    volume = MetaTensor(torch.rand(1, 20, 17, 3), affine=torch.diag(torch.tensor([5.0, 1, 1, 1])))
    free = SliceAnomalyInferer()(volume[None], tiny_network)
    assert free.meta["axes"][:, 0].tolist() == [0]
    volume.meta["stacked_axis"] = 2
    bound = SliceAnomalyInferer()(volume[None], tiny_network)
    assert bound.meta["axes"][:, 0].tolist() == [2]


# --- left and right


class Halves(Recorder):
    """A network that finds slices the more asymmetric the brighter they are."""

    symmetry = Symmetry(weight=4.0, usual=0.25)

    def asymmetry(self, images: torch.Tensor) -> torch.Tensor:
        return images.amax(dim=(1, 2, 3))


@pytest.mark.parametrize(
    ("plane", "meta", "weighed"),
    [
        ("axial", {"symmetric": 1}, True),
        ("coronal", {"symmetric": 1}, True),
        ("sagittal", {"symmetric": 1}, False),
        ("axial", {"symmetric": 0}, False),
        ("axial", {}, False),
    ],
)
def test_left_and_right_enter_scores_where_they_are_columns(
    any_affine: np.ndarray, plane: str, meta: dict[str, int], weighed: bool
) -> None:
    data = np.full((1, *SHAPE), 0.5, dtype=np.float32)
    inferer = SliceAnomalyInferer(plane, smooth_slices=0.0)
    result = inferer(_batch(data, any_affine, **meta), Halves())
    # logit(.5) = 0, and 4 * (.5 - .25) = 1
    expected = 1 / (1 + np.exp(-1)) if weighed else 0.5
    np.testing.assert_allclose(result.meta["slice_scores"], expected, rtol=1e-6)
    assert float(result.min()) == float(result.max()) == 0.5


def test_left_and_right_of_smoothed_slices_and_of_skipped_ones() -> None:
    data = np.zeros((1, 8, 6, 5), dtype=np.float32)
    data[..., 1:] = 0.5
    inferer = SliceAnomalyInferer("axial", smooth_slices=0.5)
    plain, weighed = (inferer(_batch(data, np.eye(4), symmetric=flag), Halves()) for flag in (0, 1))
    before, after = (found.meta["slice_scores"][0] for found in (plain, weighed))
    assert torch.equal(torch.as_tensor(plain), torch.as_tensor(weighed))
    torch.testing.assert_close(after[1:], (torch.logit(before[1:]) + 1).sigmoid())
    assert after[0] == before[0] > 0
