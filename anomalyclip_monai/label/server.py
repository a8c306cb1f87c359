"""Starts the server: MONAI Label's settings, the datastore, the application, and uvicorn."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from anomalyclip_monai.api import Pipeline
from anomalyclip_monai.exceptions import CaseError, NoInputError, UsageError
from anomalyclip_monai.files import absolute
from anomalyclip_monai.label import compat
from anomalyclip_monai.label.asked import Asked
from anomalyclip_monai.label.private import private_folder
from anomalyclip_monai.label.worklist import FILE, Scores
from anomalyclip_monai.options import CaseOptions, ModelOptions, ServeOptions
from anomalyclip_monai.text import printable

logger = logging.getLogger(__name__)


def serve(
    studies: str,
    model: ModelOptions,
    case: CaseOptions,
    options: ServeOptions,
    say: Callable[[str], None],
) -> None:
    """Serve a folder or a DICOMweb server until a signal ends it.

    Args:
        studies: the folder, or the address.
        model: which network runs, and where.
        case: how cases are read, scored and outlined where a request does not say.
        options: of the server.
        say: told, line by line, the address and what is written where, as soon as requests are answered.

    Raises:
        AnomalyCLIPError: it cannot start.
    """
    folder = _folder_of(studies)
    with private_folder() as private:
        _configure(studies, private)
        pipeline = Pipeline(model, case)  # wrong options, and missing weights, are told now
        from anomalyclip_monai.label.application import Application
        from anomalyclip_monai.label.routes import app_of

        work = _work_folder(folder, options)
        settings = {"conditions": pipeline.conditions, "case": case.given()}
        scores = Scores(None if work is None else work / FILE, settings)
        datastore = _datastore(studies, folder, work, private, options, scores)
        asked = Asked(model, case)
        application = Application(
            private, datastore, studies, asked, scores, scoring=options.score is None or options.score
        )
        server = _Server(app_of(application), options, lambda address: _tell(say, address, folder, work))
        server.run()


def _folder_of(studies: str) -> Path | None:
    """The folder that was named; None for the address of a DICOMweb server.

    Raises:
        NoInputError: it is not there (``E_NOT_FOUND``).
    """
    if studies.startswith(("http://", "https://")):
        return None
    folder = absolute(studies)
    if not folder.is_dir():
        raise NoInputError("E_NOT_FOUND", "no such folder", studies, "give a folder, or the address of DICOMweb")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise NoInputError("E_NOT_FOUND", "the folder cannot be read", studies, "change its rights")
    return folder


def _configure(studies: str, private: Path) -> None:
    """MONAI Label's settings, which it otherwise takes from the environment; nothing of its is put elsewhere."""
    compat.apply()
    from monailabel.config import settings

    settings.MONAI_LABEL_STUDIES, settings.MONAI_LABEL_APP_DIR = studies, str(private)
    settings.MONAI_LABEL_SESSION_PATH = str(private / "sessions")
    settings.MONAI_LABEL_AUTO_UPDATE_SCORING = False
    settings.MONAI_LABEL_DICOMWEB_CACHE_PATH = str(private / "dicom")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # dcmqi


def _work_folder(folder: Path | None, options: ServeOptions) -> Path | None:
    """Where labels, the list of images and scores are kept; None: nowhere, as of a DICOMweb server without --work."""
    if options.work is None:
        return folder
    return Path(os.path.abspath(options.work))


def _datastore(
    studies: str, folder: Path | None, work: Path | None, private: Path, options: ServeOptions, scores: Scores
) -> Any:
    from monailabel.config import settings
    from monailabel.datastore.dicom import DICOMwebClientX

    from anomalyclip_monai.label.studies import DicomWebStudies, FolderStudies

    if folder is not None:
        found = FolderStudies(folder, work or folder, lambda image: scores.get(image, found.stamp_of(image)))
        if not found.list_images():
            logger.warning("no image in the studies yet: %s", printable(folder))
        return found
    session = None
    if settings.MONAI_LABEL_DICOMWEB_USERNAME:
        from dicomweb_client.session_utils import create_session_from_user_pass

        user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
        session = create_session_from_user_pass(user, password)
    client = DICOMwebClientX(
        studies.rstrip("/"),
        session=session,
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )
    modalities = options.modality or ("CT", "MR")
    web = DicomWebStudies(client, modalities, private / "dicom", lambda image: scores.get(image, ""))
    client.set_http_retry_params(retry=False)
    try:
        web.list_images()
    except CaseError as error:
        raise NoInputError("E_DICOMWEB", error.what, studies, error.todo) from error
    client.set_http_retry_params(retry=True)
    return web


def _tell(say: Callable[[str], None], address: str, folder: Path | None, work: Path | None) -> None:
    say(f"work list, and address for 3D Slicer's module MONAI Label: {address}")
    if folder is None:
        say(f"OHIF: {address}/ohif/")
    if work is None:
        say("nothing is kept after the end: labels go to the DICOMweb server, scores are lost without --work")
    elif folder is None:
        say(f"written: {FILE} in {work}; labels go to the DICOMweb server")
    else:
        say(f"written: labels/, datastore_v2.json and {FILE} in {work}")
    say("research use only, not a medical device; end with Ctrl-C")


class _Server(uvicorn.Server):
    """Tells its address as soon as it answers."""

    def __init__(self, app: FastAPI, options: ServeOptions, ready: Callable[[str], None]) -> None:
        self._options, self._ready = options, ready
        host, port = options.host or "127.0.0.1", 8000 if options.port is None else options.port
        config = uvicorn.Config(
            app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=10
        )
        super().__init__(config)

    def run(self, sockets: Any = None) -> None:
        """Until a signal.

        Raises:
            UsageError: the port cannot be used (``E_PORT``).
        """
        errors = logging.getLogger("uvicorn.error")
        before = errors.level
        errors.setLevel(logging.CRITICAL)
        try:
            super().run(sockets)
        except SystemExit:
            what = f"port {self.config.port} of {self.config.host} cannot be used"
            raise UsageError("E_PORT", what, None, "choose another with --port") from None
        finally:
            errors.setLevel(before)

    async def startup(self, sockets: Any = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        if self.started:
            logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
            port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            self._ready(f"http://{host}:{port}")
