"""Results of cases, kept for a while: mask, bands and heatmap are one run, and another threshold is none."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from anomalyclip_monai.api import Pipeline
from anomalyclip_monai.data import Case
from anomalyclip_monai.data.content import stamps_of
from anomalyclip_monai.label.turns import Turns
from anomalyclip_monai.options import CaseOptions, ModelOptions
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.types import Record

KEPT = 2
"""Cases whose heatmap stays in memory."""


@dataclass
class _Scored:
    record: Record
    outlined: tuple[CaseOptions, Result] | None = None


@dataclass
class Results:
    """Runs the pipeline, one case at a time; there is one network in memory."""

    turns: Turns = field(default_factory=Turns)
    _kept: OrderedDict[Any, _Scored] = field(default_factory=OrderedDict)

    def of(self, case: Case, model: ModelOptions, options: CaseOptions) -> Result:
        """The result for a reader, from what is kept where only the threshold differs.

        Raises:
            AnomalyCLIPError: the case cannot be read or scored, or an option has no meaning.
        """
        key = _identity(case), model, tuple(value for name, value in _settings(options) if name not in _OUTLINE)
        with self.turns.reader():
            pipeline = Pipeline(model, options)
            kept = self._kept.get(key)
            if kept is None:
                kept = _Scored(pipeline.score(_record(case), lambda *_: self.turns.check()))
            if kept.outlined is None or kept.outlined[0] != options:
                kept.outlined = options, pipeline.outline(kept.record)
            self._kept[key] = kept
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return kept.outlined[1]

    def behind(self, case: Case, model: ModelOptions, options: CaseOptions) -> Result:
        """The result while no reader waits; nothing of it is kept.

        Raises:
            AnomalyCLIPError: see :meth:`of`.
        """

        def step(*_: int) -> None:
            self.turns.check()
            self.turns.give_way()

        with self.turns.behind():
            return Pipeline(model, options).run(_record(case), step)


_OUTLINE = tuple(known.name for known in CaseOptions.known() if known.changes == "mask")


def _settings(options: CaseOptions) -> list[tuple[str, str]]:
    return [(name, repr(getattr(options, name))) for name in options.names()]


def _record(case: Case) -> Record:
    return {"image": case, "case": case.name, "roi": None}


def _identity(case: Case) -> tuple[Any, ...]:
    series = case.series.uid if case.series else ""
    return case.name, case.path, series, tuple(stamps_of(case.files()))
