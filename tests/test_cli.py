"""The command: exit codes, one line per error, and what it prints."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from anomalyclip_monai.cli import info, main
from anomalyclip_monai.folders.marker import DICOM_FILES
from anomalyclip_monai.transforms.outline import lesion_mask


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """A small volume, H != W != D."""
    random = np.random.default_rng(0)
    data = random.normal(300, 10, (30, 26, 4)).astype(np.float32)
    path = tmp_path / "in" / "head.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(data, np.diag([1, 1, 5, 1.0])), path)
    return path


def one_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize("command", ["localize", "serve"])
def test_help_needs_no_heavy_import(command):
    code = f"""
import sys
from anomalyclip_monai.cli import main
try:
    main(["{command}", "--help"])
except SystemExit:
    assert not {{"torch", "monai", "monailabel", "nibabel"}} & set(sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_help_is_instant():
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "anomalyclip_monai.cli", "--help"], check=True, capture_output=True)
    assert time.perf_counter() - start < 5  # 0.15 s alone; the margin is for a loaded machine


def test_localize_prints_score_preset_evidence_and_threshold(head, tmp_path, capsys):
    assert main(["localize", str(head), "-o", str(tmp_path / "out"), "--threshold", "0.4"]) == 0
    printed, errors = capsys.readouterr()
    assert re.match(r"head: score 0\.\d\d, \d+ lesions?, ", printed), printed
    assert "preset mr_brain (values from" in printed
    assert "this model on such images: other patients' gliomas" in printed
    assert "threshold 0.4, given" in printed
    assert errors == ""
    scores = json.loads((tmp_path / "out/head/scores.json").read_text())
    assert scores["threshold"] == {"value": 0.4, "low": 0.4, "origin": "given"}
    assert len(scores["slice_scores"]) == 4


def test_outlines_reach_down_to_their_own_threshold(head, tmp_path, capsys):
    def outlined(*options: str) -> np.ndarray:
        assert main(["localize", str(head), "-o", str(tmp_path / "out"), "--min-volume", "0", *options]) == 0
        return nib.load(tmp_path / "out/head/mask.nii.gz").get_fdata() > 0

    outlined()
    heatmap = nib.load(tmp_path / "out/head/heatmap.nii.gz").get_fdata(dtype=np.float32)
    value, low = (f"{np.quantile(heatmap, share):.3f}" for share in (0.99, 0.9))
    one, two = outlined("--threshold", value), outlined("--threshold", value, "--threshold-low", low)
    assert f"threshold {float(value):g} with outlines from {float(low):g}, given" in capsys.readouterr().out
    scores = json.loads((tmp_path / "out/head/scores.json").read_text())
    assert scores["threshold"] == {"value": float(value), "low": float(low), "origin": "given"}
    assert np.array_equal(one, heatmap >= np.float32(value))
    assert np.array_equal(two, lesion_mask(heatmap, float(value), float(low)))
    assert two.sum() > one.sum() > 0
    assert np.array_equal(outlined("--threshold", value, "--threshold-low", value), one)


def test_quiet_prints_nothing(head, tmp_path, capsys):
    assert main(["localize", str(head), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_photos_and_folders_and_a_bad_case(head, tmp_path, capsys):
    folder = head.parent
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(folder / "frame.png")
    (folder / "bad.nii.gz").write_bytes(b"\x1f\x8bnothing")
    assert main(["localize", str(folder), "-o", str(tmp_path / "out")]) == 1
    line = one_line(capsys.readouterr().err)
    assert line.startswith("bad: E_TRUNCATED: ")
    assert "bad.nii.gz" in line
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cohort.csv", "frame", "head"]
    assert (tmp_path / "out" / "frame" / "mask.png").is_file()
    assert not list((tmp_path / "out").rglob(".partial*"))


@pytest.mark.parametrize(
    ("arguments", "code", "start"),
    [
        (["nowhere.nii.gz"], 2, "E_NOT_FOUND: "),
        (["{folder}/empty"], 2, "E_NO_IMAGES: "),
        (["{head}", "--model", "none"], 2, "E_MODEL: "),
        (["{head}", "--preset", "none"], 2, "E_PRESET: "),
        (["{head}", "--threshold", "2"], 2, "E_THRESHOLD: "),
        (["{head}", "--threshold-low", "0.9"], 2, "E_THRESHOLD: threshold_low '0.9' is above the threshold 0.55"),
        (["{head}", "--threshold", "0.4", "--threshold-low", "high"], 2, "E_THRESHOLD: threshold_low 'high' is none"),
        (["{head}", "--device", "toaster"], 2, "E_DEVICE: "),
        (["{head}", "--slice-batch", "0"], 2, "E_OPTION: "),
        (["{head}", "--slice-axis", "oblique"], 2, "E_OPTION: "),
        (["{head}", "--roi", "nowhere.nii.gz"], 2, "E_NOT_FOUND: "),
        (["{head}", "--roi-label", "5"], 2, "E_OPTION: --roi-label without a mask - give the mask with --roi"),
        (["{head}", "--roi", "{folder}/other.nii.gz"], 1, "head: E_ROI: "),
        (["{folder}/text.txt"], 1, "text: E_NOT_IMAGE: "),
        (["{folder}/4d.nii.gz"], 1, "4d: E_4D: the file holds 2 volumes, 0 to 1"),
        (["{folder}/other.nii.gz", "-o", "{folder}/text.txt/out"], 1, "other: E_WRITE: "),
    ],
)
def test_bad_requests_are_one_line_with_their_exit_code(head, tmp_path, capsys, arguments, code, start):
    folder = tmp_path / "x"
    (folder / "empty").mkdir(parents=True)
    (folder / "text.txt").write_text("hello")
    nib.save(nib.Nifti1Image(np.ones((5, 6, 7), np.float32), np.eye(4)), folder / "other.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((5, 6, 7, 2), np.float32), np.eye(4)), folder / "4d.nii.gz")
    filled = [argument.format(head=head, folder=folder) for argument in arguments]
    output = [] if "-o" in filled else ["-o", str(tmp_path / "out")]
    assert main(["localize", *filled, *output, "--quiet"]) == code
    assert one_line(capsys.readouterr().err).startswith(start)
    assert not list(tmp_path.rglob(".*"))
    assert {path.name for path in (tmp_path / "out").glob("*")} <= {"cohort.csv"}


def test_volume_of_a_4d_file(tmp_path):
    data = np.stack([np.full((9, 8, 7), 5.0), np.arange(504.0).reshape(9, 8, 7)], axis=-1).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "4d.nii.gz")
    assert main(["localize", str(tmp_path / "4d.nii.gz"), "-o", str(tmp_path / "out"), "--volume", "1", "-q"]) == 0
    assert nib.load(tmp_path / "out/4d/heatmap.nii.gz").shape == (9, 8, 7)


def test_usage_errors_end_with_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["localize"])
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_info_as_json(capsys):
    assert main(["info", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert len(content["models"]["anomalyclip_tiny"]["weights_sha256"]) == 64
    assert "mr_brain" in content["presets"]


def test_demo_finds_the_lesion_and_nothing_in_the_twin(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path), "--quiet", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("the peak lies inside the lesion") == 2
    assert "the mask is empty, as it should be" in printed
    assert (tmp_path / "lesion" / "preview.png").is_file()
    assert {path.name for path in (tmp_path / "lesion_dicom").iterdir()} >= {*DICOM_FILES.values()}


def test_results_inside_the_input_folder_are_no_input(head, capsys):
    for _ in range(2):
        assert main(["localize", str(head.parent), "-o", str(head.parent / "out"), "--device", "cpu"]) == 0
        printed = capsys.readouterr().out
        assert sum(" -> " in line for line in printed.splitlines()) == 1


# --- how a run ends


def test_nothing_slow_is_imported_before_signals_are_taken():
    code = "import sys, anomalyclip_monai.cli; print({'numpy', 'yaml', 'tqdm', 'torch'} & set(sys.modules) or 'none')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "none\n"


@pytest.mark.parametrize(("number", "code", "said"), [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_signals_end_with_their_code_and_one_line(monkeypatch, capsys, number, code, said):
    def interrupted(arguments):
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr(info, "run", interrupted)
    before = signal.getsignal(number)
    assert main(["info"]) == code
    assert one_line(capsys.readouterr().err) == said
    assert signal.getsignal(number) is before


def test_an_interrupt_that_comes_out_as_another_error_is_one(monkeypatch, capsys):
    def interrupted(arguments):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except BaseException:
            raise ImportError("numpy failed to import") from None

    monkeypatch.setattr(info, "run", interrupted)
    assert main(["info"]) == 143
    assert one_line(capsys.readouterr().err) == "terminated"


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (OSError(28, "No space left on device", "/x/y"), "E_SYSTEM: No space left on device (/x/y) - "),
        (RecursionError(), "E_OPTION: a file is nested more deeply than any that is meant - "),
    ],
)
def test_what_nobody_foresaw_is_one_line(monkeypatch, capsys, error, start):
    def failing(arguments):
        raise error

    monkeypatch.setattr(info, "run", failing)
    assert main(["info"]) in (1, 2)
    assert one_line(capsys.readouterr().err).startswith(start)


@pytest.mark.parametrize(("target", "code"), [("| true", 1), ("> /dev/full", 1), (">&-", 0)])
def test_output_that_goes_nowhere(target, code):
    # the reader has gone before there is anything to read
    command = f'set -o pipefail; (sleep 1; "{sys.executable}" -m anomalyclip_monai.cli --help) {target}'
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=buffered)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_results_are_replaced_left_or_refused(head, tmp_path, capsys):
    command = ["localize", str(head), "-o", str(tmp_path / "out"), "--fast", "--no-mirror", "--axes", "1"]
    assert main(command) == 0
    assert "(replaced)" not in capsys.readouterr().out
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("out/head (replaced)")
    assert main([*command, "--continue"]) == 0
    assert capsys.readouterr().out == f"head: there already -> {tmp_path / 'out' / 'head'}\n"
    scores = tmp_path / "out" / "head" / "scores.json"
    content = json.loads(scores.read_text())
    del content["threshold"]["low"]  # as an earlier version wrote it
    scores.write_text(json.dumps(content))
    assert main([*command, "--continue"]) == 0
    assert capsys.readouterr().out == f"head: there already -> {tmp_path / 'out' / 'head'}\n"
    assert main([*command, "--continue", "--threshold-low", "0.4"]) == 0
    assert "(replaced)" in capsys.readouterr().out
    assert main([*command, "--continue", "--threshold", "0.4"]) == 0
    assert "(replaced)" in capsys.readouterr().out
    assert (tmp_path / "out" / "cohort.csv").read_text().splitlines()[1].startswith("head,replaced,0.")
    command += ["--continue", "--threshold", "0.4", "--prompts-out"]
    assert main(command) == 0
    assert "(replaced)" in capsys.readouterr().out
    assert (tmp_path / "out" / "head" / "prompts.json").is_file()
    assert main([*command, "--seg-type", "labelmap"]) == 0  # nothing of a NIfTI case hangs on that
    assert "there already" in capsys.readouterr().out
