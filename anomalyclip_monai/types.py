"""Shapes and small aliases that several modules share.

Letters in shapes: ``B`` batch, ``C`` channels, ``H`` rows and ``W`` columns of a slice, ``X Y Z`` the axes of a
volume as stored, ``N`` patches, ``D`` feature width.
"""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

PathLike: TypeAlias = str | os.PathLike[str]
Affine: TypeAlias = NDArray[np.float64]
"""(4, 4): voxel index to world position in RAS millimetres."""
FloatArray: TypeAlias = NDArray[np.float32]
Record: TypeAlias = dict[str, Any]
"""One case on its way through MONAI's dictionary transforms."""

UNCALIBRATED = "uncalibrated"
"""Origin of a threshold that was fitted to nothing."""
