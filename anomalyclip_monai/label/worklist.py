"""The work list: a score for every case, found behind the readers' backs, kept in a file."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anomalyclip_monai.exceptions import AnomalyCLIPError, unforeseen
from anomalyclip_monai.files import read_json, write_json
from anomalyclip_monai.outputs import Result

logger = logging.getLogger(__name__)

FILE = "anomalyclip_scores.json"

PAUSE = 20.0
"""Seconds after which the studies are looked at again, or :data:`LONGER` times as long as that takes."""

LONGER = 10.0


@dataclass(frozen=True, slots=True)
class Scored:
    """What is known of a case.

    Attributes:
        stamp: of its files; another one means that it has to be scored again.
        anomaly_score: in [0, 1]; None where it could not be scored.
        lesions: their number.
        volume_ml: of all of them; None for photos.
        error: why it could not be scored.
    """

    stamp: str
    anomaly_score: float | None = None
    lesions: int = 0
    volume_ml: float | None = None
    error: str = ""

    @classmethod
    def of(cls, result: Result, stamp: str) -> Scored:
        """From a result."""
        volumes = [lesion.volume_mm3 for lesion in result.lesions if lesion.volume_mm3 is not None]
        total = round(sum(volumes) / 1000, 2) if result.source.has_physical_size else None
        return cls(stamp, round(result.score, 4), len(result.lesions), total)

    def info(self) -> dict[str, Any]:
        """As viewers get it with an image."""
        return {name: value for name, value in asdict(self).items() if name != "stamp" and value not in (None, "")}


class Scores:
    """Scores of cases by their id, in a file where there is one; those of other settings are forgotten.

    Args:
        file: where they are kept; None: nowhere.
        settings: all that decides on a score beside the case, JSON types.
    """

    def __init__(self, file: Path | None, settings: Mapping[str, Any]) -> None:
        self._file = file
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self._lock = threading.Lock()
        self._found: dict[str, Scored] = {}
        content = (read_json(file) if file else None) or {}
        if content.get("settings") == self._settings:
            for name, entry in content.get("cases", {}).items():
                self._found[name] = Scored(**entry)

    def get(self, image: str, stamp: str) -> Scored | None:
        """What is known of a case as it is now."""
        found = self._found.get(image)
        return found if found and found.stamp == stamp else None

    def put(self, image: str, scored: Scored) -> None:
        """Remember a case.

        Raises:
            OutputError: the file cannot be written (``E_WRITE``).
        """
        with self._lock:
            self._found[image] = scored
            if self._file is not None:
                cases = {name: asdict(known) for name, known in sorted(self._found.items())}
                write_json(self._file, {"settings": self._settings, "cases": cases})


def ordered(images: Iterable[str], score: Callable[[str], float | None]) -> list[str]:
    """The most suspicious first, those without a score last, the same by name.

    >>> ordered(["a", "b", "c", "d"], {"a": None, "b": 0.2, "c": 0.9, "d": 0.2}.get)
    ['c', 'b', 'd', 'a']
    """
    known = {image: score(image) for image in images}
    return sorted(known, key=lambda image: (known[image] is None, -(known[image] or 0), image))


class Scorer(threading.Thread):
    """Scores case by case as long as the server runs, and looks for new ones.

    Args:
        pending: looks at the studies: -> ids of the cases that have no score.
        score: gives one a score.
    """

    def __init__(self, pending: Callable[[], Sequence[str]], score: Callable[[str], None]) -> None:
        super().__init__(name="scorer", daemon=True)
        self._pending, self._score = pending, score
        self._wake, self._ended, self._looked = threading.Event(), False, 0.0
        self.running = False

    def run(self) -> None:
        """Until :meth:`stop`."""
        while not self._ended:
            self._wake.clear()
            self._looked = 0.0
            try:
                self._round()
            except Exception as error:  # the list of a PACS may come back later on
                known = error if isinstance(error, AnomalyCLIPError) else unforeseen(error)
                logger.warning("%s", known)
            self.running = False
            self._wake.wait(max(PAUSE, LONGER * self._looked))

    def _round(self) -> None:
        began = time.monotonic()
        pending = self._pending()
        self._looked = time.monotonic() - began
        for image in pending:
            if self._ended:
                return
            self.running = True
            self._score(image)

    def wake(self) -> None:
        """Look at the studies now."""
        self._wake.set()

    def stop(self) -> None:
        """Begin no further case."""
        self._ended = True
        self._wake.set()
