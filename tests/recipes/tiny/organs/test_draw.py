"""Squares of pictures: whole as the product shows them, or changed and with lesions made in them."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.tiny.crops import UNKNOWN
from recipes.tiny.organs.draw import drawn, whole
from recipes.tiny.sources import Picture


def picture(lesion: int = 0, channels: int = 3) -> Picture:
    """A calm picture, (60, 80), with a lesion of this label in a corner of it."""
    rng = np.random.default_rng(0)
    image = np.full((60, 80, channels), 120) + rng.integers(-4, 5, (60, 80, 1))
    label = np.zeros((60, 80), dtype=np.uint8)
    label[:30, :40] = lesion
    return Picture(image.astype(np.uint8), label, np.ones((60, 80), dtype=np.uint8))


def test_a_whole_picture_keeps_its_labels() -> None:
    image, label = whole(picture(1), 32)
    assert (image.shape, image.dtype) == ((3, 32, 32), np.uint8)
    expected = np.zeros((32, 32), dtype=np.uint8)
    expected[:16, :16] = 1
    assert (label != expected).sum() <= 2  # the corner of the lesion is soft
    unknown = whole(picture(2), 32)[1]
    assert (unknown[:15, :15] == UNKNOWN).all()
    assert (unknown[20:, 20:] == 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_chance_draws_the_same_square(channels: int) -> None:
    def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
        return drawn(picture(1, channels), 48, np.random.default_rng(seed), made=0.8)

    first, again, other = draw(5), draw(5), draw(6)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert first[0].shape == (3, 48, 48)
    assert set(np.unique(first[1])) <= {0, 1, UNKNOWN}


def test_a_lesion_that_is_made_is_seen() -> None:
    inside, outside = [], []
    for seed in range(12):
        without, _ = drawn(picture(), 64, np.random.default_rng(seed), made=0)
        with_lesion, label = drawn(picture(), 64, np.random.default_rng(seed), made=1)
        difference = np.abs(with_lesion.astype(float) - without).mean(axis=0)
        if (label == 1).any():
            inside.append(difference[label == 1].mean())
            outside.append(difference[label == 0].mean())
    assert len(inside) > 6
    assert np.median(inside) > 3 * np.median(outside)
    assert np.median(inside) > 8  # of 255


def test_no_lesion_is_made_where_there_is_no_tissue() -> None:
    bare = picture()
    bare.tissue[:] = 0
    labels = [drawn(bare, 48, np.random.default_rng(seed), made=1)[1] for seed in range(6)]
    assert not any((label == 1).any() for label in labels)


def test_what_nobody_drew_is_never_called_normal() -> None:
    undrawn = picture()
    undrawn.lesion[:] = 2
    labels = [drawn(undrawn, 48, np.random.default_rng(seed), made=0.8)[1] for seed in range(8)]
    assert all(set(np.unique(label)) <= {1, UNKNOWN} for label in labels)
    assert any((label == 1).any() for label in labels)
