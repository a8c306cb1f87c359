"""Overlap of the mask and of the heatmap's peaks with a tumour drawn as RTSTRUCT, and a picture of both.

python benchmarks/rtstruct_overlap.py SERIES_FOLDER RS.dcm -o overlay.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageDraw
from skimage.draw import polygon2mask
from skimage.measure import find_contours

import anomalyclip_monai as ac
from anomalyclip_monai.metrics import dice, pointing, slice_pointing
from anomalyclip_monai.outputs.preview import colours, opacity


def contours_by_slice(structure: Path, affine: np.ndarray) -> dict[int, list[np.ndarray]]:
    """Slice index -> polygons in voxel (column, row) of all regions of an RTSTRUCT (PS3.3 C.8.8.6)."""
    found: dict[int, list[np.ndarray]] = {}
    to_voxel = np.linalg.inv(affine)
    for region in pydicom.dcmread(structure).ROIContourSequence:
        for contour in region.ContourSequence:
            points = np.asarray(contour.ContourData, dtype=float).reshape(-1, 3) * (-1, -1, 1)  # LPS to RAS
            voxels = points @ to_voxel[:3, :3].T + to_voxel[:3, 3]
            found.setdefault(round(float(voxels[:, 2].mean())), []).append(voxels[:, :2])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("series", type=Path)
    parser.add_argument("structure", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("overlay.png"))
    arguments = parser.parse_args()

    result = ac.localize(arguments.series)
    heatmap, mask = np.asarray(result.heatmap)[0], np.asarray(result.mask)[0] > 0
    drawn = contours_by_slice(arguments.structure, result.affine)
    truth = np.zeros(mask.shape, dtype=bool)
    for k, polygons in drawn.items():
        for points in polygons:
            truth[:, :, k] ^= polygon2mask(mask.shape[:2], points)

    slices = np.flatnonzero(truth.any(axis=(0, 1)))
    print(f"{len(slices)} of {mask.shape[2]} slices with tumour, {truth.sum()} voxels; preset {result.preset['name']}")
    threshold = result.threshold
    print(f"Dice of the mask {dice(truth, mask, 1):.3f} (threshold {threshold.value:g}, {threshold.origin})")
    print(f"pointing {slice_pointing(heatmap, truth, 2):.3f}; the volume's peak inside: {pointing(heatmap, truth):g}")

    scale, panels = 2, []
    for k in slices[[len(slices) // 6, len(slices) // 2, 5 * len(slices) // 6]]:
        grey = np.repeat(np.asarray(result.image)[0, :, :, k].T[..., None] * 255, 3, axis=2)
        warm = heatmap[:, :, k].T
        alpha = opacity(warm)[..., None]
        picture = Image.fromarray(np.round((1 - alpha) * grey + alpha * colours(warm)).astype(np.uint8))
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(picture)
        for points in drawn[int(k)]:
            closed = (np.vstack([points, points[:1]]) + 0.5) * scale
            draw.line([tuple(point) for point in closed], fill=(0, 255, 0), width=2)
        for points in find_contours(mask[:, :, k].T.astype(float), 0.5):
            draw.line([((x + 0.5) * scale, (y + 0.5) * scale) for y, x in points], fill=(0, 255, 255), width=1)
        draw.text((4, 4), f"slice {k}: green drawn, cyan mask", fill=(255, 255, 255))
        panels.append(picture)
    sheet = Image.new("RGB", (sum(panel.width for panel in panels), panels[0].height))
    for index, panel in enumerate(panels):
        sheet.paste(panel, (index * panel.width, 0))
    sheet.save(arguments.output)


if __name__ == "__main__":
    main()
