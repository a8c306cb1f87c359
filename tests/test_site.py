"""The documentation site: it builds without a warning and without a network, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    """A module of ``docs/site``, which is no package."""
    spec = spec_from_file_location(f"site_{name}", ROOT / "docs" / "site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built where every way to the network ends at a closed port."""
    out = tmp_path_factory.mktemp("site")
    closed = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "all")}
    # Not --quiet, with which MkDocs does not count its warnings.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, **closed, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_there(site: Path) -> None:
    pages = {file.stem for file in (ROOT / "docs").glob("*.md")} | {"benchmarks", "changelog", "recipes/tiny"}
    assert [page for page in sorted(pages) if not (site / page / "index.html").is_file()] == []
    assert "Find lesions in organs" in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "images" / "demo.png").is_file()


def test_the_menu_names_a_page_once() -> None:
    menu = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(menu) > 15
    assert sorted(set(menu)) == sorted(menu)


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for file in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|img|link|iframe)\b[^>]*>", file.read_text(encoding="utf-8"))
        assert tags
        assert [tag for tag in tags if re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag)] == [], file


def test_the_reference_has_the_public_names(site: Path) -> None:
    text = (site / "python" / "index.html").read_text(encoding="utf-8")
    for name in ("api.localize", "outputs.Result", "transforms.ApplyPresetd", "networks.AnomalyCLIP", "metrics.auroc"):
        assert f'id="anomalyclip_monai.{name}"' in text, name
    assert ":func:" not in text
    assert ":class:" not in text


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "[all](docs/command.md)", "[all](command.md)"),
        ("index.md", "![head](docs/images/demo.png)", "![head](images/demo.png)"),
        ("index.md", "[card](bundles/anomalyclip_tiny/docs/README.md#x)", "[card](bundles/anomalyclip_tiny.md#x)"),
        ("index.md", "[CITATION.cff](CITATION.cff)", "`CITATION.cff`"),
        ("training.md", "[speed](../benchmarks/README.md#backbones)", "[speed](benchmarks.md#backbones)"),
        ("recipes/tiny.md", "[glare](../../docs/presets.md#glare)", "[glare](../presets.md#glare)"),
        ("recipes/tiny.md", "[stages.py](stages.py)", "`recipes/tiny/stages.py`"),
        ("recipes/tiny.md", "[the stages](stages.py)", "the stages (`recipes/tiny/stages.py`)"),
        ("training.md", "[nothing](nowhere.md)", "[nothing](nowhere.md)"),  # which the strict build refuses
        ("training.md", "[here](#here) [there](https://a.b/c)", "[here](#here) [there](https://a.b/c)"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(page: str, link: str, expected: str) -> None:
    known = {"command.md", "images/demo.png", "bundles/anomalyclip_tiny.md", "benchmarks.md", "presets.md"}
    assert load("pages").with_links_of_the_site(link, page, known) == expected


def test_roles_of_sphinx_become_plain_names() -> None:
    assert load("roles").without_roles("see :func:`~a.b.c`, :class:`D` and ``e``") == "see `c`, `D` and ``e``"
