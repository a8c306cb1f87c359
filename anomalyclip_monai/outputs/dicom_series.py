"""Write a volume that was made, not scanned, as a classic DICOM series."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from anomalyclip_monai.data.geometry import plane_distance, spacing
from anomalyclip_monai.files import whole_set
from anomalyclip_monai.types import Affine, FloatArray


def write_mr_series(folder: Path, data: FloatArray, affine: Affine) -> None:
    """Write one MR Image object (PS3.3 A.4) per slice of the last axis, values rounded to 16 bits.

    The patient is called Phantom; every UID is new.

    Args:
        folder: gets the files ``slice000.dcm`` and on.
        data: (X, Y, Z), X columns and Y rows, from 0 to 65535.
        affine: (4, 4) voxel index to RAS mm; orthogonal in the plane of the slices.

    Raises:
        OutputError: the folder cannot be written (``E_WRITE``).
    """
    study, series, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    now = datetime.datetime.now()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    size = spacing(affine)
    with whole_set(folder) as staging:
        for k in range(data.shape[2]):
            ds = _patient_and_study(study, now)
            ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, generate_uid()
            ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = series, 1, k + 1
            ds.Modality, ds.BodyPartExamined, ds.SeriesDescription = "MR", "HEAD", "synthetic phantom"
            ds.Manufacturer = "anomalyclip-monai"
            ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
            ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "RM", "NONE", "", "2D"
            ds.EchoTime = ds.RepetitionTime = ds.EchoTrainLength = None
            ds.PatientPosition = "HFS"
            ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = frame_of_reference, ""
            # PS3.3 C.7.6.2.1.1: direction of a row, that is of growing columns, then of a column
            ds.ImageOrientationPatient = _decimals([*lps[:3, 0] / size[0], *lps[:3, 1] / size[1]])
            ds.ImagePositionPatient = _decimals(lps[:3, 3] + k * lps[:3, 2])
            ds.PixelSpacing = _decimals([size[1], size[0]])
            ds.SliceThickness = ds.SpacingBetweenSlices = _decimals([plane_distance(affine, 2)])[0]
            ds.Rows, ds.Columns = data.shape[1], data.shape[0]
            ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
            ds.BitsAllocated = ds.BitsStored = 16
            ds.HighBit = 15
            ds.PixelData = np.round(data[:, :, k].T).clip(0, 65535).astype("<u2").tobytes()
            ds.save_as(staging / f"slice{k:03d}.dcm", enforce_file_format=True)


def _patient_and_study(study: str, now: datetime.datetime) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Phantom^Synthetic", "PHANTOM", "", ""
    ds.StudyInstanceUID, ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = study, "1", "", ""
    ds.StudyDate, ds.StudyTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    return ds


def _decimals(values: np.ndarray | list[float]) -> list[str]:
    """Decimal strings of at most 16 characters (PS3.5 6.2, value representation DS)."""
    return [f"{float(value):.10g}"[:16] for value in values]
