"""What MONAI Label calls: a model for each view of a result, the strategy of the work list, and its scoring method."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from anomalyclip_monai.label.studies import Studies
from anomalyclip_monai.label.views import BAND_NAMES, BANDS, View, edges
from anomalyclip_monai.label.worklist import ordered
from anomalyclip_monai.outputs import Result

MOST_SUSPICIOUS = "most_anomalous"
SCORING = "anomaly_score"


class Localize(InferTask):
    """One view of the result of a request.

    Args:
        view: which one.
        shown: options that viewers show, with their defaults.
        result: runs the case of a request, or knows its result already.
    """

    def __init__(self, view: View, shown: Mapping[str, Any], result: Callable[[Mapping[str, Any]], Result]) -> None:
        kind = InferType.OTHERS if view.floating else InferType.SEGMENTATION
        super().__init__(kind, dict(view.labels), 3, view.description, dict(shown))
        self._view, self._result = view, result

    def is_valid(self) -> bool:
        """Always."""
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """-> a file, and what ``scores.json`` holds.

        Raises:
            AnomalyCLIPError: the request or its case is refused.
        """
        began = time.monotonic()
        extension = self._view.extension(request.get("result_extension"))
        dtype = self._view.dtype(request.get("result_dtype"))
        result = self._result(request)
        file = self._view.write(result, extension, dtype)
        params = result.scores() | {"label_names": dict(self._view.labels)}
        if self._view.name == BANDS:
            params["bands"] = dict(zip(BAND_NAMES, edges(result.threshold), strict=True))
        return str(file), params | {"latencies": {"total": round(time.monotonic() - began, 2)}}


class MostSuspicious(Strategy):
    """The unlabelled case with the highest score."""

    def __init__(self) -> None:
        super().__init__("Unlabelled cases, the most suspicious first; those without a score come last")

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        """-> id and score of the next case; None where all are labelled."""
        studies = cast(Studies, datastore)
        known = {image: studies.known(image) for image in studies.get_unlabeled_images()}
        scores = {image: scored.anomaly_score if scored else None for image, scored in known.items()}
        if not scores:
            return None
        first = ordered(scores, scores.get)[0]
        done = sum(score is not None for score in scores.values())
        return {"id": first, "anomaly_score": scores[first], "scored": done, "unlabelled": len(scores)}


class ScoreAll(ScoringMethod):
    """Tells how far the scores are, which the server finds by itself."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        super().__init__("Scores of all cases, by which the work list is sorted; the server finds them by itself")
        self._status = status

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """-> how many are scored, and which could not be."""
        return self._status()
