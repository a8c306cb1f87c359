"""MONAI's evaluator over cases, of which some may fail."""

from __future__ import annotations

import logging
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import IterationEvents, SupervisedEvaluator

from anomalyclip_monai.data.loading import decollate_cases
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, known_cause

logger = logging.getLogger(__name__)


class CaseEvaluator(SupervisedEvaluator):
    """A ``SupervisedEvaluator`` that finishes the readable cases and then raises one error that names the others.

    Takes the arguments of ``SupervisedEvaluator``; batches come from
    :class:`~anomalyclip_monai.data.CaseDataset`, one case each.

    Attributes:
        failures: (case, error) of the run so far.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.failures: list[tuple[str, AnomalyCLIPError]] = []
        self.add_event_handler(Events.STARTED, lambda _: self.failures.clear())

    def run(self, global_epoch: int = 1) -> None:
        """Run over all cases.

        Raises:
            CaseError: at least one case failed; the others are done (``E_CASES``).
        """
        super().run(global_epoch)
        self.raise_failures(self.state.epoch_length)

    def raise_failures(self, count: int) -> None:
        """Name the cases that failed, if there are any.

        Args:
            count: of all cases.

        Raises:
            CaseError: at least one case failed (``E_CASES``).
        """
        if not self.failures:
            return
        lines = "; ".join(f"{case}: {error}" for case, error in self.failures)
        what = f"{len(self.failures)} of {count} cases failed: {lines}"
        todo = f"the other {count - len(self.failures)} are done"
        raise CaseError("E_CASES", what, None, todo) from self.failures[0][1]

    def _register_decollate(self) -> None:
        """Split batches with this package's inverse of its own collation: records hold more than tensors."""

        @self.on(IterationEvents.MODEL_COMPLETED)
        def _decollate(engine: Engine) -> None:
            engine.state.batch = decollate_cases(engine.state.batch)
            engine.state.output = decollate_cases(engine.state.output)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: Any) -> Any:
        if "error" in batchdata:
            self._record(batchdata["case"][0], batchdata["error"][0])
            return {}
        try:
            return super()._iteration(engine, batchdata)
        except Exception as error:
            known = known_cause(error)
            if known is None:
                raise
            self._record(batchdata["case"][0], known)
            return {}

    def _record(self, case: str, error: AnomalyCLIPError) -> None:
        logger.error("%s: %s", case, error)
        self.failures.append((case, error))
