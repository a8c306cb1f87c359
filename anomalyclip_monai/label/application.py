"""The MONAI Label app: runs the bundle's one definition for every request, and scores the studies behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First

from anomalyclip_monai import __version__
from anomalyclip_monai.data import Case
from anomalyclip_monai.data.cases import the_case
from anomalyclip_monai.exceptions import AnomalyCLIPError, NoInputError
from anomalyclip_monai.label.asked import Asked
from anomalyclip_monai.label.results import Results
from anomalyclip_monai.label.studies import DicomWebStudies, Studies
from anomalyclip_monai.label.tasks import MOST_SUSPICIOUS, SCORING, Localize, MostSuspicious, ScoreAll
from anomalyclip_monai.label.turns import STOPPED
from anomalyclip_monai.label.views import VIEWS
from anomalyclip_monai.label.worklist import Scored, Scorer, Scores, ordered
from anomalyclip_monai.outputs import Result

SENT = "sent_image"
"""Key of a request under which the server hands over a file that came with it; a client's own is taken away."""


class Application(MONAILabelApp):
    """Models, strategy and scores over one datastore.

    Args:
        folder: for MONAI Label's own files.
        studies: the datastore.
        address: folder or URL of it.
        asked: options of the server, and how those of a request go with them.
        scores: of its images.
        scoring: whether images are scored without being asked for.
    """

    def __init__(
        self, folder: Path, studies: Studies, address: str, asked: Asked, scores: Scores, *, scoring: bool
    ) -> None:
        self.images, self._asked, self._scores = studies, asked, scores
        self.results = Results()
        self.scorer = Scorer(self._pending if scoring else list, self._score)
        super().__init__(
            app_dir=str(folder),
            studies=address,
            conf={},
            name="AnomalyCLIP",
            description="Zero-shot lesion localisation. Research use only, not a medical device.",
            version=__version__,
        )

    @property
    def of_dicomweb(self) -> bool:
        """Whether the images are series of a DICOMweb server."""
        return isinstance(self.images, DicomWebStudies)

    def init_datastore(self) -> Any:
        """The one that was given."""
        return self.images

    def init_infers(self) -> dict[str, InferTask]:
        """The models."""
        shown = self._asked.shown()
        return {view.name: Localize(view, shown, self._result) for view in VIEWS.values()}

    def init_strategies(self) -> dict[str, Strategy]:
        """How the next case is chosen."""
        return {MOST_SUSPICIOUS: MostSuspicious(), "first": First()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """The scores, which come by themselves."""
        return {SCORING: ScoreAll(self.status)}

    def async_scoring(self, method: Any, params: Any = None) -> dict[str, Any]:
        """Not in a process of its own, which would load the model once more."""
        self.scorer.wake()
        return self.status()

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Answer a request for one of the models.

        Args:
            request: ``model``, and as ``image`` the id of an image of the studies; or, from the server alone, a file
                under :data:`SENT`. Everything else is an option, or is not looked at.
            datastore: MONAI Label's; there is one only.

        Returns:
            ``{"file", "label", "tag", "params"}`` as MONAI Label's own apps.

        Raises:
            AnomalyCLIPError: there is no such model or image, or the request or the case is refused.
        """
        model, image = request.get("model"), request.get("image")
        task = self._infers.get(model)
        if task is None:
            todo = f"choose from: {', '.join(self._infers)}"
            raise NoInputError("E_MODEL", f"no model {str(model)[:80]!r}", None, todo)
        if SENT not in request and not (isinstance(image, str) and image in self.images.list_images()):
            what = f"the studies have no image {str(image)[:80]!r}"
            raise NoInputError("E_NOT_FOUND", what, None, "choose one of the work list")
        file, params = task(request)
        tag = str(request.get("label_tag") or "original")
        if request.get("save_label") is True and SENT not in request:
            self.datastore().save_label(image, file, tag, {"model": model, "params": params})
        return {"file": file, "label": file, "tag": tag, "params": params}

    def infer_wsi(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Refused: whole slide images are none of this model's."""
        raise NoInputError("E_MODEL", "no model for whole slide images", None, "use /infer")

    def status(self) -> dict[str, Any]:
        """How far the scores are."""
        known = {image: self.images.known(image) for image in self.images.list_images()}
        failed = {image: scored.error for image, scored in known.items() if scored and scored.error}
        done = sum(bool(scored) for scored in known.values())
        state = "RUNNING" if self.scorer.running else "DONE"
        return {"status": state, "images": len(known), "scored": done - len(failed), "failed": failed}

    def worklist(self) -> list[dict[str, Any]]:
        """All images, the most suspicious first and those that are labelled last."""
        unlabelled = set(self.images.get_unlabeled_images())
        images = self.images.list_images()
        known = {image: self.images.known(image) for image in images}
        scores = {image: scored.anomaly_score if scored else None for image, scored in known.items()}
        rows = ordered(images, scores.get)
        rows.sort(key=lambda image: image not in unlabelled)
        infos = {image: scored.info() if scored else {} for image, scored in known.items()}
        return [{"image": image, "labelled": image not in unlabelled, **infos[image]} for image in rows]

    def stop(self) -> None:
        """End the work that goes on."""
        self.scorer.stop()
        self.results.turns.stop()

    def _result(self, request: Mapping[str, Any]) -> Result:
        model, options = self._asked.options(request)
        image = str(request.get("image") or "")
        sent = request.get(SENT)
        case = self.images.case_of(image) if sent is None else the_case(sent)
        shown = image or "the image that was sent"
        try:
            result = self.results.of(case, model, options)
        except AnomalyCLIPError as error:
            raise _without_path(error, case, shown) from error
        if sent is None and (model, options) == (self._asked.model, self._asked.case):
            self._scores.put(image, Scored.of(result, self.images.stamp_of(image)))
        return result

    def _pending(self) -> list[str]:
        self.datastore().refresh()
        return [image for image in self.images.list_images() if self.images.known(image) is None]

    def _score(self, image: str) -> None:
        """Score an image; where that fails, the reason takes the place of the score."""
        stamp = self.images.stamp_of(image)
        with self.images.borrowed(image) as case:
            try:
                scored = Scored.of(self.results.behind(case, self._asked.model, self._asked.case), stamp)
            except AnomalyCLIPError as error:
                if error.code == STOPPED:
                    return
                scored = Scored(stamp, error=str(_without_path(error, case, image)))
        self._scores.put(image, scored)


def _without_path(error: AnomalyCLIPError, case: Case, shown: str) -> AnomalyCLIPError:
    """An error for a client, which has nothing to do with the folders of the server."""
    what = re.sub(re.escape(str(case.path)), shown, error.what)
    return type(error)(error.code, what, None if error.path is None else shown, error.todo)
