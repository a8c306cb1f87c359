"""Heads, parts of heads and what is none, drawn from ellipses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from anomalyclip_monai.transforms.head import look_for_head

AIR, FAT, MUSCLE, BRAIN, BONE = -1000.0, -100.0, 55.0, 33.0, 900.0
STEP = 3.0
"""mm between slices; pixels have 2 and 2.5 mm."""

AFFINE = np.diag([2.0, 2.5, STEP, 1.0])


def _axes(half: float, low: float, high: float) -> tuple[np.ndarray, ...]:
    """x, y and z in mm of a grid that is ``2 * half`` wide and reaches from ``low`` to ``high``."""
    lines = np.arange(-half, half, 2.0), np.arange(-half - 10, half + 10, 2.5), np.arange(low, high, STEP)
    return np.meshgrid(*lines, indexing="ij", sparse=True)


def _noisy(volume: np.ndarray, deviation: float = 8.0) -> np.ndarray:
    noise = np.random.default_rng(0).normal(scale=deviation, size=volume.shape)
    return (volume + noise).clip(-1024, 3071).astype(np.float32)


def head(
    low: float = -60, high: float = 80, *, scale: float = 1.0, skull: float = 6.0, bone: float = BONE, noise: float = 8
) -> np.ndarray:
    """A skull of ``skull`` mm with a hole in its floor at -40 mm, where face and neck begin."""
    x, y, z = _axes(110, low, high)

    def within(a: float, b: float, c: float) -> np.ndarray:
        return (x / (a * scale)) ** 2 + (y / (b * scale)) ** 2 + (z / (c * scale)) ** 2 < 1

    neck = (x / (60 * scale)) ** 2 + (y / (65 * scale)) ** 2 + 0 * z < 1
    below = z < -40 * scale
    volume = np.full(np.broadcast(x, y, z).shape, AIR)
    volume[within(78, 98, 78) | (neck & below)] = MUSCLE
    volume[within(72, 92, 72) & ~below] = bone
    inner = 1 - skull / 72 / scale
    volume[within(72 * inner, 92 * inner, 72 * inner) & ~below] = BRAIN
    floor = ~below & (z < -40 * scale + skull) & (np.hypot(x, y + 25 * scale) > 18 * scale)
    volume[within(72, 92, 72) & floor] = bone
    spine = np.hypot(x, y + 25 * scale) + 0 * z
    volume[(spine < 16 * scale) & below] = bone
    volume[(spine < 8 * scale) & below] = 20
    return _noisy(volume, noise)


def thigh(*, marrow: float = -60, femur: float = 15.0) -> np.ndarray:
    """199 x 216 mm with one femur, as in a cropped scan."""
    x, y, z = _axes(98, 0, 90)
    r, bone = np.hypot(x, y) + 0 * z, np.hypot(x - 8, y + 5) + 0 * z
    volume = np.full(r.shape, AIR)
    volume[r < 90] = FAT
    volume[r < 80] = MUSCLE
    volume[bone < femur] = 1300
    volume[bone < 0.6 * femur] = marrow
    return _noisy(volume)


def pelvis() -> np.ndarray:
    """Sacrum, both ilia and the pubis around fat, muscle and bowel, with gaps between them."""
    x, y, z = _axes(190, 0, 60)
    body, ring = (x / 180) ** 2 + (y / 120) ** 2 + 0 * z, np.hypot(x / 1.4, y) + 0 * z
    angle = np.degrees(np.arctan2(y, x)) + 0 * z
    volume = np.full(body.shape, AIR)
    volume[body < 1] = FAT
    volume[body < 0.8] = MUSCLE
    volume[(ring < 60) & (np.sin(x / 9) * np.sin(y / 7) > 0.1)] = FAT
    bones = (abs(angle) < 40) | (abs(angle) > 140) | (abs(angle + 90) < 20) | (abs(angle - 90) < 10)
    volume[(ring > 60) & (ring < 72) & bones] = 600
    return _noisy(volume)


def chest() -> np.ndarray:
    """Lungs in ribs, a third of which each slice meets."""
    x, y, z = _axes(180, 0, 90)
    body, angle = (x / 170) ** 2 + (y / 115) ** 2 + 0 * z, np.degrees(np.arctan2(y, x))
    volume = np.full(body.shape, AIR)
    volume[body < 1] = MUSCLE
    volume[(body < 0.7) & (body > 0.65) & ((angle + 2 * z) % 36 < 14)] = 500
    volume[(body < 0.6) & (abs(x) > 40)] = -850
    return _noisy(volume)


def knee() -> np.ndarray:
    """The end of a femur, wide and full of thin bone."""
    x, y, z = _axes(98, 0, 45)
    r = np.hypot(x, y) + 0 * z
    volume = np.full(r.shape, AIR)
    volume[r < 62] = MUSCLE
    volume[r < 43] = 900
    volume[r < 39] = 160
    return _noisy(volume, 40)


def phantom(size: int = 64) -> np.ndarray:
    """Disc in disc: a skull of 900 HU around 35, nothing but air outside."""
    y, x = np.mgrid[:size, :size]
    radius = np.hypot(x - size / 2 + 0.5, y - size / 2 + 0.5)[..., np.newaxis] + np.zeros(8)
    return np.select([radius < 0.4 * size, radius < 0.45 * size], [35.0, 900.0], AIR).astype(np.float32)


HEADS: dict[str, Callable[[], np.ndarray]] = {
    "whole": head,
    "noisy": lambda: head(noise=30),
    "upper half": lambda: head(20),
    "lower half with the neck": lambda: head(-100, 40),
    "of a child": lambda: head(-40, 60, scale=0.7, skull=3, bone=450),
    "values clipped at 240": lambda: head().clip(-200, 240),
    "phantom": phantom,
    "small phantom": lambda: phantom(32),
}

OTHERS: dict[str, Callable[[], np.ndarray]] = {
    "thigh": thigh,
    "thigh with water in its femur": lambda: thigh(marrow=30),
    "child's leg": lambda: thigh(marrow=30, femur=24),
    "pelvis": pelvis,
    "chest": chest,
    "knee": knee,
    "air": lambda: np.full((30, 40, 5), AIR, np.float32),
    "water": lambda: np.zeros((30, 40, 5), np.float32),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(name: str) -> None:
    found, seen = look_for_head(HEADS[name](), AFFINE)
    assert found, seen
    assert seen.startswith("a closed ring of bone around brain in ")


@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str) -> None:
    found, seen = look_for_head(OTHERS[name](), AFFINE)
    assert not found, seen
    assert "taken for a body" in seen


@pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
def test_a_head_lies_in_any_way(axes: tuple[int, int, int]) -> None:
    turned = np.zeros((4, 4))
    turned[:3, :3], turned[3, 3] = AFFINE[:3, :3][:, axes], 1
    assert look_for_head(np.ascontiguousarray(head().transpose(axes)), turned)[0]
    assert not look_for_head(np.ascontiguousarray(thigh().transpose(axes)), turned)[0]


@pytest.mark.parametrize("axis", [0, 1])
def test_thick_slices_across_another_plane(axis: int) -> None:
    every, step = [slice(None)] * 3, np.ones(4)
    every[axis], step[axis] = slice(None, None, 3), 3
    assert look_for_head(head()[tuple(every)], AFFINE @ np.diag(step))[0]
    assert not look_for_head(thigh()[tuple(every)], AFFINE @ np.diag(step))[0]


def test_a_head_rest_and_a_gap_after_an_operation_do_not_matter() -> None:
    volume = head()
    volume[20:90, -4:-3] = 400
    assert look_for_head(volume, AFFINE)[0]
    volume[50:, 20:55][volume[50:, 20:55] > 500] = MUSCLE
    assert look_for_head(volume, AFFINE)[0]


def test_a_brain_without_its_skull() -> None:
    volume = head()
    inside = (volume > -20) & (volume < 100)
    x, y, z = _axes(110, -60, 80)
    inside &= ((x / 64) ** 2 + (y / 84) ** 2 + (z / 64) ** 2 < 1) & (z > -40)
    for ground in (-1024, 0):
        assert look_for_head(np.where(inside, volume, ground), AFFINE) == (True, "brain without a skull")
    bright = np.where(inside, volume + 70, -1024)  # a liver with contrast
    assert not look_for_head(bright, AFFINE)[0]


def test_part_of_a_volume_names_the_option() -> None:
    found, seen = look_for_head(head(-420, 80), AFFINE)
    assert not found
    assert "in no more than" in seen
    assert seen.endswith("taken for a body (--preset ct_head if the head matters)")


def test_what_could_be_a_head_by_its_size_names_the_option() -> None:
    assert look_for_head(thigh(), AFFINE)[1].endswith("(--preset ct_head if it is a part of a head)")
    assert look_for_head(pelvis(), AFFINE)[1] == "no closed ring of bone around brain, taken for a body"
