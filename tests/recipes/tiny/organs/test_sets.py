"""Which pictures a training of many organs has, which are held out, and which go with an organ."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from anomalyclip_monai.exceptions import UsageError
from recipes.tiny.organs.sets import (
    DOMAIN_SETS,
    FIRST_ORGANS,
    FOLDS,
    RELATIVES,
    SETS,
    TWICE,
    OrganSet,
    fingerprint,
    left_out,
    not_shipped,
    read,
    with_domains,
)
from recipes.tiny.sources import FOLDERS

WritePhoto = Callable[..., Path]

NAMED = {one.name: one for one in SETS}

MEASURED = {
    "bone_ct", "brain_tumour_mr_brisc", "brain_tumour_mr_figshare", "breast_dce_mr", "breast_us_busbra",
    "fundus_exudates", "kidney_stone_ct", "kidney_tumour_ct", "liver_us", "lung_tumour_ct", "lymph_node_histology",
    "nasopharynx_mr", "ovary_us", "pancreas_mr", "polyp_etis", "prostate_mr", "skin_ham10000", "stroke_ct_aisd",
    "stroke_ct_cpaisd", "stroke_ct_rt",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "one_patient", "another"),
    [
        ("fracatlas_fracture_xr", ["hand_IMG0002301", "hand_IMG0002377"], "hand_IMG0001007"),  # one series of pictures
        ("cdd_cesm_mammogram", ["P105_R_CM_CC", "P105_L_DM_MLO"], "P10_R_CM_CC"),
        ("utsw_glioma_t2", ["1012_40", "1012_8"], "101_40"),
        ("soop_stroke_flair", ["sub-108_ax", "sub-108_cor"], "sub-1086_ax"),
        ("lidc_nodule_ct_crops", ["LIDC-IDRI-0001_nodule-0_slice-4", "LIDC-IDRI-0001_nodule-3_slice-9"], "LIDC-IDRI-1"),
        ("healthy_carotid_us", ["202201121748100022VAS_slice_1", "202201121748100022VAS_slice_2"], "2VAS_slice_1"),
    ],
)
def test_all_pictures_of_a_patient_are_on_one_side(name: str, one_patient: list[str], another: str) -> None:
    patients = [NAMED[name].patient_of(Path(f"{stem}.jpg")) for stem in (*one_patient, another)]
    assert patients[0] == patients[1] != patients[2]
    first, second = (NAMED[name].validates(Path(f"{stem}.jpg")) for stem in one_patient)
    assert first == second


def test_both_sets_of_lung_nodules_hold_out_the_same_patients() -> None:
    whole, crops = NAMED["lidc_nodule_ct"], NAMED["lidc_nodule_ct_crops"]
    sides = [
        (whole.validates(Path(f"{n:04}_60.jpg")), crops.validates(Path(f"LIDC-IDRI-{n:04}_nodule-0_slice-4.jpg")))
        for n in range(60)
    ]
    assert all(first == second for first, second in sides)
    assert {first for first, _ in sides} == {True, False}


def test_about_fifteen_per_cent_are_held_out_but_of_sets_of_few_patients_none() -> None:
    files = [Path(f"P{number}_x.jpg") for number in range(1000)]
    assert 120 < sum(NAMED["idrid_lesions_fundus"].validates(file) for file in files) < 180
    assert not any(NAMED["rings_prostate_histology"].validates(file) for file in files)


def test_pictures_that_are_there_twice_count_once(tmp_path: Path, write_photo: WritePhoto) -> None:
    for stem in (*TWICE, "ISIC_1"):
        write_photo(f"isic_images_256/{stem}.jpg", np.zeros((9, 12, 3)))
        write_photo(f"more/isic2017_skin/images/{stem}.jpg", np.zeros((9, 12, 3)))
    assert [file.stem for file in NAMED["isic_256"].files(tmp_path)] == ["ISIC_1"]
    assert len(NAMED["isic2017_skin"].files(tmp_path)) == 3


def test_every_measured_set_has_relatives_and_is_in_one_fold() -> None:
    assert set(RELATIVES) == MEASURED
    assert sorted(chain(*FOLDS.values())) == sorted(MEASURED)


@pytest.mark.parametrize("fold", FOLDS)
def test_no_relative_of_what_a_fold_measures_trains_it(fold: str) -> None:
    gone = with_domains(left_out(FOLDS[fold]))
    trained = {one.name for one in SETS} | {*FOLDERS} | {*DOMAIN_SETS.values()}
    relatives = {name for measured in FOLDS[fold] for name in RELATIVES[measured]}
    domains = {DOMAIN_SETS[name] for name in relatives & set(DOMAIN_SETS)}
    assert not (trained - gone) & (relatives | domains)
    assert trained - gone  # something is left to learn from


def test_sets_that_the_first_two_networks_learned_lesions_of_are_a_fold_of_their_own() -> None:
    seen = {name for name in MEASURED if name.startswith(FIRST_ORGANS)}
    assert seen == set(FOLDS["brain_stroke_breast_colon"])
    assert len(MEASURED - seen) == 13


def test_a_set_that_nobody_measures_cannot_be_left_out() -> None:
    with pytest.raises(UsageError, match="E_OPTION: no measured set is called liver - give bone_ct, "):
        left_out(["liver"])


def test_the_domain_of_a_set_goes_with_it() -> None:
    assert with_domains(["kvasir_256", "edd2020_endoscopy"]) == {"kvasir_256", "edd2020_endoscopy", "colonoscopy"}


def test_some_sets_may_not_be_shipped() -> None:
    assert not_shipped() == {
        "edd2020_endoscopy",
        "msd_hepaticvessel_liver_tumour_ct",
        "msd_lung_tumour_ct",
        "healthy_spleen_ct",
    }


def test_masks_say_what_is_known(tmp_path: Path, write_photo: WritePhoto) -> None:
    grey, mask = np.full((20, 30, 3), 90), np.zeros((10, 15))
    mask[2:4, 5:8] = 255  # half the size of the picture, as some sets have it
    for stem in "ab":
        write_photo(f"more/made/images/{stem}.png", grey)
    write_photo("more/made/masks/a.png", mask)
    drawn, undrawn = (picture for _, picture in read(tmp_path, OrganSet("made")))
    assert drawn.image.shape == (20, 30, 1)
    assert np.argwhere(drawn.lesion == 1).min(axis=0).tolist() == [4, 10]
    assert (drawn.lesion == 1).sum() == 4 * 6
    assert (undrawn.lesion == 2).all()
    healthy = [picture for _, picture in read(tmp_path, OrganSet("made", lesions=False))]
    assert (healthy[1].lesion == 0).all()


def test_colours_are_kept_where_there_are_any(tmp_path: Path, write_photo: WritePhoto) -> None:
    colours = np.zeros((20, 30, 3))
    colours[:, 15:] = (120, 60, 40)
    write_photo("more/made/images/a.png", colours)
    ((_, picture),) = read(tmp_path, OrganSet("made", lesions=False))
    assert picture.image.shape == (20, 30, 3)
    assert not picture.tissue[:, :9].any()  # nothing is seen there
    assert picture.tissue[:, 16:].all()


def test_the_fingerprint_follows_pictures_and_masks(tmp_path: Path, write_photo: WritePhoto) -> None:
    write_photo("more/brest_usg_tcia/images/a.png", np.zeros((9, 12)))
    before = fingerprint(tmp_path)
    assert list(before) == ["brest_usg_tcia"]
    write_photo("more/brest_usg_tcia/masks/a.png", np.zeros((9, 12)))
    assert fingerprint(tmp_path) != before
