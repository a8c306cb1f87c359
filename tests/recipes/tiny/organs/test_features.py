"""Squares of sets and subjects, and what the frozen transformer says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.timm_model import TimmModel

from recipes.tiny.organs import features
from recipes.tiny.organs.features import IMAGENET_MEAN, IMAGENET_STD, Amount, Trunk, squares_of_set, squares_of_subjects
from recipes.tiny.organs.sets import OrganSet
from recipes.tiny.sources import Subject


def test_a_set_is_shown_whole_and_then_drawn(tmp_path: Path, write_photo: Callable[..., Path]) -> None:
    one = OrganSet("made")
    for index in range(12):
        write_photo(f"more/made/images/{index}.png", np.full((40, 60), 100))
        if index < 11:  # of the last nobody knows, and so it is never shown whole
            write_photo(f"more/made/masks/{index}.png", np.pad(np.full((10, 10), 255), ((5, 25), (5, 45))))
    held_out = {file.stem for file in one.files(tmp_path) if one.validates(file)}
    assert 0 < len(held_out) < 11
    squares = list(squares_of_set(tmp_path, one, 28, Amount(per_set=2, most=5)))
    known_held_out = len(held_out - {"11"})
    assert Counter(square.kind for square in squares) == {
        "whole": 11 - known_held_out,
        "held_out": known_held_out,
        "drawn": 5,  # of 2 * sqrt(11)
    }
    assert {square.of for square in squares} == {"made"}
    again = list(squares_of_set(tmp_path, one, 28, Amount(per_set=2, most=5)))
    other = list(squares_of_set(tmp_path, one, 28, Amount(per_set=2, most=5), seed=1))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(squares, again, strict=True))
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(squares, other, strict=True))


def test_a_lesion_that_is_always_in_the_middle_is_never_shown_whole(
    tmp_path: Path, write_photo: Callable[..., Path]
) -> None:
    write_photo("more/made/images/0.png", np.full((40, 60), 100))
    write_photo("more/made/masks/0.png", np.pad(np.full((10, 10), 255), ((15, 15), (25, 25))))
    one = OrganSet("made", centred=True, one_side=True)
    assert {square.kind for square in squares_of_set(tmp_path, one, 28, Amount(per_set=2))} == {"drawn"}


def test_subjects_that_validate_are_whole_slices_and_no_crops(subjects: list[Subject]) -> None:
    held_out = [one for one in subjects if one.validates]
    assert held_out
    found = list(squares_of_subjects(held_out, 28, Amount(crops=0)))
    assert {square.kind for square in found} == {"held_out"}
    assert {square.of for square in found} == {f"{one.domain}:{one.name}" for one in held_out}
    trained = list(squares_of_subjects([one for one in subjects if not one.validates], 28, Amount(crops=12)))
    assert [square.kind for square in trained] == ["drawn"] * 12


def test_the_trunk_gives_the_normalised_tokens_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "TRUNK", "test_vit")  # 6 blocks of 64 channels, patches of 16 pixels
    torch.manual_seed(0)
    visual: Any = TimmModel("test_vit", embed_dim=0, pool="token", proj="none", pretrained=False).eval()
    trunk = Trunk(visual.trunk.state_dict(), (2, 5), torch.float32)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 160, 160), dtype=np.uint8)
    found = trunk(images)
    assert found.shape == (2, 1 + 100, 2 * 64)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        blocks = visual.trunk.get_intermediate_layers(
            (torch.from_numpy(images) / 255 - mean) / std, n=[1, 4], norm=True, return_prefix_tokens=True
        )
    expected = torch.cat([torch.cat([prefix, patches], dim=1) for patches, prefix in blocks], dim=-1)
    assert torch.allclose(found, expected, atol=1e-4)
