"""Decode with gdcm in a process of its own, since gdcm ends the process it runs in when a file is damaged.

Started as a script, so that the child imports pydicom and gdcm and nothing of this package.
"""

from __future__ import annotations

import contextlib
import importlib
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
"""Longest wait for one frame, from the moment the process is ready."""

MAX_START_SECONDS = 120.0
"""Longest wait for the process to import what it needs, which takes its time on a busy machine or a cold disk."""

_LENGTH_BYTES = 8
_READY = b"+"


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
            TimeoutError: it took longer than :data:`MAX_SECONDS`, or the process longer to start than
                :data:`MAX_START_SECONDS`.
            ValueError: the frame could not be decoded, or gdcm took its process down with it.
        """
        if self._child is None:
            self._start()
        request = json.dumps([str(path.resolve()), number]).encode() + b"\n"
        answer = self._ask(request, MAX_SECONDS, "a frame was not decoded")
        return np.asarray(np.load(io.BytesIO(answer), allow_pickle=False))

    def _start(self) -> None:
        command = [sys.executable, "-P", __file__]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._ask(b"", MAX_START_SECONDS, "the decoder of JPEG lossless did not start")

    def _ask(self, request: bytes, seconds: float, failure: str) -> bytes:
        """Send a line and wait for the answer. Whether it fails, dies or is killed, the next gets a fresh process."""
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            raise ValueError("no pipes to the decoder")
        late = threading.Event()

        def end() -> None:
            late.set()
            child.kill()

        alarm = threading.Timer(seconds, end)
        alarm.start()
        try:
            child.stdin.write(request)
            child.stdin.flush()
            length = int.from_bytes(child.stdout.read(_LENGTH_BYTES), "big")
            answer = child.stdout.read(length)
        except OSError:
            length, answer = 0, b""
        finally:
            alarm.cancel()
        if not answer or len(answer) < length:
            self._stop()
            if late.is_set():
                raise TimeoutError(f"{failure} in {seconds:g} seconds")
            raise ValueError("the frame cannot be decoded")
        return answer

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
    """Say that all is imported, then answer each request line with an array file; an empty one if there is none."""
    with contextlib.suppress(ImportError):
        importlib.import_module("gdcm")
    _answer(_READY)
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
        _answer(buffer.getvalue())


def _answer(content: bytes) -> None:
    """Write the length of the content and the content."""
    sys.stdout.buffer.write(len(content).to_bytes(_LENGTH_BYTES, "big") + content)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
