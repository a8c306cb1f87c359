import numpy as np
import pytest

from recipes.tiny import surfaces
from recipes.tiny.lesions import VISIBLE
from recipes.tiny.surfaces import DAMAGES, Surface

SIZE = 96


def plane(slope, light, gloss=0.0):
    """Rises by ``slope`` for each pixel to the right."""
    relief = np.tile(slope * np.arange(8, dtype=np.float32), (8, 1))
    colour = np.broadcast_to(np.array([0.8, 0.4, 0.2], dtype=np.float32), (8, 8, 3))
    return Surface(relief, colour, np.array(light, dtype=float), ambient=0.2, gloss=gloss)


def test_a_flat_surface_under_a_light_above_shows_its_own_colour():
    np.testing.assert_allclose(plane(0, (0, 0, 1)).lit(), plane(0, (0, 0, 1)).colour, atol=1e-6)


def test_a_slope_of_45_degrees_is_darker_by_the_cosine():
    lit = plane(1, (0, 0, 1)).lit()
    np.testing.assert_allclose(lit[4, 4, 0], 0.8 * (0.2 + 0.8 * 0.5**0.5), rtol=1e-5)


def test_the_side_that_faces_the_light_is_brighter():
    to_the_right = (0.6, 0.0, 0.8)
    falls, rises = plane(-0.5, to_the_right).lit(), plane(0.5, to_the_right).lit()
    assert falls[4, 4, 0] > rises[4, 4, 0]


def test_gloss_mirrors_the_light_where_it_is_reflected_to_the_viewer():
    # White of strength .1 on a flat surface under a light above; nothing on a steep slope.
    flat = plane(0, (0, 0, 1), gloss=0.1)
    np.testing.assert_allclose(flat.lit() - flat.colour, 0.1, atol=1e-6)
    np.testing.assert_allclose(plane(2, (0, 0, 1), gloss=0.1).lit(), plane(2, (0, 0, 1)).lit(), atol=1e-4)


def test_a_dome_over_a_disc_is_half_a_ball():
    rows, columns = np.mgrid[:41, :41] - 20.0
    disc = (np.hypot(rows, columns) <= 12).astype(np.float32)
    dome = surfaces._dome(disc, 12.0)
    assert dome[20, 20] == pytest.approx(12)
    # Six pixels from the middle a ball of radius 12 is as high as the root of 144 - 36; the rim lies half a pixel out.
    assert dome[20, 26] == pytest.approx(108**0.5, rel=0.06)
    assert not dome[disc == 0].any()


def test_a_whole_surface_has_no_damage():
    image, extent = surfaces.draw(SIZE, np.random.default_rng(0), damaged=False)
    assert image.shape == (SIZE, SIZE, 3)
    assert extent.shape == (SIZE, SIZE)
    assert not extent.any()
    assert 0 <= image.min() <= image.max() <= 1


def test_the_same_chance_draws_the_same_picture():
    first, second = (surfaces.draw(SIZE, np.random.default_rng(3), damaged=True) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_most_damage_that_is_asked_for_is_there_and_some_pictures_are_grey():
    drawn = [surfaces.draw(SIZE, np.random.default_rng([1, index]), damaged=True) for index in range(40)]
    assert sum(bool((extent > 0.5).any()) for _, extent in drawn) >= 34
    grey = sum(bool(np.ptp(image, axis=2).max() < 1e-6) for image, _ in drawn)
    assert 4 <= grey <= 30
    assert all(0 <= image.min() <= image.max() <= 1 for image, _ in drawn)


@pytest.mark.parametrize("maker", [maker for maker, _ in DAMAGES], ids=lambda maker: maker.__name__)
def test_damage_changes_the_picture_where_it_says(maker):
    everywhere = np.ones((SIZE, SIZE), dtype=bool)
    changes = []
    for index in range(8):
        rng = np.random.default_rng([7, index])
        surface = surfaces.random_surface(SIZE, rng)
        changed, extent = maker(surface, everywhere, rng)
        change = np.abs(changed.lit() - surface.lit()).mean(axis=2)
        if (extent > 0.5).any() and (extent < 0.01).any():
            changes.append((change[extent > 0.5].mean(), change[extent < 0.01].mean()))
    inside, outside = np.mean(changes, axis=0)
    assert inside > VISIBLE
    assert outside < 0.2 * inside


def test_kinds_of_damage_share_the_whole():
    assert sum(share for _, share in DAMAGES) == pytest.approx(1)
