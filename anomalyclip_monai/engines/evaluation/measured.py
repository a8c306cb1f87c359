"""What the measures of one method on one class of a data set are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from ignite.metrics import Metric
from numpy.typing import NDArray

from anomalyclip_monai.engines.evaluation.methods import TRIVIAL, Scored
from anomalyclip_monai.metrics.undefined import Undefined, Value, is_defined
from anomalyclip_monai.metrics.weighted import Rows
from anomalyclip_monai.outputs.report.content import MeasuredSample
from anomalyclip_monai.transforms.findings import Findings
from anomalyclip_monai.types import Record

Resampled: TypeAlias = Callable[[NDArray[Any]], Mapping[str, Rows]]
"""(R, N) how often each sample was drawn -> measure -> (R,) values, NaN where a resampled set does not define it."""


@dataclass(frozen=True, slots=True)
class ClassMeasures:
    """One class of a set.

    Attributes:
        values: measure -> value on the samples as they are.
        resampled: the same measures on resampled sets. Where they are approximate only their variation counts.
        curves: ``roc``, ``pr``, ``pro``, ``froc`` -> points (x, y).
    """

    values: Mapping[str, Value]
    resampled: Resampled
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    def value(self, name: str) -> Value:
        """A measure of this class or another of the set: one without masks has no measures of pixels."""
        return self.values.get(name, Undefined("no lesion masks in the class"))


class SetMetric(Metric):
    """An ignite metric over the records of an evaluation; those of one class must follow each other.

    The result is measure -> value, the mean over classes, and for a method other than the first one the measures' names
    begin with the method's. Everything else is in ``classes``, ``names`` and ``samples``.

    Args:
        method: whose maps are measured.
        prefix: begins the names of the results.

    Attributes:
        classes: class -> its measures, after an epoch.
        samples: class -> what is said of each of its samples.
        overall: measures of all samples together, in the place of means over classes; None where there are none.
    """

    required_output_keys = None

    def __init__(self, method: str, prefix: str = "") -> None:
        self.method = method
        self.prefix = prefix
        super().__init__(output_transform=records_in, skip_unrolling=True)

    def reset(self) -> None:
        """Forget all samples."""
        self.classes: dict[str, ClassMeasures] = {}
        self.samples: dict[str, list[MeasuredSample]] = {}
        self.overall: ClassMeasures | None = None
        self._current: str | None = None

    def update(self, output: Sequence[Record]) -> None:
        """Add records that went through the network and the bundle's post-processing."""
        for record in output:
            category = record["sample"].category
            if category != self._current:
                self._finish()
                if category in self.classes:
                    raise ValueError(f"samples of class {category} do not follow each other")
                self._current = category
                self.samples[category] = []
                self._begin()
            self.samples[category].append(self._add(record))

    def compute(self) -> dict[str, Value]:
        """The mean over classes of every measure, but for those of all samples together."""
        self._finish()
        self.overall = self._measure_all() if len(self.classes) > 1 else None
        names = dict.fromkeys(name for found in self.classes.values() for name in found.values)
        values = {name: mean_over_classes([found.value(name) for found in self.classes.values()]) for name in names}
        values |= {} if self.overall is None else self.overall.values
        return {f"{self.prefix}{name}": value for name, value in values.items()}

    def _sample(self, record: Record, scored: Scored, *, pointed: Value, overlap: Value) -> MeasuredSample:
        """What is said of one sample; the threshold is the model's, so trivial baselines have no Dice at it."""
        sample, found = record["sample"], cast(Findings, record["findings"])
        return MeasuredSample(
            name=sample.name,
            label=int(record["abnormal"]),
            category=sample.category,
            group=sample.group,
            score=scored.score,
            peak=float(scored.heatmap.max()),
            pointing=pointed if is_defined(pointed) else None,
            dice=overlap if is_defined(overlap) and self.method not in TRIVIAL else None,
            axes=len(found.axes),
            threshold=found.threshold.value,
            threshold_low=found.threshold.low,
        )

    def _finish(self) -> None:
        if self._current is not None:
            self.classes[self._current] = self._measure(self.samples[self._current])
            self._current = None

    def _begin(self) -> None:
        raise NotImplementedError

    def _add(self, record: Record) -> MeasuredSample:
        raise NotImplementedError

    def _measure(self, samples: list[MeasuredSample]) -> ClassMeasures:
        raise NotImplementedError

    def _measure_all(self) -> ClassMeasures | None:
        """What is measured of several classes together; samples are in the order of the classes."""
        return None


def mean_over_classes(values: Sequence[Value]) -> Value:
    """The mean of the defined values; without one, the first reason."""
    defined = [value for value in values if isinstance(value, float)]
    return sum(defined) / len(defined) if defined else values[0]


def records_in(output: Any) -> Sequence[Record]:
    """The records of an iteration; none for a case that failed."""
    return output if isinstance(output, list) else []
