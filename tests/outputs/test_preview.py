from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalyclip_monai.data.geometry import SliceView, resolve_slice_axis
from anomalyclip_monai.outputs import preview
from anomalyclip_monai.outputs.preview import choose_slices, colours, draw_preview, opacity
from anomalyclip_monai.transforms import Threshold

LEFT, TOP = 8, 34
"""Corner of the first panel."""

OUTLINE = (0, 255, 255)


def _draw(
    heatmap: np.ndarray,
    image: np.ndarray | float = 0.5,
    mask: np.ndarray | None = None,
    *,
    affine: np.ndarray | None = None,
    plane: str = "axial",
    threshold: float = 0.5,
    low: float | None = None,
    **options: Any,
) -> Image.Image:
    affine = np.diag([-1.0, -1, 1, 1]) if affine is None else affine
    anatomy = np.broadcast_to(np.float32(image), heatmap.shape).copy()
    axis = resolve_slice_axis(plane, affine, heatmap.shape)
    return draw_preview(
        torch.from_numpy(anatomy)[None],
        torch.from_numpy(heatmap.astype(np.float32))[None],
        torch.from_numpy((heatmap >= threshold if mask is None else mask).astype(np.uint8))[None],
        SliceView.upright(affine, axis),
        affine=affine,
        slice_scores=np.full(heatmap.shape[axis], 0.3),
        threshold=Threshold(threshold, threshold if low is None else low, "given"),
        score=0.3,
        **options,
    )


def _panel(picture: Image.Image, width: int, height: int) -> np.ndarray:
    return np.asarray(picture.crop((LEFT, TOP, LEFT + width, TOP + height))).astype(int)


# --- one fixed colour scale


def test_opacity_by_hand() -> None:
    np.testing.assert_allclose(opacity(np.array([0, 0.2, 0.45, 0.7, 1])), [0, 0, 0.3, 0.6, 0.6])


def test_colours_get_brighter_with_the_value() -> None:
    brightness = colours(np.linspace(0.2, 1, 50)) @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) > 0).all()


def test_a_flat_normal_case_leaves_the_anatomy_uncoloured() -> None:
    flat, none = np.full((64, 64, 1), 0.1), np.zeros((64, 64, 1))
    assert np.array_equal(np.asarray(_draw(flat)), np.asarray(_draw(none)))
    panel = _panel(_draw(flat), 384, 384)
    assert (panel == 128).all()  # grey .5, and nothing else


def test_the_same_value_has_the_same_colour_in_every_picture() -> None:
    mild, strong = np.full((64, 64, 1), 0.5), np.full((64, 64, 1), 0.5)
    strong[:10, :10] = 1
    nowhere = np.zeros((64, 64, 1))
    first = _panel(_draw(mild, mask=nowhere), 384, 384)
    second = _panel(_draw(strong, mask=nowhere), 384, 384)
    assert np.array_equal(first[300, 300], second[300, 300])
    # .36 of the colour of .5 over grey
    expected = 0.64 * 128 + 0.36 * colours(np.array(0.5))
    np.testing.assert_allclose(first[300, 300], expected, atol=1)


def test_a_lesion_stands_out_at_a_glance() -> None:
    heatmap = np.full((64, 64, 1), 0.1)
    heatmap[40:48, 20:28] = 0.9
    panel = _panel(_draw(heatmap), 384, 384)
    # 6 picture pixels a voxel; X runs to the right, Y down
    inside, around = panel[24 * 6, 44 * 6], panel[24 * 6, 10 * 6]
    assert np.abs(inside - around).max() > 60
    outline = np.argwhere((panel == OUTLINE).all(axis=-1))
    assert outline.min(axis=0) == pytest.approx([20 * 6, 40 * 6], abs=2)
    assert outline.max(axis=0) == pytest.approx([28 * 6, 48 * 6], abs=2)


def test_the_bar_shows_both_thresholds() -> None:
    def marked(threshold: float, low: float) -> list[int]:
        heatmap = np.zeros((64, 64, 1))
        picture = np.asarray(_draw(heatmap, threshold=threshold, low=low))[TOP : TOP + 384, 8 + 384 :]
        return [int(row) for row in np.flatnonzero((picture == OUTLINE).all(axis=-1).any(axis=1))]

    one = marked(0.75, 0.75)
    assert one == pytest.approx([0.25 * 383] * 2, abs=1)  # two rows
    assert set(one) < set(marked(0.75, 0.5))
    assert sorted(set(marked(0.75, 0.5)) - set(one)) == pytest.approx([0.5 * 383], abs=1)  # and a thin one


def test_no_colour_outside_a_region_of_interest() -> None:
    heatmap = np.full((64, 64, 1), 0.9)
    roi = torch.zeros(1, 64, 64, 1, dtype=torch.bool)
    roi[0, :32] = True
    panel = _panel(_draw(heatmap, mask=np.zeros((64, 64, 1)), roi=roi), 384, 384)
    assert (panel[:, 200:] == 128).all()
    assert (panel[:, :180] != 128).any(axis=-1).all()


# --- upright, in true proportion


@pytest.mark.parametrize(
    ("plane", "world", "quarter"),
    [
        ("axial", (-1, 1, 0), (0, 1)),  # left and anterior: top right
        ("coronal", (-1, 0, 1), (0, 1)),  # left and superior: top right
        ("sagittal", (0, 1, 1), (0, 0)),  # anterior and superior: top left
    ],
)
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
def test_slices_are_upright(
    plane: str, world: tuple[int, ...], quarter: tuple[int, int], signs: tuple[int, ...]
) -> None:
    affine = np.diag([*map(float, signs), 1.0])
    shape = [64, 64, 64]
    axis = ("sagittal", "coronal", "axial").index(plane)
    shape[axis] = 1
    image = np.zeros(shape, dtype=np.float32)
    part = tuple(
        slice(None) if side == 0 else slice(40, None) if side * sign > 0 else slice(0, 24)
        for side, sign in zip(world, signs, strict=True)
    )
    image[part] = 1
    panel = _panel(_draw(np.zeros(shape), image, affine=affine, plane=plane), 384, 384)[..., 0]
    brightness = panel.reshape(2, 192, 2, 192).mean(axis=(1, 3))
    assert np.unravel_index(brightness.argmax(), (2, 2)) == quarter
    assert brightness[quarter] > 100
    assert np.sort(brightness.ravel())[-2] < 1


def test_pixels_that_are_not_square() -> None:
    # coronal slices of 20 columns of 1 mm and 10 rows of 4 mm: 20 x 40 mm, twice as high as wide
    picture = _draw(np.zeros((20, 1, 10)), 1.0, affine=np.diag([1.0, 1, 4, 1]), plane="coronal")
    assert (_panel(picture, 192, 384) == 255).all()
    assert (np.asarray(picture)[TOP + 100, LEFT + 200] < 60).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 300, 1), (300, 2, 4), (5, 6, 7)])
def test_odd_sizes_are_drawn(shape: tuple[int, int, int]) -> None:
    assert _draw(np.full(shape, 0.6)).height > 0


def test_colour_anatomy_is_drawn_in_colour() -> None:
    image = torch.zeros(3, 8, 8, 1)
    image[0] = 1
    zero = torch.zeros(1, 8, 8, 1)
    affine = np.diag([-1.0, -1, 1, 1])
    picture = draw_preview(
        image, zero, zero.byte(), SliceView.upright(affine, 2), affine=affine, slice_scores=np.zeros(1),
        threshold=Threshold(0.5, 0.5, "given"), score=0.0,
    )  # fmt: skip
    assert _panel(picture, 384, 384)[100, 100].tolist() == [255, 0, 0]


# --- which slices


def test_the_most_abnormal_slices_in_their_order() -> None:
    scores = np.zeros(10)
    scores[[7, 2, 5, 9]] = [0.9, 0.8, 0.7, 0.6]
    assert choose_slices(scores, np.zeros(10)) == [2, 5, 7]
    assert choose_slices(scores[:2], np.zeros(2)) == [0, 1]
    assert choose_slices(scores[:1], np.zeros(1)) == [0]


def test_slices_are_a_twentieth_of_the_stack_apart_where_they_can_be() -> None:
    scores = np.zeros(100)
    scores[50:60] = np.linspace(0.9, 0.8, 10)
    assert choose_slices(scores, np.zeros(100)) == [0, 50, 55]
    # in a stack that short, neighbours are all there is
    assert choose_slices(np.array([0.1, 0.9, 0.8]), np.zeros(3)) == [0, 1, 2]


def test_of_equal_scores_the_one_with_more_mask() -> None:
    assert choose_slices(np.full(9, 0.5), np.array([0, 0, 0, 3, 0, 9, 0, 0, 1]), count=2) == [3, 5]


def test_large_pictures_are_drawn_in_bands_to_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    heat, image = random.random((50, 37), dtype=np.float32), random.random((3, 50, 37), dtype=np.float32)
    whole = [np.asarray(preview.blend(image, heat, (80, 60))), preview.scaled_to(heat, np.uint16)]
    monkeypatch.setattr(preview, "BAND_PIXELS", 100)
    bands = [np.asarray(preview.blend(image, heat, (80, 60))), preview.scaled_to(heat, np.uint16)]
    for one, other in zip(whole, bands, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole[1], np.round(heat * 65535).astype(np.uint16))


@pytest.mark.parametrize("shape", [(400, 300), (401, 303)])
def test_the_outline_of_a_large_mask_stays(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[100:300, 80:200] = 1
    drawn = []
    for limit in (2**24, 3000):
        monkeypatch.setattr(preview, "OUTLINE_PIXELS", limit)
        picture = Image.new("RGB", (75, 100))
        preview.draw_outline(picture, mask, OUTLINE, width=1)
        drawn.append(np.argwhere(np.asarray(picture)[..., 1] > 0))
    assert np.abs(drawn[0].min(axis=0) - drawn[1].min(axis=0)).max() <= 2
    assert np.abs(drawn[0].max(axis=0) - drawn[1].max(axis=0)).max() <= 2
