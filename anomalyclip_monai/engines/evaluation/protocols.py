"""How a data set is measured, in one name and one sentence, so that numbers are only compared where they compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from anomalyclip_monai.data.benchmarks import LAYOUTS, Sample
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.metrics.froc import MIN_INSIDE, THRESHOLDS
from anomalyclip_monai.options import protocol_phrases

PAPER_SIZE = 518
"""Side in pixels to which the paper squashes every photo and mask."""

ORGANS_SIZE = 256
"""Side in pixels to which maps and masks of the organs' protocol are brought before they are measured."""

PAPER_SETS = (
    *("headct", "brainmri", "br35h", "covid19", "isic", "colondb", "clinicdb", "kvasir", "endo", "tn3k"),
    *("mvtec", "visa", "mpdd", "btad", "sdd", "dagm", "dtd"),
)
"""The data sets of the paper, for which its protocol is the default."""

ProtocolName = Literal["paper", "native", "organs"]

NAMES: tuple[ProtocolName, ...] = ("paper", "native", "organs")
"""All protocols, for people to choose from."""

_IDS: Mapping[ProtocolName, str] = {
    "paper": "paper-518-pro200",
    "native": "native-pro-exact",
    "organs": "organs-256",
}


@dataclass(frozen=True, slots=True)
class Protocol:
    """How maps and masks meet.

    Attributes:
        name: ``paper``: photos and masks are squashed to 518 x 518 first; ``native``: on the image's own grid;
            ``organs``: the network sees the photo's own grid, maps and masks are then measured at 256 x 256, so that
            images of many sizes weigh the same.
        volumes: volumes of slices, measured one by one, rather than photos.
    """

    name: ProtocolName
    volumes: bool = False

    @property
    def size(self) -> int | None:
        """Side of squashed photos, None for their own grid."""
        return PAPER_SIZE if self.name == "paper" else None

    @property
    def measured_size(self) -> int | None:
        """Side to which maps and masks are brought when they are measured, None for the grid of the image."""
        return ORGANS_SIZE if self.name == "organs" else None

    @property
    def pro(self) -> str:
        """The kind of PRO that belongs to it."""
        return "pixel_pro_paper" if self.name == "paper" else "pixel_pro_exact"

    @property
    def id(self) -> str:
        """Short name for tables."""
        return "native-volumes-froc50" if self.volumes else _IDS[self.name]

    def text(self, *, image_score: str, threshold: str, options: Mapping[str, Any]) -> str:
        """The sentence that says it all.

        Args:
            image_score: kind of image score of the network, see ``networks.ScoreKind``.
            threshold: value or values and origin of the fixed threshold.
            options: settings of the bundle by name, see :func:`~anomalyclip_monai.options.reported_settings`.
        """
        score = {
            "class_token": "the probability of the class token",
            "map_top2": "the mean of the top 2 % of the map at the model's size",
        }.get(image_score, image_score)
        mirrored = ", mean of the picture and its mirror image" if options.get("mirror") else ""
        if self.volumes:
            axis, axes = options.get("slice_axis", "auto"), options.get("axes", 1)
            along = f"slices along the slice axis ({axis})" + ("" if str(axes) == "1" else f", axes fused: {axes}")
            along += " (3 where pixels allow it, else 1)" if axes == "auto" else ""
            smoothed = [
                f"{options[f'smooth_{unit}']} {unit}" for unit in ("mm", "slices") if options.get(f"smooth_{unit}")
            ]
            along += f", smoothed across the planes by {' and '.join(smoothed)}" if smoothed else ""
            along += f"; along one axis{mirrored}" if mirrored else ""
            along += protocol_phrases(options, "volumes")
            if smoothed or str(axes) != "1":
                score += ", of a fused or smoothed heatmap the mean of its top 2 % in the slice"
            return (
                f"Volumes on their stored grid, all {along}; slices whose brightest pixel is not above "
                f"{options.get('empty_below', 0)} are scored 0; slice score: {score}; volume score: mean of the 3 "
                "highest slice scores; slice AUROC, voxel measures and Dice: of each volume, then mean or median over "
                "the volumes that define them; inside the body: above 5 % of the volume's maximum; FROC: 26-connected "
                f"components at {len(THRESHOLDS)} thresholds from {max(THRESHOLDS):g} to {min(THRESHOLDS):g}, a hit if "
                f"at least {MIN_INSIDE:.0%} of the component is lesion, of all volumes with and without a lesion "
                f"together; fixed threshold {threshold}."
            )
        prepared = protocol_phrases(options, "photos")
        if self.name == "paper":
            grid = (
                f"Photos squashed to {PAPER_SIZE} x {PAPER_SIZE} (bicubic, antialias) before the network, masks "
                "bilinear and above a half; maps at that size"
            )
            pro = "PRO: 200 equal steps from the lowest to the highest score, FPR below 0.3 stretched to [0, 1]"
        else:
            grid = "Maps and masks on the photo's own grid"
            pro = "PRO: every distinct score a threshold, interpolated at FPR 0.3 and divided by it"
        if self.measured_size is not None:
            side = self.measured_size
            grid = (
                f"Photos on their own grid before the network, maps (bilinear, antialias), masks and the lit field (at "
                f"least half of a pixel, of small lesions less) measured at {side} x {side}, images without a lesion "
                "included"
            )
        return (
            f"{grid}{prepared}{mirrored}; image score: {score}; pixels pooled per class, measures then averaged over "
            f"classes; {pro}; lit field: mean of channels above 20 of 255; Dice at the fixed threshold {threshold} and "
            "pointing: mean over images with a lesion."
        )


def choose_protocol(dataset: str, samples: Sequence[Sample], asked: str | None = None) -> Protocol:
    """The protocol that was asked for, by default that of the set.

    The paper's for the paper's sets, the organs' for lesions of many organs, the native one for all others.

    Raises:
        UsageError: there is no such protocol, or one of photos was asked for volumes (``E_PROTOCOL``); photos and
            volumes are mixed (``E_MIXED``).
    """
    kinds = {sample.volume for sample in samples}
    if len(kinds) > 1:
        raise UsageError("E_MIXED", "the set holds photos and volumes", None, "evaluate them one after the other")
    volumes = kinds == {True}
    match asked or "auto":
        case "auto" | "native" if volumes:
            return Protocol("native", volumes)
        case "auto" if dataset in PAPER_SETS:
            return Protocol("paper")
        case "auto" if dataset in LAYOUTS and LAYOUTS[dataset].many_sets:
            return Protocol("organs")
        case "auto" | "native":
            return Protocol("native")
        case "paper" | "organs" as name if volumes:
            whose = "paper's" if name == "paper" else "organs'"
            raise UsageError("E_PROTOCOL", f"the {whose} protocol is for photos", None, "use --protocol native")
        case "paper" | "organs" as name:
            return Protocol(name)
        case other:
            raise UsageError("E_PROTOCOL", f"no protocol {other!r}", None, f"choose from: {', '.join(NAMES)}")
