"""Read photos and frames as volumes of one slice, or of several for a file of pages; and masks as they are stored."""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from anomalyclip_monai.data.volume import Source, Volume
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import Affine, FloatArray, PathLike

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")
"""What Pillow may open, whatever a file is called: of its other formats some start programs, such as Ghostscript.

The MPO of phones is opened as JPEG.
"""

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".j2k"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)

MAX_VALUES = 390_000_000
"""Most values of all pages of a file: of each pixel its channels, as float32, and as much as three more for its heatmap
and mask. That is 65 megapixels in colour, and keeps a case of the shipped model under 2.5 GB of memory."""

BESIDE_CHANNELS = 3

BAND_PIXELS = 2**20
"""Pixels that pass at a time from Pillow's memory to the volume's, so that no third copy of a photo is made."""

FULL_SCALES = (255, 1023, 4095, 16383, 65535)
"""White in files that may hold 16 bits: of 8, 10, 12, 14 and all 16 of them."""

ROTATED = "the rotation in the EXIF data was carried out"
COLOURED = "of the colours in the mask the largest channel was taken"

# 16 bits with 0 as white, which Pillow knows in little-endian order only; in both 0 is still to be made black.
TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))

_ORIENTATION, _BITS, _PHOTOMETRIC, _MAX_SAMPLE, _PLANAR = 274, 258, 262, 281, 284
_SAMPLE_FORMAT = 339
_WHITE_IS_ZERO, _SEPARATE_PLANES, _SIGNED = 0, 2, 2
_CODESTREAM, _PRECISION_AT = b"\xff\x4f\xff\x51", 42
"""JPEG 2000: the markers SOC and SIZ, and the byte with the precision from there (ISO/IEC 15444-1 A.5.1)."""
_SWAPPED = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")


class StoredPicture(NamedTuple):
    """The values of a picture as they are stored, (X columns, Y rows, Z pages), for masks.

    Attributes:
        values: the index of a palette, 16 bits undivided, of colours the largest channel.
        alpha: opacity from 0 up; None where the file knows no transparency.
        lossy: compressed as a photo, so that values are not exact.
        notes: what was done to it, one sentence each.
    """

    values: FloatArray
    alpha: NDArray[np.uint8] | None
    lossy: bool
    notes: tuple[str, ...]


def is_photo(path: Path) -> bool:
    """Whether the name is that of a photo."""
    return path.suffix.lower() in SUFFIXES


def photo_affine() -> Affine:
    """(4, 4) of pixels: column to the patient's left, row to posterior, so that a photo is upright as it is."""
    return np.diag([-1.0, -1.0, 1.0, 1.0])


def read_photo(path: PathLike) -> Volume:
    """Read a photo, (1|3, X columns, Y rows, Z pages) float32 on the scale of 8 bits, 0 to 255.

    Frames of an animation are pages. Transparency is dropped, a rotation in the EXIF data is carried out, and 0 is
    black even where a TIFF stores it as white. Values of more than 8 bits are scaled so that 255, 1023, 4095, 16383 or
    65535 becomes 255, the smallest that holds the largest of them, unless the file says how many bits it uses (sBIT of
    PNG; BitsPerSample or MaxSampleValue of TIFF); a note says so where it is not 65535.

    Raises:
        CaseError: ``E_PIXELS``, ``E_TRUNCATED``, ``E_TOO_LARGE``, ``E_MATRIX``.
    """
    path = Path(path)
    with _one_error(path), _opened(path) as image:
        said = _said_scale(image, path)
        data, depths, notes = _filled(image, path, stored=False)
    if depths[0].deep:
        notes += _to_8_bits(data, depths, said, path)
    source = Source("photo", path, acquisition_axis=2, has_physical_size=False, warnings=tuple(notes))
    return Volume(data, photo_affine(), source)


def read_picture(path: PathLike) -> StoredPicture:
    """Read a mask, turned by its own EXIF data.

    Raises:
        CaseError: see :func:`read_photo`.
    """
    path = Path(path)
    with _one_error(path), _opened(path) as image:
        lossy = image.format in ("JPEG", "MPO") or image.info.get("compression") in _LOSSY_TIFF or _is_lossy_webp(path)
        planes, depths, notes = _filled(image, path, stored=True)
    values, alpha = planes[0], planes[1].astype(np.uint8)
    for page, depth in enumerate(depths):
        if depth.white_is_zero:
            values[..., page] = depth.white(float(np.nanmax(values[..., page]))) - values[..., page]
    return StoredPicture(values, None if (alpha == 255).all() else alpha, lossy, tuple(notes))


def orientation(path: PathLike) -> int:
    """The orientation in the EXIF data, 1 to 8; 1, upright as it is stored, where there is none.

    Raises:
        CaseError: see :func:`read_photo`.
    """
    path = Path(path)
    with _one_error(path), _opened(path) as image:
        # In a PNG Pillow looks behind the pixels, which it decodes for that, while the chunk belongs before them.
        return 1 if image.format == "PNG" and "exif" not in image.info else _orientation(image)


@contextlib.contextmanager
def _one_error(path: Path) -> Iterator[None]:
    """Turn whatever Pillow raises in a damaged file into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on damaged tags that say nothing of the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except CaseError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise CaseError("E_TOO_LARGE", "the header announces too many pixels", path, "scale it down") from error
    except Exception as error:  # Pillow's decoders raise whatever they meet in a damaged file
        truncated = "truncated" in str(error).lower() or "broken data" in str(error).lower()
        code = "E_TRUNCATED" if truncated else "E_PIXELS"
        what = "the file is cut off" if truncated else f"not a readable image ({type(error).__name__})"
        raise CaseError(code, what, path, "copy it again") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The file, not decoded yet; not by its name, since Pillow maps such a TIFF into memory without its rotation."""
    with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
        yield image


class _Depth(NamedTuple):
    """How a page holds its values, known before it is decoded.

    Attributes:
        deep: they may go beyond 8 bits.
        floating: they are floating-point numbers, and white is 1 where none is above it.
        white_is_zero: 0 is white, and Pillow, which turns up to 8 bits itself, leaves it so.
        colours: the decoder's mode of 16-bit colours, of which Pillow keeps the upper 8; else empty.
    """

    deep: bool
    floating: bool
    white_is_zero: bool
    colours: str

    @classmethod
    def of(cls, page: ImageFile.ImageFile, path: Path) -> _Depth:
        """A page that was not decoded yet."""
        tags: Any = getattr(page, "tag_v2", {})
        raw = _raw_mode(page.tile[0]) if page.tile and page.mode in ("RGB", "RGBA") else ""
        if raw and max(tags.get(_BITS, (8,))) > 8 and tags.get(_PLANAR) == _SEPARATE_PLANES:
            # Pillow takes the bytes of a plane for pixels.
            what = "colours of 16 bits in separate planes are not supported"
            raise CaseError("E_PIXELS", what, path, "save it with interleaved channels")
        colours = raw if raw[-4:-1] == ";16" else ""
        if _SIGNED in tags.get(_SAMPLE_FORMAT, ()) and max(tags.get(_BITS, (1,))) <= 8:
            what = "signed values of 8 bits are not supported"  # Pillow takes them for unsigned ones
            raise CaseError("E_PIXELS", what, path, "save it with unsigned values")
        plain = page.mode[0] in "IF"
        white_is_zero = plain and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return cls(plain or bool(colours), page.mode == "F", white_is_zero, colours)

    def white(self, largest: float, said: int | None = None) -> int:
        """The value that is white where 0 is black.

        Args:
            largest: of all values.
            said: what the file says that its bits can hold.
        """
        if self.floating and largest <= 1:
            return 1
        if said is not None and not self.floating and largest <= said:
            return said
        return next((scale for scale in FULL_SCALES if largest <= scale), FULL_SCALES[-1])


def _filled(image: ImageFile.ImageFile, path: Path, *, stored: bool) -> tuple[FloatArray, list[_Depth], list[str]]:
    """All pages of a file just opened -> (C, X, Y, Z) float32, how each holds its values, and notes.

    Args:
        image: the file.
        path: of the file.
        stored: values as they are stored, of colours the largest channel, and the opacity, rather than what is seen.
    """
    # A phone's MPO file is one picture, with a thumbnail or a depth map behind it.
    pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    data: FloatArray | None = None
    depths, is_rotated, is_coloured = [], False, False
    for page in range(pages):
        if page:
            image.seek(page)
        channels = min(3, len(image.getbands())) if not stored else 1  # a mask may be as large as a grey picture
        if image.width * image.height * (channels + BESIDE_CHANNELS) * pages > MAX_VALUES:
            what = f"{image.width} x {image.height} pixels" + (f" in {pages} pages" if pages > 1 else "")
            raise CaseError("E_TOO_LARGE", f"{what} are more than are read", path, "scale it down, or cut it")
        depths.append(_Depth.of(image, path))  # before the EXIF data: Pillow may decode the file to find them
        is_rotated |= _orientation(image) != 1
        with contextlib.ExitStack() as stack:
            low = _low_bytes(stack, path, page, depths[-1].colours) if depths[-1].colours else None
            if image.format == "TIFF":
                _in_native_order(image)
            image.load()
            turn = _orientation(image)  # what Pillow did not carry out itself
            width, height = (image.height, image.width) if turn > 4 else image.size
            rows = max(1, BAND_PIXELS // image.width)
            for top in range(0, image.height, rows):
                bottom = min(top + rows, image.height)
                box = (0, top, image.width, bottom)
                part = image.crop(box)
                if low is not None:
                    band = _deep_colours(part, low.crop(box), depths[-1].colours)
                    band = band if stored else band[..., : 1 if band.shape[-1] == 2 else 3]
                else:
                    part = _plain(part, stored, animated=pages > 1 and image.format == "GIF")
                    band = np.atleast_3d(np.asarray(part))
                if stored:
                    band = _with_opacity(band, part.mode, image.info.get("transparency"))
                    is_coloured |= bool((band[..., 1:-1] != band[..., :1]).any())
                    band = np.stack([band[..., :-1].max(axis=-1), band[..., -1]], axis=-1)
                if data is None:
                    data = np.empty((band.shape[-1], width, height, pages), np.float32)
                if data.shape[:3] != (band.shape[-1], width, height):
                    raise CaseError("E_MATRIX", "its pages have different sizes", path, "save them as single files")
                _turned(data[..., page], turn)[:, :, top:bottom] = band.transpose(2, 1, 0)
    assert data is not None  # a file has a page, and a page a row
    notes = {ROTATED: is_rotated, COLOURED: is_coloured}
    return data, depths, [note for note, applies in notes.items() if applies]


def _plain(part: Image.Image, stored: bool, *, animated: bool = False) -> Image.Image:
    """A band in a mode whose numbers are grey values or colours, or what is stored.

    Args:
        part: a band.
        stored: keep indices of a palette and opacity.
        animated: a frame of a GIF, of which Pillow gives the first in grey and others in colour.
    """
    if animated and not stored:
        return part.convert("RGB")
    if part.mode[0] in "IF" or part.mode in ("L", "RGB"):
        return part
    if stored:
        return part if part.mode in ("1", "P", "LA", "La", "PA", "RGBA", "RGBa") else part.convert("RGB")
    if part.mode in ("1", "LA", "La"):
        return part.convert("L")
    return part.convert("RGBA").convert("RGB") if part.mode in ("P", "PA") else part.convert("RGB")


def _with_opacity(band: NDArray[Any], mode: str, transparent: Any) -> NDArray[Any]:
    """(H, W, C) as it is stored -> (H, W, C + 1), last the opacity, 0 to 255.

    Args:
        band: a band.
        mode: Pillow's name for it.
        transparent: what the file says of it: an index or a value, or the opacity of each index of a palette.
    """
    if band.dtype == bool:
        band = band.astype(np.uint8)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        return band
    if isinstance(transparent, bytes) and mode == "P":
        table = np.full(256, 255, np.uint8)
        table[: len(transparent)] = np.frombuffer(transparent[:256], np.uint8)
        alpha = table[band]
    elif isinstance(transparent, (int, tuple)):
        hidden = int(transparent > 0) if mode == "1" and isinstance(transparent, int) else transparent
        alpha = np.where((band == hidden).all(axis=-1, keepdims=True), 0, 255)
    else:
        alpha = np.full_like(band[..., :1], 255)
    return np.concatenate([band, alpha.astype(band.dtype)], axis=-1)


def _low_bytes(stack: contextlib.ExitStack, path: Path, page: int, colours: str) -> ImageFile.ImageFile:
    """The page decoded with its bytes swapped, so that Pillow keeps the lower half of 16-bit colours.

    Grey with alpha, for which it has no such mode, is decoded byte by byte into four channels.
    """
    low = stack.enter_context(_opened(path))
    if page:
        low.seek(page)
    raw = "RGBA" if colours.startswith("LA") else colours[:-1] + _SWAPPED[colours[-1]]
    low.tile = [_with_raw_mode(tile, raw) for tile in low.tile]
    low.load()
    return low


def _deep_colours(high: Image.Image, low: Image.Image, colours: str) -> NDArray[Any]:
    """Both halves of a band -> (H, W, 2|3|4) uint16; the last of 2 or 4 is the opacity, 0 to 255."""
    upper, lower = np.asarray(high).astype(np.uint16), np.asarray(low).astype(np.uint16)
    if colours.startswith("LA"):
        return np.stack([lower[..., 0] * 256 + lower[..., 1], lower[..., 2]], axis=-1)
    return np.concatenate([upper[..., :3] * 256 + lower[..., :3], upper[..., 3:]], axis=-1)


def _in_native_order(page: ImageFile.ImageFile) -> None:
    """Tell Pillow that libtiff has put the bytes of a big-endian file in order; it turns wide numbers once more."""
    tile = page.tile[0]
    if tile[0] == "libtiff" and (raw := _raw_mode(tile)).endswith((";16BS", ";32BS", ";32BF")):
        page.tile = [_with_raw_mode(tile, raw.replace("B", "N"))]


def _raw_mode(tile: Any) -> str:
    """How the bytes of a part of the file lie, in Pillow's words, such as ``RGB;16B``."""
    args = tile[3]
    return str(args[0] if isinstance(args, tuple) else args)


def _with_raw_mode(tile: Any, raw: str) -> Any:
    args = (raw, *tile[3][1:]) if isinstance(tile[3], tuple) else raw
    return getattr(tile, "_make", tuple)([*tile[:3], args])


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(shown: NDArray[Any], turn: int) -> NDArray[Any]:
    """View of an upright picture (C, X, Y) in which (C, column, row) of the stored one lie, by EXIF orientation."""
    match turn:
        case 2:
            return shown[:, ::-1]
        case 3:
            return shown[:, ::-1, ::-1]
        case 4:
            return shown[:, :, ::-1]
        case 5:
            return shown.swapaxes(1, 2)
        case 6:
            return shown[:, ::-1].swapaxes(1, 2)
        case 7:
            return shown[:, ::-1, ::-1].swapaxes(1, 2)
        case 8:
            return shown[:, :, ::-1].swapaxes(1, 2)
    return shown


def _said_scale(image: ImageFile.ImageFile, path: Path) -> int | None:
    """What a file just opened says to be the largest value that its bits can hold; None where it says nothing."""
    if image.format in ("JPEG2000", "PPM"):
        # Pillow stretches what it reads to 16 bits, unless the file has 16 of them.
        return FULL_SCALES[-1] if _stored_bits(image, path) < 16 else None
    if image.format == "PNG":
        bits = _significant_bits(path)
        return None if bits is None or bits > 16 else 2**bits - 1
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        bits = max(tags.get(_BITS, (1,)))
        if 8 < bits < 16:
            return int(2**bits - 1)
        if (most := tags.get(_MAX_SAMPLE)) is not None:
            return next((scale for scale in FULL_SCALES if np.max(most) <= scale), None)
    return None


def _stored_bits(image: ImageFile.ImageFile, path: Path) -> int:
    """Bits of the values in a JPEG 2000 or PPM file just opened, 0 where that is not found."""
    if image.format == "PPM":
        return 16 if _raw_mode(image.tile[0]) == "I;16B" else 0
    with open(path, "rb") as file:
        head = file.read(2**16)
    start = head.find(_CODESTREAM)
    sizes = head[start + _PRECISION_AT : start + _PRECISION_AT + 1]
    return (sizes[0] & 127) + 1 if start >= 0 and sizes else 0


def _significant_bits(path: Path) -> int | None:
    """The sBIT chunk of a PNG, the most of its channels without alpha (PNG specification, section 11.3.2.4)."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT":
                bits = file.read(min(length, 4))
                return max(bits[:-1] if len(bits) in (2, 4) else bits, default=None)
            if kind == b"IDAT":
                return None
            file.seek(length + 4, 1)
    return None


def _is_lossy_webp(path: Path) -> bool:
    """Whether a file is a WebP picture whose first frame is not lossless."""
    with open(path, "rb") as file:
        head = file.read(4096)
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP" and b"VP8 " in head and b"VP8L" not in head


def _to_8_bits(data: FloatArray, depths: Sequence[_Depth], said: int | None, path: Path) -> list[str]:
    """Scale (C, X, Y, Z) values in place to 0 to 255; -> a note where white is neither 1 nor the largest of 16 bits.

    Args:
        data: the values.
        depths: of each page.
        said: see :meth:`_Depth.white`.
        path: the file.

    Raises:
        CaseError: values are not finite, negative or beyond 16 bits (``E_PIXELS``).
    """
    lowest, largest = float(data.min()), float(data.max())
    if not np.isfinite([lowest, largest]).all():
        raise CaseError("E_PIXELS", "pixels are NaN or infinite", path, "check how the file was made")
    if lowest < 0 or largest > FULL_SCALES[-1]:
        raise CaseError("E_PIXELS", "pixel values are beyond 16 bits or negative", path, "save it with 8 or 16 bits")
    white = depths[0].white(largest, said)
    for page, depth in enumerate(depths):
        if depth.white_is_zero:
            np.subtract(white, data[..., page], out=data[..., page])
    data *= np.float32(255)  # exact up to 16 bits, so that white becomes 255
    data /= np.float32(white)
    if white == FULL_SCALES[-1] or not largest or (depths[0].floating and white <= 255):
        return []
    return [f"no value is above {largest:g}: 0 to {white} were taken as black to white"]
