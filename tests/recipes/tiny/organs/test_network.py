"""The third network of kept features with the record of its training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from anomalyclip_monai import resources
from recipes.tiny.organs.learning import Plan
from recipes.tiny.organs.network import make_network, text_features
from recipes.tiny.organs.store import Features, read_features

PLAN = Plan(steps=30, hidden=8)
TRUNK = {"cls_token": torch.zeros(1, 1, 3)}
TEXT = torch.eye(8)[:2]


@pytest.fixture
def features(made_features: Path) -> Features:
    return read_features(made_features)


def test_the_record_says_what_the_weights_were_made_of(features: Features, tmp_path: Path) -> None:
    said: list[str] = []
    record = make_network(features, TRUNK, TEXT, tmp_path / "dino", seeds=(4, 7), plan=PLAN, log=said.append)
    assert json.loads((tmp_path / "dino" / "training.json").read_text()) == record
    assert record["weights_sha256"] == resources.sha256(tmp_path / "dino" / "image_encoder.safetensors")
    assert (record["seeds"], record["plan"]["steps"]) == ([4, 7], 30)
    assert [stage["name"] for stage in record["stages"]] == ["member of seed 4", "member of seed 7"]
    assert [len(stage["curve"]) for stage in record["stages"]] == [2, 2]  # means of 25 and of 5 steps
    assert said[0].startswith("seed 4: loss ")
    # The set that may not be shipped is neither learned from nor in the list of data.
    assert set(record["squares"]) == {"brest_usg_tcia", "healthy_knee_mr", "colonoscopy", "surface"}
    assert set(record["data_sha256"]) == {"brest_usg_tcia", "healthy_knee_mr", "kvasir_256"}
    tensors = safetensors.torch.load_file(tmp_path / "dino" / "image_encoder.safetensors")
    assert tensors["visual.neck.members.1.leave.weight"].shape == (8, 8)
    assert torch.equal(tensors["visual.neck.reduce.weight"], features.reduction.weight.half())


def test_organs_are_left_out_with_their_relatives(features: Features, tmp_path: Path) -> None:
    measured = ["breast_us_busbra", "polyp_etis"]
    record = make_network(features, TRUNK, TEXT, tmp_path, seeds=[0], measured=measured, plan=PLAN)
    assert set(record["squares"]) == {"healthy_knee_mr", "surface"}
    assert set(record["data_sha256"]) == {"healthy_knee_mr"}
    assert {"brest_usg_tcia", "kvasir_256", "edd2020_endoscopy"} <= set(record["left_out"])


def test_the_same_training_is_not_done_twice(features: Features, tmp_path: Path) -> None:
    def train(seed: int) -> list[str]:
        said: list[str] = []
        make_network(features, TRUNK, TEXT, tmp_path, seeds=[seed], plan=PLAN, log=said.append)
        return said

    assert len(train(0)) == 1
    assert train(0) == []
    assert len(train(1)) == 1
    (tmp_path / "image_encoder.safetensors").write_text("damaged")
    assert len(train(1)) == 1


def test_the_anchors_are_those_of_the_shipped_prompts() -> None:
    text = text_features()
    assert text.shape == (2, 128)
    assert text.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-3)
    assert text[0] @ text[1] < 0.9  # normal and abnormal are told apart
