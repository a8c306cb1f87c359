"""Which organs a bundle was trained on, and the sets of a report whose organ it has never seen a lesion of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anomalyclip_monai.definition import read_definition
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.outputs.report.content import Subset
from anomalyclip_monai.types import PathLike

KEY = "trained_organs"
"""Entry of a bundle's ``configs/metadata.json``."""

UNTRAINED = "untrained"
"""Name of the subset."""


@dataclass(frozen=True, slots=True)
class TrainedOrgans:
    """What a bundle says of its training.

    A name stands for every class that is called like it or begins with it and ``_``: ``brain`` for ``brain_tumour_mr``
    and ``breast_us`` for ``breast_us_busbra`` but not for ``breast_mr``.

    Attributes:
        with_lesions: organ -> which lesions of it were trained on.
        without_lesions: organ -> what of it was seen healthy or unlabelled; such an organ counts as not trained.
    """

    with_lesions: Mapping[str, str] = field(default_factory=dict)
    without_lesions: Mapping[str, str] = field(default_factory=dict)

    def relatives(self, category: str) -> list[str]:
        """The trained organs that a class belongs to."""
        return [organ for organ in self.with_lesions if category == organ or category.startswith(f"{organ}_")]

    def subset(self, categories: Iterable[str]) -> Subset | None:
        """The classes whose organ was not trained; None where there is none."""
        every = list(categories)
        left = tuple(name for name in every if not self.relatives(name))
        title = f"{len(left)} of {len(every)} sets whose organ was not trained"
        return Subset(UNTRAINED, title, left) if left else None

    def notes(self, categories: Iterable[str]) -> list[str]:
        """What a reader must know of the subset."""
        counted = [(name, self.relatives(name)) for name in categories]
        related = [f"{name} ({', '.join(organs)})" for name, organs in counted if organs]
        lines = [f"sets with a relative in the training: {', '.join(related) or 'none'}"]
        if self.without_lesions:
            seen = "; ".join(f"{organ}: {what}" for organ, what in self.without_lesions.items())
            lines.append(f"seen in training without a labelled lesion, so counted as not trained: {seen}")
        return lines


def trained_organs(bundle_root: PathLike) -> TrainedOrgans | None:
    """What the metadata of a bundle says; None where it says nothing.

    Raises:
        UsageError: it cannot be read, or the entry is no such thing (``E_MODEL``).
    """
    path = Path(bundle_root) / "configs" / "metadata.json"
    if not path.is_file() or (entry := read_definition(path).get(KEY)) is None:
        return None
    parts = ("with_lesions", "without_lesions")
    is_table = isinstance(entry, dict) and set(entry) <= set(parts)
    tables = [entry.get(part, {}) for part in parts] if is_table else []
    words = [isinstance(table, dict) and all(isinstance(what, str) for what in table.values()) for table in tables]
    if not words or not all(words):
        what = f"{KEY} is not {' and '.join(parts)}, each with a line for an organ"
        raise UsageError("E_MODEL", what, path, "correct the bundle's metadata")
    return TrainedOrgans(*tables)
