"""A training of the neck on features that were computed before."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anomalyclip_monai.networks.neck import NeckMember
from recipes.tiny.objective import Targets, objective, targets
from recipes.tiny.organs.sets import with_domains

LEAST_KNOWN = 0.05
"""Share of a square that must have a label."""


@dataclass(frozen=True)
class Reduction:
    """Standardised tokens on their principal components.

    Attributes:
        weight: (components, layers * width).
        bias: (components,).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, tokens: Tensor) -> Tensor:
        """(..., layers * width) -> (..., components)."""
        return nn.functional.linear(tokens, self.weight, self.bias)

    @classmethod
    def fitted(cls, tokens: Tensor, components: int) -> Reduction:
        """The reduction that keeps most of the variance of (n, layers * width) tokens."""
        mean, scale = tokens.mean(dim=0), tokens.std(dim=0) + 1e-5
        standard = (tokens - mean) / scale
        _, vectors = torch.linalg.eigh((standard.T @ standard / len(standard)).double())
        weight = (vectors.flip(1)[:, :components].float() / scale[:, None]).T.contiguous()
        return cls(weight, -weight @ mean)


@dataclass(frozen=True)
class Squares:
    """Reduced features of training squares.

    Attributes:
        tokens: (n, 1 + N, components) half precision, class token first.
        wanted: targets of all of them.
        of: set or domain of each.
        kind: ``whole``, ``held_out`` or ``drawn``.
        grid: rows and columns.
    """

    tokens: NDArray[np.float16]
    wanted: Targets
    of: NDArray[np.str_]
    kind: NDArray[np.str_]
    grid: tuple[int, int]

    def without(self, sets: Collection[str]) -> NDArray[np.intp]:
        """Positions of the squares to learn from, when these sets are left out."""
        known = self.wanted.known.mean(dim=1).numpy() > LEAST_KNOWN
        return np.flatnonzero(~np.isin(self.of, list(with_domains(sets))) & (self.kind != "held_out") & known)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a member is trained.

    Attributes:
        seed: of everything random.
        steps: of the optimiser.
        batch: squares a step.
        rate: peak of the learning rate.
        weight_decay: of the optimiser.
        hidden: channels of the member.
        dropout: of components.
        power: a set of n squares is drawn from in proportion to n to this power.
        shares: set or domain -> factor on that, 1 for the others.
        whole: factor on squares that show whole pictures.
    """

    seed: int = 0
    steps: int = 300
    batch: int = 16
    rate: float = 1e-3
    weight_decay: float = 0.1
    hidden: int = 128
    dropout: float = 0.25
    power: float = 0.5
    shares: Mapping[str, float] | None = None
    whole: float = 1.0


def train_member(
    squares: Squares, chosen: NDArray[np.intp], text: Tensor, plan: Plan, *, temperature: float = 0.07
) -> tuple[NeckMember, list[float]]:
    """A member that learned from the chosen squares, and its loss per step.

    Args:
        squares: features.
        chosen: positions of those to learn from.
        text: (2, D) normalised text features of the normal and the abnormal prompt.
        plan: how.
        temperature: divides the cosines.
    """
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    member = NeckMember(squares.tokens.shape[-1], plan.hidden, text.shape[1], plan.dropout).train()
    optimiser = torch.optim.AdamW(member.parameters(), lr=plan.rate, weight_decay=plan.weight_decay)
    shares = odds(squares, chosen, plan)
    losses = []
    for step in range(plan.steps):
        rate = plan.rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / plan.steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        picked = np.sort(rng.choice(chosen, plan.batch, p=shares))
        tokens = torch.from_numpy(squares.tokens[picked]).float()
        wanted = Targets(*(part[picked] for part in squares.wanted))
        tokens, wanted = _mirrored_half(tokens, wanted, squares.grid, rng)
        output = member(tokens, squares.grid)
        loss, _ = objective([output[:, 1:]], output[:, 0], text, wanted, temperature=temperature)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(member.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    return member.eval(), losses


def odds(squares: Squares, chosen: NDArray[np.intp], plan: Plan) -> NDArray[np.float64]:
    """How often each of the chosen squares is drawn."""
    of, kind = squares.of[chosen], squares.kind[chosen]
    found = np.zeros(len(chosen))
    for name in np.unique(of):
        members = of == name
        weights = np.where(kind[members] == "whole", plan.whole, 1.0)
        share = members.sum() ** plan.power * (plan.shares or {}).get(str(name), 1.0)
        found[members] = share * weights / weights.sum()
    return found / found.sum()


def _mirrored_half(
    tokens: Tensor, wanted: Targets, grid: tuple[int, int], rng: np.random.Generator
) -> tuple[Tensor, Targets]:
    """Half of the squares left to right: their tokens change places, which is nearly what their mirror images have."""
    flip = torch.from_numpy(rng.random(len(tokens)) < 0.5)
    order = torch.arange(grid[0] * grid[1]).view(grid).flip(1).flatten()
    patches = torch.where(flip[:, None, None], tokens[:, 1:][:, order], tokens[:, 1:])
    swap = [torch.where(flip[:, None], part[:, order], part) for part in (wanted.tokens, wanted.known)]
    return torch.cat([tokens[:, :1], patches], dim=1), wanted._replace(tokens=swap[0], known=swap[1])


def token_targets(labels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], patch: int, batch: int = 64) -> Targets:
    """(n, S, S) labels -> targets of all of them."""
    parts = [
        targets(torch.from_numpy(np.asarray(labels[start : start + batch])), patch)
        for start in range(0, len(labels), batch)
    ]
    return Targets(*(torch.cat([getattr(part, name) for part in parts]) for name in Targets._fields))
