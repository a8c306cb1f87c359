"""The version stands in one place, and what repeats it says the same."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import anomalyclip_monai
from anomalyclip_monai import __version__
from anomalyclip_monai.resources import bundle_root

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_package_says_it_and_the_build_reads_it_there(project: dict[str, Any]) -> None:
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    source = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert source.samefile(anomalyclip_monai.__file__)
    assert re.findall(r'^__version__ = "(.*)"$', source.read_text(encoding="utf-8"), re.MULTILINE) == [__version__]


def test_the_citation_repeats_it() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == __version__


@pytest.mark.parametrize("name", ["anomalyclip_tiny", "anomalyclip_vitl14_336"])
def test_bundles_ask_for_it(name: str) -> None:
    metadata = json.loads((bundle_root(name) / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["required_packages_version"]["anomalyclip-monai"] == __version__
    assert metadata["version"] == next(iter(metadata["changelog"])), "the newest line of the bundle's own changelog"


def test_the_changelog_begins_with_it() -> None:
    versions = re.findall(r"^## (\S+?),", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == __version__
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert numbers == sorted(set(numbers), reverse=True)
