"""The page of one case: look through it, see what was found, believe or doubt it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from anomalyclip_monai.data.geometry import PLANES, SliceView, closest_axes, spacing
from anomalyclip_monai.outputs.preview import OPAQUE_FROM, OPAQUE_TO, OUTLINE, STRONGEST, colours, opacity, side_letters
from anomalyclip_monai.outputs.report import niivue
from anomalyclip_monai.outputs.report.display import ShownFrames, ShownVolume, has_planes, show_frames, show_volume
from anomalyclip_monai.outputs.report.pages import asset, jpeg, policy_source, render
from anomalyclip_monai.transforms.findings import Threshold
from anomalyclip_monai.types import Affine, Record

REPORT = "report.html"
"""Name of the page in the folder of a case."""

_STEPS = 64
"""Colours in the legend's scale."""

_VIEWER_BACKGROUND = (16, 16, 18)


def case_page(
    scores: Mapping[str, Any],
    image: NDArray[Any],
    heatmap: NDArray[Any],
    mask: NDArray[Any],
    affine: Affine,
    preview: Image.Image,
    *,
    roi: NDArray[Any] | None = None,
    regular: bool = True,
) -> str:
    """-> ``report.html``.

    Args:
        scores: content of ``scores.json``.
        image: (1|3, X, Y, Z) in [0, 1], as the network saw it.
        heatmap: (1, X, Y, Z) in [0, 1].
        mask: (1, X, Y, Z), 1 for lesions.
        affine: (4, 4) voxel index to RAS mm.
        preview: shown where a browser cannot draw volumes, and on paper.
        roi: (1, X, Y, Z) bool; no colour outside of it.
        regular: whether the slices lie on one grid; else each is shown by itself.
    """
    shape = heatmap.shape[1:]
    if roi is not None:
        heatmap = np.where(roi, heatmap, 0)
    physical, view = bool(scores["physical_size"]), SliceView.upright(affine, scores["slice_axis"])
    planes = has_planes(shape, physical=physical, regular=regular)
    shown: ShownVolume | ShownFrames
    if planes:
        shown = show_volume(image, heatmap, mask, affine)
    else:
        edges = spacing(affine)
        shown = show_frames(image, heatmap, mask, view, float(edges[view.row_axis] / edges[view.column_axis]))
    threshold = Threshold(**scores["threshold"])
    plane = next(name for name, world in PLANES.items() if world == closest_axes(affine)[view.axis, 0])
    data = {
        "planes": shown.to_json() if planes else None,
        "frames": None if planes else shown.to_json(),
        "shape": shape,
        "affine": affine.tolist(),
        "inverse": np.linalg.inv(affine).tolist(),
        "physical": physical and regular,
        "axis": view.axis,
        "plane": plane,
        "scores": scores["slice_scores"],
        "threshold": {"value": threshold.value, "low": threshold.low},
        "minVolume": scores.get("min_volume", 0.0),
        "lesions": [lesion["centroid_voxel"] for lesion in scores["lesions"]],
        "colours": np.round(colours(np.arange(256) / 255)).astype(int).tolist(),
        "opacity": np.round(255 / STRONGEST * opacity(np.arange(256) / 255)).astype(int).tolist(),
        "strongest": STRONGEST,
        "outline": OUTLINE,
        "letters": side_letters(view, affine) if physical and regular and not planes else [],
    }
    script = asset("viewer.js")
    packed = niivue.packed_niivue() if planes else b""
    scripts: list[str | bytes] = [script, gzip.decompress(packed)] if planes else [script]
    return render(
        "case.html",
        scores=scores,
        data=data,
        script=script,
        niivue=Markup(base64.b64encode(packed).decode()),  # of letters that HTML leaves alone
        sources=" ".join(policy_source(each) for each in scripts),
        has_planes=planes,
        physical=physical,
        regular=regular,
        threshold=threshold,
        scale=_scale(),
        outline=OUTLINE,
        opaque=(OPAQUE_FROM, OPAQUE_TO),
        notes=shown.notes,
        preview=jpeg(preview),
        facts=_facts(scores, threshold, physical=physical),
    )


def page_of_files(folder: Path, record: Record) -> str:
    """-> ``report.html`` of results that are in a folder already.

    Args:
        folder: with ``heatmap.nii.gz``, ``mask.nii.gz``, ``scores.json`` and ``preview.png``.
        record: with ``image``, ``source`` and, of a mask that was given, ``roi``, as pre-processing leaves it.
    """
    image, roi = record["image"], record.get("roi")
    heatmap, mask = (np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj) for name in ("heatmap", "mask"))
    with Image.open(folder / "preview.png") as preview:
        return case_page(
            json.loads((folder / "scores.json").read_bytes()),
            np.asarray(image),
            heatmap[np.newaxis],
            mask[np.newaxis],
            np.asarray(image.affine, dtype=np.float64),
            preview.convert("RGB"),
            roi=None if roi is None else np.asarray(roi),
            regular=record["source"].regular,
        )


def _scale() -> list[str]:
    """Colours of heatmap values from 0 to 1 over the viewer's background, as CSS."""
    values = np.linspace(0, 1, _STEPS)
    alpha = (opacity(values) / STRONGEST)[:, np.newaxis]
    strip = np.round((1 - alpha) * np.array(_VIEWER_BACKGROUND) + alpha * colours(values)).astype(int)
    return [f"rgb({red} {green} {blue})" for red, green, blue in strip.tolist()]


def _facts(scores: Mapping[str, Any], threshold: Threshold, *, physical: bool) -> list[tuple[str, Any]]:
    """What a reader needs to judge the result, and another person to get it again."""
    preset, smallest = scores["preset"], scores.get("min_volume", 0.0)
    return [
        ("this model on such images", preset.get("evidence", "")),
        ("preset", f"{preset.get('name', '')} ({preset.get('chosen', '')})"),
        ("threshold", f"{threshold.said}, {threshold.origin}"),
        ("smallest lesion", f"{smallest:g} {'mm3' if physical else 'pixels'} at or above the threshold"),
        (
            "region of interest",
            "given: scores and lesions come from inside only" if scores["roi"] else "none, all of it",
        ),
        *((f"model, {key}", value) for key, value in scores["model"].items()),
        ("input, sha256", scores["input_sha256"] or "not a file"),
        *((f"version, {key}", value) for key, value in scores["versions"].items()),
        ("device", scores["device"]),
        ("seconds", f"{scores['seconds']:.1f}"),
    ]
