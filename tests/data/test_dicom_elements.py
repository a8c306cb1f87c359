from __future__ import annotations

import io
import time
import zlib
from pathlib import Path

import pytest
from dicom_factory import ROWS, enhanced, image, pixels
from pydicom import Dataset, dcmwrite
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian

from anomalyclip_monai.data import dicom_elements
from anomalyclip_monai.data.dicom_elements import too_many_elements
from anomalyclip_monai.data.dicom_headers import read_object
from anomalyclip_monai.data.dicom_series import read_series, scan
from anomalyclip_monai.exceptions import CaseError


def written(ds: Dataset, *, implicit: bool = False, little: bool = True) -> io.BytesIO:
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = implicit, little
    write_dataset(stream, ds)
    return io.BytesIO(stream.getvalue())


def count(stream: io.BytesIO, **kwargs: bool) -> int:
    """The number of elements, by the limits that let them pass."""
    for limit in range(200):
        stream.seek(0)
        if not too_many_elements(stream, limit=limit, **kwargs):
            return limit
    raise AssertionError("more than the test allows")


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("undefined", [False, True])
def test_count_by_hand(implicit: bool, undefined: bool) -> None:
    """Two elements, a sequence of two items with one and two elements, and its pixels, which end the count."""
    ds, one, two = Dataset(), Dataset(), Dataset()
    ds.Modality, ds.PatientName = "CT", "A"
    one.CodeValue, two.CodeValue, two.LongCodeValue = "1", "2", "x" * 301
    ds.ProcedureCodeSequence = Sequence([one, two])
    ds["ProcedureCodeSequence"].is_undefined_length = undefined
    one.is_undefined_length_sequence_item = two.is_undefined_length_sequence_item = undefined
    ds.add_new("PixelData", "OW", b"\0" * 100)
    ds.add_new(0x7FE10010, "LO", "after")
    assert count(written(ds, implicit=implicit)) == 2 + 1 + 2 + 3


def test_big_endian() -> None:
    ds = Dataset()
    ds.Modality, ds.Rows, ds.PatientName = "CT", 3, "A"
    assert count(written(ds, little=False), little=False) == 3


def test_bytes_of_fragments_and_of_private_values_are_no_elements() -> None:
    item = b"\xfe\xff\x00\xe0\x10\0\0\0" + b"\x08\x00\x60\x00CS\x02\0CT" * 1 + b"\0" * 6
    icon = b"\x88\x00\x00\x02OB\0\0\xff\xff\xff\xff" + item * 5 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    after = b"\x09\x00\x10\x00LO\x02\0AB"
    # Five items of fragments; what they hold is skipped.
    assert count(io.BytesIO(icon + after)) == 1 + 5 + 1


def test_unknown_representation_of_undefined_length_holds_implicit_elements() -> None:
    inner = b"\x08\x00\x60\x00\x02\0\0\0CT" * 3
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0\0\0\0\0"
    unknown = b"\x09\x00\x10\x10UN\0\0\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    after = b"\x10\x00\x10\x00PN\x02\0AB"
    assert count(io.BytesIO(unknown + after)) == 1 + 1 + 3 + 1


def test_a_count_that_makes_no_sense_ends() -> None:
    assert not too_many_elements(io.BytesIO(b""))
    assert not too_many_elements(io.BytesIO(b"\x08\x00\x60\x00CS\xff\xff"))
    assert not too_many_elements(io.BytesIO(b"\x08\x00\x60\x00OB"))


def deflated(path: Path, body: bytes) -> Path:
    ds = image(0)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = io.BytesIO()
    head.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(head, ds.file_meta, enforce_standard=True)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(head.getvalue() + packer.compress(body) + packer.flush())
    return path


@pytest.mark.parametrize("nested", [False, True])
def test_millions_of_elements_are_refused_in_seconds(tmp_path: Path, nested: bool) -> None:
    element = b"\x09\x00\x10\x10LO\0\0"
    body = written(image(0)).getvalue()
    where = body.index(b"\x28\x00\x02\x00US")  # Samples per Pixel: what comes before is of lower groups
    many = element * 3_000_000
    if nested:
        many = b"\x09\x00\x10\x10SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + many
    path = deflated(tmp_path / "x.dcm", body[:where] + many + body[where:])
    start = time.monotonic()
    found = read_object(path)
    assert time.monotonic() - start < 6
    assert not isinstance(found, str)
    with pytest.raises(CaseError, match="E_TOO_LARGE: the header has more elements than are believable"):
        read_series(scan(path)[0][0])


def test_a_large_enhanced_object_is_below_the_limit(tmp_path: Path) -> None:
    frames = [{"position": (0, 0, k)} for k in range(40)]
    ds = enhanced(frames, stored=pixels(1, shape=(40, ROWS, 4)))
    dcmwrite(tmp_path / "x.dcm", ds, enforce_file_format=True)
    stream = written(ds)
    assert 100 * 40 > len(list(ds.iterall())) > 10 * 40
    assert not too_many_elements(stream, limit=100 * 40)
    assert dicom_elements.MAX_ELEMENTS / 100 >= 5000
