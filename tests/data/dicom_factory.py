"""Small DICOM series with known content, and one broken thing each: the d-cases of `docs/dicom_cases.md`."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, FileDataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

ROWS, COLUMNS, SLICES = 20, 24, 9
STEP = 2.5
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def oblique() -> tuple[float, ...]:
    rotation, _ = np.linalg.qr(np.array([[1.0, 0.2, 0.1], [-0.3, 1.0, 0.2], [0.1, -0.1, 1.0]]))
    return tuple(float(v) for v in (*rotation[:, 0], *rotation[:, 1]))


def uid(*parts: object) -> str:
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def pixels(seed: int, *, low: int = 0, high: int = 4000, shape: tuple[int, ...] = (ROWS, COLUMNS)) -> Any:
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.int64)


def set_pixels(ds: Dataset, stored: Any, *, bits: int = 16, signed: bool = True, stored_bits: int = 0) -> None:
    ds.Rows, ds.Columns = stored.shape[:2] if stored.shape[-1] != 3 or stored.ndim == 2 else stored.shape[-3:-1]
    ds.BitsAllocated, ds.BitsStored = bits, stored_bits or bits
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(signed)
    ds.PixelData = stored.astype(f"{'i' if signed else 'u'}{bits // 8}").tobytes()
    ds["PixelData"].VR = "OW" if bits > 8 else "OB"


def image(
    k: int,
    *,
    series: str = "a",
    position: Iterable[float] = (0.0, 0.0, 0.0),
    orientation: Iterable[float] = AXIAL,
    spacing: Iterable[float] = (0.9, 0.7),
    modality: str = "CT",
    sop_class: str = CTImageStorage,
    stored: Any = None,
) -> FileDataset:
    """A single-frame CT slice; other attributes are changed by the caller."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid(series, k)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, uid(series, k)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study"), uid("series", series)
    ds.FrameOfReferenceUID = uid("reference")
    ds.PatientName, ds.PatientID = "Marker^Patient", "marker-id"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = modality, 7, k + 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.BodyPartExamined = "HEAD"
    ds.ImagePositionPatient = [f"{v:.8g}" for v in position]
    ds.ImageOrientationPatient = [f"{v:.9g}" for v in orientation]
    ds.PixelSpacing = list(spacing)
    ds.SliceThickness = 2.0
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    set_pixels(ds, pixels(hash_of(series) + k) if stored is None else stored)
    return ds


def hash_of(text: str) -> int:
    return 1000 * sum(map(ord, text))


def stack(
    *,
    count: int = SLICES,
    series: str = "a",
    orientation: Iterable[float] = AXIAL,
    step: Iterable[float] | None = None,
    origin: Iterable[float] = (-31.5, 12.25, -100.0),
    **kwargs: Any,
) -> list[FileDataset]:
    """`count` slices one step apart, along the normal unless the step says otherwise."""
    directions = np.reshape(list(orientation), (2, 3))
    along = np.cross(*directions) * STEP if step is None else np.array(list(step))
    start = np.array(list(origin))
    return [
        image(k, series=series, position=start + k * along, orientation=orientation, **kwargs) for k in range(count)
    ]


def write(folder: Path, images: Iterable[FileDataset], names: Callable[[int], str] = "{:03d}.dcm".format) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, ds in enumerate(images):
        ds.save_as(folder / names(i), enforce_file_format=True)


def enhanced(
    frames: list[dict[str, Any]],
    *,
    stored: Any,
    series: str = "e",
    number: int = 1,
    shared_plane: bool = False,
    orientation: Iterable[float] = AXIAL,
    spacing: Iterable[float] = (0.9, 0.7),
) -> FileDataset:
    """An enhanced MR object; each frame gives position and optionally temporal, echo, kind, stack, slope."""
    ds = image(number, series=series, modality="MR", sop_class=EnhancedMRImageStorage)
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(ds, keyword)
    orient, measures = Dataset(), Dataset()
    orient.ImageOrientationPatient = [f"{v:.9g}" for v in orientation]
    measures.PixelSpacing, measures.SliceThickness = list(spacing), 2.0
    shared = Dataset()
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    items = []
    for i, frame in enumerate(frames):
        item, content, plane, value, echo, kind = (Dataset() for _ in range(6))
        content.StackID = str(frame.get("stack", 1))
        content.InStackPositionNumber = i + 1
        content.TemporalPositionIndex = frame.get("temporal", 1)
        plane.ImagePositionPatient = [f"{v:.8g}" for v in frame["position"]]
        value.RescaleSlope, value.RescaleIntercept = frame.get("slope", 2.5), frame.get("intercept", -3)
        echo.EffectiveEchoTime = frame.get("echo", 30.0)
        kind.FrameType = ["ORIGINAL", "PRIMARY", "T1", frame.get("kind", "M")]
        item.FrameContentSequence = Sequence([content])
        item.PlanePositionSequence = Sequence([plane])
        item.PixelValueTransformationSequence = Sequence([value])
        item.MREchoSequence = Sequence([echo])
        item.MRImageFrameTypeSequence = Sequence([kind])
        if "orientation" in frame:
            own = Dataset()
            own.ImageOrientationPatient = [f"{v:.9g}" for v in frame["orientation"]]
            item.PlaneOrientationSequence = Sequence([own])
            item.PixelMeasuresSequence = Sequence([measures])
        elif not shared_plane:
            item.PlaneOrientationSequence = Sequence([orient])
            item.PixelMeasuresSequence = Sequence([measures])
        items.append(item)
    if shared_plane:
        shared.PlaneOrientationSequence = Sequence([orient])
        shared.PixelMeasuresSequence = Sequence([measures])
    ds.PerFrameFunctionalGroupsSequence = Sequence(items)
    ds.NumberOfFrames = len(frames)
    ds.Rows, ds.Columns = stored.shape[1:]
    ds.PixelData = stored.astype("<i2").tobytes()
    return ds


def cine(frames: int = 5, *, photometric: str = "RGB") -> FileDataset:
    """A colour ultrasound loop without patient geometry."""
    ds = image(0, series="us", modality="US", sop_class=UltrasoundMultiFrameImageStorage)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(ds, keyword)
    del ds.RescaleIntercept, ds.FrameOfReferenceUID
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, photometric, 0
    ds.NumberOfFrames = frames
    set_pixels(ds, pixels(5, high=256, shape=(frames, ROWS, COLUMNS, 3)), bits=8, signed=False)
    return ds


@dataclass(frozen=True)
class Case:
    """One folder and what must become of it.

    `code` is that of the refusal; None means that every frame of `series` series in `volumes` volumes each is
    found at its place, with `left` frames left out on purpose.
    """

    name: str
    make: Callable[[Path], None]
    code: str | None = None
    series: int = 1
    volumes: int = 1
    left: int = 0


def _edited(*edits: Callable[[int, FileDataset], None], **kwargs: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        images = stack(**kwargs)
        for edit in edits:
            for k, ds in enumerate(images):
                edit(k, ds)
        write(folder, images)

    return make


def _only(number: int, edit: Callable[[FileDataset], None]) -> Callable[[int, FileDataset], None]:
    return lambda k, ds: edit(ds) if k == number else None


def _random_names(folder: Path) -> None:
    names = np.random.default_rng(0).permutation(SLICES)
    write(folder, stack(), lambda i: f"file{names[i]:02d}")


def _two_series(folder: Path) -> None:
    write(folder, stack())
    write(folder, stack(series="b", orientation=SAGITTAL, count=5), "b{}.dcm".format)


def _localizer(series: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write(folder, stack())
        scout = image(90, series=series, orientation=CORONAL, stored=pixels(1, shape=(30, 28)))
        scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        write(folder, [scout], "scout{}.dcm".format)

    return make


def _missing(folder: Path) -> None:
    write(folder, [ds for k, ds in enumerate(stack()) if k != 4])


def _duplicate_file(folder: Path) -> None:
    write(folder, stack())
    shutil.copy(folder / "003.dcm", folder / "copy of 003.dcm")


def _duplicate_position(folder: Path) -> None:
    images = stack()
    images[3].SOPInstanceUID = uid("new")
    write(folder, [*stack(), images[3]])


def _variable_spacing(folder: Path) -> None:
    def place(k: int, ds: FileDataset) -> None:
        ds.ImagePositionPatient = [0, 0, 5 * min(k, 4) + 2.5 * max(k - 4, 0)]

    _edited(place)(folder)


def _instance(number: Callable[[int], int | None]) -> Callable[[Path], None]:
    def edit(k: int, ds: FileDataset) -> None:
        ds.InstanceNumber = number(k)
        if ds.InstanceNumber is None:
            del ds.InstanceNumber

    return _edited(edit)


def _full_range(k: int, ds: FileDataset) -> None:
    set_pixels(ds, pixels(k, high=65536), signed=False)


def _signed_12(k: int, ds: FileDataset) -> None:
    values = pixels(k, low=-2048, high=2048)
    set_pixels(ds, values & 0x0FFF, signed=True, stored_bits=12)


def _overlay_bits(k: int, ds: FileDataset) -> None:
    values = pixels(k, high=4096)
    set_pixels(ds, values | (pixels(k + 50, high=16) << 12), signed=False, stored_bits=12)


def _modality_lut(k: int, ds: FileDataset) -> None:
    del ds.RescaleSlope, ds.RescaleIntercept
    set_pixels(ds, pixels(k, high=256), signed=False, stored_bits=8)
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [256, 0, 16])
    lut.add_new("LUTData", "US", [int(v) for v in (np.arange(256) ** 2) // 3])
    lut.ModalityLUTType = "US"
    ds.ModalityLUTSequence = Sequence([lut])


def _real_world(k: int, ds: FileDataset) -> None:
    value = Dataset()
    value.RealWorldValueFirstValueMapped, value.RealWorldValueLastValueMapped = 0, 4000
    value["RealWorldValueFirstValueMapped"].VR = value["RealWorldValueLastValueMapped"].VR = "US"
    value.RealWorldValueSlope, value.RealWorldValueIntercept = 0.1, 5.0
    ds.RealWorldValueMappingSequence = Sequence([value])


def _junk(folder: Path) -> None:
    write(folder, stack())
    (folder / "notes.txt").write_text("nothing to see")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "fake.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    (folder / "cut.dcm").write_bytes((folder / "000.dcm").read_bytes()[:140])
    (folder / "random.bin").write_bytes(np.random.default_rng(1).bytes(5000))
    seg = image(70, series="seg", modality="SEG", sop_class=SegmentationStorage)
    write(folder, [seg], "seg{}".format)


def _nested(folder: Path) -> None:
    for k, ds in enumerate(stack()):
        write(folder / f"part{k % 3}" / "deep", [ds], lambda i, k=k: f"{k}")  # type: ignore[misc]


def _direction_noise(k: int, ds: FileDataset) -> None:
    noise = np.random.default_rng(k).uniform(-1e-5, 1e-5, 6)
    ds.ImageOrientationPatient = [f"{v:.9g}" for v in np.array(ds.ImageOrientationPatient, float) + noise]


def _position_noise(k: int, ds: FileDataset) -> None:
    noise = np.random.default_rng(k).uniform(-0.02, 0.02, 3)
    ds.ImagePositionPatient = [f"{v:.9g}" for v in np.array(ds.ImagePositionPatient, float) + noise]


def _two_orientations(folder: Path) -> None:
    write(folder, stack(count=5))
    for ds in (images := stack(count=5, orientation=CORONAL, series="b")):
        ds.SeriesInstanceUID = uid("series", "a")
    write(folder, images, "b{}.dcm".format)


def _no_preamble(folder: Path) -> None:
    write(folder, stack())
    for path in sorted(folder.iterdir()):
        ds = dcmread(path)
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        ds.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        data = path.read_bytes()
        start = data.index(b"\x08\x00\x08\x00", 132)  # Image Type, the first element of the data set
        path.write_bytes(data[start:])


def _rgb(k: int, ds: FileDataset) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    del ds.RescaleSlope, ds.RescaleIntercept
    set_pixels(ds, pixels(k, high=256, shape=(ROWS, COLUMNS, 3)), bits=8, signed=False)


def _two_volumes(folder: Path) -> None:
    second = stack(series="b")
    for k, ds in enumerate(second):
        ds.SeriesInstanceUID, ds.InstanceNumber = uid("series", "a"), SLICES + k + 1
    write(folder, [*stack(), *second])


def _interrupted(folder: Path) -> None:
    _two_volumes(folder)
    for k in range(SLICES, SLICES + 6):
        (folder / f"{k:03d}.dcm").unlink()


def _truncated(folder: Path) -> None:
    write(folder, stack())
    path = folder / "004.dcm"
    path.write_bytes(path.read_bytes()[:-300])


def _zip(folder: Path) -> None:
    write(folder / "x", stack())
    with zipfile.ZipFile(folder / "series.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "x").iterdir()):
            archive.write(path, f"inside/{path.name}")
    shutil.rmtree(folder / "x")


def _dicomdir(folder: Path) -> None:
    fs = FileSet()
    for ds in [*stack(), *stack(series="b", orientation=oblique(), count=5)]:
        ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200101", "120000", "1", "1"
        ds.ContentDate = ds.ContentTime = ""
        fs.add(ds)
    fs.write(folder)
    fs._stage["t"].cleanup()  # pydicom leaves this to the garbage collector, which warns


def _mosaic(k: int, ds: FileDataset) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]


def _tilt(folder: Path) -> None:
    write(folder, stack(step=(0.0, 0.6, STEP)))


def _echoes(folder: Path) -> None:
    second = stack(series="b", modality="MR")
    for ds in (first := stack(modality="MR")):
        ds.EchoTime = 4.92
    for ds in second:
        ds.SeriesInstanceUID, ds.EchoTime = uid("series", "a"), 7.38
    write(folder, [*first, *second])


def _positions(count: int = 4) -> list[tuple[float, float, float]]:
    return [(3.0, -4.0, 10.0 + 3.0 * k) for k in range(count)]


def _enhanced(*, shared: bool) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        frames = [{"position": p, "slope": 1.5 + i} for i, p in enumerate(_positions(6)[::-1])]
        write(folder, [enhanced(frames, stored=pixels(1, shape=(6, ROWS, COLUMNS)), shared_plane=shared)])

    return make


def _enhanced_two_kinds(folder: Path) -> None:
    frames = [{"position": p} for p in _positions()]
    frames += [{"position": p, "kind": "FIELD_MAP", "echo": 0.0, "slope": 0.25} for p in _positions()]
    write(folder, [enhanced(frames, stored=pixels(2, shape=(8, ROWS, COLUMNS)))])


def _enhanced_files(folder: Path) -> None:
    objects = []
    for t in range(3):
        frames = [{"position": p, "temporal": t + 1} for p in _positions()]
        objects.append(enhanced(frames, stored=pixels(20 + t, shape=(4, ROWS, COLUMNS)), number=t))
    write(folder, objects)


def _enhanced_stacks(folder: Path) -> None:
    frames: list[dict[str, Any]] = [{"position": p, "orientation": AXIAL} for p in _positions()]
    frames += [{"position": (1.0 * k, 0, 0), "orientation": SAGITTAL, "stack": 2} for k in range(3)]
    write(folder, [enhanced(frames, stored=pixels(3, shape=(7, ROWS, COLUMNS)))])


def _cine(folder: Path) -> None:
    write(folder, [cine()])


def _capture(folder: Path) -> None:
    write(folder, stack())
    page = image(80, sop_class=SecondaryCaptureImageStorage, stored=pixels(4, shape=(50, 60)))
    del page.ImagePositionPatient, page.ImageOrientationPatient, page.PixelSpacing
    write(folder, [page], "page{}.dcm".format)


def _deleted(*keywords: str) -> Callable[[int, FileDataset], None]:
    def edit(k: int, ds: FileDataset) -> None:
        for keyword in keywords:
            delattr(ds, keyword)

    return edit


def _set(**values: Any) -> Callable[[int, FileDataset], None]:
    def edit(k: int, ds: FileDataset) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return edit


def _links(folder: Path) -> None:
    """The last slices are links into a hidden store, as data managers lay them out."""
    write(folder / ".store", stack())
    for path in sorted((folder / ".store").iterdir()):
        if int(path.stem) < 5:
            path.rename(folder / path.name)
        else:
            (folder / path.name).symlink_to(path)


def _without_class(ds: FileDataset) -> None:
    del ds.SOPClassUID
    ds.file_meta.MediaStorageSOPClassUID = "1.2.3"  # a file is written with one, and this one says nothing


def _own_rescale(folder: Path) -> None:
    images = stack(modality="MR")
    for k, ds in enumerate(images):
        ds.RescaleSlope = 1 + k
    del images[6].RescaleSlope
    write(folder, images)


def _other_matrix(ds: FileDataset) -> None:
    set_pixels(ds, pixels(9, shape=(ROWS + 2, COLUMNS)))


CASES = (
    Case("d01_unsorted_random_names", _random_names),
    Case("d02_two_series_one_folder", _two_series, series=2),
    Case("d03_localizer_other_series", _localizer("scout"), left=1),
    Case("d04_localizer_same_series", _localizer("a"), left=1),
    Case("d05_missing_slice", _missing, "E_MISSING_SLICES"),
    Case("d06_duplicate_file", _duplicate_file, left=1),
    Case("d07_duplicate_position_new_uid", _duplicate_position, "E_DUPLICATE_POSITION"),
    Case("d08_variable_spacing_5_then_2.5mm", _variable_spacing, "E_IRREGULAR_SPACING"),
    Case("d09_instancenumber_reversed", _instance(lambda k: SLICES - k)),
    Case("d10_instancenumber_random", _instance(lambda k: (k * 7) % 9 + 3)),
    Case("d11_instancenumber_absent", _instance(lambda k: None)),
    Case("d12_instancenumber_all_1", _instance(lambda k: 1)),
    Case("d13_monochrome1", _edited(_set(PhotometricInterpretation="MONOCHROME1"))),
    Case("d14_unsigned16_full_range", _edited(_full_range)),
    Case("d15_signed12_no_sign_extension", _edited(_signed_12)),
    Case("d16_unsigned12_overlay_bit_in_high_bits", _edited(_overlay_bits)),
    Case(
        "d17_per_slice_rescale",
        _edited(lambda k, ds: _set(RescaleSlope=1 + k, RescaleIntercept=-7 * k)(k, ds)),
    ),
    Case("d18_fractional_rescale", _edited(_set(RescaleSlope="0.244140625", RescaleIntercept="-12.75"))),
    Case("d19_anisotropic_nonsquare", _edited(spacing=(1.3, 0.4), orientation=oblique())),
    Case("d20_one_slice_other_matrix", _edited(_only(3, _other_matrix)), "E_MATRIX"),
    Case("d21_no_IPP_IOP", _edited(_deleted("ImagePositionPatient", "ImageOrientationPatient")), "E_GEOMETRY"),
    Case("d22_one_slice_no_PixelData", _edited(_only(4, lambda ds: delattr(ds, "PixelData"))), "E_PIXELS"),
    Case("d23_one_slice_truncated", _truncated, "E_TRUNCATED"),
    Case("d24_junk_files", _junk),
    Case("d25_nested_subfolders", _nested),
    Case("d26_iop_jitter_1e-5", _edited(_direction_noise, orientation=oblique())),
    Case("d27_ipp_jitter_0.02mm", _edited(_position_noise)),
    Case("d28_two_orientations_same_series", _two_orientations, "E_MIXED_ORIENTATION"),
    Case("d29_no_preamble_meta", _no_preamble),
    Case(
        "d30_two_frames_of_reference",
        _edited(_only(3, lambda ds: _set(FrameOfReferenceUID=uid("other"))(0, ds))),
        "E_GEOMETRY",
    ),
    Case("d31_rgb_series", _edited(_rgb)),
    Case("d32_4d_two_volumes_seq", _two_volumes, volumes=2),
    Case("d33_pixelspacing_empty", _edited(_set(PixelSpacing=None)), "E_GEOMETRY"),
    Case(
        "d34_one_slice_IPP_zero",
        _edited(_only(4, lambda ds: _set(ImagePositionPatient=[0, 0, 0])(0, ds))),
        "E_IRREGULAR_SPACING",
    ),
    Case("d35_interrupted_last_third_only", _interrupted, "E_DUPLICATE_POSITION"),
    Case("d36_modality_LUT", _edited(_modality_lut)),
    Case("d37_rwvm_plus_rescale", _edited(_real_world)),
    Case("d38_series.zip", _zip),
    Case("d39_DICOMDIR_tree", _dicomdir, series=2),
    Case("g01_gantry_tilt", _tilt),
    Case("g02_sagittal", _edited(orientation=SAGITTAL)),
    Case("g03_coronal", _edited(orientation=CORONAL)),
    Case("g04_oblique", _edited(orientation=oblique())),
    Case("g05_two_echoes", _echoes, volumes=2),
    Case("g06_mosaic", _edited(_mosaic), "E_MOSAIC"),
    Case("g07_enhanced_shared_plane", _enhanced(shared=True)),
    Case("g08_enhanced_per_frame_plane", _enhanced(shared=False)),
    Case("g09_enhanced_magnitude_and_field_map", _enhanced_two_kinds, volumes=2),
    Case("g10_enhanced_one_file_per_time", _enhanced_files, volumes=3),
    Case("g11_enhanced_two_stacks", _enhanced_stacks, volumes=2),
    Case("g12_colour_cine", _cine),
    Case("g13_secondary_capture_page", _capture, left=1),
    Case("g14_single_slice", _edited(count=1)),
    Case("g15_descending_positions", _edited(step=(0.0, 0.0, -STEP))),
    Case("g16_links_to_files", _links, left=4),  # the files in the store, which are the links
    Case("g17_no_SOP_class", _edited(_only(4, _without_class))),
    Case("g18_own_rescale_but_one_without", _own_rescale, "E_PIXELS"),
    Case("g19_two_patients", _edited(_only(5, lambda ds: setattr(ds, "PatientID", "other-marker"))), "E_PATIENT"),
)
