from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.data import PydicomReader
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ParametricMapStorage, SegmentationStorage

from anomalyclip_monai.data.dicom_series import read_series, scan
from anomalyclip_monai.data.volume import Source, Volume
from anomalyclip_monai.exceptions import OutputError
from anomalyclip_monai.outputs import dicom, dicom_source
from anomalyclip_monai.outputs.dicom import write_parametric_map, write_segmentation

MARK = "MK-"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"  # PS3.4 B.5, Label Map Segmentation Storage
MODEL = {"bundle": "anomalyclip_tiny", "weights_sha256": "a" * 64, "prompts_sha256": "b" * 64}
KINDS = ["axial", "top to bottom", "sagittal", "oblique", "tilted", "noisy orientation", "one slice"]
UPRIGHT = [kind for kind in KINDS if kind not in ("tilted", "one slice")]

Written = tuple[Path, Path]


def arrays(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A mask without symmetry and a heatmap with a value of its own in each voxel."""
    heatmap = np.random.default_rng(1).permutation(np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32))
    heatmap = heatmap.reshape(shape)
    return (heatmap > 0.7).astype(np.uint8), heatmap


def write(folder: Path, volume: Volume, mask: np.ndarray, heatmap: np.ndarray) -> Written:
    write_segmentation(folder / "mask.dcm", mask, volume.source, volume.affine, model=MODEL)
    write_parametric_map(folder / "heatmap.dcm", heatmap, volume.source, volume.affine, model=MODEL)
    return folder / "mask.dcm", folder / "heatmap.dcm"


def write_label_map(path: Path, mask: np.ndarray, volume: Volume) -> None:
    write_segmentation(path, mask, volume.source, volume.affine, model=MODEL, seg_type="labelmap")


def per_frame(ds: Dataset, frames: np.ndarray) -> dict[tuple[float, ...], np.ndarray]:
    """Frames by the position that the object gives them."""
    places = [
        tuple(map(float, item.PlanePositionSequence[0].ImagePositionPatient))
        for item in ds.PerFrameFunctionalGroupsSequence
    ]
    assert len(set(places)) == len(places) == len(frames)
    return dict(zip(places, frames, strict=True))


def pixels(path: Path) -> tuple[Dataset, np.ndarray]:
    ds = pydicom.dcmread(path)
    return ds, ds.pixel_array.reshape(int(ds.NumberOfFrames), ds.Rows, ds.Columns)


def elements(ds: Dataset) -> Iterator[pydicom.DataElement]:
    for element in ds:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from elements(item)


def assert_same_voxels(image: nib.Nifti1Image, array: np.ndarray, affine: np.ndarray) -> None:
    """Each voxel of the array is a voxel of the image, at the same place in the world and of the same value."""
    other = np.asarray(image.dataobj).reshape(image.shape[:3])
    assert other.size == array.size
    index = np.stack(np.meshgrid(*map(np.arange, array.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    inverse = np.linalg.inv(image.affine)
    found = world @ inverse[:3, :3].T + inverse[:3, 3]
    nearest = np.round(found).astype(int)
    assert np.abs((nearest - found) @ image.affine[:3, :3].T).max() < 0.02  # mm
    np.testing.assert_array_equal(other[tuple(nearest.T)].astype(array.dtype), array.ravel())


class TestFrames:
    @pytest.mark.parametrize("kind", KINDS)
    def test_each_frame_lies_where_its_slice_lies(self, classic: Callable[..., Any], tmp_path: Path, kind: str) -> None:
        made = classic(kind)
        mask, heatmap = arrays(made.shape)
        for path, array in zip(write(tmp_path, made.volume, mask, heatmap), (mask, heatmap), strict=True):
            ds, frames = pixels(path)
            by_place = per_frame(ds, frames)
            assert len(by_place) == made.stack.count
            for k, frame in enumerate(made.volume.source.frames):
                source = pydicom.dcmread(frame.path, stop_before_pixels=True)
                place = tuple(map(float, source.ImagePositionPatient))
                np.testing.assert_array_equal(by_place[place], array[:, :, k].T)
            shared = ds.SharedFunctionalGroupsSequence[0]
            orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
            np.testing.assert_allclose(orientation, made.stack.orientation, atol=2e-5)
            assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == list(made.stack.spacing)
            assert shared.PixelMeasuresSequence[0].SliceThickness == 2

    @pytest.mark.parametrize("kind", ["oblique", "tilted"])
    def test_enhanced_source(self, enhanced: Callable[..., Any], tmp_path: Path, kind: str) -> None:
        made = enhanced(kind)
        mask, heatmap = arrays(made.shape)
        source = pydicom.dcmread(made.folder / "enhanced.dcm", stop_before_pixels=True)
        for path, array in zip(write(tmp_path, made.volume, mask, heatmap), (mask, heatmap), strict=True):
            ds, frames = pixels(path)
            by_place = per_frame(ds, frames)
            for k, frame in enumerate(made.volume.source.frames):
                item = source.PerFrameFunctionalGroupsSequence[frame.number]
                place = tuple(map(float, item.PlanePositionSequence[0].ImagePositionPatient))
                np.testing.assert_array_equal(by_place[place], array[:, :, k].T)
            assert ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 1.75
            for item in ds.PerFrameFunctionalGroupsSequence:
                reference = item.DerivationImageSequence[0].SourceImageSequence[0]
                original = source.PerFrameFunctionalGroupsSequence[int(reference.ReferencedFrameNumber) - 1]
                assert original.PlanePositionSequence == item.PlanePositionSequence

    @pytest.mark.parametrize("kind", KINDS)
    def test_frames_ascend_along_the_normal(self, classic: Callable[..., Any], tmp_path: Path, kind: str) -> None:
        made = classic(kind)
        for path in write(tmp_path, made.volume, *arrays(made.shape)):
            ds, _ = pixels(path)
            items = ds.PerFrameFunctionalGroupsSequence
            row, column = np.reshape(
                ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)
            ).astype(float)
            places = np.array([item.PlanePositionSequence[0].ImagePositionPatient for item in items], float)
            assert (np.diff(places @ np.cross(row, column)) > 0).all()
            last = [np.atleast_1d(item.FrameContentSequence[0].DimensionIndexValues)[-1] for item in items]
            assert last == list(range(1, len(items) + 1))

    @pytest.mark.parametrize("broken", ["missing slice", "two orientations", "two slices at one place"])
    def test_slices_on_no_grid(self, classic: Callable[..., Any], tmp_path: Path, broken: str) -> None:
        folder = classic().folder
        headers = {path: pydicom.dcmread(path) for path in folder.iterdir()}
        third = next(path for path, ds in headers.items() if ds.ImagePositionPatient[2] == -95)
        if broken == "missing slice":
            third.unlink()
        elif broken == "two orientations":
            headers[third].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        else:
            headers[third].ImagePositionPatient = [-31.5, 12.25, -100]
        if third.exists():
            headers[third].save_as(third)
        volume = read_series(scan(folder)[0][0], per_slice=True)
        assert not volume.source.regular
        mask, heatmap = arrays(volume.data.shape[1:])
        for path, array in zip(write(tmp_path, volume, mask, heatmap), (mask, heatmap), strict=True):
            ds, frames = pixels(path)
            shared = ds.SharedFunctionalGroupsSequence[0]
            assert "DimensionOrganizationType" not in ds
            assert ("PlaneOrientationSequence" in shared) == (broken != "two orientations")
            for k, (frame, item) in enumerate(
                zip(volume.source.frames, ds.PerFrameFunctionalGroupsSequence, strict=True)
            ):
                source = headers[frame.path]
                plane = item if broken == "two orientations" else shared
                np.testing.assert_array_equal(frames[k], array[:, :, k].T)
                assert item.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
                assert plane.PlaneOrientationSequence[0].ImageOrientationPatient == source.ImageOrientationPatient

    def test_order_of_the_array_does_not_matter(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        volume = classic().volume
        backwards = dataclasses.replace(volume.source, frames=volume.source.frames[::-1])
        mask, heatmap = arrays(volume.data.shape[1:])
        flip = np.diag([1.0, 1.0, -1.0, 1.0])
        flip[2, 3] = mask.shape[2] - 1
        turned = Volume(volume.data[..., ::-1], volume.affine @ flip, backwards)
        there = write(tmp_path / "there", volume, mask, heatmap)
        back = write(tmp_path / "back", turned, mask[..., ::-1], heatmap[..., ::-1])
        for one, other in zip(there, back, strict=True):
            np.testing.assert_array_equal(pixels(one)[1], pixels(other)[1])

    @pytest.mark.parametrize("kind", UPRIGHT)
    def test_highdicom_reads_the_same_volume(self, classic: Callable[..., Any], tmp_path: Path, kind: str) -> None:
        made = classic(kind)
        mask, heatmap = arrays(made.shape)
        paths = write(tmp_path, made.volume, mask, heatmap)
        segmentation = hd.seg.segread(paths[0]).get_volume(combine_segments=True)
        parametric = hd.imread(paths[1]).get_volume(apply_real_world_transform=True, dtype=np.float32)
        for volume, array in ((segmentation, mask), (parametric, heatmap)):
            affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
            assert_same_voxels(nib.Nifti1Image(volume.array.astype(np.float32), affine), array, made.volume.affine)

    def test_values_are_exact_floats(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        heatmap = np.nextafter(np.float32(0.3), np.float32(1), dtype=np.float32) * np.ones(made.shape, np.float32)
        heatmap[0, 0, 0], heatmap[1, 0, 0], heatmap[2, 0, 0] = 0, 1, np.finfo(np.float32).tiny
        _, path = write(tmp_path, made.volume, heatmap > 0.5, heatmap)
        ds, frames = pixels(path)
        assert frames.dtype == np.float32
        assert ds.BitsAllocated == 32
        assert "PixelData" not in ds
        np.testing.assert_array_equal(np.sort(frames, axis=None), np.sort(heatmap, axis=None))

    def test_heatmap_on_disk(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        _, heatmap = arrays(made.shape)
        on_disk = np.lib.format.open_memmap(tmp_path / "map.npy", "w+", np.float32, made.shape)
        on_disk[:] = heatmap
        write_parametric_map(tmp_path / "a.dcm", on_disk, made.volume.source, made.volume.affine, model=MODEL)
        write_parametric_map(tmp_path / "b.dcm", heatmap, made.volume.source, made.volume.affine, model=MODEL)
        np.testing.assert_array_equal(pixels(tmp_path / "a.dcm")[1], pixels(tmp_path / "b.dcm")[1])

    def test_empty_mask_has_all_frames(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        path, _ = write(tmp_path, made.volume, np.zeros(made.shape, np.uint8), np.zeros(made.shape, np.float32))
        _, frames = pixels(path)
        assert frames.shape == (5, 7, 10)
        assert not frames.any()


class TestContent:
    @pytest.fixture
    def objects(self, classic: Callable[..., Any], tmp_path: Path) -> tuple[Dataset, Dataset]:
        made = classic()
        segmentation, parametric = write(tmp_path, made.volume, *arrays(made.shape))
        return pydicom.dcmread(segmentation), pydicom.dcmread(parametric)

    def test_segment_is_a_lesion_found_by_this_model(self, objects: tuple[Dataset, Dataset]) -> None:
        ds, _ = objects
        (segment,) = ds.SegmentSequence
        assert (ds.SOPClassUID, ds.SegmentationType) == (SegmentationStorage, "BINARY")
        assert (segment.SegmentNumber, segment.SegmentLabel) == (1, "Lesion")
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        category, kind = segment.SegmentedPropertyCategoryCodeSequence[0], segment.SegmentedPropertyTypeCodeSequence[0]
        assert (category.CodingSchemeDesignator, category.CodeValue) == ("SCT", "49755003")
        assert (kind.CodingSchemeDesignator, kind.CodeValue, kind.CodeMeaning) == ("SCT", "52988006", "Lesion")
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmName == segment.SegmentAlgorithmName == "anomalyclip-monai"
        assert "bundle=anomalyclip_tiny" in algorithm.AlgorithmParameters
        assert "prompts_sha256=" + "b" * 64 in algorithm.AlgorithmParameters

    @pytest.mark.parametrize("model", [{}, {"bundle": "größer\\kleiner " * 9}])
    def test_model_of_any_name(self, classic: Callable[..., Any], tmp_path: Path, model: dict[str, str]) -> None:
        made = classic()
        mask, heatmap = arrays(made.shape)
        write_segmentation(tmp_path / "a.dcm", mask, made.volume.source, made.volume.affine, model=model)
        write_parametric_map(tmp_path / "b.dcm", heatmap, made.volume.source, made.volume.affine, model=model)
        for name in ("a.dcm", "b.dcm"):
            ds = pydicom.dcmread(tmp_path / name)
            texts = [ds.SoftwareVersions] if isinstance(ds.SoftwareVersions, str) else ds.SoftwareVersions
            assert len(texts) == 1 + len(model)
            assert all(text.isascii() and len(text) <= 64 for text in texts)

    def test_values_of_the_map_mean_themselves(self, objects: tuple[Dataset, Dataset]) -> None:
        _, ds = objects
        assert ds.SOPClassUID == ParametricMapStorage
        (mapping,) = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
        assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
        assert mapping.DoubleFloatRealWorldValueFirstValueMapped == 0
        assert mapping.DoubleFloatRealWorldValueLastValueMapped == 1
        unit, quantity = mapping.MeasurementUnitsCodeSequence[0], mapping.QuantityDefinitionSequence[0]
        assert (unit.CodingSchemeDesignator, unit.CodeValue) == ("UCUM", "1")
        assert quantity.ConceptCodeSequence[0].CodeMeaning == "Fractional Probabilistic Segmentation"

    def test_source_of_every_frame_is_named(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in made.folder.iterdir()]
        by_uid = {header.SOPInstanceUID: header for header in headers}
        for path in write(tmp_path, made.volume, *arrays(made.shape)):
            ds = pydicom.dcmread(path)
            (series,) = ds.ReferencedSeriesSequence
            assert series.SeriesInstanceUID == headers[0].SeriesInstanceUID
            assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == set(by_uid)
            for item in ds.PerFrameFunctionalGroupsSequence:
                (reference,) = item.DerivationImageSequence[0].SourceImageSequence
                source = by_uid[reference.ReferencedSOPInstanceUID]
                assert source.ImagePositionPatient == item.PlanePositionSequence[0].ImagePositionPatient
                assert source.SOPClassUID == reference.ReferencedSOPClassUID
                assert "ReferencedFrameNumber" not in reference

    def test_same_study_new_series(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        source = pydicom.dcmread(next(made.folder.iterdir()))
        written = [pydicom.dcmread(path) for path in write(tmp_path, made.volume, *arrays(made.shape))]
        for ds in written:
            for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "PatientBirthDate"):
                assert ds[keyword].value == source[keyword].value
            for keyword in ("PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
                assert ds[keyword].value == source[keyword].value
            assert ds.Manufacturer == ds.ManufacturerModelName == "anomalyclip-monai"
            assert ds.ContentDate == ds.InstanceCreationDate != source.StudyDate
            organization = ds.DimensionOrganizationSequence[0].DimensionOrganizationUID
            assert {item.DimensionOrganizationUID for item in ds.DimensionIndexSequence} == {organization}
            for uid in (ds.SeriesInstanceUID, ds.SOPInstanceUID, organization):
                assert uid.startswith("2.25.")
        assert len({ds.SeriesInstanceUID for ds in written} | {ds.SOPInstanceUID for ds in written}) == 4
        assert len({source.SeriesNumber, *(ds.SeriesNumber for ds in written)}) == 3

    def test_segment_number_is_found_in_every_frame(self, objects: tuple[Dataset, Dataset]) -> None:
        ds, _ = objects
        assert "SegmentIdentificationSequence" not in ds.SharedFunctionalGroupsSequence[0]
        for item in ds.PerFrameFunctionalGroupsSequence:
            assert item.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
        segmentation = hd.seg.Segmentation.from_dataset(ds)
        segment = hd.sr.ReferencedSegment.from_segmentation(segmentation, 1)
        assert len(segment) > 0

    def test_monai_reads_the_mask(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        mask, heatmap = arrays(made.shape)
        path, _ = write(tmp_path, made.volume, mask, heatmap)
        reader = PydicomReader()
        array, meta = reader.get_data(reader.read(path))
        assert_same_voxels(
            nib.Nifti1Image(np.squeeze(array).astype(np.uint8), meta["affine"]), mask, made.volume.affine
        )

    def test_map_says_which_part_of_the_body(self, objects: tuple[Dataset, Dataset]) -> None:
        _, ds = objects
        (anatomy,) = ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence
        assert anatomy.FrameLaterality == "U"
        assert anatomy.AnatomicRegionSequence[0].CodeValue == codes.SCT.Head.value
        assert ds["ContentCreatorName"].value in (None, "")

    def test_even_stack_is_a_3d_one(self, objects: tuple[Dataset, Dataset]) -> None:
        for ds in objects:
            assert ds.DimensionOrganizationType == "3D"
            measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
            assert measures.SpacingBetweenSlices == pytest.approx(2.5)

    def test_tilted_stack_is_not(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic("tilted")
        for path in write(tmp_path, made.volume, *arrays(made.shape)):
            ds = pydicom.dcmread(path)
            assert "DimensionOrganizationType" not in ds
            assert "SpacingBetweenSlices" not in ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


class TestSeriesDescription:
    @pytest.mark.parametrize(
        ("number", "modality", "expected"),
        [(7, "CT", " of series 7 (CT)"), (None, "MR", " (MR)"), (3, "Doe^Jane", " of series 3"), (None, "", "")],
    )
    def test_number_and_modality_of_the_source_and_no_word_of_its_own(
        self, classic: Callable[..., Any], tmp_path: Path, number: int | None, modality: str, expected: str
    ) -> None:
        def edit(ds: Dataset) -> None:
            ds.SeriesNumber, ds.SeriesDescription, ds.ProtocolName = number, MARK + "description", MARK + "protocol"
            ds.add_new("Modality", "CS", modality)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = classic(edit=edit)
        mask, heatmap = (pydicom.dcmread(path) for path in write(tmp_path, made.volume, *arrays(made.shape)))
        assert mask.SeriesDescription == f"Anomaly mask{expected}"
        assert heatmap.SeriesDescription == f"Anomaly heatmap{expected}"


class TestLabelMap:
    @pytest.mark.parametrize("kind", KINDS)
    def test_frames_have_a_byte_for_each_pixel(self, classic: Callable[..., Any], tmp_path: Path, kind: str) -> None:
        made = classic(kind)
        mask, _ = arrays(made.shape)
        write_label_map(tmp_path / "mask.dcm", mask * 255, made.volume)  # whatever is not 0 is the segment
        ds, frames = pixels(tmp_path / "mask.dcm")
        assert (ds.SOPClassUID, ds.SegmentationType) == (LABEL_MAP, "LABELMAP")
        assert (ds.BitsAllocated, ds.BitsStored, len(ds.PixelData) % 2) == (8, 8, 0)
        by_place = per_frame(ds, frames)
        for k, frame in enumerate(made.volume.source.frames):
            source = pydicom.dcmread(frame.path, stop_before_pixels=True)
            np.testing.assert_array_equal(by_place[tuple(map(float, source.ImagePositionPatient))], mask[:, :, k].T)
        assert [segment.SegmentLabel for segment in ds.SegmentSequence] == ["Background", "Lesion"]
        assert ["RecommendedDisplayCIELabValue" in segment for segment in ds.SegmentSequence] == [False, True]
        values = [item.FrameContentSequence[0].DimensionIndexValues for item in ds.PerFrameFunctionalGroupsSequence]
        assert values == list(range(1, len(frames) + 1))

    @pytest.mark.parametrize("kind", UPRIGHT)
    def test_highdicom_reads_the_same_volume(self, classic: Callable[..., Any], tmp_path: Path, kind: str) -> None:
        made = classic(kind)
        mask, _ = arrays(made.shape)
        write_label_map(tmp_path / "mask.dcm", mask, made.volume)
        volume = hd.seg.segread(tmp_path / "mask.dcm").get_volume(combine_segments=True)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
        assert_same_voxels(nib.Nifti1Image(volume.array.astype(np.uint8), affine), mask, made.volume.affine)

    def test_odd_number_of_pixels_is_padded(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        def edit(ds: Dataset) -> None:
            ds.Rows, ds.Columns, ds.PixelData = 5, 3, bytes(2 * 15)

        volume = classic(edit=edit).volume
        mask = np.ones((3, 5, 5), np.uint8)  # 75 bytes
        write_label_map(tmp_path / "mask.dcm", mask, volume)
        ds = pydicom.dcmread(tmp_path / "mask.dcm")
        assert ds.PixelData == b"\1" * 75 + b"\0"


class TestPrivacy:
    ALLOWED = frozenset(
        {
            *("PatientName", "PatientID", "IssuerOfPatientID", "DeidentificationMethod"),
            *("StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription"),
            "PositionReferenceIndicator",
        }
    )

    @pytest.mark.parametrize("kind", ["classic", "enhanced"])
    def test_marked_text_goes_nowhere_else(
        self,
        request: pytest.FixtureRequest,
        tmp_path: Path,
        kind: str,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        made = request.getfixturevalue(kind)("oblique", marked=True)
        source = pydicom.dcmread(next(made.folder.iterdir()))
        assert sum(MARK in str(element.value) for element in elements(source)) > 400
        caplog.set_level(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            paths = write(tmp_path / "out", made.volume, *arrays(made.shape))
        assert MARK not in caplog.text
        for path in paths:
            ds = pydicom.dcmread(path)
            marked = [element for element in elements(ds) if element.VR != "SQ" and MARK in str(element.value)]
            assert {element.keyword for element in marked} <= self.ALLOWED
            assert path.read_bytes().count(MARK.encode()) == len(marked)
            assert not [element for element in elements(ds) if element.tag.is_private]
            for item in ds.ContributingEquipmentSequence:
                assert not {"InstitutionName", "StationName", "DeviceSerialNumber"} & {e.keyword for e in item}
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["heatmap.dcm", "mask.dcm"]
        said = capfd.readouterr()
        assert MARK not in said.out + said.err

    def test_comments_and_history_stay_behind(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic(marked=True)
        for path in write(tmp_path, made.volume, *arrays(made.shape)):
            ds = pydicom.dcmread(path)
            for keyword in ("AdditionalPatientHistory", "PatientComments", "Occupation", "MedicalAlerts", "Allergies"):
                assert not ds.get(keyword)

    def test_deidentification_is_kept(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        def edit(ds: Dataset) -> None:
            ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "by hand"

        made = classic(edit=edit)
        for path in write(tmp_path, made.volume, *arrays(made.shape)):
            ds = pydicom.dcmread(path)
            assert (ds.PatientIdentityRemoved, ds.DeidentificationMethod) == ("YES", "by hand")

    def test_animal_keeps_what_dicom_requires(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        def edit(ds: Dataset) -> None:
            ds.PatientSpeciesDescription, ds.ResponsiblePerson = "Canis", "Roe^Jo"

        made = classic(edit=edit)
        for path in write(tmp_path, made.volume, *arrays(made.shape)):
            ds = pydicom.dcmread(path)
            assert (ds.PatientSpeciesDescription, ds.ResponsiblePerson) == ("Canis", "Roe^Jo")

    def test_what_does_not_parse_is_emptied(
        self,
        classic: Callable[..., Any],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def edit(ds: Dataset) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ds.PatientBirthDate, ds.StudyTime, ds.PatientSex, ds.StudyDate = MARK + "***", "99:99", "MK", "***"
                ds.StudyID, ds.PatientAge, ds.AccessionNumber = "a very long study id", "***", "one\\two"
                ds.LossyImageCompression, ds.DeidentificationMethod = "maybe", "x" * 65
                ds.PatientID = "long " * 20

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = classic(edit=edit)
        caplog.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            paths = write(tmp_path, made.volume, *arrays(made.shape))
        assert MARK not in caplog.text
        monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
        for path in paths:
            ds = pydicom.dcmread(path)
            for keyword in ("PatientBirthDate", "StudyTime", "PatientSex", "StudyDate", "StudyID", "AccessionNumber"):
                assert ds[keyword].value in (None, ""), keyword
            assert "PatientAge" not in ds
            assert "DeidentificationMethod" not in ds
            assert ds.LossyImageCompression == "00"
            assert ds.PatientID.strip() == ("long " * 20).strip()

    @pytest.mark.parametrize(
        ("character_set", "expected"),
        [("ISO_IR 100", "ISO_IR 100"), ("ISO_IR 192", "ISO_IR 192"), ("ISO_IR 7777", "ISO_IR 192"), (None, None)],
    )
    def test_character_set(
        self, classic: Callable[..., Any], tmp_path: Path, character_set: str | None, expected: str | None
    ) -> None:
        known = character_set in ("ISO_IR 100", "ISO_IR 192")

        def edit(ds: Dataset) -> None:
            if known:
                ds.SpecificCharacterSet, ds.PatientName = character_set, "Müller^Jürgen"
                ds.StudyDescription = "Schädel"
            elif character_set:
                ds.add_new("SpecificCharacterSet", "CS", character_set)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = classic(edit=edit)
        for path in write(tmp_path, made.volume, *arrays(made.shape)):
            ds = pydicom.dcmread(path)
            assert ds.get("SpecificCharacterSet") == expected
            assert str(ds.PatientName) == ("Müller^Jürgen" if known else "Doe^Jane")
            assert ds.get("StudyDescription") == ("Schädel" if known else None)

    @pytest.mark.parametrize(
        ("character_set", "name"),
        [
            ("ISO_IR 192", b"M\xfcller^J\xfcrgen"),  # Latin-1 under UTF-8
            ("ISO_IR 100", b"M\xfcller^J\xfcrgen"),
            ("ISO_IR 192", "Müller^Jürgen".encode()),
            (None, b"M\xfcller^J"),
            ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B="),
            ("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030")),
            ("ISO 2022 IR 6\\ISO 2022 IR 100", b"Buc^J\x1b-A\xe9r\xf4me"),
            ("ISO_IR 777", b"M\xfcller^J"),  # nobody knows this one, and the name needs it
        ],
    )
    def test_bytes_of_a_name_are_kept(
        self, classic: Callable[..., Any], tmp_path: Path, character_set: str | None, name: bytes
    ) -> None:
        def edit(ds: Dataset) -> None:
            if character_set:
                ds.add_new("SpecificCharacterSet", "CS", character_set.split("\\"))
            ds.PatientName, ds.StudyDescription = "N" * len(name), "D" * len(name)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = classic(edit=edit)
            for path in made.folder.iterdir():
                content = path.read_bytes()
                path.write_bytes(content.replace(b"N" * len(name), name).replace(b"D" * len(name), name))
            (series,), _ = scan(made.folder)
            for path in write(tmp_path, read_series(series), *arrays(made.shape)):
                ds = pydicom.dcmread(path)
                assert ds.get_item("PatientName").value.rstrip() == name
                assert ds.get_item("StudyDescription").value.rstrip() == name
                stored = ds.get("SpecificCharacterSet")
                stored = "\\".join([stored] if isinstance(stored, str) else stored) if stored else None
                assert stored == character_set

    def test_errors_of_libraries_quote_nothing(
        self,
        classic: Callable[..., Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        made = classic()
        mask, heatmap = arrays(made.shape)
        caplog.set_level(0)

        def fail(*_: Any, **__: Any) -> None:
            logging.getLogger("highdicom.base").warning("%sname", MARK)
            raise ValueError(f"cannot convert {MARK}value")

        monkeypatch.setattr(hd.seg, "Segmentation", fail)
        monkeypatch.setattr(hd.pm, "ParametricMap", fail)
        for function, array, name in (
            (write_segmentation, mask, "mask.dcm"),
            (write_parametric_map, heatmap, "heatmap.dcm"),
        ):
            with pytest.raises(OutputError, match=name) as caught:
                function(tmp_path / name, array, made.volume.source, made.volume.affine, model=MODEL)
            assert caught.value.code == "E_WRITE"
            assert MARK not in str(caught.value)
            assert "\n" not in str(caught.value)
            assert not (tmp_path / name).exists()
        assert MARK not in caplog.text
        assert logging.getLogger("highdicom").propagate


class TestRightPatient:
    def test_a_source_that_is_replaced_gives_no_name(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        """Between scoring and writing, every file becomes that of another patient with other UIDs and places."""
        made = classic()
        before = pydicom.dcmread(made.volume.source.frames[0].path)
        for path in made.folder.iterdir():
            ds = pydicom.dcmread(path)
            ds.PatientName, ds.PatientID, ds.StudyInstanceUID, ds.SOPInstanceUID = "Other^One", "B", "1.2.3", "1.2.4"
            ds.ImagePositionPatient, ds.FrameOfReferenceUID, ds.SeriesInstanceUID = [9, 9, 9], "1.2.5", "1.2.6"
            ds.save_as(path)
        mask, heatmap = arrays(made.shape)
        for path, array in zip(write(tmp_path, made.volume, mask, heatmap), (mask, heatmap), strict=True):
            assert b"Other" not in path.read_bytes()
            ds, frames = pixels(path)
            for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
                assert ds[keyword].value == before[keyword].value
            (series,) = ds.ReferencedSeriesSequence
            assert series.SeriesInstanceUID == before.SeriesInstanceUID
            place = tuple(map(float, before.ImagePositionPatient))
            np.testing.assert_array_equal(per_frame(ds, frames)[place], array[:, :, 0].T)

    def test_a_source_that_is_gone_is_not_needed(self, enhanced: Callable[..., Any], tmp_path: Path) -> None:
        made = enhanced()
        (path,) = made.folder.iterdir()
        path.unlink()
        for result in write(tmp_path, made.volume, *arrays(made.shape)):
            assert pydicom.dcmread(result).PatientName == "Doe^Jane"

    def test_a_source_without_what_was_read_is_refused(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        source = dataclasses.replace(made.volume.source, origin=None)
        with pytest.raises(OutputError, match="need patient geometry"):
            write_segmentation(tmp_path / "x.dcm", arrays(made.shape)[0], source, made.volume.affine, model=MODEL)


class TestRefused:
    @pytest.mark.parametrize(
        "source",
        [
            Source("nifti", Path("a.nii")),
            Source("photo", Path("a.png"), has_physical_size=False),
            Source("memory"),
            Source("dicom", Path("us.dcm"), modality="US", has_physical_size=False),
        ],
    )
    def test_source_without_patient_geometry(self, tmp_path: Path, source: Source) -> None:
        for function, dtype in ((write_segmentation, np.uint8), (write_parametric_map, np.float32)):
            with pytest.raises(OutputError, match="need patient geometry") as caught:
                function(tmp_path / "x.dcm", np.zeros((2, 2, 1), dtype), source, np.eye(4), model=MODEL)
            assert caught.value.code == "E_WRITE"
        assert not list(tmp_path.iterdir())

    def test_array_of_another_grid(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        mask, _ = arrays(made.shape)
        source, affine = made.volume.source, made.volume.affine
        with pytest.raises(OutputError, match=r"the array has \(7, 10, 5\) voxels, the source \(10, 7, 5\)"):
            write_segmentation(tmp_path / "x.dcm", mask.transpose(1, 0, 2), source, affine, model=MODEL)
        with pytest.raises(OutputError, match="not on the grid"):
            write_segmentation(tmp_path / "x.dcm", mask, source, affine @ np.diag([2.0, 1, 1, 1]), model=MODEL)

    @pytest.mark.parametrize("value", [np.nan, -0.1, 1.5, np.inf])
    def test_value_that_is_no_probability(self, classic: Callable[..., Any], tmp_path: Path, value: float) -> None:
        made = classic()
        _, heatmap = arrays(made.shape)
        heatmap[3, 2, 1] = value
        with pytest.raises(OutputError, match=r"outside \[0, 1\]"):
            write_parametric_map(
                tmp_path / "out" / "x.dcm", heatmap, made.volume.source, made.volume.affine, model=MODEL
            )
        assert not list((tmp_path / "out").iterdir())

    def test_source_without_a_study(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic(edit=lambda ds: delattr(ds, "StudyInstanceUID"))
        with pytest.raises(OutputError, match="no valid Study Instance UID"):
            write_segmentation(
                tmp_path / "x.dcm", arrays(made.shape)[0], made.volume.source, made.volume.affine, model=MODEL
            )

    def test_frame_of_reference_is_made_up_once(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic(edit=lambda ds: delattr(ds, "FrameOfReferenceUID"))
        one, other = (pydicom.dcmread(path) for path in write(tmp_path, made.volume, *arrays(made.shape)))
        assert one.FrameOfReferenceUID == other.FrameOfReferenceUID
        assert one.FrameOfReferenceUID.startswith("2.25.")

    def test_folder_that_cannot_be_made(self, classic: Callable[..., Any], tmp_path: Path) -> None:
        made = classic()
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="cannot write") as caught:
            write_segmentation(
                tmp_path / "file" / "x.dcm", arrays(made.shape)[0], made.volume.source, made.volume.affine, model=MODEL
            )
        assert caught.value.code == "E_WRITE"

    def test_heatmap_larger_than_an_element(
        self, classic: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = classic()
        monkeypatch.setattr(dicom, "MAX_VALUE_LENGTH", 100)
        with pytest.raises(OutputError, match="more than a DICOM object can hold"):
            write_parametric_map(
                tmp_path / "x.dcm", arrays(made.shape)[1], made.volume.source, made.volume.affine, model=MODEL
            )


@pytest.mark.slow
class TestOtherReaders:
    """What the tools of others make of the objects; a tool that is not installed is skipped."""

    def test_real_frames_lie_where_their_slices_lie(self, any_volume: Volume, tmp_path: Path) -> None:
        mask, heatmap = arrays(any_volume.data.shape[1:])
        cache: dict[Path, Dataset] = {}
        for path, array in zip(write(tmp_path, any_volume, mask, heatmap), (mask, heatmap), strict=True):
            by_place = per_frame(*pixels(path))
            for k, frame in enumerate(any_volume.source.frames):
                ds = cache.setdefault(frame.path, pydicom.dcmread(frame.path, stop_before_pixels=True))
                if "PerFrameFunctionalGroupsSequence" in ds:
                    ds = ds.PerFrameFunctionalGroupsSequence[frame.number].PlanePositionSequence[0]
                place = np.array(ds.ImagePositionPatient, float)
                nearest = min(by_place, key=lambda other: float(np.abs(np.subtract(other, place)).max()))
                assert np.abs(np.subtract(nearest, place)).max() < 1e-6
                np.testing.assert_array_equal(by_place[nearest], array[:, :, k].T)

    @pytest.mark.parametrize("reader", ["dcmqi", "dcm2niix"])
    def test_label_maps_are_read_alike(
        self, any_volume: Volume, tmp_path: Path, request: pytest.FixtureRequest, reader: str
    ) -> None:
        if dicom_source.is_sheared(any_volume.affine):
            pytest.skip(f"{reader} has no shear: it unshears tilted stacks or refuses them")
        load = request.getfixturevalue(reader)
        mask, _ = arrays(any_volume.data.shape[1:])
        write_label_map(tmp_path / "mask.dcm", mask, any_volume)
        assert_same_voxels(load(tmp_path / "mask.dcm"), mask, any_volume.affine)

    def test_dciodvfy_finds_no_error(
        self, any_volume: Volume, tmp_path: Path, dciodvfy: Callable[[Path], list[str]]
    ) -> None:
        for path in write(tmp_path, any_volume, *arrays(any_volume.data.shape[1:])):
            assert dciodvfy(path) == []

    @pytest.mark.parametrize("reader", ["dcmqi", "dcm2niix"])
    def test_same_voxels_at_the_same_places(
        self, any_volume: Volume, tmp_path: Path, request: pytest.FixtureRequest, reader: str
    ) -> None:
        if dicom_source.is_sheared(any_volume.affine):
            pytest.skip(f"{reader} has no shear: it unshears tilted stacks or refuses them")
        load = request.getfixturevalue(reader)
        mask, heatmap = arrays(any_volume.data.shape[1:])
        for path, array in zip(write(tmp_path, any_volume, mask, heatmap), (mask, heatmap), strict=True):
            assert_same_voxels(load(path), array, any_volume.affine)
