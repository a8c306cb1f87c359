"""What a page shows is smaller than what is stored, and lies where that lies."""

from __future__ import annotations

import base64
import gzip
import io
import math

import nibabel as nib
import numpy as np
import pytest
from made_result import blob
from PIL import Image

from anomalyclip_monai.data.geometry import SliceView, closest_axes
from anomalyclip_monai.outputs.report import display
from anomalyclip_monai.outputs.report.display import (
    has_planes,
    reduce_blocks,
    reduced_affine,
    reduction,
    show_frames,
    show_volume,
)


@pytest.mark.parametrize(
    ("shape", "edges", "voxels", "factors"),
    [
        ((6, 4, 2), (1, 1, 1), 48, (1, 1, 1)),
        ((6, 4, 2), (1, 1, 1), 47, (2, 1, 1)),  # the first of equal edges
        ((6, 4, 2), (1, 2, 5), 24, (2, 1, 1)),
        ((6, 4, 2), (1, 2, 5), 8, (3, 2, 1)),  # 1, 2, 5 -> 2, 2, 5 -> 3, 2, 5 -> 3, 4, 5
        ((1, 4, 2), (1, 2, 2), 4, (1, 2, 1)),  # a single voxel is not made less
        ((6, 4, 2), (1, 1, 1), 1, (6, 4, 2)),
    ],
)
def test_the_finest_axes_are_reduced_first(shape, edges, voxels, factors) -> None:
    found = reduction(shape, np.array(edges, float), voxels)
    assert found == factors


def test_blocks_become_their_mean_and_their_maximum() -> None:
    values = np.zeros((1, 3, 2, 2), np.float32)
    values[0, :, :, 0] = [[0.0, 0.2], [0.4, 0.6], [1.0, 0.0]]
    means = reduce_blocks(values, (2, 1, 1), np.mean)[:, :, 0]
    np.testing.assert_array_equal(means, np.round(255 * np.array([[0.2, 0.4], [1.0, 0.0]])))  # the last row repeats
    np.testing.assert_array_equal(reduce_blocks(values, (2, 2, 2), np.max)[:, 0, 0], [153, 255])


def test_colours_become_grey() -> None:
    red = np.zeros((3, 1, 1, 1), np.float32)
    red[0] = 1
    assert reduce_blocks(red, (1, 1, 1), np.mean).tolist() == [[[round(255 * 0.299)]]]


def test_the_centre_of_a_block_stays_where_it_is(any_affine: np.ndarray) -> None:
    found = reduced_affine(any_affine, (2, 3, 1))
    inside = np.array([[x, y, 4] for x in (2, 3) for y in (6, 7, 8)])  # the stored voxels of block (1, 2, 4)
    centre = (any_affine[:3, :3] @ inside.T + any_affine[:3, 3:]).mean(axis=1)
    np.testing.assert_allclose(found[:3, :3] @ [1, 2, 4] + found[:3, 3], centre)


def _loaded(packed: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(packed))


def test_volumes_lie_where_the_stored_ones_lie(any_affine: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "HEATMAP_VOXELS", 8 * 6 * 3)
    shape = (16, 12, 6)
    heatmap = blob(shape, (11, 4, 2), 0.9, 2.5)
    shown = show_volume(heatmap[None] / 0.9, heatmap[None], heatmap[None] > 0.5, any_affine)
    image, warm = _loaded(shown.image), _loaded(shown.heatmap)
    for each in (image, warm):
        assert each.get_data_dtype() == np.uint8
        assert closest_axes(each.affine).tolist() == [[0, 1], [1, 1], [2, 1]]
        peak = np.append(np.unravel_index(np.asarray(each.dataobj).argmax(), each.shape), 1)
        edge = np.abs(each.affine[:3, :3]).sum(axis=1)
        expected = any_affine @ [11, 4, 2, 1]
        assert (np.abs(each.affine @ peak - expected)[:3] <= edge).all()
    assert math.prod(warm.shape) <= 8 * 6 * 3 < math.prod(image.shape) == math.prod(shape)
    assert [math.ceil(a / b) for a, b in zip(image.shape, shown.ratio, strict=True)] == list(warm.shape)
    assert warm.dataobj.slope == pytest.approx(1 / 255)
    assert shown.voxel == pytest.approx(abs(np.linalg.det(any_affine[:3, :3])) * math.prod(shown.ratio))
    mask = np.frombuffer(gzip.decompress(shown.mask), np.uint8).reshape(image.shape, order="F")
    np.testing.assert_array_equal(mask == 255, np.asarray(image.dataobj) > round(255 * 0.5 / 0.9))
    assert len(shown.notes) == 1
    assert shown.notes[0].startswith("The heatmap is shown in voxels of ")


def test_what_does_not_pack_well_is_reduced_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "PAGE_BYTES", 4000)
    noise = np.random.default_rng(0).random((1, 20, 24, 28), dtype=np.float32)
    shown = show_volume(noise, noise * 0.1, noise > 2, np.eye(4))
    assert sum(map(len, (shown.image, shown.heatmap, shown.mask))) <= 4000
    assert shown.notes[0].startswith("The image is shown in voxels of ")


@pytest.mark.slow
def test_any_256_cubed_stays_below_10_mb() -> None:
    noise = np.random.default_rng(0).random((1, 256, 256, 256), dtype=np.float32)
    shown = show_volume(noise, noise, noise > 0.99, np.eye(4))
    packed = sum(len(value) for value in shown.to_json().values() if isinstance(value, str))
    assert 2_000_000 < packed < 8_100_000  # the viewer itself takes 1.1 MB


@pytest.mark.parametrize(
    ("shape", "physical", "regular", "planes"),
    [
        ((9, 7, 5), True, True, True),
        ((9, 7, 1), True, True, False),
        ((9, 7, 5), False, True, False),
        ((9, 7, 5), True, False, False),
    ],
)
def test_planes_need_a_grid_in_mm(shape, physical, regular, planes) -> None:
    assert has_planes(shape, physical=physical, regular=regular) is planes


def _decoded(address: str) -> np.ndarray:
    kind, data = address.split(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert f"data:image/{picture.format.lower()}" == kind
        return np.asarray(picture)


def test_pictures_are_upright_and_their_flips_are_said() -> None:
    view = SliceView(axis=0, row_axis=2, column_axis=1, flip_rows=True, flip_columns=False)
    heatmap = np.zeros((1, 2, 7, 5), np.float32)
    heatmap[0, 1, 6, 4] = 1  # last column, and the first row once it is upright
    shown = show_frames(np.zeros_like(heatmap), heatmap, heatmap, view, 1.5)
    warm, mask = _decoded(shown.heatmaps[1]), _decoded(shown.masks[1])
    assert warm.shape == mask.shape == (5, 7)
    assert np.argwhere(warm).tolist() == np.argwhere(mask).tolist() == [[0, 6]]
    assert (shown.axes, shown.flips, shown.size, shown.aspect) == ((1, 2, 0), (False, True), (7, 5), 1.5)
    assert (shown.indices, shown.voxel, shown.notes) == ([0, 1], 1.0, [])
    assert not _decoded(shown.heatmaps[0]).any()


def test_a_long_cine_is_thinned_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "PAGE_BYTES", 60_000)
    colours = np.random.default_rng(0).random((3, 320, 200, 24), dtype=np.float32)
    heatmap = np.zeros_like(colours[:1])
    shown = show_frames(colours, heatmap, heatmap > 1, SliceView(2, 1, 0, False, False), 1.0)
    assert _decoded(shown.frames[0]).shape == (80, 128, 3)
    step = shown.indices[1]
    assert shown.indices == list(range(0, 24, step))
    assert sum(map(len, shown.frames + shown.heatmaps + shown.masks)) <= 60_000 * 4 / 3 + 100 * len(shown.indices)
    assert shown.notes == [
        "Slices are shown with 128 x 80 of their 320 x 200 pixels.",
        f"Only one of {step} slices is shown.",
    ]
