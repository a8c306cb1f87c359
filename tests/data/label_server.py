"""A server of ``anomalyclip serve`` in a process of its own, and volumes for it."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from anomalyclip_monai.data.phantom import head_phantom


def small_head(*, lesion: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(64, 60, 16) voxels of the synthetic head, and their affine."""
    head = head_phantom(lesion=lesion, seed=seed)
    first, steps = np.array([8, 24, 4]), np.array([3, 3, 1])
    data = head.data[8:200:3, 24:204:3, 4:20]
    affine = head.affine @ np.diag([*steps, 1.0])
    affine[:3, 3] = (head.affine @ [*first, 1])[:3]
    return data.astype(np.int16), affine


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


class Server:
    """``anomalyclip serve`` in a process of its own, ended by its number."""

    def __init__(self, arguments: Sequence[str], cwd: Path) -> None:
        self.cwd, self.temporary = cwd, cwd / "tmp"
        self.temporary.mkdir(exist_ok=True)
        threads = str(torch.get_num_threads())  # sums depend on their number
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MONAI_LABEL")}
        environment = {**kept, "TMPDIR": str(self.temporary), "HOME": str(cwd), "OMP_NUM_THREADS": threads}
        environment |= {"CUDA_VISIBLE_DEVICES": ""}
        words = [sys.executable, "-P", "-m", "anomalyclip_monai.cli", "serve", *arguments]
        self.process = subprocess.Popen(
            words, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.printed: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = ""
        while not self.address:
            line = self._lines.get(timeout=150)
            assert line is not None, "".join(self.printed)
            self.address = (re.search(r"http://127\.0\.0\.1:\d+$", line.strip()) or [""])[0]

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self.printed.append(line)
                self._lines.put(line)
        self._lines.put(None)

    def end(self) -> int:
        """SIGTERM; -> exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self._reader.join()
        return code


def until(true: Callable[[], Any], seconds: float = 90) -> Any:
    """The first answer that is true."""
    end = time.monotonic() + seconds
    while not (answer := true()):
        assert time.monotonic() < end, "this did not become true in time"
        time.sleep(0.2)
    return answer
