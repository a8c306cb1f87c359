import numpy as np
import pytest
from scipy import ndimage

from recipes.tiny import lesions
from recipes.tiny.lesions import KINDS, Scene, add_lesion, blob

SIZE = 96


def scene(seed, channels=1, contrast=""):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    organ = np.hypot(rows, columns) < 40
    texture = ndimage.gaussian_filter(rng.random((SIZE, SIZE)), 2)
    image = np.repeat((organ * (0.35 + 0.3 * texture))[..., None], channels, axis=2).astype(np.float32)
    donor = np.random.default_rng(seed + 1).random((SIZE, SIZE, channels)).astype(np.float32)
    return Scene(image, ndimage.binary_erosion(organ, iterations=3), rng, contrast, None, (donor,))


def test_a_blob_has_the_area_of_its_circle():
    areas = [blob(SIZE, (48, 48), 15, np.random.default_rng(seed), irregular=0).sum() for seed in range(20)]
    assert np.mean(areas) == pytest.approx(np.pi * 15**2, rel=0.02)


def test_a_membrane_continues_a_plane():
    rows, columns = np.mgrid[:13, :17].astype(np.float32)
    plane = (0.3 + 0.02 * rows - 0.01 * columns)[..., None]
    spoiled = plane.copy()
    spoiled[1:-1, 1:-1] = 7
    np.testing.assert_allclose(lesions._membrane(spoiled), plane, atol=1e-5)


@pytest.mark.parametrize(
    "kind", sorted({maker for kinds in KINDS.values() for maker, _ in kinds}, key=lambda f: f.__name__)
)
def test_every_kind_lies_in_the_tissue_and_changes_it(kind):
    made = 0
    for seed in range(8):
        before = scene(seed, channels=3 if kind is lesions.polyp else 1)
        image, extent = kind(before)
        inside = extent > 0.5
        assert image.shape == before.image.shape
        assert extent.shape == (SIZE, SIZE)
        assert 0 <= extent.min() <= extent.max() <= 1 + 1e-6
        assert not (inside & ~ndimage.binary_dilation(before.tissue, iterations=2)).any(), "a lesion in the air"
        if inside.sum() > 4:
            made += np.abs(image - before.image)[inside].mean() > 0.01
    assert made >= 5


@pytest.mark.parametrize("domain", KINDS)
def test_a_lesion_that_is_kept_can_be_seen(domain):
    for seed in range(12):
        before = scene(seed, channels=3 if domain == "colonoscopy" else 1)
        result = add_lesion(before, domain)
        if result is not None:
            image, extent = result
            assert np.abs(image - before.image).mean(axis=2)[extent > 0.5].mean() > 0.9 * lesions.VISIBLE
            assert 0 <= image.min() <= image.max() <= 1


def test_shares_of_kinds_sum_to_one():
    for kinds in KINDS.values():
        assert sum(share for _, share in kinds) == pytest.approx(1)


def test_no_lesion_without_tissue():
    nothing = scene(0)
    nothing.tissue[:] = False
    assert add_lesion(nothing, "mr_brain") is None


def test_a_growing_mass_pushes_tissue_outwards():
    before = scene(0)
    before.image[:] = 0.2
    before.image[48, 58] = 1.0  # ten pixels right of the centre
    pushed = lesions._push(before, (48, 48), 10, 0.5)[48, :, 0]
    assert pushed.argmax() > 58
    np.testing.assert_allclose(lesions._push(before, (48, 48), 10, 0.0), before.image, atol=1e-6)


def test_lesions_are_bright_on_flair_and_dark_on_t1():
    def bright(contrast):
        return np.mean([scene(seed, contrast=contrast).shift(0.1, 0.2) > 0 for seed in range(200)])

    assert bright("flair") > 0.85
    assert bright("t1") < 0.4
