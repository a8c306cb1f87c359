"""Parts of the evidence from reports: which number goes where."""

from __future__ import annotations

from typing import Any

import pytest

from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.outputs.report.content import Measure, Report
from recipes.evidence.parts import Provenance, held_out_part, organs_part

FROM = Provenance("2026-11-30", "0123456789ab", "0.2.0")


def test_a_report_of_organs_gives_sets_means_and_baseline(make_organs: Any) -> None:
    part = organs_part(Report.from_json(make_organs()), FROM)
    assert {name: (one.title, one.images, one.groups) for name, one in part.sets.items()} == {
        "all": ("3 sets", 4, 3),
        "untrained": ("2 of 3 sets", 3, 2),
        "brain_mr": ("brain MR", 1, 1),
        "kidney_ct": ("kidney CT", 2, 1),  # both of one patient
        "liver_us": ("liver ultrasound", 1, 1),
    }
    assert part.value("brain_mr", "pixel_ap", "shipped") == 0.9
    assert part.value("brain_mr", "pixel_ap", "body") == 0.55
    assert part.find("untrained", "pixel_ap", "shipped") == Measure(
        0.55, 0.45, 0.65, classes_low=0.45, classes_high=0.65
    )
    assert part.find("all", "pixel_ap", "above body") is None  # of another baseline only
    assert part.value("untrained", "pointing", "above body") == 0.01
    assert (part.head.thresholds, part.head.repeats, part.head.origin) == ((0.55,), 1000, "measured")
    assert part.head.protocols == {"organs-256": "At 256 x 256."}
    assert part.head.weights == {"bundle": "anomalyclip_tiny", "weights_sha256": "cd" * 32}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset": "busi"}, "none of the organs"),
        ({"subsets": []}, "no mean over organs that were not trained"),
        ({"failed": [{"name": "a", "error": "E_READ: cut"}]}, "1 images failed"),
    ],
)
def test_a_report_that_says_less_is_refused(make_organs: Any, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        organs_part(Report.from_json(make_organs() | change), FROM)


def test_a_held_out_set_is_that_of_the_training_without_its_organ(make_organs: Any) -> None:
    def reports(**values: float) -> Report:
        return Report.from_json(make_organs(**values))

    part = held_out_part(
        {
            "brain": [reports(brain=0.7), reports(brain=0.8)],
            "kidney,liver": [reports(kidney=0.2, liver=0.4), reports(kidney=0.4, liver=0.4)],
        },
        FROM,
    )
    assert list(part.sets) == ["all", "brain_mr", "kidney_ct", "liver_us"]
    values = {name: [part.value(name, "pixel_ap", one) for one in ("seed 0", "seed 1", "seeds")] for name in part.sets}
    assert values["brain_mr"] == pytest.approx([0.7, 0.8, 0.75])
    assert values["kidney_ct"] == pytest.approx([0.2, 0.4, 0.3])
    assert values["all"] == pytest.approx([1.3 / 3, 1.6 / 3, 1.45 / 3])
    mean = part.find("all", "pixel_ap", "seeds")
    assert mean is not None
    assert (mean.low, mean.classes_low, mean.classes_high) == (None, pytest.approx(0.3), pytest.approx(0.75))
    assert part.value("all", "pixel_ap", "above body") == pytest.approx(1.45 / 3 - 0.55)
    assert part.sets["all"].images == 4
    assert "without kidney,liver, seed 1" in part.head.weights


def test_sets_of_which_no_network_was_trained_have_a_mean_of_their_own(make_organs: Any) -> None:
    def reports(weights: str, **values: float) -> list[Report]:
        model = {"bundle": "b", "weights_sha256": "the same", "weights_dino_sha256": weights}
        return [Report.from_json(make_organs(**values) | {"model": model, "subsets": []})]

    part = held_out_part(
        {"brain": reports("x", brain=0.7), "kidney,liver": reports("y", kidney=0.2, liver=0.4)},
        FROM,
        untrained=["kidney_ct", "liver_us", "heart_mr"],
        note="One of three was trained anew.",
    )
    assert list(part.sets)[:2] == ["all", "untrained"]
    assert (part.sets["untrained"].title, part.sets["untrained"].images) == (
        "2 of 3 sets whose organ was not trained",
        3,
    )
    assert part.value("untrained", "pixel_ap", "seeds") == pytest.approx(0.3)
    assert part.value("all", "pixel_ap", "seeds") == pytest.approx(1.3 / 3)
    assert part.head.protocols == {"organs-256": "At 256 x 256. One of three was trained anew."}
    assert part.head.weights == {"without brain, seed 0": "x", "without kidney,liver, seed 0": "y"}


@pytest.mark.parametrize(
    ("trainings", "said"),
    [
        ({"brain": 1, "kidney": 2}, "different numbers of seeds"),
        ({"brain": 1, "brain_mr": 1}, "brain_mr is shown by two trainings"),
        ({"heart": 1}, "no set shows heart"),
    ],
)
def test_trainings_that_do_not_go_together_are_refused(make_organs: Any, trainings: dict[str, int], said: str) -> None:
    report = Report.from_json(make_organs())
    with pytest.raises(UsageError, match=said):
        held_out_part({organs: [report] * seeds for organs, seeds in trainings.items()}, FROM)
