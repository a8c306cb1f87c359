"""Evaluations of small made-up sets by networks that are known to the last pixel."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler, StatsHandler
from monai.transforms import Compose
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from anomalyclip_monai.data import CaseDataset, collate_cases
from anomalyclip_monai.data.benchmarks import Sample
from anomalyclip_monai.engines.evaluation import (
    Evaluation,
    PrepareSampled,
    SetEvaluator,
    TrainedOrgans,
    handlers,
    trained_organs,
)
from anomalyclip_monai.engines.evaluation import set_evaluator as engine
from anomalyclip_monai.engines.evaluation.protocols import Protocol
from anomalyclip_monai.engines.evaluation.report import case_view, threshold_text
from anomalyclip_monai.engines.evaluation.summary import draws_of, summarise
from anomalyclip_monai.engines.evaluation.volumes import VolumeMetric
from anomalyclip_monai.exceptions import CaseError, UsageError, WeightsError
from anomalyclip_monai.inferers import SliceAnomalyInferer
from anomalyclip_monai.metrics import PixelScores, Undefined, auroc, dice, exact_pro, measure_volume
from anomalyclip_monai.metrics.monai_metrics import ImageMetrics, MaskDice, PixelMetrics
from anomalyclip_monai.outputs.report import Report
from anomalyclip_monai.transforms import ApplyPresetd, FindLesionsd, LoadImageCased, Threshold
from anomalyclip_monai.transforms.findings import Findings
from anomalyclip_monai.transforms.outline import lesion_mask

pytestmark = pytest.mark.usefixtures("one_thread")

FINGERPRINT = {"bundle": "anomalyclip_made_up", "weights_sha256": "0" * 64, "prompts_sha256": "1" * 64}


class BrightNetwork(nn.Module):
    """The map is the mean of channels, its mean the score: the same as the brightness baseline.

    Attributes:
        calls: how often it ran.
        stop_at: the call that is interrupted, as by a user.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.stop_at = -1

    def score_and_map(self, images: torch.Tensor, *, mirror: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        maps = images.mean(dim=1, keepdim=True)
        return maps.flatten(1).mean(dim=1), maps


@pytest.fixture(autouse=True)
def only_json(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures and pages have tests of their own, and cost a second each."""
    if request.node.name == "test_every_file_of_the_report_is_written":
        return

    def write(report: Report, folder: Path, cases: Callable[[str], Any]) -> None:
        for sample in report.samples.samples:
            cases(sample.name)
        (folder / "report.json").write_text(json.dumps(report.to_json(), allow_nan=False))

    monkeypatch.setattr(engine, "write_report", write)


def make_evaluator(
    evaluation: Evaluation,
    network: nn.Module,
    *,
    threshold: str = "0.5",
    threshold_low: str = "auto",
    preset: str = "auto",
    axes: int | str = 1,
    shipped_threshold: dict[str, Any] | None = None,
    additional_metrics: dict[str, IgniteMetricHandler] | None = None,
) -> SetEvaluator:
    steps = [LoadImageCased(), ApplyPresetd(preset=preset), PrepareSampled(size=evaluation.protocol.size)]
    dataset = CaseDataset(evaluation.records(), Compose(steps))
    return SetEvaluator(
        evaluation=evaluation,
        additional_metrics=additional_metrics,
        device="cpu",
        val_data_loader=DataLoader(dataset, collate_fn=collate_cases),
        network=network,
        inferer=SliceAnomalyInferer(empty_below=0.0, axes=axes),
        postprocessing=FindLesionsd(
            threshold=threshold, threshold_low=threshold_low, shipped_threshold=shipped_threshold
        ),
    )


def evaluate(dataset: str, folder: Path, out: Path, network: nn.Module | None = None, **options: Any) -> dict[str, Any]:
    evaluation = Evaluation(dataset, folder, out, fingerprint=FINGERPRINT, **{"bootstrap": 50, **options})
    evaluator = make_evaluator(evaluation, network or BrightNetwork())
    evaluator.run()
    return evaluator.report.to_json()


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    report = copy.deepcopy(report)
    report.pop("seconds")
    for sample in report["samples"]["list"]:
        sample.pop("seconds")
    return report


def save_photo(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def photo(seed: int, shape: tuple[int, int] = (19, 26)) -> tuple[np.ndarray, np.ndarray]:
    """A noisy grey picture with a lesion that is brighter than most of it, and its mask."""
    random = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    y, x = random.integers(1, 10, 2)
    mask[y : y + 5, x : x + 7] = 255
    grey = random.integers(30, 150, shape) + (mask > 0) * 70
    return grey.astype(np.uint8), mask


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three normal pictures and four with a lesion, in the layout of a user's folder."""
    folder = tmp_path / "photos"
    for seed in range(7):
        grey, mask = photo(seed, (19, 26 + seed % 2))
        if seed < 3:
            save_photo(folder / "normal" / f"n{seed}.png", np.where(mask > 0, grey - 70, grey).astype(np.uint8))
        else:
            save_photo(folder / "abnormal" / f"a{seed}.png", grey)
            save_photo(folder / "masks" / f"a{seed}.png", mask)
    return folder


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Two volumes with a lesion in some slices, in the layout of TCGA-LGG."""
    folder = tmp_path / "volumes"
    affine = np.diag([-1.0, -1.0, 4.0, 1.0])
    for seed in range(2):
        random = np.random.default_rng(seed)
        mask = np.zeros((24, 21, 6), np.uint8)
        mask[5:12, 6 + seed : 11, 2:4] = 1
        data = (random.uniform(0.1, 0.6, mask.shape) + 0.3 * mask).astype(np.float32)
        case = folder / f"TCGA_{seed}"
        case.mkdir(parents=True)
        nib.save(nib.Nifti1Image(data, affine), case / "flair.nii.gz")
        nib.save(nib.Nifti1Image(mask, affine), case / "mask.nii.gz")
    return folder


def arrays(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures in [0, 1] and masks, normal ones first."""
    found = []
    for path in sorted(folder.glob("normal/*.png")) + sorted(folder.glob("abnormal/*.png")):
        pixels = np.asarray(Image.open(path), np.float32) / 255
        mask = folder / "masks" / path.name
        found.append((pixels, np.asarray(Image.open(mask)) > 0 if mask.exists() else np.zeros(pixels.shape, bool)))
    return found


def made_prompts(network: nn.Module, folder: Path) -> Path:
    """Learned prompts that differ from the network's own, the same for the same name of the folder."""
    torch.manual_seed(len(folder.name))
    folder.mkdir()
    torch.save({name: 2 * torch.randn_like(value) for name, value in network.state_dict().items()}, folder / "model.pt")
    return folder / "model.pt"


def normalised(content: Any, place: str = "") -> Any:
    """A report without what differs from run to run; of a curve the ends, their number and the mean height."""
    if place.endswith(("/asked", "/seconds", "/device", "/prompts_sha256", "/error")) or "/versions/" in place:
        return type(content).__name__
    if isinstance(content, dict):
        return {key: normalised(value, f"{place}/{key}") for key, value in content.items()}
    if isinstance(content, list):
        if place.split("/")[-2:-1] == ["curves"]:
            return [len(content), content[0], content[-1], round(float(np.mean(content, axis=0)[1]), 4)]
        return [normalised(value, f"{place}/{index}") for index, value in enumerate(content)]
    return round(content, 4) if isinstance(content, float) else content


def assert_golden(report: dict[str, Any], name: str) -> None:
    """The same keys in the same order, the same words, numbers of the same type and equal but for rounding.

    After a change that is meant ``ANOMALYCLIP_WRITE_GOLDEN=1 pytest tests/engines/test_evaluation.py -k golden`` writes
    the reports anew; read the difference before it is committed.
    """
    path = Path(__file__).parent / "golden" / f"report_{name}.json"
    if os.environ.get("ANOMALYCLIP_WRITE_GOLDEN"):
        path.write_text(json.dumps(normalised(report), indent=1) + "\n")

    def assert_same(found: Any, expected: Any, place: str) -> None:
        assert type(found) is type(expected), place
        if isinstance(expected, dict):
            assert list(found) == list(expected), place
            for key in expected:
                assert_same(found[key], expected[key], f"{place}/{key}")
        elif isinstance(expected, list):
            assert len(found) == len(expected), place
            for index, value in enumerate(expected):
                assert_same(found[index], value, f"{place}/{index}")
        elif isinstance(expected, float):
            assert found == pytest.approx(expected, abs=3e-4), place
        else:
            assert found == expected, place

    assert_same(normalised(report), json.loads(path.read_text()), name)


def test_the_report_of_photos_is_the_golden_one(photos, tmp_path, tiny_network):
    """Two seeds, a second network, baselines, a paired test, a failed picture."""
    (photos / "abnormal" / "a4.png").write_bytes(b"no picture")
    with pytest.raises(CaseError):
        evaluate("folder", photos, tmp_path / "other", methods=["anomalyclip"])
    options = {
        "seeds": [str(made_prompts(tiny_network, tmp_path / name)) for name in ("one", "three")],
        "methods": ["anomalyclip", "clip", "brightness", "centre", "body"],
        "against": tmp_path / "other" / "folder" / "report.json",
        "options": {"preset": "colonoscopy", "slice_axis": "auto", "mirror": True, "fill_glare": True},
        "trained_on": {"colonoscopy": "other frames"},
    }
    with pytest.raises(CaseError):
        evaluate("folder", photos, tmp_path / "out", tiny_network, **options)
    assert_golden(json.loads((tmp_path / "out" / "folder" / "report.json").read_text()), "photos")


def test_the_report_of_volumes_is_the_golden_one(volumes, tmp_path):
    evaluate("lgg", volumes, tmp_path / "out", options={"preset": "mr_brain", "axes": 1, "smooth_mm": 2.0})
    assert_golden(json.loads((tmp_path / "out" / "lgg" / "report.json").read_text()), "volumes")


def test_photos_equal_the_measures_of_the_library(photos, tmp_path):
    report = evaluate("folder", photos, tmp_path / "out")
    measures = report["methods"]["anomalyclip"]["measures"]
    pixels, labels, scores, overlaps = PixelScores(), [], [], []
    for image, mask in arrays(photos):
        pixels.update(image, mask)
        labels.append(int(mask.any()))
        scores.append(image.mean())
        overlaps.append(dice(mask, image, 0.5))
    assert measures["image_auroc"]["value"] == pytest.approx(auroc(labels, scores))
    assert measures["pixel_auroc"]["value"] == pytest.approx(pixels.auroc(), abs=1e-6)
    assert measures["pixel_pro_exact"]["value"] == pytest.approx(exact_pro(pixels), abs=1e-6)
    assert measures["dice"]["value"] == pytest.approx(
        np.mean([value for value in overlaps if isinstance(value, float)])
    )
    for entry in measures.values():
        if entry.get("low") is not None:
            assert entry["low"] <= entry["high"]
    assert measures["pixel_auroc"]["low"] < measures["pixel_auroc"]["value"] < measures["pixel_auroc"]["high"]
    assert report["samples"]["count"] == 7
    assert (report["samples"]["normal"], report["samples"]["abnormal"], report["samples"]["groups"]) == (3, 4, 7)
    assert report["protocol"]["id"] == "native-pro-exact"
    assert report["complete"]
    assert any("7 groups (patients, sequences) only and are too narrow" in warning for warning in report["warnings"])
    assert not (tmp_path / "out" / "folder" / "work").exists()


@pytest.mark.parametrize("dataset", ["folder", "lgg"])
def test_masks_are_outlined_down_to_the_lower_threshold(dataset, photos, volumes, tmp_path):
    folder = photos if dataset == "folder" else volumes
    evaluation = Evaluation(dataset, folder, tmp_path / "out", fingerprint=FINGERPRINT, bootstrap=0)
    evaluator = make_evaluator(evaluation, BrightNetwork(), threshold="0.75", threshold_low="0.45")
    evaluator.run()
    if dataset == "folder":
        cases = [(image, mask) for image, mask in arrays(photos) if mask.any()]
    else:
        cases = []
        for case in sorted(volumes.iterdir()):
            image = ApplyPresetd(preset="auto")(LoadImageCased()({"image": str(case / "flair.nii.gz")}))["image"]
            cases.append((np.asarray(image[0]), np.asarray(nib.load(case / "mask.nii.gz").dataobj) > 0))
    found = [dice(mask, lesion_mask(image, 0.75, 0.45), 1) for image, mask in cases]
    alone = [dice(mask, image, 0.75) for image, mask in cases]
    report = evaluator.report.to_json()
    assert report["methods"]["anomalyclip"]["measures"]["dice"]["value"] == pytest.approx(np.mean(found))
    assert abs(np.mean(found) - np.mean(alone)) > 0.1
    assert "fixed threshold 0.75 with outlines from 0.45 (given)" in report["protocol"]["text"]
    sample = report["samples"]["list"][0]
    assert (sample["threshold"], sample["threshold_low"]) == (0.75, 0.45)


def test_the_picture_of_a_case_shows_the_outline_of_the_volume():
    """What hangs on a bright voxel of another slice is in the mask of the slice that is drawn."""
    heatmap, truth = np.zeros((5, 4, 3), np.float32), np.zeros((5, 4, 3), bool)
    heatmap[1, 2, 1], heatmap[1, 2, 2], heatmap[4, 0, 1] = 0.4, 0.9, 0.4
    truth[:2, :, 1] = True
    record = {"image": MetaTensor(torch.zeros(1, 5, 4, 3), affine=torch.diag(torch.tensor([-1.0, -1, 1, 1])))}
    view = case_view({**record, "truth": truth}, heatmap, slice_axis=2, threshold=Threshold(0.8, 0.3, "given"))
    assert view.note == "slice 1"
    assert np.argwhere(view.mask).tolist() == [[2, 1]]  # row, column


def test_brightness_is_measured_like_a_network_that_returns_it(photos, volumes, tmp_path):
    own_threshold = {"dice", "dice_median", "normal_false_ml"}
    for dataset, folder in (("folder", photos), ("lgg", volumes)):
        methods = evaluate(dataset, folder, tmp_path / "out")["methods"]
        network, baseline = methods["anomalyclip"]["measures"], methods["brightness"]["measures"]
        assert list(network) == list(baseline)
        for name in set(network) - own_threshold:
            assert network[name].get("value") == pytest.approx(baseline[name].get("value"), abs=1e-6), name
        assert "the model's" in baseline["dice"]["undefined"]
        score = "image_auroc" if dataset == "folder" else "slice_auroc"
        assert methods["centre"]["measures"][score]["value"] == 0.5


def test_paper_protocol_measures_on_518_pixels(photos, tmp_path):
    evaluation = Evaluation(
        "folder", photos, tmp_path / "out", fingerprint=FINGERPRINT, protocol="paper", limit=2, bootstrap=0
    )
    evaluator = make_evaluator(evaluation, BrightNetwork())
    record = evaluator.data_loader.dataset[0]
    assert record["image"].shape == (1, 518, 518, 1)
    assert record["truth"].shape == (518, 518, 1)
    # squashing keeps the share of the picture that is lesion
    assert record["case"] == "abnormal/a3"
    assert record["truth"].mean() == pytest.approx((photo(3)[1] > 0).mean(), rel=0.1)  # corners are rounded
    evaluator.run()
    assert evaluator.report.to_json()["protocol"]["id"] == "paper-518-pro200"
    measures = evaluator.report.to_json()["methods"]["anomalyclip"]["measures"]
    assert "pixel_pro_paper" in measures
    assert "pixel_pro_exact" not in measures
    assert measures["pixel_auroc"]["low"] is None  # no bootstrap was asked for


def test_what_a_set_does_not_define_is_undefined_with_its_reason(photos, tmp_path):
    for path in (*photos.glob("normal/*"), *photos.glob("masks/*")):
        path.unlink()
    report = evaluate("folder", photos, tmp_path / "out")
    measures = report["methods"]["anomalyclip"]["measures"]
    assert measures["image_auroc"] == {"undefined": "no normal image"}
    assert measures["pixel_auroc"] == {"undefined": "no lesion masks"}
    assert report["methods"]["anomalyclip"]["curves"] == {}
    assert all(sample["dice"] is None for sample in report["samples"]["list"])


def test_a_class_of_normal_images_beside_one_with_masks(photos, tmp_path):
    rows = [
        f"{path},{int(path.stem in masks)},{masks.get(path.stem, '')},{'lesions' if path.stem in masks else 'none'}"
        for masks in [{mask.stem: mask for mask in sorted((photos / "masks").iterdir())}]
        for path in sorted(photos.glob("*ormal/*.png"))
    ]
    (tmp_path / "list.csv").write_text("\n".join(["image,label,mask,category", *rows]))
    report = evaluate("csv", tmp_path / "list.csv", tmp_path / "out")
    classes = report["methods"]["anomalyclip"]["by_category"]
    assert classes["none"]["pixel_ap"] == {"undefined": "no lesion masks in the class"}
    assert classes["lesions"]["pixel_ap"]["value"] == report["methods"]["anomalyclip"]["measures"]["pixel_ap"]["value"]


def test_a_failed_image_is_named_and_the_rest_is_measured(photos, tmp_path):
    (photos / "abnormal" / "a4.png").write_bytes(b"no picture")
    evaluation = Evaluation("folder", photos, tmp_path / "out", fingerprint=FINGERPRINT, bootstrap=20)
    evaluator = make_evaluator(evaluation, BrightNetwork())
    with pytest.raises(CaseError, match=r"1 of 7 cases failed: abnormal/a4.*the other 6 are done"):
        evaluator.run()
    report = evaluator.report.to_json()
    assert [item["name"] for item in report["failed"]] == ["abnormal/a4"]
    assert report["samples"]["count"] == 6
    assert (tmp_path / "out" / "folder" / "report.json").exists()


def test_an_interrupted_run_goes_on_and_gives_the_same_report(photos, tmp_path):
    whole = evaluate("folder", photos, tmp_path / "whole")
    network = BrightNetwork()
    network.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        evaluate("folder", photos, tmp_path / "out", network)
    assert len(list((tmp_path / "out" / "folder" / "work").glob("*.npz"))) == 4
    second = BrightNetwork()
    resumed = evaluate("folder", photos, tmp_path / "out", second)
    assert second.calls == 3
    assert without_times(resumed) == without_times(whole)


@pytest.mark.parametrize("changed", ["options", "image", "damaged"])
def test_work_that_no_longer_fits_is_done_again(photos, tmp_path, caplog, changed):
    network = BrightNetwork()
    network.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        evaluate("folder", photos, tmp_path / "out", network, options={"preset": "photo"})
    options = {"preset": "photo"}
    if changed == "options":
        options = {"preset": "skin"}
    elif changed == "image":
        save_photo(photos / "abnormal" / "a3.png", photo(3)[0][:, ::-1])
        save_photo(photos / "masks" / "a3.png", photo(3)[1][:, ::-1])
    else:
        for file in (tmp_path / "out" / "folder" / "work").glob("*.npz"):
            file.write_bytes(file.read_bytes()[:200])
    second = BrightNetwork()
    evaluate("folder", photos, tmp_path / "out", second, options=options)
    assert second.calls == {"options": 7, "image": 5, "damaged": 7}[changed]
    assert ("was discarded" in caplog.text) == (changed == "options")


def test_seeds_give_mean_and_standard_deviation(photos, tmp_path, tiny_network):
    paths, single = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        prompts = {name: 2 * torch.randn_like(value) for name, value in tiny_network.state_dict().items()}
        paths.append(tmp_path / f"seed{seed}" / "model.pt")
        paths[-1].parent.mkdir()
        torch.save(prompts, paths[-1])
        report = evaluate("folder", photos, tmp_path / f"out{seed}", tiny_network, seeds=[str(paths[-1])])
        single.append(report["methods"]["anomalyclip"]["measures"]["pixel_auroc"]["value"])
    report = evaluate("folder", photos, tmp_path / "both", tiny_network, seeds=[str(path) for path in paths])
    entry = report["methods"]["anomalyclip"]["measures"]["pixel_auroc"]
    assert single[0] != single[1]
    assert entry["value"] == pytest.approx(np.mean(single))
    assert entry["sd"] == pytest.approx(np.std(single, ddof=1))
    assert report["methods"]["anomalyclip"]["seeds"] == ["seed0/model.pt", "seed1/model.pt"]
    assert report["methods"]["brightness"]["measures"]["pixel_auroc"]["sd"] is None
    hashes = {model["prompts_sha256"] for model in report["methods"]["anomalyclip"]["models"]}
    assert len(hashes) == 2
    with pytest.raises(WeightsError, match="no such prompts"):
        evaluate("folder", photos, tmp_path / "none", tiny_network, seeds=[str(tmp_path / "none.pt")])


def test_hand_written_sentences_are_methods_like_others(photos, tmp_path, tiny_network):
    methods = evaluate("folder", photos, tmp_path / "out", tiny_network, methods=["clip", "anomalyclip", "centre"])[
        "methods"
    ]
    assert list(methods) == ["anomalyclip", "clip", "centre"]
    values = {name: method["measures"]["pixel_auroc"]["value"] for name, method in methods.items()}
    assert len(set(values.values())) == 3
    assert methods["clip"]["title"] == "CLIP made_up"


def made_metrics() -> dict[str, IgniteMetricHandler]:
    return {
        "images": IgniteMetricHandler(ImageMetrics(), output_transform=handlers.scores_and_labels),
        "pixels": IgniteMetricHandler(PixelMetrics(), output_transform=handlers.maps_and_masks),
        "mask_dice": IgniteMetricHandler(MaskDice(), output_transform=handlers.masks_and_truth),
    }


@pytest.mark.parametrize("protocol", ["native", "paper"])
def test_the_metrics_of_monai_say_what_the_report_says(photos, tmp_path, tiny_network, protocol, capsys):
    (photos / "abnormal" / "a4.png").write_bytes(b"no picture")
    methods = ["anomalyclip", "brightness"] if protocol == "native" else ["anomalyclip", "clip"]
    options = {"protocol": protocol, "methods": methods}
    evaluation = Evaluation("folder", photos, tmp_path / "out", fingerprint=FINGERPRINT, bootstrap=0, **options)
    evaluator = make_evaluator(evaluation, tiny_network, threshold="0.02", additional_metrics=made_metrics())
    StatsHandler(name=f"stats of {protocol}", iteration_log=False).attach(evaluator)
    with pytest.raises(CaseError, match="1 of 7"):
        evaluator.run()
    found, report = evaluator.state.metrics, evaluator.report.main.measures
    for name in ("image_auroc", "image_ap", "image_f1_max"):
        assert found[name] == found["images"][name] == report[name].value, name
    for name in ("pixel_auroc", "pixel_ap", evaluation.protocol.pro, "pixel_dice_max"):
        assert found["pixels"][name] == pytest.approx(report[name].value, abs=1e-6), name
        assert found[name] == report[name].value, name
    assert found["mask_dice"] == pytest.approx(report["dice"].value, abs=1e-6)
    assert 0 < found["mask_dice"] < 1
    # one row for each sample that was read, of the first network alone
    details = evaluator.state.metric_details
    assert [len(details[name]) for name in ("images", "pixels", "mask_dice")] == [6, 6, 6]
    assert details["images"][:, 0].tolist() == [sample.score for sample in evaluator.report.samples.samples]
    assert f"pixel_auroc: {report['pixel_auroc'].value:.4f}" in capsys.readouterr().out


def test_metrics_of_monai_on_volumes_and_on_a_set_without_masks(volumes, photos, tmp_path):
    evaluation = Evaluation("lgg", volumes, tmp_path / "out", fingerprint=FINGERPRINT, bootstrap=0)
    evaluator = make_evaluator(evaluation, BrightNetwork(), additional_metrics=made_metrics())
    evaluator.run()
    found = evaluator.state.metrics
    assert found["images"]["image_auroc"] == Undefined("no normal image")
    assert found["pixels"]["pixel_auroc"] == Undefined("no pixel")  # they are of photos
    # the mask that is written lacks small components, the measure of the report has them
    assert found["mask_dice"] > found["dice"] > 0
    for path in photos.glob("masks/*"):
        path.unlink()
    evaluation = Evaluation("folder", photos, tmp_path / "out", fingerprint=FINGERPRINT, bootstrap=0)
    evaluator = make_evaluator(evaluation, BrightNetwork(), additional_metrics=made_metrics())
    evaluator.run()
    found = evaluator.state.metrics
    assert found["images"]["image_auroc"] == evaluator.report.main.measures["image_auroc"].value
    assert found["pixels"]["pixel_auroc"] == Undefined("no abnormal pixel")
    assert found["mask_dice"] == Undefined("no image with a lesion")


def test_a_paired_test_against_another_report(photos, tmp_path):
    evaluate("folder", photos, tmp_path / "first")
    other = tmp_path / "first" / "folder" / "report.json"
    report = evaluate("folder", photos, tmp_path / "second", against=other)
    assert report["comparison"]["with"] == "AnomalyCLIP made_up"
    entry = report["comparison"]["measures"]["pixel_auroc"]
    assert (entry["difference"], entry["low"], entry["high"], entry["p"]) == (0, 0, 0, 1)

    class Inverted(BrightNetwork):
        def score_and_map(self, images):
            score, maps = super().score_and_map(images)
            return 1 - score, 1 - maps

    entry = evaluate("folder", photos, tmp_path / "third", Inverted(), against=other)["comparison"]["measures"]
    assert entry["pixel_auroc"]["high"] < 0
    assert entry["pixel_auroc"]["p"] == pytest.approx(2 / 51)  # the smallest of 50 resampled sets
    with pytest.raises(UsageError, match="other samples"):
        evaluate("folder", photos, tmp_path / "fourth", against=other, limit=3)
    with pytest.raises(UsageError, match="50 resampled sets"):
        evaluate("folder", photos, tmp_path / "fourth", against=other, bootstrap=30)


@pytest.mark.parametrize(
    "rows", [None, b"no archive", {"anomalyclip/dice": np.zeros(3)}, {"a": np.array(["text"] * 50)}]
)
def test_a_report_without_its_draws_cannot_be_compared_with(photos, tmp_path, rows):
    evaluate("folder", photos, tmp_path / "first", limit=3)
    report = tmp_path / "first" / "folder" / "report.json"
    draws = report.with_name("bootstrap.npz")
    draws.unlink()
    if isinstance(rows, bytes):
        draws.write_bytes(rows)
    elif rows is not None:
        np.savez(draws, **rows)
    with pytest.raises(UsageError, match=r"^E_AGAINST: no readable bootstrap.npz lies beside the report"):
        evaluate("folder", photos, tmp_path / "second", limit=3, against=report)


def test_classes_are_measured_apart_and_then_averaged(tmp_path):
    folder = tmp_path / "mvtec"
    for number, name in enumerate(("screw", "cable")):
        for seed in range(4):
            grey, mask = photo(10 * number + seed)
            kind = "good" if seed < 2 else "broken"
            save_photo(folder / name / "test" / kind / f"{seed}.png", np.where(seed < 2, grey // 2, grey))
            if seed >= 2:
                save_photo(folder / name / "ground_truth" / kind / f"{seed}_mask.png", mask)
    method = evaluate("mvtec", folder, tmp_path / "out", protocol="native")["methods"]["anomalyclip"]
    classes = method["by_category"]
    assert list(classes) == ["cable", "screw"]
    for name in ("image_auroc", "pixel_auroc", "pixel_pro_exact"):
        mean = np.mean([classes[category][name]["value"] for category in classes])
        assert method["measures"][name]["value"] == pytest.approx(mean)
    assert classes["cable"]["pixel_auroc"]["value"] != classes["screw"]["pixel_auroc"]["value"]
    assert len(method["curves"]["pro"]) <= 200
    assert method["curves"]["roc"][0][0] == 0
    assert method["curves"]["roc"][-1] == [1, 1]


def test_volumes_equal_the_measures_of_the_library(volumes, tmp_path):
    report = evaluate("lgg", volumes, tmp_path / "out")
    assert report["note"].endswith(" of the 110 patients of the published set")
    found = []
    for case in sorted(volumes.iterdir()):
        image = LoadImageCased()({"image": str(case / "flair.nii.gz")})
        scaled = np.asarray(ApplyPresetd(preset="auto")(image)["image"][0])
        mask = np.asarray(nib.load(case / "mask.nii.gz").dataobj)
        found.append(
            measure_volume(
                scaled, mask, scaled.mean(axis=(0, 1)), slice_axis=2, predicted=scaled >= 0.5, voxel_volume=4.0
            )
        )
    measures = report["methods"]["anomalyclip"]["measures"]
    for name, attribute in (("slice_auroc", "slice_auroc"), ("voxel_ap", "voxel_ap"), ("dice", "dice")):
        assert measures[name]["value"] == pytest.approx(np.mean([getattr(one, attribute) for one in found]), abs=1e-6)
    assert measures["slice_pointing"]["value"] == pytest.approx(np.mean([one.slice_pointing for one in found]))
    assert measures["volume_auroc"] == {"undefined": "no normal volume"}
    assert measures["normal_false_ml"] == {"undefined": "no volume without a lesion"}
    assert 0 <= measures["froc_1"]["value"] <= measures["froc_8"]["value"] <= 1
    assert report["protocol"]["id"] == "native-volumes-froc50"
    assert "slice axis (auto)" in report["protocol"]["text"]
    with pytest.raises(UsageError, match="for photos"):
        evaluate("lgg", volumes, tmp_path / "out", protocol="paper")


def test_each_volume_is_measured_at_the_threshold_of_its_axes(volumes, tmp_path):
    """One of thick slices, one that is fine along all axes; the mean of its three maps is the map along one."""
    case = volumes / "TCGA_1"
    random = np.random.default_rng(7)
    mask = np.zeros((66, 71, 64), np.uint8)
    mask[20:41, 30:49, 25:40] = 1
    data = (random.uniform(0.1, 0.6, mask.shape) + 0.3 * mask).astype(np.float32)
    for name, voxels in (("flair", data), ("mask", mask)):
        nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])), case / f"{name}.nii.gz")
    evaluation = Evaluation(
        "lgg", volumes, tmp_path / "out", fingerprint=FINGERPRINT, bootstrap=0, options={"axes": "auto"}
    )
    shipped = {"value": 0.55, "origin": "training data", "by_axes": {"3": 0.45}}
    evaluator = make_evaluator(evaluation, BrightNetwork(), threshold="auto", axes="auto", shipped_threshold=shipped)
    evaluator.run()
    report = evaluator.report.to_json()
    samples = report["samples"]["list"]
    assert [(sample["axes"], sample["threshold"]) for sample in samples] == [(1, 0.55), (3, 0.45)]
    for sample, path, threshold in zip(samples, sorted(volumes.iterdir()), (0.55, 0.45), strict=True):
        image = ApplyPresetd(preset="auto")(LoadImageCased()({"image": str(path / "flair.nii.gz")}))["image"]
        truth = np.asarray(nib.load(path / "mask.nii.gz").dataobj)
        assert sample["dice"] == pytest.approx(dice(truth > 0, np.asarray(image[0]), threshold), abs=1e-3)
    text = report["protocol"]["text"]
    assert text.endswith("fixed threshold 0.55 along 1 axis, 0.45 along 3 axes (training data).")
    assert "axes fused: auto (3 where pixels allow it, else 1)" in text
    assert not any("threshold" in warning for warning in report["warnings"])


@pytest.mark.parametrize(
    ("thresholds", "text"),
    [
        ({}, "none"),
        ({3: Threshold(0.5, 0.5, "given"), 1: Threshold(0.5, 0.5, "given")}, "0.5 (given)"),
        (
            {3: Threshold(0.45, 0.45, "mine"), 1: Threshold(0.55, 0.55, "mine")},
            "0.55 along 1 axis, 0.45 along 3 axes (mine)",
        ),
        (
            {3: Threshold(0.55, 0.3, "mine"), 1: Threshold(0.55, 0.55, "mine")},
            "0.55 along 1 axis, 0.55 with outlines from 0.3 along 3 axes (mine)",
        ),
        ({1: Threshold(0.55, 0.3, "mine")}, "0.55 with outlines from 0.3 (mine)"),
        ({1: Threshold(0.8, 0.8, "quantile:0.9 of this case")}, "quantile:0.9 of this case"),
    ],
)
def test_the_fixed_threshold_in_words(thresholds: dict[int, Threshold], text: str) -> None:
    assert threshold_text(thresholds) == text


def test_the_protocol_of_photos_says_what_the_network_was_shown():
    def text(**options: bool) -> str:
        return Protocol("native").text(image_score="map_top2", threshold="none", options=options)

    assert text(fill_glare=True, mirror=True).startswith(
        "Maps and masks on the photo's own grid; reflections in colour pictures filled, mean of the picture and its"
    )
    assert "reflections" not in text(fill_glare=False)


def test_healthy_volumes_count_false_alarms(volumes, tmp_path):
    for mask in volumes.glob("*/mask.nii.gz"):
        mask.unlink()
    report = evaluate("normal_volumes", volumes, tmp_path / "out")
    measures = report["methods"]["anomalyclip"]["measures"]
    above = [np.asarray(nib.load(path).dataobj) for path in sorted(volumes.glob("*/flair.nii.gz"))]
    assert measures["voxel_auroc"] == {"undefined": "no abnormal voxel"}
    assert measures["dice"] == {"undefined": "no abnormal voxel"}
    assert 0 < measures["normal_false_ml"]["value"] < np.mean([data.size for data in above]) * 4 / 1000
    assert report["samples"]["normal"] == 2


def test_a_limit_spreads_over_the_set_and_is_said(photos, tmp_path):
    report = evaluate("folder", photos, tmp_path / "out", limit=3)
    assert [sample["name"] for sample in report["samples"]["list"]] == ["abnormal/a3", "abnormal/a6", "normal/n2"]
    assert not report["complete"]
    assert report["note"] == "3 of the 7 images that are there"


def test_a_part_of_a_published_set_is_said(tmp_path):
    for seed in range(2):
        grey, mask = photo(seed)
        save_photo(tmp_path / "set" / "images" / f"{seed + 1}.png", grey)
        save_photo(tmp_path / "set" / "masks" / f"{seed + 1}.png", mask)
    trained_on = {"colonoscopy": "other frames", "skin": "moles"}
    options = {"protocol": "native", "options": {"preset": "colonoscopy"}, "trained_on": trained_on}
    report = evaluate("colondb", tmp_path / "set", tmp_path / "out", **options)
    assert report["trained_on"] == "other frames"
    assert report["note"] == "2 of the 380 images of the published set"
    assert report["published"]["pixel_auroc"] == 0.819
    measured = report["methods"]["anomalyclip"]["measures"]["pixel_auroc"]
    assert measured["low"] is None  # one sequence gives no interval


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"methods": ["clap"]}, "E_METHOD"),
        ({"methods": ["centre"]}, "E_METHOD"),
        ({"methods": ["centre", "body"]}, "E_METHOD"),
        ({"protocol": "papr"}, "E_PROTOCOL"),
        ({"limit": 0}, "E_OPTION"),
        ({"bootstrap": -1}, "E_OPTION"),
        ({"seeds": ["a.pt", "a.pt"]}, "E_OPTION"),
        ({"against": "nothing.json"}, "E_REPORT"),
    ],
)
def test_wrong_options_are_refused_before_any_work(photos, tmp_path, options, code):
    with pytest.raises(UsageError) as error:
        Evaluation("folder", photos, tmp_path / "out", fingerprint=FINGERPRINT, **options)
    assert error.value.code == code
    assert not (tmp_path / "out").exists()


def test_every_file_of_the_report_is_written(photos, tmp_path):
    evaluate("folder", photos, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out" / "folder").iterdir()}
    assert {"report.json", "table.md", "report.html", "cases.png", "bootstrap.npz"} <= written


def test_a_lesion_that_squashing_swallows_still_makes_an_image_abnormal(tmp_path):
    for number, size in ((0, 0), (1, 1), (2, 300)):
        mask = np.zeros((1100, 900), np.uint8)
        mask[200 : 200 + size, 300 : 300 + size] = 255
        save_photo(tmp_path / "sdd" / "kos01" / f"Part{number}.png", np.full(mask.shape, 60 + number, np.uint8))
        save_photo(tmp_path / "sdd" / "kos01" / f"Part{number}_label.bmp", mask)
    evaluation = Evaluation("sdd", tmp_path / "sdd", tmp_path / "out", fingerprint=FINGERPRINT, bootstrap=0)
    evaluator = make_evaluator(evaluation, BrightNetwork())
    assert not evaluator.data_loader.dataset[1]["truth"].any()
    evaluator.run()
    assert [sample["label"] for sample in evaluator.report.to_json()["samples"]["list"]] == [0, 1, 1]


def test_an_abnormal_image_with_an_empty_mask_counts_for_image_scores_alone(photos, tmp_path):
    names = [f"abnormal/a{seed}" for seed in range(3, 7)]
    save_photo(photos / "masks" / "a4.png", photo(4)[1] * 0)
    evaluation = Evaluation("folder", photos, tmp_path / "out", fingerprint=FINGERPRINT, bootstrap=0)
    evaluator = make_evaluator(evaluation, BrightNetwork())
    with pytest.raises(CaseError, match=r"1 of 7 cases failed: abnormal/a4: E_MASK: an abnormal image whose mask is e"):
        evaluator.run()
    report = evaluator.report.to_json()
    assert [entry["name"] for entry in report["failed"]] == ["abnormal/a4"]
    assert {sample["name"] for sample in report["samples"]["list"]} >= set(names)
    # as if the picture were not there, but for its score
    rest = tmp_path / "rest"
    photos.rename(rest)
    (rest / "abnormal" / "a4.png").unlink()
    (rest / "masks" / "a4.png").unlink()
    other = evaluate("folder", rest, tmp_path / "other", bootstrap=0)
    for name, entry in other["methods"]["anomalyclip"]["measures"].items():
        if not name.startswith("image"):
            assert report["methods"]["anomalyclip"]["measures"][name] == entry
    scores = {sample["name"]: sample["score"] for sample in report["samples"]["list"]}
    labels = [int(name.startswith("abnormal")) for name in scores]
    measured = report["methods"]["anomalyclip"]["measures"]["image_auroc"]["value"]
    assert measured == pytest.approx(auroc(labels, list(scores.values())))


def test_what_a_mask_ignores_changes_no_measure_of_pixels(photos, tmp_path):
    rng = np.random.default_rng(5)
    for path in sorted((photos / "masks").iterdir()):
        mask = (np.asarray(Image.open(path)) > 0).astype(np.uint8)
        mask[15:, :9] = 255  # below all lesions
        save_photo(path, mask)
    first = evaluate("folder", photos, tmp_path / "a")
    assert first["warnings"][-1] == ("abnormal/a3 and 3 more: mask values taken as lesion: 1; left out: 255")
    for path in sorted((photos / "abnormal").iterdir()):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[15:, :9] = rng.integers(0, 255, pixels[15:, :9].shape)
        save_photo(path, pixels)
    second = evaluate("folder", photos, tmp_path / "b")
    for method in ("anomalyclip", "centre"):
        for name, entry in first["methods"][method]["measures"].items():
            if not name.startswith("image"):
                assert second["methods"][method]["measures"][name] == entry
    scores = [[sample["score"] for sample in report["samples"]["list"]] for report in (first, second)]
    assert scores[0] != scores[1]  # of images: the network saw the change


def test_false_alarms_of_a_volume_without_a_known_lesion_are_not_counted_as_none(volumes, tmp_path):
    cases = sorted(path for path in volumes.iterdir() if path.is_dir())
    rows = [f"{case.name}/flair.nii.gz,{case.name}/mask.nii.gz,1" for case in cases]
    (volumes / "all.csv").write_text("image,mask,label\n" + "\n".join(rows[:1]) + "\n")
    one = evaluate("csv", volumes / "all.csv", tmp_path / "one", bootstrap=0)
    (volumes / "all.csv").write_text("image,mask,label\n" + f"{rows[0]}\n{cases[1].name}/flair.nii.gz,,1\n")
    two = evaluate("csv", volumes / "all.csv", tmp_path / "two", bootstrap=0)
    for rate in ("0", "1_8", "1", "8"):
        found = [report["methods"]["anomalyclip"]["measures"][f"froc_{rate}"]["value"] for report in (one, two)]
        assert found[0] == found[1]
    assert one["methods"]["anomalyclip"]["curves"]["froc"] == two["methods"]["anomalyclip"]["curves"]["froc"]


def made_record(category: str, *boxes: tuple[float, bool]) -> dict[str, Any]:
    """A volume of 1 ml voxels as it comes from the network: boxes of 4 voxels with a value, lesion or not."""
    heatmap, truth = np.zeros((1, 24, 8, 6), np.float32), np.zeros((24, 8, 6), bool)
    for index, (value, is_lesion) in enumerate(boxes):
        place = np.s_[4 * index : 4 * index + 2, 3:5, 3]
        heatmap[0][place], truth[place] = value, is_lesion
    data = MetaTensor(heatmap, affine=np.diag([10.0, 10.0, 10.0, 1.0]))
    name = f"{category} {boxes}"
    return {
        "sample": Sample(name, Path(name), None, (), category, name, volume=True),
        "abnormal": bool(truth.any()),
        "heatmap": data,
        "image": data,
        "findings": Findings(float(heatmap.max()), heatmap[0].max(axis=(0, 1)), (2,), Threshold(0.5, 0.5, "made up")),
        "truth": truth,
        "counted": None,
        "source": SimpleNamespace(has_physical_size=True),
    }


def test_healthy_volumes_of_another_class_count_for_every_sensitivity():
    """Lesions at .8 and .6; of four healthy scans one has boxes at .7 and .3, one a box at .65, one at .55."""
    metric = VolumeMetric("anomalyclip")
    metric.update([made_record("ill", (0.8, True), (0.6, True))])
    healthy = [
        made_record("well", *boxes) for boxes in (((0.7, False), (0.3, False)), ((0.65, False),), ((0.55, False),))
    ]
    metric.update([*healthy, made_record("well")])
    found = metric.compute()
    # over five volumes: before the first false alarm one lesion of two is found, the other after two of them
    assert {rate: found[f"froc_{rate}"] for rate in ("0", "1_8", "1_4", "1_2", "1")} == {
        "0": 0.5,
        "1_8": 0.5,
        "1_4": 0.5,
        "1_2": 1.0,
        "1": 1.0,
    }
    assert found["normal_false_lesions"] == 3 / 4  # at .5
    assert found["normal_false_ml"] == pytest.approx(3 * 4 / 4)
    assert metric.classes["ill"].values["froc_0"] == 1.0
    assert metric.classes["ill"].values["normal_false_lesions"] == Undefined("no volume without a lesion")
    assert metric.classes["well"].values["froc_0"] == Undefined("no lesion")
    assert (0.2, 0.5) in [(round(x, 6), y) for x, y in metric.overall.curves["froc"]]
    names = list(found)
    at = names.index("froc_8")
    assert names[at + 1 : at + 3] == ["normal_false_ml", "normal_false_lesions"]  # beside it in every table
    # drawn twice, the healthy scans with false alarms weigh twice
    rows = metric.overall.resampled(np.array([[1, 2, 0, 0, 0], [1, 0, 0, 0, 2]], np.float32))
    assert rows["froc_0"].tolist() == [0.5, 1.0]
    assert rows["normal_false_lesions"].tolist() == [1.0, 0.0]


def test_one_healthy_volume_gives_no_interval_of_what_is_false_in_it():
    for categories in (("ill", "well"), ("all", "all")):  # classes of their own, or one
        metric = VolumeMetric("anomalyclip")
        boxes = [((0.8, True),), ((0.6, True), (0.9, False)), ((0.4, True), (0.3, False))]
        ill = [made_record(categories[0], *found) for found in boxes]
        metric.update([*ill, made_record(categories[1], (0.7, False))])
        assert metric.compute()["normal_false_lesions"] == 1
        draws = draws_of(metric.samples, repeats=50, seed=0)
        measures = summarise([metric.classes], draws, overall=[metric.overall]).measures
        false = measures["normal_false_lesions"]
        assert (false.value, false.low, false.high) == (1, None, None)
        assert measures["dice"].low < measures["dice"].high


def test_baselines_of_volumes_have_no_threshold_for_false_lesions():
    metric = VolumeMetric("brightness")
    metric.update([made_record("ill", (0.8, True)), made_record("well")])
    assert "the model's" in str(metric.compute()["normal_false_lesions"])


@pytest.fixture
def organs(tmp_path: Path) -> Path:
    """Three sets of pictures of several sizes: brain_mr of two patients, liver_us of one, skin with a tiny lesion."""
    folder = tmp_path / "organs"
    rows = ["image,mask,label,group,category,split"]
    for index, category in enumerate(("brain_mr", "brain_mr", "brain_mr", "liver_us", "liver_us", "skin", "skin")):
        grey, mask = (np.pad(plane, 40) for plane in photo(index, (220 + 20 * index, 200)))  # in a dark surround
        if category == "skin":
            mask = np.zeros((600, 700), np.uint8)
            mask[400, 500:502] = 255
            grey = np.full(mask.shape, 90, np.uint8)
            grey[400, 500:502] = 255
        normal = index == 4
        name = f"{category}/images/{index}.png"
        save_photo(folder / name, grey)
        if not normal:
            save_photo(folder / name.replace("images", "masks"), mask)
        label = "normal" if normal else "abnormal"
        mask_name = "" if normal else name.replace("images", "masks")
        group = "one" if category == "liver_us" else index
        rows.append(f"{name},{mask_name},{label},{group},{category},test")
    (folder / "organs.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_organs_are_measured_set_by_set_and_where_they_were_not_trained(organs, tmp_path):
    trained = TrainedOrgans({"brain": "gliomas", "liv": "no organ"}, {"skin": "unlabelled images"})
    report = evaluate("organs", organs, tmp_path / "out", bootstrap=400, trained_organs=trained)
    assert report["protocol"]["id"] == "organs-256"
    assert "measured at 256 x 256, images without a lesion included" in report["protocol"]["text"]
    assert report["primary"] == ["pixel_auroc", "pixel_auroc_lit", "pixel_ap", "pixel_pro_exact", "pointing"]
    assert [subset["categories"] for subset in report["subsets"]] == [["liver_us", "skin"]]
    assert report["subsets"][0]["title"] == "2 of 3 sets whose organ was not trained"
    assert list(report["methods"]) == ["anomalyclip", "brightness", "centre", "body"]
    method = report["methods"]["anomalyclip"]
    sets = method["by_category"]
    for name in report["primary"]:
        assert method["measures"][name]["value"] == pytest.approx(np.mean([sets[key][name]["value"] for key in sets]))
        part = [sets[key][name]["value"] for key in ("liver_us", "skin")]
        assert method["by_subset"]["untrained"][name]["value"] == pytest.approx(np.mean(part))
        ends = [method["measures"][name][f"classes_{end}"] for end in ("low", "high")]
        assert ends == pytest.approx(
            [min(sets[key][name]["value"] for key in sets), max(sets[key][name]["value"] for key in sets)]
        )
    # two pixels of 700 are not lost among 256
    assert sets["skin"]["pixel_auroc"]["value"] > 0.9
    assert sets["liver_us"]["pixel_auroc"]["low"] is None
    lines = "\n".join(report["warnings"])
    assert "1 class has one group (patient, sequence) and no spread of its own: it stays in every interval" in lines
    assert "sets with a relative in the training: brain_mr (brain)" in lines
    assert "counted as not trained: skin: unlabelled images" in lines
    # the network is the brightness baseline, and beats it nowhere
    equal = [found for found in report["shortfalls"] if found["baseline"] == "brightness" and "subset" not in found]
    assert {found["measure"]: found["difference"] for found in equal} == dict.fromkeys(report["primary"], 0)
    assert Report.from_json(report).to_json() == report


def test_organs_at_256_are_what_was_asked_for(organs, tmp_path):
    """Masks at half of a pixel, the map averaged, one picture of a set without a lesion pooled with the other."""
    report = evaluate("organs", organs, tmp_path / "out", bootstrap=0)
    pixels = PixelScores()
    for index in (3, 4):
        grey = (
            Image.open(organs / f"liver_us/images/{index}.png")
            .convert("F")
            .resize((256, 256), Image.Resampling.BILINEAR)
        )
        mask = np.zeros((256, 256), bool)
        if index == 3:
            stored = Image.fromarray(np.asarray(Image.open(organs / "liver_us/masks/3.png")).astype(np.float32) / 255)
            mask = np.asarray(stored.resize((256, 256), Image.Resampling.BOX)) >= 0.5
        pixels.update(np.asarray(grey) / 255, mask)
    measured = report["methods"]["anomalyclip"]["by_category"]["liver_us"]
    assert measured["pixel_auroc"]["value"] == pytest.approx(pixels.auroc(), abs=1e-3)
    assert measured["pixel_ap"]["value"] == pytest.approx(pixels.average_precision(), abs=1e-3)
    assert "does not say which organs it was trained on" in "\n".join(report["warnings"])
    assert "subsets" not in report


@pytest.mark.parametrize(
    ("content", "categories"),
    [({}, None), ({"with_lesions": {"brain": "a"}}, ["brainstem", "breast_mr"]), ({"without_lesions": {}}, "all")],
)
def test_a_bundle_says_which_organs_it_has_trained(tmp_path, content, categories):
    (tmp_path / "configs").mkdir()
    entry = {"trained_organs": content} if content else {}
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(entry))
    found = trained_organs(tmp_path)
    every = ["brain", "brain_mr", "brainstem", "breast_mr"]
    if categories is None:
        assert found is None
    else:
        assert list(found.subset(every).categories) == (every if categories == "all" else categories)


@pytest.mark.parametrize(
    "entry", [["brain"], {"brain": "lesions"}, {"with_lesions": ["brain"]}, {"with_lesions": {"a": 1}}]
)
def test_a_wrong_list_of_trained_organs_is_refused(tmp_path, entry):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"trained_organs": entry}))
    with pytest.raises(UsageError, match=r"^E_MODEL: trained_organs is not with_lesions and without_lesions"):
        trained_organs(tmp_path)


def test_the_area_of_the_body_is_an_image_score(tmp_path):
    """Of two sources whose pictures differ in size alone, no network is needed to tell them apart."""
    for index in range(4):
        side = 60 if index % 2 else 40
        grey = np.zeros((side, side), np.uint8)
        grey[10:-10, 10:-10] = 100
        save_photo(tmp_path / "set" / ("abnormal" if index % 2 else "normal") / f"{index}.png", grey)
    for protocol in ("native", "paper"):
        report = evaluate("folder", tmp_path / "set", tmp_path / protocol, protocol=protocol, bootstrap=0)
        assert report["methods"]["body"]["measures"]["image_auroc"]["value"] == 1
        (found,) = [
            found for found in report["shortfalls"] if (found["baseline"], found["measure"]) == ("body", "image_auroc")
        ]
        assert found["difference"] <= 0


def test_the_centre_of_the_body_is_a_baseline_of_photos(volumes, tmp_path):
    with pytest.raises(UsageError, match="E_METHOD: body is a baseline of photos"):
        evaluate("lgg", volumes, tmp_path / "out", methods=["anomalyclip", "body"])
    with pytest.raises(UsageError, match="E_PROTOCOL: the organs' protocol is for photos"):
        evaluate("lgg", volumes, tmp_path / "out", protocol="organs")
