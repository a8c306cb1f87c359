"""Arrays, tensors and pictures that are in memory already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from anomalyclip_monai.data.memory import NO_AFFINE, volume_of_array, volume_of_picture
from anomalyclip_monai.data.photo import read_photo
from anomalyclip_monai.exceptions import CaseError

AFFINE = np.array([[0, 0, 4.0, -30], [-1.1, 0, 0, 20], [0, 0.9, 0, -7], [0, 0, 0, 1]])
VALUES = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "given",
    [VALUES, VALUES.astype(">f8"), VALUES.astype(np.uint16), VALUES[None], torch.from_numpy(VALUES), VALUES > -1],
    ids=["int16", "big-endian", "uint16", "channel", "tensor", "bool"],
)
def test_an_array_is_a_volume_on_its_affine(given):
    volume = volume_of_array(given, AFFINE)
    assert volume.data.shape == (1, 2, 3, 4)
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data[0], np.asarray(given).reshape(2, 3, 4))
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert volume.source.warnings == ()


def test_a_meta_tensor_brings_its_affine_unless_another_is_given():
    tensor = MetaTensor(torch.from_numpy(VALUES[None].astype(np.float32)), affine=torch.from_numpy(AFFINE))
    np.testing.assert_array_equal(volume_of_array(tensor).affine, AFFINE)
    np.testing.assert_array_equal(volume_of_array(tensor, np.diag([2, 3, 4, 1])).affine, np.diag([2.0, 3, 4, 1]))


def test_memory_mapped_arrays_are_left_as_they_are(tmp_path: Path):
    np.save(tmp_path / "a.npy", VALUES)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    volume = volume_of_array(mapped, AFFINE)
    volume.data[:] = 0
    np.testing.assert_array_equal(mapped, VALUES)


def test_without_an_affine_a_line_says_so():
    assert volume_of_array(VALUES).source.warnings == (NO_AFFINE,)
    np.testing.assert_array_equal(volume_of_array(VALUES).affine, np.eye(4))


@pytest.mark.parametrize(
    ("array", "affine", "said"),
    [
        (np.zeros((5, 4)), None, r"E_GEOMETRY: an array of shape \(5, 4\) is not a volume - give .*PIL"),
        (np.zeros((5, 4, 3), np.uint8), None, r"E_GEOMETRY: an array of shape \(5, 4, 3\) is not a volume"),
        (np.zeros((2, 5, 4, 3)), None, "E_GEOMETRY: an array of shape"),
        (np.zeros((5, 0, 3)), None, "E_GEOMETRY: an array of shape"),
        (np.zeros((5, 4, 3), complex), None, "E_PIXELS: an array of complex128 holds no grey values"),
        (np.array([[["a"]]]), None, "E_PIXELS: an array of <U1"),
        (VALUES, np.eye(3), r"E_GEOMETRY: the affine has shape \(3, 3\)"),
        (VALUES, np.zeros((4, 4)), "E_GEOMETRY: the affine has no volume"),
        (VALUES, "x", "E_GEOMETRY: the affine holds no numbers"),
        (VALUES, np.diag([500.0, 1, 1, 1]), "E_GEOMETRY: voxels of 500 x 1 x 1 mm"),
    ],
)
def test_what_is_no_volume(array, affine, said):
    with pytest.raises(CaseError, match=said):
        volume_of_array(array, affine)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16", "F", "CMYK", "LA"])
def test_a_picture_is_what_its_file_would_be(mode, tmp_path: Path):
    colours = np.random.default_rng(3).integers(0, 255, (7, 5, 3), dtype=np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(colours[..., 0].astype(np.uint16) * 256)
    elif mode == "F":
        picture = Image.fromarray(colours[..., 0].astype(np.float32) / 255)
    else:
        picture = Image.fromarray(colours).convert(mode)
    volume = volume_of_picture(picture)
    kind = ".tif" if mode in ("F", "CMYK") else ".png"
    picture.save(tmp_path / f"a{kind}")
    expected = read_photo(tmp_path / f"a{kind}")
    np.testing.assert_allclose(volume.data, expected.data, atol=1)
    assert volume.data.shape[1:] == (5, 7, 1)
    assert volume.source.path is None
    assert not volume.source.has_physical_size
