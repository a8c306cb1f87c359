import numpy as np
import pytest
from scipy import ndimage

from recipes.tiny import anatomy

SIZE = 64


def disc(radius):
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    return np.hypot(rows, columns) < radius


@pytest.fixture
def brain():
    """White matter inside, a ring of grey, fluid in the middle: (T1, classes)."""
    white = disc(16) & ~disc(5)
    grey = disc(20) & ~disc(16)
    t1 = 0.9 * white + 0.6 * grey + 0.2 * disc(5)
    return t1.astype(np.float32), np.stack([grey, white], axis=-1).astype(np.float32)


def test_each_contrast_orders_the_tissues_as_its_sequence_does(brain):
    t1, classes = brain
    grey, white, fluid = disc(19) & ~disc(17), disc(13) & ~disc(8), disc(3)
    seen = set()
    for seed in range(60):
        image, name = anatomy.recontrast(t1, classes, np.random.default_rng(seed))
        g, w, f = (float(image[part].mean()) for part in (grey, white, fluid))
        seen.add(name)
        assert image[~disc(22)].max() == 0  # no tissue in the air
        if name == "t1":
            assert w > g > f
        elif name == "t2":
            assert f > g > w - 0.05
        elif name == "flair":
            assert f < min(g, w)
    assert seen == {"t1", "t2", "flair", "pd", "random"}


def test_a_curve_keeps_air_black():
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    for seed in range(20):
        curved = anatomy.intensity_curve(ramp, np.random.default_rng(seed))
        assert curved[0, 0] == 0
        assert 0 <= curved.min() <= curved.max() <= 1


def test_a_painted_head_keeps_the_brain_and_the_air(brain):
    t1, _ = brain
    for seed in range(10):
        head = anatomy.paint_head(t1, t1 > 0, np.random.default_rng(seed))
        np.testing.assert_allclose(head[disc(15)], t1[disc(15)], atol=1e-4)
        assert head[:4, :4].max() == 0
        assert head[disc(30) & ~disc(21)].max() > 0.2  # a scalp


def test_bone_is_white_in_ct_only(brain):
    t1, _ = brain
    bone = disc(23) & ~disc(21)
    ct = anatomy.paint_head(t1, t1 > 0, np.random.default_rng(0), ct=True)
    mr = anatomy.paint_head(t1, t1 > 0, np.random.default_rng(0))
    assert ct[bone].max() > 0.9
    assert mr[bone].min() < 0.3


def test_noise_has_zero_mean_and_unit_spread():
    noise = anatomy.smooth_noise(SIZE, 5, np.random.default_rng(0))
    assert noise.shape == (SIZE, SIZE)
    assert abs(noise.mean()) < 1e-5
    assert noise.std() == pytest.approx(1, abs=1e-3)


def test_acquisition_stays_in_range():
    image = np.random.default_rng(0).random((SIZE, SIZE)).astype(np.float32)
    for seed in range(20):
        acquired = anatomy.acquire(image, np.random.default_rng(seed))
        assert acquired.shape == image.shape
        assert 0 <= acquired.min() <= acquired.max() <= 1


def test_ventricles_get_rims_and_plexus_that_stay_about_them():
    image, fluid = 0.5 * disc(28).astype(np.float32), disc(8).astype(np.float32)
    changes = [anatomy.about_ventricles(image, fluid, np.random.default_rng(seed)) - image for seed in range(20)]
    assert max(np.abs(change).max() for change in changes) > 0.1
    assert all(np.abs(change[disc(28) & ~disc(16)]).max() < 0.02 for change in changes)
    furrows = fluid * 0
    furrows[:, 30:32] = 1  # too narrow for a ventricle
    np.testing.assert_array_equal(anatomy.about_ventricles(image, furrows, np.random.default_rng(0)), image)


@pytest.mark.parametrize(("size", "sigma"), [(64, 6), (96, 40), (65, 2.5)])
def test_noise_is_a_cubic_spline_through_random_nodes(size, sigma):
    noise = anatomy.smooth_noise(size, sigma, np.random.default_rng(3))
    nodes = max(3, round(1.6 * size / sigma) + 2)
    coarse = np.random.default_rng(3).normal(size=(nodes, nodes))
    spline = ndimage.zoom(coarse, size / nodes, order=3, mode="reflect", grid_mode=True)[:size, :size]
    np.testing.assert_allclose(noise, (spline - spline.mean()) / spline.std(), atol=1e-4)
