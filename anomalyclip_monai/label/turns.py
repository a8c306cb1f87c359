"""Who may run the network: one at a time, readers before the work that goes on behind them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from anomalyclip_monai.exceptions import CaseError

STOPPED = "E_STOPPED"
"""Code of the error by which work ends with the server."""


class Turns:
    """A lock with two ranks, which those behind hand over in the middle of their work, and that ends all work."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._busy = False
        self._stopped = False

    @contextlib.contextmanager
    def reader(self) -> Iterator[None]:
        """Run as soon as nobody else does; work behind hands over within a batch of slices."""
        with self._changed:
            self._readers += 1
        try:
            self._take(first=True)
            with self._held():
                yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def behind(self) -> Iterator[None]:
        """Run while no reader waits."""
        self._take(first=False)
        with self._held():
            yield

    def give_way(self) -> None:
        """Within :meth:`behind`: let the readers who wait run first.

        Raises:
            CaseError: see :meth:`check`.
        """
        with self._changed:
            if not self._readers:
                return
            self._busy = False
            self._changed.notify_all()
        self._take(first=False)

    def check(self) -> None:
        """Nothing, as long as the server runs.

        Raises:
            CaseError: it ends (``E_STOPPED``).
        """
        if self._stopped:
            raise CaseError(STOPPED, "the server ends", None, "start it again")

    def stop(self) -> None:
        """End all work at the next batch of slices, and let nobody in any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _take(self, *, first: bool) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or (not self._busy and (first or not self._readers)))
            self.check()
            self._busy = True

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
