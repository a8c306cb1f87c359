"""Regions of Markdown pages that are made from the evidence.

A page has a pair of comments; what stands between them is written anew::

    <!-- evidence: organs -->
    ...
    <!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomalyclip_monai.engines.evaluation.organs import UNTRAINED
from anomalyclip_monai.weights.bundle import fingerprint
from recipes.evidence.parts import ABOVE, ALL, BODY, HELD_OUT, ORGAN_MEASURES, SEEDS, SHIPPED, TRIVIAL
from recipes.evidence.schema import Evidence, Part
from recipes.evidence.texts import IN_ML, cell, cell_over_sets, listed, of_the_paper, table

OPENING = "<!-- evidence:"
REGION = re.compile(rf"({OPENING} ([a-z_]+) -->\n)(?:(?!{OPENING}).)*?(<!-- end -->)", re.DOTALL)

REACHED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "lgg": ("Gliomas in FLAIR, volumes; other patients' in T2 were in training", ("slice_pointing", "dice")),
    "headct": ("HeadCT, slices as photos", ("image_auroc",)),
    "brainmri": ("BrainMRI, slices as photos", ("image_auroc",)),
    "colondb": ("CVC-ColonDB, frames; another hospital's polyps were in training", ("pixel_auroc", "dice")),
    "busi": ("BUSI, breast ultrasound; other patients' were in training", ("pointing",)),
    "normal_volumes": ("Healthy heads", (IN_ML,)),
}
"""Set -> what the short table calls it, and what it shows of it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A bundle and what was measured of it.

    Attributes:
        root: the bundle's folder.
        evidence: see :func:`~recipes.evidence.schema.read_evidence`.
    """

    root: Path
    evidence: Evidence

    def origin(self, name: str) -> str:
        """The sentence that says where the numbers of a part come from."""
        head = self.evidence.part(name).head
        hashes = ", ".join(digest[:8] for key, digest in head.weights.items() if key.startswith("weights"))
        how = "Measured {}" if head.origin == "measured" else "Taken from the tables of {}, not measured again"
        words = [how.format(head.date), f"version {head.version}" + (f", commit {head.commit}" if head.commit else "")]
        if hashes:
            now = dict(head.weights) == fingerprint(self.root, fast=name.endswith("_fast"))
            words.append(f"weights {hashes}" + ("" if now else ", **not those that are shipped now**"))
        if head.thresholds:
            words.append(f"masks at {listed([f'{value:g}' for value in head.thresholds])}")
        if head.repeats:
            words.append(f"95 % intervals of {head.repeats} draws with seed {head.seed}")
        return "; ".join(words) + "."


def filled(text: str, source: Source) -> str:
    """A page with its regions written anew.

    Raises:
        ValueError: a region is unknown or has no end.
        KeyError: a number that it shows was not measured.
    """

    def write(found: re.Match[str]) -> str:
        if found[2] not in REGIONS:
            raise ValueError(f"no region {found[2]}, there are {', '.join(REGIONS)}")
        return "\n".join([found[1], *REGIONS[found[2]](source), "", found[3]])

    written, count = REGION.subn(write, text)
    if count != text.count(OPENING):
        raise ValueError(f"{text.count(OPENING) - count} of the page's regions have no name or no <!-- end -->")
    return written


def organs_short(source: Source) -> list[str]:
    """The means over sets, the baseline beside them, and whether it is beaten: of data and of organs never seen."""
    part, left_out = source.evidence.part("organs"), source.evidence.parts.get(HELD_OUT)
    names: tuple[str, ...] = (ALL,) if left_out else (ALL, UNTRAINED)
    shown = [(part, SHIPPED, "this model", names)]
    if left_out:
        shown.append((left_out, SEEDS, "trained without the organ", _means_of(left_out)))
    rows, verdicts = [], []
    for one, variant, title, names in shown:
        rows += _mean_rows(one, names, {variant: title, BODY: "centre of the body"})
        verdicts += [_verdict(one, name, variant) for name in names]
    rows[0][0] = f"data set never trained on: {rows[0][0]}"
    return [
        *_mean_table(part, rows),
        "",
        f"Hundredths, in parentheses the 95 % interval over sets; {part.sets[ALL].images} images of "
        f"{part.sets[ALL].groups} patients or lesions, none of them in training. "
        + " ".join([*([_LEFT_OUT] if left_out else []), *verdicts]),
    ]


def organs(source: Source) -> list[str]:
    """Every set, and the means with both intervals."""
    part = source.evidence.part("organs")
    return [
        *_organ_table(part, {SHIPPED: "this model", BODY: "centre of the body"}),
        "",
        f"{source.origin('organs')} In brackets the interval over images, in parentheses over sets. "
        f"{_verdict(part, ALL, SHIPPED)} {_verdict(part, UNTRAINED, SHIPPED)}",
        "",
        *_mean_table(part, _mean_rows(source.evidence.part("organs_fast"), (ALL, UNTRAINED), {SHIPPED: "`--fast`"})),
        "",
        source.origin("organs_fast"),
    ]


def held_out_organs(source: Source) -> list[str]:
    """Every set by networks that were trained without its organ; a line where that was not measured."""
    if HELD_OUT not in source.evidence.parts:
        return ["Not measured for these weights."]
    part = source.evidence.part(HELD_OUT)
    seeds = {one.variant: one.variant for one in part.measurements if one.variant.startswith("seed ")}
    verdicts = " ".join(_verdict(part, name, SEEDS) for name in _means_of(part))
    return [
        *_organ_table(part, {SEEDS: "mean of seeds", **seeds, BODY: "centre of the body"}),
        "",
        f"{source.origin(HELD_OUT)} In parentheses the interval over sets. {_LEFT_OUT} {verdicts}",
    ]


def reached_short(source: Source) -> list[str]:
    """The sets that a reader asks for first."""
    part, fast = (source.evidence.part(name) for name in ("embedded", "embedded_fast"))
    rows = []
    for name, (title, measures) in REACHED.items():
        for measure in measures:
            part.value(name, measure, SHIPPED)
            rows.append(
                [
                    f"{title} ({part.sets[name].images}): {_measure(part, measure)}",
                    cell(measure, part.find(name, measure, TRIVIAL)),
                    cell(measure, part.find(name, measure, SHIPPED)),
                    cell(measure, fast.find(name, measure, SHIPPED)),
                    of_the_paper(name, measure),
                ]
            )
    heads = ("images it never saw", "trivial", "this model [95 %]", "`--fast` [95 %]", "ViT-L (paper, whole set)")
    return table(heads, rows)


def reached(source: Source) -> list[str]:
    """Everything that the benchmark of the embedded model measures."""
    part, fast = (source.evidence.part(name) for name in ("embedded", "embedded_fast"))
    seeds = sorted({one.variant for one in part.measurements if one.variant.startswith("seed ")})
    columns = [(part, TRIVIAL), *((part, seed) for seed in seeds), (part, SEEDS), (part, SHIPPED)]
    columns += [(fast, SEEDS), (fast, SHIPPED)]
    rows = []
    for name, where in part.sets.items():
        for measure in part.measures:
            if part.find(name, measure, SHIPPED) is None:
                continue
            count = f"{where.images}" + (f" ({where.groups} groups)" if where.groups < where.images else "")
            numbers = [cell(measure, one.find(name, measure, variant)) for one, variant in columns]
            rows.append([where.title, _measure(part, measure), count, *numbers, of_the_paper(name, measure)])
    heads = ["set", "measure", "samples", "trivial", *seeds, "mean of seeds", "shipped [95 %]"]
    heads += ["`--fast`: mean of seeds", "`--fast`: shipped [95 %]", "ViT-L (paper, whole set)"]
    return [
        *table(heads, rows),
        "",
        f"Hundredths; of healthy heads ml. {source.origin('embedded')}",
        "",
        f"`--fast`: {source.origin('embedded_fast')}",
    ]


def published_short(_: Source) -> list[str]:
    """What the paper says of the medical sets."""
    image = [f"{of_the_paper(name, 'image_auroc')} on {title}" for name, title in _IMAGE_SETS]
    pixel = [f"{of_the_paper(name, 'pixel_auroc')} on {title}" for name, title in _PIXEL_SETS]
    return [
        "What the paper reports (prompts trained on MVTec AD), none of it measured again for this bundle: "
        f"image AUROC {listed(image)}; pixel AUROC {listed(pixel)}.",
    ]


_IMAGE_SETS = (("headct", "HeadCT"), ("brainmri", "BrainMRI"))
_PIXEL_SETS = (("colondb", "CVC-ColonDB"), ("clinicdb", "CVC-ClinicDB"), ("kvasir", "Kvasir"))

REGIONS: Mapping[str, Callable[[Source], list[str]]] = {
    "organs_short": organs_short,
    "organs": organs,
    HELD_OUT: held_out_organs,
    "reached_short": reached_short,
    "reached": reached,
    "published": published_short,
}
"""Name of a region -> what makes its lines."""


def _measure(part: Part, measure: str) -> str:
    return part.measures[measure] + (", ml" if measure == IN_ML else "")


_LEFT_OUT = (
    "Where an organ was left out, the third network was trained again without its pictures and those of its relatives, "
    "on components of features that were fitted once, without labels, on all pictures that may be shipped; "
    "the first two are the shipped ones."
)


def _means_of(part: Part) -> tuple[str, ...]:
    """The means that a part has."""
    return tuple(name for name in (ALL, UNTRAINED) if name in part.sets)


def _mean_rows(part: Part, names: Sequence[str], variants: Mapping[str, str]) -> list[list[str]]:
    """A row for every mean and variant, with the interval over sets."""
    return [
        [
            part.sets[name].title if first else "",
            title,
            *(cell_over_sets(measure, part.find(name, measure, variant)) for measure in ORGAN_MEASURES),
        ]
        for name in names
        for first, (variant, title) in _first_marked(variants)
    ]


def _mean_table(part: Part, rows: Sequence[Sequence[str]]) -> list[str]:
    return table(["", "", *(part.measures[measure] for measure in ORGAN_MEASURES)], rows)


def _first_marked(variants: Mapping[str, str]) -> Iterator[tuple[bool, tuple[str, str]]]:
    for index, pair in enumerate(variants.items()):
        yield not index, pair


def _organ_table(part: Part, variants: Mapping[str, str]) -> list[str]:
    """A row for every set and variant, the means first."""
    rows = [
        [
            f"{where.title} ({where.images})" if first else "",
            title,
            *(cell(measure, part.find(name, measure, variant)) for measure in ORGAN_MEASURES),
        ]
        for name, where in part.sets.items()
        for first, (variant, title) in _first_marked(variants)
    ]
    return table(["set (images)", "", *(part.measures[measure] for measure in ORGAN_MEASURES)], rows)


def _verdict(part: Part, name: str, variant: str) -> str:
    """Whether the model is above the baseline, a sentence that follows from the numbers."""
    groups: dict[str, list[str]] = {"surely": [], "perhaps": [], "not": []}
    for measure in ORGAN_MEASURES:
        part.value(name, measure, variant)
        above = part.find(name, measure, ABOVE)
        kind = "surely" if above is None else "perhaps" if (above.value or 0) > 0 else "not"
        groups[kind].append(part.measures[measure])
    words = {
        "surely": "surely above {baseline} in {measures}",
        "perhaps": "above {baseline} by no more than chance explains in {measures}",
        "not": "**not above {baseline} in {measures}**",
    }
    said: list[str] = []
    for kind, measures in groups.items():
        if measures:
            baseline = "it" if said else "the centre of the body"
            said.append(words[kind].format(baseline=baseline, measures=listed(measures)))
    return f"Over {part.sets[name].title} the model is {'; '.join(said)}."
