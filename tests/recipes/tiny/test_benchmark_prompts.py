"""The table of the recipe's ``benchmarks/prompts.py``: from which pictures, which difference and interval."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalyclip_monai.weights.choice import ModelChoice
from recipes.tiny.benchmarks import prompts
from recipes.tiny.sources import Picture


def pictures(ill: int, normal: int) -> list[tuple[str, Picture]]:
    """Grey 6 x 5 pictures, the first ``ill`` with a lesion of two pixels."""
    found = []
    for index in range(ill + normal):
        lesion = np.zeros((6, 5), np.uint8)
        lesion[2, 1:3] = index < ill
        found.append((f"{index:02}", Picture(np.full((6, 5, 1), index, np.uint8), lesion, np.ones_like(lesion))))
    return found


@pytest.mark.parametrize(
    ("there", "count", "expected"),
    [((30, 30), 20, (10, 10)), ((30, 4), 20, (16, 4)), ((6, 30), 20, (6, 14)), ((3, 2), 20, (3, 2))],
)
def test_half_of_the_pictures_are_normal_where_there_are_enough(
    there: tuple[int, int], count: int, expected: tuple[int, int]
) -> None:
    chosen = prompts.balanced(pictures(*there), count)
    ill = sum(bool(picture.lesion.any()) for _, picture in chosen)
    assert (ill, len(chosen) - ill) == expected
    assert len({name for name, _ in chosen}) == len(chosen)
    assert prompts.described(chosen) == f"{expected[0]} with and {expected[1]} without a lesion"


def test_pictures_are_written_with_their_masks_and_labels(tmp_path: Path) -> None:
    listed = prompts.written(pictures(1, 1), tmp_path / "learned")
    with open(listed, newline="") as file:
        ill, normal = csv.DictReader(file)
    assert (ill["label"], normal["label"], normal["mask"]) == ("abnormal", "normal", "")
    assert np.asarray(Image.open(normal["image"])).tolist() == [[1] * 5] * 6
    assert (np.asarray(Image.open(ill["mask"])) > 0).sum() == 2


def test_the_interval_is_of_the_difference_in_the_same_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = np.random.default_rng(0).uniform(0.2, 0.8, 1001)  # wide, but the difference is not
    gain = np.linspace(0.0, 0.2, 1001)
    out = tmp_path / "reports"
    (out / "csv").mkdir(parents=True)
    np.savez(out / "csv" / "bootstrap.npz", **{"anomalyclip/dice": by_hand + gain, "hand_written/dice": by_hand})

    def evaluate(part: Any, choice: Any, folder: Path, options: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        assert options["seeds"] == ["a.pt", "b.pt"]
        values = {"anomalyclip": 0.6, "hand_written": 0.5}
        methods = {name: {"measures": {"dice": {"value": value}}} for name, value in values.items()}
        return {"methods": methods, "measure_titles": {"dice": "Dice"}, "samples": {"count": 7}}, 1.0

    monkeypatch.setattr(prompts, "evaluate", evaluate)
    choice = ModelChoice(tmp_path, {})
    part = prompts.Part("held_out", "held-out patients", "csv", tmp_path / "list.csv")
    (row,) = prompts.rows_of("ultrasound", "2 pictures", part, choice, [Path("a.pt"), Path("b.pt")], out)
    assert row.interval == pytest.approx((0.005, 0.195))
    assert row.cells["difference [95 %]"] == "+10.0 [+0.5, +19.5]"
    assert row.cells["measured on"] == "held-out patients (7)"
