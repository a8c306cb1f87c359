"""What identifies a patient in a DICOM series is found in no file, name or line where DICOM does not ask for it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pydicom
import pytest

from anomalyclip_monai.cli import main
from anomalyclip_monai.outputs.dicom_series import write_mr_series

MARKER = "SECRETMARKER"

TEXTS = (
    "PatientName",
    "PatientID",
    "OtherPatientIDsSequence",
    "PatientAddress",
    "PatientComments",
    "AdditionalPatientHistory",
    "Occupation",
    "MedicalAlerts",
    "Allergies",
    "ReferringPhysicianName",
    "OperatorsName",
    "PerformingPhysicianName",
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "DeviceSerialNumber",
    "SeriesDescription",
    "StudyDescription",
    "ProtocolName",
    "ImageComments",
    "RequestedProcedureDescription",
    "PatientTelephoneNumbers",
)


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """A series with the marker in every text about the patient, the staff and the place, and in a private block."""
    folder = tmp_path / "series"
    data = np.random.default_rng(0).normal(300, 20, (26, 22, 5)).astype(np.float32)
    write_mr_series(folder, data, np.array([[-1, 0, 0, 9], [0, -1, 0, 8], [0, 0, 4.0, 7], [0, 0, 0, 1]]))
    for path in sorted(folder.iterdir()):
        ds = pydicom.dcmread(path)
        for keyword in TEXTS:
            if keyword == "OtherPatientIDsSequence":
                ds.OtherPatientIDsSequence = [pydicom.Dataset()]
                ds.OtherPatientIDsSequence[0].PatientID = MARKER
            else:
                setattr(ds, keyword, MARKER)
        ds.private_block(0x0011, "SECRET", create=True).add_new(1, "LO", MARKER)
        ds.save_as(path)
    return folder


def test_markers_reach_only_the_patient_module_of_dicom_results(marked, tmp_path, capfd, caplog):
    assert main(["localize", str(marked), "-o", str(tmp_path / "out"), "--report", "--prompts-out"]) == 0
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        ".anomalyclip.json",
        "cohort.csv",
        "heatmap.nii.gz",
        "mask.nii.gz",
        "heatmap.dcm",
        "mask.dcm",
        "measurements.dcm",
        "prompts.json",
        "scores.json",
        "preview.png",
        "report.html",
    }
    for path in files:
        assert MARKER not in str(path)
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        if path.suffix != ".dcm":
            assert MARKER.encode() not in content, path.name
            continue
        ds = pydicom.dcmread(path)
        holders = {element.keyword for element in ds.iterall() if MARKER in str(element.value) and element.VR != "SQ"}
        # PS3.3 C.7.1.1 and C.7.2.1: a derived object belongs to the same patient and study
        assert holders <= {"PatientName", "PatientID", "ReferringPhysicianName", "StudyDescription"}
        assert {"PatientName", "PatientID"} <= holders
    printed = capfd.readouterr()
    assert MARKER not in printed.out + printed.err + caplog.text


def test_markers_reach_no_error(marked, tmp_path, capfd, caplog):
    paths = sorted(marked.iterdir())
    paths[2].unlink()  # a missing slice
    paths[0].write_bytes(paths[0].read_bytes()[:-200])  # and a truncated one
    assert main(["localize", str(marked), "-o", str(tmp_path / "out")]) == 1
    printed = capfd.readouterr()
    assert "series: E_" in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert MARKER not in printed.out + printed.err + caplog.text
    (table,) = (tmp_path / "out").rglob("*")  # the table of all cases, and nothing of this one
    assert MARKER not in table.read_text()
