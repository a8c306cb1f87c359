"""Write results as DICOM: the mask as a Segmentation, the heatmap as a Parametric Map.

highdicom lays out the modules of an object that holds one pixel; the frames are then set here, one per source slice
with the position that the slice itself has. That is exact for gantry tilt, whose stack is no rectangular volume, and
keeps frames in ascending order along the normal, which 3D Slicer's import (dcmqi) takes for granted in maps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from pydicom.valuerep import DSfloat

from anomalyclip_monai.data.volume import Source
from anomalyclip_monai.exceptions import OutputError
from anomalyclip_monai.files import whole_file
from anomalyclip_monai.outputs.dicom_object import (
    NAME,
    Instance,
    identity,
    one_line_errors,
    printable_ascii,
    save_object,
)
from anomalyclip_monai.outputs.dicom_source import Reference, SourceGrid, source_grid
from anomalyclip_monai.resources import installed_version
from anomalyclip_monai.types import Affine

MAX_VALUE_LENGTH = 2**32 - 2
"""Longest value of an element in bytes, PS3.5 7.1.2."""

LESION_COLOUR = (53.2, 80.1, 67.2)
"""CIELab of pure red, what viewers paint the segment with."""

REGIONS: Mapping[str, Code] = {
    "ABDOMEN": codes.SCT.Abdomen,
    "BRAIN": codes.SCT.Brain,
    "BREAST": codes.SCT.Breast,
    "CHEST": codes.SCT.Chest,
    "HEAD": codes.SCT.Head,
    "HEADNECK": codes.SCT.HeadAndNeck,
    "KNEE": codes.SCT.Knee,
    "LIVER": codes.SCT.Liver,
    "NECK": codes.SCT.Neck,
    "PELVIS": codes.SCT.Pelvis,
    "PROSTATE": codes.SCT.Prostate,
    "SHOULDER": codes.SCT.Shoulder,
    "SPINE": codes.SCT.Spine,
}
"""Body Part Examined to anatomic region, PS3.16 Annex L; any other word becomes the entire body."""

_PLANES_PER_PACK = 8
"""Bits of this many frames always fill whole bytes, whatever their size."""


def write_segmentation(
    path: Path,
    mask: NDArray[np.uint8],
    source: Source,
    affine: Affine,
    *,
    model: Mapping[str, str],
    seg_type: str = "binary",
) -> Instance:
    """Write a mask as a DICOM Segmentation (PS3.3 A.51) with the one segment "Lesion".

    All frames are written, those without a lesion too, since viewers match them with the source's.

    Args:
        path: of the file.
        mask: (X, Y, Z), 0 or not.
        source: where the volume came from; its files are not read again.
        affine: (4, 4) voxel index to RAS mm.
        model: names and hashes of bundle, weights and prompts, see ``weights.bundle.fingerprint``.
        seg_type: ``binary``, or ``labelmap`` for a Label Map Segmentation, an object class of its own since 2024.

    Raises:
        OutputError: the source has no patient geometry, or the file cannot be written (``E_WRITE``).
    """
    binary = seg_type == "binary"
    with one_line_errors(path):
        grid = source_grid(source, affine, mask.shape)
        ds = hd.seg.Segmentation(
            source_images=[grid.header],
            **identity(grid, source, model, "mask"),
            pixel_array=np.ones((1, 1), np.uint8),
            segmentation_type=hd.seg.SegmentationTypeValues[seg_type.upper()],
            segment_descriptions=[_lesion(model)],
            content_label="LESIONS",
            content_description="Lesions found by zero-shot anomaly detection",
            omit_empty_frames=False,
        )
        # Label maps have the segment's number in the pixels, and no dimension for it.
        _set_frames(ds, grid, codes.DCM.SegmentationImageDerivation, index_prefix=(1,) if binary else ())
        if binary:
            # PS3.3 C.8.20.3.1 allows the segment's number in the shared groups, where MONAI's reader and highdicom's
            # SR do not find it.
            identification = ds.SharedFunctionalGroupsSequence[0].pop("SegmentIdentificationSequence")
            for item in ds.PerFrameFunctionalGroupsSequence:
                item.add(identification)
        else:
            # The background needs an item (PS3.3 C.8.20.2.3), but not highdicom's black, in which OHIF 3.13 would paint
            # the lesion: it takes a segment's colour from the item before.
            del ds.SegmentSequence[0].RecommendedDisplayCIELabValue
        ds.PixelData = _packed(mask, grid) if binary else _bytes(mask, grid)
        with whole_file(path) as temporary:
            save_object(ds, grid, temporary)
        return Instance.of(ds)


def write_parametric_map(
    path: Path, heatmap: NDArray[np.float32], source: Source, affine: Affine, *, model: Mapping[str, str]
) -> None:
    """Write a heatmap as a DICOM Parametric Map (PS3.3 A.75) of float32 values that mean themselves.

    Args:
        path: of the file.
        heatmap: (X, Y, Z) in [0, 1].
        source: where the volume came from; its files are not read again.
        affine: (4, 4) voxel index to RAS mm.
        model: names and hashes of bundle, weights and prompts, see ``weights.bundle.fingerprint``.

    Raises:
        OutputError: the source has no patient geometry, a value is not in [0, 1], or the file cannot be written
            (``E_WRITE``).
    """
    if 4 * heatmap.size > MAX_VALUE_LENGTH:
        what = f"{4 * heatmap.size} bytes of heatmap are more than a DICOM object can hold"
        raise OutputError("E_WRITE", what, path, "use the NIfTI file")
    with one_line_errors(path):
        grid = source_grid(source, affine, heatmap.shape)
        ds = hd.pm.ParametricMap(
            source_images=[grid.header],
            **identity(grid, source, model, "heatmap"),
            pixel_array=np.ones((1, 1), np.float32),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[_probability()],
            voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
            content_label="HEATMAP",
            content_description="Anomaly heatmap, 0 normal to 1 abnormal",
        )
        ds.ContentCreatorName = None  # type 2, PS3.3 10.9, which highdicom leaves out
        # Without it, dcmqi does not read the map, and the object lacks a laterality (PS3.3 C.7.6.16.2.8).
        ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(source.body_part)]
        _set_frames(ds, grid, codes.DCM.UnspecifiedMethodOfCalculation)
        with whole_file(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as frames:
            _write_floats(frames, heatmap, grid, path)
            ds.FloatPixelData = frames
            save_object(ds, grid, temporary)


def _lesion(model: Mapping[str, str]) -> hd.seg.SegmentDescription:
    """Describe the segment by CID 7150 and CID 7159, found by a program without a human's help."""
    algorithm = hd.AlgorithmIdentificationSequence(
        name=NAME,
        family=codes.DCM.ArtificialIntelligence,
        version=installed_version(NAME),
        parameters={key: printable_ascii(value) for key, value in model.items()} or None,
    )
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Lesion",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=hd.color.CIELabColor(*LESION_COLOUR),
    )


def _probability() -> hd.pm.RealWorldValueMapping:
    """Map each value to itself, without unit, and say what it is by CID 7180: a probability per voxel."""
    return hd.pm.RealWorldValueMapping(
        lut_label="PROBABILITY",
        lut_explanation="Probability that the voxel is abnormal",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=codes.DCM.FractionalProbabilisticSegmentation,
    )


def _anatomy(body_part: str) -> Dataset:
    item = Dataset()
    item.FrameLaterality = "U"
    region = REGIONS.get(body_part.replace(" ", ""), codes.SCT.EntireBody)
    item.AnatomicRegionSequence = [hd.sr.CodedConcept.from_code(region)]
    return item


def _set_frames(ds: Dataset, grid: SourceGrid, derivation: Code, *, index_prefix: tuple[int, ...] = ()) -> None:
    """Replace the one pixel by the frames of the grid, with references to the source frames.

    Args:
        ds: the object with one pixel.
        grid: of the source.
        derivation: how a frame was made from its source frame, CID 7203.
        index_prefix: Dimension Index Values before that of the position.
    """
    ds.NumberOfFrames, ds.Rows, ds.Columns = len(grid.positions), grid.rows, grid.columns
    organization = generate_uid(None)
    ds.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for dimension in ds.DimensionIndexSequence:
        dimension.DimensionOrganizationUID = organization
    if grid.step is not None:
        ds.DimensionOrganizationType = "3D"
    shared = ds.SharedFunctionalGroupsSequence[0]
    orientations = [hd.PlaneOrientationSequence("PATIENT", cosines.tolist()) for cosines in grid.orientations]
    del shared.PlaneOrientationSequence
    if len(orientations) == 1:
        shared.PlaneOrientationSequence = orientations[0]
    shared.PixelMeasuresSequence = hd.PixelMeasuresSequence(grid.spacing, grid.thickness, grid.step)
    items = []
    for k, (position, reference) in enumerate(zip(grid.positions, grid.references, strict=True)):
        content, plane, derived, item = Dataset(), Dataset(), Dataset(), Dataset()
        content.DimensionIndexValues = [*index_prefix, k + 1]
        plane.ImagePositionPatient = [DSfloat(float(value), auto_format=True) for value in position]
        derived.DerivationCodeSequence = [hd.sr.CodedConcept.from_code(derivation)]
        derived.SourceImageSequence = [_source_image(reference)]
        item.FrameContentSequence = [content]
        item.PlanePositionSequence = [plane]
        if len(orientations) > 1:
            item.PlaneOrientationSequence = orientations[k]
        item.DerivationImageSequence = [derived]
        items.append(item)
    ds.PerFrameFunctionalGroupsSequence = items
    instances = []
    for sop_class, sop_uid in dict.fromkeys((reference.sop_class, reference.sop_uid) for reference in grid.references):
        instance = Dataset()
        instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = sop_class, sop_uid
        instances.append(instance)
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = grid.series_uid, instances
    ds.SourceImageSequence, ds.ReferencedSeriesSequence = instances, [series]


def _source_image(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class, reference.sop_uid
    if reference.frame is not None:
        item.ReferencedFrameNumber = reference.frame
    item.PurposeOfReferenceCodeSequence = [
        hd.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    ]
    item.SpatialLocationsPreserved = "YES"
    return item


def _packed(mask: NDArray[np.uint8], grid: SourceGrid) -> bytes:
    """(X, Y, Z) -> one bit per pixel, frame after frame without gaps, first pixel in the lowest bit. PS3.5 8.1.1."""
    packs = []
    for start in range(0, len(grid.order), _PLANES_PER_PACK):
        planes = mask[:, :, grid.order[start : start + _PLANES_PER_PACK]] != 0
        packs.append(np.packbits(planes.transpose(2, 1, 0).ravel(), bitorder="little").tobytes())
    packed = b"".join(packs)
    return packed + b"\0" * (len(packed) % 2)


def _bytes(mask: NDArray[np.uint8], grid: SourceGrid) -> bytes:
    """(X, Y, Z) -> a byte per pixel, the segment's number or 0, frame after frame."""
    content = b"".join((mask[:, :, k] != 0).T.tobytes() for k in grid.order)
    return content + b"\0" * (len(content) % 2)


def _write_floats(file: BinaryIO, heatmap: NDArray[np.float32], grid: SourceGrid, path: Path) -> None:
    """Write (X, Y, Z) frame by frame, so that a heatmap on disk need not fit into memory."""
    for k in grid.order:
        frame = np.ascontiguousarray(heatmap[:, :, k].T, dtype="<f4")
        low, high = float(frame.min()), float(frame.max())
        if not 0 <= low <= high <= 1:
            raise OutputError("E_WRITE", "the heatmap has values outside [0, 1]", path)
        file.write(frame.tobytes())
    file.seek(0)
