"""Localise lesions from Python. Runs a bundle's ``configs/inference.json`` and has no pipeline of its own."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import SaveImaged

from anomalyclip_monai import resources
from anomalyclip_monai.data.cases import Case, datalist, the_case
from anomalyclip_monai.data.loading import innermost, known_cause
from anomalyclip_monai.engines.calibration import Calibrator, Wanted
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, UsageError
from anomalyclip_monai.networks import AnomalyCLIP
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.transforms import FindLesionsd
from anomalyclip_monai.transforms.calibration import Calibration
from anomalyclip_monai.types import SLICE_OPTIONS, PathLike, Record
from anomalyclip_monai.weights.choice import CHOICE, bundle_config, choose_model, kept_network, load_network

logger = logging.getLogger(__name__)

SliceProgress = Callable[[int, int], None]


def localize(
    image: Any,
    *,
    model: str = resources.DEFAULT_BUNDLE,
    preset: str = "auto",
    device: str = "auto",
    roi: Any = None,
    series: str | None = None,
    progress: SliceProgress | None = None,
    **options: Any,
) -> Result:
    """Localise lesions in one case.

    Args:
        image: path of a NIfTI file, a photo, a DICOM file or a folder with one DICOM series; or a nibabel image, or a
            ``MetaTensor`` (1|3, X, Y, Z) in modality values.
        model: name of a bundle (``tiny``) or the folder of one.
        preset: name of a modality preset, ``auto``, or the path of a preset's YAML file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        roi: mask on the same grid; scores and lesions come from inside only.
        series: Series Number or Series Instance UID, to choose among the DICOM series of a folder.
        progress: called with (slices done, slices in all).
        **options: ``threshold``, ``min_volume``, ``slice_axis``, ``axes``, ``slice_batch``, ``smooth_mm``,
            ``smooth_slices``, ``mirror``, ``crop``, ``fill_glare``, ``volume``, ``per_slice``, as in the bundle's
            configuration; and ``prompts``, ``precision``, ``backbone``, ``pretrained``, ``weights``, ``fast`` as in
            :func:`~anomalyclip_monai.weights.choice.choose_model`. ``axes`` is ``auto`` (three planes of volumes whose
            pixels allow it, else one), a number of planes or a list of them.

    Raises:
        AnomalyCLIPError: one line with what is wrong, where, and what to do.
    """
    pipeline = Pipeline(model, preset=preset, device=device, **options)
    case = the_case(image, series) if isinstance(image, (str, Path)) else image
    name = case.name if isinstance(case, Case) else "case"
    return pipeline.run({"image": case, "case": name, "roi": roi}, progress)


def localize_many(
    inputs: PathLike | Sequence[PathLike],
    *,
    model: str = resources.DEFAULT_BUNDLE,
    preset: str = "auto",
    device: str = "auto",
    roi: PathLike | None = None,
    series: str | None = None,
    progress: SliceProgress | None = None,
    **options: Any,
) -> Iterator[Result]:
    """Localise lesions in every case of files and folders, one after the other.

    A case that fails gives a result with ``error`` set, the others go on. The model is loaded and the cases are found
    before this function returns.

    Args:
        inputs: a file or folder, or several.
        model: see :func:`localize`.
        preset: see :func:`localize`.
        device: see :func:`localize`.
        roi: a mask for a single case, or a folder with masks that have the cases' names.
        series: see :func:`localize`.
        progress: called with (slices done, slices in all) of the present case.
        **options: see :func:`localize`.

    Raises:
        AnomalyCLIPError: nothing can start.
    """
    records = datalist(inputs, roi, series)
    pipeline = Pipeline(model, preset=preset, device=device, **options)
    return ResultIterator(pipeline, records, progress)


def calibrate(
    inputs: PathLike | Sequence[PathLike],
    wanted: Wanted | None = None,
    *,
    model: str = resources.DEFAULT_BUNDLE,
    preset: str = "auto",
    device: str = "auto",
    progress: SliceProgress | None = None,
    cases: Callable[[Iterator[Result]], Iterator[Result]] = iter,
    **options: Any,
) -> Calibration:
    """Fit the threshold on normal cases, all of one preset, to a wanted false alarm.

    ``Path("calibration.json").write_text(found.to_json())`` makes the file that ``threshold`` of :func:`localize`
    takes. A case that fails is named in ``details["failed"]``, the others count.

    Args:
        inputs: files and folders of normal cases.
        wanted: by default 1 ml of mask per case on average.
        model: see :func:`localize`.
        preset: see :func:`localize`.
        device: see :func:`localize`.
        progress: called with (slices done, slices in all) of the present case.
        cases: passes the results on, as a progress bar does.
        **options: see :func:`localize`; not ``threshold``.

    Raises:
        AnomalyCLIPError: nothing can start, no case could be scored, or the threshold cannot be fitted.
    """
    if options.get("threshold") is not None:
        raise UsageError("E_OPTION", "the threshold is what is calibrated", None, "leave it out")
    wanted = wanted or Wanted()
    records = datalist(inputs)
    pipeline = Pipeline(model, preset=preset, device=device, **options)
    with Calibrator(wanted, pipeline.conditions["min_volume"]) as calibrator:
        for result in cases(ResultIterator(pipeline, records, progress)):
            calibrator.add(result)
        return calibrator.fit(pipeline.conditions)


def load_model(model: str = resources.DEFAULT_BUNDLE, *, device: str = "cpu", **choice: Any) -> AnomalyCLIP:
    """A network with learned prompts and cached text features, in evaluation mode.

    Args:
        model: see :func:`localize`.
        device: see :func:`localize`.
        **choice: see :func:`~anomalyclip_monai.weights.choice.choose_model`.

    Raises:
        AnomalyCLIPError: there is no such bundle, or its weights are missing or damaged.
    """
    return load_network(choose_model(model, **choice), resolve_device(device))


class Pipeline:
    """A bundle's inference definition, ready to run on single records.

    Args:
        model: see :func:`localize`.
        preset: see :func:`localize`.
        device: see :func:`localize`.
        **options: see :func:`localize`; those that are None keep the bundle's value.
    """

    OPTIONS = ("threshold", "min_volume", *SLICE_OPTIONS, "volume", "per_slice")
    CHOICE = CHOICE

    def __init__(
        self, model: str = resources.DEFAULT_BUNDLE, *, preset: str = "auto", device: str = "auto", **options: Any
    ) -> None:
        known = (*self.OPTIONS, *self.CHOICE)
        if unknown := sorted(set(options) - set(known)):
            raise TypeError(f"unknown options {', '.join(unknown)}; known are {', '.join(known)}")
        self.choice = choose_model(model, **{name: options.pop(name, None) for name in self.CHOICE})
        self.device = resolve_device(device)
        overrides = {key: value for key, value in options.items() if value is not None}
        fingerprint = {"fingerprint": self.choice.fingerprint()}
        parser = bundle_config(self.choice, {**overrides, **_preset_overrides(preset), **fingerprint})
        self.network = kept_network(self.choice, self.device)
        try:
            self.preprocessing = parser.get_parsed_content("preprocessing")
            self.inferer = parser.get_parsed_content("inferer")
            steps = parser.get_parsed_content("postprocessing").transforms
        except Exception as error:
            raise known_cause(error) or UsageError("E_OPTION", innermost(error), None, "see --help") from error
        # As the viewers do it: a writing step is the caller's business.
        self.postprocessing = [step for step in steps if not isinstance(step, SaveImaged)]

    @property
    def conditions(self) -> dict[str, Any]:
        """Model and settings for which a threshold that is fitted to the results holds."""
        return next(dict(step.conditions) for step in self.postprocessing if isinstance(step, FindLesionsd))

    def run(self, record: Record, progress: SliceProgress | None = None) -> Result:
        """Run one record with ``image`` and ``case``.

        Raises:
            AnomalyCLIPError: the case cannot be read or scored.
        """
        record = {key: value for key, value in record.items() if value is not None}
        try:
            record = self.preprocessing(record)
            self.inferer.progress = progress
            heatmap = self.inferer(record["image"].unsqueeze(0), self.network)
            record["pred"] = heatmap[0]
            for step in self.postprocessing:
                record = step(record)
        except Exception as error:
            known = known_cause(error)
            if known is None:
                raise
            raise known from None
        return Result.from_record(record, model=self.choice.fingerprint(), device=str(self.device))


class ResultIterator(Iterator[Result]):
    """Runs one record per step; its length is the number of cases still to come."""

    def __init__(self, pipeline: Pipeline, records: Sequence[Record], progress: SliceProgress | None) -> None:
        self._pipeline, self._progress = pipeline, progress
        self._records = list(records)

    def __len__(self) -> int:
        return len(self._records)

    def __next__(self) -> Result:
        if not self._records:
            raise StopIteration
        record = self._records.pop(0)
        try:
            return self._pipeline.run(record, self._progress)
        except AnomalyCLIPError as error:
            return Result(record["case"], error=error)
        except Exception as error:  # one case must never stop the others
            logger.debug("unexpected error in %s", record["case"], exc_info=True)
            what = f"unexpected {innermost(error)}"
            path = record["image"].path if isinstance(record["image"], Case) else None
            return Result(record["case"], error=CaseError("E_INTERNAL", what, path, "please report this"))


def resolve_device(device: str) -> torch.device:
    """``auto`` takes the GPU where there is one; a GPU that is not there falls back to the CPU with a warning.

    Raises:
        UsageError: the text names no device (``E_DEVICE``).
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError("E_DEVICE", f"no device {device!r}", None, "use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        logger.warning("device %s is not there, running on the CPU", device)
        return torch.device("cpu")
    return chosen


def _preset_overrides(preset: str) -> dict[str, Any]:
    if preset.endswith((".yaml", ".yml")):
        return resources.read_overlay(resources.preset_overlay(preset))
    return {"preset": preset}


# MONAI warns on every start of a bundle that configurations can run code; ours come with the package.
warnings.filterwarnings("ignore", message=".*_target_.*", category=UserWarning, module="monai.bundle.*")
