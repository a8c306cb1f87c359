from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

import anomalyclip_monai as ac
from anomalyclip_monai.data.geometry import spacing
from anomalyclip_monai.data.phantom import Phantom, head_phantom


@pytest.fixture(scope="module")
def ill() -> Phantom:
    return head_phantom()


@pytest.fixture(scope="module")
def healthy() -> Phantom:
    return head_phantom(lesion=False)


def test_grid_has_three_sizes_and_thick_oblique_left_handed_slices(ill):
    assert len(set(ill.data.shape)) == 3
    assert ill.data.shape == ill.lesion.shape
    assert ill.data.dtype == np.float32
    assert ill.lesion.dtype == np.bool_
    np.testing.assert_allclose(spacing(ill.affine), (0.9, 0.9, 5.0))
    assert np.linalg.det(ill.affine[:3, :3]) < 0
    assert np.count_nonzero(np.abs(ill.affine[:3, :3]) > 1e-6) > 3


def test_signal_is_a_magnitude_in_air_and_tissue(ill):
    assert np.isfinite(ill.data).all()
    assert ill.data.min() >= 0
    assert 700 < ill.data.max() < 1300
    assert ill.data[:5, :5].mean() < 0.1 * ill.data[ill.lesion].mean()


def test_same_seed_same_lesion_other_seed_other_lesion(ill):
    again, other = head_phantom(), head_phantom(seed=1)
    np.testing.assert_array_equal(again.data, ill.data)
    np.testing.assert_array_equal(again.lesion, ill.lesion)
    assert (other.lesion != ill.lesion).any()


def test_lesion_is_one_bright_mass_of_about_three_centimetres_on_one_side(ill, healthy):
    volume_ml = ill.lesion.sum() * abs(np.linalg.det(ill.affine[:3, :3])) / 1000
    assert 8 < volume_ml < 25
    assert ndimage.label(ill.lesion, np.ones((3, 3, 3)))[1] == 1
    right_mm = nib.affines.apply_affine(ill.affine, np.argwhere(ill.lesion))[:, 0]
    assert (right_mm > 0).all() or (right_mm < 0).all()
    assert ill.data[ill.lesion].mean() > 1.4 * healthy.data[ill.lesion].mean()


def test_twin_has_no_lesion_and_differs_only_around_it(ill, healthy):
    assert not healthy.lesion.any()
    far = ndimage.distance_transform_edt(~ill.lesion, sampling=spacing(ill.affine)) > 40
    assert far.mean() > 0.5
    np.testing.assert_array_equal(ill.data[far], healthy.data[far])
    assert (ill.data[~far] != healthy.data[~far]).any()


def test_embedded_model_finds_the_lesion_and_is_quiet_on_the_twin(ill, healthy):
    found = ac.localize(nib.Nifti1Image(ill.data, ill.affine), device="cpu")
    heatmap, mask = np.asarray(found.heatmap[0]), np.asarray(found.mask[0]) > 0
    assert ill.lesion[np.unravel_index(heatmap.argmax(), heatmap.shape)]
    assert 2 * (mask & ill.lesion).sum() / (mask.sum() + ill.lesion.sum()) > 0.6
    quiet = ac.localize(nib.Nifti1Image(healthy.data, healthy.affine), device="cpu")
    assert quiet.lesions == []
    assert float(quiet.heatmap.max()) < 0.5
