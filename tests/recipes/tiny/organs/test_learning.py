"""A training of the neck on kept features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recipes.tiny.crops import UNKNOWN
from recipes.tiny.objective import Targets, logits, targets
from recipes.tiny.organs.learning import Plan, Reduction, Squares, odds, token_targets, train_member

TEXT = torch.eye(8)[:2]
"""Features of the normal and the abnormal prompt."""

SMALL = Plan(steps=150, hidden=16, rate=5e-3)


def test_the_reduction_keeps_the_variance() -> None:
    # The second column is the first in another unit, the third has nothing to do with both.
    tokens = torch.tensor([[-1.0, -7, -5], [1, 13, -5], [-1, -7, 5], [1, 13, 5]])
    one = Reduction.fitted(tokens, 1)(tokens)
    # Standardised, both columns are +-sqrt(3/4), and on their diagonal +-sqrt(2 * 3/4).
    assert one.abs().flatten().tolist() == pytest.approx([1.5**0.5] * 4, rel=1e-4)
    two = Reduction.fitted(tokens, 2)(tokens)
    standard = (tokens - tokens.mean(dim=0)) / tokens.std(dim=0)
    assert torch.allclose(torch.cdist(two, two), torch.cdist(standard, standard), rtol=1e-3)


def made_squares(of: list[str], kind: list[str] | None = None) -> Squares:
    """Squares of 2 x 3 tokens of four components, the first of which is high in the lesion, the left column of half."""
    rng = np.random.default_rng(0)
    count = len(of)
    tokens = rng.normal(0, 0.3, (count, 7, 4)).astype(np.float16)
    lesion = np.zeros((count, 2, 3), dtype=np.float32)
    lesion[::2, :, 0] = 1
    tokens[:, 1:, 0] += 3 * lesion.reshape(count, 6).astype(np.float16)
    wanted = Targets(
        torch.from_numpy(lesion.reshape(count, 6)),
        torch.ones(count, 6),
        torch.from_numpy(lesion.max(axis=(1, 2))),
        torch.ones(count, dtype=torch.bool),
        torch.from_numpy(lesion.mean(axis=(1, 2))),
    )
    return Squares(tokens, wanted, np.array(of), np.array(kind or ["drawn"] * count), (2, 3))


def test_a_member_learns_where_a_lesion_is() -> None:
    squares = made_squares(["a"] * 64)
    member, losses = train_member(squares, np.arange(48), TEXT, SMALL)
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])
    with torch.inference_mode():
        features = member(torch.from_numpy(squares.tokens[48:]).float(), (2, 3))[:, 1:]
        found = logits(F.normalize(features, dim=-1), TEXT, 0.07) > 0
    assert (found == (squares.wanted.tokens[48:] > 0)).float().mean() > 0.97  # of squares that it never saw


def test_the_same_seed_gives_the_same_member() -> None:
    squares = made_squares(["a"] * 8)
    first, again, other = (
        train_member(squares, np.arange(8), TEXT, Plan(seed=seed, steps=2, hidden=8))[0].state_dict()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["enter.weight"], other["enter.weight"])


def test_sets_that_are_left_out_are_not_drawn() -> None:
    squares = made_squares(
        ["liver_us", "knee", "colonoscopy", "knee", "knee"] * 4, [*["drawn"] * 16, *["held_out"] * 4]
    )
    squares.wanted.known[1] = 0.02  # nearly nothing is known of this one
    chosen = squares.without(["liver_us", "kvasir_256"])  # the domain of the latter is colonoscopy
    assert chosen.tolist() == [3, 4, 6, 8, 9, 11, 13, 14]
    spoiled = np.setdiff1d(np.arange(20), chosen)
    squares.tokens[spoiled] = np.nan
    _, losses = train_member(squares, chosen, TEXT, Plan(steps=10, hidden=8))
    assert np.isfinite(losses).all()


def test_a_large_set_is_drawn_from_more_often_by_its_root() -> None:
    squares = made_squares(["large"] * 16 + ["small"] * 4, ["whole"] * 8 + ["drawn"] * 12)
    shares = odds(squares, np.arange(20), Plan())
    assert shares[:16].sum() / shares[16:].sum() == pytest.approx(2)  # sqrt(16 / 4)
    weighted = odds(squares, np.arange(20), Plan(whole=3.0, shares={"small": 2.0}))
    assert weighted[0] / weighted[8] == pytest.approx(3)
    assert weighted[:16].sum() / weighted[16:].sum() == pytest.approx(1)


def test_targets_of_many_labels_are_those_of_each() -> None:
    labels = np.random.default_rng(0).choice([0, 1, UNKNOWN], size=(5, 28, 28)).astype(np.uint8)
    together = token_targets(labels, 14, batch=2)
    each = [targets(torch.from_numpy(label[None]), 14) for label in labels]
    for name in Targets._fields:
        assert torch.equal(getattr(together, name), torch.cat([getattr(one, name) for one in each]))
