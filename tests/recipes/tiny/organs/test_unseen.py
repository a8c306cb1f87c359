"""Every organ measured by a third network that went without it."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from made_report import made_measure, made_report, made_sample

from anomalyclip_monai import resources
from anomalyclip_monai.data.benchmarks import find_samples
from anomalyclip_monai.exceptions import NoInputError
from anomalyclip_monai.outputs.report.content import Report
from recipes.evidence.parts import ORGAN_MEASURES
from recipes.tiny.organs import unseen
from recipes.tiny.organs.learning import Plan
from recipes.tiny.organs.sets import FOLDS, RELATIVES
from recipes.tiny.organs.store import read_features


@pytest.fixture
def organs(tmp_path: Path) -> Path:
    """A picture of every measured set."""
    folder = tmp_path / "of_others"
    rows = [[f"{name}/images/a, b.png", f"{name}/masks/a, b.png", "abnormal", name, name, "test"] for name in RELATIVES]
    for row in rows:
        for file in (folder / row[0], folder / row[1]):
            file.parent.mkdir(parents=True)
            file.write_text("a picture")
    with (folder / "organs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "mask", "label", "group", "category", "split"], *rows])
    return folder


def test_some_sets_are_chosen_by_links(organs: Path, tmp_path: Path) -> None:
    chosen = unseen.choose_sets(organs, ["liver_us", "bone_ct"], tmp_path / "some")
    samples = find_samples("organs", chosen)
    assert {sample.category for sample in samples} == {"liver_us", "bone_ct"}
    assert all(sample.image.read_text() == "a picture" for sample in samples)
    assert {path.name for path in chosen.iterdir()} == {"organs.csv", "liver_us", "bone_ct"}
    unseen.choose_sets(organs, ["liver_us", "bone_ct"], tmp_path / "some")  # again is the same


def test_a_set_that_is_not_there_is_named(organs: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="E_NO_INPUT: no images of heart_mr"):
        unseen.choose_sets(organs, ["liver_us", "heart_mr"], tmp_path / "some")
    with pytest.raises(NoInputError, match=r"E_NO_INPUT: no organs\.csv"):
        unseen.choose_sets(tmp_path / "nowhere", ["liver_us"], tmp_path / "some")


def test_the_bundle_of_a_fold_shares_its_files_with_the_shipped_one_but_for_the_third_network(tmp_path: Path) -> None:
    source = tmp_path / "anomalyclip_small"
    for name in ("configs/inference.json", "models/backbone.safetensors", "models/dino/image_encoder.safetensors"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    target = unseen.link_bundle(source, tmp_path / "fold")
    assert target.name == source.name
    assert os.path.samefile(source / "models/backbone.safetensors", target / "models/backbone.safetensors")
    assert not (target / "models/dino").exists()
    assert unseen.link_bundle(source, tmp_path / "fold") == target


def report_of(names: list[str], value: float, weights: str) -> Report:
    method: dict[str, Any] = {"title": "", "seeds": [], "measures": {}}
    method["by_category"] = {name: {one: made_measure(value) for one in ORGAN_MEASURES} for name in names}
    body = {**method, "by_category": {name: {one: made_measure(0.5) for one in ORGAN_MEASURES} for name in names}}
    samples = {"sha256": "ab" * 32, "list": [made_sample(name, 1, 0.5, category=name) for name in names]}
    content = made_report() | {"dataset": "organs", "failed": [], "subsets": [], "samples": samples}
    content |= {"methods": {"anomalyclip": method, "body": body}, "measure_titles": dict.fromkeys(ORGAN_MEASURES, "m")}
    content |= {"model": {"weights_sha256": "first", "weights_dino_sha256": weights}}
    return Report.from_json(content)


def test_the_table_has_every_set_by_the_training_that_went_without_it(
    made_features: Path, organs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(bundle: Path, organs: Path, out: Path, device: str) -> Report:
        assert (bundle / "models" / "dino" / "image_encoder.safetensors").is_file()
        names = sorted({sample.category for sample in find_samples("organs", organs)})
        value = 0.6 if "seeds_0" in out.name else 0.8
        return report_of(
            names, value - 0.2 * ("polyp_etis" in names), resources.sha256(bundle / unseen.FOLDER / "training.json")
        )

    monkeypatch.setattr(unseen, "evaluate", evaluate)
    part = unseen.measure_unseen(
        read_features(made_features),
        {"cls_token": torch.zeros(1, 1, 3)},
        torch.eye(8)[:2],
        organs,
        tmp_path / "out",
        seeds=[[0], [1]],
        plan=Plan(steps=2, hidden=8),
    )
    assert list(part.sets)[:2] == ["all", "untrained"]
    assert set(part.sets) == {"all", "untrained", *RELATIVES}
    assert (part.sets["all"].title, part.sets["all"].images) == ("20 sets whose organ was left out", 20)
    assert part.sets["untrained"].title == "13 of 20 sets whose organ no network was trained on"
    values = {name: [part.value(name, "pixel_ap", one) for one in ("seed 0", "seed 1", "seeds")] for name in part.sets}
    assert values["liver_us"] == pytest.approx([0.6, 0.8, 0.7])
    assert values["untrained"] == pytest.approx([0.6, 0.8, 0.7])
    assert values["all"] == pytest.approx([0.53, 0.73, 0.63])  # 7 of the 20 sets have .2 less
    third = {digest for name, digest in part.head.weights.items() if name.endswith("weights_dino_sha256")}
    assert len(third) == 2 * len(FOLDS)  # a network of its own for every fold and seed
