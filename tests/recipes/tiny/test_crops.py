from dataclasses import replace

import numpy as np
import pytest
import torch

from recipes.tiny import crops as drawing
from recipes.tiny.crops import BESIDE_REAL, SHARES, SURFACE, SYNTHETIC, UNKNOWN, Crops


def test_a_number_is_a_crop(subjects):
    crops, again = Crops(subjects, seed=3, size=64), Crops(subjects, seed=3, size=64)
    for index in (0, 7, 100):
        first, second = crops[index], again[index]
        assert torch.equal(first.image, second.image)
        assert torch.equal(first.label, second.label)
    assert not torch.equal(crops[0].image, Crops(subjects, seed=4, size=64)[0].image)
    assert not torch.equal(crops[0].image, crops[1].image)


def test_what_a_crop_holds(subjects):
    crops = Crops(subjects, size=64)
    for index in range(30):
        image, label, domain = crops[index]
        assert image.shape == (3, 64, 64)
        assert image.dtype == label.dtype == torch.uint8
        assert set(label.unique().tolist()) <= {0, 1, UNKNOWN}
        assert domain in SHARES


@pytest.mark.parametrize("domain", ["mr_brain", "ct_head", "mr_body", "ct_body", "ultrasound", "xray", SURFACE])
def test_lesions_come_when_asked_for_and_only_then(subjects, domain):
    crops = Crops(subjects, size=64)
    ill = [(crops.draw(np.random.default_rng(seed), domain, lesion=True).label == 1).any() for seed in range(12)]
    well = [(crops.draw(np.random.default_rng(seed), domain, lesion=False).label == 1).any() for seed in range(12)]
    assert np.mean(ill) > 0.4
    assert not any(well)


def test_many_heads_stay_healthy():
    assert SYNTHETIC["mr_brain"] <= 0.6


def test_heads_with_real_plaques_get_lesions_beside_them(subjects, monkeypatch):
    head = next(subject for subject in subjects if subject.domain == "mr_brain")
    plaque = np.zeros_like(head.lesion)
    plaque[18:26, 20:28, 16:24] = 1
    ill = replace(head, lesion=plaque)

    def lesions(share):
        monkeypatch.setitem(BESIDE_REAL, "mr_brain", share)
        crops = Crops([ill], size=64)
        return [int((crops.draw(np.random.default_rng(seed), "mr_brain").label == 1).sum()) for seed in range(16)]

    without, beside = lesions(0.0), lesions(1.0)
    assert sum(beside) > 1.2 * sum(without)


def test_shares_add_up():
    assert sum(SHARES.values()) == pytest.approx(1)


def test_shares_are_spread_over_what_is_there(subjects):
    only = Crops([subject for subject in subjects if subject.domain in ("ultrasound", "xray")])
    assert only.domains == ["ultrasound", "xray", SURFACE]  # surfaces need no data
    np.testing.assert_allclose(only.shares, np.array([0.08, 0.02, 0.14]) / 0.24)


def test_some_grey_pictures_are_shown_in_colours(subjects):
    crops = Crops([subject for subject in subjects if subject.domain == "ultrasound"], size=64)
    images = [crops.draw(np.random.default_rng(seed), "ultrasound").image.float() for seed in range(60)]
    coloured = sum(bool((image.amax(0) - image.amin(0)).max() > 8) for image in images)
    assert 2 <= coloured <= 18


def test_the_black_frame_of_an_endoscope_is_left_out(subjects):
    frames = [subject for subject in subjects if subject.domain == "colonoscopy"]
    for frame in frames:
        frame.image[:24] = 0
    crops = Crops(frames, size=64)
    left_out = [(crops[index].label == UNKNOWN).float().mean() for index in range(8)]
    assert np.mean(left_out) > 0.1


@pytest.mark.parametrize("domain", ["colonoscopy", SURFACE])
def test_reflections_are_filled_and_what_of_damage_went_with_them_is_left_out(subjects, monkeypatch, domain):
    def drawn(share):
        monkeypatch.setattr(drawing, "GLARE_FILLED", share)
        return [Crops(subjects, size=64).draw(np.random.default_rng(seed), domain, lesion=True) for seed in range(40)]

    changed = left_out = 0
    for as_it_is, filled in zip(drawn(0.0), drawn(1.0), strict=True):
        there = (as_it_is.image.int() - filled.image.int()).abs().amax(dim=0) > 0
        other = as_it_is.label != filled.label
        changed, left_out = changed + int(there.any()), left_out + int(other.sum())
        assert not (other & ~there).any()
        assert set(filled.label[other].tolist()) <= {UNKNOWN}
        assert (as_it_is.label[other] == 1).all()
    assert changed > 3
    assert (left_out > 0) == (domain == SURFACE)
