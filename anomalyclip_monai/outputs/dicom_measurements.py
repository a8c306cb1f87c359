"""Write the lesions of a case as a DICOM measurement report (PS3.16 TID 1500), which points to the Segmentation.

Nothing stands in it that ``scores.json`` does not say; positions are in the patient's coordinates of DICOM (LPS mm).
"""

from __future__ import annotations

import copy
import dataclasses
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import highdicom as hd
from highdicom.sr import CodedConcept
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from anomalyclip_monai.data.dicom_origin import OF_IMAGES
from anomalyclip_monai.data.volume import Source
from anomalyclip_monai.files import whole_file
from anomalyclip_monai.outputs.dicom_object import (
    NAME,
    Instance,
    identity,
    one_line_errors,
    printable_ascii,
    save_object,
)
from anomalyclip_monai.outputs.dicom_source import SourceGrid, source_grid
from anomalyclip_monai.resources import installed_version
from anomalyclip_monai.transforms.findings import Findings, Lesion
from anomalyclip_monai.types import Affine

SCHEME = "99ANOMALYCLIP"
"""Coding scheme of what no standard scheme has a code for; private ones begin with 99, PS3.16 chapter 8."""

ANOMALY = CodedConcept("anomaly", SCHEME, "Anomaly value, 0 normal to 1 abnormal")
"""A heatmap's value: of a lesion the highest and the mean one, of a case its score."""

CENTRE, PEAK = (
    tuple(CodedConcept(f"{what}-{axis}", SCHEME, f"{said}, {axis} in patient coordinates") for axis in "xyz")
    for what, said in (("centre", "Centre of mass"), ("peak", "Place of the highest anomaly value"))
)
"""The three coordinates of two points of a lesion; a measurement of a segment (TID 1419) takes no point as such."""

THRESHOLD = CodedConcept("threshold", SCHEME, "Anomaly value that makes a lesion")
THRESHOLD_LOW = CodedConcept("threshold-low", SCHEME, "Anomaly value down to which a lesion is outlined")

PROCEDURES: Mapping[str, Code] = {
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "NM": codes.cid100.NMUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
}
"""Modality to procedure, PS3.16 CID 100; of any other it is an imaging procedure."""

_OBSERVER = f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, NAME).int}"
"""Of this program, which observed what the report says."""

_OF_IMAGES = frozenset(map(tag_for_keyword, OF_IMAGES))
"""A report has no place for these."""

_SEGMENT = 1
"""The only one of our Segmentations."""


def write_measurements(
    path: Path,
    findings: Findings,
    source: Source,
    affine: Affine,
    shape: tuple[int, ...],
    *,
    model: Mapping[str, str],
    segmentation: Instance,
) -> Instance:
    """Write a Comprehensive 3D SR object (PS3.3 A.35.13) with a measurement group for each lesion.

    The first group is that of the case: number of lesions, be it 0, score and thresholds. That of a lesion (TID 1411)
    refers to the segment and to the source images that the lesion reaches. It has highest and mean value of the
    heatmap, the place of the highest, volume and centre; the last two are not known of slices that lie on no grid.

    Args:
        path: of the file.
        findings: of the case.
        source: where the volume came from; its files are not read again.
        affine: (4, 4) voxel index to RAS mm.
        shape: (X, Y, Z) of the volume.
        model: names and hashes of bundle, weights and prompts, see ``weights.bundle.fingerprint``.
        segmentation: of the same lesions.

    Raises:
        OutputError: the source has no patient geometry, or the file cannot be written (``E_WRITE``).
    """
    with one_line_errors(path):
        grid = source_grid(source, affine, shape)
        algorithm = hd.sr.AlgorithmIdentification(
            NAME,
            installed_version(NAME),
            parameters=[f"{key}={printable_ascii(value)}" for key, value in model.items()] or None,
        )
        groups = [_group_of_case(findings, algorithm)]
        for number, lesion in enumerate(findings.lesions, 1):
            groups.append(
                hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                    tracking_identifier=hd.sr.TrackingIdentifier(generate_uid(None), f"Lesion {number}"),
                    referenced_segment=_segment_of(lesion, grid, segmentation),
                    finding_category=codes.SCT.MorphologicallyAbnormalStructure,
                    finding_type=codes.SCT.Lesion,
                    algorithm_id=algorithm,
                    measurements=list(_measurements_of(lesion, grid, regular=source.regular)),
                )
            )
        observer = hd.sr.DeviceObserverIdentifyingAttributes(
            uid=_OBSERVER, name=NAME, manufacturer_name=NAME, model_name=NAME
        )
        report = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(
                observer_device_context=hd.sr.ObserverContext(codes.DCM.Device, observer)
            ),
            procedure_reported=PROCEDURES.get(source.modality, codes.SCT.ImagingProcedure),
            imaging_measurements=groups,
        )
        ds = hd.sr.Comprehensive3DSR(
            evidence=_evidence(grid, segmentation),
            content=report[0],
            is_complete=True,
            **identity(grid, source, model, "measurements"),
        )
        ds.CodingSchemeIdentificationSequence = [_scheme()]
        own = dataclasses.replace(grid, texts=tuple(text for text in grid.texts if text.tag not in _OF_IMAGES))
        with whole_file(path) as temporary:
            save_object(ds, own, temporary)
        return Instance.of(ds)


def _scheme() -> Dataset:
    """Whose the private codes are, PS3.3 C.12.1."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = SCHEME, NAME
    return scheme


def _group_of_case(
    findings: Findings, algorithm: hd.sr.AlgorithmIdentification
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """What holds for the case as a whole, TID 1501."""
    threshold = findings.threshold
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(generate_uid(None), "Case"),
        algorithm_id=algorithm,
        measurements=[
            hd.sr.Measurement(codes.SCT.NumberOfLesions, len(findings.lesions), codes.UCUM.NoUnits),
            hd.sr.Measurement(ANOMALY, findings.score, codes.UCUM.NoUnits),
            hd.sr.Measurement(THRESHOLD, threshold.value, codes.UCUM.NoUnits),
            hd.sr.Measurement(THRESHOLD_LOW, threshold.low, codes.UCUM.NoUnits),
        ],
    )


def _measurements_of(lesion: Lesion, grid: SourceGrid, *, regular: bool) -> Iterator[hd.sr.Measurement]:
    """TID 1419: values and the place of the highest; on a grid volume and centre as well."""
    yield hd.sr.Measurement(ANOMALY, lesion.peak, codes.UCUM.NoUnits, derivation=codes.SCT.Maximum)
    yield hd.sr.Measurement(ANOMALY, lesion.mean, codes.UCUM.NoUnits, derivation=codes.SCT.Mean)
    yield from _point(PEAK, grid.place(lesion.peak_voxel).tolist())
    if regular and lesion.volume_mm3 is not None and lesion.centroid_world_mm is not None:
        right, anterior, superior = lesion.centroid_world_mm
        yield hd.sr.Measurement(codes.SCT.Volume, lesion.volume_mm3, codes.UCUM.CubicMillimeter)
        yield from _point(CENTRE, (-right, -anterior, superior))


def _point(names: Sequence[CodedConcept], position: Sequence[float]) -> Iterator[hd.sr.Measurement]:
    """LPS mm -> a measurement for each coordinate."""
    for name, value in zip(names, position, strict=True):
        yield hd.sr.Measurement(name, value, codes.UCUM.Millimeter)


def _segment_of(lesion: Lesion, grid: SourceGrid, segmentation: Instance) -> hd.sr.ReferencedSegment:
    """The segment, and the source frames that the lesion reaches: all of its box, for it is connected.

    Frames of the Segmentation cannot be named beside a segment's number, PS3.3 10.3.
    """
    (_, _, first), (_, _, behind) = lesion.bbox_voxel
    reached = [reference for k, reference in zip(grid.order, grid.references, strict=True) if first <= k < behind]
    return hd.sr.ReferencedSegment(
        segmentation.sop_class,
        segmentation.sop_uid,
        _SEGMENT,
        source_images=[
            hd.sr.SourceImageForSegmentation(
                reference.sop_class, reference.sop_uid, None if reference.frame is None else [reference.frame]
            )
            for reference in reached
        ],
    )


def _evidence(grid: SourceGrid, segmentation: Instance) -> list[Dataset]:
    """What the report is about, the Segmentation first, as headers of the same patient and study."""
    images = dict.fromkeys((reference.sop_class, reference.sop_uid, grid.series_uid) for reference in grid.references)
    evidence = []
    for sop_class, sop_uid, series_uid in (
        (segmentation.sop_class, segmentation.sop_uid, segmentation.series_uid),
        *images,
    ):
        header = copy.deepcopy(grid.header)
        header.SOPClassUID, header.SOPInstanceUID, header.SeriesInstanceUID = sop_class, sop_uid, series_uid
        evidence.append(header)
    return evidence
