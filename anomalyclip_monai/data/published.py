"""The numbers that were published for AnomalyCLIP and what it was compared with.

Zhou et al., AnomalyCLIP, ICLR 2024 (arXiv 2310.18961): ViT-L/14@336px at 518 pixels, PRO with 200 thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping

METHODS = ("CLIP", "CLIP-AC", "AnomalyCLIP")
"""In the order of tables."""

_IMAGE = ("image_auroc", "image_ap")
_PIXEL = ("pixel_auroc", "pixel_pro_paper")


def _table(measures: tuple[str, ...], *rows: tuple[float, ...]) -> dict[str, dict[str, float]]:
    """Per cent of CLIP, CLIP-AC and AnomalyCLIP -> method -> measure -> value in [0, 1]."""
    return {
        method: {measure: round(value / 100, 4) for measure, value in zip(measures, row, strict=True)}
        for method, row in zip(METHODS, rows, strict=True)
    }


# MVTec AD and VisA: mean over the classes.
_INDUSTRIAL = (*_PIXEL, *_IMAGE)

PUBLISHED: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "headct": _table(_IMAGE, (56.5, 58.4), (60.0, 60.7), (93.4, 91.6)),
    "brainmri": _table(_IMAGE, (73.9, 81.7), (80.6, 86.4), (90.3, 92.2)),
    "br35h": _table(_IMAGE, (78.4, 78.8), (82.7, 81.3), (94.6, 94.7)),
    "covid19": _table(_IMAGE, (73.7, 42.4), (75.0, 45.9), (80.1, 58.7)),
    "isic": _table(_PIXEL, (33.1, 5.8), (36.0, 7.7), (89.7, 78.4)),
    "colondb": _table(_PIXEL, (49.5, 15.8), (49.5, 11.5), (81.9, 71.3)),
    "clinicdb": _table(_PIXEL, (47.5, 18.9), (48.5, 12.6), (82.9, 67.8)),
    "kvasir": _table(_PIXEL, (44.6, 17.7), (45.0, 16.8), (78.9, 45.6)),
    "endo": _table(_PIXEL, (45.2, 15.9), (46.6, 12.6), (84.1, 63.6)),
    "tn3k": _table(_PIXEL, (42.3, 7.3), (35.6, 5.2), (81.5, 50.4)),
    "mvtec": {"AnomalyCLIP": dict(zip(_INDUSTRIAL, (0.911, 0.814, 0.916, 0.964), strict=True))},
    "visa": {"AnomalyCLIP": dict(zip(_INDUSTRIAL, (0.955, 0.867, 0.820, 0.853), strict=True))},
}
"""Data set (a key of :data:`~anomalyclip_monai.data.benchmarks.LAYOUTS`) -> method -> measure -> value in [0, 1]."""


def published(dataset: str, method: str = "AnomalyCLIP") -> Mapping[str, float]:
    """Measures of a method on a set, in [0, 1]; empty where the paper has none."""
    return PUBLISHED.get(dataset, {}).get(method, {})
