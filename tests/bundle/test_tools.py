"""What MONAI's own tools ask of the bundle."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

import anomalyclip_monai as ac
from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import WeightsError

# MONAI says on every start that configurations can run code; ours come with the package.
pytestmark = pytest.mark.filterwarnings("ignore:.*parsing config_file.*:UserWarning")


def config(bundle: Path) -> str:
    return str(bundle / "configs" / "inference.json")


def test_files_of_the_specification_are_there(bundle):
    for name in (
        "LICENSE",
        "LICENSE.weights",
        "configs/metadata.json",
        "configs/logging.conf",
        "configs/multi_gpu.json",
        "models/model.pt",
        "docs/README.md",
        "docs/data_license.txt",
    ):
        assert (bundle / name).is_file(), name
    weights = [path for path in (bundle / "models").rglob("*") if path.suffix in (".safetensors", ".pt")]
    assert sum(path.stat().st_size for path in weights) < 70e6


@pytest.mark.parametrize(
    "weights", ["backbone.safetensors", "320/image_encoder.safetensors", "dino/image_encoder.safetensors"]
)
def test_the_record_of_a_training_is_that_of_the_weights(bundle, weights):
    file = bundle / "models" / weights
    record = json.loads(file.with_name("training.json").read_text())
    assert record["weights_sha256"] == resources.sha256(file)
    assert record["data_sha256"]
    assert all(stage["weights_sha256"] for stage in record["stages"])
    assert "/" not in json.dumps([stage.get("plan") for stage in record["stages"]])  # no path of any machine


def test_version_is_in_the_changelog_and_folder_name_hides_no_task(any_bundle):
    metadata = json.loads((any_bundle / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    # MONAI Label reads the kind of task off the folder's name
    assert not any(word in any_bundle.name for word in ("detection", "classification", "deepgrow", "deepedit"))


def test_every_preset_has_evidence(any_bundle):
    content = json.loads(Path(config(any_bundle)).read_text())
    for name in ("evidence", "evidence_fast") if "fast" in content else ("evidence",):
        assert set(content[name]) == set(resources.presets())


@pytest.mark.parametrize(("fast", "name"), [(False, "evidence"), (True, "evidence_fast")])
def test_evidence_is_that_of_the_networks_that_run(bundle, case, fast, name):
    parser = ConfigParser()
    parser.read_config(config(bundle))
    parser.update({"fast": fast, "preset": "mr_brain"})
    record = parser.get_parsed_content("preprocessing")({"image": str(case)})
    assert record["preset"]["evidence"] == json.loads(Path(config(bundle)).read_text())[name]["mr_brain"]


def test_the_prior_on_the_middle_of_the_body_can_be_switched_off(bundle):
    parser = ConfigParser()
    parser.read_config(config(bundle))
    assert parser.get_parsed_content("network_def#fusion").prior > 0
    parser.update({"network_def#fusion#prior": 0})
    assert parser.get_parsed_content("network_def#fusion").prior == 0


def test_check_properties_finds_nothing_missing(bundle, case):
    workflow = ConfigWorkflow(config(bundle), workflow_type="inference", bundle_root=str(bundle), dataset_dir=str(case))
    workflow.initialize()
    assert workflow.check_properties() == []


def test_load_gives_the_learned_prompts_from_any_folder(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = monai.bundle.load(bundle.name, bundle_dir=str(bundle.parent), workflow_type="inference")
    assert torch.equal(network.first.ctx, ac.load_model("tiny").first.ctx)


def test_run_from_another_folder_equals_python_and_command_line(cases, tmp_path, run_bundle):
    from anomalyclip_monai.cli import main

    done = run_bundle(cases, tmp_path / "bundle")
    assert done.returncode == 0, done.stdout + done.stderr
    assert main(["localize", str(cases), "-o", str(tmp_path / "cli"), "--quiet", "--device", "cpu"]) == 0
    for result in ac.localize_many(cases, device="cpu"):
        by_bundle, by_cli = (nib.load(tmp_path / way / result.case / "heatmap.nii.gz") for way in ("bundle", "cli"))
        assert np.array_equal(by_bundle.get_fdata(dtype=np.float32), result.heatmap[0].numpy())
        assert np.array_equal(by_cli.get_fdata(dtype=np.float32), result.heatmap[0].numpy())
        stored = nib.load(cases / f"{result.case}.nii.gz")
        assert np.array_equal(by_bundle.affine, stored.affine)
        for way in ("bundle", "cli"):
            files = {path.name for path in (tmp_path / way / result.case).iterdir()}
            assert files == {".anomalyclip.json", "heatmap.nii.gz", "mask.nii.gz", "scores.json", "preview.png"}


def test_a_bad_case_is_named_after_the_others_are_done(cases, tmp_path, run_bundle):
    (cases / "broken.nii.gz").write_bytes(b"no volume")
    done = run_bundle(cases, tmp_path / "out")
    assert done.returncode != 0
    assert "1 of 4 cases failed: broken: E_NIFTI" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["case0", "case1", "case2"]


def test_an_empty_folder_is_an_error(tmp_path, run_bundle):
    (tmp_path / "empty").mkdir()
    done = run_bundle(tmp_path / "empty", tmp_path / "out")
    assert done.returncode != 0
    assert "E_NO_IMAGES" in done.stderr


def test_metadata_follows_the_schema(any_bundle, tmp_path, monai_bundle):
    schema = tmp_path / "schema.json"
    shutil.copy(Path(__file__).with_name("meta_schema.json"), schema)
    metadata = any_bundle / "configs" / "metadata.json"
    done = monai_bundle("verify_metadata", "--meta_file", str(metadata), "--filepath", str(schema), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads(metadata.read_text())
    del content["network_data_format"]["outputs"]["pred"]
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    done = monai_bundle(
        "verify_metadata", "--meta_file", str(tmp_path / "wrong.json"), "--filepath", str(schema), cwd=tmp_path
    )
    assert done.returncode != 0


def test_network_keeps_what_the_metadata_promise(bundle, tmp_path, monai_bundle):
    for size in ("1", "37"):  # MONAI's own default is one pixel
        done = monai_bundle(
            "verify_net_in_out",
            "--bundle_root",
            str(bundle),
            "--net_id",
            "network_def",
            "--config_file",
            config(bundle),
            "--meta_file",
            str(bundle / "configs/metadata.json"),
            "--any",
            size,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
# TorchScript is on its way out in torch, which says so at every step; MONAI's export still uses it.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_export_equals_the_network(bundle, tmp_path, monai_bundle):
    exported = tmp_path / "model.ts"
    done = monai_bundle(
        "ckpt_export",
        "--bundle_root",
        str(bundle),
        "--net_id",
        "network_def",
        "--filepath",
        str(exported),
        "--config_file",
        config(bundle),
        "--meta_file",
        str(bundle / "configs/metadata.json"),
        "--ckpt_file",
        str(bundle / "models/model.pt"),
        "--use_trace",
        "True",
        "--input_shape",
        "[1, 1, 192, 192]",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    images = torch.rand(2, 1, 192, 192, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(exported)(images), ac.load_model("tiny")(images), atol=1e-6)


@pytest.mark.parametrize("preset", resources.presets())
def test_every_preset_is_an_overlay(any_bundle, case, preset):
    parser = ConfigParser()
    parser.read_config([config(any_bundle), str(resources.preset_overlay(preset))])
    parser["bundle_root"] = str(any_bundle)
    record = parser.get_parsed_content("preprocessing")({"image": str(case)})
    assert record["preset"]["name"] == preset
    assert record["preset"]["chosen"] == "asked for"
    assert 0 <= record["image"].min() <= record["image"].max() <= 1


def test_a_changed_preset_file_changes_the_scaling(bundle, case, tmp_path):
    text = resources.preset_overlay("ct_head").read_text().replace("window_width: 80", "window_width: 2000")
    (tmp_path / "wide.yaml").write_text(text)
    wide = ac.localize(case, preset=str(tmp_path / "wide.yaml"), device="cpu").image
    # 300 in a window of 2000 around 40 is (300 - 40) / 2000 + 1/2 = .63
    assert float(wide.median()) in (pytest.approx(0.63, abs=0.02), pytest.approx(0.48, abs=0.02))


@pytest.mark.slow
def test_two_processes_share_the_cases(bundle, cases, tmp_path, monai_bundle):
    files = f"['{config(bundle)}','{bundle / 'configs' / 'multi_gpu.json'}']"
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
    done = monai_bundle(
        "run",
        "--bundle_root",
        str(bundle),
        "--config_file",
        files,
        "--dataset_dir",
        str(cases),
        "--output_dir",
        str(tmp_path / "out"),
        cwd=tmp_path,
        launcher=launcher,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for result in ac.localize_many(cases, device="cpu"):
        found = nib.load(tmp_path / "out" / result.case / "heatmap.nii.gz").get_fdata(dtype=np.float32)
        assert np.allclose(found, result.heatmap[0].numpy(), atol=1e-5)


def test_missing_or_wrong_weights_are_one_line(bundle, case, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    torch.save({"ctx": torch.zeros(2, 12, 64)}, broken / "models" / "model.pt")
    with pytest.raises(WeightsError, match=r"E_PROMPTS: .*deep.0 is missing.*model\.pt"):
        ac.localize(case, model=str(broken))
    (broken / "models" / "model.pt").unlink()
    with pytest.raises(WeightsError, match="E_WEIGHTS: the learned prompts are missing"):
        ac.localize(case, model=str(broken))
    (broken / "models" / "backbone.safetensors").write_bytes(b"damaged")
    shutil.copy(bundle / "models" / "model.pt", broken / "models" / "model.pt")
    with pytest.raises(WeightsError, match="E_WEIGHTS: weights cannot be read"):
        ac.load_model(str(broken))
