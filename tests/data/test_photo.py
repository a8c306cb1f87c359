from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalyclip_monai.data.photo import is_photo, read_photo
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
