"""Peak memory of an evaluation by the paper's protocol, against the number of images.

    python benchmarks/evaluation.py [--images 370 3700] [--bootstrap 1000]

Each set has 20 made-up pictures of 518 x 518 with lesions, linked under as many names as wanted, and is measured by the
command in a process of its own with the embedded model. The baseline is a process that only imports what it needs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SIZE = 518
PICTURES = 20
RUN = """
import resource, sys
import anomalyclip_monai.engines.evaluation
from anomalyclip_monai.cli import main
code = main(sys.argv[1:]) if sys.argv[1:] else 0
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


def make_set(folder: Path, count: int) -> None:
    """``normal/ abnormal/ masks/`` with half of the images each."""
    made = folder.parent / "pictures"
    made.mkdir(exist_ok=True)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for number in range(PICTURES):
        random = np.random.default_rng(number)
        row, column = random.uniform(100, SIZE - 100, 2)
        mask = (rows - row) ** 2 + (columns - column) ** 2 < random.uniform(15, 60) ** 2
        noise = gaussian_filter(random.standard_normal((SIZE, SIZE)), 6)
        grey = 110 + 25 * noise / noise.std() + 70 * mask * (number % 2)
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(made / f"image{number}.png")
        Image.fromarray((255 * mask).astype(np.uint8)).save(made / f"mask{number}.png")
    for kind in ("normal", "abnormal", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        kind = "abnormal" if number % 2 else "normal"
        os.link(made / f"image{number % PICTURES}.png", folder / kind / f"{number}.png")
        if number % 2:
            os.link(made / f"mask{number % PICTURES}.png", folder / "masks" / f"{number}.png")


def measure(*arguments: str) -> tuple[float, float]:
    """-> seconds and peak MB of the command in a process of its own, of its imports without arguments."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], check=True, capture_output=True, text=True)
    code, peak = done.stdout.splitlines()[-1].split()
    if code != "0":
        raise RuntimeError(done.stderr)
    return time.perf_counter() - start, float(peak)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[370, 3700])
    parser.add_argument("--bootstrap", default="1000")
    arguments = parser.parse_args()
    _, imports = measure()
    print(f"after imports: {imports:.0f} MB")
    print("| images | peak MB | peak / after imports | seconds |\n|---|---|---|---|")
    for count in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            images, out = Path(folder) / "images", Path(folder) / "out"
            make_set(images, count)
            options = ["--protocol", "paper", "--bootstrap", arguments.bootstrap, "--device", "cpu", "--quiet"]
            seconds, peak = measure("evaluate", "folder", str(images), "-o", str(out), *options)
        print(f"| {count} | {peak:.0f} | {peak / imports:.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
