"""The page of a case: what it says, that it stands alone, and that nothing in it can become code."""

from __future__ import annotations

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_result import PHOTO, blob, made_result

from anomalyclip_monai.data import Source
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.folders.case_folder import hold
from anomalyclip_monai.folders.marker import MARKER, note_of, own_files
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.outputs.preview import colours
from anomalyclip_monai.outputs.report import niivue
from anomalyclip_monai.outputs.report.pages import RESEARCH_USE, policy_source
from anomalyclip_monai.outputs.report.viewer import page_of_files

SHAPE = (20, 16, 8)
EVIL = "</script><script>alert(1)</script><!--'\"&{{ 7 * 7 }}\n\u202e\udcff"


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its words, and the content of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.words += data

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def volume(affine: np.ndarray, **options: Any) -> Result:
    heatmap = np.maximum(blob(SHAPE, (6, 8, 3), 0.95, 2), blob(SHAPE, (15, 4, 6), 0.6, 1))
    return made_result(heatmap, affine, **options)


def photo(**options: Any) -> Result:
    return made_result(blob((30, 20, 1), (9, 5, 0), 0.9, 3), np.diag([-1.0, -1, 1, 1]), source=PHOTO, **options)


def test_a_volume_says_all_of_its_scores(any_affine: np.ndarray) -> None:
    result = volume(any_affine, min_volume=1)
    page = Page(result.page())
    for words in (
        "sub/case 1",
        f"score {result.score:.2f}",
        "2 lesions at threshold 0.55 with outlines from 0.35",
        "mr_brain (asked for)",
        "seen on 13 volumes",
        "1 mm3 at or above the threshold",
        "Radiological convention",
        "ab" * 32,
        "An empty mask does not mean health",
        RESEARCH_USE,
        *(f"{lesion.volume_mm3 / 1000:.2f}" for lesion in result.lesions if lesion.volume_mm3),
    ):
        assert words in page.words
    data = page.data
    assert (data["shape"], data["axis"], data["frames"]) == (list(SHAPE), 2, None)
    np.testing.assert_allclose(np.array(data["affine"]) @ np.array(data["inverse"]), np.eye(4), atol=1e-12)
    assert data["lesions"] == [list(lesion.centroid_voxel) for lesion in result.lesions]
    assert data["threshold"] == {"value": 0.55, "low": 0.35}
    assert len([tag for tag, attributes in page.tags if tag == "rect" and "id" not in attributes]) == SHAPE[2]


def test_a_photo_has_pixels_and_no_planes() -> None:
    result = photo()
    page = Page(result.page())
    assert "Pixels as they are stored; there is no physical size." in page.words
    assert "Radiological" not in page.words
    assert (page.data["planes"], len(page.data["frames"]["frames"]), page.data["physical"]) == (None, 1, False)
    assert str(result.lesions[0].voxels) in page.words
    assert "niivue" not in str(page.scripts[1])[:200]
    assert len(result.page()) < 100_000  # without the viewer of volumes


def test_slices_on_no_grid_are_shown_one_by_one(affines: dict[str, np.ndarray]) -> None:
    page = Page(volume(affines["oblique"], source=Source("dicom", regular=False)).page())
    assert "Slices on no common grid" in page.words
    assert (page.data["planes"], len(page.data["frames"]["frames"])) == (None, SHAPE[2])
    assert (page.data["physical"], page.data["letters"]) == (False, [])


def test_a_single_slice_in_mm_has_its_sides_marked() -> None:
    result = made_result(blob((30, 20, 1), (9, 5, 0), 0.9, 3), np.diag([1, 2.0, 5, 1]))
    data = Page(result.page()).data
    assert data["letters"] == ["R", "L", "A"]
    assert (data["frames"]["aspect"], data["frames"]["flips"]) == (2.0, [True, True])


def test_outside_of_a_region_of_interest_there_is_no_colour() -> None:
    roi = np.zeros((30, 20, 1), bool)
    result = made_result(np.full((30, 20, 1), 0.9, np.float32), np.diag([-1.0, -1, 1, 1]), source=PHOTO, roi=roi)
    bare = made_result(np.zeros((30, 20, 1), np.float32), np.diag([-1.0, -1, 1, 1]), source=PHOTO)
    assert Page(result.page()).data["frames"]["heatmaps"] == Page(bare.page()).data["frames"]["heatmaps"]


@pytest.mark.parametrize("make", [lambda: volume(np.diag([1.0, 1, 2, 1])), photo], ids=["volume", "photo"])
def test_a_page_stands_alone_and_runs_its_own_scripts_only(make: Any) -> None:
    text = make().page()
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "base", "form"}
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on")}
        for address in (attributes.get("src"), attributes.get("href")):
            assert address is None or address.startswith("data:image/"), tag
    assert not re.search(r"https?:|url\(|@import", text)
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'sha256-")
    assert policy_source(page.scripts[-1]) in policy
    viewer = base64.b64encode(bytes.fromhex(niivue.SHA256)).decode()
    assert (f"'sha256-{viewer}'" in policy) == bool(page.data["planes"])


def test_names_cannot_become_code(any_affine: np.ndarray) -> None:
    def structure(page: Page) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attributes)) for tag, attributes in page.tags]

    plain, evil = volume(any_affine), volume(any_affine, case=f"a{EVIL}", name=EVIL, chosen=EVIL, evidence=EVIL)
    evil.model = {f"bundle{EVIL}": EVIL, **{name: EVIL for name in plain.model if name != "bundle"}}
    plain.warnings, evil.warnings = ["one"], [EVIL]
    shown = Page(evil.page())
    assert structure(shown) == structure(Page(plain.page()))
    assert len(shown.scripts) == 3
    assert "{{ 7 * 7 }}" in shown.words
    assert r"\n\u202e\udcff" in shown.words


def test_colours_grow_lighter_all_the_way_for_every_eye() -> None:
    luminance = colours(np.linspace(0, 1, 256)) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()


def test_the_page_is_one_of_the_files_of_a_case(tmp_path: Path) -> None:
    result = photo()
    folder = result.save(tmp_path, report=True)
    assert (folder / "report.html").read_text() == result.page()
    assert "report.html" in own_files(folder)
    result.save(tmp_path)
    assert not (folder / "report.html").exists()  # a result is replaced as a whole


def test_a_page_can_be_added_to_what_is_there(tmp_path: Path, any_affine: np.ndarray) -> None:
    result = volume(any_affine)
    with hold(tmp_path / "a") as place:
        result.save_in(place, settings="of this run")
        before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.name != MARKER}
        page = page_of_files(tmp_path / "a", {"image": result.image, "source": result.source})
        with place.extend() as new:
            (new / "report.html").write_text(page)
    after = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.name != MARKER}
    assert {name: content for name, content in after.items() if name != "report.html"} == before
    assert note_of(tmp_path / "a")["settings"] == "of this run"
    assert note_of(tmp_path / "a")["files"] == sorted(after)
    whole, added = Page(result.page()).data, Page(page).data
    np.testing.assert_allclose(added.pop("inverse"), whole.pop("inverse"), atol=1e-4)
    np.testing.assert_allclose(added.pop("affine"), whole.pop("affine"), atol=1e-4)
    assert added == whole


def test_a_notebook_gets_a_widget_or_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Widget:
        def __init__(self, **options: Any) -> None:
            self.options = options

        def load_volumes(self, volumes: list[dict[str, Any]]) -> None:
            self.volumes = volumes

    result = volume(np.diag([1.0, 1, 2, 1]))
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    with pytest.raises(UsageError, match=r'^E_EXTRA: .* - pip install "anomalyclip-monai\[notebook\]"$'):
        result.show()
    monkeypatch.setitem(sys.modules, "ipyniivue", type("Fake", (), {"NiiVue": Widget}))
    shown = result.show()
    assert shown.options["is_radiological_convention"] is True
    assert [each["name"] for each in shown.volumes] == ["image.nii.gz", "heatmap.nii.gz"]
    assert photo().show().size == photo().preview().size
