import numpy as np

from recipes.tiny.framing import content_window, frame, squash
from recipes.tiny.sources import Picture


def picture(height=40, width=56):
    image = np.zeros((height, width, 1), np.uint8)
    image[8:32, 14:50] = 120
    lesion = np.zeros((height, width), np.uint8)
    lesion[12:22, 20:34] = 1
    image[lesion == 1] = 240
    lesion[25:30, 20:25] = 2
    return Picture(image, lesion, (image[..., 0] > 0).astype(np.uint8))


def test_squash_keeps_a_square_picture():
    square = picture(48, 48)
    framed = squash(square, 48)
    np.testing.assert_allclose(framed.image, square.image / 255, atol=1e-6)
    np.testing.assert_array_equal(framed.lesion > 0.5, square.lesion == 1)
    np.testing.assert_array_equal(framed.unknown, square.lesion == 2)
    np.testing.assert_array_equal(framed.tissue, square.tissue > 0)


def test_the_lesion_goes_where_its_pixels_go():
    found = 0
    for seed in range(20):
        framed = frame(picture(), 64, np.random.default_rng(seed), turn=True)
        inside, outside = framed.lesion > 0.9, framed.lesion < 0.1
        assert framed.image.shape == (64, 64, 1)
        if inside.any():
            found += 1
            assert framed.image[inside].min() > 0.75
            assert framed.image[outside].max() < 0.75
    assert found > 15


def test_a_window_is_cut_first():
    framed = frame(picture(), 32, np.random.default_rng(0), zoom=(1, 1), stretch=0, bend=0, window=(12, 22, 20, 34))
    assert framed.lesion.min() > 0.99


def test_the_content_window_keeps_all_that_is_bright():
    for seed in range(10):
        top, bottom, left, right = content_window(picture(), np.random.default_rng(seed))
        assert 3 <= top <= 8
        assert 32 <= bottom <= 37
        assert 7 <= left <= 14
        assert 50 <= right <= 56


def test_no_content_window_about_next_to_nothing():
    vertex = Picture(np.zeros((40, 40, 1), np.uint8), np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8))
    vertex.image[18:22, 18:22] = 200
    assert content_window(vertex, np.random.default_rng(0)) is None
