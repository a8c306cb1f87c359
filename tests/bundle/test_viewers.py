"""How MONAI Label and MONAI Deploy read a bundle, repeated here step by step without either of them."""

from __future__ import annotations

import copy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import LoadImaged, SaveImaged

import anomalyclip_monai as ac
from anomalyclip_monai.exceptions import WeightsError


@pytest.fixture
def parser(bundle: Path) -> ConfigParser:
    """A bare parser without metadata, as MONAI Label makes it."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(bundle)
    return parser


def test_monai_label(parser, bundle, case):
    network = copy.deepcopy(parser.get_parsed_content("network_def"))
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True), strict=False)
    network.eval()
    record = {"image": str(case), "image_path": str(case), "device": "cpu"}
    for step in parser.get_parsed_content("preprocessing").transforms:
        if isinstance(step, LoadImaged):
            step._loader.image_only = False
        record = step(record)
    assert set(record["image_meta_dict"]) >= {"spatial_shape", "original_affine"}
    with torch.no_grad():
        record["pred"] = parser.get_parsed_content("inferer")(record["image"][None], network)[0]
    for step in parser.get_parsed_content("postprocessing").transforms:
        if not isinstance(step, SaveImaged):
            record = step(record)

    # the writer casts to the type the viewer asked for; Slicer and OHIF ask for uint8
    label = np.asarray(record["pred"]).astype(np.uint8)
    assert record["pred"].dtype == torch.uint8
    assert label.shape == (1, *record["image_meta_dict"]["spatial_shape"])
    expected = ac.localize(case, device="cpu")
    assert np.array_equal(label, np.asarray(expected.mask))
    assert np.array_equal(np.asarray(record["pred"].affine), nib.load(case).affine)
    assert record["result"]["score"] == pytest.approx(expected.score)
    assert set(map(type, record["result"].values())) <= {float, int, list}


def test_monai_label_options_of_a_request(parser, case):
    """Every displayed option is written back with each request, as text at times."""
    options = parser["displayable_configs"]
    assert all(key in parser.config for key in options)
    parser.config.update({**options, "threshold": "0.3", "threshold_low": "0.2", "slice_axis": "2"})
    parser.parse(True)
    step = parser.get_parsed_content("postprocessing").transforms[0]
    assert (float(step.threshold), float(step.threshold_low)) == (0.3, 0.2)
    assert parser.get_parsed_content("inferer").slice_axis == "2"


@pytest.mark.parametrize("damage", ["nested", "renamed"])
def test_wrong_checkpoints_never_run_with_random_prompts(parser, bundle, damage):
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    wrong = {"prompts": state} if damage == "nested" else {f"module.{key}": value for key, value in state.items()}
    with pytest.raises((WeightsError, AttributeError)):
        parser.get_parsed_content("network_def").load_state_dict(wrong, strict=False)


def test_monai_deploy(parser, bundle, case):
    def kept(name: str) -> list:
        steps = parser.get_parsed_content(name).transforms
        return [step for step in steps if not any(word in type(step).__name__ for word in ("LoadImage", "SaveImage"))]

    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True), strict=True)
    # Deploy loads DICOM itself and hands over an array with its affine
    from anomalyclip_monai.transforms.load import LoadImageCase, to_meta_tensor

    record = {"image": to_meta_tensor(LoadImageCase()(str(case)))}
    for step in kept("preprocessing"):
        record = step(record)
    inferer = parser.get_parsed_content("inferer")
    record["pred"] = inferer(inputs=record["image"][None], network=network.eval())[0]
    for step in kept("postprocessing"):
        record = step(record)
    value = np.squeeze(np.asarray(record["pred"]), 0).astype(np.uint8)
    assert np.array_equal(value, np.asarray(ac.localize(case, device="cpu").mask)[0])
