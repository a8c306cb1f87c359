"""The weight of left against right is read off training heads."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.tiny.commands import main
from recipes.tiny.symmetry import Slice, table


def test_the_table_by_hand() -> None:
    # With a lesion, .4 is less suspicious than the healthy .5 until what differs counts: logit(.4) = -.405, and
    # -.405 + w * (.8 - .2) > 0 from w = .676 on. The slice of .1 (logit -2.197) overtakes from w = 3.66 on.
    seen = [Slice(0.4, 0.8, True), Slice(0.1, 0.8, True), Slice(0.5, 0.2, False)]
    usual, by_weight = table(seen)
    assert usual == pytest.approx(0.2)
    assert by_weight == {0: 0, 0.5: 0, 1: 0.5, 2: 0.5, 3: 0.5, 5: 1, 8: 1}


def test_without_heads_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["symmetry", str(tmp_path)]) == 2
    assert "E_NO_INPUT" in capsys.readouterr().err
