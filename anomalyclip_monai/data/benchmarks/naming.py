"""Names of images in a data set, and lists of them in messages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from anomalyclip_monai.data.benchmarks.layouts import PHOTO, VOLUME
from anomalyclip_monai.data.benchmarks.sample import Sample

NAMED = 5
"""Names that a message lists before it stops."""


def stem_of(path: str) -> str:
    """The path without the suffix of an image."""
    return re.sub(f"(?:{PHOTO}|{VOLUME})$", "", path, flags=re.IGNORECASE)


def unique_names(samples: Sequence[Sample]) -> list[Sample]:
    """The same samples; where two names would be the same, both keep their suffix, and what is left is numbered."""
    counts = Counter(sample.name.casefold() for sample in samples)
    named, used = [], set()
    for sample in samples:
        suffix = sample.image.name[len(stem_of(sample.image.name)) :] if counts[sample.name.casefold()] > 1 else ""
        unique, number = sample.name + suffix, 2
        while unique.casefold() in used:
            unique, number = f"{sample.name}{suffix}-{number}", number + 1
        used.add(unique.casefold())
        named.append(replace(sample, name=unique, group=unique if sample.group == sample.name else sample.group))
    return named


def natural(text: str) -> list[str | int]:
    """Sort key that counts: ``2.png`` before ``10.png``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def listed(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    first = ", ".join(names[:NAMED])
    return first if len(names) <= NAMED else f"{first} and {len(names) - NAMED} more"
