"""The content of ``report.json`` and the views of single cases."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from anomalyclip_monai.data.geometry import SliceView, spacing
from anomalyclip_monai.data.published import published
from anomalyclip_monai.engines.evaluation import photos, volumes
from anomalyclip_monai.engines.evaluation.evaluation import SCHEMA, Evaluation
from anomalyclip_monai.engines.evaluation.measured import ClassMeasures, SetMetric
from anomalyclip_monai.engines.evaluation.methods import TRIVIAL, Pass
from anomalyclip_monai.engines.evaluation.summary import Summary, compare, draws_of, summarise
from anomalyclip_monai.exceptions import AnomalyCLIPError
from anomalyclip_monai.metrics.weighted import Rows
from anomalyclip_monai.outputs.report import CaseView
from anomalyclip_monai.resources import installed_version
from anomalyclip_monai.transforms.post import Threshold
from anomalyclip_monai.types import Record

_VERSIONED = ("anomalyclip-monai", "monai", "torch", "open_clip_torch", "numpy")
MOST_NOTES = 8
"""Different notes of readers that a report repeats."""

FEW_GROUPS = 10
"""With fewer groups a percentile interval covers much less than it says."""

_PRIMARY_PHOTOS = ("image_auroc", "image_ap", "pixel_auroc")
_PRIMARY_VOLUMES = ("slice_auroc", "voxel_auroc_inside", "dice", "slice_pointing")


def build_report(
    evaluation: Evaluation,
    metrics: Mapping[Pass | str, SetMetric],
    *,
    failed: Sequence[tuple[str, AnomalyCLIPError]],
    notes: Sequence[str],
    seconds_of: Mapping[str, float],
    planes_of: Mapping[str, int],
    thresholds_of: Mapping[str, Threshold],
    image_score: str,
    device: str,
    seconds: float,
) -> tuple[dict[str, Any], dict[str, Rows]]:
    """Content of ``report.json`` (JSON types, no NaN), and the resampled values of every method's measures.

    Args:
        evaluation: what was asked for.
        metrics: the metric of each pass, and of each trivial baseline under its name, after their epoch.
        failed: samples that could not be measured, or whose pixels could not.
        notes: what reading them changed, see :func:`grouped_notes`.
        seconds_of: sample -> seconds in the network.
        planes_of: sample -> number of axes along which slices were taken.
        thresholds_of: sample -> the threshold of its mask.
        image_score: kind of image score of the network.
        device: where the network ran.
        seconds: of the whole run.
    """
    first = metrics[evaluation.passes[0]]
    draws = draws_of(first.samples, repeats=evaluation.bootstrap, seed=Evaluation.SEED)
    methods: dict[str, Any] = {}
    rows: dict[str, Rows] = {}
    for method in evaluation.methods:
        runs = [run for run in evaluation.passes if run.method == method]
        seeds = [metrics[run].classes for run in runs] or [metrics[method].classes]
        summary = summarise(seeds, draws)
        methods[method] = _method(evaluation, method, runs, summary, seeds)
        rows |= {f"{method}/{name}": found for name, found in summary.rows.items()}
    thresholds = {planes_of[name]: thresholds_of[name] for name in _by_name(first)}
    samples = [
        {**sample, "axes": planes_of[sample["name"]], "threshold": thresholds_of[sample["name"]].value}
        for sample in _samples(first, metrics.get("brightness"), seconds_of)
    ]
    complete, note = evaluation.completeness()
    protocol = evaluation.protocol
    titles = volumes.TITLES if protocol.volumes else photos.TITLES
    known = {name for method in methods.values() for name in method["measures"]}
    fixed = threshold_text(thresholds)
    primary = [*_PRIMARY_VOLUMES] if protocol.volumes else [*_PRIMARY_PHOTOS, protocol.pro]
    if protocol.volumes and not all(sample["label"] for sample in samples):
        primary.append("normal_false_ml")
    warnings = [
        f"the threshold {threshold.value:g} is uncalibrated: it was not fitted for this model"
        for threshold in dict.fromkeys(thresholds.values())
        if threshold.origin == "uncalibrated"
    ]
    groups = len({(sample["category"], sample["group"]) for sample in samples})
    if evaluation.bootstrap and 1 < groups < FEW_GROUPS:
        warnings.append(f"intervals rest on {groups} groups (patients, sequences) only and are too narrow")
    warnings += notes
    comparison = _comparison(evaluation, methods, rows, samples, warnings)
    report = {
        "schema": SCHEMA,
        "asked": evaluation.asked(),
        "dataset": evaluation.dataset,
        "title": evaluation.title,
        "complete": complete,
        "note": note,
        "trained_on": evaluation.trained_on,
        "protocol": {
            "name": protocol.name,
            "id": protocol.id,
            "text": protocol.text(image_score=image_score, threshold=fixed, options=evaluation.options),
        },
        "methods": methods,
        "measure_titles": {name: title for name, title in titles.items() if name in known},
        "curve_titles": _curve_titles(methods, protocol.volumes),
        "primary": primary,
        "published": dict(published(evaluation.dataset)),
        "comparison": comparison,
        "samples": {
            "count": len(samples),
            "normal": sum(not sample["label"] for sample in samples),
            "abnormal": sum(bool(sample["label"]) for sample in samples),
            "groups": groups,
            "sha256": evaluation.sha256,
            "list": samples,
        },
        "failed": [{"name": name, "error": str(error)} for name, error in failed],
        "bootstrap": {"unit": "group", "repeats": evaluation.bootstrap, "seed": Evaluation.SEED},
        "model": evaluation.fingerprint(),
        "options": {key: _plain(value) for key, value in evaluation.options.items()},
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in _VERSIONED}},
        "device": device,
        "seconds": round(seconds, 1),
        "warnings": warnings,
    }
    return report, rows


def grouped_notes(notes_of: Mapping[str, Sequence[str]]) -> list[str]:
    """Sample -> its notes; -> each note once with the samples that have it, at most :data:`MOST_NOTES` of them."""
    names: dict[str, list[str]] = {}
    for name, notes in notes_of.items():
        for note in dict.fromkeys(notes):
            names.setdefault(note, []).append(name)
    ordered = sorted(names.items(), key=lambda found: -len(found[1]))
    lines = [
        f"{found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {note}"
        for note, found in ordered[:MOST_NOTES]
    ]
    if rest := ordered[MOST_NOTES:]:
        lines.append(f"{len(rest)} more notes of this kind, the first of {rest[0][1][0]}: {rest[0][0]}")
    return lines


def threshold_text(thresholds: Mapping[int, Threshold]) -> str:
    """Value and origin of the fixed threshold; the values by the number of axes where a set has several.

    Args:
        thresholds: number of axes -> threshold of the samples whose slices were taken along so many.
    """
    if not thresholds:
        return "none"
    origin = next(iter(thresholds.values())).origin
    if origin.startswith("quantile"):
        return origin
    values = {axes: f"{threshold.value:g}" for axes, threshold in sorted(thresholds.items())}
    if len(set(values.values())) == 1:
        return f"{next(iter(values.values()))} ({origin})"
    along = ", ".join(f"{value} along {axes} {'axis' if axes == 1 else 'axes'}" for axes, value in values.items())
    return f"{along} ({origin})"


def _method(
    evaluation: Evaluation,
    method: str,
    runs: Sequence[Pass],
    summary: Summary,
    seeds: Sequence[Mapping[str, ClassMeasures]],
) -> dict[str, Any]:
    entry: dict[str, Any] = {"title": evaluation.model_title(method), "seeds": [run.seed for run in runs]}
    if method not in TRIVIAL:
        entry["model"] = evaluation.fingerprint(runs[0].prompts)
        if len(runs) > 1:
            entry["models"] = [evaluation.fingerprint(run.prompts) for run in runs]
    entry["measures"] = summary.measures
    entry["by_category"] = summary.by_category
    entry["curves"] = _mean_curves(seeds[0])
    return entry


def _mean_curves(classes: Mapping[str, ClassMeasures]) -> dict[str, list[list[float]]]:
    """The mean over classes at the same x; curves whose x differ, as FROC, are given for a single class only."""
    found: dict[str, list[list[float]]] = {}
    for kind in ("roc", "pr", "pro", "froc"):
        curves = [np.array(part.curves[kind]) for part in classes.values() if kind in part.curves]
        if curves and all(np.array_equal(curve[:, 0], curves[0][:, 0]) for curve in curves):
            mean = np.mean([curve[:, 1] for curve in curves], axis=0)
            found[kind] = [[round(float(x), 6), round(float(y), 6)] for x, y in zip(curves[0][:, 0], mean, strict=True)]
    return found


def _curve_titles(methods: Mapping[str, Any], volumes: bool) -> dict[str, str]:
    if volumes:
        return {"froc": "FROC of volumes"}
    of = "pixels" if any("pro" in method["curves"] for method in methods.values()) else "images"
    return {"roc": f"ROC of {of}", "pr": f"precision and recall of {of}"}


def _samples(first: SetMetric, brightness: SetMetric | None, seconds_of: Mapping[str, float]) -> list[dict[str, Any]]:
    bright = {} if brightness is None else _by_name(brightness)
    return [
        {
            **sample,
            "brightness": bright[name]["score"] if name in bright else None,
            "seconds": round(seconds_of.get(name, 0.0), 3),
        }
        for name, sample in _by_name(first).items()
    ]


def _by_name(metric: SetMetric) -> dict[str, dict[str, Any]]:
    return {sample["name"]: sample for found in metric.samples.values() for sample in found}


def _comparison(
    evaluation: Evaluation,
    methods: Mapping[str, Any],
    rows: Mapping[str, Rows],
    samples: Sequence[Mapping[str, Any]],
    warnings: list[str],
) -> dict[str, Any] | None:
    """The first method against that of the other report."""
    against = evaluation.against
    if against is None:
        return None
    if against.names() != [sample["name"] for sample in samples]:
        warnings.append("no comparison: other samples failed in the other report")
        return None
    method = evaluation.methods[0]
    own = {name.removeprefix(f"{method}/"): found for name, found in rows.items() if name.startswith(f"{method}/")}
    measures = compare(methods[method]["measures"], against.measures, own, against.rows())
    return {"with": against.title, "model": against.report["model"], "measures": measures}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str, dict, list)) else str(value)


def case_view(record: Record, heatmap: np.ndarray, *, slice_axis: int, threshold: float) -> CaseView:
    """The slice with most lesion, or without one the slice with the highest peak, upright.

    Args:
        record: with ``image`` and ``truth`` on the protocol's grid.
        heatmap: (X, Y, Z).
        slice_axis: array axis of the slices.
        threshold: from which the heatmap is mask.
    """
    image, truth = record["image"], record["truth"]
    affine = np.asarray(image.affine, dtype=np.float64)
    view = SliceView.upright(affine, slice_axis)
    others = tuple(axis for axis in range(3) if axis != slice_axis)
    sizes = heatmap.max(axis=others) if truth is None or not truth.any() else truth.sum(axis=others)
    index = int(sizes.argmax())

    def upright(volume: Any) -> np.ndarray:
        return np.asarray(view.flip(view.slices(torch.as_tensor(volume))[index]))

    picture = upright(image.as_tensor().cpu())
    heat = upright(np.ascontiguousarray(heatmap)[None])[0]
    size = spacing(affine)
    return CaseView(
        image=picture.transpose(1, 2, 0) if len(picture) == 3 else picture[0],
        heatmap=heat,
        truth=None if truth is None else upright(truth[None])[0],
        mask=(heat >= threshold) & (heat > 0),
        aspect=float(size[view.row_axis] / size[view.column_axis]),
        note=f"slice {index}" if heatmap.shape[slice_axis] > 1 else "",
    )
