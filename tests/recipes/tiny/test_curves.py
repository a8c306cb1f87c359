import logging
import sys

import numpy as np
import pytest
from PIL import Image

from recipes.tiny.curves import draw_curve, points

CURVE = [
    {"step": 50, "crops": 800, "loss": 0.5},
    {"step": 100, "crops": 1600, "loss": 0.4},
    {"step": 100, "crops": 1600, "validation": {"mr_body.dice": 0.7, "synthetic.dice": 0.2, "mr_brain.false_ml": 3.0}},
    {"step": 200, "crops": 3200, "validation": {"mr_body.dice": 0.8, "synthetic.dice": 0.3, "mr_brain.false_ml": 1.0}},
]


def test_a_measure_is_told_apart_by_group():
    assert points(CURVE, "loss") == {"": [(800, 0.5), (1600, 0.4)]}
    assert points(CURVE, "dice") == {"mr_body": [(1600, 0.7), (3200, 0.8)], "synthetic": [(1600, 0.2), (3200, 0.3)]}
    assert points(CURVE, "auroc") == {}


def test_lines_are_drawn_in_every_panel_that_has_a_measure(tmp_path):
    pytest.importorskip("matplotlib")
    file = draw_curve(CURVE, tmp_path / "curve.png")
    assert file == tmp_path / "curve.png"
    picture = np.asarray(Image.open(file).convert("RGB")).astype(int)
    blue = np.abs(picture - (0x00, 0x72, 0xB2)).max(axis=2) < 10  # of the first line
    middle = [side // 2 for side in blue.shape]
    top, bottom = blue[: middle[0]], blue[middle[0] :]
    assert top[:, : middle[1]].any()
    assert top[:, middle[1] :].any()
    assert not bottom[:, : middle[1]].any()  # no AUROC in this curve
    assert bottom[:, middle[1] :].any()


def test_without_matplotlib_the_way_out_is_named(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert draw_curve(CURVE, tmp_path / "curve.png") is None
    assert "anomalyclip-monai[report]" in caplog.text
    assert not list(tmp_path.iterdir())
