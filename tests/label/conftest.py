"""Studies for a server, the server itself, and 3D Slicer's own client for it."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import AXIAL, stack, write
from label_server import Server, save, small_head
from PIL import Image

from anomalyclip_monai import label
from anomalyclip_monai.exceptions import UsageError


@pytest.fixture(scope="session")
def monai_label() -> None:
    """Skip where MONAI Label is not installed."""
    try:
        label.check_installed()
    except UsageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with volumes on different grids, at different depths, a DICOM series, a photo and a broken file."""
    folder = tmp_path_factory.mktemp("studies")
    data, affine = small_head(lesion=True)
    save(folder / "lesion.nii.gz", data, affine)  # oblique, left-handed
    save(folder / "deep" / "er" / "straight.nii.gz", data[::-1], np.diag([2.7, 2.7, 5, 1]))
    save(folder / "las.nii", data, np.diag([-2.7, 2.7, 5, 1]))
    quiet, affine = small_head(lesion=False)
    save(folder / "quiet.nii.gz", quiet, affine)
    slices = [plane.T for plane in np.moveaxis(data.astype(int), -1, 0)]
    series = stack(count=16, orientation=AXIAL, spacing=(2.7, 2.7), step=(0, 0, 5.0), modality="MR")
    for image, stored in zip(series, slices, strict=True):
        image.RescaleIntercept = 0
        image.Rows, image.Columns = stored.shape
        image.PixelData = stored.astype("<i2").tobytes()
    write(folder / "mr" / "series", series)
    Image.fromarray((data[:, :, 8].T / 4).clip(0, 255).astype(np.uint8)).save(folder / "photo.png")
    (folder / "broken.nii.gz").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def serve(monai_label: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start a server on a free port, with the fast network."""
    started: list[Server] = []

    def start(*arguments: str, cwd: Path | None = None) -> Server:
        place = cwd or tmp_path_factory.mktemp("server")
        started.append(Server(["--fast", "--port", "0", *arguments], place))
        return started[-1]

    yield start
    for server in started:
        server.end()


@pytest.fixture(scope="session")
def slicer(monai_label: None) -> Callable[[str, Path], Any]:
    """The client class of 3D Slicer's plugin, as it lies in MONAI Label's wheel: (address, folder) -> client."""
    folder = Path(sys.prefix, "monailabel", "plugins", "slicer", "MONAILabel", "MONAILabelLib")
    spec = importlib.util.spec_from_file_location("slicer_client", folder / "client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it imports cgi
        spec.loader.exec_module(module)

    def client(address: str, received: Path) -> Any:
        received.mkdir(exist_ok=True)
        return module.MONAILabelClient(address, tmpdir=str(received), client_id="reader")

    client.error = module.MONAILabelClientException  # type: ignore[attr-defined]
    return client
