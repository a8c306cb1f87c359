"""What NIfTI files may hold, and one line for each that cannot be used."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anomalyclip_monai.data.nifti import header_file, is_nifti, read_nifti, volume_from_nibabel
from anomalyclip_monai.exceptions import CaseError

SHAPE = (4, 5, 3)
AFFINE = np.array([[-0.5, 0, 0, 10], [0, 0.75, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1.0]])
DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET, SLOPE, UNITS, QFORM, SROW = 40, 70, 72, 76, 108, 112, 123, 252, 280
"""Byte offsets in a NIfTI-1 header."""


@pytest.fixture
def data() -> np.ndarray:
    return np.arange(60, dtype=np.int16).reshape(SHAPE) - 10


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, data: np.ndarray) -> Write:
    """Save an image and change bytes of its header: ``write({offset: (format, *values)})``."""

    def _write(patch: dict[int, tuple[Any, ...]] | None = None, *, image: Any = None, name: str = "case.nii") -> Path:
        path = tmp_path / name
        nib.save(nib.Nifti1Image(data, AFFINE) if image is None else image, path)
        for offset, (layout, *values) in (patch or {}).items():
            content = bytearray(path.read_bytes())
            struct.pack_into(f"<{layout}", content, offset, *values)
            path.write_bytes(content)
        return path

    return _write


def _refused(path: Path, code: str, **options: Any) -> str:
    with pytest.raises(CaseError) as caught:
        read_nifti(path, **options)
    message = str(caught.value)
    assert caught.value.code == code, message
    assert caught.value.path == path
    assert "\n" not in message
    return message


# --- what is right


@pytest.mark.parametrize("name", ["case.nii", "case.nii.gz", "CASE.NII.GZ"])
def test_voxels_and_affine_as_stored(write: Write, data: np.ndarray, name: str) -> None:
    path = write(name=name)
    volume = read_nifti(path)
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data[0], data)
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert (volume.source.kind, volume.source.path, volume.source.warnings) == ("nifti", path, ())
    assert volume.source.has_physical_size


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8", ">i2", ">f4"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_every_number_type_byte_order_and_version(tmp_path: Path, kind: Any, dtype: str) -> None:
    values = np.arange(60).reshape(SHAPE).astype(dtype)
    image = kind(values, AFFINE, kind.header_class(endianness=">" if dtype.startswith(">") else "<"))
    nib.save(image, tmp_path / "case.nii.gz")
    volume = read_nifti(tmp_path / "case.nii.gz")
    np.testing.assert_array_equal(volume.data[0], np.arange(60).reshape(SHAPE))
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert volume.source.warnings == ()


@pytest.mark.parametrize(
    ("slope", "inter", "expected"),
    [(2.0, -1024.0, (2, -1024)), (0.0, 5.0, (1, 0)), (np.nan, np.nan, (1, 0)), (1.0, 0.0, (1, 0))],
)
def test_slope_and_intercept(
    write: Write, data: np.ndarray, slope: float, inter: float, expected: tuple[int, int]
) -> None:
    volume = read_nifti(write({SLOPE: ("ff", slope, inter)}))
    np.testing.assert_array_equal(volume.data[0], data * expected[0] + expected[1])


def test_every_affine_comes_as_nibabel_reads_it(tmp_path: Path, data: np.ndarray, any_affine: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(data, any_affine), tmp_path / "case.nii")
    stored = nib.load(tmp_path / "case.nii").affine
    volume = read_nifti(tmp_path / "case.nii")
    np.testing.assert_array_equal(volume.affine, stored)
    assert volume.affine.dtype == np.float64
    assert volume.source.warnings == ()


def test_qform_alone(tmp_path: Path, data: np.ndarray, affines: dict[str, np.ndarray]) -> None:
    image = nib.Nifti1Image(data, affines["oblique"])
    image.set_sform(None, code=0)
    image.set_qform(affines["oblique"], code=1)
    nib.save(image, tmp_path / "case.nii")
    volume = read_nifti(tmp_path / "case.nii")
    np.testing.assert_allclose(volume.affine, affines["oblique"], atol=1e-5)
    assert volume.source.warnings == ()


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3, 1), (4, 5, 3, 1, 1)])
def test_fewer_and_empty_dimensions(write: Write, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    volume = read_nifti(write(image=nib.Nifti1Image(values, AFFINE)))
    assert volume.data.shape == (1, 4, 5, 3 if len(shape) > 2 and shape[2] == 3 else 1)
    np.testing.assert_array_equal(volume.data.ravel(), values.ravel())


@pytest.mark.parametrize("name", ["series.nii", "series.nii.gz"])
def test_one_of_several_volumes(write: Write, name: str) -> None:
    values = np.arange(120, dtype=np.float32).reshape(*SHAPE, 2)
    path = write(image=nib.Nifti1Image(values, AFFINE), name=name)
    for index in (0, 1):
        np.testing.assert_array_equal(read_nifti(path, volume=index).data[0], values[..., index])
    assert "the file holds 2 volumes, 0 to 1" in _refused(path, "E_4D")
    assert "there is no volume 2, the file holds 2" in _refused(path, "E_4D", volume=2)
    assert "there is no volume -1" in _refused(path, "E_4D", volume=-1)


def test_asking_for_volume_0_of_a_3d_file(write: Write, data: np.ndarray) -> None:
    np.testing.assert_array_equal(read_nifti(write(), volume=0).data[0], data)
    _refused(write(), "E_4D", volume=1)


def test_image_in_memory(data: np.ndarray) -> None:
    volume = volume_from_nibabel(nib.Nifti1Image(data, AFFINE))
    np.testing.assert_array_equal(volume.data[0], data)
    assert (volume.source.kind, volume.source.path) == ("memory", None)
    mgh = volume_from_nibabel(nib.MGHImage(data.astype(np.float32), AFFINE))
    np.testing.assert_allclose(mgh.affine, AFFINE)


def test_names() -> None:
    assert is_nifti(Path("a.nii"))
    assert is_nifti(Path("a.b.NII.GZ"))
    assert not is_nifti(Path("a.gz"))
    assert not is_nifti(Path("nii"))


@pytest.mark.parametrize(
    "names", [("a.hdr", "a.img"), ("a.hdr.gz", "a.img.gz"), ("A.HDR", "A.IMG"), ("a.hdr", "a.img.gz")]
)
@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
def test_pairs_by_either_half(tmp_path: Path, data: np.ndarray, kind: Any, names: tuple[str, str]) -> None:
    nib.save(kind(data, AFFINE), tmp_path / "plain.img")
    for given, name in zip(("plain.hdr", "plain.img"), names, strict=True):
        content = (tmp_path / given).read_bytes()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for name in names:
        volume = read_nifti(tmp_path / name)
        np.testing.assert_array_equal(volume.data[0], data)
        np.testing.assert_array_equal(volume.affine, AFFINE)
        assert volume.source.warnings == ()
        assert header_file(tmp_path / name) == tmp_path / names[0]


def test_voxels_of_a_pair_may_begin_anywhere(tmp_path: Path, data: np.ndarray) -> None:
    nib.save(nib.Nifti1Pair(data, AFFINE), tmp_path / "a.img")
    header = bytearray((tmp_path / "a.hdr").read_bytes())
    struct.pack_into("<f", header, VOX_OFFSET, 16)
    (tmp_path / "a.hdr").write_bytes(header)
    (tmp_path / "a.img").write_bytes(bytes(16) + (tmp_path / "a.img").read_bytes())
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.hdr").data[0], data)


@pytest.mark.parametrize(("missing", "given"), [(".img with the voxels", "a.hdr"), (".hdr with the header", "a.img")])
def test_half_of_a_pair(tmp_path: Path, data: np.ndarray, missing: str, given: str) -> None:
    nib.save(nib.Nifti1Pair(data, AFFINE), tmp_path / "b.img")
    (tmp_path / given.replace("a", "b")).rename(tmp_path / given)
    assert f"the {missing} of this" in _refused(tmp_path / given, "E_NOT_FOUND")
    assert header_file(tmp_path / given) == tmp_path / given


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
@pytest.mark.parametrize("sform", [True, False])
def test_units_become_millimetres(tmp_path: Path, data: np.ndarray, unit: str, factor: float, sform: bool) -> None:
    affine = AFFINE.copy()
    affine[:3] /= factor
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=3)
    image.set_sform(affine if sform else None, code=4 if sform else 0)
    image.header.set_xyzt_units(unit, "sec")
    nib.save(image, tmp_path / "case.nii")
    volume = read_nifti(tmp_path / "case.nii")
    np.testing.assert_allclose(volume.affine, AFFINE, rtol=1e-6, atol=1e-6)
    assert volume.source.warnings == ()
    grid = volume.source.grid
    assert grid is not None
    assert (grid.sform_code, grid.qform_code, grid.unit) == (4 if sform else 0, 3, image.header["xyzt_units"] & 7)
    if sform:
        np.testing.assert_array_equal(np.reshape(grid.sform, (3, 4)), affine[:3].astype(np.float32))


def test_a_unit_that_cannot_be_meant(write: Write) -> None:
    # half a metre from voxel to voxel; then half a micrometre
    message = _refused(write({UNITS: ("B", 1)}), "E_GEOMETRY")
    assert "voxels of 500 x 750 x 2e+03 mm in a volume of 2e+03 x 3.75e+03 x 6e+03 mm" in message
    assert "if its numbers are millimetres, not metres, correct its unit" in message
    assert "if its numbers are millimetres, not micrometres" in _refused(write({UNITS: ("B", 3)}), "E_GEOMETRY")


@pytest.mark.parametrize("name", ["case.nii", "case.nii.gz"])
@pytest.mark.parametrize(("kind", "first"), [(nib.Nifti1Image, 352), (nib.Nifti2Image, 544)])
@pytest.mark.parametrize("offset", [0, 348])
def test_voxels_do_not_begin_inside_the_header(
    tmp_path: Path, data: np.ndarray, kind: Any, first: int, name: str, offset: int
) -> None:
    nib.save(kind(data, AFFINE), tmp_path / "plain.nii")
    content = bytearray((tmp_path / "plain.nii").read_bytes())
    struct.pack_into(*(("<f", content, VOX_OFFSET) if first == 352 else ("<q", content, 168)), offset)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    volume = read_nifti(path)
    np.testing.assert_array_equal(volume.data[0], data)
    assert volume.source.warnings == (
        f"the header says that the voxels begin at byte {offset}, inside of it; byte {first} was taken",
    )


@pytest.mark.parametrize("offset", [-16, 352.5, 1e9, 3e38, np.nan, np.inf])
def test_voxels_that_begin_where_they_cannot(write: Write, offset: float) -> None:
    assert "the voxels begin at byte" in _refused(write({VOX_OFFSET: ("f", offset)}), "E_NIFTI")


def test_voxels_right_behind_the_header_are_not_read_four_bytes_off(write: Write) -> None:
    # one web viewer saves 348 bytes of header and no more
    for offset in (0, 348):
        path = write({VOX_OFFSET: ("f", offset)})
        content = path.read_bytes()
        path.write_bytes(content[:348] + content[352:])
        _refused(path, "E_TRUNCATED")


def test_voxels_behind_an_extension(tmp_path: Path, data: np.ndarray) -> None:
    image = nib.Nifti1Image(data, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"free text"))
    nib.save(image, tmp_path / "case.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "case.nii").data[0], data)


def test_texts_before_voxels_whose_place_is_not_known(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nib.Nifti1Image(data, AFFINE)
    nib.save(image, tmp_path / "plain.nii")
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a note"))
    nib.save(image, tmp_path / "noted.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "noted.nii").data[0], data)
    for name in ("plain", "noted"):
        raw = bytearray((tmp_path / f"{name}.nii").read_bytes())
        raw[108:112] = bytes(4)
        (tmp_path / f"{name}0.nii").write_bytes(raw)
    np.testing.assert_array_equal(read_nifti(tmp_path / "plain0.nii").data[0], data)
    assert "texts stand before them" in _refused(tmp_path / "noted0.nii", "E_NIFTI")


# --- what is odd and said


def test_no_orientation(write: Write) -> None:
    volume = read_nifti(write({QFORM: ("hh", 0, 0)}))
    assert volume.source.warnings == ("no orientation in the header: left, right, up and down are guesses",)
    np.testing.assert_allclose(spacing_of(volume.affine), [0.5, 0.75, 2])


def spacing_of(affine: np.ndarray) -> np.ndarray:
    return np.linalg.norm(affine[:3, :3], axis=0)


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_unusable_sform_falls_back_to_a_valid_qform(tmp_path: Path, write: Write, data: np.ndarray, bad: float) -> None:
    image = nib.Nifti1Image(data, AFFINE)
    image.set_qform(AFFINE, code=1)
    volume = read_nifti(write({SROW: ("12f", *[bad] * 12)}, image=image))
    assert volume.source.warnings == ("the header's sform is unusable, its qform was taken",)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_unusable_sform_without_qform(write: Write, bad: float) -> None:
    assert "no volume" in _refused(write({SROW: ("12f", *[bad] * 12), QFORM: ("hh", 0, 1)}), "E_GEOMETRY")


def test_flat_sform(write: Write) -> None:
    flat = (*AFFINE[0], *AFFINE[1], *AFFINE[1])  # two rows the same
    _refused(write({SROW: ("12f", *flat), QFORM: ("hh", 0, 2)}), "E_GEOMETRY")


def test_voxel_size_that_disagrees_with_the_sform(write: Write) -> None:
    volume = read_nifti(write({PIXDIM + 4: ("fff", 1, 1, 1)}))
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert volume.source.warnings == (
        "the header's voxel size disagrees with its orientation, [0.5, 0.75, 2.0] mm taken",
    )


@pytest.mark.parametrize("name", ["case.nii", "case.nii.gz"])
@pytest.mark.parametrize("orientation", [(0, 0), (0, 2), (1, 0)])
def test_voxel_size_of_zero(write: Write, name: str, orientation: tuple[int, int]) -> None:
    path = write({PIXDIM + 4: ("fff", 1, 0, 1), QFORM: ("hh", *orientation)})
    if name.endswith(".gz"):
        path.with_name(name).write_bytes(gzip.compress(path.read_bytes()))
        path = path.with_name(name)
    assert "the voxel size in the header is [1.0, 0.0, 1.0]" in _refused(path, "E_GEOMETRY")


def test_voxel_size_across_a_single_slice_does_not_matter(write: Write, data: np.ndarray) -> None:
    path = write({PIXDIM + 12: ("f", 0)}, image=nib.Nifti1Image(data[..., :1], AFFINE))
    np.testing.assert_array_equal(read_nifti(path).affine, AFFINE)


def test_nan_and_infinity_take_the_minimum(write: Write) -> None:
    values = np.full(SHAPE, 7, dtype=np.float32)
    values[0, 0, 0], values[1, 2, 2], values[3, 4, 1] = np.nan, np.inf, -np.inf
    values[2, 2, 2] = -3
    volume = read_nifti(write(image=nib.Nifti1Image(values, AFFINE)))
    assert [volume.data[0][i] for i in ((0, 0, 0), (1, 2, 2), (3, 4, 1), (0, 1, 0))] == [-3, -3, -3, 7]
    assert volume.source.warnings == ("3 voxels were NaN or infinite and took the volume's minimum",)


def test_nothing_finite(write: Write) -> None:
    image = nib.Nifti1Image(np.full(SHAPE, np.nan, dtype=np.float32), AFFINE)
    assert "no voxel has a finite value" in _refused(write(image=image), "E_PIXELS")


@pytest.mark.parametrize("value", [2**24 + 1, -(2**31)])
def test_integers_that_float32_cannot_hold(write: Write, value: int) -> None:
    values = np.zeros(SHAPE, dtype=np.int32)
    values[0, 0, 0] = value
    volume = read_nifti(write(image=nib.Nifti1Image(values, AFFINE)))
    assert volume.source.warnings == ("voxel values above 16,777,216 are rounded to float32",)


# --- what is refused


def test_complex_and_coloured_voxels(write: Write) -> None:
    image = nib.Nifti1Image(np.zeros(SHAPE, dtype=np.complex64), AFFINE)
    assert "complex" in _refused(write(image=image), "E_NIFTI")
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "colours" in _refused(write(image=nib.Nifti1Image(rgb, AFFINE)), "E_COLOUR")


def test_vectors(write: Write) -> None:
    image = nib.Nifti1Image(np.zeros((*SHAPE, 1, 3), dtype=np.float32), AFFINE)
    assert "5 dimensions, (4, 5, 3, 1, 3)" in _refused(write(image=image), "E_4D")


def test_no_voxels(write: Write) -> None:
    _refused(write({DIM: ("h", 0)}), "E_GEOMETRY")
    _refused(write({DIM + 4: ("h", 0)}), "E_GEOMETRY")


@pytest.mark.parametrize("name", ["huge.nii", "huge.nii.gz"])
def test_header_that_announces_more_than_memory(write: Write, name: str) -> None:
    path = write({DIM + 2: ("hhh", 32767, 32767, 32767)})
    if name.endswith(".gz"):
        path.with_name(name).write_bytes(gzip.compress(path.read_bytes()))
        path = path.with_name(name)
    assert "32767 x 32767 x 32767 voxels" in _refused(path, "E_TOO_LARGE")


def test_cut_off_files(write: Write) -> None:
    path = write()
    path.write_bytes(path.read_bytes()[:-20])
    assert "shorter than its header says" in _refused(path, "E_TRUNCATED")
    zipped = write(name="case.nii.gz")
    zipped.write_bytes(zipped.read_bytes()[:-20])
    assert "cut off or damaged" in _refused(zipped, "E_TRUNCATED")


def test_checksum_of_a_compressed_file(write: Write) -> None:
    path = write(name="case.nii.gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the checksum behind the last byte
    path.write_bytes(content)
    _refused(path, "E_TRUNCATED")


def test_names_that_lie_about_compression(write: Write) -> None:
    plain, zipped = write(), write(name="zipped.nii.gz")
    plain.rename(plain.with_name("a.nii.gz"))
    zipped.rename(plain.with_name("b.nii"))
    assert "ends in .gz but the file is not gzip-compressed" in _refused(plain.with_name("a.nii.gz"), "E_NIFTI")
    assert "ends in .nii but the file is gzip-compressed" in _refused(plain.with_name("b.nii"), "E_NIFTI")


@pytest.mark.parametrize("content", [b"", b"no image at all", bytes(4000)])
def test_anything_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "case.nii").write_bytes(content)
    _refused(tmp_path / "case.nii", "E_NIFTI")
    (tmp_path / "case.nii.gz").write_bytes(gzip.compress(content))
    _refused(tmp_path / "case.nii.gz", "E_NIFTI")


def test_unknown_voxel_type(write: Write) -> None:
    _refused(write({DATATYPE: ("h", 9999)}), "E_NIFTI")


def test_analyze_pairs_and_other_headers(tmp_path: Path, data: np.ndarray) -> None:
    nib.save(nib.AnalyzeImage(data, AFFINE), tmp_path / "case.img")
    assert "does not say where left and right are" in _refused(tmp_path / "case.hdr", "E_NIFTI")
    (tmp_path / "case.hdr").write_bytes(b"ENVI\nsamples = 4\n")
    _refused(tmp_path / "case.hdr", "E_NIFTI")
