"""A bundle, a small case for it, and MONAI's command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from anomalyclip_monai import resources

AFFINE = np.array([[-0.9, 0.02, 0.1, 40.0], [0.02, 0.9, -0.3, -50.0], [0.0, 0.1, 4.0, -20.0], [0, 0, 0, 1]])


@pytest.fixture(scope="session")
def bundle() -> Path:
    return resources.bundle_root("tiny")


@pytest.fixture(params=["tiny", "vitl14_336"])
def any_bundle(request: pytest.FixtureRequest) -> Path:
    """Each bundle as it is shipped, with weights or without."""
    return resources.bundle_root(request.param)


def make_case(path: Path, seed: int = 0, shape: tuple[int, int, int] = (44, 52, 5)) -> Path:
    """A noisy ellipsoid with a bright ball in it, H != W != D, oblique."""
    random = np.random.default_rng(seed)
    x, y, z = (np.linspace(-1, 1, count) for count in shape)
    inside = x[:, None, None] ** 2 + y[None, :, None] ** 2 + 0.3 * z[None, None, :] ** 2 < 0.8
    ball = (x[:, None, None] - 0.3) ** 2 + (y[None, :, None] + 0.2) ** 2 + z[None, None, :] ** 2 < 0.06
    data = np.where(inside, 300 + 500 * ball, 0) + random.normal(0, 8, shape) * inside
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype(np.float32), AFFINE), path)
    return path


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return make_case(tmp_path / "data" / "case.nii.gz")


@pytest.fixture(scope="session")
def two_slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest volume that has slices, for a large model."""
    return make_case(tmp_path_factory.mktemp("data") / "case.nii.gz", shape=(44, 52, 2))


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A folder with three cases of different sizes."""
    for seed in range(3):
        make_case(tmp_path / "data" / f"case{seed}.nii.gz", seed, (44 + seed, 52, 4 + seed))
    return tmp_path / "data"


@pytest.fixture(scope="session")
def monai_bundle() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``python -m monai.bundle ...`` in a given folder; -> the finished process with its output."""

    def run(
        *arguments: str, cwd: Path, launcher: tuple[str, ...] = (sys.executable, "-m")
    ) -> subprocess.CompletedProcess[str]:
        # Sums depend on the number of threads: as many as here, so that results are equal to the last bit.
        threads = str(torch.get_num_threads())
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(
            [*launcher, "monai.bundle", *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.fixture
def run_bundle(bundle: Path, monai_bundle, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the bundle on a folder from a folder that is not its own."""

    def run(dataset: Path, output: Path) -> subprocess.CompletedProcess[str]:
        places = {"bundle_root": bundle, "config_file": bundle / "configs" / "inference.json"}
        places |= {"dataset_dir": dataset, "output_dir": output}
        arguments = [part for name, place in places.items() for part in (f"--{name}", str(place))]
        return monai_bundle("run", *arguments, cwd=tmp_path)

    return run
