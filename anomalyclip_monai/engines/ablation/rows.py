"""What is changed in each row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from anomalyclip_monai.engines.evaluation.methods import MODEL
from anomalyclip_monai.losses.prompt_loss import LossTerms
from anomalyclip_monai.networks.dual_path import LocalAttention
from anomalyclip_monai.networks.hand_written import BASELINES

GROUPS: Mapping[str, str] = {
    "attention": "local attention",
    "prompts": "prompts",
    "layers": "feature layers",
    "context": "context vectors of a prompt (n_ctx)",
    "depth": "text blocks that see learned vectors (depth)",
    "tokens": "tokens of a deep prompt (t_n_ctx)",
    "loss": "loss",
}
"""Kinds of change, in the order of the table: name of the option -> heading."""

CONTEXTS = (4, 8, 12, 16)
TOKENS = (1, 2, 4, 8)
FEW_BLOCKS = 6
"""A tower with at most this many blocks is tried block by block, a larger one by quarters."""


class Nouns(NamedTuple):
    """What images show, for prompts that name their object; None where no single word is known."""

    auxiliary: str | None
    measured: str | None


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        key: name of its folder.
        group: key of :data:`GROUPS`; empty for the base.
        title: what is changed, to what.
        network: arguments of the network in the place of the bundle's, when it is measured.
        taught: the same when prompts are learned, where that differs: images of another set show something else.
        terms: losses that are used.
        method: what is measured; with hand-written sentences nothing is learned.
        prompts: where the prompts come from.
        problem: why there is no such network.
    """

    key: str
    group: str
    title: str
    network: Mapping[str, Any] = field(default_factory=dict)
    taught: Mapping[str, Any] | None = None
    terms: LossTerms = "both"
    method: str = MODEL
    prompts: Literal["learned", "shipped", "hand-written"] = "learned"
    problem: str | None = None


def base_row(settings: Mapping[str, Any]) -> Row:
    """The bundle's own configuration.

    Args:
        settings: arguments of its network, with defaults.
    """
    layers = ", ".join(map(str, settings["feature_layers"]))
    title = (
        f"base: {settings['local_attention']}, {settings['object_name']}, layers {layers}, n_ctx {settings['n_ctx']}, "
        f"depth {settings['depth']}, t_n_ctx {settings['t_n_ctx']}, both losses"
    )
    return Row("base", "", title)


def changed_rows(settings: Mapping[str, Any], image_blocks: int, text_blocks: int, nouns: Nouns) -> list[Row]:
    """Every row but the base, in the order of the table.

    Args:
        settings: arguments of the bundle's network, with defaults.
        image_blocks: of the vision tower.
        text_blocks: of the text tower.
        nouns: see :class:`Nouns`.
    """
    rows = [_changed("attention", "local_attention", kind, kind) for kind in get_args(LocalAttention)]
    rows += _prompts(nouns)
    for layers in layer_choices(image_blocks):
        rows.append(_changed("layers", "feature_layers", layers, ", ".join(map(str, layers))))
    rows += [_changed("context", "n_ctx", count, str(count)) for count in CONTEXTS]
    for depth in depths(text_blocks):
        title = "1 (no deep prompts)" if depth == 1 else str(depth)
        rows.append(_changed("depth", "depth", depth, title))
    if settings["depth"] > 1:
        rows += [_changed("tokens", "t_n_ctx", count, str(count)) for count in TOKENS]
    rows += [Row("loss-global", "loss", "global alone", terms="global")]
    rows += [Row("loss-local", "loss", "local alone", terms="local")]
    return [row for row in rows if not _is_base(row, settings)]


def layer_choices(blocks: int) -> list[list[int]]:
    """Single layers, then the last ones together: ``[24], [18, 24], [12, 18, 24], [6, 12, 18, 24]`` of 24 blocks."""
    steps = steps_of(blocks)
    return [[step] for step in steps] + [steps[first:] for first in range(len(steps) - 2, -1, -1)]


def depths(blocks: int) -> list[int]:
    """Text blocks with learned vectors: only the first (no deep prompts), up to all."""
    return sorted({1, *steps_of(blocks)})


def steps_of(blocks: int) -> list[int]:
    """Every block of a small tower, every quarter of a larger one, counted from 1."""
    if blocks <= FEW_BLOCKS:
        return list(range(1, blocks + 1))
    return [round(blocks * quarter / 4) for quarter in range(1, 5)]


def _prompts(nouns: Nouns) -> Iterator[Row]:
    known = nouns.auxiliary and nouns.measured
    yield Row(
        "-".join(["named_object", *(re.sub(r"\W+", "_", noun or "") for noun in nouns)]),
        "prompts",
        f"named object ({nouns.auxiliary}, then {nouns.measured})" if known else "named object",
        {"object_name": nouns.measured},
        {"object_name": nouns.auxiliary},
        problem=None if known else _unknown(nouns),
    )
    yield Row("object", "prompts", "object-agnostic", {"object_name": "object"})
    yield Row("shipped", "prompts", "as shipped, learned on other data", prompts="shipped")
    for method in ("hand_written", "fixed_pair"):
        title = f"{BASELINES[method].title}, nothing learned"
        yield Row(method, "prompts", title, method=method, prompts="hand-written")


def _unknown(nouns: Nouns) -> str:
    lacking = [name for name, noun in (("auxiliary", nouns.auxiliary), ("measured", nouns.measured)) if not noun]
    return f"no single noun is known for the {' and the '.join(lacking)} images - give --object-names AUX SET"


def _changed(group: str, argument: str, value: Any, title: str) -> Row:
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return Row(f"{argument}-{'-'.join(map(str, parts))}", group, title, {argument: value})


def _is_base(row: Row, settings: Mapping[str, Any]) -> bool:
    """Whether a row changes arguments to what they are."""
    taught = {} if row.taught is None else row.taught
    changes = [*row.network.items(), *taught.items()]
    return bool(changes) and row.problem is None and all(_same(settings[name], value) for name, value in changes)


def _same(one: Any, other: Any) -> bool:
    return list(one) == list(other) if isinstance(other, list) else bool(one == other)
