"""The bundles in MONAI Label's own app: its real task class, on grids of every kind."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from random_weights import write_backbone, write_prompts

import anomalyclip_monai as ac
from anomalyclip_monai import resources
from anomalyclip_monai.label import compat
from anomalyclip_monai.options import CaseOptions

pytestmark = [
    pytest.mark.label,
    pytest.mark.timeout(280),
    pytest.mark.filterwarnings("ignore"),  # of MONAI Label and what it imports
]

GRIDS = {
    "straight": np.diag([2.7, 2.7, 5.0, 1.0]),
    "las": np.diag([-2.7, 2.7, 5.0, 1.0]),
    "oblique": np.array(
        [[-0.9, 0, 0, 40.0], [0, 0.8 * 0.9, -0.6 * 5, -50.0], [0, 0.6 * 0.9, 0.8 * 5, -20], [0, 0, 0, 1]]
    ),
}
"""The oblique one is turned by an angle of sine .6; ITK, by which MONAI Label writes, refuses to shear."""


def make_case(path: Path, affine: np.ndarray, slices: int) -> Path:
    """A noisy disc with a bright spot, 44 x 52 pixels."""
    random = np.random.default_rng(0)
    x, y = np.linspace(-1, 1, 44)[:, None, None], np.linspace(-1, 1, 52)[None, :, None]
    inside, spot = x**2 + y**2 < 0.8, (x - 0.3) ** 2 + (y + 0.2) ** 2 < 0.06
    data = np.where(inside, 300 + 500 * spot, 0) + random.normal(0, 8, (44, 52, slices)) * inside
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
    return path


@pytest.fixture(scope="module")
def task_of(monai_label: None) -> Callable[[Path], Any]:
    """MONAI Label's task for a bundle's folder."""
    compat.apply()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monailabel.tasks.infer.bundle import BundleInferTask
    return lambda folder: BundleInferTask(str(folder), {})


@pytest.fixture(scope="module")
def tiny(task_of: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """That of the embedded model, its first network alone."""
    folder = tmp_path_factory.mktemp("bundle") / "anomalyclip_tiny"
    shutil.copytree(resources.bundle_root("tiny"), folder)
    file = resources.inference_config(folder)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fast": True}))
    return task_of(folder)


def answer(task: Any, case: Path, **options: Any) -> tuple[nib.Nifti1Image, dict[str, Any]]:
    """What the app answers; a viewer sends every option with each request."""
    shown = {name: value for name, value in task.config().items() if name not in ("device", "model_filename")}
    file, params = task({"image": str(case), "device": "cpu", "result_extension": ".nii.gz", **shown, **options})
    stored = nib.load(file)
    found = nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine)
    Path(file).unlink()
    return found, params


@pytest.mark.parametrize("grid", GRIDS)
def test_the_mask_is_the_commands(tiny, tmp_path, grid):
    case = make_case(tmp_path / "case.nii.gz", GRIDS[grid], 5)
    found, params = answer(tiny, case)
    expected = ac.localize(case, fast=True, device="cpu")
    assert expected.lesions
    assert np.array_equal(np.asarray(found.dataobj), np.asarray(expected.mask)[0])
    tolerance = 1e-5 if grid == "oblique" else 0  # ITK turns with doubles, the file has float32
    assert np.allclose(found.affine, nib.load(case).affine, rtol=0, atol=tolerance)
    assert params["score"] == pytest.approx(expected.score, abs=1e-6)


def test_options_of_a_request_act(tiny, tmp_path):
    case = make_case(tmp_path / "case.nii.gz", GRIDS["oblique"], 5)
    assert {known.name for known in CaseOptions.known() if known.displayed} <= set(tiny.config())
    masks = []
    for options in (
        {"threshold": 0.9},
        {"threshold": "0.2"},
        {"preset": "ct_abdomen"},
        {"slice_axis": "0", "axes": "1"},
    ):
        found, _ = answer(tiny, case, **options)
        expected = np.asarray(ac.localize(case, fast=True, device="cpu", **options).mask)[0]
        assert np.array_equal(np.asarray(found.dataobj), expected), options
        masks.append(expected)
    assert (masks[0] < masks[1]).any()


@pytest.mark.parametrize("name", [known.name for known in CaseOptions.known() if known.displayed])
def test_nonsense_is_never_answered(tiny, tmp_path, name):
    case = make_case(tmp_path / "case.nii.gz", GRIDS["oblique"], 2)
    with pytest.raises(RuntimeError, match="Failed to instantiate"):
        answer(tiny, case, **{name: "nonsense"})


def test_the_published_model_with_weights_in_its_folder(task_of, tmp_path):
    """Random weights of full size; slices are 70 pixels wide."""
    folder = tmp_path / "anomalyclip_vitl14_336"
    shutil.copytree(resources.bundle_root("vitl14_336"), folder, ignore=shutil.ignore_patterns("models"))
    file = resources.inference_config(folder)
    config = json.loads(file.read_text())
    config["settings"]["image_size"] = 70
    file.write_text(json.dumps(config | {"precision": "bf16"}))
    write_backbone(folder / "models" / "open_clip_model.safetensors", "ViT-L-14-336-quickgelu", "bf16")
    write_prompts(folder / "models" / "model.pt")
    case = make_case(tmp_path / "case.nii.gz", GRIDS["oblique"], 2)
    expected = ac.localize(case, model=str(folder), device="cpu", threshold="quantile:0.9", min_volume=0)
    threshold = expected.threshold.value
    found, params = answer(task_of(folder), case, threshold=threshold)
    expected = ac.localize(case, model=str(folder), device="cpu", threshold=threshold)
    assert np.asarray(expected.mask).any()
    assert np.array_equal(np.asarray(found.dataobj), np.asarray(expected.mask)[0])
    assert params["score"] == pytest.approx(expected.score, abs=1e-6)
