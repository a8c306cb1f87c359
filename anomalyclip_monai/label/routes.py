"""What the server answers: MONAI Label's own routes as far as they are of use here, and ours in the place of some.

Ours take images by their id, and files that come with a request, no paths. Everything runs in threads, so that the
server is alive while it infers; nothing is started in a process of its own, which would load the model once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import BackgroundTasks, Depends, FastAPI, File, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from monailabel.config import settings
from monailabel.datastore.utils.convert import nifti_to_dicom_seg
from monailabel.endpoints import activelearning, datastore, info, login, ohif, proxy, scoring, session
from monailabel.endpoints.infer import ResultType, send_response
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from monailabel.interfaces.utils.app import apps
from monailabel.utils.others.generic import remove_file

from anomalyclip_monai.exceptions import (
    AnomalyCLIPError,
    NoInputError,
    OutputError,
    UsageError,
    WeightsError,
    unforeseen,
)
from anomalyclip_monai.label.application import SENT, Application
from anomalyclip_monai.label.turns import STOPPED
from anomalyclip_monai.label.views import BAND_NAMES, HEATMAP, VIEWS

_OHIF_COOKIE = "MONAILABEL_SERVER_URL"
"""From which OHIF's panel takes the address; without it, it asks port 8000."""

_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_COLOURS = {BAND_NAMES[0]: (102, 153, 255), BAND_NAMES[1]: (164, 246, 154), BAND_NAMES[2]: (254, 125, 123)}
"""In a SEG, those that OHIF makes of the names."""

_TEMPLATES = jinja2.Environment(loader=jinja2.PackageLoader("anomalyclip_monai.label", "."), autoescape=True)


def app_of(application: Application) -> FastAPI:
    """The web application."""
    apps[f"{settings.MONAI_LABEL_APP_DIR}{settings.MONAI_LABEL_STUDIES}"] = application
    app = FastAPI(
        title="anomalyclip serve", docs_url=None, redoc_url=None, lifespan=functools.partial(_lifespan, application)
    )
    for kind in (AnomalyCLIPError, MONAILabelException, ImageNotFoundException, LabelNotFoundException):
        app.add_exception_handler(kind, _refused)
    user = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
    own = _Own(application)
    app.get("/", dependencies=user)(own.worklist)
    app.post("/infer/{model}", dependencies=user)(own.infer)
    app.put("/session/", dependencies=user)(own.session)
    app.get("/scoring/", dependencies=user)(application.status)
    app.post("/scoring/{method}", dependencies=user)(own.scoring)
    theirs = [info, activelearning, datastore, scoring, session]
    if application.of_dicomweb:
        app.get("/ohif/{path:path}", dependencies=user)(own.ohif)
        theirs.append(proxy)
    for module in [*theirs, login] if settings.MONAI_LABEL_AUTH_ENABLE else theirs:
        for route in module.router.routes:
            app.add_api_route(route.path, _threaded(route), methods=list(route.methods), tags=list(route.tags))
    return app


class _Own:
    """Our routes."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def infer(
        self,
        background_tasks: BackgroundTasks,
        model: str,
        image: Annotated[str, Query()] = "",
        session_id: Annotated[str, Query()] = "",
        output: Annotated[ResultType | None, Query()] = None,
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
    ) -> Any:
        """Run a model on an image of the studies, of a session, or that comes with the request."""
        request = {**_object(params), "model": model, "image": image}
        request.pop(SENT, None)
        if output == ResultType.dicom_seg:
            self._check_seg(model, sent=bool(file or session_id))
            request["result_extension"] = ".nii.gz"
        with contextlib.ExitStack() as stack:
            if file is not None:
                request[SENT] = _received(file, stack)
            elif session_id:
                request[SENT] = self._session_image(session_id)
            try:
                result = self._application.infer(request)
            except AnomalyCLIPError:
                raise
            except Exception as error:
                raise unforeseen(error) from error
        if output == ResultType.dicom_seg:
            return self._seg(model, image, result, request, background_tasks)
        return send_response(self._application.datastore(), result, output, background_tasks)

    def session(
        self,
        background_tasks: BackgroundTasks,
        files: Annotated[list[UploadFile], File()],
        expiry: Annotated[int, Query()] = 0,
    ) -> Any:
        """Keep an image for several requests; archives are unpacked by our own reader, which trusts none."""
        return session.create_session(background_tasks, False, expiry, files)

    def scoring(self, method: str) -> dict[str, Any]:
        """Look for images without a score now."""
        if method not in self._application.info()["scoring"]:
            raise NoInputError("E_MODEL", f"no scoring method {method[:80]!r}", None, "see /info/")
        return self._application.async_scoring(method)

    def ohif(self, request: Request, path: str) -> Response:
        """OHIF, told where this server is."""
        response: Response = ohif.get_ohif(path)
        response.headers.append("set-cookie", f"{_OHIF_COOKIE}={request.base_url}; Path=/; SameSite=Lax")
        return response

    def worklist(self) -> HTMLResponse:
        """A page of all images, the most suspicious first."""
        page = _TEMPLATES.get_template("worklist.html")
        return HTMLResponse(page.render(rows=self._application.worklist(), status=self._application.status()))

    def _session_image(self, session_id: str) -> Path:
        found = self._application.sessions().get_session(session_id) if _SESSION.fullmatch(session_id) else None
        if found is None:
            raise NoInputError("E_NOT_FOUND", f"no session {session_id[:80]!r}", None, "begin one anew")
        return Path(found.image)

    def _check_seg(self, model: str, *, sent: bool) -> None:
        """Refuse a SEG of what has none (``E_OPTION``)."""
        if model == HEATMAP:
            raise UsageError("E_OPTION", "a heatmap is no segmentation", None, "ask for an image")
        if sent or not self._application.of_dicomweb:
            raise UsageError("E_OPTION", "a SEG goes with a series of DICOMweb", None, "ask for an image")

    def _seg(
        self, model: str, image: str, result: Mapping[str, Any], request: Mapping[str, Any], tasks: BackgroundTasks
    ) -> FileResponse:
        """MONAI Label's SEG of an answer, by dcmqi."""
        tasks.add_task(remove_file, result["file"])
        names = VIEWS[model].labels if model in VIEWS else {}
        labels = request.get("label_info") or [
            {"name": name, "description": name, "color": _COLOURS[name], "model_name": "AnomalyCLIP"} for name in names
        ]
        folder = str(self._application.images.case_of(image).path)
        made = nifti_to_dicom_seg(folder, result["file"], labels, use_itk=True)
        if not made or not Path(made).is_file():
            raise UsageError("E_OPTION", "there is nothing to be put into a SEG", image, "ask for another threshold")
        tasks.add_task(remove_file, made)
        return FileResponse(made, media_type="application/dicom", filename=Path(made).name)


def _object(params: str) -> dict[str, Any]:
    """The options that come with a request.

    Raises:
        UsageError: they are no JSON object (``E_OPTION``).
    """
    try:
        found = json.loads(params or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError("E_OPTION", "params are no JSON object", None, 'send one, as {"threshold": 0.5}')
    return found


def _received(file: UploadFile, stack: contextlib.ExitStack) -> Path:
    """A file that came with a request, under its own name in a folder that goes with the stack."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sent-")))
    path = folder / (Path(file.filename or "").name or "image.nii.gz")
    with open(path, "wb") as target:
        shutil.copyfileobj(file.file, target)
    return path


def _threaded(route: APIRoute) -> Callable[..., Any]:
    """MONAI Label's function of a route in a thread: they are coroutines that wait for nothing but block."""
    function = route.endpoint
    if not inspect.iscoroutinefunction(function) or ("POST" in route.methods and route.path.startswith("/proxy")):
        return function  # the latter do wait for the body of a request

    def run(*given: Any, **named: Any) -> Any:
        return asyncio.run(function(*given, **named))

    # The signature alone: by what functools.wraps sets as well, FastAPI would see that it is a coroutine.
    run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    run.__name__ = function.__name__
    return run


@contextlib.asynccontextmanager
async def _lifespan(application: Application, _: FastAPI) -> AsyncIterator[None]:
    application.server_mode(True)
    application.scorer.start()
    try:
        yield
    finally:
        application.stop()


def _refused(_: Request, error: Exception) -> JSONResponse:
    """Our line as the answer: 404 for what is not there, 422 for what cannot be done."""
    if isinstance(error, AnomalyCLIPError):
        return JSONResponse({"detail": str(error)}, _status(error))
    said = getattr(error, "msg", None) or str(error)
    return JSONResponse({"detail": str(NoInputError("E_NOT_FOUND", said, None, "see /info/"))}, 404)


def _status(error: AnomalyCLIPError) -> int:
    if isinstance(error, NoInputError) and error.code in ("E_NOT_FOUND", "E_MODEL"):
        return 404
    if isinstance(error, (OutputError, WeightsError)) or error.code == "E_INTERNAL":
        return 500
    return {STOPPED: 503, "E_DICOMWEB": 502}.get(error.code, 422)
