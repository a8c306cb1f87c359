"""Localise lesions from Python. Runs a bundle's ``configs/inference.json`` and has no pipeline of its own."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import SaveImaged
from numpy.typing import ArrayLike

from anomalyclip_monai import resources
from anomalyclip_monai.data.benchmarks import Sample
from anomalyclip_monai.data.cases import Case, datalist, the_case
from anomalyclip_monai.data.memory import volume_of_array
from anomalyclip_monai.engines.calibration import Calibrator, Wanted
from anomalyclip_monai.engines.evaluation.samples import records_of
from anomalyclip_monai.exceptions import AnomalyCLIPError, UsageError, innermost, known_cause, unforeseen
from anomalyclip_monai.networks.ensemble import Network
from anomalyclip_monai.options import CaseOptions, InputOptions, ModelOptions, check_together
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.transforms import FindLesionsd
from anomalyclip_monai.transforms.calibration import Calibration
from anomalyclip_monai.types import PathLike, Record
from anomalyclip_monai.weights.choice import INFERENCE, choose_model, kept_network, load_network

logger = logging.getLogger(__name__)

SliceProgress = Callable[[int, int], None]


def localize(
    image: Any,
    *,
    model: str = resources.DEFAULT_BUNDLE,
    preset: str = "auto",
    device: str = "auto",
    affine: ArrayLike | None = None,
    roi: Any = None,
    series: str | None = None,
    progress: SliceProgress | None = None,
    **options: Any,
) -> Result:
    """Localise lesions in one case.

    Args:
        image: path of a NIfTI file, a photo, a DICOM file or a folder with one DICOM series; a nibabel image; a
            ``MetaTensor``, tensor or NumPy array (X, Y, Z) or (1|3, X, Y, Z) in modality values; or a picture of
            Pillow's.
        model: name of a bundle (``tiny``) or the folder of one.
        preset: name of a modality preset, ``auto``, or the path of a preset's YAML file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        affine: (4, 4) voxel index to RAS mm, of an array or tensor.
        roi: mask on the same grid, as a path or in memory; scores and lesions come from inside only.
        series: Series Number or Series Instance UID, to choose among the DICOM series of a folder.
        progress: called with (slices done, slices in all).
        **options: see :class:`~anomalyclip_monai.options.CaseOptions` and
            :class:`~anomalyclip_monai.options.ModelOptions`; those that are None keep the bundle's value.

    Raises:
        AnomalyCLIPError: one line with what is wrong, where, and what to do.
    """
    of_model, of_case = _options(model, preset, device, options)
    check_together(of_case, has_roi=roi is not None)
    pipeline = Pipeline(of_model, of_case)
    which = InputOptions(series=series)
    if isinstance(image, (str, os.PathLike)):
        case: Any = the_case(image, which.series)
    else:
        case = image if affine is None else volume_of_array(image, affine)
    if affine is not None and isinstance(case, Case):
        raise UsageError("E_OPTION", "affine goes with an array, and a file was given", case.path, "leave it out")
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
    which = InputOptions.of({"roi": roi, "series": series})
    of_model, of_case = _options(model, preset, device, options)
    check_together(of_case, has_roi=which.roi is not None)
    records = datalist(inputs, which.roi, which.series)
    return ResultIterator(Pipeline(of_model, of_case), records, progress)


def calibrate(
    inputs: PathLike | Sequence[PathLike],
    wanted: Wanted | None = None,
    *,
    lesions: Sequence[Sample] = (),
    model: str = resources.DEFAULT_BUNDLE,
    preset: str = "auto",
    device: str = "auto",
    progress: SliceProgress | None = None,
    cases: Callable[[Iterator[Result]], Iterator[Result]] = iter,
    **options: Any,
) -> Calibration:
    """Fit the threshold on normal cases, all of one preset, to a wanted false alarm; outlines on cases with lesions.

    ``Path("calibration.json").write_text(found.to_json())`` makes the file that ``threshold`` of :func:`localize`
    takes. A case that fails is named in ``details["failed"]``, the others count.

    Args:
        inputs: files and folders of normal cases.
        wanted: by default 1 ml of mask per case on average.
        lesions: images with lesion masks, see :func:`~anomalyclip_monai.data.benchmarks.find_samples`; those that show
            one choose the threshold of the outlines.
        model: see :func:`localize`.
        preset: see :func:`localize`.
        device: see :func:`localize`.
        progress: called with (slices done, slices in all) of the present case.
        cases: passes the results on, as a progress bar does.
        **options: see :func:`localize`; not ``threshold`` nor ``threshold_low``.

    Raises:
        AnomalyCLIPError: nothing can start, no case could be scored, or the threshold cannot be fitted.
    """
    return fit_threshold(
        inputs,
        wanted,
        Pipeline(*_options(model, preset, device, options)),
        lesions=lesions,
        progress=progress,
        cases=cases,
    )


def fit_threshold(
    inputs: PathLike | Sequence[PathLike],
    wanted: Wanted | None,
    pipeline: Pipeline,
    *,
    lesions: Sequence[Sample] = (),
    progress: SliceProgress | None = None,
    cases: Callable[[Iterator[Result]], Iterator[Result]] = iter,
) -> Calibration:
    """:func:`calibrate` with a pipeline that is there already.

    Raises:
        AnomalyCLIPError: see :func:`calibrate`.
    """
    if pipeline.options.threshold is not None or pipeline.options.threshold_low is not None:
        raise UsageError("E_OPTION", "the threshold is what is calibrated", None, "leave it out")
    normal, ill = datalist(inputs), records_of(lesions)
    samples = [*[None] * len(normal), *lesions]
    with Calibrator(wanted or Wanted(), pipeline.conditions["min_volume"]) as calibrator:
        results = cases(ResultIterator(pipeline, [*normal, *ill], progress))
        for sample, result in zip(samples, results, strict=True):
            calibrator.add(result, sample)
        return calibrator.fit(pipeline.conditions)


def load_model(model: str = resources.DEFAULT_BUNDLE, *, device: str = "cpu", **choice: Any) -> Network:
    """A network with learned prompts and cached text features, in evaluation mode.

    Args:
        model: see :func:`localize`.
        device: see :func:`localize`.
        **choice: see :class:`~anomalyclip_monai.options.ModelOptions`.

    Raises:
        AnomalyCLIPError: there is no such bundle, or its weights are missing or damaged.
    """
    options = ModelOptions(model=model, device=device, **choice)
    return load_network(choose_model(options), resolve_device(options.device))


class Pipeline:
    """A bundle's inference definition, ready to run on single records.

    Args:
        model: which network runs, and where.
        options: how a case is read, scored and outlined.
    """

    def __init__(self, model: ModelOptions | None = None, options: CaseOptions | None = None) -> None:
        model, self.options = model or ModelOptions(), options or CaseOptions()
        self.choice = choose_model(model)
        self.device = resolve_device(model.device)
        values = {**self.options.given(), "fingerprint": self.choice.fingerprint()}
        values |= resources.preset_values(values.pop("preset", "auto"))
        parser = self.choice.configured(INFERENCE, values=values)
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

    def read(self, record: Record) -> Record:
        """The record behind pre-processing: its image in [0, 1], as the network sees it.

        Raises:
            AnomalyCLIPError: the case cannot be read.
        """
        record = {key: value for key, value in record.items() if value is not None or key == "image"}
        with _in_one_line(record["image"]):
            return self.preprocessing(record)

    def run(self, record: Record, progress: SliceProgress | None = None) -> Result:
        """Run one record with ``image`` and ``case``.

        Raises:
            AnomalyCLIPError: the case cannot be read or scored.
        """
        return self.outline(self.score(record, progress))

    def score(self, record: Record, progress: SliceProgress | None = None) -> Record:
        """All of :meth:`run` that takes long: the record with its heatmap, as yet without a threshold.

        Raises:
            AnomalyCLIPError: the case cannot be read or scored.
        """
        given, record = record["image"], self.read(record)
        with _in_one_line(given):
            self.inferer.progress = progress
            record["pred"] = self.inferer(record["image"].unsqueeze(0), self.network)[0]
        return record

    def outline(self, record: Record) -> Result:
        """What was found in a record of :meth:`score`, which stays as it is: other thresholds may follow.

        Raises:
            AnomalyCLIPError: the threshold does not hold for this case.
        """
        with _in_one_line(record["image"]):
            for step in self.postprocessing:
                record = step(record)
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


def _options(
    model: PathLike, preset: PathLike, device: str, options: Mapping[str, Any]
) -> tuple[ModelOptions, CaseOptions]:
    """Keyword arguments as typed options."""
    of_model = {name: value for name, value in options.items() if name in ModelOptions.names()}
    of_case = {name: value for name, value in options.items() if name not in of_model}
    if unknown := sorted(set(of_case) - set(CaseOptions.names())):
        known = ", ".join((*CaseOptions.names(), *ModelOptions.names()))
        raise TypeError(f"unknown options {', '.join(unknown)}; known are {known}")
    return ModelOptions.of({"model": model, "device": device, **of_model}), CaseOptions.of(
        {"preset": preset, **of_case}
    )


@contextlib.contextmanager
def _in_one_line(image: Any) -> Iterator[None]:
    """Raise an error of this package as it was, and one that nobody thought of as one line with its cause."""
    try:
        yield
    except Exception as error:
        if known := known_cause(error):
            raise known from None
        logger.debug("unexpected error", exc_info=error)
        raise unforeseen(error, image.path if isinstance(image, Case) else None) from error
