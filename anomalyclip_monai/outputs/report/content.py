"""What a report says, as a type: the content of ``report.json``, schema ``anomalyclip-report/1``.

Every class is written by ``to_json`` (JSON types, keys in the order of the file) and read by ``from_json``, which
raises a ``ValueError`` that names the place of what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.files import read_text
from anomalyclip_monai.outputs.report.json_value import JSONValue

SCHEMA = "anomalyclip-report/1"

Curve: TypeAlias = tuple[tuple[float, float], ...]
"""Points (x, y)."""

Fingerprint: TypeAlias = Mapping[str, str]
"""Names and hashes of what ran, see :func:`~anomalyclip_monai.resources.fingerprint`."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of one method: a value, mostly in [0, 1], or the reason why there is none.

    Attributes:
        value: on the samples as they are, the mean over seeds; None where it is undefined.
        low: lower end of the 95 % interval, None where nothing was resampled.
        high: upper end.
        sd: standard deviation over seeds, None with fewer than two.
        undefined: why there is no value, None where there is one.
        classes_low: lower end of the 95 % interval over classes, None where these were not resampled.
        classes_high: upper end.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    undefined: str | None = None
    classes_low: float | None = None
    classes_high: float | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.undefined is None):
            raise ValueError("a measure has a value or a reason why there is none")

    def to_json(self) -> dict[str, Any]:
        """-> ``{"value", "low", "high", "sd"}``, an interval over classes if there is one; or ``{"undefined"}``."""
        if self.value is None:
            return {"undefined": self.undefined}
        content = {"value": self.value, "low": self.low, "high": self.high, "sd": self.sd}
        return content | _over_classes(self)

    @classmethod
    def from_json(cls, content: Any) -> Measure:
        """See the module."""
        entry = JSONValue.of(content)
        if (reason := entry.at("undefined", None)).value is not None:
            return cls(undefined=reason.text())
        low, high, sd = (entry.at(key, None).optional(JSONValue.number) for key in ("low", "high", "sd"))
        return cls(entry.at("value").number(), low, high, sd, None, *_read_over_classes(entry))


Measures: TypeAlias = Mapping[str, Measure]
"""Name of a measure, such as ``pixel_auroc``, -> measure, in the order of tables."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One method minus another on the same samples.

    Attributes:
        value: of the difference.
        low: lower end of the 95 % interval of a paired bootstrap, None where nothing was resampled.
        high: upper end.
        p: two-sided, of no difference.
        classes_low: lower end of the 95 % interval over classes, None where these were not resampled.
        classes_high: upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    classes_low: float | None = None
    classes_high: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval, and 0 is not in it."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def to_json(self) -> dict[str, Any]:
        """-> ``{"difference", "low", "high", "p"}``, all but the first where there are any."""
        test = {"low": self.low, "high": self.high, "p": self.p, **_over_classes(self)}
        return {"difference": self.value, **{key: value for key, value in test.items() if value is not None}}

    @classmethod
    def from_json(cls, content: Any) -> Difference:
        """See the module."""
        entry = JSONValue.of(content)
        low, high, p = (entry.at(key, None).optional(JSONValue.number) for key in ("low", "high", "p"))
        return cls(entry.at("difference").number(), low, high, p, *_read_over_classes(entry))


@dataclass(frozen=True, slots=True)
class MethodReport:
    """One method on one data set.

    Attributes:
        title: such as ``AnomalyCLIP tiny``.
        seeds: names of the prompts; empty for a baseline without a network.
        measures: means over classes and seeds.
        by_category: class -> its measures.
        curves: ``roc``, ``pr``, ``pro``, ``froc`` -> points of the first seed.
        model: what ran, with the prompts of the first seed; None for a baseline without a network.
        models: the same of every seed, where there are several.
        by_subset: name of a subset of the classes -> means over it, see :class:`Subset`.
    """

    title: str
    seeds: tuple[str, ...]
    measures: Measures
    by_category: Mapping[str, Measures] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    model: Fingerprint | None = None
    models: tuple[Fingerprint, ...] = ()
    by_subset: Mapping[str, Measures] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """-> an entry of ``methods``."""
        return {
            "title": self.title,
            "seeds": list(self.seeds),
            **({} if self.model is None else {"model": dict(self.model)}),
            **({"models": [dict(model) for model in self.models]} if self.models else {}),
            "measures": _measures_to_json(self.measures),
            **({"by_subset": _all_to_json(self.by_subset)} if self.by_subset else {}),
            "by_category": _all_to_json(self.by_category),
            "curves": {kind: [list(point) for point in points] for kind, points in self.curves.items()},
        }

    @classmethod
    def from_json(cls, content: Any) -> MethodReport:
        """See the module."""
        entry = JSONValue.of(content)
        return cls(
            entry.at("title").text(),
            entry.at("seeds").each(JSONValue.text),
            entry.at("measures").every(Measure.from_json),
            entry.at("by_category", {}).every(lambda measures: measures.every(Measure.from_json)),
            entry.at("curves", {}).every(lambda points: points.each(_point)),
            entry.at("model", None).optional(_texts),
            entry.at("models", []).each(_texts),
            entry.at("by_subset", {}).every(lambda measures: measures.every(Measure.from_json)),
        )


@dataclass(frozen=True, slots=True)
class MeasuredSample:
    """One image or volume as the first method sees it.

    Attributes:
        name: of the sample.
        label: 0 normal, 1 abnormal.
        category: its class in the set.
        group: patient, sequence or other unit that is resampled as a whole.
        score: of the image or volume.
        peak: the heatmap's maximum.
        pointing: whether the peak lies in a lesion, tied pixels by their share; None without a lesion.
        dice: at the fixed threshold; None without a lesion.
        brightness: score of the brightness baseline, None where that was not measured.
        seconds: in the network.
        axes: number of axes along which slices were taken.
        threshold: of the mask.
        threshold_low: of the mask's outlines; None in earlier reports, which have one threshold.
    """

    name: str
    label: int
    category: str
    group: str
    score: float
    peak: float
    pointing: float | None = None
    dice: float | None = None
    brightness: float | None = None
    seconds: float | None = None
    axes: int | None = None
    threshold: float | None = None
    threshold_low: float | None = None

    def to_json(self) -> dict[str, Any]:
        """-> an entry of ``samples/list``."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> MeasuredSample:
        """See the module."""
        entry = JSONValue.of(content)

        def number(key: str) -> float | None:
            return entry.at(key, None).optional(JSONValue.number)

        return cls(
            entry.at("name").text(),
            entry.at("label").whole(),
            entry.at("category").text(),
            entry.at("group").text(),
            entry.at("score").number(),
            entry.at("peak").number(),
            number("pointing"),
            number("dice"),
            number("brightness"),
            number("seconds"),
            entry.at("axes", None).optional(JSONValue.whole),
            number("threshold"),
            number("threshold_low"),
        )


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """The samples that were measured.

    Attributes:
        sha256: of the list of all samples, see :func:`~anomalyclip_monai.engines.evaluation.evaluation.samples_sha256`.
        samples: those that did not fail.
    """

    sha256: str
    samples: tuple[MeasuredSample, ...]

    @property
    def normal(self) -> int:
        """How many are normal."""
        return sum(not sample.label for sample in self.samples)

    @property
    def abnormal(self) -> int:
        """How many are abnormal."""
        return len(self.samples) - self.normal

    @property
    def groups(self) -> int:
        """How many units a bootstrap draws from."""
        return len({(sample.category, sample.group) for sample in self.samples})

    def counts_to_json(self) -> dict[str, Any]:
        """-> ``samples`` without its list."""
        counts = {"count": len(self.samples), "normal": self.normal, "abnormal": self.abnormal, "groups": self.groups}
        return {**counts, "sha256": self.sha256}

    def to_json(self) -> dict[str, Any]:
        """-> ``samples``."""
        return {**self.counts_to_json(), "list": [sample.to_json() for sample in self.samples]}

    @classmethod
    def from_json(cls, content: Any) -> MeasuredSet:
        """See the module."""
        entry = JSONValue.of(content)
        return cls(entry.at("sha256").text(), entry.at("list").each(MeasuredSample.from_json))


@dataclass(frozen=True, slots=True)
class StatedProtocol:
    """How was measured.

    Attributes:
        name: ``paper`` or ``native``.
        id: short name for tables; numbers of two ids do not compare.
        text: the sentence that says everything.
    """

    name: str
    id: str
    text: str

    @classmethod
    def from_json(cls, content: Any) -> StatedProtocol:
        """See the module."""
        entry = JSONValue.of(content)
        return cls(*(entry.at(key).text() for key in ("name", "id", "text")))


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first method against that of another report on the same samples.

    Attributes:
        title: of the other report's method.
        model: what ran there.
        measures: measure -> difference.
    """

    title: str
    model: Fingerprint
    measures: Mapping[str, Difference]

    def to_json(self) -> dict[str, Any]:
        """-> ``comparison``."""
        differences = {name: found.to_json() for name, found in self.measures.items()}
        return {"with": self.title, "model": dict(self.model), "measures": differences}

    @classmethod
    def from_json(cls, content: Any) -> Comparison:
        """See the module."""
        entry = JSONValue.of(content)
        model, measures = entry.at("model", {}).every(JSONValue.text), entry.at("measures").every(Difference.from_json)
        return cls(entry.at("with").text(), model, measures)


@dataclass(frozen=True, slots=True)
class Subset:
    """Some of the classes, with means of their own.

    Attributes:
        name: such as ``untrained``.
        title: in words, after "mean of".
        categories: the classes.
    """

    name: str
    title: str
    categories: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """-> an entry of ``subsets``."""
        return {"name": self.name, "title": self.title, "categories": list(self.categories)}

    @classmethod
    def from_json(cls, content: Any) -> Subset:
        """See the module."""
        entry = JSONValue.of(content)
        categories = entry.at("categories").each(JSONValue.text)
        return cls(entry.at("name").text(), entry.at("title").text(), categories)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A measure in which the report's method does not beat a baseline, or not for sure.

    Attributes:
        baseline: name of the method.
        measure: name of the measure.
        difference: the report's method minus the baseline; an image AUROC below a half counts turned round, as the
            baseline's score could be.
        subset: name of the subset of the classes, empty for all of them.
    """

    baseline: str
    measure: str
    difference: Difference
    subset: str = ""

    @property
    def beaten(self) -> bool:
        """Whether the value is above the baseline's, if only within an interval that holds 0."""
        return self.difference.value > 0

    def to_json(self) -> dict[str, Any]:
        """-> an entry of ``shortfalls``."""
        where = {"subset": self.subset} if self.subset else {}
        return {"baseline": self.baseline, "measure": self.measure, **where, **self.difference.to_json()}

    @classmethod
    def from_json(cls, content: Any) -> Shortfall:
        """See the module."""
        entry = JSONValue.of(content)
        baseline, measure = entry.at("baseline").text(), entry.at("measure").text()
        return cls(baseline, measure, Difference.from_json(entry), entry.at("subset", "").text())


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that could not be measured, and the line that says why."""

    name: str
    error: str

    @classmethod
    def from_json(cls, content: Any) -> Failure:
        """See the module."""
        entry = JSONValue.of(content)
        return cls(entry.at("name").text(), entry.at("error").text())


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals came about.

    Attributes:
        repeats: resampled sets, 0 for no intervals.
        seed: of the draws.
        unit: what is drawn.
    """

    repeats: int
    seed: int
    unit: str = "group"

    def to_json(self) -> dict[str, Any]:
        """-> ``bootstrap``."""
        return {"unit": self.unit, "repeats": self.repeats, "seed": self.seed}

    @classmethod
    def from_json(cls, content: Any) -> Bootstrap:
        """See the module."""
        entry = JSONValue.of(content)
        return cls(entry.at("repeats").whole(), entry.at("seed").whole(), entry.at("unit").text())


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The evaluation of a model and its baselines on one data set.

    Attributes:
        asked: hash of what the report depends on, to tell whether it is still good.
        dataset: name of the set, and of the report's folder.
        title: of the set in tables.
        complete: whether the whole published set was measured.
        note: what is missing of it.
        trained_on: what of this kind of images the model was trained on, empty if nothing.
        protocol: how was measured.
        methods: name -> method; the report is about the first one.
        measure_titles: measure -> its name in tables, in their order.
        curve_titles: kind of curve -> what it is the curve of.
        primary: the measures that count, first in tables.
        published: measure -> value of the paper.
        comparison: with another report, if that was asked for.
        samples: those that were measured.
        failed: those that could not be.
        bootstrap: how intervals came about.
        model: what ran.
        options: settings that change heatmaps.
        versions: of libraries.
        device: where the network ran.
        seconds: of the whole run.
        warnings: what a reader must know.
        subsets: parts of the classes with means of their own.
        shortfalls: where the method that the report is about does not beat a baseline.
    """

    asked: str
    dataset: str
    title: str
    complete: bool
    note: str
    trained_on: str
    protocol: StatedProtocol
    methods: Mapping[str, MethodReport]
    measure_titles: Mapping[str, str]
    curve_titles: Mapping[str, str]
    primary: tuple[str, ...]
    published: Mapping[str, float]
    comparison: Comparison | None
    samples: MeasuredSet
    failed: tuple[Failure, ...]
    bootstrap: Bootstrap
    model: Fingerprint
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    device: str
    seconds: float
    warnings: tuple[str, ...]
    subsets: tuple[Subset, ...] = ()
    shortfalls: tuple[Shortfall, ...] = ()

    @property
    def main(self) -> MethodReport:
        """The method that the report is about."""
        return next(iter(self.methods.values()))

    def to_json(self) -> dict[str, Any]:
        """-> the content of ``report.json``."""
        return {
            "schema": SCHEMA,
            "asked": self.asked,
            "dataset": self.dataset,
            "title": self.title,
            "complete": self.complete,
            "note": self.note,
            "trained_on": self.trained_on,
            "protocol": asdict(self.protocol),
            "methods": {name: method.to_json() for name, method in self.methods.items()},
            "measure_titles": dict(self.measure_titles),
            "curve_titles": dict(self.curve_titles),
            "primary": list(self.primary),
            "published": dict(self.published),
            "comparison": None if self.comparison is None else self.comparison.to_json(),
            **({"subsets": [subset.to_json() for subset in self.subsets]} if self.subsets else {}),
            **({"shortfalls": [found.to_json() for found in self.shortfalls]} if self.shortfalls else {}),
            "samples": self.samples.to_json(),
            "failed": [asdict(failure) for failure in self.failed],
            "bootstrap": self.bootstrap.to_json(),
            "model": dict(self.model),
            "options": dict(self.options),
            "versions": dict(self.versions),
            "device": self.device,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, content: Any) -> Report:
        """See the module; what earlier versions did not write is empty."""
        entry = JSONValue.of(content)
        if (schema := entry.at("schema").text()) != SCHEMA:
            raise ValueError(f"its schema is {schema}, not {SCHEMA}")
        methods = entry.at("methods").every(MethodReport.from_json)
        if not methods:
            raise ValueError("methods is empty")
        return cls(
            asked=entry.at("asked", "").text(),
            dataset=entry.at("dataset").text(),
            title=entry.at("title").text(),
            complete=entry.at("complete").flag(),
            note=entry.at("note").text(),
            trained_on=entry.at("trained_on", "").text(),
            protocol=StatedProtocol.from_json(entry.at("protocol")),
            methods=methods,
            measure_titles=_texts(entry.at("measure_titles")),
            curve_titles=_texts(entry.at("curve_titles", {})),
            primary=entry.at("primary").each(JSONValue.text),
            published=entry.at("published", {}).every(JSONValue.number),
            comparison=entry.at("comparison", None).optional(Comparison.from_json),
            samples=MeasuredSet.from_json(entry.at("samples")),
            failed=entry.at("failed").each(Failure.from_json),
            bootstrap=Bootstrap.from_json(entry.at("bootstrap")),
            model=_texts(entry.at("model")),
            options=entry.at("options", {}).every(lambda option: option.value),
            versions=_texts(entry.at("versions")),
            device=entry.at("device").text(),
            seconds=entry.at("seconds").number(),
            warnings=entry.at("warnings").each(JSONValue.text),
            subsets=entry.at("subsets", []).each(Subset.from_json),
            shortfalls=entry.at("shortfalls", []).each(Shortfall.from_json),
        )


def read_report(path: Path) -> Report:
    """Read a ``report.json``, of this version or an earlier one.

    Raises:
        UsageError: it cannot be read or is no report (``E_REPORT``).
    """
    try:
        return Report.from_json(json.loads(read_text(path)))
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error) or type(error).__name__
        raise UsageError("E_REPORT", f"no report: {reason}", path, "give the report.json of an evaluation") from error


def _measures_to_json(measures: Measures) -> dict[str, Any]:
    return {name: measure.to_json() for name, measure in measures.items()}


def _all_to_json(parts: Mapping[str, Measures]) -> dict[str, Any]:
    return {name: _measures_to_json(measures) for name, measures in parts.items()}


def _over_classes(found: Measure | Difference) -> dict[str, float]:
    """The interval over classes, where there is one."""
    if found.classes_low is None or found.classes_high is None:
        return {}
    return {"classes_low": found.classes_low, "classes_high": found.classes_high}


def _read_over_classes(entry: JSONValue) -> tuple[float | None, float | None]:
    low, high = (entry.at(f"classes_{end}", None).optional(JSONValue.number) for end in ("low", "high"))
    return low, high


def _texts(entry: JSONValue) -> dict[str, str]:
    return entry.every(JSONValue.text)


def _point(entry: JSONValue) -> tuple[float, float]:
    point = entry.each(JSONValue.number)
    if len(point) != 2:
        raise ValueError(f"{entry.place} is not a point (x, y)")
    return point[0], point[1]
