from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps, TiffImagePlugin

from anomalyclip_monai.data.photo import is_photo, orientation, read_photo, read_picture
from anomalyclip_monai.exceptions import CaseError

GREY = np.array([[0, 10, 20], [30, 40, 255]], dtype=np.uint8)
"""2 rows, 3 columns."""


def _save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def _refused(path: Path, code: str) -> str:
    with pytest.raises(CaseError) as caught:
        read_photo(path)
    message = str(caught.value)
    assert caught.value.code == code, message
    assert "\n" not in message
    return message


def test_columns_rows_pages(tmp_path: Path) -> None:
    path = _save(Image.fromarray(GREY), tmp_path / "frame.png")
    volume = read_photo(path)
    assert volume.data.shape == (1, 3, 2, 1)
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data[0, :, :, 0].T, GREY)
    np.testing.assert_array_equal(volume.affine, np.diag([-1, -1, 1, 1]))
    source = volume.source
    assert (source.kind, source.path, source.acquisition_axis) == ("photo", path, 2)
    assert not source.has_physical_size
    assert source.warnings == ()


COLOUR = np.stack([GREY, 255 - GREY, np.full_like(GREY, 7)], axis=-1)


@pytest.mark.parametrize(
    ("mode", "name", "channels", "tolerance"),
    [
        ("RGB", "a.png", 3, 0),
        ("RGB", "a.bmp", 3, 0),
        ("RGB", "a.tif", 3, 0),
        ("RGBA", "a.png", 3, 0),
        ("RGBX", "a.tiff", 3, 0),
        ("CMYK", "a.tif", 3, 1),
        ("YCbCr", "a.tif", 3, 3),
        ("L", "a.png", 1, 0),
        ("LA", "a.png", 1, 0),
    ],
)
def test_modes(tmp_path: Path, mode: str, name: str, channels: int, tolerance: int) -> None:
    wanted = COLOUR if channels == 3 else GREY
    image = Image.fromarray(wanted).convert(mode)
    data = read_photo(_save(image, tmp_path / name)).data
    assert data.shape == (channels, 3, 2, 1)
    found = data[..., 0].transpose(2, 1, 0).squeeze()
    assert np.abs(found - wanted).max() <= tolerance


def test_transparency_is_dropped_not_blended(tmp_path: Path) -> None:
    clear = np.dstack([COLOUR, np.zeros_like(GREY)])
    data = read_photo(_save(Image.fromarray(clear), tmp_path / "a.png")).data
    np.testing.assert_array_equal(data[..., 0].transpose(2, 1, 0), COLOUR)


def test_black_and_white(tmp_path: Path) -> None:
    data = read_photo(_save(Image.fromarray(GREY > 15), tmp_path / "a.png")).data
    np.testing.assert_array_equal(data[0, :, :, 0].T, [[0, 0, 255], [255, 255, 255]])


@pytest.mark.parametrize("options", [{}, {"transparency": b"\x00\x40"}])
def test_palette_is_looked_up(tmp_path: Path, options: dict[str, bytes]) -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 1]], dtype=np.uint8))
    image.putpalette([10, 20, 30, 200, 150, 100])
    data = read_photo(_save(image, tmp_path / "a.png", **options)).data
    assert data[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert data[:, 1, 0, 0].tolist() == [200, 150, 100]


def test_16_bits_become_8(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535], [514, 128, 30840]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        data = read_photo(_save(Image.fromarray(values), tmp_path / name)).data
        np.testing.assert_allclose(data[0, :, :, 0].T, values / 257, rtol=1e-6)
    assert data.max() == 255


@pytest.mark.parametrize("factor", [1 / 255, 1.0, 257.0])
def test_floating_point_tiff_of_unit_8_bit_or_16_bit_range(tmp_path: Path, factor: float) -> None:
    values = (GREY * factor).astype(np.float32)
    data = read_photo(_save(Image.fromarray(values), tmp_path / "a.tif")).data
    np.testing.assert_allclose(data[0, :, :, 0].T, GREY, atol=1e-4)


@pytest.mark.parametrize("values", [np.float32([[-1, 0]]), np.float32([[0, 1e6]]), np.int32([[0, 70000]])])
def test_values_beyond_16_bits(tmp_path: Path, values: np.ndarray) -> None:
    _refused(_save(Image.fromarray(values), tmp_path / "a.tif"), "E_PIXELS")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    _refused(_save(Image.fromarray(np.float32([[0.5, value]])), tmp_path / "a.tif"), "E_PIXELS")


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_rotation_is_carried_out(tmp_path: Path, orientation: int, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = _save(Image.fromarray(GREY), tmp_path / "a.png", exif=exif)
    volume = read_photo(path)
    np.testing.assert_array_equal(volume.data[0, :, :, 0].T, np.rot90(GREY, turn))
    said = () if orientation == 1 else ("the rotation in the EXIF data was carried out",)
    assert volume.source.warnings == said


def test_jpeg(tmp_path: Path) -> None:
    flat = Image.fromarray(np.full((9, 17), 100, dtype=np.uint8))
    data = read_photo(_save(flat, tmp_path / "a.JPG", format="JPEG")).data
    assert data.shape == (1, 17, 9, 1)
    np.testing.assert_allclose(data, 100, atol=1)


def test_pages_are_slices(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY + np.uint8(k)) for k in range(3)]
    path = _save(pages[0], tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    data = read_photo(path).data
    assert data.shape == (1, 3, 2, 3)
    for k in range(3):
        np.testing.assert_array_equal(data[0, :, :, k].T, GREY + np.uint8(k))


def test_pages_that_differ(tmp_path: Path) -> None:
    for other in (Image.fromarray(GREY[:1]), Image.fromarray(COLOUR)):
        path = _save(Image.fromarray(GREY), tmp_path / "a.tif", save_all=True, append_images=[other])
        _refused(path, "E_MATRIX")


def test_what_a_phone_stores_behind_its_picture_is_no_page(tmp_path: Path) -> None:
    behind = Image.fromarray(np.zeros((1, 2), dtype=np.uint8))
    flat = Image.fromarray(np.full((9, 17), 100, dtype=np.uint8))
    path = _save(flat, tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[behind])
    assert read_photo(path).data.shape == (1, 17, 9, 1)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp"])
def test_cut_off(tmp_path: Path, name: str) -> None:
    random = np.random.default_rng(19).integers(0, 255, (64, 64), dtype=np.uint8)
    path = _save(Image.fromarray(random), tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cut off" in _refused(path, "E_TRUNCATED")


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    _refused(tmp_path / "a.png", "E_PIXELS")


def test_header_that_announces_more_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    assert "too many pixels" in _refused(_save(Image.fromarray(GREY), tmp_path / "a.png"), "E_TOO_LARGE")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    _refused(tmp_path / "a.png", "E_TOO_LARGE")


def test_names() -> None:
    assert all(is_photo(Path(f"a.{suffix}")) for suffix in ("png", "JPG", "jpeg", "tif", "TIFF", "bmp"))
    assert not is_photo(Path("a.gif.txt"))


# files that hold what their name does not say


def test_only_pictures_are_opened_whatever_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")

    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", run)
    _refused(tmp_path / "a.png", "E_PIXELS")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jfif", "JPEG"),
        ("a.JPE", "JPEG"),
        ("a.webp", "WEBP"),
        ("a.jp2", "JPEG2000"),
        ("a.ppm", "PPM"),
        ("a.png", "GIF"),
    ],
)
def test_other_formats(tmp_path: Path, name: str, kind: str) -> None:
    flat = Image.fromarray(np.full((9, 17, 3), (100, 50, 20), dtype=np.uint8))
    assert is_photo(tmp_path / name)
    data = read_photo(_save(flat, tmp_path / name, format=kind)).data
    assert data.shape == (3, 17, 9, 1)
    np.testing.assert_allclose(data[:, 0, 0, 0], [100, 50, 20], atol=4)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_frames_of_an_animation_are_pages(tmp_path: Path, mode: str) -> None:
    frames = [Image.fromarray(np.full((4, 5, 3), 60 * k + 20, dtype=np.uint8)).convert(mode) for k in range(3)]
    path = _save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    data = read_photo(path).data
    assert data.shape == (3, 5, 4, 3)
    np.testing.assert_allclose(data[0, 0, 0], [20, 80, 140], atol=2)


# more than 8 bits


def _png(values: np.ndarray, colour: int, chunks: bytes = b"") -> bytes:
    """A PNG of 16 bits; colour type 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    bits = chunk(b"sBIT", chunks) if chunks else b""
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + bits + body


@pytest.mark.parametrize(
    ("largest", "white"),
    [(200, 255), (255, 255), (256, 1023), (1000, 1023), (3900, 4095), (16000, 16383), (60000, 65535)],
)
def test_scale_of_a_16_bit_file_is_the_smallest_that_holds_it(tmp_path: Path, largest: int, white: int) -> None:
    values = np.array([[0, largest // 2, largest], [1, 2, 3]], np.uint16)
    volume = read_photo(_save(Image.fromarray(values), tmp_path / "a.png"))
    np.testing.assert_allclose(volume.data[0, :, :, 0].T, values * (255.0 / white), rtol=1e-6)
    said = (f"no value is above {largest}: 0 to {white} were taken as black to white",)
    assert volume.source.warnings == (() if white == 65535 else said)


def test_what_a_file_says_of_its_bits_comes_first(tmp_path: Path) -> None:
    values = np.array([[0, 100, 900]], np.uint16)
    for bits, white in ((12, 4095), (16, 65535), (8, 1023)):  # of 8 bits 900 is none
        (tmp_path / "a.png").write_bytes(_png(values, 0, bytes([bits])))
        np.testing.assert_allclose(read_photo(tmp_path / "a.png").data.max(), 900 * 255 / white, rtol=1e-6)
    for most, white in ((4095, 4095), (65535, 65535), (500, 1023)):
        tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, extratags=[(281, 3, 1, most, True)])
        np.testing.assert_allclose(read_photo(tmp_path / "a.tif").data.max(), 900 * 255 / white, rtol=1e-6)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_colours_of_16_bits_keep_their_lower_half(tmp_path: Path, colour: int, channels: int) -> None:
    values = np.random.default_rng(2).integers(0, 3000, (5, 7, channels)).astype(np.uint16)
    values[0, 0] = 4000
    (tmp_path / "a.png").write_bytes(_png(values, colour))
    data = read_photo(tmp_path / "a.png").data
    shown = values[..., :1] if channels == 2 else values[..., :3]
    np.testing.assert_allclose(data[..., 0].transpose(2, 1, 0), shown * (255.0 / 4095), rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"byteorder": ">", "compression": "zlib"}]
)
def test_16_bit_colours_of_a_tiff(tmp_path: Path, options: dict[str, Any]) -> None:
    values = np.random.default_rng(3).integers(0, 65536, (4, 6, 3)).astype(np.uint16)
    values[0, 0] = 65535
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", metadata=None, **options)
    data = read_photo(tmp_path / "a.tif").data
    np.testing.assert_allclose(data[..., 0].transpose(2, 1, 0), values / 257, rtol=1e-5)
    planes = np.moveaxis(values, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", metadata=None, planarconfig="separate", **options)
    assert "separate planes" in _refused(tmp_path / "a.tif", "E_PIXELS")


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["bool", "uint8", "uint16", "12 of 16", "float32"])
def test_a_tiff_whose_zero_is_white(tmp_path: Path, kind: str, byteorder: Any, compression: str | None) -> None:
    grey = np.array([[0, 51, 255], [102, 204, 153]], np.uint8)
    values = {
        "bool": grey > 127,
        "uint8": grey,
        "uint16": grey.astype(np.uint16) * 257,
        "12 of 16": (grey.astype(np.uint16) * 16 + 15),
        "float32": (grey / 255).astype(np.float32),
    }[kind]
    white = {"bool": True, "uint8": 255, "uint16": 65535, "12 of 16": 4095, "float32": 1.0}[kind]
    wanted = (grey > 127) * 255.0 if kind == "bool" else grey
    options: dict[str, Any] = {"metadata": None, "byteorder": byteorder, "compression": compression}
    for name, stored in (("minisblack", values), ("miniswhite", white ^ values if kind == "bool" else white - values)):
        tifffile.imwrite(tmp_path / "a.tif", np.asarray(stored, values.dtype), photometric=name, **options)
        np.testing.assert_allclose(read_photo(tmp_path / "a.tif").data[0, :, :, 0].T, wanted, atol=1)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_all_eight_orientations(tmp_path: Path, turn: int, compression: str | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    _save(Image.fromarray(GREY), tmp_path / "a.png", exif=exif)
    tifffile.imwrite(
        tmp_path / "a.tif", GREY, metadata=None, compression=compression, extratags=[(0x0112, 3, 1, turn, True)]
    )
    with Image.open(tmp_path / "a.png") as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(read_photo(tmp_path / name).data[0, :, :, 0].T, wanted)
        assert orientation(tmp_path / name) == turn


def test_bands_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalyclip_monai.data.photo.BAND_PIXELS", 30)  # 2 of 7 rows at a time
    values = np.random.default_rng(4).integers(0, 256, (7, 13, 3), dtype=np.uint8)
    data = read_photo(_save(Image.fromarray(values), tmp_path / "a.png")).data
    np.testing.assert_array_equal(data[..., 0].transpose(2, 1, 0), values)


def test_a_picture_as_it_is_stored(tmp_path: Path) -> None:
    picture = read_picture(_save(Image.fromarray(COLOUR), tmp_path / "a.png"))
    np.testing.assert_array_equal(picture.values[..., 0].T, COLOUR.max(axis=-1))
    assert (picture.alpha, picture.lossy) == (None, False)
    assert picture.notes == ("of the colours in the mask the largest channel was taken",)
    assert read_picture(_save(Image.fromarray(COLOUR), tmp_path / "a.webp")).lossy
    assert not read_picture(_save(Image.fromarray(COLOUR), tmp_path / "b.webp", lossless=True)).lossy
    hidden = read_picture(_save(Image.fromarray(GREY), tmp_path / "b.png", transparency=20))
    assert hidden.alpha is not None
    assert np.argwhere(hidden.alpha == 0).tolist() == [[2, 0, 0]]


@pytest.mark.parametrize("name", ["a.jp2", "a.pgm"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_few_bits_in_16_of_jpeg_2000_and_pgm(tmp_path: Path, name: str, bits: int) -> None:
    grey = np.arange(0, 256, 3, dtype=np.uint16).repeat(4).reshape(4, -1)
    values = np.round(grey / 255 * (2**bits - 1)).astype(np.uint16)
    if name == "a.jp2":
        Image.fromarray(values).save(tmp_path / name)
    else:
        head = f"P5 {values.shape[1]} {values.shape[0]} 65535\n".encode()
        (tmp_path / name).write_bytes(head + values.astype(">u2").tobytes())
    volume = read_photo(tmp_path / name)
    np.testing.assert_allclose(volume.data[0, ..., 0].T, grey, atol=0.51)
    assert len(volume.source.warnings) == (bits < 16)


def test_what_pillow_stretches_to_16_bits_is_full_already(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 4095\n" + np.array([300, 4000], ">u2").tobytes())
    volume = read_photo(tmp_path / "a.pgm")
    np.testing.assert_allclose(volume.data[0, :, 0, 0], np.array([300, 4000]) / 4095 * 255, atol=0.01)
    assert volume.source.warnings == ()


def test_signed_bytes_are_refused(tmp_path: Path) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[339] = 2
    Image.fromarray(np.array([[0, 200]], np.uint8)).save(tmp_path / "a.tif", tiffinfo=info)
    with pytest.raises(CaseError, match="E_PIXELS: signed values of 8 bits"):
        read_photo(tmp_path / "a.tif")
