"""A report of organs that was not measured: three sets, of which the training knew the brain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from made_report import made_measure, made_report, made_sample

from anomalyclip_monai.outputs.report.content import Measure
from recipes.evidence import Head, MeasuredOn, Measurement, Part
from recipes.evidence.parts import ORGAN_MEASURES

TITLES = {
    "pixel_auroc": "pixel AUROC",
    "pixel_auroc_lit": "lit field",
    "pixel_ap": "AP",
    "pixel_pro_exact": "PRO",
    "pointing": "pointing",
}

MakeOrgans = Callable[..., dict[str, Any]]


@pytest.fixture
def make_organs() -> MakeOrgans:
    """Values of the sets -> the content of a report.json; all five measures of a set have its value."""

    def measures(value: float, **over_sets: float) -> dict[str, Any]:
        return {
            name: made_measure(value, round(value - 0.1, 3), round(value + 0.1, 3)) | over_sets
            for name in ORGAN_MEASURES
        }

    def make(brain: float = 0.9, kidney: float = 0.5, liver: float = 0.6) -> dict[str, Any]:
        own = {"brain_mr": measures(brain), "kidney_ct": measures(kidney), "liver_us": measures(liver)}
        body = {name: measures(0.55) for name in own}
        untrained = measures((kidney + liver) / 2, classes_low=0.45, classes_high=0.65)
        method = {"seeds": [], "curves": {}}
        short = {"difference": 0.0, "low": -0.1, "high": 0.1, "p": 1.0, "classes_low": -0.05, "classes_high": 0.05}
        return made_report() | {
            "dataset": "organs",
            "protocol": {"name": "organs", "id": "organs-256", "text": "At 256 x 256."},
            "methods": {
                "anomalyclip": {
                    **method,
                    "title": "tiny",
                    "measures": measures((brain + kidney + liver) / 3),
                    "by_subset": {"untrained": untrained},
                    "by_category": own,
                },
                "body": {
                    **method,
                    "title": "centre of the body",
                    "measures": measures(0.55),
                    "by_subset": {"untrained": measures(0.55)},
                    "by_category": body,
                },
            },
            "measure_titles": TITLES,
            "published": {},
            "subsets": [{"name": "untrained", "title": "2 of 3 sets", "categories": ["kidney_ct", "liver_us"]}],
            "shortfalls": [
                {"baseline": "body", "measure": "pixel_ap", "subset": "untrained", **short},
                {"baseline": "body", "measure": "pointing", "subset": "untrained", **short, "difference": 0.01},
                {"baseline": "brightness", "measure": "pixel_ap", **short},
            ],
            "samples": {
                "sha256": "ab" * 32,
                "list": [
                    made_sample("b0", 1, 0.5, category="brain_mr", threshold=0.55),
                    made_sample("k0", 1, 0.5, category="kidney_ct", threshold=0.55),
                    made_sample("k1", 1, 0.5, category="kidney_ct", group="k0", threshold=0.55),
                    made_sample("l0", 0, 0.5, category="liver_us", threshold=0.55),
                ],
            },
            "failed": [],
        }

    return make


@pytest.fixture
def part() -> Part:
    """One number of one set."""
    head = Head("measured", "2026-11-30", "0123456789ab", "0.2.0", (0.5,), {"axes": 3}, {"bundle": "b"}, 10, 0)
    sets = {"lgg": MeasuredOn("TCGA-LGG", 6, 5, "native")}
    found = Measurement("lgg", "dice", "shipped", Measure(0.628, 0.455, 0.788))
    return Part(head, sets, {"dice": "Dice"}, (found,))
