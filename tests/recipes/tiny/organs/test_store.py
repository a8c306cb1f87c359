"""Features that are kept in a folder: made once, gone on with after a stop, read again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anomalyclip_monai.exceptions import NoInputError, UsageError
from recipes.tiny.organs import store
from recipes.tiny.organs.features import Square
from recipes.tiny.organs.store import Settings, make_features, missing_sets, read_features, squares_of


def test_what_was_made_is_read_part_by_part(settings: Settings, made_features: Path) -> None:
    found = read_features(made_features)
    count = len(found.squares.of)
    assert found.squares.tokens.shape == (count, 1 + 9, 4)
    assert (found.squares.tokens.dtype, found.squares.grid) == (np.float16, (3, 3))
    assert found.squares.wanted.tokens.shape == (count, 9)
    assert found.reduction.weight.shape == (4, 6)
    assert {"brest_usg_tcia", "healthy_knee_mr", "colonoscopy"} <= set(found.squares.of)
    # Part by part in the order of names, so that the same seed draws the same squares.
    assert list(dict.fromkeys(found.squares.of))[:3] == ["brest_usg_tcia", "edd2020_endoscopy", "healthy_knee_mr"]
    healthy = found.squares.of == "healthy_knee_mr"
    first = next(squares_of(settings, "healthy_knee_mr"))
    expected = found.reduction(store._trunk(settings.dinov2, (1, 2))(np.stack([first.image]))[0].half().float())
    assert torch.allclose(torch.from_numpy(found.squares.tokens[healthy][0]).float(), expected, atol=1e-2, rtol=1e-2)
    assert Counter(found.squares.kind[healthy])["drawn"] == 4  # 2 * sqrt(4)


def test_raw_features_do_not_stay(made_features: Path) -> None:
    assert not list(made_features.glob("*.raw.npy"))
    assert set(json.loads((made_features / "features.json").read_text())["data_sha256"]) == {
        "kvasir_256",
        "brest_usg_tcia",
        "edd2020_endoscopy",
        "healthy_knee_mr",
    }


def test_a_stop_changes_nothing(
    settings: Settings, made_features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(given: Settings, part: str) -> Iterator[Square]:
        if part == "healthy_knee_mr":
            raise KeyboardInterrupt
        return squares_of(given, part)

    folder, said = tmp_path / "stopped", list[str]()
    monkeypatch.setattr(store, "squares_of", stopped)
    with pytest.raises(KeyboardInterrupt):
        make_features(settings, folder, workers=0)
    monkeypatch.setattr(store, "squares_of", squares_of)
    with pytest.raises(NoInputError, match=r"E_NO_INPUT: no features of all sets .*run to its end"):
        read_features(folder)
    make_features(settings, folder, workers=0, log=said.append)
    assert [line.partition(":")[0] for line in said[:-1]] == ["healthy_knee_mr"]
    whole, gone_on = read_features(made_features).squares, read_features(folder).squares
    assert np.array_equal(whole.tokens, gone_on.tokens)
    assert np.array_equal(whole.of, gone_on.of)
    assert all(torch.equal(one, other) for one, other in zip(whole.wanted, gone_on.wanted, strict=True))


def test_another_seed_needs_another_folder(settings: Settings, made_features: Path) -> None:
    with pytest.raises(UsageError, match="E_OPTION: these features are of another seed"):
        make_features(replace(settings, seed=1), made_features, workers=0)
    (settings.data / "more/healthy_knee_mr/images/0.jpg").unlink()
    with pytest.raises(UsageError, match="E_OPTION: these features are of another data_sha256"):
        make_features(settings, made_features, workers=0)


def test_missing_sets_are_named(data: Path) -> None:
    missing = missing_sets(data)
    assert {"open_ms", "isic_256", "soop_stroke_flair"} <= set(missing)
    assert not {"kvasir_256", "brest_usg_tcia", "busi"} & set(missing)  # the last is not used


def test_the_crops_of_the_parts_differ(settings: Settings) -> None:
    first, second = ([square.image for square in squares_of(settings, f"subjects_{number}")] for number in (0, 1))
    assert len(first) == len(second) == 2  # a quarter of 8
    assert not np.array_equal(first, second)
