"""The measurement report says what scores.json says, in LPS mm, and points to the Segmentation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from anomalyclip_monai.data.dicom_series import read_series, scan
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.outputs.dicom import write_segmentation
from anomalyclip_monai.outputs.dicom_measurements import write_measurements
from anomalyclip_monai.transforms.findings import Findings, Threshold
from anomalyclip_monai.transforms.post import find_lesions

MARK = "MK-"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"  # PS3.4 B.5, Label Map Segmentation Storage
MODEL = {"bundle": "anomalyclip_tiny", "weights_sha256": "a" * 64, "prompts_sha256": "b" * 64}
SCORE = 0.8125
MAXIMUM, MEAN, VOLUME, NUMBER_OF_LESIONS = "56851009", "373098007", "118565006", "246206008"


def found_in(heatmap: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, Findings]:
    mask, lesions = find_lesions(heatmap, 0.55, affine, low=0.35)
    scores = np.full(heatmap.shape[2], SCORE, np.float32)
    return mask, Findings(SCORE, scores, (2,), Threshold(0.55, 0.35, "given"), lesions)


def two_lesions(shape: tuple[int, ...]) -> np.ndarray:
    """Of 6 voxels with the peak in its midst, and of one voxel in the last slice."""
    heatmap = np.zeros(shape, np.float32)
    heatmap[1:4, 2:4, 0] = 0.4
    heatmap[2, 3, 0] = 0.9
    heatmap[6, 5, -1] = max(heatmap[6, 5, -1], 0.6)
    return heatmap


def write(folder: Path, volume: Volume, heatmap: np.ndarray, seg_type: str = "binary") -> tuple[Path, Findings]:
    mask, findings = found_in(heatmap, volume.affine)
    source, affine = volume.source, volume.affine
    lesions = write_segmentation(folder / "mask.dcm", mask, source, affine, model=MODEL, seg_type=seg_type)
    path = folder / "measurements.dcm"
    write_measurements(path, findings, source, affine, mask.shape, model=MODEL, segmentation=lesions)
    return path, findings


def values_of(group: Any) -> dict[str, float]:
    """Code, and derivation where there is one -> value of a group's measurements."""
    return {
        measured.name.value + (f" {measured.derivation.value}" if measured.derivation else ""): measured.value
        for measured in group.get_measurements()
    }


def groups_of(path: Path) -> tuple[dict[str, float], list[Any]]:
    """The case's values, and the groups of the lesions."""
    content = hd.sr.srread(path).content
    (case,) = content.get_image_measurement_groups()
    return values_of(case), content.get_volumetric_roi_measurement_groups()


class TestContent:
    @pytest.mark.parametrize("kind", ["axial", "top to bottom", "sagittal", "oblique", "tilted"])
    def test_equals_scores_json(self, classic: Callable[..., Any], tmp_path: Path, kind: str) -> None:
        made = classic(kind)
        path, findings = write(tmp_path, made.volume, two_lesions(made.shape))
        said = findings.to_json()
        case, lesions = groups_of(path)
        assert case == {NUMBER_OF_LESIONS: 2, "anomaly": said["score"], "threshold": 0.55, "threshold-low": 0.35}
        assert [group.tracking_identifier for group in lesions] == ["Lesion 1", "Lesion 2"]
        assert len({group.tracking_uid for group in lesions}) == 2
        for group, lesion in zip(lesions, said["lesions"], strict=True):
            values = values_of(group)
            assert (group.finding_type.value, group.finding_category.value) == ("52988006", "49755003")
            assert values[f"anomaly {MAXIMUM}"] == lesion["peak"]
            assert values[f"anomaly {MEAN}"] == lesion["mean"]
            assert values[VOLUME] == lesion["volume_mm3"]
            for name, key in (("centre", "centroid_world_mm"), ("peak", "peak_world_mm")):
                lps = np.array(lesion[key]) * [-1, -1, 1]
                assert [values[f"{name}-{axis}"] for axis in "xyz"] == pytest.approx(lps.tolist(), abs=1e-3)

    def test_by_hand(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        """Voxels of 0.7 x 0.9 x 2.5 mm from (-31.5, 12.25, -100) on, LPS, rows and columns along x and y."""
        made = classic("axial")
        _, (first, second) = groups_of(write(tmp_path, made.volume, two_lesions(made.shape))[0])
        values = values_of(first)
        assert values[VOLUME] == pytest.approx(6 * 0.7 * 0.9 * 2.5)
        assert [values[f"peak-{axis}"] for axis in "xyz"] == pytest.approx([-31.5 + 1.4, 12.25 + 2.7, -100])
        assert [values[f"centre-{axis}"] for axis in "xyz"] == pytest.approx([-31.5 + 1.4, 12.25 + 2.25, -100])
        assert values[f"anomaly {MEAN}"] == pytest.approx((5 * 0.4 + 0.9) / 6)
        assert values_of(second)["peak-z"] == pytest.approx(-100 + 4 * 2.5)

    def test_no_lesion_is_said(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        case, lesions = groups_of(write(tmp_path, made.volume, np.zeros(made.shape, np.float32))[0])
        assert case[NUMBER_OF_LESIONS] == 0
        assert lesions == []

    @pytest.mark.parametrize(("seg_type", "sop_class"), [("binary", SegmentationStorage), ("labelmap", LABEL_MAP)])
    def test_points_to_the_segment_and_the_images_that_the_lesion_reaches(
        self, classic: Callable[..., Any], tmp_path: Path, seg_type: str, sop_class: str
    ) -> None:
        made = classic("top to bottom")
        heatmap = np.zeros(made.shape, np.float32)
        heatmap[4, 4, 1:3] = 0.8
        path, _ = write(tmp_path, made.volume, heatmap, seg_type)
        mask = pydicom.dcmread(tmp_path / "mask.dcm")
        _, (group,) = groups_of(path)
        segment = group.referenced_segment
        assert (segment.referenced_sop_class_uid, segment.referenced_sop_instance_uid) == (
            sop_class,
            mask.SOPInstanceUID,
        )
        assert segment.referenced_segment_numbers == [1]
        sources = {
            pydicom.dcmread(made.volume.source.frames[k].path, stop_before_pixels=True).SOPInstanceUID for k in (1, 2)
        }
        named = [item for item in group[0].ContentSequence if item.name.meaning == "Source Image for Segmentation"]
        assert {item.referenced_sop_instance_uid for item in named} == sources

    def test_frames_of_an_enhanced_source_are_named(self, enhanced: Callable[..., Any], tmp_path: Path) -> None:
        made = enhanced("oblique")
        heatmap = np.zeros(made.shape, np.float32)
        heatmap[4, 4, 1:3] = 0.8
        _, (group,) = groups_of(write(tmp_path, made.volume, heatmap)[0])
        named = [item for item in group[0].ContentSequence if item.name.meaning == "Source Image for Segmentation"]
        frames = [item.referenced_frame_numbers for item in named]
        assert frames == [[made.volume.source.frames[k].number + 1] for k in (1, 2)]

    def test_slices_on_no_grid_have_no_volume_and_no_centre(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        third = next(path for path in made.folder.iterdir() if pydicom.dcmread(path).ImagePositionPatient[2] == -95)
        third.unlink()
        volume = read_series(scan(made.folder)[0][0], per_slice=True)
        assert not volume.source.regular
        _, (first, last) = groups_of(write(tmp_path, volume, two_lesions(volume.data.shape[1:]))[0])
        assert set(values_of(first)) == {f"anomaly {MAXIMUM}", f"anomaly {MEAN}", "peak-x", "peak-y", "peak-z"}
        assert values_of(last)["peak-z"] == -90  # where that slice is, not where an even stack would have it

    def test_who_made_it_and_of_what(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        path, _ = write(tmp_path, made.volume, two_lesions(made.shape))
        ds, mask = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "mask.dcm")
        assert ds.SOPClassUID == Comprehensive3DSRStorage
        assert (ds.Modality, ds.CompletionFlag, ds.VerificationFlag) == ("SR", "COMPLETE", "UNVERIFIED")
        assert ds.SeriesDescription == "Anomaly measurements of series 7 (CT)"
        assert (ds.SeriesNumber, mask.SeriesNumber) == (703, 701)
        assert ds.StudyInstanceUID == mask.StudyInstanceUID
        texts = [
            item.TextValue for item in ds.ContentSequence[-1].ContentSequence[1].ContentSequence if "TextValue" in item
        ]
        assert texts[1] == "anomalyclip-monai"
        assert texts[3:] == [f"{name}={value}" for name, value in MODEL.items()]
        (study,) = ds.CurrentRequestedProcedureEvidenceSequence
        known = {
            item.ReferencedSOPInstanceUID
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        assert mask.SOPInstanceUID in known


class TestPrivacy:
    ALLOWED = frozenset(
        {
            *("PatientName", "PatientID", "IssuerOfPatientID", "DeidentificationMethod"),
            *("StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription"),
        }
    )

    @pytest.mark.parametrize("kind", ["classic", "enhanced"])
    def test_marked_text_goes_nowhere_else(self, request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
        made = request.getfixturevalue(kind)("oblique", marked=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            path, _ = write(tmp_path / "out", made.volume, two_lesions(made.shape))
        ds = pydicom.dcmread(path)
        marked = [element for element in ds.iterall() if element.VR != "SQ" and MARK in str(element.value)]
        assert {element.keyword for element in marked} <= self.ALLOWED
        assert path.read_bytes().count(MARK.encode()) == len(marked)

    def test_what_belongs_to_pixels_is_not_in_a_report(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        def edit(ds: Dataset) -> None:
            ds.PositionReferenceIndicator, ds.LossyImageCompression = "OM", "00"

        made = classic(edit=edit)
        ds = pydicom.dcmread(write(tmp_path, made.volume, two_lesions(made.shape))[0])
        assert "PositionReferenceIndicator" not in ds
        assert "LossyImageCompression" not in ds


@pytest.mark.slow
class TestOtherReaders:
    """What the tools of others make of the report; a tool that is not installed is skipped."""

    @pytest.mark.parametrize("empty", [False, True], ids=["two lesions", "no lesion"])
    def test_dciodvfy_finds_no_error(
        self, any_volume: Volume, tmp_path: Path, dciodvfy: Callable[[Path], list[str]], empty: bool
    ) -> None:
        heatmap = two_lesions(any_volume.data.shape[1:]) * (not empty)
        assert dciodvfy(write(tmp_path, any_volume, heatmap)[0]) == []

    def test_dcmqi_reads_the_same_values(
        self, any_volume: Volume, tmp_path: Path, tid1500reader: Callable[[Path], dict[str, Any]]
    ) -> None:
        path, findings = write(tmp_path, any_volume, two_lesions(any_volume.data.shape[1:]))
        case, *lesions = tid1500reader(path)["Measurements"]
        assert float(case["measurementItems"][0]["value"]) == len(findings.lesions) == len(lesions)
        uid = pydicom.dcmread(tmp_path / "mask.dcm").SOPInstanceUID
        for group, lesion in zip(lesions, findings.lesions, strict=True):
            assert (group["segmentationSOPInstanceUID"], group["ReferencedSegment"]) == (uid, 1)
            assert group["Finding"]["CodeMeaning"] == "Lesion"
            values = {
                item["quantity"]["CodeValue"] + item.get("derivationModifier", {}).get("CodeMeaning", ""): item["value"]
                for item in group["measurementItems"]
            }
            assert float(values["anomalyMaximum"]) == pytest.approx(lesion.peak)
            assert float(values["anomalyMean"]) == pytest.approx(lesion.mean)
            assert float(values[VOLUME]) == pytest.approx(lesion.volume_mm3)
