"""The threshold from normal cases, by hand and through the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from anomalyclip_monai.api import calibrate, localize
from anomalyclip_monai.cli import main
from anomalyclip_monai.data import Source
from anomalyclip_monai.data.benchmarks import Sample
from anomalyclip_monai.engines.calibration import LEVELS, Calibrator, Wanted
from anomalyclip_monai.exceptions import CaseError, UsageError
from anomalyclip_monai.metrics.ranking import dice
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.transforms import Findings, Threshold
from anomalyclip_monai.transforms.calibration import Calibration
from anomalyclip_monai.transforms.outline import lesion_mask
from anomalyclip_monai.transforms.post import find_lesions

pytestmark = pytest.mark.usefixtures("one_thread")

AFFINE = np.diag([5.0, 5.0, 4.0, 1.0])
"""Voxels of 100 mm3: ten are 1 ml."""


def _result(
    name: str,
    heatmap: np.ndarray,
    *,
    preset: str = "mr_brain",
    source: Source | None = None,
    affine: np.ndarray = AFFINE,
) -> Result:
    data = heatmap.astype(np.float32)
    return Result(
        name,
        heatmap=MetaTensor(torch.from_numpy(data)[None], affine=torch.from_numpy(affine)),
        mask=MetaTensor(torch.from_numpy((data >= 0.5).astype(np.uint8))[None], affine=torch.from_numpy(affine)),
        findings=Findings(threshold=Threshold(0.5, 0.5, "shipped")),
        preset={"name": preset},
        source=source or Source("nifti"),
    )


def _row(*values: float) -> np.ndarray:
    """(X, Y, Z) with these values in a row, far apart from nothing else."""
    heatmap = np.zeros((len(values), 3, 2), dtype=np.float32)
    heatmap[:, 1, 0] = values
    return heatmap


def _calibrate(*results: Result, wanted: Wanted | None = None, min_volume: float | None = None) -> Calibration:
    with Calibrator(wanted or Wanted(), min_volume) as calibrator:
        for result in results:
            calibrator.add(result)
        return calibrator.fit({"axes": 1})


def _fit(wanted: Wanted, *heatmaps: np.ndarray, min_volume: float | None = 0) -> tuple[float, dict[str, Any]]:
    results = (_result(f"case {number}", heatmap) for number, heatmap in enumerate(heatmaps))
    found = _calibrate(*results, wanted=wanted, min_volume=min_volume)
    assert found.threshold.low == found.threshold.value  # without cases with lesions
    return found.threshold.value, found.details


def test_the_smallest_threshold_that_is_quiet_enough() -> None:
    # .2 ml are two voxels: .9 and .8 may stay, .7 must go, and .7001 is the next threshold
    threshold, details = _fit(Wanted(0.2), _row(0.9, 0.8, 0.7, 0.6))
    assert threshold == pytest.approx(0.7001)
    assert details["reached"] == pytest.approx(0.2)
    assert details["before"] == pytest.approx(0.4)
    # none may stay
    assert _fit(Wanted(0), _row(0.9, 0.8, 0.7, 0.6))[0] == pytest.approx(0.9001)
    # all may
    assert _fit(Wanted(1), _row(0.9, 0.8, 0.7, 0.6))[0] == pytest.approx(0.0001)


def test_equal_values_go_together() -> None:
    threshold, details = _fit(Wanted(0.2), _row(0.9, 0.7, 0.7, 0.6))
    assert threshold == pytest.approx(0.7001)
    assert details["reached"] == pytest.approx(0.1)


def test_on_average_over_the_cases() -> None:
    # .35 ml on average: seven voxels together
    threshold, details = _fit(Wanted(0.35), _row(0.9, 0.8, 0.7, 0.6, 0.5), _row(0.65, 0.55, 0.45, 0.1))
    assert threshold == pytest.approx(0.4501)
    assert details["reached"] == pytest.approx(0.35)
    assert [case["false_alarm"] for case in details["cases"]] == pytest.approx([0.5, 0.2])
    assert [case["peak"] for case in details["cases"]] == pytest.approx([0.9, 0.65])


@pytest.mark.parametrize(("quantile", "expected"), [(0.25, 0.3001), (0.5, 0.4001), (0.75, 0.5001), (0.76, 0.8001)])
def test_in_a_share_of_the_cases(quantile: float, expected: float) -> None:
    cases = [_row(value + 0.1, value) for value in (0.3, 0.8, 0.4, 0.5)]
    assert _fit(Wanted(0.1, quantile=quantile), *cases)[0] == pytest.approx(expected)


def test_small_components_do_not_count() -> None:
    # a bridge of .6 joins two pairs of voxels; above it each is too small
    heatmap = _row(0.9, 0.9, 0.6, 0.8, 0.8, 0, 0.95)
    assert _fit(Wanted(0), heatmap, min_volume=0)[0] == pytest.approx(0.9501)
    assert _fit(Wanted(0), heatmap, min_volume=200)[0] == pytest.approx(0.9001)
    assert _fit(Wanted(0), heatmap, min_volume=201)[0] == pytest.approx(0.6001)
    assert _fit(Wanted(0), heatmap, min_volume=501)[0] == pytest.approx(0.0001)


@pytest.mark.parametrize("min_volume", [None, 300.0])
def test_the_mask_at_the_threshold_is_as_small_as_was_said(min_volume: float | None) -> None:
    random = np.random.default_rng(3)
    heatmaps = [random.random((9, 11, 7)).astype(np.float32) ** 2 for _ in range(3)]
    wanted = Wanted(2.5)
    threshold, details = _fit(wanted, *heatmaps, min_volume=min_volume)

    def mean_ml(value: float) -> float:
        masks = [find_lesions(heatmap, value, AFFINE, min_volume=min_volume or 20)[0] for heatmap in heatmaps]
        return float(np.mean([mask.sum() * 0.1 for mask in masks]))

    assert mean_ml(threshold) == pytest.approx(details["reached"])
    assert mean_ml(threshold) < 2.5 + 1e-6 < mean_ml(threshold - 0.0001)


def test_levels_compare_as_the_mask_does() -> None:
    """A heatmap that holds a level exactly is in the mask at it."""
    heatmap = LEVELS[[6999, 7000, 7001]].reshape(3, 1, 1)
    assert find_lesions(heatmap, 0.7001, AFFINE)[0].flatten().tolist() == [0, 1, 1]
    threshold, _ = _fit(Wanted(0.2), heatmap)
    assert threshold == pytest.approx(0.7001)


def test_pictures_by_share() -> None:
    frame = Source("photo", has_physical_size=False)
    heatmap = np.zeros((10, 20, 1))
    heatmap[0, :4, 0] = 0.9, 0.8, 0.7, 0.6
    two_of_200 = Wanted(0.01, "share")
    found = _calibrate(_result("a", heatmap, source=frame, preset="photo"), wanted=two_of_200)
    assert found.threshold.value == pytest.approx(0.7001)
    assert found.threshold.origin.startswith("calibrated on 1 normal photo case, ")
    assert found.threshold.origin.endswith("at most 0.01 of the picture of false mask per case on average")
    with pytest.raises(UsageError, match=r"^E_FALSE_ALARM: a has no physical size.*--false-alarm-share"):
        _calibrate(_result("a", heatmap, source=frame))


def test_what_cannot_be_calibrated() -> None:
    with pytest.raises(UsageError, match=r"^E_CALIBRATION: even a threshold of 1 leaves 0.2 ml"):
        _fit(Wanted(0.1), _row(1, 1, 0.5))
    with pytest.raises(CaseError, match=r"^E_CASES: no normal case could be scored: a: E_X: broken"):
        _calibrate(Result("a", error=CaseError("E_X", "broken")))
    with pytest.raises(UsageError, match=r"^E_MIXED: .*mr_brain, b ct_head"):
        _calibrate(_result("a", _row(0.5)), _result("b", _row(0.5), preset="ct_head"))
    for values in ((-1, "ml"), (1, "share"), (1, "ml", 0), (1, "ml", 1.1), (float("nan"), "ml")):
        with pytest.raises(UsageError, match=r"^E_FALSE_ALARM"):
            Wanted(*values)  # type: ignore[arg-type]


# --- outlines, on cases with lesions


def _ill(tmp_path: Path, name: str, lesion: np.ndarray, label: int | None = 1) -> Sample:
    """A sample whose mask lies on the grid of :func:`_result`; value 255 beside 1 is left out."""
    nib.save(nib.Nifti1Image(lesion.astype(np.uint8), AFFINE), tmp_path / f"{name}.nii.gz")
    return Sample(name, tmp_path / f"{name}.nii.gz", label, (tmp_path / f"{name}.nii.gz",), "head", name, volume=True)


def _outline(*pairs: tuple[Result, Sample | None], min_volume: float = 0) -> Calibration:
    """With a normal case whose .7 must go, so that the threshold is .7001."""
    with Calibrator(Wanted(0.1), min_volume) as calibrator:
        calibrator.add(_result("well", _row(0.9, 0.7, 0.4)))
        for result, sample in pairs:
            calibrator.add(result, sample)
        return calibrator.fit({"axes": 1})


def test_outlines_reach_down_to_the_best_dice(tmp_path: Path) -> None:
    # the lesion is .8, .6 and .5; of the twentieths of .7001 those below .5 and above .42 reach all of it and no more
    heatmap, lesion = _row(0.8, 0.6, 0.5, 0.42, 0.2), _row(1, 1, 1, 0, 0)
    found = _outline((_result("ill", heatmap), _ill(tmp_path, "ill", lesion)))
    assert found.threshold.value == pytest.approx(0.7001)
    assert found.threshold.low == pytest.approx(0.4901)  # 14 of 20, the highest of them
    (case,) = found.details["with_lesions"]
    assert case == {"case": "ill", "dice": 1.0, "dice_of_one_threshold": pytest.approx(2 * 1 / (1 + 3))}
    assert found.details["reached"] == pytest.approx(0.2)  # .9 with the .7 that hangs on it
    assert found.threshold.origin.endswith(
        "at most 0.1 ml of false mask per case on average before outlines grow, "
        "these by the best Dice of 1 case with lesions"
    )


def test_the_best_dice_is_the_mean_of_the_cases_and_of_what_counts(tmp_path: Path) -> None:
    tight = _result("tight", _row(0.8, 0.3, 0.3, 0.3, 0.3)), _ill(tmp_path, "tight", _row(1, 0, 0, 0, 0))
    wide = _result("wide", _row(0.8, 0.3, 0.3, 0.3, 0.3)), _ill(tmp_path, "wide", _row(1, 1, 0, 0, 0))
    assert _outline(tight, wide).threshold.low == pytest.approx(0.7001)  # (1 + 2/3) / 2 against (1/3 + 4/7) / 2
    most = _result("most", _row(0.8, 0.3, 0.3, 0.3, 0.3)), _ill(tmp_path, "most", _row(1, 1, 255, 255, 255))
    assert _outline(most).threshold.low == pytest.approx(0.28)  # 8 of 20


def test_cases_with_lesions_that_do_not_count(tmp_path: Path) -> None:
    without = _result("none", _row(0.8, 0.6)), _ill(tmp_path, "none", _row(0, 0), label=None)
    ill = _result("ill", _row(0.8, 0.6)), _ill(tmp_path, "ill", _row(1, 1))
    other = _result("other", _row(0.8, 0.6, 0.5)), _ill(tmp_path, "other", _row(1, 1))
    found = _outline(without, ill, other)
    assert [case["case"] for case in found.details["with_lesions"]] == ["ill"]
    assert [case["case"] for case in found.details["failed"]] == ["other"]
    assert found.details["failed"][0]["error"].startswith("E_MASK_GRID: ")
    with pytest.raises(CaseError, match=r"^E_CASES: no case with a lesion could be scored: no mask shows a lesion"):
        _outline(without)


def test_heatmaps_are_removed() -> None:
    with Calibrator(Wanted()) as calibrator:
        calibrator.add(_result("a", _row(0.5)))
        folder = Path(calibrator._folder.name)
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()


# --- with the embedded model


@pytest.fixture
def normals(tmp_path: Path) -> Path:
    folder = tmp_path / "normals"
    folder.mkdir()
    for number in range(2):
        random = np.random.default_rng(number)
        data = random.normal(300, 40, (12, 9, 3)).astype(np.float32)
        nib.save(nib.Nifti1Image(data, np.diag([4, 4, 5, 1.0])), folder / f"head{number}.nii.gz")
    return folder


def test_the_command_and_what_its_file_is_good_for(
    normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (normals / "broken.nii.gz").write_bytes(b"no image")
    file, case = tmp_path / "made" / "calibration.json", normals / "head0.nii.gz"
    options = ["--preset", "mr_brain", "--axes", "axial,sagittal"]
    assert main(["calibrate", str(normals), "-o", str(file), "--false-alarm-ml", "2", *options]) == 1  # one is broken
    printed, errors = capsys.readouterr()
    content = json.loads(file.read_text())
    assert printed.startswith(f"threshold {content['threshold']:g}: ")
    assert "broken: E_" in errors
    assert [entry["case"] for entry in content["failed"]] == ["broken"]
    assert [entry["case"] for entry in content["cases"]] == ["head0", "head1"]
    assert 0 < content["reached"] <= 2 + 1e-9
    assert str(tmp_path) not in file.read_text().replace(content["failed"][0]["error"], "")

    out = tmp_path / "out"
    for number in range(2):
        path = str(normals / f"head{number}.nii.gz")
        assert main(["localize", path, "-o", str(out), "--threshold", str(file), *options]) == 0
        scores = json.loads((out / f"head{number}" / "scores.json").read_text())
        assert scores["threshold"] == {
            "value": content["threshold"],
            "low": content["threshold_low"],
            "origin": content["origin"],
        }
        assert scores["axes"] == [2, 0]
        marked = nib.load(out / f"head{number}" / "mask.nii.gz").get_fdata().sum() * 0.08
        assert marked == pytest.approx(content["cases"][number]["false_alarm"])

    capsys.readouterr()
    assert main(["localize", str(case), "-o", str(out), "--threshold", str(file), "--preset", "mr_brain"]) == 2
    assert "the threshold was fitted with axes axial,sagittal, this run has auto" in capsys.readouterr().err
    content["conditions"]["model"]["weights_sha256"] = "0" * 64
    file.write_text(json.dumps(content))
    assert main(["localize", str(case), "-o", str(out), "--threshold", str(file), *options]) == 2
    assert "E_CALIBRATION: the threshold was fitted for another model" in capsys.readouterr().err


def test_from_python(normals: Path, tmp_path: Path) -> None:
    found = calibrate(normals, Wanted(1.5), preset="mr_brain", min_volume=0)
    file = tmp_path / "c.json"
    file.write_text(found.to_json())
    results = [
        localize(path, threshold=str(file), preset="mr_brain", min_volume=0) for path in sorted(normals.iterdir())
    ]
    assert results[0].threshold == found.threshold
    amounts = [float(result.mask.sum()) * 0.08 for result in results if result.mask is not None]
    assert np.mean(amounts) == pytest.approx(found.details["reached"])
    assert np.mean(amounts) <= 1.5 + 1e-6
    with pytest.raises(CaseError, match=r"^E_CALIBRATION: .*preset mr_brain, this case has mr_body"):
        localize(normals / "head0.nii.gz", threshold=str(file), preset="mr_body", min_volume=0)
    with pytest.raises(UsageError, match=r"^E_OPTION"):
        calibrate(normals, threshold=0.5)
    with pytest.raises(UsageError, match=r"^E_OPTION"):
        calibrate(normals, threshold_low=0.5)


def test_outlines_from_the_command(normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, file, out = tmp_path / "ill" / "a.nii.gz", tmp_path / "c.json", tmp_path / "out"
    options = ["--preset", "mr_brain", "--axes", "1", "--min-volume", "0"]
    data = np.random.default_rng(9).normal(300, 40, (12, 9, 3)).astype(np.float32)
    data[:6] *= 3
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(data, np.diag([4, 4, 5, 1.0])), path)
    assert main(["localize", str(path), "-o", str(out), *options]) == 0
    # the true lesion is what the model sees there, outlined generously
    heatmap = nib.load(out / "a" / "heatmap.nii.gz").get_fdata(dtype=np.float32)
    lesion = lesion_mask(heatmap, float(heatmap.max()), 0.01)
    nib.save(nib.Nifti1Image(lesion.astype(np.uint8), np.diag([4, 4, 5, 1.0])), tmp_path / "ill" / "mask.nii.gz")
    (tmp_path / "list.csv").write_text("image,mask\nill/a.nii.gz,ill/mask.nii.gz\n")
    command = ["calibrate", str(normals), "-o", str(file), "--false-alarm-ml", "0", *options]
    assert main([*command, "--lesions", "csv", str(tmp_path / "list.csv")]) == 0
    content = json.loads(file.read_text())
    (case,) = content["with_lesions"]
    assert content["threshold_low"] < content["threshold"]
    assert case["dice"] > case["dice_of_one_threshold"]
    printed = capsys.readouterr().out
    assert f"threshold {content['threshold']:g} with outlines from {content['threshold_low']:g}: " in printed
    assert f"mean Dice of 1 case with lesions: {case['dice']:.2f}, " in printed

    assert main(["localize", str(path), "-o", str(out), "--threshold", str(file), *options]) == 0
    found = nib.load(out / "a" / "mask.nii.gz").get_fdata() > 0
    assert dice(lesion, found, 1) == pytest.approx(case["dice"])


def test_photos_from_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    noise = np.random.default_rng(5).integers(0, 255, (40, 52, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(noise).save(tmp_path / "in" / "a.png")
    file = tmp_path / "c.json"
    assert main(["calibrate", str(tmp_path / "in"), "-o", str(file)]) == 2
    assert "--false-alarm-share" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path / "in"), "-o", str(file), "--false-alarm-share", "0.01", "-q"]) == 0
    assert json.loads(file.read_text())["reached"] <= 0.01
