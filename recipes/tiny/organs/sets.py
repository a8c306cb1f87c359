"""The training sets of many organs: where they are, what may be shipped of them, and which are related to what."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from anomalyclip_monai.data.photo import FORMATS
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.types import PathLike
from recipes.tiny.sources import VALIDATION_PERCENT, Picture

COLOUR = 6.0
"""Mean difference of red and blue, of 255, above which a picture is one in colours."""

FIELD = 0.05
"""Share of the brightest smoothed pixel above which a picture shows something."""

TWICE = frozenset({"ISIC_0012254", "ISIC_0013232"})
"""Pictures of ``isic2017_skin`` that are in ``isic_images_256`` as well, where they are left out."""


@dataclass(frozen=True, slots=True)
class OrganSet:
    """One set of pictures.

    Attributes:
        name: of the set; also its folder below ``more``, unless ``images`` says another.
        lesions: whether its masks mark lesions; else it has none that anybody knows.
        images: folder of the pictures below the data folder.
        masks: folder of the masks.
        patient: what in a file's stem names the patient; all of it where it is empty.
        one_side: it has so few patients that all of them train.
        shipped: whether the shipped weights may see it.
        centred: the lesion is always in the middle, so that the picture is never shown whole.
    """

    name: str
    lesions: bool = True
    images: str = ""
    masks: str = ""
    patient: str = ""
    one_side: bool = False
    shipped: bool = True
    centred: bool = False

    def files(self, root: Path) -> list[Path]:
        """The pictures, in order."""
        folder = root / (self.images or f"more/{self.name}/images")
        return sorted(path for path in folder.glob("*.*") if self.name != "isic_256" or path.stem not in TWICE)

    def mask(self, root: Path, image: Path) -> Path | None:
        """The mask of a picture; None where it has none."""
        folder = root / (self.masks or f"more/{self.name}/masks")
        return next((path for ending in (".png", ".jpg") if (path := folder / f"{image.stem}{ending}").is_file()), None)

    def patient_of(self, image: Path) -> str:
        """The unit of the split."""
        found = re.search(self.patient, image.stem) if self.patient else None
        return found.group() if found else image.stem

    def validates(self, image: Path) -> bool:
        """Whether a picture is held out."""
        if self.one_side:
            return False
        digest = hashlib.sha256(self.patient_of(image).encode()).hexdigest()
        return int(digest, 16) % 100 < VALIDATION_PERCENT


SETS = (
    OrganSet("fracatlas_fracture_xr", patient=r"IMG00023(?=\d\d$)|IMG\d+"),
    OrganSet("cdd_cesm_mammogram", patient=r"^P\d+"),
    OrganSet("idrid_lesions_fundus"),
    OrganSet("edd2020_endoscopy", shipped=False),
    OrganSet("msd_hepaticvessel_liver_tumour_ct", patient=r"^\d+", shipped=False),
    OrganSet("msd_lung_tumour_ct", patient=r"^\d+", shipped=False),
    OrganSet("utsw_glioma_t2", patient=r"^\d+"),
    OrganSet("soop_stroke_flair", patient=r"^sub-\d+"),
    OrganSet("brest_usg_tcia"),
    OrganSet("rings_prostate_histology", patient=r"^P\d+", one_side=True),
    OrganSet("ocdc_oral_histology", one_side=True),
    OrganSet("isic2017_skin"),
    OrganSet("lidc_nodule_ct_crops", patient=r"(?<=LIDC-IDRI-)\d+", centred=True),
    OrganSet("lidc_nodule_ct", patient=r"^\d+"),
    OrganSet("isic_256", images="isic_images_256", masks="isic_masks_256"),
    OrganSet("ms_flair", images="ms_flair/images", masks="ms_flair/masks"),
    OrganSet(
        "head_ct_haemorrhage", images="head_ct_haemorrhage/images", masks="head_ct_haemorrhage/masks", one_side=True
    ),
    OrganSet("healthy_fracatlas_xr", lesions=False),
    OrganSet("healthy_idrid_fundus", lesions=False),
    OrganSet("healthy_pancreas_ct", lesions=False),
    OrganSet("healthy_spleen_ct", lesions=False, shipped=False),
    OrganSet("healthy_heart_ct_aorta", lesions=False, one_side=True),
    OrganSet("healthy_kidney_t2w", lesions=False, patient=r"^\d+"),
    OrganSet("healthy_knee_mr", lesions=False, one_side=True),
    OrganSet("healthy_lumbar_spine_mr", lesions=False, patient=r"^\d+"),
    OrganSet("healthy_carotid_us", lesions=False, patient=r"^\d+VAS"),
    OrganSet("healthy_fetal_head_us", lesions=False),
)
"""Every set of pictures; volumes and colonoscopy come from :mod:`recipes.tiny.sources`."""

DOMAIN_SETS: Mapping[str, str] = {
    "open_ms": "mr_brain",
    "normal_volumes": "mr_brain",
    "normal_heads_dcmqa": "mr_brain",
    "mbh_ct_hemorrhage": "ct_head",
    "head_ct_slices": "ct_head",
    "kvasir_256": "colonoscopy",
    "busi": "ultrasound",
    "chest_xray_normal_224": "xray",
    "abdomen_mr": "mr_body",
}
"""Set -> the domain of :mod:`recipes.tiny.sources` that goes with it when it is left out."""

FIRST_LESIONS = ("sts_sarcoma", "open_ms", "mbh_ct_hemorrhage", "kvasir_256", "busi")
"""Sets with lesions that the first two networks saw. The third saw them too, but for the last one: its authors state
no licence."""

FIRST_ORGANS = ("brain", "stroke_ct", "breast_us", "polyp")
"""Organs, as measured sets begin, whose lesions those show: networks that nobody trains again where an organ is left
out. Breast MR is none of them: what they saw of breasts was ultrasound, and MR without labels."""

RELATIVES: Mapping[str, tuple[str, ...]] = {
    "bone_ct": ("fracatlas_fracture_xr", "healthy_fracatlas_xr"),
    "brain_tumour_mr_brisc": (
        "utsw_glioma_t2", "soop_stroke_flair", "ms_flair", "open_ms", "normal_volumes", "normal_heads_dcmqa"
    ),
    "brain_tumour_mr_figshare": (
        "utsw_glioma_t2", "soop_stroke_flair", "ms_flair", "open_ms", "normal_volumes", "normal_heads_dcmqa"
    ),
    "breast_dce_mr": ("cdd_cesm_mammogram", "brest_usg_tcia", "busi", "breast_dce"),
    "breast_us_busbra": ("cdd_cesm_mammogram", "brest_usg_tcia", "busi", "breast_dce"),
    "fundus_exudates": ("idrid_lesions_fundus", "healthy_idrid_fundus"),
    "kidney_stone_ct": ("healthy_kidney_t2w",),
    "kidney_tumour_ct": ("healthy_kidney_t2w",),
    "liver_us": ("msd_hepaticvessel_liver_tumour_ct", "ct_abdomen_crlm", "healthy_spleen_ct"),
    "lung_tumour_ct": ("lidc_nodule_ct", "lidc_nodule_ct_crops", "msd_lung_tumour_ct", "chest_xray_normal_224"),
    "lymph_node_histology": ("rings_prostate_histology", "ocdc_oral_histology"),
    "nasopharynx_mr": (),
    "ovary_us": (),
    "pancreas_mr": ("healthy_pancreas_ct",),
    "polyp_etis": ("kvasir_256", "edd2020_endoscopy"),
    "prostate_mr": ("rings_prostate_histology",),
    "skin_ham10000": ("isic2017_skin", "isic_256"),
    "stroke_ct_aisd": ("mbh_ct_hemorrhage", "head_ct_haemorrhage", "head_ct_slices", "soop_stroke_flair"),
    "stroke_ct_cpaisd": ("mbh_ct_hemorrhage", "head_ct_haemorrhage", "head_ct_slices", "soop_stroke_flair"),
    "stroke_ct_rt": ("mbh_ct_hemorrhage", "head_ct_haemorrhage", "head_ct_slices", "soop_stroke_flair"),
}  # fmt: skip
"""Measured set -> the training sets of its organ, which go with it when "organ never trained on" is measured."""


FOLDS: Mapping[str, tuple[str, ...]] = {
    "nothing": ("nasopharynx_mr", "ovary_us"),
    "bone_kidney_pancreas": ("bone_ct", "kidney_stone_ct", "kidney_tumour_ct", "pancreas_mr"),
    "breast_liver": ("breast_dce_mr", "liver_us"),
    "eye_histology_prostate": ("fundus_exudates", "lymph_node_histology", "prostate_mr"),
    "lung_skin": ("lung_tumour_ct", "skin_ham10000"),
    "brain_stroke_breast_colon": (
        "brain_tumour_mr_brisc", "brain_tumour_mr_figshare", "breast_us_busbra", "polyp_etis",
        "stroke_ct_aisd", "stroke_ct_cpaisd", "stroke_ct_rt",
    ),
}  # fmt: skip
"""What a training goes without -> the sets that are measured with it: every one of :data:`RELATIVES` once."""


def left_out(measured: Collection[str]) -> frozenset[str]:
    """The training sets that go with measured sets.

    Raises:
        UsageError: one is none of :data:`RELATIVES` (``E_OPTION``).
    """
    if strange := sorted(set(measured) - set(RELATIVES)):
        raise UsageError("E_OPTION", f"no measured set is called {strange[0]}", None, f"give {', '.join(RELATIVES)}")
    return frozenset(name for one in measured for name in RELATIVES[one])


def with_domains(sets: Collection[str]) -> frozenset[str]:
    """These sets, and the domains of :mod:`recipes.tiny.sources` that go with them."""
    return frozenset(sets) | {DOMAIN_SETS[name] for name in sets if name in DOMAIN_SETS}


def not_shipped() -> frozenset[str]:
    """The sets that shipped weights may not see."""
    return frozenset(one.name for one in SETS if not one.shipped)


def fingerprint(root: PathLike) -> dict[str, str]:
    """Set -> sha256 over the names and contents of its pictures and masks, for the sets that are there."""
    found = {}
    for one in SETS:
        digest = hashlib.sha256()
        files = one.files(Path(root))
        for file in (part for image in files for part in (image, one.mask(Path(root), image)) if part):
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
        if files:
            found[one.name] = digest.hexdigest()
    return found


def read(root: PathLike, one: OrganSet) -> Iterator[tuple[Path, Picture]]:
    """The pictures of a set with their lesions and where synthetic ones may lie.

    A picture of a lesion set that has no mask shows a lesion that nobody drew: all of it is unknown.
    """
    root = Path(root)
    for file in one.files(root):
        yield file, read_picture(file, one.mask(root, file), lesions=one.lesions)


def read_picture(file: Path, mask: Path | None, *, lesions: bool = True) -> Picture:
    """A picture with its mask; (H, W, 1) where its colours are greys."""
    image = np.asarray(Image.open(file, formats=FORMATS).convert("RGB"))
    if np.abs(image[..., 0].astype(np.int16) - image[..., 2]).mean() <= COLOUR:
        image = image.mean(axis=2, keepdims=True).round().astype(np.uint8)
    height, width = image.shape[:2]
    if mask is None:
        lesion = np.full((height, width), 2 if lesions else 0, dtype=np.uint8)
    else:
        drawn = Image.open(mask, formats=FORMATS).convert("L").resize((width, height), Image.Resampling.NEAREST)
        lesion = (np.asarray(drawn) > 127).astype(np.uint8)
    return Picture(image, lesion, field(image).astype(np.uint8))


def field(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W, C) -> (H, W), where something is seen."""
    smooth = ndimage.uniform_filter(image.mean(axis=2), 9)
    shown: NDArray[np.bool_] = smooth > FIELD * max(float(smooth.max()), 1.0)
    return shown
