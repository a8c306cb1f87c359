import numpy as np
import pytest

from recipes.tiny.crops import UNKNOWN
from recipes.tiny.sources import Subject
from recipes.tiny.validation import Case, best_threshold, held_out_cases, measure


def case(group, lesion=(), unknown=(), millilitres=0.0):
    label = np.zeros((4, 4), np.uint8)
    for place in lesion:
        label[place] = 1
    for place in unknown:
        label[place] = UNKNOWN
    return Case(group, np.zeros((3, 4, 4), np.uint8), label, millilitres)


def maps_of(*tables):
    maps = np.zeros((len(tables), 4, 4), np.float32)
    for index, table in enumerate(tables):
        for place, value in table.items():
            maps[index][place] = value
    return maps


def test_photos_by_hand():
    cases = [case("polyp", [(0, 0), (0, 1)]), case("polyp", [(3, 3)]), case("polyp")]
    maps = maps_of({(0, 0): 0.9, (1, 1): 0.6}, {(0, 0): 0.8}, {(2, 2): 0.1})
    found = measure(maps, cases)
    assert found["polyp.dice"] == pytest.approx((2 * 1 / (2 + 2) + 0) / 2)
    assert found["polyp.pointing"] == 0.5
    assert found["polyp.auroc"] == 1.0


def test_a_volume_is_one_overlap():
    cases = [case("mr_body", [(0, 0), (0, 1)], millilitres=1.0), case("mr_body", millilitres=1.0)]
    maps = maps_of({(0, 0): 0.9, (0, 1): 0.7}, {(2, 2): 0.8, (2, 3): 0.8})
    assert measure(maps, cases)["mr_body.dice"] == pytest.approx(2 * 2 / (4 + 2))


def test_false_alarms_have_a_volume():
    cases = [case("head", millilitres=0.25), case("head", millilitres=0.25)]
    maps = maps_of({(0, 0): 0.9, (1, 1): 0.5}, {(2, 2): 0.6, (3, 3): 0.49})
    assert measure(maps, cases)["head.false_ml"] == pytest.approx(0.75)


def test_unknown_pixels_are_not_counted():
    cases = [case("polyp", [(0, 0)], unknown=[(1, 1)])]
    found = measure(maps_of({(0, 0): 0.6, (1, 1): 0.9}), cases)
    assert found == {"polyp.dice": 1.0, "polyp.pointing": 1.0}


def test_the_best_threshold_keeps_healthy_heads_quiet():
    cases = [case("polyp", [(0, 0), (0, 1)]), case("head", millilitres=3.0)]
    maps = maps_of({(0, 0): 0.9, (0, 1): 0.42}, {(2, 2): 0.55})
    assert best_threshold(maps, cases) == pytest.approx(0.6)  # .4 would overlap better
    assert best_threshold(maps[:1], cases[:1]) <= 0.4


def test_held_out_cases():
    head = np.zeros((20, 24, 5, 1), np.uint8)
    head[4:16, 4:20, 1:4] = 150
    empty = np.zeros(head.shape[:3], np.uint8)
    subject = Subject(
        "t2_thick_slices", "t2_thick_slices", "mr_brain", head, empty, (head[..., 0] > 0) + empty, (2, 3, 4)
    )
    cases = held_out_cases([subject], size=32, synthetic=2)
    assert [case.group for case in cases] == ["mr_brain"] * 3 + ["synthetic"] * 4
    assert cases[0].image.shape == (3, 32, 32)
    # All pixels of the square together have the volume of what the product shows of the slice: 16 rows of 3 mm and one
    # more on each side, 54 mm; 12 columns of 2 mm and one more are 28 mm, which grow to two thirds of 54.
    assert cases[0].millilitres * 32 * 32 == pytest.approx(18 * 18 * (2 * 3 * 4) / 1000)
