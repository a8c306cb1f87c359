"""Volumes and pictures that are in memory already: arrays, tensors, Pillow's images."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

from anomalyclip_monai.data.geometry import check_plausible, voxel_volume
from anomalyclip_monai.data.nifti import replace_non_finite
from anomalyclip_monai.data.photo import read_photo
from anomalyclip_monai.data.volume import Source, Volume
from anomalyclip_monai.exceptions import CaseError

NO_AFFINE = "no affine was given: voxels were taken for cubes of 1 mm, so volumes and positions in mm mean nothing"

_WAY_OUT = "give (X, Y, Z) or (1 or 3, X, Y, Z) with affine=, or a picture as PIL.Image.fromarray(array)"


def volume_of_array(array: Any, affine: ArrayLike | None = None, *, keep_nan: bool = False) -> Volume:
    """(X, Y, Z) or (1|3, X, Y, Z) in modality values -> :class:`~anomalyclip_monai.data.Volume`.

    Args:
        array: a NumPy array, memory-mapped or not, or a tensor; a ``MetaTensor`` brings its affine and, in its meta
            data, perhaps its ``acquisition_axis``. The caller's values are not changed.
        affine: (4, 4) voxel index to RAS mm, over the tensor's own.
        keep_nan: leave NaN and infinity as they are, for masks.

    Raises:
        CaseError: it is no volume, or the affine has none (``E_GEOMETRY``); its values are no real numbers
            (``E_PIXELS``).
    """
    meta = array.meta if isinstance(array, MetaTensor) else {}
    if affine is None and isinstance(array, MetaTensor):
        affine = np.asarray(array.affine, dtype=np.float64)
    values = array.detach().cpu().to(torch.float32).numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    shape = tuple(int(size) for size in values.shape)
    if values.dtype.kind not in "biuf":
        raise CaseError("E_PIXELS", f"an array of {values.dtype} holds no grey values", None, "give real numbers")
    is_picture = affine is None and values.dtype == np.uint8 and len(shape) == 3 and shape[2] in (3, 4)
    data = np.array(values[np.newaxis] if len(shape) == 3 else values, dtype=np.float32, order="C")
    if is_picture or data.ndim != 4 or data.shape[0] not in (1, 3) or 0 in data.shape:
        raise CaseError("E_GEOMETRY", f"an array of shape {shape} is not a volume", None, _WAY_OUT)
    notes = [] if affine is not None or keep_nan else [NO_AFFINE]
    grid = _affine(affine)
    if affine is not None:  # of any other array nobody says how large its voxels are
        check_plausible(grid, data.shape[1:])
    notes += [] if keep_nan else replace_non_finite(data, None)
    acquired = int(meta.get("acquisition_axis", -1))
    source = Source("memory", acquisition_axis=None if acquired < 0 else acquired, warnings=tuple(notes))
    return Volume(data, grid, source)


def _affine(given: ArrayLike | None) -> np.ndarray:
    if given is None:
        return np.eye(4)
    todo = "give (4, 4), voxel index to RAS millimetres"
    try:
        affine = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CaseError("E_GEOMETRY", "the affine holds no numbers", None, todo) from error
    if affine.shape != (4, 4):
        raise CaseError("E_GEOMETRY", f"the affine has shape {affine.shape}", None, todo)
    if not np.isfinite(affine).all() or voxel_volume(affine) < 1e-12:
        raise CaseError("E_GEOMETRY", "the affine has no volume", None, todo)
    return affine


def volume_of_picture(picture: Image.Image) -> Volume:
    """A Pillow image as if its file were read, see :func:`~anomalyclip_monai.data.photo.read_photo`.

    Raises:
        CaseError: see :func:`~anomalyclip_monai.data.photo.read_photo`.
    """
    upright = ImageOps.exif_transpose(picture)
    # both keep every value of these modes; what else there is, Pillow converts to colours
    kind = ".tif" if upright.mode in ("I", "F") or upright.mode.startswith("I;16B") else ".png"
    if kind == ".png" and upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        upright = upright.convert("RGB")
    with tempfile.TemporaryDirectory(prefix="anomalyclip-") as folder:
        file = Path(folder) / f"picture{kind}"
        upright.save(file)
        volume = read_photo(file)
    return replace(volume, source=replace(volume.source, path=None))
