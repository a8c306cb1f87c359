"""Localise lesions from Python. Runs a bundle's ``configs/inference.json`` and has no pipeline of its own."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.transforms import SaveImaged

from anomalyclip_monai import resources
from anomalyclip_monai.data.cases import Case, datalist, the_case
from anomalyclip_monai.data.loading import known_cause
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, UsageError, WeightsError
from anomalyclip_monai.networks import AnomalyCLIP, read_state_dict
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.types import PathLike, Record

logger = logging.getLogger(__name__)

SliceProgress = Callable[[int, int], None]


def localize(
    image: Any,
    *,
    model: str = "tiny",
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
        **options: ``threshold``, ``min_volume``, ``slice_axis``, ``slice_batch``, ``smooth_mm``, ``volume``,
            ``per_slice``, as in the bundle's configuration.

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
    model: str = "tiny",
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


def load_model(model: str = "tiny", *, device: str = "cpu") -> AnomalyCLIP:
    """A bundle's network with its learned prompts and cached text features, in evaluation mode.

    Raises:
        AnomalyCLIPError: there is no such bundle, or its weights are missing or damaged.
    """
    root = resources.bundle_root(model)
    return _load_network(_parser(root, {}), root, resolve_device(device))


class Pipeline:
    """A bundle's inference definition, ready to run on single records.

    Args:
        model: see :func:`localize`.
        preset: see :func:`localize`.
        device: see :func:`localize`.
        **options: see :func:`localize`; those that are None keep the bundle's value.
    """

    OPTIONS = ("threshold", "min_volume", "slice_axis", "slice_batch", "smooth_mm", "volume", "per_slice")

    def __init__(self, model: str = "tiny", *, preset: str = "auto", device: str = "auto", **options: Any) -> None:
        unknown = sorted(set(options) - set(self.OPTIONS))
        if unknown:
            raise TypeError(f"unknown options {', '.join(unknown)}; known are {', '.join(self.OPTIONS)}")
        self.root = resources.bundle_root(model)
        self.device = resolve_device(device)
        overrides = {key: value for key, value in options.items() if value is not None}
        overrides |= _preset_overrides(preset)
        parser = _parser(self.root, overrides)
        self.network = _cached_network(self.root, self.device)
        try:
            self.preprocessing = parser.get_parsed_content("preprocessing")
            self.inferer = parser.get_parsed_content("inferer")
            steps = parser.get_parsed_content("postprocessing").transforms
        except Exception as error:
            raise known_cause(error) or UsageError("E_OPTION", _innermost(error), None, "see --help") from error
        # As the viewers do it: a writing step is the caller's business.
        self.postprocessing = [step for step in steps if not isinstance(step, SaveImaged)]

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
        return Result.from_record(record, model=resources.fingerprint(self.root), device=str(self.device))


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
            what = f"unexpected {_innermost(error)}"
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


def _parser(root: Path, overrides: dict[str, Any]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(resources.inference_config(root))
    parser.update({"bundle_root": str(root), **overrides})
    return parser


def _load_network(parser: ConfigParser, root: Path, device: torch.device) -> AnomalyCLIP:
    prompts = read_state_dict(resources.prompts_file(root))
    try:
        network: AnomalyCLIP = parser.get_parsed_content("network_def")
    except Exception as error:
        raise known_cause(error) or WeightsError(
            "E_WEIGHTS", _innermost(error), root, "reinstall the bundle"
        ) from error
    try:
        network.load_state_dict(prompts)
    except WeightsError as error:
        raise WeightsError(error.code, error.what, resources.prompts_file(root), error.todo) from error
    network = network.to(device).eval()
    with torch.no_grad():
        network.text_features()
    return network


@functools.lru_cache(maxsize=1)
def _cached_network(root: Path, device: torch.device) -> AnomalyCLIP:
    return _load_network(_parser(root, {}), root, device)


def _innermost(error: BaseException) -> str:
    """Type and message of what started a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


# MONAI warns on every start of a bundle that configurations can run code; ours come with the package.
warnings.filterwarnings("ignore", message=".*_target_.*", category=UserWarning, module="monai.bundle.*")
