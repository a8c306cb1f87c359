"""From measures to a report, and the views of single cases."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from anomalyclip_monai.data.geometry import SliceView, spacing
from anomalyclip_monai.data.published import published
from anomalyclip_monai.engines.evaluation import photos, volumes
from anomalyclip_monai.engines.evaluation.evaluation import Evaluation
from anomalyclip_monai.engines.evaluation.measured import SetMetric
from anomalyclip_monai.engines.evaluation.methods import TRIVIAL, Pass
from anomalyclip_monai.engines.evaluation.protocols import Protocol
from anomalyclip_monai.engines.evaluation.summary import (
    Summary,
    compare,
    draws_of,
    shortfalls,
    summarise,
    without_spread,
)
from anomalyclip_monai.exceptions import AnomalyCLIPError
from anomalyclip_monai.metrics.weighted import Rows
from anomalyclip_monai.outputs.report import CaseView
from anomalyclip_monai.outputs.report.content import (
    Bootstrap,
    Comparison,
    Curve,
    Failure,
    MeasuredSample,
    MeasuredSet,
    MethodReport,
    Report,
    Shortfall,
    StatedProtocol,
)
from anomalyclip_monai.resources import installed_version
from anomalyclip_monai.transforms.findings import Threshold
from anomalyclip_monai.transforms.outline import lesion_mask
from anomalyclip_monai.types import Record

_VERSIONED = ("anomalyclip-monai", "monai", "torch", "open_clip_torch", "numpy")
MOST_NOTES = 8
"""Different notes of readers that a report repeats."""

FEW_GROUPS = 10
"""With fewer groups a percentile interval covers much less than it says."""

_PRIMARY_PHOTOS = ("image_auroc", "image_ap", "pixel_auroc")
_PRIMARY_ORGANS = ("pixel_auroc", "pixel_auroc_lit", "pixel_ap", "pixel_pro_exact", "pointing")
_PRIMARY_VOLUMES = ("slice_auroc", "voxel_auroc_inside", "dice", "slice_pointing")


def build_report(
    evaluation: Evaluation,
    metrics: Mapping[Pass | str, SetMetric],
    *,
    failed: Sequence[tuple[str, AnomalyCLIPError]],
    notes: Sequence[str],
    seconds_of: Mapping[str, float],
    thresholds_of: Mapping[str, Threshold],
    image_score: str,
    device: str,
    seconds: float,
) -> tuple[Report, dict[str, Rows]]:
    """The report, and the resampled values of every method's measures.

    Args:
        evaluation: what was asked for.
        metrics: the metric of each pass, and of each trivial baseline under its name, after their epoch.
        failed: samples that could not be measured, or whose pixels could not.
        notes: what reading them changed, see :func:`grouped_notes`.
        seconds_of: sample -> seconds in the network.
        thresholds_of: sample -> the threshold of its mask.
        image_score: kind of image score of the network.
        device: where the network ran.
        seconds: of the whole run.
    """
    first = metrics[evaluation.passes[0]]
    draws = draws_of(first.samples, repeats=evaluation.bootstrap, seed=Evaluation.SEED)
    subsets, about_subsets = evaluation.subsets(list(first.samples))
    summaries: dict[str, Summary] = {}
    methods: dict[str, MethodReport] = {}
    rows: dict[str, Rows] = {}
    for method in evaluation.methods:
        runs = [run for run in evaluation.passes if run.method == method]
        measured_by = [metrics[run] for run in runs] or [metrics[method]]
        summaries[method] = summary = summarise(
            [metric.classes for metric in measured_by],
            draws,
            overall=[metric.overall for metric in measured_by],
            subsets={subset.name: subset.categories for subset in subsets},
            over_classes=evaluation.many_sets,
        )
        methods[method] = _method(evaluation, method, runs, summary, measured_by[0])
        rows |= {f"{method}/{name}": found for name, found in summary.rows.items()}
    samples = _samples(first, metrics.get("brightness"), seconds_of)
    measured = MeasuredSet(evaluation.sha256, samples)
    thresholds = {sample.axes: thresholds_of[sample.name] for sample in samples if sample.axes is not None}
    warnings = [*_warnings(evaluation, thresholds, measured.groups), *_no_spread(evaluation, first), *about_subsets]
    warnings += notes
    primary = _primary(evaluation.protocol, has_normal=measured.normal > 0)
    comparison = _comparison(evaluation, methods, rows, samples, warnings)
    complete, note = evaluation.completeness()
    titles = volumes.TITLES if evaluation.protocol.volumes else photos.TITLES
    known = {name for method in methods.values() for name in method.measures}
    report = Report(
        asked=evaluation.asked(),
        dataset=evaluation.dataset,
        title=evaluation.title,
        complete=complete,
        note=note,
        trained_on=evaluation.trained_on,
        protocol=state_protocol(evaluation, thresholds, image_score),
        methods=methods,
        measure_titles={name: title for name, title in titles.items() if name in known},
        curve_titles=_curve_titles(methods, evaluation.protocol.volumes),
        primary=primary,
        published=published(evaluation.dataset),
        comparison=comparison,
        samples=measured,
        failed=tuple(Failure(name, str(error)) for name, error in failed),
        bootstrap=Bootstrap(evaluation.bootstrap, Evaluation.SEED),
        model=evaluation.fingerprint(),
        options={key: _plain(value) for key, value in evaluation.options.items()},
        versions={"python": platform.python_version(), **{name: installed_version(name) for name in _VERSIONED}},
        device=device,
        seconds=round(seconds, 1),
        warnings=tuple(warnings),
        subsets=tuple(subsets),
        shortfalls=tuple(_shortfalls(evaluation, summaries, primary)),
    )
    return report, rows


def _shortfalls(evaluation: Evaluation, summaries: Mapping[str, Summary], primary: Sequence[str]) -> list[Shortfall]:
    """Of the first method, on all classes and on each subset of them."""
    main = summaries[evaluation.methods[0]]
    baselines = {name: summaries[name] for name in evaluation.trivial()}
    repeats = evaluation.bootstrap if evaluation.many_sets else 0
    found = shortfalls(primary, main, baselines, repeats=repeats)
    for subset, part in main.parts.items():
        others = {name: summary.parts[subset] for name, summary in baselines.items()}
        found += shortfalls(primary, part, others, subset=subset, repeats=repeats)
    return found


def state_protocol(evaluation: Evaluation, thresholds: Mapping[int, Threshold], image_score: str) -> StatedProtocol:
    """The protocol with its sentence, from the options that ran.

    Args:
        evaluation: what was asked for.
        thresholds: number of axes along which slices were taken -> threshold of such samples.
        image_score: kind of image score of the network.
    """
    protocol, threshold = evaluation.protocol, threshold_text(thresholds)
    text = protocol.text(image_score=image_score, threshold=threshold, options=evaluation.options)
    return StatedProtocol(protocol.name, protocol.id, text)


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
    values = {axes: threshold.said for axes, threshold in sorted(thresholds.items())}
    if len(set(values.values())) == 1:
        return f"{next(iter(values.values()))} ({origin})"
    along = ", ".join(f"{value} along {axes} {'axis' if axes == 1 else 'axes'}" for axes, value in values.items())
    return f"{along} ({origin})"


def _method(
    evaluation: Evaluation,
    method: str,
    runs: Sequence[Pass],
    summary: Summary,
    first: SetMetric,
) -> MethodReport:
    models = () if method in TRIVIAL else tuple(evaluation.fingerprint(run.prompts) for run in runs)
    return MethodReport(
        title=evaluation.model_title(method),
        seeds=tuple(run.seed for run in runs),
        measures=summary.measures,
        by_category=summary.by_category,
        curves=_mean_curves(first),
        model=models[0] if models else None,
        models=models if len(models) > 1 else (),
        by_subset={name: part.measures for name, part in summary.parts.items()},
    )


def _mean_curves(metric: SetMetric) -> dict[str, Curve]:
    """The mean over classes at the same x; one whose x differ from class to class, as FROC, of all together."""
    found: dict[str, Curve] = {}
    together = {} if metric.overall is None else metric.overall.curves
    for kind in ("roc", "pr", "pro", "froc"):
        parts = [together] if kind in together else [part.curves for part in metric.classes.values()]
        curves = [np.array(part[kind]) for part in parts if kind in part]
        if curves and all(np.array_equal(curve[:, 0], curves[0][:, 0]) for curve in curves):
            mean = np.mean([curve[:, 1] for curve in curves], axis=0)
            points = zip(curves[0][:, 0], mean, strict=True)
            found[kind] = tuple((round(float(x), 6), round(float(y), 6)) for x, y in points)
    return found


def _curve_titles(methods: Mapping[str, MethodReport], volumes: bool) -> dict[str, str]:
    if volumes:
        return {"froc": "FROC of volumes"}
    of = "pixels" if any("pro" in method.curves for method in methods.values()) else "images"
    return {"roc": f"ROC of {of}", "pr": f"precision and recall of {of}"}


def _primary(protocol: Protocol, *, has_normal: bool) -> tuple[str, ...]:
    """The measures that count."""
    if protocol.name == "organs":
        return _PRIMARY_ORGANS
    if not protocol.volumes:
        return (*_PRIMARY_PHOTOS, protocol.pro)
    return (*_PRIMARY_VOLUMES, "normal_false_ml", "normal_false_lesions") if has_normal else _PRIMARY_VOLUMES


def _samples(
    first: SetMetric, brightness: SetMetric | None, seconds_of: Mapping[str, float]
) -> tuple[MeasuredSample, ...]:
    """What the first method says of every sample, with the score of the brightness baseline."""
    bright = {} if brightness is None else {sample.name: sample.score for sample in _listed(brightness)}
    return tuple(
        replace(
            sample,
            brightness=bright.get(sample.name),
            seconds=round(seconds_of.get(sample.name, 0.0), 3),
        )
        for sample in _listed(first)
    )


def _listed(metric: SetMetric) -> list[MeasuredSample]:
    return [sample for found in metric.samples.values() for sample in found]


def _warnings(evaluation: Evaluation, thresholds: Mapping[int, Threshold], groups: int) -> list[str]:
    found = [
        f"the threshold {threshold.said} is uncalibrated: it was not fitted for this model"
        for threshold in dict.fromkeys(thresholds.values())
        if not threshold.is_calibrated
    ]
    if evaluation.bootstrap and 1 < groups < FEW_GROUPS:
        found.append(f"intervals rest on {groups} groups (patients, sequences) only and are too narrow")
    return found


def _no_spread(evaluation: Evaluation, first: SetMetric) -> list[str]:
    """A line on classes that cannot be resampled."""
    alone = without_spread(first.samples) if evaluation.bootstrap else []
    if not alone:
        return []
    if len(first.samples) == 1:
        return ["no intervals: all samples are of one group (patient, sequence)"]
    names = (
        f"{', '.join(alone[:MOST_NOTES])}{f' and {len(alone) - MOST_NOTES} more' if len(alone) > MOST_NOTES else ''}"
    )
    what = "classes have one group (patient, sequence) each and no spread of their own: they stay"
    what = what if len(alone) > 1 else "class has one group (patient, sequence) and no spread of its own: it stays"
    return [f"{len(alone)} {what} in every interval with {'their values' if len(alone) > 1 else 'its value'} ({names})"]


def _comparison(
    evaluation: Evaluation,
    methods: Mapping[str, MethodReport],
    rows: Mapping[str, Rows],
    samples: Sequence[MeasuredSample],
    warnings: list[str],
) -> Comparison | None:
    """The first method against that of the other report."""
    against = evaluation.against
    if against is None:
        return None
    other = against.report
    if [sample.name for sample in other.samples.samples] != [sample.name for sample in samples]:
        warnings.append("no comparison: other samples failed in the other report")
        return None
    method = evaluation.methods[0]
    own = {name.removeprefix(f"{method}/"): found for name, found in rows.items() if name.startswith(f"{method}/")}
    measures = compare(methods[method].measures, other.main.measures, own, against.rows())
    return Comparison(other.main.title, other.model, measures)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str, dict, list)) else str(value)


def case_view(record: Record, heatmap: np.ndarray, *, slice_axis: int, threshold: Threshold) -> CaseView:
    """The slice with most lesion, or without one the slice with the highest peak, upright.

    Args:
        record: with ``image`` and ``truth`` on the protocol's grid.
        heatmap: (X, Y, Z).
        slice_axis: array axis of the slices.
        threshold: of the mask.
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
        mask=upright(lesion_mask(heatmap, threshold.value, threshold.low)[None])[0],
        aspect=float(size[view.row_axis] / size[view.column_axis]),
        note=f"slice {index}" if heatmap.shape[slice_axis] > 1 else "",
    )
