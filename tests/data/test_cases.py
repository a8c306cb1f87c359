from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from anomalyclip_monai.data import Case, cases, datalist, find_cases, the_case
from anomalyclip_monai.data.cases import roi_of
from anomalyclip_monai.data.content import files_of
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, NoInputError

Make = Callable[..., list[Path]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Readable files of these names below ``tmp_path``, all of 3 x 2 voxels."""

    def _make(*names: str) -> list[Path]:
        paths = []
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.lower().endswith((".nii", ".nii.gz")):
                nib.save(nib.Nifti1Image(np.ones((3, 2, 1), dtype=np.float32), np.eye(4)), path)
            elif name.lower().endswith((".png", ".jpg", ".tif")):
                Image.fromarray(np.zeros((2, 3), dtype=np.uint8)).save(path)
            else:
                path.write_text("no image")
            paths.append(path)
        return paths

    return _make


def _series(folder: Path, number: int, slices: int = 2) -> None:
    """A classic MR series of 3 x 2 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = generate_uid()
    for k in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = pydicom.Dataset()
        image.file_meta = meta
        image.SOPClassUID, image.SOPInstanceUID = (
            meta.MediaStorageSOPClassUID,
            meta.MediaStorageSOPInstanceUID,
        )
        image.Modality, image.SeriesInstanceUID, image.SeriesNumber = "MR", uid, number
        image.Rows, image.Columns, image.PixelSpacing = 2, 3, [1, 1]
        image.ImageOrientationPatient, image.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 5 * k]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.PixelData = np.full((2, 3), 10 + k, dtype=np.uint16).tobytes()
        image.save_as(folder / f"{number}-{k}", enforce_file_format=True)


def _names(*inputs: Path) -> list[str]:
    return [case.name for case in find_cases(inputs)]


# --- names


def test_names_are_paths_below_the_folder_without_suffix(make: Make, tmp_path: Path) -> None:
    make("yes/Y1.jpg", "no/N 2.PNG", "case.nii.gz", "deep/er/a.b.nii")
    assert _names(tmp_path) == ["case", "deep/er/a.b", "no/N 2", "yes/Y1"]


def test_a_file_is_named_by_itself(make: Make) -> None:
    (path,) = make("yes/Y1.jpg")
    assert _names(path) == ["Y1"]
    assert find_cases([path])[0].path == path


def test_suffixes_stay_where_names_would_collide(make: Make, tmp_path: Path) -> None:
    make("Y92.jpg", "Y92.png", "Y93.jpg", "sub/Y92.jpg", "a.nii", "a.nii.gz")
    assert _names(tmp_path) == ["Y92.jpg", "Y92.png", "Y93", "a.nii", "a.nii.gz", "sub/Y92"]


def test_case_of_letters_does_not_tell_cases_apart(make: Make, tmp_path: Path) -> None:
    make("B.png", "b.tif")  # one folder on Windows and macOS
    assert _names(tmp_path) == ["B.png", "b.tif"]


def test_what_is_left_is_numbered(make: Make, tmp_path: Path) -> None:
    make("Y.jpg", "Y.jpg.nii", "Y.png")  # the second is `Y.jpg` without its suffix
    names = _names(tmp_path)
    assert len({name.casefold() for name in names}) == 3
    assert names[0] == "Y.jpg"


def test_several_inputs_are_named_below_their_common_parent(make: Make, tmp_path: Path) -> None:
    first, second, third = make("study/one/a.nii", "study/two/a.nii", "study/two/b.nii")
    assert _names(first, second) == ["one/a", "two/a"]
    assert _names(second, third) == ["a", "b"]
    assert _names(third, first) == ["two/b", "one/a"]  # in the order given
    assert _names(tmp_path / "study/one", third) == ["one/a", "two/b"]
    assert _names(first, first) == ["a"]


def test_relative_paths_and_the_working_folder(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("study/a.nii")
    monkeypatch.chdir(tmp_path / "study")
    assert _names(Path()) == ["a"]
    assert _names(Path("a.nii")) == ["a"]
    assert _names(Path("../study/a.nii")) == ["a"]


def test_names_never_leave_the_output_folder(make: Make, tmp_path: Path) -> None:
    paths = make("one/a.nii", "two/deep/b.png", "c.txt")
    for case in find_cases([*paths, tmp_path / "one" / ".." / "two"]):
        assert not Path(case.name).is_absolute()
        assert ".." not in Path(case.name).parts


# --- what is found


def test_hidden_files_and_linked_folders_are_left_out(make: Make, tmp_path: Path) -> None:
    make("in/a.nii", "in/.hidden.nii", "in/.git/b.nii", "out/c.nii")
    os.symlink(tmp_path / "out", tmp_path / "in" / "link")
    assert _names(tmp_path / "in") == ["a"]


def test_other_files_of_a_folder_are_skipped(make: Make, tmp_path: Path) -> None:
    make("a.nii", "notes.txt", "table.csv")
    assert _names(tmp_path) == ["a"]


def test_a_file_that_is_no_image_is_a_case_that_fails(make: Make) -> None:
    text, image = make("notes.txt", "a.nii")
    first, second = find_cases([text, image])
    assert second.error is None
    with pytest.raises(CaseError) as caught:
        first.read()
    assert (first.name, caught.value.code, caught.value.path) == ("notes", "E_NOT_IMAGE", text)


def test_a_missing_file_is_a_case_that_fails(make: Make, tmp_path: Path) -> None:
    (image,) = make("a.nii")
    found = find_cases([tmp_path / "gone.nii", image])
    assert [case.error and case.error.code for case in found] == ["E_NOT_FOUND", None]


def test_nothing_at_all(make: Make, tmp_path: Path) -> None:
    with pytest.raises(NoInputError) as caught:
        find_cases([tmp_path / "gone"])
    assert str(caught.value) == f"E_NOT_FOUND: no such file or folder ({tmp_path / 'gone'}) - check the path"
    with pytest.raises(NoInputError, match=r"^E_NO_IMAGES: no image found \(it is empty\)"):
        find_cases([tmp_path])
    make("a.txt", "b.txt", "c.CSV", "LICENSE")
    what = r"no image found \(2 files \.txt, 1 file without suffix, 1 file \.csv\)"
    with pytest.raises(NoInputError, match=what) as caught:
        find_cases([tmp_path])
    assert caught.value.code == "E_NO_IMAGES"


# --- nothing is left out silently


def _line(caplog: pytest.LogCaptureFixture, *inputs: Path) -> str:
    caplog.clear()
    find_cases(inputs)
    return "; ".join(caplog.messages)


def test_what_is_left_out_is_counted_in_one_line(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make("in/a.nii", "in/b.txt", "in/sub/c.TXT", "in/sub/README", "elsewhere/d.nii")
    assert _line(caplog, tmp_path / "elsewhere") == ""
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/file.nii").symlink_to(tmp_path / "elsewhere/d.nii")
    (tmp_path / "in/broken.nii").symlink_to(tmp_path / "gone")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in/loop")
    assert _names(tmp_path / "in") == ["a", "file"]  # a link to a file is read
    said = _line(caplog, tmp_path / "in")
    assert said == "left out: 2 files .txt, 2 broken links, 1 link to a folder, 1 file without suffix"
    # what systems leave behind is not even counted
    make("in/.DS_Store", "in/._a.nii", "in/Thumbs.db", "in/.ipynb_checkpoints/a-checkpoint.png", "in/__MACOSX/x.nii")
    assert _line(caplog, tmp_path / "in") == said


def test_pipes_are_not_opened(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make("in/a.nii")
    for name in ("x.nii", "x.png", "x.zip", "x.dcm", "scores.json", "cohort.csv"):
        os.mkfifo(tmp_path / "in" / name)
    assert _names(tmp_path / "in") == ["a"]
    assert _line(caplog, tmp_path / "in") == "left out: 6 pipes, sockets or devices"
    for name in ("x.nii", "x.dcm", "x.zip"):
        (case,) = find_cases([tmp_path / "in" / name])
        with pytest.raises(CaseError, match=r"^E_NOT_IMAGE: this is a pipe, socket or device"):
            case.read()


def test_unreadable_folders_are_counted(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("in/a.nii", "in/secret/b.nii")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if os.fspath(path).endswith("secret"):  # root may read everything
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert _line(caplog, tmp_path / "in") == "left out: 1 folder that cannot be read"


def test_only_our_own_results_are_no_input(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make("in/theirs/a.png", "in/ours/b.png", "in/ours/mask.png", "in/ours/deeper/c.png", "in/old/mask.png")
    (tmp_path / "in/theirs/scores.json").write_text('{"grader": 1}')
    marker = {"anomalyclip": 1, "kind": "case", "files": ["mask.png", "scores.json"]}
    (tmp_path / "in/ours/.anomalyclip.json").write_text(json.dumps(marker))
    scores = {"score": 1, "slice_scores": [], "lesions": [], "threshold": {}, "model": {"bundle": "anomalyclip_tiny"}}
    content = json.dumps({**scores, "versions": {"anomalyclip-monai": "0.1.0"}})
    (tmp_path / "in/old/scores.json").write_text(content)
    assert _names(tmp_path / "in") == ["ours/b", "ours/deeper/c", "theirs/a"]
    assert _line(caplog, tmp_path / "in") == "left out: 2 folders with earlier results, 1 file .json"


def test_a_folder_in_the_making_is_no_input(make: Make, tmp_path: Path) -> None:
    make("a.nii", ".anomalyclip-0123456789abcdef/new/heatmap.nii.gz")
    assert _names(tmp_path) == ["a"]


# --- names that are hard to write


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (".nii", "nii"),
        ("..nii.gz", "nii.gz"),
        ("...nii", "nii"),
        (".hidden.png", "hidden"),
        ("~", "~"),
        ("-x.png", "-x"),
    ],
)
def test_names_of_files_that_are_given_are_visible(tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).write_text("")
    (case,) = find_cases([tmp_path / file])
    assert case.name == name


def test_a_tilde_is_the_home_folder_only_where_nothing_has_that_name(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("home/a.nii", "work/~/b.nii", "work/~nobody.nii")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    assert _names(Path("~")) == ["b"]
    assert _names(Path("~nobody.nii")) == ["~nobody"]
    assert _names(Path("~/b.nii")) == ["b"]
    monkeypatch.chdir(tmp_path)
    assert _names(Path("~")) == ["a"]
    with pytest.raises(NoInputError, match="E_NOT_FOUND"):
        find_cases(["~no such user/x.nii"])


def test_names_that_another_file_system_takes_for_one(make: Make, tmp_path: Path) -> None:
    make("\u00e4.png", "a\u0308.tif", "b..png", "b.tif")  # composed or not; a network share drops a dot at the end
    assert _names(tmp_path) == ["a\u0308.tif", "b..png", "b.tif", "\u00e4.png"]


def test_names_of_bytes_and_of_full_length(make: Make, tmp_path: Path) -> None:
    raw = Path(os.fsdecode(os.fsencode(tmp_path) + b"/raw\xff.nii"))
    (plain,) = make("a.nii")
    plain.rename(raw)
    make(f"{'x' * 251}.nii", f"{'x' * 251}.png", "cohort.csv.png")
    names = _names(tmp_path)
    assert "raw\udcff" in names
    assert "cohort.csv" not in names  # the place of the table
    assert len(names) == len(set(names)) == 4
    for name in names:
        (tmp_path / "out" / name).mkdir(parents=True)  # the file system takes them


# --- the bytes of an input


def test_the_hash_is_that_of_the_bytes(make: Make, tmp_path: Path) -> None:
    (path,) = make("a.nii")
    source = the_case(path).read().source
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    _series(tmp_path / "series", 3)
    frames = sorted((tmp_path / "series").iterdir())
    joined = b"".join(frame.read_bytes() for frame in frames)
    assert the_case(tmp_path / "series").read().source.sha256 == hashlib.sha256(joined).hexdigest()


def test_both_files_of_a_pair_count(tmp_path: Path) -> None:
    for name in ("a.hdr", "a.img", "b.raw", "c.dat"):
        (tmp_path / name).write_text(name)
    (tmp_path / "b.mhd").write_text("NDims = 3\nElementDataFile = b.raw\n")
    (tmp_path / "c.mha").write_text("NDims = 3\nElementDataFile = LOCAL\n")
    (tmp_path / "d.mhd").write_text("NDims = 3\nElementDataFile = ../secret\n")
    found = {name: [file.name for file in files_of(tmp_path / name)] for name in ("a.hdr", "b.mhd", "c.mha", "d.mhd")}
    assert found == {"a.hdr": ["a.hdr", "a.img"], "b.mhd": ["b.mhd", "b.raw"], "c.mha": ["c.mha"], "d.mhd": ["d.mhd"]}


def test_a_file_that_changes_while_it_is_read_has_no_hash(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = make("a.nii")
    read = cases.read_nifti

    def slow(*arguments: Any) -> object:
        done = read(*arguments)
        path.write_bytes(b"another")
        return done

    monkeypatch.setattr(cases, "read_nifti", slow)
    assert the_case(path).read().source.sha256 == ""


# --- DICOM series among them


def test_a_series_is_named_by_its_folder(tmp_path: Path, make: Make) -> None:
    _series(tmp_path / "study/flair", 3)
    make("study/a.png")
    assert _names(tmp_path / "study") == ["a", "flair"]
    assert _names(tmp_path / "study/flair") == ["flair"]
    volume = find_cases([tmp_path / "study/flair"])[0].read()
    assert volume.data.shape == (1, 3, 2, 2)
    assert volume.source.kind == "dicom"
    assert volume.source.path == tmp_path / "study/flair"


def test_several_series_in_one_folder_are_named_by_their_number(tmp_path: Path) -> None:
    _series(tmp_path / "study", 3)
    _series(tmp_path / "study", 12)
    assert _names(tmp_path) == ["study/3", "study/12"]
    with pytest.raises(CaseError, match=r"^E_MULTI_SERIES: 2 cases are there: .*study/3, .*study/12"):
        the_case(tmp_path)


# --- archives


def _zip(path: Path, *files: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, file.name)
    return path


def test_an_archive_of_one_case_is_named_by_itself(tmp_path: Path) -> None:
    _series(tmp_path / "series", 3)
    archive = _zip(tmp_path / "study.ZIP", *sorted((tmp_path / "series").iterdir()))
    case = the_case(archive)
    assert case.name == "study"
    assert case.read().data.shape == (1, 3, 2, 2)


def test_an_archive_of_several_cases_is_a_folder(make: Make, tmp_path: Path) -> None:
    archive = _zip(tmp_path / "study.zip", *make("in/a.nii", "in/b.png", "in/notes.txt"))
    assert _names(archive) == ["study/a", "study/b"]
    (tmp_path / "both").mkdir()
    archive.rename(tmp_path / "both/study.zip")
    make("both/c.png")
    assert _names(tmp_path / "both") == ["c", "study/a", "study/b"]


def test_archives_with_nothing_to_read(make: Make, tmp_path: Path) -> None:
    (text, image) = make("notes.txt", "a.nii")
    empty = _zip(tmp_path / "empty.zip", text)
    inner = _zip(tmp_path / "inner.zip", image)
    nested = _zip(tmp_path / "nested.zip", inner)  # archives can hold themselves: only one level is opened
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(inner.read_bytes()[:40])
    codes = [case.error and case.error.code for case in find_cases([empty, nested, damaged, image])]
    assert codes == ["E_NO_IMAGES", "E_NO_IMAGES", "E_ARCHIVE", None]


# --- one case


def test_the_case(make: Make, tmp_path: Path) -> None:
    make("a.nii")
    assert the_case(tmp_path).name == "a"
    make(*(f"{letter}.png" for letter in "bcdefgh"))
    with pytest.raises(CaseError) as caught:
        the_case(tmp_path)
    assert caught.value.code == "E_MULTI_SERIES"
    assert "8 cases are there: a, b, c, d, e, f ..." in str(caught.value)


@pytest.mark.parametrize("name", ["a.nii", "a.png"])
def test_reading_goes_by_the_name(make: Make, name: str) -> None:
    (path,) = make(name)
    volume = the_case(path).read()
    assert volume.data.shape == (1, 3, 2, 1)
    assert volume.source.path == path


@pytest.mark.parametrize(
    "header",
    [
        b"ENVI\nsamples = 4\n",
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n",
        b"BYTEORDER I\nLAYOUT BIL\n",
        b"#ifndef A\n",
        b"",
    ],
)
def test_headers_of_other_formats_are_counted(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, header: bytes
) -> None:
    make("a.png")
    for name in ("b.hdr", "c.hdr"):
        (tmp_path / name).write_bytes(header)
    (tmp_path / "b.img").write_bytes(bytes(16))
    (tmp_path / "c.dat").write_bytes(bytes(16))
    assert _names(tmp_path) == ["a"]
    assert [record.message for record in caplog.records] == ["left out: 2 files .hdr, 1 file .img, 1 file .dat"]
    for name in ("b.hdr", "b.img", "c.hdr"):
        with pytest.raises(CaseError, match=r"E_NIFTI: the \.hdr is that of another format"):
            the_case(tmp_path / name).read()


def test_a_header_that_lost_its_voxels_is_a_case(tmp_path: Path) -> None:
    for name, kind in (("a.img", nib.Nifti1Pair), ("b.img.gz", nib.Nifti2Pair), ("c.img", nib.AnalyzeImage)):
        nib.save(kind(np.ones((3, 2, 1), dtype=np.int16), np.eye(4)), tmp_path / name)
        (tmp_path / name).unlink()
    assert _names(tmp_path) == ["a", "b", "c"]


# --- records for MONAI, with masks


def test_records(make: Make, tmp_path: Path) -> None:
    make("in/a.nii", "in/sub/b.png")
    records = datalist(tmp_path / "in")
    assert [record["case"] for record in records] == ["a", "sub/b"]
    assert all(isinstance(record["image"], Case) and "roi" not in record for record in records)
    assert [record["case"] for record in datalist([str(tmp_path / "in/a.nii")])] == ["a"]


def test_masks_by_the_names_of_cases(make: Make, tmp_path: Path) -> None:
    make("in/a.nii", "in/sub/b.png", "in/c.nii", "masks/a.nii.gz", "masks/sub/b.nii")
    first, second, third = datalist(tmp_path / "in", tmp_path / "masks")
    assert first["roi"] == tmp_path / "masks/a.nii.gz"
    assert "roi" not in second  # c has no mask, and only c fails
    assert (second["image"].error.code, second["case"]) == ("E_ROI", "c")
    assert "the folder has no mask c.nii.gz" in str(second["image"].error)
    assert third["roi"] == tmp_path / "masks/sub/b.nii"


def test_masks_of_photos_are_photos_too(make: Make, tmp_path: Path) -> None:
    make("in/a.jpg", "in/b.png", "in/b.tif", "in/c.jpg", "in/d.jpg", "in/v.nii")
    make("masks/a.png", "masks/b.png", "masks/b.tif.nii", "masks/c.PNG", "masks/v.png")
    found = {
        record["case"]: record.get("roi") or record["image"].error
        for record in datalist(tmp_path / "in", tmp_path / "masks")
    }
    names = {case: path.name for case, path in found.items() if isinstance(path, Path)}
    assert names == {"a": "a.png", "b.png": "b.png", "b.tif": "b.tif.nii", "c": "c.PNG"}
    assert "the folder has no mask d.png" in str(found["d"])
    assert "the folder has no mask v.nii.gz" in str(found["v"])  # pixels say nothing of where a volume lies


def test_one_mask_is_for_one_case(make: Make, tmp_path: Path) -> None:
    case, mask, _ = make("in/a.nii", "mask.nii", "in/b.nii")
    assert datalist(case, mask)[0]["roi"] == mask
    assert [record["image"].error.code for record in datalist(tmp_path / "in", mask)] == ["E_ROI", "E_ROI"]
    with pytest.raises(NoInputError, match="no such mask"):
        datalist(case, tmp_path / "gone.nii")
    with pytest.raises(AnomalyCLIPError, match="one mask for 2 cases"):
        roi_of(the_case(case), mask, 2)


def test_series_chooses_by_number_and_by_uid(tmp_path: Path) -> None:
    import numpy as np
    import pydicom

    from anomalyclip_monai.outputs.dicom_series import write_mr_series

    for number in (1, 2):
        write_mr_series(tmp_path / f"part{number}", np.ones((6, 5, 3), np.float32), np.diag([-1.0, -1, 4, 1]))
        for path in (tmp_path / f"part{number}").iterdir():
            ds = pydicom.dcmread(path)
            ds.SeriesNumber = number
            ds.save_as(path)
    assert [case.name for case in find_cases([tmp_path])] == ["part1", "part2"]
    (second,) = find_cases([tmp_path], series="2")
    assert second.name == "part2"
    assert find_cases([tmp_path], series=second.series.uid) == [second]
    with pytest.raises(NoInputError, match="no series 7; the numbers there are: 1, 2"):
        find_cases([tmp_path], series="7")


def test_a_pair_is_one_case_by_either_half(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(np.ones((3, 2, 1), dtype=np.int16), np.eye(4)), tmp_path / "head.img")
    (tmp_path / "alone.img").write_bytes(b"half of a pair")
    assert [(case.name, case.path.name) for case in find_cases([tmp_path])] == [
        ("alone", "alone.img"),
        ("head", "head.hdr"),
    ]
    halves = [tmp_path / "head.hdr", tmp_path / "head.img"]
    assert [case.name for case in find_cases(halves)] == ["head"]
    assert the_case(halves[1]).read().data.shape == (1, 3, 2, 1)
    with pytest.raises(CaseError, match=r"E_NOT_FOUND: the \.hdr with the header of this \.img is missing"):
        the_case(tmp_path / "alone.img").read()


def test_sizes_that_no_scan_has(tmp_path: Path) -> None:
    _series(tmp_path / "far", 3)
    for path in (tmp_path / "far").iterdir():
        image = pydicom.dcmread(path)
        image.PixelSpacing = [60, 60]
        image.save_as(path)
    with pytest.raises(CaseError, match=r"E_GEOMETRY: voxels of 60 x 60 x 5 mm in a volume of 180 x 120 x 10 mm"):
        the_case(tmp_path / "far").read()
