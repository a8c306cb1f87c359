"""End in order when the user, or a scheduler, asks for it: nothing is left half written."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Caught:
    """The signal that ended a run.

    Attributes:
        signal: its number, None as long as there was none.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def code(self) -> int:
        """The exit code that a shell expects: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    @property
    def said(self) -> str:
        """A word for people."""
        return _SAID[signal.Signals(self.signal or signal.SIGINT)]

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Unwind what is going on; a second signal ends at once, and the next run clears up."""
        if self.signal is not None:
            os._exit(self.code)
        self.signal = number
        raise KeyboardInterrupt


@contextlib.contextmanager
def caught() -> Iterator[Caught]:
    """Take SIGINT and SIGTERM, as far as they are not ignored, for the time of the block."""
    taker = Caught()
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SAID:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, taker)
    try:
        yield taker
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
