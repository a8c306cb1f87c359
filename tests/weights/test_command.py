"""``anomalyclip download`` and ``anomalyclip convert-prompts``: exit codes and lines."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch

from anomalyclip_monai.cli import main
from anomalyclip_monai.weights import store

from .conftest import authors_checkpoint, saved


@pytest.fixture
def mini(published, monkeypatch):
    """The command knows the miniature model in the place of the published one."""
    monkeypatch.setattr("anomalyclip_monai.cli.weights.MODELS", {"vitl14_336": published})
    return published


def one_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_help_needs_no_heavy_import():
    code = """
import sys
from anomalyclip_monai.cli import main
try:
    main(["download", "--help"])
except SystemExit:
    assert not {"torch", "monai", "huggingface_hub"} & set(sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_convert_prompts_of_full_size(tmp_path, capsys):
    checkpoint = tmp_path / "epoch_15.pth"
    checkpoint.write_bytes(saved(authors_checkpoint(12, 4, 768, 8)))
    assert checkpoint.stat().st_size == pytest.approx(22_631_975, rel=1e-3)
    assert main(["convert-prompts", str(checkpoint), "-o", str(tmp_path / "model.pt")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"not one of the published checkpoints \(blob [0-9a-f]{12}\), recorded as unknown", printed)
    assert "kept 172 kB of learned prompts" in printed
    assert "left out 22.0 MB of projections that the model never uses and 0.4 MB of tokens" in printed
    found = torch.load(tmp_path / "model.pt", weights_only=True)
    assert found["ctx"].shape == (2, 12, 768)
    assert (tmp_path / "model.pt").stat().st_size < 176_000
    assert json.loads((tmp_path / "model.json").read_text())["published"] == "unknown"


def test_convert_prompts_refuses_in_one_line(tmp_path, capsys):
    checkpoint = tmp_path / "epoch_15.pth"
    checkpoint.write_bytes(saved(authors_checkpoint()))
    assert main(["convert-prompts", str(checkpoint), "-o", str(tmp_path / "model.pt")]) == 2
    assert one_line(capsys.readouterr().err).startswith("E_PROMPTS: these prompts do not fit vitl14_336: ")
    assert main(["convert-prompts", str(checkpoint), "-o", str(checkpoint)]) == 2
    assert one_line(capsys.readouterr().err).startswith("E_OPTION: the output is the checkpoint itself")
    assert list(tmp_path.glob("model*")) == []


def test_download_says_what_came_from_where(mini, server, capsys):
    assert main(["download", "vitl14_336", "--prompts", "both"]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert f"backbone: {store.backbone()}\n  from {server.address}/hub/open_clip_model.safetensors\n" in printed
    assert "prompts mvtec, trained on MVTEC: " in printed
    assert main(["download", "vitl14_336", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_offline_lists_files_sizes_addresses_and_targets(mini, server, capsys, monkeypatch):
    monkeypatch.setenv("ANOMALYCLIP_OFFLINE", "1")
    assert main(["download", "vitl14_336"]) == 2
    printed, errors = capsys.readouterr()
    assert one_line(errors).startswith("E_OFFLINE: 2 files are missing and ANOMALYCLIP_OFFLINE is set")
    hub, archive, visa = *mini.backbone, mini.prompts["visa"]
    for file, target in ((hub, hub.name), (archive, "backbone.safetensors"), (visa, "prompts_visa.pt")):
        assert re.search(rf"{re.escape(file.name)}  {file.size:,} bytes", printed)
        assert f"address  {file.address}\n" in printed
        assert f"check    {'sha256 ' if file.sha256 else 'git blob '}{file.sha256 or file.blob_id}\n" in printed
        assert f"target   {store.folder() / target}" in printed
    assert "anomalyclip download vitl14_336 --from FOLDER" in printed
    assert mini.prompts["mvtec"].address not in printed


def test_failed_download_lists_what_is_still_missing(mini, server, capsys):
    del server.files["/authors/9_12_4_multiscale/epoch_15.pth"]
    assert main(["download", "vitl14_336"]) == 2
    printed, errors = capsys.readouterr()
    assert one_line(errors).startswith(
        "E_DOWNLOAD: 9_12_4_multiscale/epoch_15.pth is not served: the server answers 404"
    )
    listed = printed.split("missing:")[1]
    assert "epoch_15.pth" in listed
    assert "open_clip_model" not in listed


def test_options_reach_the_download(mini, tmp_path, backbone, checkpoints, capsys):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "open_clip_model.safetensors").write_bytes(backbone)
    (tmp_path / "given" / "x.pth").write_bytes(checkpoints["mvtec"])
    options = ["--from", str(tmp_path / "given"), "--prompts", "mvtec", "--half", "-q"]
    assert main(["download", "vitl14_336", *options]) == 0
    assert store.backbone().name == "backbone.safetensors"
    assert store.prompts("mvtec").is_file()
    assert main(["download", "vitl14_336", "--url", "ftp://here"]) == 2
    assert one_line(capsys.readouterr().err).startswith("E_OPTION: ftp://here is no web address")
