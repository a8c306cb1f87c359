"""Kill a process that writes a case at random moments: what the next run finds is the old case, the new one or none.

    python benchmarks/kills.py [--count 50] [--seed 0]

Of every three rounds two begin with an older result in the folder, one with none. After each kill (SIGKILL) the next
run looks, and the folder is compared, byte by byte, with what was written before and what would have been written.
Prints how often it was which; ends with exit code 1 if a case was anything else, or if anything was left beside it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from anomalyclip_monai.folders.case_folder import hold, recover

OLD = ("heatmap.nii.gz", "mask.nii.gz", "scores.json", "preview.png", "heatmap.dcm", "mask.dcm")
NEW = ("heatmap.nii.gz", "mask.nii.gz", "scores.json", "preview.png")


def files_of(kind: str) -> dict[str, bytes]:
    """Content of the files, large enough that writing takes as long as moving."""
    return {name: f"{kind} {name}".encode() * 400 for name in (OLD if kind == "old" else NEW)}


def write(case: Path, kind: str) -> None:
    with hold(case) as place, place.replace() as new:
        for name, content in files_of(kind).items():
            (new / name).write_bytes(content)


def seen(case: Path) -> dict[str, bytes]:
    if not case.exists():
        return {}
    return {path.name: path.read_bytes() for path in case.iterdir() if not path.name.startswith(".")}


def one_kill(out: Path, before: bool, moment: float) -> str:
    """-> ``old``, ``new``, ``absent`` or what is wrong."""
    case = out / "sub" / "case"
    if before:
        write(case, "old")
    process = os.fork()
    if process == 0:
        write(case, "new")
        os._exit(0)
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    recover(out)
    found = {"absent": {}, "old": files_of("old"), "new": files_of("new")}
    kind = next((kind for kind, files in found.items() if files == seen(case)), f"half: {sorted(seen(case))}")
    left = [path.name for path in out.rglob(".anomalyclip-*")]
    return f"{kind}, left: {left}" if left else kind


def seconds_of_a_write(out: Path) -> float:
    """How long a replacement takes, fork and all: kills are spread over this time."""
    write(out / "case", "old")
    started = time.perf_counter()
    if (process := os.fork()) == 0:
        write(out / "case", "new")
        os._exit(0)
    os.waitpid(process, 0)
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    counts: Counter[str] = Counter()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        whole = min(seconds_of_a_write(folder / f"time{index}") for index in range(3))
        for index in range(arguments.count):
            before = index % 3 < 2
            counts[one_kill(folder / str(index), before, moments.uniform(0, 1.2 * whole))] += 1
    finally:
        shutil.rmtree(folder)
    print(f"{arguments.count} kills within {1000 * whole:.1f} ms: {dict(counts)}")
    return int(not counts.keys() <= {"old", "new", "absent"})


if __name__ == "__main__":
    sys.exit(main())
