"""Exact per-region overlap (PRO) against a loop over 200 thresholds with scikit-image's regionprops.

    python benchmarks/pro.py [--maps 100] [--slow-maps 4] [--size 518]

Both see the same made-up maps. The loop runs on fewer of them and its seconds are scaled to all; its time is linear
in the number of maps. The ratio is measured in one run and compares between machines, the seconds do not.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.measure import label, regionprops

from anomalyclip_monai.metrics import PixelScores, exact_pro, paper_pro


def made_up(count: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Smooth float32 maps in [0, 1] and masks with one to three round lesions, each seeded by its number."""
    rows, columns = np.mgrid[:size, :size]
    for number in range(count):
        random = np.random.default_rng(number)
        mask = np.zeros((size, size), bool)
        for _ in range(random.integers(1, 4)):
            row, column = random.uniform(0, size, 2)
            mask |= (rows - row) ** 2 + (columns - column) ** 2 < random.uniform(0.02 * size, 0.1 * size) ** 2
        noise = gaussian_filter(random.standard_normal((size, size)).astype(np.float32), size / 60)
        heatmap = noise / noise.std() + 1.5 * gaussian_filter(mask.astype(np.float32), size / 60)
        yield (1 / (1 + np.exp(-heatmap))).astype(np.float32), mask


def region_loop(maps: np.ndarray, masks: np.ndarray, steps: int = 200) -> None:
    """The loop that published evaluations run: every region of every map at every threshold."""
    predicted = np.zeros(maps.shape, bool)
    overlaps, rates = [], []
    for threshold in np.linspace(maps.min(), maps.max(), steps, endpoint=False):
        predicted[maps <= threshold], predicted[maps > threshold] = False, True
        covered = [
            one[region.coords[:, 0], region.coords[:, 1]].sum() / region.area
            for one, mask in zip(predicted, masks, strict=True)
            for region in regionprops(label(mask))
        ]
        overlaps.append(np.mean(covered))
        normal = 1 - masks
        rates.append(np.logical_and(normal, predicted).sum() / normal.sum())


class Stopwatch:
    """Adds up wall and CPU seconds of what runs inside it."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self.start[0]
        self.cpu += time.process_time() - self.start[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=100)
    parser.add_argument("--slow-maps", type=int, default=4)
    parser.add_argument("--size", type=int, default=518)
    arguments = parser.parse_args()

    for heatmap, mask in made_up(1, 64):  # what is loaded or compiled at the first call is nobody's time
        first = PixelScores()
        first.update(heatmap, mask)
        exact_pro(first)
        region_loop(heatmap[None], mask[None].astype(np.int64), steps=2)

    pixels, few = PixelScores(), []
    collect, exact, paper, loop = Stopwatch(), Stopwatch(), Stopwatch(), Stopwatch()
    for heatmap, mask in made_up(arguments.maps, arguments.size):
        with collect:
            pixels.update(heatmap, mask)
        if len(few) < arguments.slow_maps:
            few.append((heatmap, mask.astype(np.int64)))
    with exact:
        exact_value = exact_pro(pixels)
    with paper:
        paper_value = paper_pro(pixels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with loop:
        region_loop(*(np.stack(stack) for stack in zip(*few, strict=True)))

    scale = arguments.maps / len(few)
    print(f"{arguments.maps} maps of {arguments.size} x {arguments.size}, {pixels.regions} regions; one thread")
    for name, watch in ((f"exact PRO {exact_value:.4f}", exact), (f"paper PRO {paper_value:.4f}", paper)):
        print(f"{name}: {collect.wall + watch.wall:.2f} s, of it {collect.wall:.2f} s to collect the maps")
    print(f"loop over 200 thresholds: {loop.wall * scale:.1f} s, scaled from {loop.wall:.1f} s on {len(few)} maps")
    print(f"the loop takes {loop.cpu * scale / (collect.cpu + exact.cpu):.0f} x the CPU time of exact PRO")
    print(f"peak memory before the loop: {peak:.0f} MB")


if __name__ == "__main__":
    main()
