"""What a viewer gets of a result: the mask, the heatmap in three bands, or the heatmap itself, as a file."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.outputs.nifti import write_nifti
from anomalyclip_monai.transforms.findings import Threshold
from anomalyclip_monai.types import Affine

MASK, BANDS, HEATMAP = "anomaly", "anomaly_bands", "anomaly_heatmap"
"""Names of the models that viewers list."""

BAND_NAMES = ("mildly abnormal", "marked lesion", "lesion core")
"""Labels 1, 2 and 3 of the bands. OHIF makes a label's colour of its name: blue, green and red, bright on grey."""

EXTENSIONS = (".nii.gz", ".nii", ".nrrd")


@dataclass(frozen=True, slots=True)
class View:
    """A model of the server.

    Attributes:
        name: of the model.
        description: one sentence.
        labels: name -> value in the file; viewers number them from 1 without a gap.
        floating: whether the file holds values between 0 and 1.
    """

    name: str
    description: str
    labels: Mapping[str, int]
    floating: bool = False

    def volume(self, result: Result) -> np.ndarray:
        """(X, Y, Z) uint8, or float32 of a heatmap."""
        heatmap, mask = np.asarray(result.heatmap)[0], np.asarray(result.mask)[0]
        if self.name == MASK:
            return mask
        return bands(heatmap, mask, result.threshold) if self.name == BANDS else heatmap

    def dtype(self, wanted: Any) -> np.dtype[Any]:
        """Type of the file's values: what was asked for, else that of :meth:`volume`.

        Raises:
            UsageError: it is none that could hold them (``E_OPTION``).
        """
        if not wanted:
            return np.dtype(np.float32 if self.floating else np.uint8)
        try:
            found = np.dtype(wanted)
        except TypeError:
            found = np.dtype(object)
        if found.kind not in ("f" if self.floating else "iuf"):
            why = "values from 0 to 1" if self.floating else "labels"
            todo = f"ask for {'float32' if self.floating else 'uint8'}"
            raise UsageError("E_OPTION", f"result_dtype {wanted!r} does not hold {why} ({self.name})", None, todo)
        return found

    def extension(self, wanted: Any) -> str:
        """Ending of the file's name.

        Raises:
            UsageError: it is none that is written (``E_OPTION``).
        """
        found = str(wanted or EXTENSIONS[0])
        if found not in EXTENSIONS:
            raise UsageError("E_OPTION", f"result_extension {found!r}", None, f"choose from: {', '.join(EXTENSIONS)}")
        return found

    def write(self, result: Result, extension: str, dtype: np.dtype[Any]) -> Path:
        """A new file in the temporary folder; clients keep its name, and no two answers have the same."""
        case = re.sub(r"[^A-Za-z0-9]+", "-", result.case)[-40:].strip("-")
        handle, name = tempfile.mkstemp(prefix=f"{self.name}-{case}-", suffix=extension)
        os.close(handle)
        path, data = Path(name), self.volume(result).astype(dtype, copy=False)
        if extension == ".nrrd":
            write_nrrd(path, data, result.affine)
        else:
            write_nifti(path, data, result.affine, result.source.grid)
        return path


VIEWS = {
    view.name: view
    for view in (
        View(MASK, "Mask of what looks abnormal", {BAND_NAMES[1]: 1}),
        View(
            BANDS,
            "The mask with its core, and what is mildly abnormal around it",
            {name: value for value, name in enumerate(BAND_NAMES, start=1)},
        ),
        View(HEATMAP, "The heatmap, from 0 to 1", {"heatmap": 1}, floating=True),
    )
}


def edges(threshold: Threshold) -> tuple[float, float, float]:
    """Heatmap values from which on the bands begin: half of the outline, the outline, and half-way from threshold to 1.

    >>> edges(Threshold(0.6, 0.4, "given"))
    (0.2, 0.4, 0.8)
    """
    return threshold.low / 2, threshold.low, (1 + threshold.value) / 2


def bands(heatmap: np.ndarray, mask: np.ndarray, threshold: Threshold) -> np.ndarray:
    """(X, Y, Z) uint8: 2 and 3 are the mask, 3 from the third of :func:`edges` on; 1 is what else reaches the first."""
    lowest, _, core = edges(threshold)
    found = ((heatmap >= lowest) & (heatmap > 0)).astype(np.uint8)
    found[mask > 0] = 2
    found[(mask > 0) & (heatmap >= core)] = 3
    return found


def write_nrrd(path: Path, data: np.ndarray, affine: Affine) -> None:
    """Write (X, Y, Z) as NRRD in LPS mm, the axes as they are in the affine, sheared ones too."""
    import nrrd  # of the extra

    to_lps = np.diag([-1.0, -1.0, 1.0])
    header = {
        "space": "left-posterior-superior",
        "kinds": ["domain"] * 3,
        "space directions": (to_lps @ affine[:3, :3]).T,
        "space origin": to_lps @ affine[:3, 3],
        "encoding": "gzip",
    }
    nrrd.write(str(path), data, header, index_order="F", compression_level=1)
