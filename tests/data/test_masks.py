"""What masks mean: labels, soft edges, what is ignored, NaN and transparency, and whether they lie on their image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from anomalyclip_monai.data.masks import (
    StoredMask,
    grid_problem,
    labels_of,
    meaning_of,
    read_mask_file,
    rotation_note,
    whole_numbers,
)

SCAN = np.diag([0.5, 2.0, 5.0, 1.0])
"""Voxels of 0.5 x 2 x 5 mm."""


def _mask(*values: float, lossy: bool = False) -> StoredMask:
    """Values in a row."""
    return StoredMask(np.array(values, np.float32).reshape(-1, 1, 1), np.eye(4), lossy=lossy)


def _row(array: np.ndarray | None) -> str:
    return "" if array is None else "".join(str(int(value)) for value in array.ravel())


RAMP = tuple(range(0, 256, 5))
"""52 values: more than labels."""


@pytest.mark.parametrize(
    ("values", "inside", "ignored", "note"),
    [
        ((0, 1, 1), "011", "", ""),
        ((0, 255, 0), "010", "", ""),
        ((0, 0), "00", "", ""),
        ((0, 1, 3, 6, 255), "01110", "00001", "mask values taken as lesion: 1, 3, 6; left out: 255"),
        ((0, 63, 255), "010", "001", "mask values taken as lesion: 63; left out: 255"),
        ((0, 64, 255), "011", "", "mask values taken as lesion: 64, 255"),
        ((0, 85, 170, 255), "0111", "", "mask values taken as lesion: 85, 170, 255"),
        ((0, 7, 100, 205), "0111", "", "mask values taken as lesion: 7, 100, 205"),
        ((0, 65535), "01", "", "mask values taken as lesion: 65535"),
        ((-1, 0, 2), "001", "", "mask values taken as lesion: 2"),
        ((-1, 0, 1), "001", "", "mask values taken as lesion: 1"),
        ((-1, -1, 0), "000", "", ""),
        ((0, 2.9999, 1.0001), "011", "", "mask values taken as lesion: 1, 3"),
        ((1, np.nan, np.inf, 0), "1000", "", ""),
        # soft ones
        ((0, 0.5, 0.51, 1), "0011", "", "mask values from 0 to 1: above 0.5 taken as lesion"),
        ((-0.1, 0, 0.4, 1.1), "0001", "", "mask values from -0.1 to 1.1: above 0.5 taken as lesion"),
        ((0.02, 1.0, 0.02), "010", "", "mask values from 0.02 to 1: above 0.5 taken as lesion"),
        ((0, 1 / 255, 0), "010", "", "mask values from 0 to 0.003922: above 0.001961 taken as lesion"),
        ((0, 127.4, 127.6, 255), "0011", "", ""),
        ((0, 400.5, 600, 1000), "0011", "", "mask values from 0 to 1000: above 500 taken as lesion"),
    ],
)
def test_labels_or_soft(values: tuple[float, ...], inside: str, ignored: str, note: str) -> None:
    meaning = meaning_of(_mask(*values))
    assert (_row(meaning.inside), _row(meaning.ignored)) == (inside, ignored)
    assert meaning.notes == ((note,) if note else ())


def test_more_than_32_values_are_soft() -> None:
    labels = meaning_of(_mask(*range(32)))
    assert _row(labels.inside) == "0" + "1" * 31
    soft = meaning_of(_mask(*RAMP))
    assert soft.inside.sum() == sum(value > 127 for value in RAMP)
    assert soft.notes == ()
    faint = meaning_of(_mask(*range(33)))
    assert not faint.inside.any()  # of 255
    assert faint.notes == ("mask values from 0 to 32: above 127.5 taken as lesion",)


def test_a_photo_compressed_as_jpeg_is_soft_of_255() -> None:
    assert not meaning_of(_mask(0, 1, 3, lossy=True)).inside.any()
    assert _row(meaning_of(_mask(2, 120, 130, 253, lossy=True)).inside) == "0011"
    assert labels_of(_mask(0, 1, lossy=True)) is None


@pytest.mark.parametrize(
    ("values", "inside"), [((0, 127, 128, 255), "0011"), ((0, 1, 0), "010"), ((0, 300, 65535), "001"), ((0, 15), "01")]
)
def test_rule_of_sets_whose_masks_are_0_and_255(values: tuple[float, ...], inside: str) -> None:
    assert _row(meaning_of(_mask(*values), "half").inside) == inside


def test_exact_labels() -> None:
    assert _row(meaning_of(_mask(0, 1, 2.0001, 5, np.nan), (2, 5)).inside) == "00110"


def test_fractions_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="fractions up to 4, neither labels nor a soft mask"):
        meaning_of(_mask(0, 0.5, 2.25, 4))  # labels after linear interpolation


def test_a_mask_that_holds_everything_is_told() -> None:
    assert meaning_of(_mask(1, 1), of="inside").notes == ("all of the mask is inside",)


def test_whole_numbers() -> None:
    assert whole_numbers(np.array([3.0, 1.0005, 3.0])) == (1, 3)
    assert whole_numbers(np.array([0.3])) is None
    assert labels_of(_mask(0, 5, 2, np.nan)) == (2, 5)


def _png(path: Path, array: np.ndarray, mode: str | None = None, **options: Any) -> StoredMask:
    Image.fromarray(array, mode).save(path, **options)
    return read_mask_file(path)


M = np.array([[0, 1, 0], [0, 1, 1]], np.uint8)
"""2 rows, 3 columns."""


@pytest.mark.parametrize(
    ("inside", "outside", "note"),
    [
        ((255, 0, 0, 255), (255, 255, 255, 0), "what is transparent in the mask was taken as outside"),
        ((255, 255, 255, 255), (0, 0, 0, 0), "what is transparent in the mask was taken as outside"),
        ((0, 0, 0, 255), (255, 255, 255, 0), "the mask is black on transparent: what is opaque was taken"),
        ((0, 0, 0, 255), (0, 0, 0, 0), "the mask is black on transparent: what is opaque was taken"),
        ((255, 255, 255, 100), (255, 255, 255, 0), "what is transparent in the mask was taken as outside"),
        ((255, 255, 255, 255), (0, 0, 0, 255), ""),
        ((9, 9, 9, 40), (0, 0, 0, 40), ""),
    ],
)
def test_what_is_transparent_is_outside(tmp_path: Path, inside: Any, outside: Any, note: str) -> None:
    layer = np.where(M[..., None] > 0, np.array(inside, np.uint8), np.array(outside, np.uint8))
    mask = _png(tmp_path / "m.png", layer)
    meaning = meaning_of(mask)
    np.testing.assert_array_equal(meaning.inside[..., 0].T, M)
    assert note in meaning.notes if note else len(mask.notes) == 0


def test_all_transparent_is_empty(tmp_path: Path) -> None:
    assert not meaning_of(_png(tmp_path / "m.png", np.dstack([M * 255] * 3 + [M * 0]))).inside.any()


def test_a_palette_is_not_looked_up(tmp_path: Path) -> None:
    indexed = Image.fromarray(M * 2, "P")
    indexed.putpalette([68, 1, 84, 33, 145, 140, 253, 231, 37])  # nothing is black
    indexed.save(tmp_path / "m.png")
    meaning = meaning_of(read_mask_file(tmp_path / "m.png"))
    np.testing.assert_array_equal(meaning.inside[..., 0].T, M)
    assert meaning.notes == ("mask values taken as lesion: 2",)
    indexed.save(tmp_path / "hidden.png", transparency=2)
    np.testing.assert_array_equal(meaning_of(read_mask_file(tmp_path / "hidden.png")).inside[..., 0].T, 1 - M)
    indexed.save(tmp_path / "soft.png", transparency=bytes([255, 0, 255]))
    np.testing.assert_array_equal(meaning_of(read_mask_file(tmp_path / "soft.png")).inside[..., 0].T, M)


def test_16_bits_are_not_divided(tmp_path: Path) -> None:
    for name in ("m.png", "m.tif"):
        mask = _png(tmp_path / name, M.astype(np.uint16) * 3)
        assert mask.values.max() == 3
        np.testing.assert_array_equal(meaning_of(mask).inside[..., 0].T, M)


def test_jpeg_by_content_not_by_name(tmp_path: Path) -> None:
    Image.fromarray(np.kron(M, np.full((8, 8), 255, np.uint8))).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    mask = read_mask_file(tmp_path / "a.png")
    assert mask.lossy
    np.testing.assert_array_equal(meaning_of(mask).inside[::8, ::8, 0].T, M)


def test_nan_of_a_volume_is_outside(tmp_path: Path) -> None:
    volume = np.full((2, 3, 2), np.nan, np.float32)
    volume[1, 2, 0] = 1
    nib.save(nib.Nifti1Image(volume, SCAN), tmp_path / "m.nii.gz")
    mask = read_mask_file(tmp_path / "m.nii.gz")
    meaning = meaning_of(mask)
    assert np.argwhere(meaning.inside).tolist() == [[1, 2, 0]]
    assert meaning.notes == ("NaN in the mask was taken as outside",)


def test_infinity_of_a_volume_is_told(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.array([[[0, 1, np.inf]]], np.float32), SCAN), tmp_path / "m.nii")
    meaning = meaning_of(read_mask_file(tmp_path / "m.nii"))
    assert (_row(meaning.inside), meaning.notes) == ("010", ("infinity in the mask was taken as outside",))


def test_grids_are_compared_at_their_corners() -> None:
    shape = (5, 4, 3)
    mask = StoredMask(np.zeros(shape, np.float32), SCAN)
    assert grid_problem(mask, shape, SCAN) == ""
    assert grid_problem(mask, (4, 5, 3), SCAN) == "the mask is 5 x 4 x 3, the image 4 x 5 x 3"
    for offset, fits in ((0.24, True), (0.26, False)):  # half of 0.5 mm
        moved = SCAN.copy()
        moved[2, 3] = offset
        assert (grid_problem(mask, shape, moved) == "") is fits
    # a spacing that differs by 0.1 mm adds up over 4 voxels, which no single number in the affine shows
    stretched = np.diag([0.6, 2.0, 5.0, 1.0])
    assert grid_problem(mask, shape, stretched) == (
        "the mask lies elsewhere in space, its corners are up to 0.4 mm away"
    )
    assert grid_problem(mask, shape, None) == ""
    assert grid_problem(StoredMask(mask.values, np.eye(4), placed=False), shape, SCAN) == ""
    one = StoredMask(np.zeros((5, 4, 1), np.float32), np.diag([0.5, 2.0, 1.0, 1.0]))
    assert grid_problem(one, (5, 4, 1), SCAN) == ""  # the thickness of a single slice is no place


def test_exif_rotation_of_one_of_two(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(M).save(tmp_path / "image.jpg", exif=turned)
    Image.fromarray(M * 255).save(tmp_path / "plain.png")
    Image.fromarray(M * 255).save(tmp_path / "turned.png", exif=turned)
    image, shape = tmp_path / "image.jpg", (2, 3, 1)
    said = "the image was turned by its EXIF data, which the mask lacks"
    assert grid_problem(read_mask_file(tmp_path / "plain.png"), shape, None, image) == (
        f"the mask is 3 x 2 x 1, the image 2 x 3 x 1: {said}"
    )
    mask = read_mask_file(tmp_path / "turned.png")
    assert grid_problem(mask, shape, None, image) == ""
    np.testing.assert_array_equal(meaning_of(mask).inside[..., 0].T, np.rot90(M, -1))
    assert rotation_note(mask, image) == ""
    assert rotation_note(read_mask_file(tmp_path / "plain.png"), image) == f"{said}: check that they fit"
