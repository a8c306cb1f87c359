"""Read a DICOM series as a volume whose every slice is where its own header says.

Slices are sorted by Image Position (Patient) along the normal of Image Orientation (Patient); file names,
instance numbers and slice locations do not matter. The affine is fitted to the positions and then held
against each of them: a series whose slices stray more than :data:`MAX_POSITION_ERROR` is refused. ``scan``
finds series, ``read_series`` reads one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from anomalyclip_monai.data.dicom_headers import CROSS_SECTIONAL, SliceHeader, is_dicom
from anomalyclip_monai.data.dicom_origin import Origin
from anomalyclip_monai.data.dicom_pixels import decode_volume
from anomalyclip_monai.data.dicom_scan import Series, scan
from anomalyclip_monai.data.volume import Source, Volume
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import Affine

__all__ = ["Series", "is_dicom", "read_series", "scan"]

MAX_POSITION_ERROR = 0.05
"""mm between a slice's place by the affine and by its own header, at its worst corner; or a quarter of the
spacing where that is less, so that a missing slice shows in the finest of volumes."""

MAX_ORIENTATION_NOISE = 1e-3
"""Largest difference between direction cosines of one stack; scanners write them with noise of 1e-5."""

MIN_SPACING, MAX_SPACING, MAX_POSITION = 1e-3, 1e3, 1e6
"""mm; beyond these a header is damaged, and sums and products of its numbers may overflow or vanish."""

BETWEEN_SLICES = frozenset({"E_IRREGULAR_SPACING", "E_MISSING_SLICES", "E_DUPLICATE_POSITION", "E_MIXED_ORIENTATION"})
"""Refusals of how slices lie to each other, each of which is still good by itself."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_PIXEL_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
_SHOWN = ("echo time", "b-value", "temporal position", "inversion time", "trigger time")
_IMAGE_TYPES = frozenset({"M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL", "IMAGINARY", "FIELD_MAP", "B0", "ADC"})


@np.errstate(over="ignore", invalid="ignore")  # of damaged numbers; what comes of them is checked
def read_series(series: Series, *, volume: int | None = None, per_slice: bool = False) -> Volume:
    """Read one series as (C, X, Y, Z): columns, rows, slices in ascending order along the normal.

    The slice vector is the fitted step between positions, not the normal, so that gantry tilt stays in the
    affine as a shear. An object without patient geometry (ultrasound, endoscopy, radiograph) has its frames
    as slices, voxels of one pixel and ``has_physical_size`` False.

    Args:
        series: from :func:`scan`.
        volume: which of several volumes at the same positions (echoes, times, b-values, stacks), from 0 in
            the order that the message of ``E_4D`` lists.
        per_slice: read a series that would be refused with one of :data:`BETWEEN_SLICES` as slices one after the
            other: ``regular`` is then False, only ``frames`` say where each lies, and the affine is that of the
            first slice with its thickness as step. A series on a grid is read as always.

    Raises:
        CaseError: with the code of the first thing that is wrong; the whole series is refused.
    """
    for header in series.headers:
        if header.problem is not None:
            problem = header.problem
            raise CaseError(problem.code, problem.what, header.frame.path, problem.todo)
    if not series.headers:
        raise CaseError("E_NO_IMAGES", "the series has no frames", series.path)
    if not any(header.has_geometry for header in series.headers):
        return _read_frames(series, volume)
    _check_complete(series.headers)
    try:
        volumes = [part for stack in _stacks(series.headers) for part in _split(stack)]
    except CaseError as error:
        if not per_slice or error.code not in BETWEEN_SLICES:
            raise
        _check_one_size(series.headers)
        volumes = [list(series.headers)]
        return _read_slices(series, volumes[_choose(volumes, volume, series)], error)
    if per_slice:
        slices = volumes[_choose(volumes, volume, series)]
        try:
            affine = _fit_affine(slices)
        except CaseError as error:
            if error.code not in BETWEEN_SLICES:
                raise
            return _read_slices(series, slices, error)
    else:
        # Of several volumes a bad one refuses all: slices may have been parted wrongly.
        affines = [_fit_affine(part) for part in volumes]
        chosen = _choose(volumes, volume, series)
        slices, affine = volumes[chosen], affines[chosen]
    decoded = decode_volume(slices, series.modality)
    notes = (*series.warnings, *_tilt_note(affine), *decoded.notes)
    return Volume(decoded.data, affine, _source(series, slices, notes, decoded.origin))


def _read_slices(series: Series, headers: Sequence[SliceHeader], why: CaseError) -> Volume:
    """Read slices that lie on no grid, one after the other."""
    slices = _in_order(headers)
    decoded = decode_volume(slices, series.modality)
    note = f"The slices lie on no grid and were read one by one ({why.what}): distances between them are not known."
    source = _source(series, slices, (*series.warnings, note, *decoded.notes), decoded.origin)
    return Volume(decoded.data, _fit_affine(slices[:1]), replace(source, regular=False))


def _in_order(headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    """Sort by orientation, then position along its normal, then instance number."""
    planes: list[list[SliceHeader]] = []
    for header in sorted(headers, key=lambda header: (header.orientation or (), header.frame.path)):
        near = (plane for plane in planes if _difference(header.orientation, plane[0].orientation) <= 0.01)
        if (plane := next(near, None)) is None:
            planes.append([header])
        else:
            plane.append(header)
    planes.sort(key=lambda plane: tuple(round(value, 2) + 0.0 for value in plane[0].orientation or ()))
    ordered = []
    for plane in planes:
        normal = _normal(plane[0])

        def place(header: SliceHeader, normal: NDArray[np.float64] = normal) -> tuple[float, int, int]:
            along = float(np.asarray(header.position, np.float64) @ normal)
            return round(along, 3), header.instance or 0, header.frame.number

        ordered += sorted(plane, key=place)
    return ordered


def _source(series: Series, slices: Sequence[SliceHeader], notes: tuple[str, ...], origin: Origin) -> Source:
    return Source(
        kind="dicom",
        path=series.path,
        modality=series.modality,
        body_part=series.body_part,
        acquisition_axis=2,
        frames=tuple(header.frame for header in slices),
        warnings=notes,
        origin=origin,
    )


def _read_frames(series: Series, volume: int | None) -> Volume:
    """Read an object without patient geometry: its frames in stored order."""
    headers = series.headers
    if len(headers) > 1 and series.modality in CROSS_SECTIONAL:
        what = f"none of the {len(headers)} slices has a position and orientation"
        raise CaseError("E_GEOMETRY", what, series.path, "export the series again with its geometry")
    if volume not in (None, 0):
        raise CaseError("E_4D", f"there is no volume {volume}: the series has one", series.path)
    decoded = decode_volume(headers, series.modality)
    notes = decoded.notes
    if series.modality in CROSS_SECTIONAL:
        notes = (*notes, "The image has no position and no size: it is treated as a picture.")
    source = _source(series, headers, (*series.warnings, *notes), decoded.origin)
    return Volume(decoded.data, _PIXEL_AFFINE.copy(), replace(source, has_physical_size=False))


def _check_complete(headers: Sequence[SliceHeader]) -> None:
    """Each slice needs the three attributes of the Image Plane Module (PS3.3 C.7.6.2)."""
    for header in headers:
        missing = [
            name
            for name, value in (
                ("position", header.position),
                ("orientation", header.orientation),
                ("pixel spacing", header.spacing),
            )
            if value is None
        ]
        if missing:
            raise CaseError("E_GEOMETRY", f"no valid {' and '.join(missing)} in the header", header.frame.path)
        if not MIN_SPACING <= min(header.spacing or (0,)) <= max(header.spacing or (0,)) < MAX_SPACING:
            raise CaseError("E_GEOMETRY", "the pixel spacing is not a possible one", header.frame.path)
        if max(map(abs, header.position or ())) > MAX_POSITION:
            raise CaseError("E_GEOMETRY", "the position is outside any scanner", header.frame.path)
        rows, columns = np.reshape(np.asarray(header.orientation, np.float64), (2, 3))
        if abs(rows @ rows - 1) > 0.01 or abs(columns @ columns - 1) > 0.01 or abs(rows @ columns) > 0.01:
            what = "the directions of rows and columns are not perpendicular unit vectors"
            raise CaseError("E_GEOMETRY", what, header.frame.path)


def _stacks(headers: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """Part by Stack ID (PS3.3 C.7.6.16.2.2), then hold each stack to one grid and one plane."""
    by_id: dict[str, list[SliceHeader]] = defaultdict(list)
    for header in headers:
        by_id[header.stack].append(header)
    stacks = [list(headers)] if len(by_id) == len(headers) else [by_id[key] for key in sorted(by_id, key=_natural)]
    for stack in stacks:
        first = stack[0]
        for header in stack:
            if _difference(header.orientation, first.orientation) > MAX_ORIENTATION_NOISE:
                what = "slices of different orientation in one series"
                raise CaseError("E_MIXED_ORIENTATION", what, header.frame.path, "keep one plane in a series")
            _check_beside(header, first)
    return stacks


def _check_one_size(headers: Sequence[SliceHeader]) -> None:
    for header in headers:
        _check_beside(header, headers[0])


def _check_beside(header: SliceHeader, first: SliceHeader) -> None:
    """Hold a slice to the matrix, the frame of reference and the pixel spacing of another one."""
    if (header.rows, header.columns) != (first.rows, first.columns):
        what = f"{header.columns} x {header.rows} pixels beside {first.columns} x {first.rows}"
        raise CaseError("E_MATRIX", what, header.frame.path, "keep slices of one size in a series")
    if header.frame_of_reference != first.frame_of_reference:
        what = "slices in different frames of reference in one series"
        raise CaseError("E_GEOMETRY", what, header.frame.path, "their positions cannot be compared")
    if _difference(header.spacing, first.spacing) > 1e-3 * min(first.spacing or (1,)):
        raise CaseError("E_GEOMETRY", "slices of different pixel spacing in one series", header.frame.path)


def _natural(text: str) -> tuple[float, str]:
    return (float(text) if text.isascii() and text.isdigit() else np.inf, text)


def _difference(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> float:
    return float(np.abs(np.subtract(a or (), b or ())).max())


def _normal(header: SliceHeader) -> NDArray[np.float64]:
    rows, columns = np.reshape(np.asarray(header.orientation, np.float64), (2, 3))
    normal = np.cross(rows, columns)
    return np.asarray(normal / np.linalg.norm(normal))


def _places(stack: Sequence[SliceHeader]) -> NDArray[np.int64]:
    """Number the distinct positions along the normal: the same number for slices on top of each other."""
    along = np.array([header.position for header in stack], np.float64) @ _normal(stack[0])
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    tolerance = min(0.01, 0.1 * float(np.ptp(along)) / max(len(stack) - 1, 1))
    places = np.empty(len(stack), np.int64)
    places[order] = np.concatenate([[0], np.cumsum(gaps > tolerance)])
    return places


def _split(stack: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Part a stack into volumes with one slice per position, each sorted along the normal."""
    places = _places(stack)
    parts = _split_places(list(zip(places.tolist(), stack, strict=True)), len(set(places.tolist())))
    if parts is None:
        where = np.flatnonzero(np.bincount(places) > 1)
        repeated = next(h for p, h in zip(places[::-1], stack[::-1], strict=True) if p == where[0])
        what = f"{len(where)} of {places.max() + 1} positions hold more than one slice, and nothing parts them"
        raise CaseError("E_DUPLICATE_POSITION", what, repeated.frame.path, "remove the slices that do not belong")
    return [[header for _, header in sorted(part, key=lambda item: item[0])] for part in parts]


_Placed = tuple[int, SliceHeader]


def _split_places(placed: list[_Placed], count: int) -> list[list[_Placed]] | None:
    """Part by the first attribute of which every value covers every position, until each holds one slice."""
    if len(placed) == count:
        return [placed]
    for name in dict.fromkeys(name for _, header in placed for name, _ in header.keys):
        groups: dict[float | str | None, list[_Placed]] = defaultdict(list)
        for place, header in placed:
            groups[dict(header.keys).get(name)].append((place, header))
        if len(groups) < 2 or any(len({place for place, _ in group}) != count for group in groups.values()):
            continue
        parts = [_split_places(groups[key], count) for key in sorted(groups, key=_sort_key)]
        if all(part is not None for part in parts):
            return [volume for part in parts if part is not None for volume in part]
    return _split_by_instance(placed, count)


def _sort_key(value: float | str | None) -> tuple[bool, float, str]:
    return (value is None, value, "") if isinstance(value, float) else (value is None, 0.0, str(value))


def _split_by_instance(placed: list[_Placed], count: int) -> list[list[_Placed]] | None:
    """Without a telling attribute, the n-th slice of each position by instance number makes volume n."""
    by_place: dict[int, list[_Placed]] = defaultdict(list)
    for item in sorted(placed, key=lambda item: (item[1].instance or 0, item[1].frame.number)):
        by_place[item[0]].append(item)
    lengths = {len(items) for items in by_place.values()}
    identities = {(header.instance, header.frame.number) for _, header in placed}
    if len(by_place) != count or len(lengths) != 1 or len(identities) != len(placed):
        return None
    return [[items[n] for items in by_place.values()] for n in range(lengths.pop())]


def _fit_affine(slices: Sequence[SliceHeader]) -> Affine:
    """Fit the affine (RAS mm) to the positions of sorted slices and check it at the corners of each.

    PS3.3 C.7.6.2.1.1: a step along a row is Image Orientation[0:3] times Pixel Spacing[1], one along a column
    is Image Orientation[3:6] times Pixel Spacing[0].
    """
    first = slices[0]
    positions = np.array([header.position for header in slices], np.float64)
    normal = _normal(first)
    affine = np.eye(4)
    row, column = np.reshape(np.asarray(first.orientation, np.float64), (2, 3))
    between_rows, between_columns = first.spacing or (1.0, 1.0)
    affine[:3, 0], affine[:3, 1] = row * between_columns, column * between_rows
    if len(slices) == 1:
        thickness = first.between or first.thickness or 0.0
        if not MIN_SPACING <= thickness < MAX_SPACING:
            thickness = 1.0
        affine[:3, 2], affine[:3, 3] = normal * thickness, positions[0]
        return _LPS_TO_RAS @ affine
    fitted = _fit_line(np.arange(len(slices), dtype=np.float64), positions)
    step = (fitted[-1] - fitted[0]) / (len(slices) - 1)
    affine[:3, 2], affine[:3, 3] = step, fitted[0]
    if step @ normal < MIN_SPACING:
        raise CaseError("E_GEOMETRY", "the slices are too close to each other to be slices", first.frame.path)
    tolerance = min(MAX_POSITION_ERROR, 0.25 * float(step @ normal))
    _check_positions(slices, positions, fitted, normal, tolerance)
    _check_corners(slices, affine, tolerance)
    return _LPS_TO_RAS @ affine


def _fit_line(index: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,), (N, 3) -> (N, 3): the positions by the straight, even line that is nearest to them."""
    centred = index - index.mean()
    step = centred @ positions / (centred @ centred)
    return np.asarray(positions.mean(axis=0) + centred[:, None] * step)


def _check_positions(
    slices: Sequence[SliceHeader],
    positions: NDArray[np.float64],
    fitted: NDArray[np.float64],
    normal: NDArray[np.float64],
    tolerance: float,
) -> None:
    error = np.linalg.norm(positions - fitted, axis=1)
    if error.max() <= tolerance:
        return
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    whole = np.concatenate([[0.0], np.cumsum(np.maximum(np.round(gaps / usual), 1))])
    missing = int(whole[-1]) + 1 - len(slices)
    holes = int(np.sum(gaps > 1.5 * usual))
    if (
        0 < holes <= len(gaps) / 4 + 1
        and np.linalg.norm(positions - _fit_line(whole, positions), axis=1).max() <= tolerance
    ):
        widest = int(np.argmax(gaps))
        what = (
            f"{missing} slice(s) missing: a gap of {gaps[widest]:.2f} mm after slice {widest + 1} "
            f"of {len(slices)}, elsewhere {usual:.2f} mm"
        )
        raise CaseError("E_MISSING_SLICES", what, slices[widest].frame.path, "export the whole series again")
    worst = int(np.argmax(error))
    what = (
        f"slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart, and slice {worst + 1} of {len(slices)} "
        f"is {error[worst]:.2f} mm from an even stack (at most {tolerance:.3g} mm)"
    )
    todo = "give evenly spaced slices, or resample with dcm2niix"
    raise CaseError("E_IRREGULAR_SPACING", what, slices[worst].frame.path, todo)


def _check_corners(slices: Sequence[SliceHeader], affine: Affine, tolerance: float) -> None:
    """Hold the far corners of each slice, by its own orientation and spacing, against the affine."""
    far = np.array([slices[0].columns - 1, slices[0].rows - 1], np.float64)
    for header in slices:
        row, column = np.reshape(np.asarray(header.orientation, np.float64), (2, 3))
        between_rows, between_columns = header.spacing or (1.0, 1.0)
        edges = np.stack([row * between_columns, column * between_rows], axis=1) - affine[:3, :2]
        corners = np.stack([edges[:, 0] * far[0], edges[:, 1] * far[1], edges @ far])
        if (error := float(np.linalg.norm(corners, axis=1).max())) > tolerance:
            what = f"orientation or pixel spacing differ by {error:.2f} mm at a corner"
            raise CaseError("E_MIXED_ORIENTATION", what, header.frame.path, "keep one plane in a series")


def _choose(volumes: Sequence[Sequence[SliceHeader]], volume: int | None, series: Series) -> int:
    if volume is not None and 0 <= volume < len(volumes):
        return volume
    if volume is None and len(volumes) == 1:
        return 0
    listed = "; ".join(f"{n}: {_describe(part, volumes)}" for n, part in enumerate(volumes[:20]))
    more = f"; and {len(volumes) - 20} more" if len(volumes) > 20 else ""
    start = f"the series holds {len(volumes)} volume(s)" + ("" if volume is None else f" and no volume {volume}")
    raise CaseError("E_4D", f"{start} ({listed}{more})", series.path, "choose one with --volume N")


def _describe(part: Sequence[SliceHeader], volumes: Sequence[Sequence[SliceHeader]]) -> str:
    """Say what sets a volume apart, in numbers and known words only."""
    keys = dict(part[0].keys)
    others = [dict(other[0].keys) for other in volumes]
    words = [f"{len(part)} slice{'s' if len(part) > 1 else ''}"]
    for name in _SHOWN:
        value = keys.get(name)
        if isinstance(value, float) and len({other.get(name) for other in others}) > 1:
            words.append(f"{name} {value:g}")
    kinds = {kind for kind in str(keys.get("image type", "")).split("/") if kind in _IMAGE_TYPES}
    if len({other.get("image type") for other in others}) > 1 and kinds:
        words.append("/".join(sorted(kinds)))
    return ", ".join(words)


def _tilt_note(affine: Affine) -> tuple[str, ...]:
    normal = np.asarray(np.cross(affine[:3, 0], affine[:3, 1]))
    cosine = abs(normal @ affine[:3, 2]) / (np.linalg.norm(normal) * np.linalg.norm(affine[:3, 2]))
    degrees = float(np.degrees(np.arccos(min(float(cosine), 1.0))))
    return (
        (f"The slices are sheared by {degrees:.1f} degrees (gantry tilt), kept in the affine.",)
        if degrees > 0.1
        else ()
    )
