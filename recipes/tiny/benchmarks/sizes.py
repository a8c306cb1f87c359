"""How small a lesion may be: bright balls in a healthy volume, and how high the heatmap gets in them.

    python -m recipes.tiny.benchmarks.sizes HEALTHY.nii.gz [--radii 2 3] [--contrast 0.3] [-- OPTIONS OF LOCALIZE]
    python -m recipes.tiny.benchmarks.sizes HEALTHY.nii.gz -- --no-crop --axes 1

For each radius ``count`` balls are put into the tissue, far from each other and from its border; each lifts the voxels
in it by ``contrast`` of the volume's 99.8th percentile. All voxels keep their place. Prints the mean over the balls of
the heatmap's maximum in a ball, the share of balls with a voxel in the mask, and the volume of the mask elsewhere.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anomalyclip_monai.cli import main as command
from anomalyclip_monai.data.geometry import voxel_volume
from recipes.tiny.sources import inner

DEPTH = 10.0
"""Balls lie at least this deep in the tissue, in mm."""


class Row(NamedTuple):
    """What was found of the balls of one radius."""

    radius: float
    height: float
    found: float
    elsewhere_ml: float


def places(
    tissue: NDArray[np.bool_], spacing: Sequence[float], count: int, apart: float, seed: int
) -> NDArray[np.int_]:
    """(N, 3) random voxels deep in the tissue, ``apart`` mm from each other; fewer than ``count`` where no more fit."""
    chosen: list[NDArray[np.int_]] = []
    for voxel in np.random.default_rng(seed).permutation(np.argwhere(inner(tissue, spacing, DEPTH))):
        if all(np.linalg.norm((voxel - other) * spacing) >= apart for other in chosen):
            chosen.append(voxel)
            if len(chosen) == count:
                break
    return np.array(chosen, dtype=int).reshape(-1, 3)


def distances(shape: tuple[int, ...], spacing: Sequence[float], centres: NDArray[np.int_]) -> NDArray[np.float64]:
    """(X, Y, Z) distance in mm of every voxel to the closest of the centres."""
    free = np.ones(shape, dtype=bool)
    free[tuple(centres.T)] = False
    return ndimage.distance_transform_edt(free, sampling=spacing)


def measure(
    image: nib.Nifti1Image, radius: float, lift: float, centres: NDArray[np.int_], options: Sequence[str]
) -> Row:
    """Put balls in that are ``lift`` brighter, run the command, and read its files."""
    spacing = image.header.get_zooms()[:3]
    away = distances(image.shape, spacing, centres)
    share = np.clip((radius - away) / min(spacing) + 0.5, 0, 1)
    lifted = np.asarray(image.dataobj, dtype=np.float32) + lift * share
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "balls.nii.gz", Path(folder) / "out"
        nib.save(nib.Nifti1Image(lifted.astype(np.float32), image.affine), file)
        if command(["localize", str(file), "-o", str(out), "-q", *options]):
            sys.exit("localize failed")
        heatmap = nib.load(out / "balls" / "heatmap.nii.gz").get_fdata()
        mask = nib.load(out / "balls" / "mask.nii.gz").get_fdata() > 0
    balls, number = ndimage.label(away <= radius)
    index = range(1, number + 1)
    return Row(
        radius,
        float(np.mean(ndimage.maximum(heatmap, balls, index))),
        float(np.mean(ndimage.maximum(mask, balls, index))),
        voxel_volume(image.affine) * np.count_nonzero(mask & (away > 2 * radius)) / 1000,
    )


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print the table; -> its rows."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volume", type=Path, help="healthy NIfTI")
    parser.add_argument("--radii", type=float, nargs="+", default=[2, 3, 4, 6, 8], help="mm")
    parser.add_argument("--contrast", type=float, default=0.3)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    wanted, options = parser.parse_args(given[:cut]), given[cut + 1 :]
    image = nib.as_closest_canonical(nib.load(wanted.volume))
    data = np.asarray(image.dataobj, dtype=np.float32)
    top = float(np.percentile(data, 99.8))
    tissue = ndimage.binary_fill_holes(data > 0.1 * top)
    centres = places(tissue, image.header.get_zooms()[:3], wanted.count, 4 * max(wanted.radii), wanted.seed)
    if not len(centres):
        sys.exit(f"{wanted.volume}: no tissue {DEPTH:.0f} mm deep - give a volume with a head or a body")
    print(
        f"{len(centres)} balls, contrast {wanted.contrast:g}, seed {wanted.seed}, options {' '.join(options) or 'none'}"
    )
    print("| radius, mm | heatmap in a ball | balls with mask | mask elsewhere, ml |\n|---|---|---|---|")
    rows = []
    for radius in wanted.radii:
        rows.append(measure(image, radius, wanted.contrast * top, centres, options))
        _, height, found, elsewhere = rows[-1]
        print(f"| {radius:g} | {height:.2f} | {found:.2f} | {elsewhere:.1f} |", flush=True)
    return rows


if __name__ == "__main__":
    main()
