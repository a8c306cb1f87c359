"""The content of a bundle's ``docs/evidence.json``, schema ``anomalyclip-evidence/1``.

::

    {"schema": ..., "parts": {"organs": {
        "head": {"origin": "measured", "date": "2026-11-30", "commit": ..., "weights": {...}, ...},
        "sets": {"bone_ct": {"title": "bone CT", "images": 12, "groups": 12, "protocol": "organs-256"}},
        "measures": {"pixel_auroc": "pixel AUROC"},
        "measurements": [{"set": "bone_ct", "measure": "pixel_auroc", "variant": "shipped", "value": 0.87, ...}]}}}

Every part is written by one command, as a whole, and has a head of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.files import read_text, write_text
from anomalyclip_monai.outputs.report.content import Fingerprint, Measure
from anomalyclip_monai.outputs.report.json_value import JSONValue

SCHEMA = "anomalyclip-evidence/1"

FILE = "docs/evidence.json"
"""Below a bundle's folder."""

ORIGINS = ("measured", "transcribed")
"""Written by the command that measured, or taken by hand from what such a command once printed."""

DIGITS = 5
"""Decimals of a value that are kept; texts show three."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the numbers of a part come from.

    Attributes:
        origin: one of :data:`ORIGINS`.
        date: of measuring, ``YYYY-MM-DD``.
        commit: of the repository, with ``-dirty`` where files had changed; empty where that is not known.
        version: of the package.
        thresholds: all that masks were made with, rising.
        settings: options that change heatmaps, where they were the same for all sets.
        weights: names and hashes of what ran, see :func:`~anomalyclip_monai.weights.bundle.fingerprint`.
        repeats: resampled sets behind an interval, 0 for no intervals.
        seed: of the draws.
        protocols: id -> the sentence that says how was measured.
    """

    origin: str
    date: str
    commit: str
    version: str
    thresholds: tuple[float, ...]
    settings: Mapping[str, Any]
    weights: Fingerprint
    repeats: int
    seed: int
    protocols: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise ValueError(f"origin {self.origin!r} is none of {', '.join(ORIGINS)}")

    @classmethod
    def from_json(cls, content: Any) -> Head:
        """See the module."""
        entry = JSONValue.of(content)
        origin, date, commit, version = (entry.at(key).text() for key in ("origin", "date", "commit", "version"))
        return cls(
            origin,
            date,
            commit,
            version,
            thresholds=entry.at("thresholds").each(JSONValue.number),
            settings=entry.at("settings").every(lambda setting: setting.value),
            weights=entry.at("weights").every(JSONValue.text),
            repeats=entry.at("repeats").whole(),
            seed=entry.at("seed").whole(),
            protocols=entry.at("protocols").every(JSONValue.text),
        )


@dataclass(frozen=True, slots=True)
class MeasuredOn:
    """A set, or several together.

    Attributes:
        title: in tables.
        images: photos or volumes.
        groups: patients or sequences, the units of resampling.
        protocol: id, a key of the head's ``protocols`` where that has the sentence.
    """

    title: str
    images: int
    groups: int
    protocol: str

    @classmethod
    def from_json(cls, content: Any) -> MeasuredOn:
        """See the module."""
        entry = JSONValue.of(content)
        title, protocol = entry.at("title").text(), entry.at("protocol").text()
        return cls(title, entry.at("images").whole(), entry.at("groups").whole(), protocol)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number.

    Attributes:
        set: a key of the part's ``sets``.
        measure: a key of the part's ``measures``.
        variant: what was measured: ``shipped``, ``seeds`` (their mean), ``seed 0``, or a baseline such as ``body``.
        found: value, mostly in [0, 1], and intervals.
    """

    set: str
    measure: str
    variant: str
    found: Measure

    def to_json(self) -> dict[str, Any]:
        """-> an entry of ``measurements``; what there is none of is left out."""
        found = {key: value for key, value in self.found.to_json().items() if value is not None}
        return {"set": self.set, "measure": self.measure, "variant": self.variant, **found}

    @classmethod
    def from_json(cls, content: Any) -> Measurement:
        """See the module."""
        entry = JSONValue.of(content)
        name, measure, variant = (entry.at(key).text() for key in ("set", "measure", "variant"))
        return cls(name, measure, variant, Measure.from_json(entry))


@dataclass(frozen=True, slots=True)
class Part:
    """What one command measured.

    Attributes:
        head: where it comes from.
        sets: name -> set, in the order of tables.
        measures: name -> title, in the order of tables.
        measurements: no two of the same set, measure and variant.
    """

    head: Head
    sets: Mapping[str, MeasuredOn]
    measures: Mapping[str, str]
    measurements: tuple[Measurement, ...]

    def __post_init__(self) -> None:
        keys = [(one.set, one.measure, one.variant) for one in self.measurements]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise ValueError(f"{', '.join(twice)} is there twice")
        if strange := next((key for key in keys if key[0] not in self.sets or key[1] not in self.measures), None):
            raise ValueError(f"{', '.join(strange)}: set or measure has no title")

    def find(self, where: str, measure: str, variant: str) -> Measure | None:
        """A number by its key; None where there is none."""
        key = (where, measure, variant)
        return next((one.found for one in self.measurements if (one.set, one.measure, one.variant) == key), None)

    def value(self, where: str, measure: str, variant: str) -> float:
        """The value of a number that a text asks for.

        Raises:
            KeyError: it was not measured.
        """
        found = self.find(where, measure, variant)
        if found is None or found.value is None:
            raise KeyError(f"no measurement of {where}, {measure}, {variant}")
        return found.value

    def to_json(self) -> dict[str, Any]:
        """-> an entry of ``parts``."""
        return {
            "head": asdict(self.head),
            "sets": {name: asdict(one) for name, one in self.sets.items()},
            "measures": dict(self.measures),
            "measurements": [one.to_json() for one in self.measurements],
        }

    @classmethod
    def from_json(cls, content: Any) -> Part:
        """See the module."""
        entry = JSONValue.of(content)
        return cls(
            Head.from_json(entry.at("head")),
            entry.at("sets").every(MeasuredOn.from_json),
            entry.at("measures").every(JSONValue.text),
            entry.at("measurements").each(Measurement.from_json),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was measured of a bundle: name of a part -> part."""

    parts: Mapping[str, Part] = field(default_factory=dict)

    def part(self, name: str) -> Part:
        """A part that a text asks for.

        Raises:
            KeyError: it is not there.
        """
        if name not in self.parts:
            raise KeyError(f"evidence has no part {name}, it has {', '.join(self.parts) or 'none'}")
        return self.parts[name]

    def to_text(self) -> str:
        """The content of the file: a line for every object that holds no other."""
        parts = {name: part.to_json() for name, part in self.parts.items()}
        return "".join(_lines({"schema": SCHEMA, "parts": parts})) + "\n"

    @classmethod
    def from_json(cls, content: Any) -> Evidence:
        """See the module."""
        entry = JSONValue.of(content)
        if (schema := entry.at("schema").text()) != SCHEMA:
            raise ValueError(f"its schema is {schema}, not {SCHEMA}")
        return cls(entry.at("parts").every(Part.from_json))


def evidence_file(bundle_root: Path) -> Path:
    """Where a bundle keeps it."""
    return bundle_root / FILE


def read_evidence(path: Path) -> Evidence:
    """Read a file; without one nothing was measured.

    Raises:
        UsageError: it cannot be read or is of another kind (``E_REPORT``).
    """
    if not path.exists():
        return Evidence()
    try:
        return Evidence.from_json(json.loads(read_text(path)))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError("E_REPORT", f"no evidence: {error}", path, "take it from the repository again") from error


def update(path: Path, name: str, part: Part) -> None:
    """Put a part in the place of the one of that name, the others as they are; the file is written whole."""
    rounded = replace(part, measurements=tuple(map(_rounded, part.measurements)))
    write_text(path, Evidence({**read_evidence(path).parts, name: rounded}).to_text())


def _rounded(one: Measurement) -> Measurement:
    def kept(number: float | None) -> float | None:
        return None if number is None else round(number, DIGITS)

    found = one.found
    over_classes = kept(found.classes_low), kept(found.classes_high)
    return replace(
        one,
        found=Measure(
            kept(found.value), kept(found.low), kept(found.high), kept(found.sd), found.undefined, *over_classes
        ),
    )


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    """JSON in which what holds no list or object is on one line."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if not any(isinstance(one, (dict, list, tuple)) for one in inner):
        yield json.dumps(value, ensure_ascii=False)
        return
    names = [f"{json.dumps(key)}: " for key in value] if isinstance(value, dict) else [""] * len(inner)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    deeper = f"{indent}  "
    yield opening
    for index, (name, one) in enumerate(zip(names, inner, strict=True)):
        yield f"{',' if index else ''}\n{deeper}{name}"
        yield from _lines(one, deeper)
    yield f"\n{indent}{closing}"
