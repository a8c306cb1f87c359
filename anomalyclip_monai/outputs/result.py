"""The result of one case, in memory and as files."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from anomalyclip_monai.data.geometry import SliceView, is_sheared
from anomalyclip_monai.data.volume import Source
from anomalyclip_monai.exceptions import AnomalyCLIPError, OutputError
from anomalyclip_monai.folders.case_folder import CaseFolder, hold
from anomalyclip_monai.folders.marker import DICOM_FILES
from anomalyclip_monai.options import OutputOptions
from anomalyclip_monai.outputs.nifti import write_nifti
from anomalyclip_monai.outputs.notebook import show_in_notebook
from anomalyclip_monai.outputs.places import check_place
from anomalyclip_monai.outputs.preview import draw_preview, scaled_to
from anomalyclip_monai.outputs.prompts import PROMPTS, lesion_prompts
from anomalyclip_monai.outputs.report.display import has_planes, show_volume
from anomalyclip_monai.outputs.report.viewer import REPORT, case_page
from anomalyclip_monai.resources import installed_version
from anomalyclip_monai.transforms.findings import Findings, Lesion, Threshold
from anomalyclip_monai.types import Affine, FloatArray, PathLike, Record

_VERSIONED = ("anomalyclip-monai", "monai", "torch", "open_clip_torch", "numpy")


@dataclass(slots=True, eq=False, repr=False)
class Result:
    """What was found in one case. For a case that failed only ``case`` and ``error`` are set.

    Two results are equal where the same was found in the same case with the same model, be it on another device or in
    another time. Arrays may be memory-mapped, as those of large volumes are; nothing here copies them whole.

    Attributes:
        case: its name, a relative path.
        error: why it failed.
        image: (1|3, X, Y, Z) float32 in [0, 1], as the network saw it.
        heatmap: (1, X, Y, Z) float32 in [0, 1] on the input's grid, with its affine.
        mask: (1, X, Y, Z) uint8, 1 for lesions.
        roi: (1, X, Y, Z) bool, the region of interest that was given.
        findings: scores, threshold and lesions; each of them is an attribute of the result as well.
        preset: name, reason and what is known of the model on such images.
        warnings: one sentence each.
        source: what the input's file says of it.
        model: names and hashes of bundle, weights and prompts.
        device: where the network ran.
        seconds: from the start of reading to the result.
    """

    case: str
    error: AnomalyCLIPError | None = None
    image: MetaTensor | None = None
    heatmap: MetaTensor | None = None
    mask: MetaTensor | None = None
    roi: torch.Tensor | None = None
    findings: Findings = field(default_factory=Findings)
    preset: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    source: Source = field(default_factory=lambda: Source("memory"))
    model: dict[str, str] = field(default_factory=dict)
    device: str = ""
    seconds: float = 0.0

    @classmethod
    def from_record(cls, record: Record, *, model: dict[str, str], device: str) -> Result:
        """The result in a record that went through the bundle's pre- and post-processing."""
        return cls(
            case=record["case"],
            image=record["image"].cpu(),
            heatmap=record["heatmap"],
            mask=record["pred"],
            roi=record.get("roi"),
            findings=record["findings"],
            preset=record["preset"],
            warnings=[*record["notes"], *_display_notes(record)],
            source=record["source"],
            model=model,
            device=device,
            seconds=time.monotonic() - record["started"],
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        names = ("case", "findings", "preset", "warnings", "model")
        if any(getattr(self, name) != getattr(other, name) for name in names) or str(self.error) != str(other.error):
            return False
        return all(_same_array(getattr(self, name), getattr(other, name)) for name in ("heatmap", "mask", "roi"))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self.error is not None:
            return f"Result(case={self.case!r}, error={str(self.error)!r})"
        if self.heatmap is None:
            return f"Result(case={self.case!r})"
        shape = " x ".join(str(size) for size in self.heatmap.shape[1:])
        found = f"score={self.score:.3f}, lesions={len(self.lesions)}, threshold={self.threshold.said}"
        return f"Result(case={self.case!r}, {found}, {shape} voxels)"

    @property
    def score(self) -> float:
        """Score of the case, in [0, 1]."""
        return self.findings.score

    @property
    def slice_scores(self) -> FloatArray:
        """(S,) scores of the slices, in [0, 1], along ``slice_axis``."""
        return self.findings.slice_scores

    @property
    def slice_axis(self) -> int:
        """Array axis of the slices."""
        return self.findings.slice_axis

    @property
    def axes(self) -> tuple[int, ...]:
        """All array axes along which slices were taken for the heatmap, ``slice_axis`` first."""
        return self.findings.axes

    @property
    def threshold(self) -> Threshold:
        """Heatmap values that make the mask, and their origin."""
        return self.findings.threshold

    @property
    def lesions(self) -> list[Lesion]:
        """What the mask is made of, the highest peak first."""
        return self.findings.lesions

    @property
    def affine(self) -> Affine:
        """(4, 4) voxel index to RAS mm."""
        return np.asarray(self._found(self.heatmap).affine, dtype=np.float64)

    @property
    def is_photo(self) -> bool:
        """Whether this is a single picture without physical size."""
        return not self.source.has_physical_size and self._found(self.heatmap).shape[-1] == 1

    def scores(self) -> dict[str, Any]:
        """The content of ``scores.json``: JSON types, no path outside the case, no patient attribute."""
        return {
            "case": self.case,
            "input_sha256": self.source.sha256 or None,
            **self.findings.to_json(),
            "physical_size": self.source.has_physical_size,
            "roi": self.roi is not None,
            "model": self.model,
            "preset": self.preset,
            "warnings": self.warnings,
            "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in _VERSIONED}},
            "device": self.device,
            "seconds": round(self.seconds, 3),
        }

    def save(
        self,
        out: PathLike,
        *,
        dicom: bool = True,
        report: bool = False,
        prompts_out: bool = False,
        seg_type: str = "binary",
    ) -> Path:
        """Write the files of this case to ``out/<case>/`` and return that folder.

        ``heatmap.nii.gz``, ``mask.nii.gz``, ``scores.json`` and ``preview.png``; for a photo also ``heatmap.png``
        (16 bit, 65535 for 1) and ``mask.png`` (255 for lesions); for DICOM with patient geometry also ``heatmap.dcm``
        (Parametric Map), ``mask.dcm`` (SEG) and ``measurements.dcm`` (SR). Slices that lie on no grid have no NIfTI
        files. With ``report`` also ``report.html``, a page that any browser opens from the disk; with ``prompts_out``
        also ``prompts.json``, what interactive segmenters take.

        A result of an earlier run is replaced as a whole, be it of other files. Whatever else is in the folder stays;
        a file of others under one of these names is not overwritten. See :mod:`~anomalyclip_monai.folders.case_folder`.

        Args:
            out: the folder of all cases.
            dicom: whether DICOM input gets DICOM results as well.
            report: whether ``report.html`` is written as well.
            prompts_out: whether ``prompts.json`` is written as well.
            seg_type: of ``mask.dcm``, ``binary`` or ``labelmap``.

        Raises:
            AnomalyCLIPError: ``E_OPTION``, the error of a case that failed, or ``E_WRITE``, or ``E_BUSY`` where another
                process holds the case for more than 10 seconds.
        """
        files = OutputOptions(report=report, prompts_out=prompts_out, seg_type=seg_type)
        self._found(self.heatmap)
        folder = Path(out) / self.case
        check_place(folder, self.source)
        with hold(folder, wait=10) as place:
            return self.save_in(place, files, dicom=dicom)

    def save_in(
        self, place: CaseFolder, files: OutputOptions | None = None, *, dicom: bool = True, **note: Any
    ) -> Path:
        """:meth:`save` to a folder that is held already; ``note`` goes to its marker."""
        files = files or OutputOptions()
        heatmap, mask = np.asarray(self._found(self.heatmap)[0]), np.asarray(self._found(self.mask)[0])
        with place.replace(**note) as staging:
            if self.source.regular:
                write_nifti(
                    staging / "heatmap.nii.gz", heatmap.astype(np.float32, copy=False), self.affine, self.source.grid
                )
                write_nifti(staging / "mask.nii.gz", mask.astype(np.uint8, copy=False), self.affine, self.source.grid)
            if dicom and self.source.kind == "dicom" and self.source.has_physical_size:
                self._save_dicom(staging, heatmap, mask, files.seg_type or "binary")
            if self.is_photo:
                Image.fromarray(scaled_to(heatmap[..., 0].T, np.uint16)).save(staging / "heatmap.png")
                Image.fromarray(mask[..., 0].T * np.uint8(255)).save(staging / "mask.png")
            preview = self.preview()
            preview.save(staging / "preview.png")
            text = json.dumps(self.scores(), indent=2, allow_nan=False)
            (staging / "scores.json").write_text(text + "\n", encoding="utf-8")
            if files.prompts_out:
                text = json.dumps(self.prompts(), indent=2, allow_nan=False)
                (staging / PROMPTS).write_text(text + "\n", encoding="utf-8")
            if files.report:
                (staging / REPORT).write_text(self.page(preview), encoding="utf-8")
        return place.folder

    def _save_dicom(self, folder: Path, heatmap: np.ndarray, mask: np.ndarray, seg_type: str) -> None:
        """Write Parametric Map, SEG and SR; where the source does not allow them, a warning takes their place."""
        from anomalyclip_monai.outputs.dicom import write_parametric_map, write_segmentation  # slow imports
        from anomalyclip_monai.outputs.dicom_measurements import write_measurements

        paths = {kind: folder / name for kind, name in DICOM_FILES.items()}
        source, affine, model = self.source, self.affine, self.model
        try:
            write_parametric_map(paths["heatmap"], heatmap, source, affine, model=model)
            lesions = write_segmentation(paths["mask"], mask, source, affine, model=model, seg_type=seg_type)
            write_measurements(
                paths["measurements"], self.findings, source, affine, mask.shape, model=model, segmentation=lesions
            )
        except OutputError as error:
            if not self.source.regular:  # there would be no result at all
                raise
            for path in paths.values():
                path.unlink(missing_ok=True)
            self.warnings.append(f"no DICOM results: {error.what}")

    def prompts(self) -> dict[str, Any]:
        """The content of ``prompts.json``: each lesion as point, box and mask for interactive segmenters, JSON types.

        World coordinates are there where the volume lies on a grid with a physical size.
        """
        mask = np.asarray(self._found(self.mask)[0])
        in_world = self.source.has_physical_size and self.source.regular
        lesions = lesion_prompts(self.lesions, mask, self.affine if in_world else None, slice_axis=self.slice_axis)
        return {
            "case": self.case,
            "mask": "mask.png" if self.is_photo else "mask.nii.gz" if self.source.regular else DICOM_FILES["mask"],
            "shape": list(mask.shape),
            "affine_ras_mm": self.affine.tolist() if in_world else None,
            "lesions": lesions,
        }

    def preview(self) -> Image.Image:
        """The most abnormal slices with heatmap and mask over the anatomy, see ``outputs.preview``."""
        return draw_preview(
            self._found(self.image).as_tensor(),
            self._found(self.heatmap).as_tensor(),
            self._found(self.mask).as_tensor(),
            SliceView.upright(self.affine, self.slice_axis),
            affine=self.affine,
            slice_scores=self.slice_scores,
            threshold=self.threshold,
            score=self.score,
            roi=self.roi,
        )

    def page(self, preview: Image.Image | None = None) -> str:
        """The content of ``report.html``, see ``outputs.report.viewer``.

        Args:
            preview: drawn already.
        """
        return case_page(
            self.scores(),
            np.asarray(self._found(self.image)),
            np.asarray(self._found(self.heatmap)),
            np.asarray(self._found(self.mask)),
            self.affine,
            preview or self.preview(),
            roi=None if self.roi is None else np.asarray(self.roi),
            regular=self.source.regular,
        )

    def show(self) -> Any:
        """The case in a notebook: a widget of ipyniivue (extra ``notebook``); the preview of what has no planes.

        Raises:
            AnomalyCLIPError: the error of a case that failed, or ``E_EXTRA`` where ipyniivue is not installed.
        """
        image, heatmap, mask = (self._found(each) for each in (self.image, self.heatmap, self.mask))
        if not has_planes(heatmap.shape[1:], physical=self.source.has_physical_size, regular=self.source.regular):
            return self.preview()
        return show_in_notebook(show_volume(np.asarray(image), np.asarray(heatmap), np.asarray(mask), self.affine))

    def _found(self, value: MetaTensor | None) -> MetaTensor:
        if value is None:
            raise self.error or AnomalyCLIPError("E_RESULT", "this result is empty", None, "run the case first")
        return value


def _display_notes(record: Record) -> list[str]:
    """What a viewer will do wrong with the results of this case."""
    tilted = record["source"].kind == "dicom" and is_sheared(np.asarray(record["heatmap"].affine, dtype=np.float64))
    if not tilted:
        return []
    return ["3D Slicer's importer misplaces mask.dcm and heatmap.dcm of tilted slices; view the NIfTI files"]


def _same_array(one: Any, other: Any) -> bool:
    """Whether two arrays or tensors, or none, are equal in grid and values."""
    if one is None or other is None:
        return one is other
    if isinstance(one, MetaTensor) and isinstance(other, MetaTensor) and not torch.equal(one.affine, other.affine):
        return False
    return np.array_equal(np.asarray(one), np.asarray(other))
