"""What an ablation found, as a type: the content of ``ablation.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from anomalyclip_monai.engines.ablation.rows import Row
from anomalyclip_monai.engines.evaluation.methods import MODEL, TRIVIAL
from anomalyclip_monai.outputs.report.content import Difference, Failure, Measures, MethodReport, Report

SCHEMA = "anomalyclip-ablation/1"


@dataclass(frozen=True, slots=True)
class NotBuilt:
    """A row that cannot be built.

    Attributes:
        row: what it changes.
        error: the line that says why.
    """

    row: Row
    error: str

    def to_json(self) -> dict[str, Any]:
        """-> an entry of ``rows``."""
        return {"key": self.row.key, "group": self.row.group, "title": self.row.title, "error": self.error}


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """A row whose prompts were learned and measured.

    Attributes:
        row: what it changes.
        epochs: of learning; None where nothing was learned.
        final_losses: of the last epoch, of every seed.
        measures: of its method.
        differences: from the base, where both define a measure; none of the base itself.
        failed: samples that could not be measured.
        learning: seconds.
        measuring: seconds.
        report: path of its own report from the ablation's folder.
    """

    row: Row
    epochs: int | None
    final_losses: tuple[float, ...]
    measures: Measures
    differences: Mapping[str, Difference]
    failed: tuple[Failure, ...]
    learning: float
    measuring: float
    report: str

    @property
    def seconds(self) -> float:
        """Of learning and measuring."""
        return self.learning + self.measuring

    def to_json(self) -> dict[str, Any]:
        """-> an entry of ``rows``."""
        row = self.row
        return {
            "key": row.key,
            "group": row.group,
            "title": row.title,
            "network": dict(row.network),
            "network_in_learning": dict(row.network if row.taught is None else row.taught),
            "loss": row.terms,
            "prompts": row.prompts,
            "epochs": self.epochs,
            "final_losses": list(self.final_losses),
            "measures": {name: measure.to_json() for name, measure in self.measures.items()},
            "difference": {name: found.to_json() for name, found in self.differences.items()},
            "failed": [asdict(failure) for failure in self.failed],
            "seconds": {"learning": self.learning, "measuring": self.measuring},
            "report": self.report,
        }


RowReport: TypeAlias = MeasuredRow | NotBuilt


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationReport:
    """The ablation table of a network on a data set.

    Attributes:
        measured: the report of the base, whose set, protocol and options are those of every row.
        base: the bundle's own configuration.
        changed: the other rows, in the order of the table.
        auxiliary: ``data`` of the base's ``training.json``.
        training: ``options`` of it.
        epochs: of learning.
        seeds: of prompts and order.
        image_score: kind of image score of the network.
    """

    measured: Report
    base: MeasuredRow
    changed: tuple[RowReport, ...]
    auxiliary: Mapping[str, Any]
    training: Mapping[str, Any]
    epochs: int
    seeds: tuple[int, ...]
    image_score: str

    @property
    def rows(self) -> tuple[RowReport, ...]:
        """All rows, the base first."""
        return self.base, *self.changed

    @property
    def built(self) -> list[MeasuredRow]:
        """The rows that could be built."""
        return [row for row in self.rows if isinstance(row, MeasuredRow)]

    @property
    def trivial(self) -> list[MethodReport]:
        """The baselines without a network."""
        return [method for name, method in self.measured.methods.items() if name in TRIVIAL]

    def to_json(self) -> dict[str, Any]:
        """-> the content of ``ablation.json``."""
        measured = self.measured.to_json()
        copied = ("dataset", "title", "complete", "note", "protocol", "measure_titles", "primary", "bootstrap")
        methods = measured["methods"]
        return {
            "schema": SCHEMA,
            **{name: measured[name] for name in (*copied, "model", "options", "versions", "device")},
            "model_title": methods[MODEL]["title"],
            "trained_on": measured["trained_on"],
            "samples": self.measured.samples.counts_to_json(),
            "auxiliary": dict(self.auxiliary),
            "training": {**self.training, "epochs": self.epochs, "seeds": list(self.seeds)},
            "image_score": self.image_score,
            "rows": [row.to_json() for row in self.rows],
            "trivial": {
                name: {key: method[key] for key in ("title", "measures")}
                for name, method in methods.items()
                if name in TRIVIAL
            },
            "seconds": round(sum(row.seconds for row in self.built), 1),
            "warnings": measured["warnings"],
        }
