import numpy as np
import pytest

from recipes.tiny import distractors

SIZE = 96


@pytest.fixture
def image():
    return np.full((SIZE, SIZE, 3), 0.4, np.float32)


@pytest.mark.parametrize("name", ["illumination", "glare", "instrument"])
def test_light_and_objects_change_the_picture_and_keep_its_range(name, image):
    for seed in range(10):
        changed = getattr(distractors, name)(image, np.random.default_rng(seed))
        assert changed.shape == image.shape
        assert np.abs(changed - image).max() > 0.01
        assert 0 <= changed.min() <= changed.max() <= 1


def test_a_tint_gives_every_channel_its_own_curve():
    grey = np.linspace(0, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE, 1)
    tinted = distractors.tint(grey, np.random.default_rng(0))
    assert tinted.shape == (SIZE, SIZE, 3)
    assert (np.diff(tinted.reshape(-1, 3), axis=0) >= 0).all()  # what was brighter still is
    assert np.ptp(tinted[-1, -1]) > 0.02


def test_vessels_are_bright_thin_and_in_the_tissue(image):
    tissue = np.zeros((SIZE, SIZE), bool)
    tissue[30:70, 30:70] = True
    changed = distractors.vessels(image, tissue, np.random.default_rng(0)) - image
    assert changed.min() >= 0
    assert changed.max() > 0.1
    assert np.abs(changed[:26]).max() < 1e-3
    assert (changed.max(axis=2) > 0.1).mean() < 0.15


def test_what_is_burnt_in_is_told(image):
    for seed in range(20):
        changed, ink = distractors.burnt_in(image, np.random.default_rng(seed))
        assert np.abs(changed - image)[~ink].max() < 0.11
        assert ink.any()
        assert not ink.all()


def test_glare_is_strewn_about_or_crowded():
    dark = np.full((SIZE, SIZE, 1), 0.1, dtype=np.float32)
    spreads = []
    for seed in range(40):
        rows, columns = np.nonzero(distractors.glare(dark, np.random.default_rng(seed))[..., 0] > 0.3)
        spreads.append(np.hypot(rows.std(), columns.std()) / SIZE)
    assert sum(spread < 0.2 for spread in spreads) >= 8
    assert sum(spread > 0.25 for spread in spreads) >= 8
