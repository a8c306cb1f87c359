"""Decode with gdcm in a process of its own, since gdcm ends the process it runs in when a file is damaged.

Started as a script, so that the child imports pydicom and gdcm and nothing of this package.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array

MAX_SECONDS = 8.0
"""Longest wait for one frame, the start of the process included."""

_LENGTH_BYTES = 8


class IsolatedDecoder:
    """A child process that decodes one frame after another, started when the first one is asked for."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def decode(self, path: Path, number: int) -> NDArray[np.generic]:
        """Stored values of one frame of a file: (H, W) or (H, W, 3).

        Raises:
            ValueError: the frame could not be decoded, or gdcm took its process down with it.
        """
        if self._child is None:
            command = [sys.executable, "-P", __file__]
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        if self._child.stdin is None or self._child.stdout is None:
            raise ValueError("no pipes to the decoder")
        alarm = threading.Timer(MAX_SECONDS, self._child.kill)
        alarm.start()
        try:
            self._child.stdin.write(json.dumps([str(path.resolve()), number]).encode() + b"\n")
            self._child.stdin.flush()
            length = int.from_bytes(self._child.stdout.read(_LENGTH_BYTES), "big")
            answer = self._child.stdout.read(length)
        except OSError:
            answer = b""
        finally:
            alarm.cancel()
        if not answer:
            # Whether it failed, died or was killed, the next frame gets a fresh process.
            self._stop()
            raise ValueError("the frame cannot be decoded")
        return np.asarray(np.load(io.BytesIO(answer), allow_pickle=False))

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        child.wait()


def main() -> None:
    """Answer each request line with the length of an array file and the file; 0 if there is none."""
    last: tuple[str, Dataset] | None = None
    for line in sys.stdin.buffer:
        path, number = json.loads(line)
        buffer = io.BytesIO()
        try:
            if last is None or last[0] != path:
                last = (path, dcmread(path, force=True))
            np.save(buffer, pixel_array(last[1], index=number, decoding_plugin="gdcm"), allow_pickle=False)
        except Exception:
            buffer = io.BytesIO()
        sys.stdout.buffer.write(len(buffer.getvalue()).to_bytes(_LENGTH_BYTES, "big") + buffer.getvalue())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
