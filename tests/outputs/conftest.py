"""Small DICOM sources full of marked text, and the tools of others that read what was written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, FileDataset
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

from anomalyclip_monai.data.dicom_series import read_series, scan
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.exceptions import CaseError

ROWS, COLUMNS, SLICES = 7, 10, 5  # 70 pixels: frames of a bit mask do not start at whole bytes
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
MARK = "MK-"


@dataclass(frozen=True)
class Stack:
    """Geometry of a made-up series; positions in the order of acquisition."""

    orientation: tuple[float, ...] = AXIAL
    spacing: tuple[float, float] = (0.9, 0.7)
    step: tuple[float, float, float] = (0.0, 0.0, 2.5)
    origin: tuple[float, float, float] = (-31.5, 12.25, -100.0)
    noise: float = 0.0
    count: int = SLICES
    positions: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        places = np.array(self.origin) + np.arange(self.count)[:, None] * np.array(self.step)
        object.__setattr__(self, "positions", places)


def _oblique() -> Stack:
    rotation, _ = np.linalg.qr(np.array([[1.0, 0.2, 0.1], [-0.3, 1.0, 0.2], [0.1, -0.1, 1.0]]))
    rounded = np.round(rotation, 6)
    step = 3.1 * np.cross(rounded[:, 0], rounded[:, 1])
    return Stack((*rounded[:, 0], *rounded[:, 1]), (1.3, 0.4), tuple(step))


STACKS = {
    "axial": Stack(),
    "top to bottom": Stack(step=(0.0, 0.0, -2.5)),
    "sagittal": Stack((0.0, 1.0, 0.0, 0.0, 0.0, -1.0), (1.1, 0.6), (-4.0, 0.0, 0.0)),
    "oblique": _oblique(),
    "tilted": Stack(step=(0.0, 1.2, 5.0)),
    "noisy orientation": Stack(_oblique().orientation, (1.3, 0.4), _oblique().step, noise=1e-5),
    "one slice": Stack(count=1),
}


def _number(value: float) -> str:
    return f"{value:.10g}"


def _header(sop_class: str, name: str, marked: bool) -> FileDataset:
    """A header; ``marked`` puts a marker into every attribute of free text that DICOM has, and private ones."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = (generate_uid(entropy_srcs=[what]) for what in ("study", "series"))
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["reference"])
    ds.Modality, ds.SeriesNumber, ds.BodyPartExamined = "CT", 7, "HEAD"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "42", "19700102", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200102", "101112.5", "S1", "A1"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = ROWS, COLUMNS
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    if marked:
        _mark(ds)
    return ds


def _mark(ds: Dataset) -> None:
    animal = "PatientSpeciesDescription"  # would make the patient one
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        is_text = vr in {"LO", "LT", "PN", "SH", "ST", "UC", "UT"} and not retired
        if is_text and 0x0008 <= tag >> 16 <= 0x4000 and keyword != animal:
            setattr(ds, keyword, f"{MARK}{tag:08x}")
    block = ds.private_block(0x0011, f"{MARK}creator", create=True)
    block.add_new(0x01, "LO", f"{MARK}private")
    request = Dataset()
    request.RequestedProcedureDescription = f"{MARK}request"
    request.private_block(0x0013, f"{MARK}creator", create=True).add_new(0x01, "LO", f"{MARK}nested")
    ds.RequestAttributesSequence = [request]
    ds.DeidentificationMethodCodeSequence = [request]


@dataclass(frozen=True)
class Made:
    """A series on disk and how the product reads it."""

    folder: Path
    stack: Stack
    volume: Volume

    @property
    def shape(self) -> tuple[int, ...]:
        return self.volume.data.shape[1:]


Edit = Callable[[FileDataset], None]


@pytest.fixture
def classic(tmp_path: Path) -> Callable[..., Made]:
    """Make a series of single-frame objects whose file names say nothing of their order."""

    def make(kind: str = "axial", *, marked: bool = False, edit: Edit | None = None) -> Made:
        stack, rng = STACKS[kind], np.random.default_rng(0)
        folder = tmp_path / "source"
        folder.mkdir()
        for k, name in enumerate(rng.permutation(stack.count)):
            ds = _header(CTImageStorage, f"{kind} {k}", marked)
            ds.InstanceNumber = int(name) + 1
            ds.ImagePositionPatient = [_number(value) for value in stack.positions[k]]
            ds.ImageOrientationPatient = [
                _number(value) for value in stack.orientation + stack.noise * rng.uniform(-1, 1, 6)
            ]
            ds.PixelSpacing, ds.SliceThickness = [_number(value) for value in stack.spacing], "2"
            ds.PixelData = rng.integers(0, 4000, (ROWS, COLUMNS)).astype("<u2").tobytes()
            if edit is not None:
                edit(ds)
            ds.save_as(folder / f"{name}.dcm", enforce_file_format=True)
        return _read(folder, stack)

    return make


@pytest.fixture
def enhanced(tmp_path: Path) -> Callable[..., Made]:
    """Make one multi-frame object with shuffled frames and no functional group shared."""

    def make(kind: str = "oblique", *, marked: bool = False) -> Made:
        stack, rng = STACKS[kind], np.random.default_rng(0)
        ds = _header(EnhancedMRImageStorage, kind, marked)
        ds.Modality, ds.InstanceNumber, ds.NumberOfFrames = "MR", 1, stack.count
        items = []
        for k in rng.permutation(stack.count):
            item, content, place, plane, measures = (Dataset() for _ in range(5))
            content.StackID, content.InStackPositionNumber = "1", int(k) + 1
            place.ImagePositionPatient = [_number(value) for value in stack.positions[k]]
            plane.ImageOrientationPatient = [_number(value) for value in stack.orientation]
            measures.PixelSpacing, measures.SliceThickness = [_number(value) for value in stack.spacing], "1.75"
            item.FrameContentSequence, item.PlanePositionSequence = [content], [place]
            item.PlaneOrientationSequence, item.PixelMeasuresSequence = [plane], [measures]
            items.append(item)
        ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [Dataset()], items
        ds.PixelData = rng.integers(0, 4000, (stack.count, ROWS, COLUMNS)).astype("<u2").tobytes()
        folder = tmp_path / "source"
        folder.mkdir()
        ds.save_as(folder / "enhanced.dcm", enforce_file_format=True)
        return _read(folder, stack)

    return make


def _read(folder: Path, stack: Stack) -> Made:
    (series,), _ = scan(folder)
    return Made(folder, stack, read_series(series))


REAL = {
    "CT": "sts001_sarcoma_rtstruct/CT/image",
    "MR": "sts001_sarcoma_rtstruct/MR_T1/image",
    "tilted CT": "dicom2nifti_tests/failing/gantrytilting/001",
    "Siemens XA": "dcm_qa_enh/In/Siemens/XA10",
    "Philips": "dcm_qa_enh/In/Philips",
}


def real_series(test_data: Path, name: str) -> Volume:
    folder = test_data / "dicom" / REAL[name]
    if not folder.is_dir():
        pytest.skip(f"this real series is not there: {REAL[name]}")
    first = scan(folder)[0][0]
    try:
        return read_series(first)
    except CaseError:  # of several volumes at the same positions, the second
        return read_series(first, volume=1)


@pytest.fixture(params=[*STACKS, "enhanced oblique", "enhanced tilted", *REAL])
def any_volume(request: pytest.FixtureRequest) -> Volume:
    """Generated and real sources of every kind in turn."""
    kind = request.param
    if kind in REAL:
        return real_series(request.getfixturevalue("test_data"), kind)
    if kind.startswith("enhanced"):
        return request.getfixturevalue("enhanced")(kind.removeprefix("enhanced ")).volume
    return request.getfixturevalue("classic")(kind).volume


Tool = Callable[..., str]


def _tool(name: str, install: str) -> Tool:
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    program = beside or shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed: {install}")

    def call(*arguments: object) -> str:
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=240)
        return done.stdout + done.stderr

    return call


@pytest.fixture
def dciodvfy() -> Callable[[Path], list[str]]:
    """The lines in which dciodvfy finds an object to break the standard."""
    tool = _tool("dciodvfy", "apt-get install dicom3tools")

    def errors(path: Path) -> list[str]:
        lines = tool("-new", path).splitlines()
        assert lines, "dciodvfy names at least the object it read"
        return [line for line in lines if line.startswith("Error")]

    return errors


@pytest.fixture
def dcmqi(tmp_path: Path) -> Callable[[Path], nib.Nifti1Image]:
    """A SEG or Parametric Map as 3D Slicer imports it."""
    segmentation = _tool("segimage2itkimage", "pip install dcmqi")
    parametric = _tool("paramap2itkimage", "pip install dcmqi")

    def load(path: Path) -> nib.Nifti1Image:
        folder = tmp_path / f"dcmqi-{path.stem}"
        folder.mkdir()
        said = (parametric if "heatmap" in path.stem else segmentation)(
            "--inputDICOM", path, "--outputDirectory", folder, "-t", "nii"
        )
        found = sorted(folder.glob("*.nii.gz"))
        assert len(found) == 1, said
        return nib.load(found[0])

    return load


@pytest.fixture
def tid1500reader(tmp_path: Path) -> Callable[[Path], dict[str, Any]]:
    """A measurement report as dcmqi reads it."""
    tool = _tool("tid1500reader", "pip install dcmqi")

    def load(path: Path) -> dict[str, Any]:
        said = tool("--inputDICOM", path, "--outputMetadata", tmp_path / "report.json")
        wrong = [line for line in said.splitlines() if line.startswith(("E:", "W:", "F:"))]
        assert not [line for line in wrong if "VR checker does not support" not in line], said  # it knows no UTF-8
        content: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
        return content

    return load


@pytest.fixture
def dcm2niix(tmp_path: Path) -> Callable[[Path], nib.Nifti1Image]:
    tool = _tool("dcm2niix", "pip install dcm2niix")

    def load(path: Path) -> nib.Nifti1Image:
        folder = tmp_path / f"dcm2niix-{path.stem}"
        folder.mkdir()
        said = tool("-f", "out", "-z", "n", "-s", "y", "-o", folder, path)
        found = sorted(folder.glob("*.nii"))
        assert len(found) == 1, said
        return nib.load(found[0])

    return load
