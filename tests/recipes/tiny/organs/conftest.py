"""A data folder of a few small pictures, and a stand-in for the backbone, so that features take no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recipes.tiny.organs import store
from recipes.tiny.organs.features import Amount
from recipes.tiny.organs.store import Settings, make_features

SIZE = 42
"""Side of the squares: 3 x 3 tokens."""


@pytest.fixture
def data(tmp_path: Path, write_photo: Callable[..., Path]) -> Path:
    """Colonoscopy, breast ultrasound with lesions, knees without, and a set that may not be shipped."""
    rng = np.random.default_rng(0)
    mask = np.zeros((48, 64))
    mask[10:30, 20:50] = 255
    for name in ("kvasir_256", "more/brest_usg_tcia", "more/edd2020_endoscopy", "more/healthy_knee_mr"):
        for index in range(4):
            write_photo(f"data/{name}/images/{index}.jpg", rng.integers(60, 200, (48, 64, 3)))
            if "healthy" not in name:
                write_photo(f"data/{name}/masks/{index}.png", mask)
    return tmp_path / "data"


def show(images: NDArray[np.uint8]) -> Tensor:
    """(B, 3, S, S) -> (B, 1 + N, 6): mean and spread of the colours of every patch, and of the picture first."""
    shown = torch.from_numpy(images).float() / 255
    mean, square = F.avg_pool2d(shown, 14), F.avg_pool2d(shown**2, 14)
    tokens = torch.cat([mean, square - mean**2], dim=1).flatten(2).transpose(1, 2)
    return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)


@pytest.fixture
def settings(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    wheel = tmp_path / "made.whl"
    wheel.write_text("a backbone")
    monkeypatch.setattr(store, "_trunk", lambda dinov2, layers: show)
    return Settings(data, wheel, size=SIZE, layers=(1, 2), components=4, amount=Amount(per_set=2, crops=8))


@pytest.fixture
def made_features(settings: Settings, tmp_path: Path) -> Path:
    """The folder of features of the data."""
    make_features(settings, tmp_path / "features", workers=0)
    return tmp_path / "features"
