"""Kill what writes cases at random moments: what the next run finds of each is the old case, the new one or none.

    python benchmarks/kills.py [--count 50] [--seed 0]          a process that writes one case, over and over
    python benchmarks/kills.py --runs [--count 50] [--seed 0]   whole runs of `anomalyclip localize` over three cases

Of every three rounds two begin with an older result in the folder, one with none. After each kill the next run looks,
and every case is compared with what was written before and what would have been written. Prints how often it was
which; ends with exit code 1 if a case was anything else, or if anything was left beside it.

With ``--runs`` a volume, a DICOM series and a photo are scored by processes that have everything imported. They end by
SIGKILL, SIGTERM and SIGINT in turn: at a random time, or before a random one of all steps on the disk (files opened,
moved and removed, folders made and removed). After the last two nothing may be half, or left, even before the next run.
Then the next run, ``--continue``, has to end with the new results of all cases, and what a reader keeps there, notes
and folders, has to be there still.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anomalyclip_monai.folders.case_folder import hold, recover
from anomalyclip_monai.folders.marker import MARKER

OLD = ("heatmap.nii.gz", "mask.nii.gz", "scores.json", "preview.png", "heatmap.dcm", "mask.dcm")
NEW = ("heatmap.nii.gz", "mask.nii.gz", "scores.json", "preview.png")

QUICK = ("--fast", "--axes", "1", "--no-mirror", "--device", "cpu", "--threshold", "0.5")
"""Of the older runs; the new ones are told apart by the threshold, and write no DICOM."""

NOTES = {"series/notes.txt": "a reader's", "series/views/1.txt": "a view", "photo/nested.txt": "", "mine.txt": "mine"}
"""What a reader keeps among the results."""

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}
"""What Python tells an audit hook of."""

SIGNALS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
"""How a run ends -> its exit code."""


# --- one case, written over and over


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
    files = (path for path in case.iterdir() if path.is_file() and not path.name.startswith("."))
    return {path.name: path.read_bytes() for path in files}


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


def kill_writers(folder: Path, count: int, moments: random.Random) -> Counter[str]:
    """Kill processes that write one case: -> how often it was what."""
    counts: Counter[str] = Counter()
    whole = min(seconds_of_a_write(folder / f"time{index}") for index in range(3))
    for index in range(count):
        counts[one_kill(folder / str(index), index % 3 < 2, moments.uniform(0, 1.2 * whole))] += 1
    print(f"{count} kills within {1000 * whole:.1f} ms: {dict(counts)}")
    return counts


# --- whole runs


def make_inputs(folder: Path) -> None:
    """A volume, a DICOM series and a photo, all small."""
    import nibabel as nib
    import numpy as np
    from PIL import Image

    from anomalyclip_monai.outputs.dicom_series import write_mr_series

    values = np.random.default_rng(0)
    grid = np.diag([1.0, 1.0, 5.0, 1.0])
    data = values.normal(300, 10, (24, 20, 4))
    folder.mkdir()
    nib.save(nib.Nifti1Image(data.astype(np.float32), grid), folder / "volume.nii.gz")
    write_mr_series(folder / "series", data.astype(np.int16), grid)
    Image.fromarray(values.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / "photo.png")


def start(inputs: Path, out: Path, *more: str, steps: Path | None = None, end: tuple[int, int] | None = None) -> int:
    """A run of the command: -> its process. What it says goes nowhere.

    Args:
        inputs: the cases.
        out: their results.
        *more: options.
        steps: gets a byte for every step on the disk below ``out``.
        end: number of the step before which the run ends itself, and the signal.
    """
    if (process := os.fork()) == 0:
        from anomalyclip_monai.cli import main

        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        taken = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal taken
            if event not in STEPS or not str(arguments[0]).startswith(f"{out}/"):
                return
            taken += 1
            if steps is not None:
                os.write(counter, b".")
            if end is not None and taken == end[0]:
                os.kill(os.getpid(), end[1])

        counter = -1 if steps is None else os.open(steps, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        sys.addaudithook(hook)
        os._exit(main(["localize", str(inputs), "-o", str(out), *QUICK, *more]))
    return process


def new_run(inputs: Path, out: Path, *more: str, **how: Any) -> int:
    return start(inputs, out, "--threshold", "0.4", "--no-dicom", *more, **how)


def exit_code(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def cases_in(out: Path) -> dict[str, dict[str, bytes]]:
    """Results of each case by file, without what differs between two equal runs."""
    found = {name: seen(out / name) for name in ("volume", "series", "photo")}
    return {
        name: {file: _same(file, content) for file, content in files.items() if f"{name}/{file}" not in NOTES}
        for name, files in found.items()
    }


def _same(file: str, content: bytes) -> bytes:
    if file == "scores.json":
        return json.dumps({key: value for key, value in json.loads(content).items() if key != "seconds"}).encode()
    return gzip.decompress(content) if file.endswith(".gz") else content


def kinds_of(out: Path, old: dict[str, dict[str, bytes]], new: dict[str, dict[str, bytes]]) -> Iterator[str]:
    """``old``, ``new``, ``absent`` or what is wrong, of every case."""
    for name, files in cases_in(out).items():
        found = {"absent": {}, "new": new[name], "old": old[name]}
        yield next((kind for kind, known in found.items() if known == files), f"half: {name} {sorted(files)}")


def kill_runs(folder: Path, count: int, moments: random.Random) -> Counter[str]:
    """Kill runs over several cases: -> how often a case was what, and whatever else was wrong."""
    import torch

    import anomalyclip_monai.outputs.cohort
    import anomalyclip_monai.outputs.dicom  # noqa: F401
    from anomalyclip_monai.options import ModelOptions
    from anomalyclip_monai.weights.choice import choose_model, kept_network

    torch.set_num_threads(1)  # a pool of threads does not come through a fork
    kept_network(choose_model(ModelOptions(fast=True)), torch.device("cpu"))
    inputs = folder / "inputs"
    make_inputs(inputs)
    assert exit_code(start(inputs, folder / "old")) == 0
    started = time.perf_counter()
    assert exit_code(new_run(inputs, folder / "new")) == 0
    whole = time.perf_counter() - started
    shutil.copytree(folder / "old", folder / "out")
    assert exit_code(new_run(inputs, folder / "out", steps=folder / "steps")) == 0
    steps = (folder / "steps").stat().st_size
    old, new = cases_in(folder / "old"), cases_in(folder / "new")
    counts: Counter[str] = Counter()
    for index in range(count):
        out, ended_by = folder / "out", list(SIGNALS)[index % len(SIGNALS)]
        shutil.rmtree(out, ignore_errors=True)
        before = index // len(SIGNALS) % 3 < 2
        if before:
            shutil.copytree(folder / "old", out)
        for name, text in NOTES.items() if before else ():
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_text(text)
        if index % 2:
            process = new_run(inputs, out, end=(moments.randint(1, steps), ended_by))
        else:
            process = new_run(inputs, out)
            time.sleep(moments.uniform(0, whole))
            os.kill(process, ended_by)
        code = exit_code(process)
        counts[f"{ended_by.name} ended a run"] += code == SIGNALS[ended_by]
        wrong = [] if code in (0, SIGNALS[ended_by]) else [f"exit code {code}"]
        if ended_by != signal.SIGKILL and (left := _hidden(out)):
            wrong.append(f"left after {ended_by.name}: {left}")
        if ended_by == signal.SIGKILL:
            recover(out)
        kinds = list(kinds_of(out, old, new))
        counts.update(kinds)
        wrong += [kind for kind in kinds if kind not in ("old", "new", "absent")]
        wrong += ["absent, where there was an old case"] if before and "absent" in kinds else []
        if (code := exit_code(new_run(inputs, out, "--continue"))) != 0:
            wrong.append(f"exit code {code} of the next run")
        if set(kinds_of(out, old, new)) != {"new"}:
            wrong.append(f"after the next run: {list(kinds_of(out, old, new))}")
        if left := _hidden(out):
            wrong.append(f"left after the next run: {left}")
        if before and any((out / name).read_text() != text for name, text in NOTES.items()):
            wrong.append("notes of a reader are lost")
        counts.update(f"WRONG: {what}" for what in wrong)
    print(f"{count} runs of {1000 * whole:.0f} ms and {steps} steps on the disk: {dict(counts)}")
    return counts


def _hidden(out: Path) -> list[str]:
    return [str(path.relative_to(out)) for path in out.rglob(".*") if path.name != MARKER or path.parent.name[0] == "."]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", action="store_true")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    kill = kill_runs if arguments.runs else kill_writers
    try:
        counts = kill(folder, arguments.count, random.Random(arguments.seed))
    finally:
        shutil.rmtree(folder)
    return int(any("half" in what or "left" in what or "WRONG" in what for what in counts))


if __name__ == "__main__":
    sys.exit(main())
