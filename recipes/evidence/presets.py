"""The lines that ``anomalyclip localize`` prints of a preset: what was measured of the model on such images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from anomalyclip_monai.outputs.report.numbers import number
from recipes.evidence.parts import BODY, SHIPPED, TRIVIAL
from recipes.evidence.schema import Evidence, Part
from recipes.evidence.texts import IN_ML, listed, of_the_paper

SHOWN_BY: Mapping[str, tuple[str, ...]] = {
    "mr_brain": ("brain_tumour_mr_brisc", "brain_tumour_mr_figshare"),
    "mr_body": ("breast_dce_mr", "nasopharynx_mr", "pancreas_mr", "prostate_mr"),
    "ct_head": ("stroke_ct_aisd", "stroke_ct_cpaisd", "stroke_ct_rt"),
    "ct_abdomen": ("kidney_stone_ct", "kidney_tumour_ct"),
    "ct_chest": ("lung_tumour_ct",),
    "colonoscopy": ("polyp_etis",),
    "ultrasound": ("breast_us_busbra", "liver_us", "ovary_us"),
    "skin": ("skin_ham10000",),
    "photo": ("fundus_exudates", "lymph_node_histology"),
}
"""Preset -> the sets of organs that hold such images, as photos of slices and frames."""

IN_LESION = {"slice_pointing": "brightest pixel of a slice in the lesion", "pointing": "brightest pixel in the lesion"}


def preset_lines(evidence: Evidence, *, fast: bool = False) -> dict[str, str]:
    """Preset -> line, of the shipped model or of its first network alone.

    Raises:
        KeyError: a number that it needs was not measured.
    """
    suffix = "_fast" if fast else ""
    sets = evidence.part(f"embedded{suffix}")
    organs = evidence.part(f"organs{suffix}")
    return {
        preset: "; ".join(filter(None, (words(sets), _organs(organs, SHOWN_BY.get(preset, ())), _LIMITS.get(preset))))
        for preset, words in _WORDS.items()
    }


def published_lines() -> dict[str, str]:
    """The same of a bundle whose model was measured by its authors alone."""
    image, pixel = "image AUROC {} on {}", "pixel AUROC {} on {}"
    colon = (("clinicdb", "CVC-ClinicDB"), ("colondb", "CVC-ColonDB"), ("kvasir", "Kvasir"))
    frames = [f"{of_the_paper(name, 'pixel_auroc')} on {title}" for name, title in colon]
    said = {
        "mr_brain": image.format(of_the_paper("brainmri", "image_auroc"), "MR slices as photos (BrainMRI)"),
        "ct_head": image.format(of_the_paper("headct", "image_auroc"), "photos of CT slices (HeadCT)"),
        "colonoscopy": f"pixel AUROC {listed(frames)}",
        "skin": pixel.format(of_the_paper("isic", "pixel_auroc"), "ISIC"),
    }
    lines = {
        preset: "not measured here"
        + (f"; the paper reports {said[preset]}, prompts trained on MVTec AD" if preset in said else "")
        for preset in _WORDS
    }
    return lines | {"photo": f"not measured here; depends on what it shows: see the presets {', '.join(said)}"}


def _said(part: Part, where: str, *measures: str) -> str:
    """``image AUROC 89.4``, several with commas; in hundredths."""
    values = ((measure, part.value(where, measure, SHIPPED)) for measure in measures)
    return ", ".join(_in_words(part, measure, number(measure, value)) for measure, value in values)


def _in_words(part: Part, measure: str, value: str) -> str:
    if measure in IN_LESION:
        return f"{IN_LESION[measure]} in {value} %"
    return f"{'Dice' if measure == 'dice' else part.measures[measure]} {value}"


def _count(part: Part, where: str, unit: str) -> str:
    images = part.sets[where].images
    return f"{images} {unit}" + ("" if images == 1 else "s")


def _organs(part: Part, names: Sequence[str]) -> str:
    """The mean over some of the sets of organs, beside the baseline."""
    if not names:
        return ""

    def mean(measure: str, variant: str) -> str:
        return number(measure, fmean(part.value(name, measure, variant) for name in names))

    titles = [part.sets[name].title for name in names]
    images = sum(part.sets[name].images for name in names)
    return (
        f"{images} images of {listed(titles)}: pixel AUROC {mean('pixel_auroc', SHIPPED)} "
        f"(centre of the body {mean('pixel_auroc', BODY)}), {_in_words(part, 'pointing', mean('pointing', SHIPPED))}"
    )


def _brain(part: Part) -> str:
    heads = part.sets["normal_volumes"].images
    return "; ".join(
        (
            f"other patients' gliomas ({_count(part, 'lgg', 'FLAIR volume')}): "
            f"{_said(part, 'lgg', 'slice_pointing', 'dice')}",
            f"multiple sclerosis ({_count(part, 'open_ms', 'volume')}): {_said(part, 'open_ms', 'dice')}",
            f"{heads} healthy heads: {number(IN_ML, part.value('normal_volumes', IN_ML, SHIPPED))} ml marked",
            _slices(part),
        )
    )


def _slices(part: Part) -> str:
    return f"MR slices as photos ({part.sets['brainmri'].images}): {_said(part, 'brainmri', 'image_auroc')}"


_LIMITS: Mapping[str, str] = {
    "mr_brain": "misses small lesions",
    "ct_head": "misses blood in the ventricles; mask not measured",
    "ct_abdomen": "no whole CT of an abdomen measured",
    "ct_chest": "no whole CT of a chest measured",
    "colonoscopy": "misses small flat polyps",
}
"""What was seen on single images, beside the numbers."""

_WORDS: Mapping[str, Callable[[Part], str]] = {
    "mr_brain": _brain,
    "mr_body": lambda part: f"one unseen thigh sarcoma (T1): {_said(part, 'sarcoma_mr', 'slice_pointing', 'dice')}",
    "ct_head": lambda part: (
        f"unseen haemorrhages ({_count(part, 'headct', 'slice')}): {_said(part, 'headct', 'image_auroc')}"
    ),
    "ct_abdomen": lambda part: f"one unseen thigh sarcoma: {_said(part, 'sarcoma_ct', 'slice_pointing', 'dice')}",
    "ct_chest": lambda _: "",
    "xray_chest": lambda _: "trained on normal children's radiographs only, not measured on any lesion",
    "colonoscopy": lambda part: (
        f"polyps of another hospital ({_count(part, 'colondb', 'frame')}): "
        f"{_said(part, 'colondb', 'pixel_auroc', 'dice')}"
    ),
    "ultrasound": lambda part: (
        f"other patients' breast lesions ({_count(part, 'busi', 'image')}): "
        f"{_said(part, 'busi', 'pointing', 'image_auroc')}"
    ),
    "skin": lambda part: (
        f"{_count(part, 'isic', 'image')} of ISIC: {_said(part, 'isic', 'pixel_auroc')} (centre prior or brightness "
        f"{number('pixel_auroc', part.value('isic', 'pixel_auroc', TRIVIAL))}), {_said(part, 'isic', 'pointing')}"
    ),
    "photo": lambda part: f"depends on what it shows: see the presets colonoscopy, ultrasound, skin; {_slices(part)}",
}
"""Preset -> what the sets of the embedded model's benchmark say of it."""
