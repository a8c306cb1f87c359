"""How MONAI Label and MONAI Deploy read a bundle, repeated here step by step without either of them."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import LoadImaged, SaveImaged

import anomalyclip_monai as ac
from anomalyclip_monai.exceptions import NoInputError, WeightsError, innermost
from anomalyclip_monai.options import CaseOptions
from anomalyclip_monai.transforms import LoadImageCased
from anomalyclip_monai.types import PathLike, Record


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


def answered(parser: ConfigParser, bundle: Path, case: PathLike, **options: object) -> Record:
    """A request as ``BundleInferTask`` carries it out: its options go into ``displayable_configs`` and nowhere else."""
    shown = parser["displayable_configs"]
    shown.update({**shown, **options})
    parser.parse()
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    record: Record = {"image": str(case)}
    for step in parser.get_parsed_content("preprocessing").transforms:
        record = step(record)
    record["pred"] = parser.get_parsed_content("inferer")(record["image"][None], network.eval())[0]
    for step in parser.get_parsed_content("postprocessing").transforms:
        if not isinstance(step, SaveImaged):
            record = step(record)
    return record


def test_monai_label_options_of_a_request(parser, bundle, case):
    """Every displayed option acts, as text as well; the next request has its own."""
    assert list(parser["displayable_configs"]) == [known.name for known in CaseOptions.known() if known.displayed]
    parser["fast"] = True
    given = {"preset": "mr_body", "threshold": "0.3", "threshold_low": "0.2", "slice_axis": "2", "axes": "1"}
    record = answered(parser, bundle, case, **given)
    expected = ac.localize(case, device="cpu", fast=True, **given)
    assert np.asarray(expected.mask).any()
    assert np.array_equal(np.asarray(record["pred"]), np.asarray(expected.mask))
    assert record["preset"]["name"] == "mr_body"
    assert record["result"]["threshold"] == 0.3
    assert answered(parser, bundle, case, threshold="0.9", threshold_low="auto")["result"]["threshold"] == 0.9


@pytest.mark.parametrize("name", [known.name for known in CaseOptions.known() if known.displayed])
def test_monai_label_refuses_nonsense_in_a_request(parser, bundle, case, name):
    parser["fast"] = True
    with pytest.raises(Exception, match=r"nonsense|Failed to instantiate") as refused:
        answered(parser, bundle, case, **{name: "nonsense"})
    assert "nonsense" in innermost(refused.value)


def test_monai_label_without_an_image_never_reads_its_working_folder(parser, bundle, case, monkeypatch):
    """An id that the server does not know comes as an empty path."""
    monkeypatch.chdir(case.parent)
    with pytest.raises(Exception, match="E_NOT_FOUND: a path is empty"):
        answered(parser, bundle, "")
    with pytest.raises(NoInputError, match="E_NOT_FOUND: a path is empty"):
        ac.localize("")


def test_monai_label_warns_that_it_takes_the_header_away(monkeypatch, case, caplog):
    """From DICOMweb it hands over a NIfTI, of which nobody knows that a CT shows a thigh."""

    def read(studies: str) -> list[str]:
        settings = SimpleNamespace(MONAI_LABEL_STUDIES=studies)
        monkeypatch.setitem(sys.modules, "monailabel.config", SimpleNamespace(settings=settings))
        load = LoadImageCased()
        load._loader.image_only = False
        return load({"image": str(case)})["notes"]

    assert read("/studies") == []
    assert ["made from DICOM without its header" in note for note in read("http://pacs/dicom-web")] == [True]
    assert "anomalyclip serve" in caplog.text


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
