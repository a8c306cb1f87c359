"""The content of a ``report.json`` that was not measured, for tests of what is made of one."""

from __future__ import annotations

from typing import Any


def made_sample(name: str, label: int, score: float, dice: float | None = None, **other: Any) -> dict[str, Any]:
    """An entry of its list of samples."""
    sample = {"name": name, "label": label, "category": "demo", "group": name, "score": score, "peak": score}
    sample |= {"pointing": None, "dice": dice, "brightness": 0.25, "seconds": 0.5}
    return sample | {"axes": 1, "threshold": 0.5, "threshold_low": 0.25} | other


def made_measure(
    value: float, low: float | None = None, high: float | None = None, sd: float | None = None
) -> dict[str, Any]:
    """A measure of it that has a value."""
    return {"value": value, "low": low, "high": high, "sd": sd}


def made_report() -> dict[str, Any]:
    """12 cases of which 9 are abnormal, two published values, an undefined measure, a failed case."""
    samples = [
        made_sample(f"a{index}", 1, 0.1 * index + 0.05, index / 8, pointing=float(index > 4)) for index in range(9)
    ]
    samples += [made_sample(f"n{index}", 0, 0.1 * index) for index in range(3)]
    curves = {
        "roc": [[0, 0], [0.25, 0.75], [1, 1]],
        "pr": [[0, 1], [0.5, 0.9], [1, 0.75]],
        "pro": [[0, 0], [0.1, 0.5], [0.3, 0.75]],
        "froc": [[0, 0.25], [2, 0.5], [1, 0.75]],
    }
    own = {
        "image_auroc": made_measure(0.8244, 0.801, 0.849),
        "pixel_pro_paper": made_measure(0.7, 0.65, 0.75),
        "dice": made_measure(0.5),
        "best_threshold": made_measure(0.4321),
        "normal_false_ml": made_measure(4.26, 1.0, 9.0),
    }
    return {
        "schema": "anomalyclip-report/1",
        "asked": "ef" * 32,
        "dataset": "demo",
        "title": "Demo set",
        "complete": False,
        "note": "12 of the 380 images of the published set",
        "trained_on": "",
        "protocol": {"name": "paper", "id": "paper-518-pro200", "text": "Squashed to 518 x 518."},
        "methods": {
            "anomalyclip": {
                "title": "AnomalyCLIP tiny",
                "seeds": ["shipped"],
                "model": {"bundle": "anomalyclip_tiny"},
                "measures": own,
                "by_category": {"demo": own},
                "curves": curves,
            },
            "brightness": {
                "title": "brightness",
                "seeds": [],
                "measures": {"image_auroc": made_measure(0.6, 0.5, 0.7), "pixel_pro_paper": {"undefined": "no lesion"}},
                "by_category": {},
                "curves": {"pr": [[0.5, 0.5], [1, 0.7]]},
            },
        },
        "measure_titles": {
            "dice": "Dice",
            "image_auroc": "image AUROC",
            "pixel_pro_paper": "PRO (paper)",
            "best_threshold": "threshold at F1-max",
            "normal_false_ml": "false mask",
        },
        "curve_titles": {"roc": "ROC of pixels"},
        "primary": ["image_auroc", "image_ap", "pixel_pro_paper"],
        "published": {"image_auroc": 0.819, "pixel_pro_paper": 0.713},
        "comparison": None,
        "samples": {"count": 12, "normal": 3, "abnormal": 9, "groups": 12, "sha256": "ab" * 32, "list": samples},
        "failed": [{"name": "bad", "error": "E_READ: the file is cut short (bad.png) - copy it again"}],
        "bootstrap": {"unit": "group", "repeats": 1000, "seed": 0},
        "model": {"bundle": "anomalyclip_tiny", "weights_sha256": "cd" * 32},
        "options": {"preset": "auto", "axes": 3},
        "versions": {"anomalyclip-monai": "0.1.0"},
        "device": "cpu",
        "seconds": 12.34,
        "warnings": ["the threshold 0.5 is uncalibrated"],
    }
