"""MONAI's loading step on this package's own readers: geometry untouched, no default reader ever asked."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, LoadImaged
from monai.transforms.transform import MapTransform, Transform
from nibabel.spatialimages import SpatialImage
from PIL import Image

from anomalyclip_monai.data.cases import Case, the_case
from anomalyclip_monai.data.masks import (
    StoredMask,
    grid_problem,
    labels_of,
    listed,
    mask_of_volume,
    meaning_of,
    read_mask_file,
    rotation_note,
)
from anomalyclip_monai.data.memory import volume_of_array, volume_of_picture
from anomalyclip_monai.data.nifti import volume_from_nibabel
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import Record

logger = logging.getLogger(__name__)

CONVERTED = (
    "MONAI Label handed over a NIfTI made from DICOM without its header, by which presets are chosen: "
    "use anomalyclip serve, or choose the preset"
)


class LoadImageCase(LoadImage):
    """A path, :class:`~anomalyclip_monai.data.Case`, nibabel image, array, tensor or picture -> :class:`Volume`.

    Args:
        volume: which volume of a 4D file, counted from 0.
        per_slice: read a DICOM series whose slices lie on no grid one by one.
    """

    def __init__(self, volume: int | None = None, per_slice: bool = False) -> None:
        # MONAI's own constructor registers readers, one of which prints on every call; none is used here.
        Transform.__init__(self)
        self.volume = None if volume is None else int(volume)
        self.per_slice = per_slice
        self.image_only = True

    def __call__(self, filename: Any, reader: Any = None) -> Volume:
        """Read; ``reader`` is there for MONAI's signature and is not used.

        Raises:
            AnomalyCLIPError: it cannot be read.
        """
        if isinstance(filename, Volume):
            return replace(filename, data=filename.data.copy())  # what comes next may scale its values in place
        if isinstance(filename, SpatialImage):
            return volume_from_nibabel(filename, volume=self.volume)
        if isinstance(filename, (torch.Tensor, np.ndarray)):
            return volume_of_array(filename)
        if isinstance(filename, Image.Image):
            return volume_of_picture(filename)
        if not isinstance(filename, (Case, str, os.PathLike)):
            what = f"{type(filename).__name__} is no image"
            raise CaseError(
                "E_NOT_IMAGE", what, None, "give a path, an array with affine=, a nibabel image or a picture"
            )
        case = filename if isinstance(filename, Case) else the_case(filename)
        return case.read(self.volume, self.per_slice)


class LoadImageCased(LoadImaged):
    """Dictionary version of :class:`LoadImageCase`.

    ``image`` becomes a ``MetaTensor`` (1|3, X, Y, Z) in modality values; the record also gets ``source``
    (:class:`~anomalyclip_monai.data.Source`), ``case``, ``notes`` (a list of sentences) and ``started`` (seconds).
    ``roi``, where it is there, becomes a boolean tensor (1, X, Y, Z) of the same grid.

    Args:
        keys: the image's key.
        volume: which volume of a 4D file, counted from 0.
        per_slice: read a DICOM series whose slices lie on no grid one by one.
        roi_key: the mask's key.
        roi_label: the labels of the mask that are inside, one or several; None: what
            :func:`~anomalyclip_monai.data.masks.meaning_of` says.
    """

    def __init__(
        self,
        keys: str = "image",
        volume: int | None = None,
        per_slice: bool = False,
        roi_key: str = "roi",
        roi_label: Sequence[int] | int | None = None,
    ) -> None:
        MapTransform.__init__(self, keys)
        self._loader = LoadImageCase(volume, per_slice)
        self.roi_key = roi_key
        self.roi_label = None if roi_label is None else tuple(np.atleast_1d(roi_label).astype(int).tolist())

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> Record:
        """Load all keys of a record.

        Raises:
            AnomalyCLIPError: an image cannot be read; or the mask has another grid, lacks a label or is empty
                (``E_ROI``).
        """
        record: Record = {str(key): value for key, value in data.items()}
        record.setdefault("started", time.monotonic())
        for key in self.key_iterator(record):
            given = record[key]
            volume = self._loader(given)
            record[key] = image = to_meta_tensor(volume)
            if not self._loader.image_only:  # the way MONAI Label asks
                record[f"{key}_meta_dict"] = dict(image.meta)
            record["source"] = volume.source
            record.setdefault("case", given.name if isinstance(given, Case) else "case")
            record["notes"] = list(volume.source.warnings)
            if not self._loader.image_only and volume.source.kind != "dicom" and _monai_label_converts():
                record["notes"].append(CONVERTED)
                logger.warning(CONVERTED)
            if record.get(self.roi_key) is not None:
                record[self.roi_key], notes = _load_roi(record[self.roi_key], volume, self.roi_label)
                record["notes"] += notes
            else:
                record.pop(self.roi_key, None)
        return record


def _monai_label_converts() -> bool:
    """Whether this process is a server of MONAI Label's on a DICOMweb store, which makes NIfTI of every series."""
    settings = getattr(sys.modules.get("monailabel.config"), "settings", None)
    return str(getattr(settings, "MONAI_LABEL_STUDIES", "")).startswith(("http://", "https://"))


def to_meta_tensor(volume: Volume) -> MetaTensor:
    """:class:`Volume` -> ``MetaTensor`` with what MONAI's tools look for, and no path and no patient attribute."""
    affine = torch.from_numpy(volume.affine.copy())
    axis = volume.source.acquisition_axis
    meta = {
        "spatial_shape": np.array(volume.data.shape[1:]),
        "original_affine": volume.affine.copy(),
        "acquisition_axis": -1 if axis is None else axis,
        "stacked_axis": -1 if volume.source.regular else 2,
        "physical_size": int(volume.source.has_physical_size),
    }
    return MetaTensor(torch.from_numpy(volume.data), affine=affine, meta=meta)


def _load_roi(given: Any, image: Volume, labels: tuple[int, ...] | None) -> tuple[torch.Tensor, list[str]]:
    """-> (1, X, Y, Z) bool on the grid of ``image``, and how the mask was understood where that is not plain."""
    mask = _stored_mask(given, image)
    source = image.source
    affine = image.affine if source.has_physical_size else None
    if problem := grid_problem(mask, image.data.shape[1:], affine, source.path):
        raise CaseError("E_ROI", problem, mask.path, "make the mask on the image's grid")
    if labels is not None:
        _check_labels(mask, labels)
    try:
        meaning = meaning_of(mask, "auto" if labels is None else labels, of="inside")
    except ValueError as error:
        raise CaseError("E_ROI", str(error), mask.path, "save labels, or 0 and 255") from error
    if not meaning.inside.any():
        there = labels_of(mask)
        what = f"nothing of the mask is inside, its labels are {listed(there)}" if there else "the mask is empty"
        raise CaseError("E_ROI", what, mask.path, "choose with --roi-label" if there else "check the mask")
    notes = [*meaning.notes, rotation_note(mask, source.path)]
    return torch.from_numpy(meaning.inside[np.newaxis]), [note for note in notes if note]


def _stored_mask(given: Any, image: Volume) -> StoredMask:
    if isinstance(given, (str, Path)):
        return read_mask_file(given)
    if isinstance(given, (torch.Tensor, np.ndarray)):
        # an array without a place of its own is meant for the image's grid
        placed = isinstance(given, MetaTensor)
        return mask_of_volume(volume_of_array(given, None if placed else image.affine, keep_nan=True))
    if isinstance(given, SpatialImage):
        return mask_of_volume(volume_from_nibabel(given, keep_nan=True))
    return mask_of_volume(LoadImageCase()(given))


def _check_labels(mask: StoredMask, wanted: tuple[int, ...]) -> None:
    """Refuse labels that a mask does not hold (``E_ROI``)."""
    there = labels_of(mask)
    if there is None:
        raise CaseError("E_ROI", "the mask holds no labels but soft values", mask.path, "leave --roi-label away")
    if missing := [label for label in wanted if label not in there]:
        what = f"no label {listed(missing)} in the mask, it holds {listed(there) or 'none'}"
        raise CaseError("E_ROI", what, mask.path, "choose from those")
