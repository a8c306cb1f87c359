"""FreeSurfer, NRRD and MetaImage files against NIfTI files that nibabel wrote, and slices one by one."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_factory import cine, image, stack, write
from PIL import Image

from anomalyclip_monai.data import dicom_pixels, find_cases, photo
from anomalyclip_monai.data import itk as itk_reader
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.exceptions import CaseError

SHAPE = (4, 5, 3)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
needs_itk = pytest.mark.skipif(not itk_reader.has_itk, reason="the itk extra is not installed")


@pytest.fixture
def data() -> np.ndarray:
    return np.arange(60, dtype=np.int16).reshape(SHAPE) * 7 - 100


def rotated() -> np.ndarray:
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation @ np.diag([0.5, 0.75, 2.0]), (10.5, -20.25, 30)
    return affine


def read(path: Path, volume: int | None = None) -> Volume:
    (case,) = find_cases([path])
    return case.read(volume)


def refused(path: Path, code: str, volume: int | None = None) -> str:
    with pytest.raises(CaseError) as caught:
        read(path, volume)
    message = str(caught.value)
    assert caught.value.code == code, message
    assert str(path) in message
    assert "\n" not in message
    return message


def as_nifti(folder: Path, data: np.ndarray, affine: np.ndarray) -> Volume:
    nib.save(nib.Nifti1Image(data, affine), folder / "same.nii")
    return read(folder / "same.nii")


def assert_same(volume: Volume, expected: Volume) -> None:
    np.testing.assert_array_equal(volume.data, expected.data)
    assert volume.data.dtype == np.float32
    assert volume.data.flags.c_contiguous
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-5)
    assert volume.affine.dtype == np.float64
    assert volume.source.has_physical_size


# --- FreeSurfer


@pytest.mark.parametrize("suffix", ["mgh", "mgz", "MGZ"])
def test_freesurfer_equals_nifti(tmp_path: Path, data: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"case.{suffix}"
    nib.MGHImage(data, rotated()).to_filename(tmp_path / f"case.{suffix.lower()}")
    (tmp_path / f"case.{suffix.lower()}").rename(path)
    assert_same(read(path), as_nifti(tmp_path, data, rotated()))
    assert read(path).source.warnings == ()
    assert find_cases([path])[0].name == "case"


def test_freesurfer_volumes_are_chosen(tmp_path: Path, data: np.ndarray) -> None:
    path = tmp_path / "case.mgz"
    nib.save(nib.MGHImage(np.stack([data, data + 1], axis=-1), rotated()), path)
    assert "0 to 1" in refused(path, "E_4D")
    np.testing.assert_array_equal(read(path, 1).data[0], data + 1)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (lambda raw: raw[:300], "E_TRUNCATED"),
        (lambda raw: raw[:100], "E_TRUNCATED"),
        (lambda raw: raw[:4] + b"\0\0\0\0" + raw[8:], "E_GEOMETRY"),
        (lambda raw: raw[:4] + b"\0\0\x7f\xff" * 3 + raw[16:], "E_TOO_LARGE"),
        (lambda raw: raw[:20] + b"\0\0\0\x63" + raw[24:], "E_NIFTI"),
        (lambda raw: raw[:30] + b"\xff" * 60 + raw[90:], "E_GEOMETRY"),
        (lambda raw: gzip.compress(raw), "E_NIFTI"),
    ],
    ids=["data cut", "header cut", "no voxels", "huge", "unknown type", "no orientation", "compressed"],
)
def test_damaged_freesurfer(tmp_path: Path, data: np.ndarray, content: Callable[[bytes], bytes], code: str) -> None:
    path = tmp_path / "case.mgh"
    nib.save(nib.MGHImage(data, rotated()), path)
    path.write_bytes(content(path.read_bytes()))
    refused(path, code)


def test_freesurfer_without_orientation_says_so(tmp_path: Path, data: np.ndarray) -> None:
    path = tmp_path / "case.mgh"
    nib.save(nib.MGHImage(data, rotated()), path)
    raw = path.read_bytes()
    path.write_bytes(raw[:28] + b"\0\0" + raw[30:])
    assert "no orientation" in read(path).source.warnings[0]


# --- NRRD and MetaImage


TYPES = {"i2": ("short", "MET_SHORT"), "u1": ("uchar", "MET_UCHAR"), "f4": ("float", "MET_FLOAT"),
         "f8": ("double", "MET_DOUBLE"), "i4": ("int", "MET_INT"), "i8": ("longlong", "MET_LONG_LONG")}  # fmt: skip


def numbers(values: Any) -> str:
    return " ".join(f"{value:.17g}" for value in np.ravel(values))


def write_nrrd(
    path: Path, data: np.ndarray, affine: np.ndarray, *, kinds: str = "", space: str = "LPS", encoding: str = "raw"
) -> Path:
    """By the format's own text (https://teem.sourceforge.net/nrrd/format.html), not through ITK."""
    flip = {"LPS": LPS, "RAS": np.eye(4), "LAS": np.diag([-1.0, 1.0, 1.0, 1.0])}[space[:3]]
    world = flip @ affine
    vectors = iter(f"({','.join(numbers(v).split())})" for v in world[:3, :3].T)
    parts = kinds.split() or ["domain"] * 3
    directions = " ".join(next(vectors) if kind == "domain" else "none" for kind in parts)
    header = [
        "NRRD0004",
        f"type: {TYPES[data.dtype.str[1:]][0]}",
        f"dimension: {data.ndim}",
        f"space: {space}",
        f"sizes: {numbers(data.shape)}",
        f"space directions: {directions}",
        f"kinds: {' '.join(parts)}",
        "endian: little",
        f"encoding: {encoding}",
        f"space origin: ({','.join(numbers(world[:3, 3]).split())})",
    ]
    raw = data.tobytes(order="F")
    path.write_bytes("\n".join(header).encode() + b"\n\n" + (gzip.compress(raw) if encoding == "gzip" else raw))
    return path


def write_meta(path: Path, data: np.ndarray, affine: np.ndarray, *, channels: int = 1, local: bool = True) -> Path:
    """By the format's own text (https://itk.org/Wiki/MetaIO), whose world is LPS and whose rows are directions."""
    dimensions = data.ndim - (channels > 1)
    world, matrix = LPS @ affine, np.eye(dimensions)
    spacing = np.ones(dimensions)
    spacing[:3] = np.linalg.norm(world[:3, :3], axis=0)
    matrix[:3, :3] = world[:3, :3] / spacing[:3]
    header = [
        "ObjectType = Image",
        f"NDims = {dimensions}",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        f"TransformMatrix = {numbers(matrix.T)}",
        f"Offset = {numbers([*world[:3, 3], 0][:dimensions])}",
        f"ElementSpacing = {numbers(spacing)}",
        f"DimSize = {numbers(data.shape[:dimensions])}",
        f"ElementType = {TYPES[data.dtype.str[1:]][1]}",
        f"ElementNumberOfChannels = {channels}",
        f"ElementDataFile = {'LOCAL' if local else path.with_suffix('.raw').name}",
    ]
    raw = (np.moveaxis(data, -1, 0) if channels > 1 else data).tobytes(order="F")
    path.write_bytes("\n".join(header).encode() + b"\n" + (raw if local else b""))
    if not local:
        path.with_suffix(".raw").write_bytes(raw)
    return path


def test_a_missing_extra_is_one_line_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(itk_reader, "has_itk", False)
    for name in ("a.nrrd", "a.mha", "a.MHD"):
        (tmp_path / name).write_bytes(b"NRRD0004\n")
        message = refused(tmp_path / name, "E_EXTRA")
        assert message.endswith('- pip install "anomalyclip-monai[itk]"')
    assert [case.name for case in find_cases([tmp_path])] == ["a.MHD", "a.mha", "a.nrrd"]


@needs_itk
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_equals_nifti(tmp_path: Path, data: np.ndarray, kind: str) -> None:
    data = np.abs(data) % 128 if kind == "u1" else data
    expected = as_nifti(tmp_path, data.astype("i2"), rotated())
    for path in (
        write_nrrd(tmp_path / "a.nrrd", data.astype(kind), rotated()),
        write_nrrd(tmp_path / "z.nrrd", data.astype(kind), rotated(), encoding="gzip"),
        write_meta(tmp_path / "a.mha", data.astype(kind), rotated()),
        write_meta(tmp_path / "a.mhd", data.astype(kind), rotated(), local=False),
    ):
        volume = read(path)
        assert_same(volume, expected)
        assert volume.source.warnings == ()


@needs_itk
@pytest.mark.parametrize("space", ["RAS", "LAS", "LPS", "left-posterior-superior", "right-anterior-superior"])
def test_nrrd_spaces(tmp_path: Path, data: np.ndarray, space: str) -> None:
    path = tmp_path / "a.nrrd"
    short = {"l": "LPS", "r": "RAS"}.get(space[0], space)
    write_nrrd(path, data, rotated(), space=short)
    path.write_bytes(path.read_bytes().replace(f"space: {short}".encode(), f"space: {space}".encode()))
    assert_same(read(path), as_nifti(tmp_path, data, rotated()))


@needs_itk
def test_a_space_that_is_not_anatomical_is_told(tmp_path: Path, data: np.ndarray) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", data, rotated())
    path.write_bytes(path.read_bytes().replace(b"space: LPS", b"space: scanner-xyz"))
    assert "no orientation" in read(path).source.warnings[0]


@needs_itk
def test_a_sheared_nrrd_keeps_its_shear(tmp_path: Path, data: np.ndarray) -> None:
    affine = np.array([[-1.0, 0, 0, 5], [0, -1.0, 0.8, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    path = write_nrrd(tmp_path / "a.nrrd", data, affine)
    np.testing.assert_allclose(read(path).affine, affine, atol=1e-9)


@needs_itk
def test_volumes_are_chosen_however_they_are_stored(tmp_path: Path, data: np.ndarray) -> None:
    four = np.stack([data, data + 1, data + 2, data + 3, data + 4, data + 5], axis=-1)
    paths = [
        write_meta(tmp_path / "time.mha", four, rotated()),
        write_meta(tmp_path / "channels.mha", four, rotated(), channels=6),
        write_nrrd(tmp_path / "first.nrrd", np.moveaxis(four, -1, 0), rotated(), kinds="list domain domain domain"),
        write_nrrd(tmp_path / "last.nrrd", four, rotated(), kinds="domain domain domain list"),
    ]
    expected = as_nifti(tmp_path, data + 4, rotated())
    for path in paths:
        assert "6 volumes, 0 to 5" in refused(path, "E_4D")
        refused(path, "E_4D", 6)
        assert_same(read(path, 4), expected)


@needs_itk
def test_a_plane_is_one_slice(tmp_path: Path) -> None:
    plane = np.arange(12, dtype=np.int16).reshape(4, 3)
    path = tmp_path / "a.mha"
    header = "ObjectType = Image\nNDims = 2\nBinaryData = True\nTransformMatrix = 1 0 0 1\nOffset = 5 6\n"
    header += "ElementSpacing = 2 3\nDimSize = 4 3\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    path.write_bytes(header.encode() + plane.tobytes(order="F"))
    volume = read(path)
    np.testing.assert_array_equal(volume.data[0, :, :, 0], plane)
    np.testing.assert_allclose(volume.affine, [[-2, 0, 0, -5], [0, -3, 0, -6], [0, 0, 1, 0], [0, 0, 0, 1]])


@needs_itk
def test_colour_is_refused(tmp_path: Path) -> None:
    colour = np.zeros((*SHAPE, 3), np.uint8)
    refused(write_meta(tmp_path / "a.mha", colour, rotated(), channels=3), "E_COLOUR")
    kinds = "RGB-color domain domain domain"
    refused(write_nrrd(tmp_path / "a.nrrd", np.moveaxis(colour, -1, 0), rotated(), kinds=kinds), "E_COLOUR", 0)


@needs_itk
@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"DimSize = 4 5 3", b"DimSize = 4 5 4", "E_TRUNCATED"),
        (b"DimSize = 4 5 3", b"DimSize = 4 0 3", "E_GEOMETRY"),
        (b"DimSize = 4 5 3", b"DimSize = 30000 30000 30000", "E_TOO_LARGE"),
        (b"CompressedData = False", b"CompressedData = True", "E_ITK"),
        (b"CompressedData = False", b"CompressedData = True\nCompressedDataSize = 120", "E_TRUNCATED"),
        (b"NDims = 3", b"NDims = 9", "E_ITK"),
        (b"LOCAL", b"other.raw", "E_NOT_FOUND"),
        (b"LOCAL", b"/etc/hostname", "E_ITK"),
        (b"LOCAL", b"../x.raw", "E_ITK"),
        (b"LOCAL", b"LIST", "E_ITK"),
        (b"ElementType = MET_SHORT", b"ElementType = MET_NONE", "E_ITK"),
        (b"TransformMatrix = ", b"TransformMatrix = 0 0 0 0 0 0 0 0 0 ", "E_ITK"),
    ],
)
def test_damaged_metaimage(tmp_path: Path, data: np.ndarray, old: bytes, new: bytes, code: str) -> None:
    path = write_meta(tmp_path / "a.mha", data, rotated())
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new))
    refused(path, code)


@needs_itk
@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"sizes: 4 5 3", b"sizes: 4 5 4", "E_TRUNCATED"),
        (b"sizes: 4 5 3", b"sizes: 30000 30000 30000", "E_TOO_LARGE"),
        (b"sizes: 4 5 3", b"sizes: 4 -5 3", "E_ITK"),
        (b"type: short", b"type: block", "E_ITK"),
        (b"encoding: raw", b"encoding: gzip", "E_TRUNCATED"),
        (b"NRRD0004", b"NRRX0004", "E_ITK"),
        (b"encoding: raw", b"encoding: raw\ndata file: ../../x.raw", "E_ITK"),
    ],
)
def test_damaged_nrrd(tmp_path: Path, data: np.ndarray, old: bytes, new: bytes, code: str) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", data, rotated())
    path.write_bytes(path.read_bytes().replace(old, new))
    refused(path, code)


@needs_itk
@pytest.mark.parametrize("damage", [lambda raw: raw[:-30], lambda raw: raw[:-9] + b"\0" + raw[-8:]])
def test_damaged_compression_is_found(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    data = np.random.default_rng(1).integers(-999, 999, SHAPE).astype(np.int16)
    for packed, path in (
        (gzip.compress(data.tobytes(order="F")), write_nrrd(tmp_path / "a.nrrd", data, rotated(), encoding="gzip")),
        (zlib.compress(data.tobytes(order="F")), write_meta(tmp_path / "a.mha", data, rotated())),
    ):
        packing = f"CompressedData = True\nCompressedDataSize = {len(packed)}".encode()
        raw = path.read_bytes().replace(b"CompressedData = False", packing)
        header = raw[: -data.nbytes] if path.suffix == ".mha" else raw[: -len(packed)]
        path.write_bytes(header + packed)
        np.testing.assert_array_equal(read(path).data[0], data)
        path.write_bytes(header + damage(packed))
        refused(path, "E_TRUNCATED")


@needs_itk
def test_not_finite_voxels_as_in_nifti(tmp_path: Path, data: np.ndarray) -> None:
    values = data.astype(np.float32)
    values[1, 2, 1] = np.nan
    path = write_meta(tmp_path / "a.mha", values, rotated())
    assert_same(read(path), as_nifti(tmp_path, values, rotated()))
    assert "1 voxels were NaN" in read(path).source.warnings[0]


# --- what mutated files brought to light


def test_an_affine_beyond_all_measure_is_refused(tmp_path: Path, data: np.ndarray) -> None:
    path = tmp_path / "case.nii"
    nib.save(nib.Nifti1Image(data, np.diag([1e30, 1e30, 1e30, 1])), path)
    refused(path, "E_GEOMETRY")


def test_values_beyond_float32_are_replaced_in_silence(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.float64).reshape(SHAPE)
    values[0, 0, 0] = 1e300
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "case.nii")
    volume = read(tmp_path / "case.nii")  # a warning would fail the test
    assert volume.data[0, 0, 0, 0] == 1
    assert "1 voxels were NaN or infinite" in volume.source.warnings[0]


def test_nibabel_logs_nothing_of_a_damaged_header(
    tmp_path: Path, data: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "case.nii"
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    raw = path.read_bytes()
    path.write_bytes(raw[:254] + b"\7\0" + raw[256:])  # a code of the sform that does not exist
    read(path)
    path.write_bytes(raw[:70] + b"\0\x10" + raw[72:])
    refused(path, "E_NIFTI")
    assert "".join(capfd.readouterr()) == ""


def test_pages_of_a_photo_are_counted_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "case.tif"
    first, *others = [Image.new("RGB", (30, 20)) for _ in range(4)]
    first.save(path, save_all=True, append_images=others)
    assert read(path).data.shape == (3, 30, 20, 4)
    monkeypatch.setattr(photo, "MAX_VALUES", (3 + photo.BESIDE_CHANNELS) * 30 * 20 * 4)
    read(path)
    photo.MAX_VALUES -= 1
    refused(path, "E_TOO_LARGE")


@pytest.mark.parametrize(
    "change", [{"PixelSpacing": [1e-30, 1e-30]}, {"ImageOrientationPatient": [1e200, 0, 0, 0, 1, 0]}]
)
def test_dicom_geometry_beyond_all_measure_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    ds = image(0)
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    write(tmp_path, [ds])
    refused(tmp_path / "000.dcm", "E_GEOMETRY")


def test_slices_on_top_of_each_other_but_for_a_hair_are_refused(tmp_path: Path) -> None:
    write(tmp_path, stack(step=(0, 0, 1e-6)))
    refused(tmp_path, "E_GEOMETRY")


def test_decoded_colours_must_be_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = cine(1)
    write(tmp_path, [ds])
    path = tmp_path / "000.dcm"
    assert read(path).data.shape[0] == 3
    pairs = np.zeros((ds.Rows, ds.Columns, 2), np.uint8)  # as a damaged palette gives them
    monkeypatch.setattr(dicom_pixels, "_decode_frame", lambda *_: pairs)
    refused(path, "E_PIXELS")


# --- units of length


@needs_itk
@pytest.mark.parametrize(
    ("unit", "length"),
    [("m", 1000.0), ("cm", 10.0), ("mm", 1.0), ("um", 0.001), ("\u00b5m", 0.001), ("microns", 0.001)],
)
@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_lengths_become_millimetres(tmp_path: Path, data: np.ndarray, suffix: str, unit: str, length: float) -> None:
    scaled = rotated()
    scaled[:3] /= length
    path = tmp_path / f"case.{suffix}"
    if suffix == "nrrd":
        write_nrrd(path, data, scaled)
        line, mark = f'space units: "{unit}" "{unit}" "{unit}"\n', b"endian:"
    else:
        write_meta(path, data, scaled)
        line, mark = f"DistanceUnits = {unit}\n", b"ElementSpacing"
    content = path.read_bytes()
    path.write_bytes(content.replace(mark, line.encode() + mark, 1))
    assert_same(read(path), as_nifti(tmp_path, data, rotated()))


@needs_itk
def test_a_unit_of_length_that_is_not_known(tmp_path: Path, data: np.ndarray) -> None:
    path = write_nrrd(tmp_path / "case.nrrd", data, rotated())
    path.write_bytes(path.read_bytes().replace(b"endian:", b'space units: "ell" "ell" "ell"\nendian:', 1))
    assert itk_reader.UNKNOWN_UNIT in read(path).source.warnings


@needs_itk
def test_sizes_that_no_scan_has(tmp_path: Path, data: np.ndarray) -> None:
    path = write_nrrd(tmp_path / "case.nrrd", data, np.diag([0.001, 0.001, 0.002, 1]))
    assert "if its numbers are metres, not millimetres" in refused(path, "E_GEOMETRY")
