"""What the bundle says of its training is what the recipe trained on."""

from __future__ import annotations

import pytest

from anomalyclip_monai import resources
from anomalyclip_monai.engines.evaluation import TrainedOrgans, trained_organs
from recipes.tiny.organs.sets import FIRST_LESIONS, FIRST_ORGANS, RELATIVES, SETS

ROOT = resources.bundle_root("tiny")
LEFT_OUT = {one.name for one in SETS if not one.shipped}
LESIONS = {one.name for one in SETS if one.lesions and one.shipped} | set(FIRST_LESIONS)

WITH_LESIONS = {measured for measured, relatives in RELATIVES.items() if LESIONS & set(relatives)}
"""Measured sets with a relative whose lesions were trained on."""

SEEN_HEALTHY = {measured for measured, relatives in RELATIVES.items() if set(relatives) - LEFT_OUT} - WITH_LESIONS
"""Those of whose organ something was seen, but no lesion."""


@pytest.fixture
def trained() -> TrainedOrgans:
    found = trained_organs(ROOT)
    assert found is not None
    return found


def test_organs_with_lesions_are_those_of_the_sets_that_trained(trained: TrainedOrgans) -> None:
    assert {name for name in RELATIVES if trained.relatives(name)} == WITH_LESIONS
    assert set(RELATIVES) - WITH_LESIONS == {
        "kidney_stone_ct", "kidney_tumour_ct", "liver_us", "nasopharynx_mr", "ovary_us", "pancreas_mr"
    }  # fmt: skip


def test_organs_that_were_seen_healthy_are_named(trained: TrainedOrgans) -> None:
    healthy = TrainedOrgans(trained.without_lesions)
    assert {name for name in RELATIVES if healthy.relatives(name)} == SEEN_HEALTHY


def test_the_first_two_networks_saw_lesions_of_7_of_the_sets() -> None:
    first = TrainedOrgans(dict.fromkeys(FIRST_ORGANS, ""))
    seen = {name for name in RELATIVES if first.relatives(name)}
    assert len(seen) == 7
    related = {name for name, relatives in RELATIVES.items() if set(FIRST_LESIONS) & set(relatives)}
    assert related - seen == {"breast_dce_mr"}  # of breasts they saw lesions in ultrasound


def test_every_set_is_credited_or_named_as_left_out() -> None:
    text = (ROOT / "docs" / "data_license.txt").read_text(encoding="utf-8")
    credited, separator, left_out = text.partition("\nLEFT OUT\n")
    assert separator
    for one in SETS:
        assert (f"\n{one.name}\n" in credited) is one.shipped, one.name
        assert (one.name in left_out) is not one.shipped, one.name
