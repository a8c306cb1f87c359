"""The tag oracle: each stored frame by its own tags, decoded by pydicom, without any stacking."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from anomalyclip_monai.data.archive import open_archive
from anomalyclip_monai.data.dicom_series import read_series, scan
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.exceptions import CaseError


@dataclass(frozen=True)
class StoredFrame:
    values: Any
    """(rows, columns) or (rows, columns, 3)"""
    to_world: Any
    """(4, 3): (column, row, 1) to LPS mm, None without patient geometry"""


def stored_frames(path: Path) -> list[StoredFrame]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = dcmread(path, force=True)
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    array = pixel_array(ds)
    count = int(ds.get("NumberOfFrames") or 1)
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        array = apply_color_lut(array, ds)
    frames = array if count > 1 else array[None]
    return [StoredFrame(_rescaled(ds, frames[i], i), _plane(ds, i)) for i in range(count)]


def _group(ds: Dataset, frame: int, keyword: str) -> Dataset | None:
    for groups, i in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        if groups in ds and keyword in ds[groups].value[i]:
            return ds[groups].value[i][keyword].value[0]
    return None


def _rescaled(ds: Dataset, stored: Any, frame: int) -> Any:
    own = _group(ds, frame, "PixelValueTransformationSequence")
    if own is not None:
        return stored * float(own.RescaleSlope) + float(own.RescaleIntercept)
    return np.asarray(apply_modality_lut(stored, ds), np.float64)


def _plane(ds: Dataset, frame: int) -> Any:
    position = _group(ds, frame, "PlanePositionSequence") or ds
    orientation = _group(ds, frame, "PlaneOrientationSequence") or ds
    measures = _group(ds, frame, "PixelMeasuresSequence") or ds
    if "ImagePositionPatient" not in position:
        return None
    matrix = np.zeros((3, 3))
    directions = np.array(orientation.ImageOrientationPatient, float)
    matrix[:, 0] = directions[:3] * float(measures.PixelSpacing[1])
    matrix[:, 1] = directions[3:] * float(measures.PixelSpacing[0])
    matrix[:, 2] = np.array(position.ImagePositionPatient, float)
    return matrix


def check_volume(volume: Volume, frames: list[StoredFrame]) -> set[int]:
    """Find every slice among the frames by content, place and some pixels; return their numbers."""
    found = set()
    rng = np.random.default_rng(0)
    assert volume.data.dtype == np.float32
    assert np.linalg.det(volume.affine[:3, :3]) > 0
    for k in range(volume.data.shape[-1]):
        image = np.moveaxis(volume.data[..., k], 0, -1)  # (X, Y, C)
        matches = [
            i
            for i, frame in enumerate(frames)
            if i not in found
            and frame.values.shape[:2] == (image.shape[1], image.shape[0])
            and np.allclose(np.atleast_3d(frame.values), image.transpose(1, 0, 2), rtol=1e-6, atol=2e-4)
            and _distance(volume, frame, k) < 0.05
        ]
        assert matches, f"slice {k} is no stored frame at its place"
        frame = frames[matches[0]]
        for _ in range(20):
            row, column = rng.integers(image.shape[1]), rng.integers(image.shape[0])
            expected = np.atleast_3d(frame.values)[row, column]
            np.testing.assert_allclose(volume.data[:, column, row, k], expected, rtol=1e-6, atol=2e-4)
        found.add(matches[0])
    return found


def _distance(volume: Volume, frame: StoredFrame, k: int) -> float:
    """Worst corner of slice k from where the frame's own tags put it, mm."""
    columns, rows = volume.data.shape[1] - 1, volume.data.shape[2] - 1
    if frame.to_world is None:
        return 0.0 if not volume.source.has_physical_size else np.inf
    worst = 0.0
    for i, j in ((0, 0), (columns, 0), (0, rows), (columns, rows)):
        lps = frame.to_world @ np.array([i, j, 1.0])
        ras = volume.affine @ np.array([i, j, k, 1.0])
        worst = max(worst, float(np.linalg.norm(lps * [-1, -1, 1] - ras[:3])))
    return worst


@dataclass(frozen=True)
class Outcome:
    code: str | None = None
    message: str = ""
    series: int = 0
    volumes: int = 0
    frames: int = 0
    """frames found at their places"""
    warnings: tuple[str, ...] = ()


def outcome(path: Path) -> Outcome:
    """Read all series and volumes below a path and hold each against the oracle."""
    with ExitStack() as stack:
        if path.suffix == ".zip":
            path = stack.enter_context(open_archive(path))
        try:
            found, skipped = scan(path)
            if not found:
                return Outcome("E_NO_IMAGES", f"E_NO_IMAGES: {dict(skipped)}")
            total, volumes, notes = 0, 0, []
            for series in found:
                frames = [f for p in sorted({f.path for f in series.frames}) for f in stored_frames_or_none(p)]
                seen: set[int] = set()
                for volume in _volumes(series):
                    new = check_volume(volume, frames)
                    seen |= new
                    volumes += 1
                    notes += volume.source.warnings
                total += len(seen)
            notes += [f"{count} {reason}" for reason, count in skipped.items()]
            return Outcome(None, "", len(found), volumes, total, tuple(notes))
        except CaseError as error:
            return Outcome(error.code, str(error))


def stored_frames_or_none(path: Path) -> list[StoredFrame]:
    try:
        return stored_frames(path)
    except Exception:
        return []


def _volumes(series: Any) -> Iterable[Volume]:
    try:
        yield read_series(series)
        return
    except CaseError as error:
        if error.code != "E_4D":
            raise
    n = 0
    while True:
        try:
            volume = read_series(series, volume=n)
        except CaseError as error:
            if error.code == "E_4D" and n:
                return
            raise
        yield volume
        n += 1
