"""Read photos and frames (PNG, JPEG, TIFF, BMP) as volumes of one slice, or of several for a multi-page file."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from anomalyclip_monai.data.volume import Source, Volume
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import Affine, PathLike

MAX_VALUES = 2**28
"""Most values, pixels times channels, of all pages of a file: 1 GiB as float32."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def is_photo(path: Path) -> bool:
    """Whether the name is that of a photo."""
    return path.suffix.lower() in SUFFIXES


def photo_affine() -> Affine:
    """(4, 4) of pixels: column to the patient's left, row to posterior, so that a photo is upright as it is."""
    return np.diag([-1.0, -1.0, 1.0, 1.0])


def read_photo(path: PathLike) -> Volume:
    """Read a photo, (1|3, X columns, Y rows, Z pages) float32 on the scale of 8 bits, 0 to 255.

    16-bit values are divided by 257. Transparency is dropped, a rotation in the EXIF data is carried out.

    Raises:
        CaseError: ``E_PIXELS``, ``E_TRUNCATED``, ``E_TOO_LARGE``, ``E_MATRIX``.
    """
    path = Path(path)
    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on damaged tags that say nothing of the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.getexif().get(0x0112, 1) != 1:
                    notes.append("the rotation in the EXIF data was carried out")
                # a phone's MPO file is one picture, with a thumbnail or a depth map behind it
                frames = [image] if image.format == "MPO" else ImageSequence.Iterator(image)
                pages, left = [], MAX_VALUES
                for page in frames:
                    left -= page.width * page.height * len(page.getbands())
                    if left < 0:
                        raise Image.DecompressionBombError
                    pages.append(_pixels(ImageOps.exif_transpose(page), path))
    except CaseError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise CaseError("E_TOO_LARGE", "the header announces too many pixels", path, "scale it down") from error
    except Exception as error:  # Pillow's decoders raise whatever they meet in a damaged file
        truncated = "truncated" in str(error).lower() or "broken data" in str(error).lower()
        code = "E_TRUNCATED" if truncated else "E_PIXELS"
        what = "the file is cut off" if truncated else f"not a readable image ({type(error).__name__})"
        raise CaseError(code, what, path, "copy it again") from error
    if len({page.shape for page in pages}) > 1:
        raise CaseError("E_MATRIX", "its pages have different sizes", path, "save them as single files")
    data = np.stack(pages, axis=-1)
    if not np.isfinite(data).all():
        raise CaseError("E_PIXELS", "pixels are NaN or infinite", path, "check how the file was made")
    source = Source("photo", path, acquisition_axis=2, has_physical_size=False, warnings=tuple(notes))
    return Volume(data, photo_affine(), source)


def _pixels(page: Image.Image, path: Path) -> np.ndarray:
    """-> (1|3, columns, rows) float32 from 0 to 255."""
    if page.mode in ("1", "LA", "La"):
        page = page.convert("L")
    elif page.mode in ("P", "PA"):
        page = page.convert("RGBA").convert("RGB")
    elif page.mode not in ("L", "RGB", "F", "I") and not page.mode.startswith("I;16"):
        page = page.convert("RGB")
    pixels = np.asarray(page, dtype=np.float32)
    if page.mode.startswith("I") or (page.mode == "F" and pixels.max() > 255):
        pixels = pixels / np.float32(257)
    elif page.mode == "F" and pixels.max() <= 1:
        pixels = pixels * np.float32(255)
    if page.mode[0] in "IF" and not (pixels.min() >= 0 and pixels.max() <= 255):
        raise CaseError("E_PIXELS", "pixel values are beyond 16 bits or negative", path, "save it with 8 or 16 bits")
    return np.ascontiguousarray(pixels.T[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 1, 0))
