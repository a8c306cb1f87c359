"""The report of a case in a real browser: nothing is loaded, lesions are where they are said to be, sliders work."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Page
from made_result import PHOTO, blob, made_result
from PIL import Image

from anomalyclip_monai.data.geometry import voxel_volume
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.outputs.report import display
from anomalyclip_monai.transforms.outline import lesion_components

pytestmark = pytest.mark.browser

SHAPE = (40, 34, 17)
EVIL = "</script><img src=x onerror='window.evil = 1'><!--\u202e"


def with_lesions(shape: tuple[int, int, int], sigma: float) -> np.ndarray:
    """A large lesion, a small one, and one that only a lower threshold finds."""
    places = (((0.25, 0.3, 0.5), 0.95, sigma), ((0.75, 0.7, 0.3), 0.8, 0.6 * sigma), ((0.7, 0.2, 0.8), 0.5, sigma))
    blobs = [blob(shape, [a * (n - 1) for a, n in zip(at, shape, strict=True)], peak, s) for at, peak, s in places]
    return np.maximum.reduce(blobs)


def volume(affine: np.ndarray, **options: Any) -> Result:
    return made_result(with_lesions(SHAPE, 3.0), affine, **options)


def opened(page: Page, result: Result, folder: Path) -> Page:
    """The page of a result, once it can be used; nothing was asked for and nothing went wrong."""
    page.open(result.save(folder, report=True) / "report.html")
    assert page.evaluate("window.report.ready") is True
    assert (page.requests, page.problems) == ([], [])
    return page


def cross_hair(page: Page) -> np.ndarray:
    """RAS mm where NiiVue has it."""
    script = "(view => Array.from(view.frac2mm(view.scene.crosshairPos)))(report.state.stage.view)"
    return np.array(page.evaluate(script)[:3])


def picture(page: Page) -> np.ndarray:
    """(H, W, 3) of the window."""
    with Image.open(io.BytesIO(page.shot())) as shot:
        return np.asarray(shot.convert("RGB")).astype(int)


def slide(page: Page, name: str, value: float) -> None:
    page.evaluate(f"(field => {{field.value = {value}; field.dispatchEvent(new Event('input'))}})(byId('{name}'))")


def test_a_lesion_is_a_click_away(page: Page, tmp_path: Path, any_affine: np.ndarray) -> None:
    result = volume(any_affine)
    opened(page, result, tmp_path)
    edges = np.abs(any_affine[:3, :3]).sum(axis=1)  # of a voxel, along R, A and S
    for index, lesion in reversed(list(enumerate(result.lesions))):
        page.click(f"[data-lesion='{index}'] button")
        assert (np.abs(cross_hair(page) - lesion.centroid_world_mm) <= edges).all()
        voxel = [int(value + 0.5) for value in lesion.centroid_voxel]
        said = page.evaluate("byId('place').textContent")
        assert said.startswith(f"voxel {', '.join(map(str, voxel))} ")
        shown = float(said.rsplit(" ", 1)[1])
        assert shown == pytest.approx(float(result.heatmap[0][tuple(voxel)]), abs=0.02)
    assert (page.requests, page.problems) == ([], [])


def test_the_chart_and_the_keys_lead_through_the_slices(page: Page, tmp_path: Path, any_affine: np.ndarray) -> None:
    result = volume(any_affine)
    opened(page, result, tmp_path)
    page.click("#chart")
    middle = SHAPE[2] // 2
    at = "Math.round(report.state.voxel[2])"
    assert page.evaluate(at) == middle
    voxel = np.linalg.inv(any_affine) @ [*cross_hair(page), 1]
    assert voxel[2] == pytest.approx(middle, abs=0.01)
    assert f"score {result.slice_scores[middle]:.2f}" in page.evaluate("byId('slice-said').textContent")
    page.press("j")
    assert page.evaluate(at) == middle + 1
    page.press("k")
    page.press("k")
    assert page.evaluate(at) == middle - 1
    page.press("n")
    page.press("n")
    assert page.evaluate("report.state.lesion") == 0  # from the first to the second, and round
    page.press("5")
    assert page.evaluate("document.querySelector('[data-view=\"3D\"]').getAttribute('aria-pressed')") == "true"
    page.evaluate("byId('canvas').focus()")
    before = page.evaluate(at)
    page.press("ArrowDown")
    assert page.evaluate(at) == max(before - 1, 0)
    assert page.problems == []


@pytest.mark.parametrize(
    ("value", "low", "smallest"), [(0.45, 0.35, 0), (0.9, 0.6, 0), (0.75, 0.2, 0), (0.75, 0.2, 90)]
)
def test_thresholds_find_the_lesions_of_the_product(
    page: Page, tmp_path: Path, affines: dict[str, np.ndarray], value: float, low: float, smallest: int
) -> None:
    affine = affines["oblique"]
    heatmap = np.round(255 * with_lesions(SHAPE, 3.0)).astype(np.float32) / 255  # 8 bit, as the page holds it
    voxel = voxel_volume(affine)
    opened(page, made_result(heatmap, affine, min_volume=smallest * voxel), tmp_path)
    assert page.evaluate("byId('mask-said').textContent") == "The mask as it is stored."
    before = picture(page)
    slide(page, "value", value)
    slide(page, "low", low)
    rounded = [np.round(255 * number) / 255 - 1e-6 for number in (value, low)]
    lesions = lesion_components(heatmap, *rounded, smallest=max(1, smallest))
    count, size = lesions.max(), (lesions > 0).sum() * voxel / 1000
    plural = "" if count == 1 else "s"
    said = page.evaluate("byId('mask-said').textContent")
    assert said == f"Not as stored: {count} lesion{plural}, {size:.2f} ml, from what this page shows."
    assert (picture(page) != before).any()
    page.press("r")
    assert page.evaluate("byId('mask-said').textContent") == "The mask as it is stored."
    assert page.problems == []


def test_a_coarser_heatmap_gives_an_outline_on_the_grid_of_the_image(
    page: Page, tmp_path: Path, any_affine: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "HEATMAP_VOXELS", np.prod(SHAPE) / 7)
    result = volume(any_affine)
    opened(page, result, tmp_path)
    drawn = "report.state.stage.view.drawBitmap.reduce((sum, value) => sum + value, 0)"
    assert page.evaluate(drawn) == result.mask.sum()
    slide(page, "value", 0.56)  # the same lesions, out of means of blocks
    assert page.evaluate(drawn) == pytest.approx(float(result.mask.sum()), rel=0.25)


MIDDLE_OF_THE_DRAWING = """(({view, image}) => {
  const [, width, height] = image.dimsRAS, sum = [0, 0, 0];
  let count = 0;
  view.drawBitmap.forEach((value, at) => {
    if (!value) return;
    count++;
    [at % width, Math.floor(at / width) % height, Math.floor(at / width / height)].forEach((x, i) => sum[i] += x);
  });
  return Array.from(image.vox2mm(sum.map(x => x / count), image.matRAS)).slice(0, 3);
})(report.state.stage)"""


@pytest.mark.parametrize("degrees", [0, 44.9, 45.1, 200])
def test_the_outline_lies_on_the_lesions(page: Page, tmp_path: Path, degrees: float) -> None:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cosine, -sine, 0, 7], [sine, cosine, 0, -5], [0, 0, 1, 3], [0, 0, 0, 1]])
    affine = turn @ np.diag([1, -1.5, 2, 1])
    result = volume(affine)
    opened(page, result, tmp_path)
    middle = np.argwhere(np.asarray(result.mask[0])).mean(axis=0)
    found = page.evaluate(MIDDLE_OF_THE_DRAWING)
    np.testing.assert_allclose(found, (affine @ [*middle, 1])[:3], atol=0.01)


def test_the_patients_left_is_on_the_right(page: Page, tmp_path: Path, any_affine: np.ndarray) -> None:
    image = np.zeros((1, *SHAPE), np.float32)
    centre = any_affine @ [*(np.array(SHAPE) / 2 - 0.5), 1]
    voxels = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) @ any_affine[:3, :3].T
    image[0] = voxels[..., 0] + any_affine[0, 3] < centre[0]  # the left half of the patient is white
    opened(page, made_result(np.zeros(SHAPE, np.float32), any_affine, image=image), tmp_path)
    for view in ("axial", "coronal"):
        page.click(f"[data-view='{view}']")
        corner = "(box => [box.left, box.top, box.width, box.height])(byId('canvas').getBoundingClientRect())"
        left, top, width, height = (round(number) for number in page.evaluate(corner))
        canvas = picture(page)[top : top + height, left : left + width].sum(axis=2)
        rows = canvas[height // 2 - 20 : height // 2 + 20]
        assert (rows > 600).sum() > 1000
        columns = np.argwhere(rows > 600)[:, 1]
        assert columns.mean() > width / 2 + 10


def test_a_cine_has_frames_and_the_same_controls(page: Page, tmp_path: Path) -> None:
    shape = (60, 40, 6)
    result = made_result(with_lesions(shape, 2.0), np.diag([-1.0, -1, 1, 1]), source=PHOTO)
    opened(page, result, tmp_path)
    for index, lesion in enumerate(result.lesions):
        page.click(f"[data-lesion='{index}'] button")
        assert page.evaluate("report.state.voxel") == pytest.approx(lesion.centroid_voxel)
    before = picture(page)
    slide(page, "value", 0.45)
    slide(page, "low", 0.9)
    assert page.evaluate("byId('low-said').textContent") == "0.45"  # never above the other
    assert page.evaluate("byId('mask-said').textContent").startswith("Not as stored: 3 lesions, ")
    page.press("r")
    page.press("h")
    assert page.evaluate("byId('opacity-said').textContent") == "0.00"
    assert (picture(page) != before).any()
    page.press("k")
    x, y = page.evaluate("report.state.stage.placeOf([15, 30, 0])")
    assert page.evaluate(f"report.state.stage.voxelAt({x}, {y}).slice(0, 2)") == [15, 30]
    assert page.problems == []


def test_a_click_on_a_photo_moves_the_cross_hair_there(page: Page, tmp_path: Path) -> None:
    opened(page, made_result(with_lesions((61, 41, 1), 4.0), np.diag([-1.0, -1, 1, 1]), source=PHOTO), tmp_path)
    page.click("#canvas")
    assert page.evaluate("report.state.voxel.slice(0, 2)") == [30, 20]
    assert page.evaluate("byId('place').textContent").startswith("voxel 30, 20, 0 · heatmap ")


@pytest.mark.parametrize("planes", [True, False], ids=["volume", "photo"])
def test_a_phone_scrolls_down_only(page: Page, tmp_path: Path, planes: bool) -> None:
    affine = np.diag([1.0, 1, 2, 1])
    name = "a" * 120 + "/" + "0123456789" * 12
    shape = SHAPE if planes else (*SHAPE[:2], 1)
    page.resize(390, 844)
    try:
        result = made_result(with_lesions(shape, 3.0), affine, case=name, source=None if planes else PHOTO)
        opened(page, result, tmp_path)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    finally:
        page.resize(1280, 900)


def test_names_of_others_stay_text(page: Page, tmp_path: Path) -> None:
    result = volume(np.diag([1.0, 1, 2, 1]), name=EVIL, evidence=EVIL)
    result.case, result.warnings = EVIL, [EVIL]
    file = tmp_path / "report.html"
    file.write_text(result.page())
    page.open(file)
    assert page.evaluate("window.report.ready") is True
    assert page.evaluate("window.evil") is None
    assert page.evaluate("document.querySelector('h1').textContent") == EVIL.replace("\u202e", r"\u202e")
    assert (page.requests, page.problems) == ([], [])


def test_without_webgl_the_preview_is_there_and_a_line_why(
    page_without_webgl: Page, tmp_path: Path, affines: dict[str, np.ndarray]
) -> None:
    page_without_webgl.open(volume(affines["oblique"]).save(tmp_path, report=True) / "report.html")
    assert page_without_webgl.evaluate("window.report.ready") is False
    said = page_without_webgl.evaluate("byId('instead').innerText")
    assert said == "The images cannot be shown here: This browser has no WebGL 2. This is the preview."
    shown = page_without_webgl.evaluate
    assert shown("byId('preview').naturalWidth > 400 && byId('preview').offsetHeight > 100")
    assert shown("document.querySelector('.lesions').offsetHeight > 20")
    assert not shown("byId('live').offsetHeight")
