"""Every option, once: name, default, range, unit and help.

From these declarations come the flags of the commands, the arguments of :func:`anomalyclip_monai.localize` and its
kin, the entries of a bundle's JSON files and where they are used there, what a calibration holds for, what a report
says was asked, and the tables of ``docs/options.md``. To add an option: declare it here, use it in its module, test
it, and run ``python tools/generate.py``.

Texts are values and nothing else: what comes from a command line or from Python is checked here and reaches a
bundle's configuration through :mod:`anomalyclip_monai.definition`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.resources import DEFAULT_BUNDLE, presets
from anomalyclip_monai.text import printable

Kind = Literal["text", "texts", "number", "count", "counts", "switch", "yes"]
"""``switch``: yes or no, ``--x`` and ``--no-x``; ``yes``: off unless asked for."""

Changes = Literal[
    "reading", "scaling", "heatmap", "mask", "files", "speed", "measuring", "learning", "network", "serving"
]
"""What of a result an option changes. A calibration holds for one ``heatmap`` setting."""


@dataclass(frozen=True, slots=True)
class Option:
    """What is said of one option.

    Attributes:
        name: argument in Python and entry of the JSON files.
        kind: what a value is.
        help: one line.
        changes: what of a result.
        commands: that have its flag.
        default: of the JSON files of a new bundle; None where there is no value of its own.
        shown: the default in words, where ``default`` does not say it.
        unit: of a number.
        low: smallest number.
        high: largest number.
        above: whether ``low`` itself is too small.
        choices: the only texts.
        flag: where it is not the name.
        metavar: of the flag.
        used_in: ids in ``inference.json`` of the steps that take it as an argument of the same name.
        said: what a report's protocol says of a setting that is on, or has another value than ``default``; ``{}``
            stands for the value.
        said_of: in protocols of what.
        training: the same in ``train.json``, where it has a meaning there.
        displayed: whether viewers show it; MONAI Label puts a request's values into ``displayable_configs``.
    """

    name: str
    kind: Kind
    help: str
    changes: Changes
    commands: tuple[str, ...] = ()
    default: Any = None
    shown: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    above: bool = False
    choices: tuple[str, ...] = ()
    flag: str = ""
    metavar: str | None = None
    used_in: tuple[str, ...] = ()
    said: str = ""
    said_of: Literal["photos", "volumes", "all"] = "all"
    training: tuple[str, ...] = ()
    displayed: bool = False

    @property
    def flags(self) -> str:
        """``--smooth``."""
        return f"--{(self.flag or self.name).replace('_', '-')}"

    @property
    def default_in_words(self) -> str:
        """``20; of photos 0 pixels``; empty where there is none."""
        if self.shown or self.default is None:
            return self.shown
        varies = self.changes in ("heatmap", "speed", "mask") and self.kind != "text"
        return "the bundle's" if varies else f"{self.default:g}" if self.kind == "number" else str(self.default)

    def value(self, given: Any) -> Any:
        """What was given, as a value of the option's kind.

        Raises:
            UsageError: it is none, or out of range (``E_OPTION``).
        """
        match self.kind:
            case "switch" | "yes":
                if not isinstance(given, bool):
                    raise self._refused(given, "give yes or no: True or False")
                return given
            case "number" | "count":
                return self._number(given)
            case "counts":
                several = given if isinstance(given, (list, tuple)) else (given,)
                numbers = (part for one in several for part in (one.split(",") if isinstance(one, str) else (one,)))
                return tuple(self._number(one) for one in numbers)
            case "texts":
                several = (given,) if isinstance(given, (str, os.PathLike)) else tuple(given)
                return tuple(self._text(one) for one in several)
            case _:
                return self._text(given)

    def _text(self, given: Any) -> Any:
        # numbers and lists stand for their text where a module takes both, as of axes and threshold
        text = os.path.abspath(given) if isinstance(given, os.PathLike) else given
        if isinstance(text, bytes):
            text = os.fsdecode(text)
        if isinstance(text, str):
            if not text.strip():
                raise self._refused(given, "leave it out, or give a value")
            if "\0" in text:
                raise self._refused(given, "leave the null character out")
        if self.choices and text not in self.choices:
            raise self._refused(given, f"choose from: {', '.join(self.choices)}")
        return text

    def _number(self, given: Any) -> float | int:
        whole = self.kind in ("count", "counts")
        try:
            if isinstance(given, bool):
                raise ValueError
            number: float | int = int(given) if whole and not isinstance(given, float) else float(given)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number) or (whole and number != int(number)):
            raise self._refused(given, f"give {self.range}")
        too_low = self.low is not None and (number < self.low or (self.above and number == self.low))
        if too_low or (self.high is not None and number > self.high):
            raise self._refused(given, f"give {self.range}")
        return int(number) if whole else number

    @property
    def range(self) -> str:
        """``a number from 0 on``."""
        what = "a whole number" if self.kind in ("count", "counts") else "a number"
        if self.low is not None:
            what += f" above {self.low:g}" if self.above else f" from {self.low:g} on"
        return what if self.high is None else f"{what.removesuffix(' on')} to {self.high:g}"

    def _refused(self, given: Any, todo: str) -> UsageError:
        shown = printable(repr(given) if isinstance(given, str) else str(given))
        return UsageError("E_OPTION", f"{self.name} {shown[:80]}", None, todo)


def option(kind: Kind, help: str, changes: Changes, *, field_default: Any = None, **said: Any) -> Any:  # noqa: A002
    """A field of a class of options; the metadata says everything but its name."""
    metadata = {"kind": kind, "help": help, "changes": changes, **said}
    return dataclasses.field(default=field_default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSet:
    """Values of options; None keeps what the bundle says. Values are checked when they come in.

    Raises:
        UsageError: a value is none of its kind, or out of range (``E_OPTION``).
    """

    def __post_init__(self) -> None:
        for known in self.known():
            if (given := getattr(self, known.name)) is not None:
                object.__setattr__(self, known.name, known.value(given))

    @classmethod
    def known(cls) -> Iterator[Option]:
        """The options of this class."""
        return (Option(name=field.name, **field.metadata) for field in dataclasses.fields(cls))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Their names."""
        return tuple(known.name for known in cls.known())

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From a mapping that may hold other things as well."""
        return cls(**{name: values[name] for name in cls.names() if name in values})

    def given(self) -> dict[str, Any]:
        """Name -> value of those that are not None."""
        return {name: value for name in self.names() if (value := getattr(self, name)) is not None}


_LOCALIZE, _CALIBRATE, _EVALUATE, _TRAIN, _DEMO = "localize", "calibrate", "evaluate", "train", "demo"
_SERVE = "serve"
_SCORING = (_LOCALIZE, _CALIBRATE, _EVALUATE, _SERVE)
_RUNNING = (*_SCORING, _DEMO)

_LOADER = "preprocessing#transforms#0"
_SCALER = "preprocessing#transforms#1"
_INFERER = "inferer"
_DATALIST = "datalist"
_TRAINING_DATA = "train#data"
_LESIONS = "postprocessing#transforms#0"
_SAVER = "postprocessing#transforms#1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions(OptionSet):
    """Which network runs, and where."""

    model: str = option(
        "text",
        "name of a bundle, or the path of a bundle's folder, which is code",
        "network",
        field_default=DEFAULT_BUNDLE,
        commands=(*_RUNNING, _TRAIN),
        shown=DEFAULT_BUNDLE,
    )
    backbone: str | None = option(
        "text",
        "another CLIP by its name in open_clip, with --prompts learned for it",
        "network",
        commands=(*_RUNNING, _TRAIN),
        metavar="NAME",
    )
    pretrained: str | None = option(
        "text",
        "open_clip's tag of the backbone's weights",
        "network",
        commands=(*_RUNNING, _TRAIN),
        metavar="TAG",
    )
    weights: str | None = option(
        "text",
        "the backbone's weights, in the place of published ones",
        "network",
        commands=(*_RUNNING, _TRAIN),
        metavar="FILE",
    )
    precision: str | None = option(
        "text",
        "of the backbone in memory: fp32, bf16 (half the memory, faster) or fp16",
        "network",
        commands=(*_RUNNING, _TRAIN),
        shown="the bundle's",
    )
    fast: bool | None = option(
        "yes",
        "only the first of the model's networks: much faster, less accurate on most",
        "network",
        commands=_RUNNING,
        shown="off",
    )
    device: str = option(
        "text",
        "auto, cpu, cuda or cuda:N; a GPU that is not there falls back to the CPU with a warning",
        "speed",
        field_default="auto",
        commands=(*_RUNNING, _TRAIN),
        shown="auto",
    )
    prompts: str | None = option(
        "text",
        "learned prompts, or the name of published ones (visa, mvtec)",
        "network",
        commands=_RUNNING,
        metavar="FILE",
        shown="the bundle's",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOptions(OptionSet):
    """How a case is read, scaled, scored and outlined."""

    preset: str | None = option(
        "text",
        f"how intensities become [0, 1]: auto, {', '.join(presets())}, or the path of a preset's YAML file",
        "scaling",
        commands=(*_SCORING, _TRAIN),
        default="auto",
        used_in=(_SCALER,),
        training=(_SCALER, _TRAINING_DATA),
        displayed=True,
    )
    threshold: str | float | None = option(
        "text",
        "auto (shipped with the weights), a value above 0 up to 1, quantile:Q of the case's heatmap, or the file of a "
        "calibration",
        "mask",
        commands=(_LOCALIZE, _EVALUATE, _SERVE),
        default="auto",
        used_in=(_LESIONS,),
        displayed=True,
    )
    threshold_low: str | float | None = option(
        "text",
        "threshold of the outlines: auto (the shipped one beside the shipped threshold, else the threshold itself), or "
        "a value from 0 up to the threshold; a lesion has voxels at the threshold and reaches down to this",
        "mask",
        commands=(_LOCALIZE, _EVALUATE, _SERVE),
        default="auto",
        metavar="LOW",
        used_in=(_LESIONS,),
        displayed=True,
    )
    min_volume: float | None = option(
        "number",
        "lesions with less at or above the threshold are left out of mask and table",
        "mask",
        commands=(_LOCALIZE, _CALIBRATE, _SERVE),
        shown="20; of photos 0 pixels",
        unit="mm3",
        low=0,
        metavar="MM3",
        used_in=(_LESIONS,),
    )
    slice_axis: str | int | None = option(
        "text",
        "of volumes: auto, axial, coronal, sagittal, 0, 1 or 2",
        "heatmap",
        commands=_SCORING,
        default="auto",
        used_in=(_INFERER,),
        training=(_TRAINING_DATA,),
        displayed=True,
    )
    axes: str | int | tuple[str, ...] | None = option(
        "text",
        "of volumes: auto (three planes where pixels allow it, else one), mean of N planes (1 to 3), or a list such as "
        "axial,sagittal",
        "heatmap",
        commands=_SCORING,
        default=1,
        shown="the bundle's",
        metavar="N",
        used_in=(_INFERER,),
        displayed=True,
    )
    slice_batch: int | None = option(
        "count",
        "slices per call of the network; halved by itself when memory runs out",
        "speed",
        commands=_SCORING,
        default=16,
        low=1,
        metavar="N",
        used_in=(_INFERER,),
    )
    smooth_mm: float | None = option(
        "number",
        "standard deviation of a Gaussian across the planes of the heatmap",
        "heatmap",
        commands=_SCORING,
        default=0.0,
        unit="mm",
        low=0,
        flag="smooth",
        metavar="MM",
        used_in=(_INFERER,),
    )
    smooth_slices: float | None = option(
        "number",
        "the same in slices",
        "heatmap",
        commands=_SCORING,
        default=0.0,
        unit="slices",
        low=0,
        metavar="N",
        used_in=(_INFERER,),
    )
    mirror: bool | None = option(
        "switch",
        "also score mirrored slices of photos and of volumes along one axis, in twice the time",
        "heatmap",
        commands=_SCORING,
        default=False,
        used_in=(_INFERER,),
    )
    crop: bool | None = option(
        "switch",
        "show the network only the part of a volume's slices that holds the body; the heatmap is 0 outside",
        "heatmap",
        said="of the slices the part that holds the body",
        said_of="volumes",
        commands=_SCORING,
        default=False,
        used_in=(_INFERER,),
    )
    fill_glare: bool | None = option(
        "switch",
        "of colour pictures fill the reflections of the lamp before the network sees them",
        "heatmap",
        said="reflections in colour pictures filled",
        said_of="photos",
        commands=_SCORING,
        default=False,
        used_in=(_INFERER,),
    )
    empty_below: float | None = option(
        "number",
        "slices whose brightest pixel is not above this are not scored: heatmap and score are 0 there",
        "heatmap",
        default=0.01,
        low=0,
        high=1,
        used_in=(_INFERER,),
        training=(_TRAINING_DATA,),
    )
    volume: int | None = option(
        "count",
        "which volume of a 4D file, counted from 0",
        "reading",
        commands=_SCORING,
        low=0,
        metavar="N",
        used_in=(_LOADER,),
        training=(_LOADER,),
    )
    per_slice: bool | None = option(
        "yes",
        "score a DICOM series with missing or uneven slices one by one; results as DICOM only",
        "reading",
        commands=(_LOCALIZE,),
        default=False,
        shown="off",
        used_in=(_LOADER,),
        training=(_LOADER,),
    )
    roi_label: tuple[int, ...] | None = option(
        "counts",
        "of a mask with many labels only these, as segmenters number their organs",
        "reading",
        commands=(_LOCALIZE,),
        low=1,
        metavar="K",
        shown="all of the mask",
        used_in=(_LOADER,),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions(OptionSet):
    """Which cases of the inputs, and where in them."""

    roi: str | None = option(
        "text",
        "organ mask on the same grid: scores, threshold and lesions come from inside only; for several cases a folder "
        "of masks that have the cases' names",
        "reading",
        commands=(_LOCALIZE,),
        metavar="MASK",
        used_in=(_DATALIST,),
    )
    series: str | None = option(
        "text",
        "of several DICOM series only the one with this Series Number or Series Instance UID",
        "reading",
        commands=(_LOCALIZE,),
        metavar="N",
        shown="each is a case",
        used_in=(_DATALIST,),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions(OptionSet):
    """Which files are written beside those that every case gets."""

    report: bool | None = option(
        "yes",
        "also report.html for each case, a page that any browser opens from the disk, and of several cases index.html",
        "files",
        commands=(_LOCALIZE, _DEMO),
        default=False,
        shown="off",
        used_in=(_SAVER,),
    )
    prompts_out: bool | None = option(
        "yes",
        "also prompts.json for each case: a point, a box and the mask of every lesion, as interactive segmenters take "
        "them",
        "files",
        commands=(_LOCALIZE,),
        default=False,
        shown="off",
        used_in=(_SAVER,),
    )
    seg_type: str | None = option(
        "text",
        "of mask.dcm: binary, which most programs read, or labelmap, which OHIF also shows where it cannot show the "
        "other",
        "files",
        commands=(_LOCALIZE,),
        default="binary",
        choices=("binary", "labelmap"),
        used_in=(_SAVER,),
    )


def check_together(case: CaseOptions, *, has_roi: bool) -> None:
    """Refuse what is said of a mask where there is none.

    Raises:
        UsageError: labels without a mask that holds them (``E_OPTION``).
    """
    if case.roi_label is not None and not has_roi:
        raise UsageError("E_OPTION", "--roi-label without a mask", None, "give the mask with --roi")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions(OptionSet):
    """What ``evaluate`` measures, beside :class:`CaseOptions`."""

    protocol: str | None = option(
        "text",
        "paper, native or organs",
        "measuring",
        commands=(_EVALUATE,),
        shown="that of the set",
    )
    methods: tuple[str, ...] | None = option(
        "texts",
        "anomalyclip, clip, clip_ac, hand_written ...",
        "measuring",
        commands=(_EVALUATE,),
        metavar="METHOD",
    )
    seeds: tuple[str, ...] | None = option(
        "texts",
        "prompt files of several trainings: mean and sd",
        "network",
        commands=(_EVALUATE,),
        metavar="PROMPTS",
    )
    against: str | None = option(
        "text",
        "report.json of another model: a paired test",
        "measuring",
        commands=(_EVALUATE,),
        metavar="REPORT",
    )
    bootstrap: int | None = option(
        "count",
        "resampled sets, 0 for none",
        "measuring",
        commands=(_EVALUATE,),
        default=1000,
        low=0,
        metavar="N",
    )
    limit: int | None = option(
        "count",
        "only N samples, spread evenly over the set",
        "measuring",
        commands=(_EVALUATE,),
        low=1,
        metavar="N",
        shown="all",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnOptions(OptionSet):
    """How ``train`` learns prompts; entries of ``train.json``."""

    epochs: int | None = option(
        "count", "passes over the images", "learning", commands=(_TRAIN,), default=15, low=1, metavar="N"
    )
    batch_size: int | None = option(
        "count", "images per step", "learning", commands=(_TRAIN,), default=8, low=1, metavar="N"
    )
    learning_rate: float | None = option(
        "number",
        "learning rate of Adam",
        "learning",
        commands=(_TRAIN,),
        default=0.001,
        low=0,
        above=True,
        high=1,
        flag="lr",
        metavar="RATE",
    )
    terms: str | None = option(
        "text",
        "of images, of maps, or both; global needs no masks",
        "learning",
        commands=(_TRAIN,),
        default="both",
        choices=("both", "global", "local"),
        flag="loss",
    )
    features: str | None = option(
        "text",
        "precision of image features, computed once; none computes them at every step",
        "learning",
        commands=(_TRAIN,),
        default="fp16",
        choices=("fp32", "fp16", "bf16", "none"),
    )
    augment: bool | None = option(
        "yes",
        "change images mildly; features are not computed once",
        "learning",
        commands=(_TRAIN,),
        default=False,
        shown="off",
    )
    slices: int | None = option(
        "count", "most slices of one volume", "learning", commands=(_TRAIN,), default=16, low=2, metavar="N"
    )
    tensorboard: bool | None = option(
        "yes", "log to OUT/tensorboard (extra tensorboard)", "learning", commands=(_TRAIN,), default=False, shown="off"
    )
    mlflow: str | None = option(
        "text", "log to this tracking URI (extra mlflow)", "learning", commands=(_TRAIN,), metavar="URI"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions(OptionSet):
    """Where ``serve`` answers, and what it lists and keeps."""

    host: str | None = option(
        "text",
        "address to answer at; others than this machine's own reach whoever is in the network, without a password",
        "serving",
        commands=(_SERVE,),
        default="127.0.0.1",
    )
    port: int | None = option(
        "count",
        "port to answer at, 0 for one that is free; OHIF's panel looks at 8000 by itself",
        "serving",
        commands=(_SERVE,),
        default=8000,
        low=0,
        high=65535,
        metavar="PORT",
    )
    work: str | None = option(
        "text",
        "folder for labels, the list of images and scores, for studies that are not to be written to",
        "serving",
        commands=(_SERVE,),
        metavar="DIR",
        shown="the studies' folder",
    )
    modality: tuple[str, ...] | None = option(
        "texts",
        "of a DICOMweb server list the series with these modality codes",
        "serving",
        commands=(_SERVE,),
        metavar="CODE",
        shown="CT MR",
    )
    score: bool | None = option(
        "switch",
        "score all images without being asked, for the order of the work list",
        "serving",
        commands=(_SERVE,),
        default=True,
        shown="yes",
    )


SETS: tuple[type[OptionSet], ...] = (
    ModelOptions,
    CaseOptions,
    InputOptions,
    OutputOptions,
    MeasureOptions,
    LearnOptions,
    ServeOptions,
)
"""All of them, in the order of ``--help``."""


def heatmap_settings() -> tuple[str, ...]:
    """Names of the case options for which a calibration holds: they change heatmaps, and are the same for all cases."""
    return tuple(known.name for known in CaseOptions.known() if known.changes == "heatmap")


def reported_settings() -> tuple[str, ...]:
    """Names of the case options that a report names: all that ``evaluate`` has, and what only a bundle may set."""
    mine = (known for known in CaseOptions.known() if not known.commands or _EVALUATE in known.commands)
    return tuple(known.name for known in mine if known.changes != "mask")


def protocol_phrases(settings: Mapping[str, Any], of: Literal["photos", "volumes"]) -> str:
    """What a protocol says of the settings that are on: ``; reflections in colour pictures filled``."""
    spoken = (known for known in CaseOptions.known() if known.said and known.said_of in (of, "all"))
    given = ((known, settings.get(known.name)) for known in spoken)
    return "".join(
        f"; {known.said.format(value)}" for known, value in given if value not in (None, False, known.default)
    )
