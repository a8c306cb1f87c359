from __future__ import annotations

import copy
import io
import logging
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_factory import (
    COLUMNS,
    ROWS,
    SLICES,
    STEP,
    cine,
    enhanced,
    image,
    oblique,
    pixels,
    set_pixels,
    stack,
    uid,
    write,
)
from dicom_oracle import check_volume, stored_frames
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels import get_encoder
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    RTStructureSetStorage,
    UltrasoundImageStorage,
)

from anomalyclip_monai.data import dicom_headers, dicom_isolated, dicom_pixels
from anomalyclip_monai.data.dicom_series import is_dicom, read_series, scan
from anomalyclip_monai.data.frame import Frame
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.exceptions import CaseError

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
# The factory writes values that no device should; pydicom says so.
pytestmark = pytest.mark.filterwarnings("ignore:.*VR (CS|UI|DS|IS):UserWarning", "ignore:.*excess padding:UserWarning")
REAL = Path(os.environ["ANOMALYCLIP_TEST_DATA"]) / "dicom" if "ANOMALYCLIP_TEST_DATA" in os.environ else None
needs_real_files = pytest.mark.skipif(
    REAL is None or not REAL.is_dir(), reason="ANOMALYCLIP_TEST_DATA does not name the folder of real files"
)


def real(name: str) -> Path:
    assert REAL is not None
    return REAL / name


def read_one(path: Path, *, volume: int | None = None) -> Volume:
    series, _ = scan(path)
    assert len(series) == 1
    return read_series(series[0], volume=volume)


def refusal(path: Path) -> CaseError:
    with pytest.raises(CaseError) as caught:
        read_one(path)
    assert "\n" not in str(caught.value)
    return caught.value


def test_axes_affine_and_source_by_hand(tmp_path: Path) -> None:
    write(tmp_path, stack(spacing=(0.9, 0.7)))
    volume = read_one(tmp_path)
    assert volume.data.shape == (1, COLUMNS, ROWS, SLICES)
    assert volume.data.dtype == np.float32
    # LPS (-31.5, 12.25, -100) is RAS (31.5, -12.25, -100); X runs to the left, Y to the back.
    expected = [[-0.7, 0, 0, 31.5], [0, -0.9, 0, -12.25], [0, 0, STEP, -100], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-12)
    assert volume.affine.dtype == np.float64
    stored = pydicom.dcmread(tmp_path / "004.dcm").pixel_array
    assert volume.data[0, 11, 3, 4] == stored[3, 11] - 1024
    source = volume.source
    assert (source.kind, source.modality, source.body_part) == ("dicom", "CT", "HEAD")
    assert source.path == tmp_path
    assert source.acquisition_axis == 2
    assert source.has_physical_size
    assert source.frames == tuple(Frame(tmp_path / f"{k:03d}.dcm") for k in range(SLICES))
    assert source.warnings == ()


def test_gantry_tilt_stays_as_a_shear(tmp_path: Path) -> None:
    write(tmp_path, stack(step=(0.0, 0.6, STEP)))
    volume = read_one(tmp_path)
    np.testing.assert_allclose(volume.affine[:3, 2], [0, -0.6, STEP], atol=1e-9)
    assert "tilt" in volume.source.warnings[0]


@pytest.mark.parametrize(("keyword", "step"), [("SpacingBetweenSlices", 5.5), ("SliceThickness", 2.0), ("", 1.0)])
def test_a_single_slice_is_as_thick_as_its_header_says(tmp_path: Path, keyword: str, step: float) -> None:
    ds = image(0)
    del ds.SliceThickness
    if keyword:
        setattr(ds, keyword, step)
    write(tmp_path, [ds])
    np.testing.assert_allclose(read_one(tmp_path / "000.dcm").affine[:3, 2], [0, 0, step])


def test_slices_finer_than_the_tolerance_still_show_a_gap(tmp_path: Path) -> None:
    images = stack(step=(0, 0, 0.02))
    write(tmp_path / "whole", images)
    assert read_one(tmp_path / "whole").affine[2, 2] == pytest.approx(0.02)
    del images[4]
    write(tmp_path / "gap", images)
    error = refusal(tmp_path / "gap")
    assert error.code == "E_MISSING_SLICES"


def test_missing_slices_are_told_with_position_and_gap(tmp_path: Path) -> None:
    images = stack()
    del images[3:5]
    write(tmp_path, images)
    error = refusal(tmp_path)
    assert error.code == "E_MISSING_SLICES"
    assert error.what == "2 slice(s) missing: a gap of 7.50 mm after slice 3 of 7, elsewhere 2.50 mm"
    assert str(tmp_path / "002.dcm") in str(error)


def test_volumes_of_4d_are_listed_and_chosen(tmp_path: Path) -> None:
    parts = [stack(series=name, modality="MR") for name in "abc"]
    for t, part in enumerate(parts):
        for ds in part:
            ds.SeriesInstanceUID, ds.TemporalPositionIdentifier = uid("series", "a"), 3 - t
    write(tmp_path, [ds for part in parts for ds in part])
    error = refusal(tmp_path)
    assert error.code == "E_4D"
    assert "3 volume(s) (0: 9 slices, temporal position 1; 1: 9 slices, temporal position 2;" in error.what
    first = parts[2][0].pixel_array - 1024
    np.testing.assert_array_equal(read_one(tmp_path, volume=0).data[0, :, :, 0], first.T)
    with pytest.raises(CaseError, match=r"E_4D.*no volume 3"):
        read_one(tmp_path, volume=3)


def test_volume_0_of_a_series_of_one_is_that_one(tmp_path: Path) -> None:
    write(tmp_path, stack(count=3))
    assert read_one(tmp_path, volume=0).data.shape[-1] == 3
    with pytest.raises(CaseError, match="E_4D"):
        read_one(tmp_path, volume=1)


def test_one_bad_volume_refuses_all(tmp_path: Path) -> None:
    frames = [{"position": (0, 0, z)} for z in (0, 3, 6)]
    frames += [{"position": (0, 0, z), "stack": 2} for z in (50, 53, 59, 60)]
    write(tmp_path, [enhanced(frames, stored=pixels(1, shape=(7, ROWS, COLUMNS)))])
    assert refusal(tmp_path).code in {"E_IRREGULAR_SPACING", "E_MISSING_SLICES"}
    series, _ = scan(tmp_path)
    with pytest.raises(CaseError):
        read_series(series[0], volume=0)


def test_repeated_time_points_without_any_tag_follow_instance_numbers(tmp_path: Path) -> None:
    second = stack(series="b")
    for k, ds in enumerate(second):
        ds.SeriesInstanceUID, ds.InstanceNumber = uid("series", "a"), 100 + k
    write(tmp_path, [*second, *stack()])
    np.testing.assert_array_equal(
        read_one(tmp_path, volume=1).data[0, :, :, 2], (second[2].pixel_array - 1024).T.astype(np.float32)
    )


def test_same_uid_with_other_content_is_refused(tmp_path: Path) -> None:
    images = stack()
    images[5].SOPInstanceUID = images[4].SOPInstanceUID
    write(tmp_path, images)
    assert refusal(tmp_path).code == "E_DUPLICATE_UID"


def test_copies_of_a_series_in_two_folders_are_two_cases(tmp_path: Path) -> None:
    write(tmp_path / "a", stack())
    changed = stack()
    for ds in changed:
        ds.SeriesDescription = "sent again"
    write(tmp_path / "b", changed)
    series, _ = scan(tmp_path)
    assert [read_series(s).data.shape[-1] for s in series] == [SLICES, SLICES]
    assert len({s.number for s in series}) == 2


def test_one_slice_twice_in_a_scattered_series_is_refused(tmp_path: Path) -> None:
    for k, ds in enumerate(stack()):
        write(tmp_path / str(k % 3), [ds], lambda i, k=k: f"{k}")  # type: ignore[misc]
    again = stack()[4]
    again.SOPInstanceUID = uid("again")
    write(tmp_path / "0", [again], "again{}".format)
    assert refusal(tmp_path).code == "E_DUPLICATE_POSITION"


def test_series_numbers_are_unique_and_hostile_uids_are_not_used(tmp_path: Path) -> None:
    for n, name in enumerate("abc"):
        images = stack(series=name, count=2)
        for ds in images:
            if n == 2:
                ds.SeriesNumber = None
                ds.SeriesInstanceUID = "../../../tmp/pwn"
        write(tmp_path / name, images)
    series, _ = scan(tmp_path)
    assert len({s.number for s in series}) == 3
    assert all(set(s.uid) <= set("0123456789.") for s in series)


def test_scouts_alone_are_read_one_plane_each(tmp_path: Path) -> None:
    planes = [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)]
    write(tmp_path, [image(k, orientation=plane) for k, plane in enumerate(planes)])
    series, _ = scan(tmp_path)
    assert [s.localizer for s in series] == [True] * 3
    assert [read_series(s).data.shape[-1] for s in series] == [1, 1, 1]


def test_what_is_no_image_is_counted_or_refused_alone(tmp_path: Path) -> None:
    write(tmp_path, stack(count=2))
    contour = image(50, series="rt", modality="RTSTRUCT", sop_class=RTStructureSetStorage)
    write(tmp_path, [contour], "rs{}.dcm".format)
    (tmp_path / "readme").write_text("x")
    (tmp_path / "link.dcm").symlink_to(tmp_path / "000.dcm")
    (tmp_path / "self").symlink_to(tmp_path)
    series, skipped = scan(tmp_path)
    assert len(series) == 1
    assert skipped == {"RTSTRUCT": 1, "junk": 1, "symbolic link": 2}
    with pytest.raises(CaseError, match=r"E_NOT_IMAGE.*RTSTRUCT"):
        scan(tmp_path / "rs0.dcm")
    with pytest.raises(CaseError, match="E_NOT_FOUND"):
        scan(tmp_path / "absent")
    assert scan(tmp_path / "readme") == ([], {"junk": 1})


def test_links_to_files_are_slices(tmp_path: Path) -> None:
    write(tmp_path / "store" / "annex", stack())
    folder = tmp_path / "series"
    folder.mkdir()
    for k in range(SLICES):
        source = tmp_path / "store" / "annex" / f"{k:03d}.dcm"
        if k < 5:
            shutil.copyfile(source, folder / source.name)
        else:
            (folder / source.name).symlink_to(source)
    (folder / "again.dcm").symlink_to(folder / "006.dcm")  # a link to a link, whose file is there already
    (folder / "store").symlink_to(tmp_path / "store")
    (series,), skipped = scan(folder)
    volume = read_series(series)
    assert volume.data.shape[-1] == SLICES
    assert all(frame.path.parent == folder for frame in volume.source.frames)
    assert skipped == {"symbolic link": 2}
    assert volume.source.warnings == ()


def test_links_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    write(tmp_path, stack(count=4))
    (tmp_path / "004.dcm").symlink_to(tmp_path / "gone.dcm")
    (tmp_path / "005.dcm").symlink_to(tmp_path / "005.dcm")
    (series,), skipped = scan(tmp_path)
    assert skipped == {"broken link": 2}
    assert series.warnings == ("2 link(s) in the same folder lead nowhere and were left out.",)


@pytest.mark.timeout(20)
def test_what_is_no_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, stack(count=2))
    os.mkfifo(tmp_path / "x.dcm")
    (tmp_path / "null.dcm").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path)  # the name of a socket is short
        listening.bind("s.dcm")
        (series,), skipped = scan(tmp_path)
    assert len(series.frames) == 2
    assert skipped == {"special file": 2, "symbolic link": 1}
    assert not is_dicom(tmp_path / "x.dcm")
    assert scan(tmp_path / "x.dcm") == ([], {})


def test_hidden_folders_are_counted(tmp_path: Path) -> None:
    write(tmp_path, stack(count=2))
    write(tmp_path / ".git" / "annex", stack(count=3, series="b"))
    found, skipped = scan(tmp_path)
    assert [len(one.frames) for one in found] == [2]
    assert skipped == {"hidden folder": 1}


@pytest.mark.parametrize("bare", [False, True])
def test_an_absent_sop_class_is_no_reason_to_leave_a_slice_out(tmp_path: Path, bare: bool) -> None:
    images = stack(count=3)
    write(tmp_path, images)
    raw = (tmp_path / "001.dcm").read_bytes()
    start = raw.index(b"\x08\x00\x08\x00", 132)  # Image Type, the first of the data set
    where = raw.index(b"\x08\x00\x16\x00UI", 132)
    end = where + 8 + int.from_bytes(raw[where + 6 : where + 8], "little")
    head = b"" if bare else raw[:start].replace(b"\x02\x00\x02\x00UI", b"\x02\x00\x02\x01UI")
    (tmp_path / "001.dcm").write_bytes(head + raw[start:where] + raw[end:])
    volume = read_one(tmp_path)
    np.testing.assert_array_equal(volume.data[0, :, :, 1], images[1].pixel_array.T - 1024.0)


def test_a_file_that_is_replaced_before_it_is_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path, stack(count=3))
    (series,), _ = scan(tmp_path)
    write(tmp_path, stack(count=3, series="b")[1:2], "001.dcm".format)
    with pytest.raises(CaseError, match=r"E_PIXELS: the file was replaced .*001\.dcm"):
        read_series(series)
    (tmp_path / "001.dcm").write_bytes(b"no DICOM any more")
    with pytest.raises(CaseError, match=r"E_\w+: .*001\.dcm"):
        read_series(series)


@pytest.mark.parametrize(
    ("keyword", "value"), [("PatientID", "other"), ("PatientName", "Roe^Jo"), ("StudyInstanceUID", "1.2")]
)
def test_slices_of_two_patients_in_one_series_are_refused(tmp_path: Path, keyword: str, value: str) -> None:
    images = stack(count=3)
    setattr(images[2], keyword, value)
    write(tmp_path, images)
    error = refusal(tmp_path)
    assert error.code == "E_PATIENT"
    assert value not in error.what
    setattr(images[2], keyword, "" if keyword != "PatientName" else "Marker^Patient^^=")  # empty, or written otherwise
    write(tmp_path, images)
    assert read_one(tmp_path).data.shape[-1] == 3


def test_a_source_shows_nothing_of_its_patient(tmp_path: Path) -> None:
    write(tmp_path, stack(count=2))
    one, other = read_one(tmp_path).source, read_one(tmp_path).source
    assert one == other
    assert "arker" not in repr(one)
    assert pickle.loads(pickle.dumps(one)).origin.header.PatientID == "marker-id"
    assert copy.deepcopy(one).origin.header.PatientID == "marker-id"
    assert "PixelData" not in one.origin.header


def test_a_number_with_a_megabyte_of_digits_is_absent(tmp_path: Path) -> None:
    ds = image(0)
    ds.file_meta.TransferSyntaxUID = SYNTAXES["implicit"]
    write(tmp_path, [ds])
    raw = (tmp_path / "000.dcm").read_bytes()
    where = raw.index(b"\x28\x00\x30\x00")
    end = where + 8 + int.from_bytes(raw[where + 4 : where + 8], "little")
    long = b"1\\" * 2**22
    (tmp_path / "000.dcm").write_bytes(
        raw[:where] + raw[where : where + 4] + len(long).to_bytes(4, "little") + long + raw[end:]
    )
    start = time.monotonic()
    assert refusal(tmp_path).code == "E_GEOMETRY"
    assert time.monotonic() - start < 5


def test_is_dicom_with_and_without_preamble(tmp_path: Path) -> None:
    write(tmp_path, [image(0)])
    raw = (tmp_path / "000.dcm").read_bytes()
    (tmp_path / "bare").write_bytes(raw[raw.index(b"\x08\x00\x08\x00", 132) :])
    (tmp_path / "text").write_bytes(b"\x08\x00 not a header at all")
    assert is_dicom(tmp_path / "000.dcm")
    assert is_dicom(tmp_path / "bare")
    assert not is_dicom(tmp_path / "text")
    assert not is_dicom(tmp_path)


@pytest.mark.parametrize(("modality", "mirrored"), [("CT", False), ("MR", False), ("CR", True), ("MG", True)])
def test_monochrome1_is_mirrored_where_values_have_no_scale(tmp_path: Path, modality: str, mirrored: bool) -> None:
    ds = image(0, modality=modality)
    ds.PhotometricInterpretation = "MONOCHROME1"
    ds.RescaleSlope, ds.RescaleIntercept = 2, 10
    stored = pixels(3, high=4096)
    set_pixels(ds, stored, signed=False, stored_bits=12)
    write(tmp_path, [ds])
    volume = read_one(tmp_path)
    expected = 2 * (4095 - stored) + 10 if mirrored else 2 * stored + 10
    np.testing.assert_array_equal(volume.data[0, :, :, 0], expected.T)
    assert "MONOCHROME1" in volume.source.warnings[0]


def test_body_part_and_modality_only_as_defined_terms(tmp_path: Path) -> None:
    for n, (value, expected) in enumerate([("Brain", "BRAIN"), ("DOE JOHN", ""), ("MUELLER", ""), ("X" * 40, "")]):
        ds = image(n, modality="CT" if n else "SMITH")
        ds.BodyPartExamined = value
        write(tmp_path / str(n), [ds])
        source = read_one(tmp_path / str(n)).source
        assert source.body_part == expected
        assert source.modality == ("CT" if n else "")


def test_colour_loop_has_frames_as_slices_and_no_size(tmp_path: Path) -> None:
    ds = cine(5)
    write(tmp_path, [ds])
    volume = read_one(tmp_path)
    assert volume.data.shape == (3, COLUMNS, ROWS, 5)
    np.testing.assert_array_equal(volume.data[:, 7, 2, 3], ds.pixel_array[3, 2, 7])
    np.testing.assert_array_equal(volume.affine, np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert not volume.source.has_physical_size
    assert volume.source.frames[4] == Frame(tmp_path / "000.dcm", 4)


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    ds = cine(2, photometric="YBR_FULL")
    grey = np.full((2, ROWS, COLUMNS, 3), (90, 128, 128))
    set_pixels(ds, grey, bits=8, signed=False)
    write(tmp_path, [ds])
    assert np.unique(read_one(tmp_path).data).tolist() == [90.0]


def test_unplaced_pictures_are_one_case_each(tmp_path: Path) -> None:
    for n in range(3):
        ds = image(n, modality="US", sop_class=UltrasoundImageStorage, stored=pixels(n, shape=(10 + n, 12)))
        del ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing
        write(tmp_path, [ds], f"{n}{{}}".format)
    series, _ = scan(tmp_path)
    assert [read_series(s).data.shape for s in series] == [(1, 12, 10, 1), (1, 12, 11, 1), (1, 12, 12, 1)]


def test_frames_without_a_position_each_are_refused_in_ct(tmp_path: Path) -> None:
    ds = image(0, stored=pixels(1, shape=(4, ROWS, COLUMNS)))
    ds.NumberOfFrames, ds.Rows, ds.Columns = 4, ROWS, COLUMNS
    write(tmp_path, [ds])
    assert refusal(tmp_path).code == "E_FRAMES"


SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big-endian": "1.2.840.10008.1.2.2",
    "rle": RLELossless,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
    "htj2k": HTJ2KLossless,
    "jpeg-lossless": "1.2.840.10008.1.2.4.70",
}


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("name", SYNTAXES)
def test_lossless_syntaxes_equal_raw(tmp_path: Path, name: str, signed: bool) -> None:
    stored = pixels(8, low=-2000 if signed else 0, high=2000, shape=(64, 48))
    ds = image(0)
    set_pixels(ds, stored, signed=signed)
    save_encoded(ds, stored, SYNTAXES[name], tmp_path / "x")
    np.testing.assert_array_equal(read_one(tmp_path).data[0, :, :, 0], stored.T - 1024)


def save_encoded(ds: pydicom.FileDataset, stored: np.ndarray, syntax: str, path: Path) -> None:
    """Write in a transfer syntax; skip the test where no encoder is at hand."""
    if syntax == HTJ2KLossless:
        pytest.skip("no free encoder for HTJ2K is at hand")
    if syntax == SYNTAXES["jpeg-lossless"]:
        ds.save_as(path)
        transcode(path)
    elif syntax == SYNTAXES["big-endian"]:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = stored.astype(">i2").tobytes()
        pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=False, force_encoding=True)
    elif syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        if not get_encoder(syntax).is_available:
            pytest.skip("no encoder is installed")
        ds.compress(syntax)
        ds.save_as(path)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(path, enforce_file_format=True)


def transcode(path: Path) -> None:
    gdcm = pytest.importorskip("gdcm")
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()


def test_a_missing_codec_is_named_with_its_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = image(0)
    ds.compress(RLELossless)
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
    write(tmp_path, [ds])

    monkeypatch.setattr(dicom_pixels, "_plugins", lambda syntax: [])
    error = refusal(tmp_path)
    assert error.code == "E_CODEC"
    assert "JPEG Lossless, Non-Hierarchical, First-Order Prediction" in error.what
    assert error.todo == "pip install python-gdcm"


def test_video_and_unknown_syntaxes_are_refused(tmp_path: Path) -> None:
    for n, syntax in enumerate(["1.2.840.10008.1.2.4.102", "1.2.3.4.5"]):
        ds = image(0)
        ds.PixelData = encapsulate([b"\0" * 100])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(tmp_path / str(n), implicit_vr=False, little_endian=True, enforce_file_format=True)
        error = refusal(tmp_path / str(n))
        assert error.code == "E_CODEC"
        assert syntax not in str(error)


def test_truncated_compressed_pixels_are_refused(tmp_path: Path) -> None:
    ds = image(0)
    ds.compress(RLELossless)
    write(tmp_path, [ds])
    path = tmp_path / "000.dcm"
    path.write_bytes(path.read_bytes()[:-200])
    assert refusal(tmp_path).code == "E_TRUNCATED"


def test_more_frames_than_stored_are_refused(tmp_path: Path) -> None:
    ds = cine(5)
    ds.NumberOfFrames = 4000
    write(tmp_path, [ds])
    assert refusal(tmp_path).code == "E_TRUNCATED"
    ds.NumberOfFrames = 2**31 - 1
    write(tmp_path, [ds])
    assert refusal(tmp_path).code == "E_TOO_LARGE"


def test_absurd_matrix_is_refused_before_decoding(tmp_path: Path) -> None:
    ds = image(0)
    ds.Rows = ds.Columns = 65535
    write(tmp_path, [ds])
    assert refusal(tmp_path).code == "E_TOO_LARGE"
    ds.Rows = ds.Columns = 20000
    write(tmp_path, [ds])
    assert refusal(tmp_path).code == "E_TRUNCATED"


def test_deflated_bomb_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_headers, "MAX_INFLATED_BYTES", 2**20)
    ds = image(0)
    ds.file_meta.TransferSyntaxUID = SYNTAXES["deflated"]
    head = io.BytesIO()
    head.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(head, ds.file_meta, enforce_standard=True)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    (tmp_path / "bomb").write_bytes(head.getvalue() + packer.compress(b"\x08\x00" + b"\0" * 2**24) + packer.flush())
    assert refusal(tmp_path).code == "E_TOO_LARGE"


def test_deep_nesting_ends_in_one_line(tmp_path: Path) -> None:
    write(tmp_path, stack(count=2))
    start = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    raw = (tmp_path / "000.dcm").read_bytes()
    where = raw.index(b"\xe0\x7f\x10\x00")
    (tmp_path / "deep.dcm").write_bytes(raw[:where] + start * 3000)
    with pytest.raises(CaseError, match="E_"):
        read_one(tmp_path / "deep.dcm")
    series, skipped = scan(tmp_path)
    assert len(series) == 1
    assert skipped["unreadable"] + skipped["duplicate file"] + len(series[0].frames) == 3


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("RescaleSlope", 0, "E_PIXELS"),
        ("RescaleSlope", "1e300", "E_PIXELS"),
        ("PixelSpacing", [0, 1], "E_GEOMETRY"),
        ("PixelSpacing", [-1, 1], "E_GEOMETRY"),
        ("ImagePositionPatient", ["1e300", 0, 0], "E_GEOMETRY"),
        ("ImagePositionPatient", [1, 2], "E_GEOMETRY"),
        ("ImageOrientationPatient", [0] * 6, "E_GEOMETRY"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "E_GEOMETRY"),
        ("PhotometricInterpretation", "HSV", "E_COLOUR"),
        ("BitsAllocated", 13, "E_PIXELS"),
        ("Rows", 0, "E_PIXELS"),
    ],
)
def test_bad_values_are_refused(tmp_path: Path, keyword: str, value: object, code: str) -> None:
    ds = image(0)
    setattr(ds, keyword, value)
    write(tmp_path, [ds])
    assert refusal(tmp_path).code == code


def test_nothing_of_a_header_reaches_logs_or_messages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    marker = "Marker-7421"
    images = stack()
    for ds in images:
        for keyword in (
            "PatientName",
            "PatientComments",
            "SeriesDescription",
            "StudyDescription",
            "InstitutionName",
        ):
            setattr(ds, keyword, marker)
    write(tmp_path, images)
    for path in tmp_path.iterdir():
        raw = path.read_bytes()
        bad = raw.replace(str(images[0].StudyInstanceUID).encode()[:11], marker.encode())
        path.write_bytes(bad.replace(b"\x20\x00\x32\x00DS", b"\x20\x00\x32\x00XX"))
    with caplog.at_level(logging.DEBUG):
        series, _ = scan(tmp_path)
        messages = []
        for one in series:
            try:
                read_series(one)
            except CaseError as error:
                messages.append(str(error))
    assert messages
    assert not any(marker in text for text in messages)
    assert marker not in caplog.text
    assert not list(recwarn)


def read_all(path: Path) -> list[Volume] | CaseError:
    try:
        return [read_series(one) for one in scan(path)[0]]
    except CaseError as error:
        return error


def test_packaged_files_are_right_by_the_oracle_or_refused() -> None:
    """The files that come with pydicom."""
    results = {path: read_all(path) for path in sorted(PACKAGED.rglob("*")) if path.is_file()}
    refused = [result for result in results.values() if isinstance(result, CaseError)]
    assert len(refused) >= 20
    assert all("\n" not in str(error) for error in refused)
    checked = 0
    for path, result in results.items():
        for volume in () if isinstance(result, CaseError) else result:
            if volume.data.shape[0] == 3:
                assert 0 <= volume.data.min() <= volume.data.max() <= 255
            elif not any("mirrored" in note for note in volume.source.warnings):
                assert len(check_volume(volume, stored_frames(path))) == volume.data.shape[-1]
                checked += 1
    assert checked >= 20


@needs_real_files
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("sts001_sarcoma_rtstruct/CT", (1, 198, 202, 59)),
        ("sts001_sarcoma_rtstruct/MR_T1", (1, 174, 158, 59)),
        ("dcmqi_seg/ct-3slice", (1, 512, 512, 3)),
        ("dcmqi_seg/23x38x3/image", (1, 23, 38, 3)),
        ("dcmqi_seg/24x38x3/multiframe", (1, 24, 38, 3)),
        ("dicom2nifti_tests/generic/anatomical/001", (1, 256, 256, 4)),
        ("dicom2nifti_tests/generic/anatomical/001_implicit", (1, 256, 256, 4)),
        ("dicom2nifti_tests/generic/anatomical/002_non_isotropic", (1, 64, 28, 4)),
        ("dicom2nifti_tests/generic/compressed/001", (1, 256, 256, 4)),
        ("dicom2nifti_tests/generic/compressed_j2k/001", (1, 256, 256, 4)),
        ("dicom2nifti_tests/generic/compressed_jpeg/001", (1, 256, 256, 4)),
        ("dicom2nifti_tests/generic/compressed_jpegls/001", (1, 256, 256, 4)),
        ("dicom2nifti_tests/generic/compressed_rle/001", (1, 256, 256, 4)),
        ("dicom2nifti_tests/generic/rgb/001", (3, 52, 77, 4)),
        ("dicom2nifti_tests/failing/gantrytilting/001", (1, 512, 512, 4)),
        ("dicom2nifti_tests/failing/slicecount/001", (1, 256, 256, 2)),
    ],
)
def test_real_series_by_the_tag_oracle(name: str, shape: tuple[int, ...]) -> None:
    series, _ = scan(real(name))
    assert len(series) == 1
    volume = read_series(series[0])
    assert volume.data.shape == shape
    frames = [f for path in sorted({f.path for f in series[0].frames}) for f in stored_frames(path)]
    assert len(check_volume(volume, frames)) == shape[-1] == len(frames)


@needs_real_files
@pytest.mark.parametrize(("name", "volumes"), [("dcm_qa_enh/In/Philips", 2), ("dcm_qa_enh/In/Siemens/XA10", 4)])
def test_real_enhanced_objects_volume_by_volume(name: str, volumes: int) -> None:
    series, _ = scan(real(name))
    frames = [f for path in sorted({f.path for f in series[0].frames}) for f in stored_frames(path)]
    with pytest.raises(CaseError, match=f"E_4D: the series holds {volumes} volume"):
        read_series(series[0])
    found = [check_volume(read_series(series[0], volume=n), frames) for n in range(volumes)]
    assert sum(map(len, found)) == len(frames)
    assert len(set.union(*found)) == len(frames)


@needs_real_files
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("dicom2nifti_tests/failing/sliceincrement/001", "E_MISSING_SLICES"),
        ("dicom2nifti_tests/failing/sliceincrement/002", "E_MISSING_SLICES"),
        ("dicom2nifti_tests/failing/sliceorientation/001", "E_MIXED_ORIENTATION"),
        ("dicom2nifti_tests/failing/notavolume/001", "E_4D"),
    ],
)
def test_real_series_that_are_no_volume_are_refused(name: str, code: str) -> None:
    assert refusal(real(name)).code == code


@needs_real_files
@pytest.mark.parametrize("kind", ["CT1", "MR1"])
def test_real_lossless_syntaxes_agree(kind: str) -> None:
    files = [real("wg04_transfer_syntaxes") / folder / f"{kind}_{folder}" for folder in ("JPLL", "J2KR", "RLE")]
    images = [read_one(path).data for path in files]
    for other in images[1:]:
        np.testing.assert_array_equal(other, images[0])


@needs_real_files
def test_real_segmentations_and_contours_are_no_images() -> None:
    for path in [*real("dcmqi_seg").glob("*.dcm"), real("sts001_sarcoma_rtstruct/CT/mask/RS.dcm")]:
        with pytest.raises(CaseError, match="E_NOT_IMAGE"):
            scan(path)


@needs_real_files
def test_real_ground_truth_of_dicom2nifti_agrees() -> None:
    folder = real("dicom2nifti_tests/generic/anatomical")
    volume = read_one(folder / "001")
    same_grid(volume, nib.load(folder / "001_ground_truth.nii.gz"))


def same_grid(volume: Volume, other: nib.Nifti1Image) -> None:
    """Compare in canonical orientation: the same values at the same world places."""
    ours = nib.as_closest_canonical(nib.Nifti1Image(volume.data[0], volume.affine))
    theirs = nib.as_closest_canonical(other)
    assert ours.shape == theirs.shape
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * [
        *(np.array(ours.shape) - 1),
        1,
    ]
    assert np.abs(corners @ ours.affine.T - corners @ theirs.affine.T).max() < 1e-2
    np.testing.assert_allclose(ours.get_fdata(), theirs.get_fdata(), rtol=1e-6, atol=3e-4)


DCM2NIIX = shutil.which("dcm2niix", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
"""The program of the PyPI package, beside this Python, or another one."""


@pytest.mark.slow
@needs_real_files
@pytest.mark.skipif(DCM2NIIX is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize(
    "name",
    [
        "sts001_sarcoma_rtstruct/CT/image",
        "sts001_sarcoma_rtstruct/MR_T1/image",
        "dicom2nifti_tests/generic/anatomical/001",
        "dicom2nifti_tests/generic/anatomical/002_non_isotropic",
        "dicom2nifti_tests/generic/compressed_jpegls/001",
        "dcmqi_seg/ct-3slice",
    ],
)
def test_dcm2niix_agrees(name: str, tmp_path: Path) -> None:
    subprocess.run([DCM2NIIX, "-o", str(tmp_path), "-f", "x", str(real(name))], check=True, capture_output=True)
    (result,) = tmp_path.glob("*.nii")
    same_grid(read_one(real(name)), nib.load(result))


@pytest.mark.slow
@pytest.mark.skipif(DCM2NIIX is None, reason="dcm2niix is not installed")
def test_dcm2niix_agrees_on_an_oblique_series(tmp_path: Path) -> None:
    write(tmp_path / "in", stack(orientation=oblique()))
    (tmp_path / "out").mkdir()
    subprocess.run(
        [DCM2NIIX, "-o", str(tmp_path / "out"), "-f", "x", str(tmp_path / "in")],
        check=True,
        capture_output=True,
    )
    (result,) = (tmp_path / "out").glob("*.nii")
    same_grid(read_one(tmp_path / "in"), nib.load(result))


def test_a_decoder_that_aborts_takes_only_its_own_process_with_it(tmp_path: Path) -> None:
    pytest.importorskip("gdcm")
    ds = image(0)
    ds.save_as(tmp_path / "x")
    transcode(tmp_path / "x")
    raw = bytearray((tmp_path / "x").read_bytes())
    # Component selector of the scan header (ITU-T T.81 B.2.3): no such component.
    where = raw.index(b"\xff\xda")
    raw[where + 4 : where + 7] = b"\x03\x99\xff"
    (tmp_path / "x").write_bytes(bytes(raw))
    assert refusal(tmp_path).code == "E_PIXELS"


def lossless(path: Path) -> np.ndarray:
    """A file in JPEG lossless; -> its modality values (W, H)."""
    pytest.importorskip("gdcm")
    ds = image(0, stored=pixels(4, high=2000))
    set_pixels(ds, pixels(4, high=2000), signed=False)
    ds.save_as(path)
    transcode(path)
    return ds.pixel_array.T - 1024.0


def test_seconds_count_from_the_moment_the_decoder_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = lossless(tmp_path / "x")
    # A child that takes longer for its imports than a frame may take.
    slow = tmp_path / "slow.py"
    slow.write_text(
        f"import time; time.sleep(1.5); import runpy; runpy.run_path({dicom_isolated.__file__!r}, run_name='__main__')"
    )
    monkeypatch.setattr(dicom_isolated, "__file__", str(slow))
    monkeypatch.setattr(dicom_isolated, "MAX_SECONDS", 1.0)
    np.testing.assert_array_equal(read_one(tmp_path / "x").data[0, :, :, 0], expected)
    monkeypatch.setattr(dicom_isolated, "MAX_START_SECONDS", 0.5)
    error = refusal(tmp_path / "x")
    assert error.code == "E_TIMEOUT"
    assert error.what == "the decoder of JPEG lossless did not start in 0.5 seconds"


def test_a_frame_that_takes_too_long_is_a_time_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lossless(tmp_path / "x")
    stuck = tmp_path / "stuck.py"
    stuck.write_text(
        "import sys, time\nsys.stdout.buffer.write((1).to_bytes(8, 'big') + b'+'); sys.stdout.flush(); time.sleep(60)"
    )
    monkeypatch.setattr(dicom_isolated, "__file__", str(stuck))
    monkeypatch.setattr(dicom_isolated, "MAX_SECONDS", 0.3)
    error = refusal(tmp_path / "x")
    assert (error.code, error.what) == ("E_TIMEOUT", "a frame was not decoded in 0.3 seconds")


def test_a_compressed_stream_of_another_size_is_refused(tmp_path: Path) -> None:
    for n, syntax in enumerate((JPEG2000Lossless, JPEGLSLossless)):
        ds = image(n, stored=pixels(n, shape=(64, 48)))
        ds.compress(syntax)
        ds.Rows, ds.Columns = 60, 48
        write(tmp_path / str(n), [ds])
        error = refusal(tmp_path / str(n))
        assert (error.code, error.what) == (
            "E_PIXELS",
            "the compressed image is not of the size in the header",
        )


def test_a_half_empty_stack_is_irregular_not_missing_slices(tmp_path: Path) -> None:
    images = stack(count=12)
    write(tmp_path, [ds for k, ds in enumerate(images) if k in (0, 1, 2, 3, 4, 6, 8, 10)])
    assert refusal(tmp_path).code == "E_IRREGULAR_SPACING"


def test_mosaics_are_known_by_private_tags_too(tmp_path: Path) -> None:
    for n, (group, creator, element, vr, value) in enumerate(
        [(0x19, "SIEMENS MR HEADER", 0x0A, "US", 36), (0x65, "Image Private Header", 0x51, "SQ", [image(0)])]
    ):
        ds = image(n, modality="MR")
        ds.private_block(group, creator, create=True).add_new(element, vr, value)
        write(tmp_path / str(n), [ds])
        assert refusal(tmp_path / str(n)).code == "E_MOSAIC"
