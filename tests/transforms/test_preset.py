from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from anomalyclip_monai import resources
from anomalyclip_monai.data import Source
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.transforms import ApplyPreset, ApplyPresetd, Preset
from anomalyclip_monai.transforms.preset import choose_preset

NIFTI = Source("nifti")


def _volume(low: float, high: float, shape: tuple[int, int, int] = (4, 5, 6)) -> torch.Tensor:
    data = torch.linspace(low, high, int(np.prod(shape))).reshape(1, *shape)
    return data


# --- the installed tables


def test_every_modality_has_a_preset() -> None:
    assert resources.presets() == sorted(
        ["mr_brain", "mr_body", "ct_head", "ct_abdomen", "ct_chest", "colonoscopy", "xray_chest", "ultrasound", "skin",
         "photo"]
    )  # fmt: skip


@pytest.mark.parametrize("name", resources.presets())
def test_every_file_is_a_valid_preset_with_a_reason(name: str) -> None:
    overlay = resources.read_overlay(resources.preset_overlay(name))
    assert overlay["preset"] == name
    preset = Preset.from_table(name, overlay["preset_table"])
    assert preset.reason
    low, high = preset.limits(_volume(0, 1000))
    assert low < high


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("ct_head", 0, 80),
        ("ct_abdomen", -160, 240),
        ("ct_chest", -1350, 150),
        ("colonoscopy", 0, 255),
        ("photo", 0, 255),
    ],
)
def test_fixed_limits(name: str, low: float, high: float) -> None:
    assert Preset.from_table(name, resources.preset_table(name)).limits(_volume(-9, 9)) == (low, high)


# --- limits by hand


def test_window() -> None:
    preset = Preset("mine", "window", window_center=100, window_width=300)
    assert preset.limits(_volume(0, 1)) == (-50, 250)


def test_percentile_of_the_foreground() -> None:
    # a thousand voxels of air, then 1 to 1000: mean 250.25, foreground above 75.075
    data = torch.cat([torch.zeros(1000), torch.arange(1.0, 1001.0)])
    preset = Preset("mine", "percentile", upper_percentile=99.8, foreground_fraction=0.3)
    # 925 values from 76 to 1000: the percentile lies at position .998 * 924 = 922.152
    assert preset.limits(data) == (0, pytest.approx(998.152))
    everything = Preset("mine", "percentile", upper_percentile=50, foreground_fraction=0)
    assert everything.limits(data) == (0, pytest.approx(500.5))


@pytest.mark.parametrize("data", [torch.zeros(9), torch.full((9,), -5.0)])
def test_nothing_to_take_a_percentile_of(data: torch.Tensor) -> None:
    low, high = Preset("mine", "percentile").limits(data)
    assert low == 0
    assert high > 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"scaling": "window", "window": 80, "level": 40}, "unknown entries: level, window"),
        ({"scaling": "zscore"}, "scaling 'zscore'"),
        ({}, "scaling None"),
        ({"scaling": "window", "window_width": 0}, "empty range"),
        ({"scaling": "range", "lower": 5, "upper": 5}, "empty range"),
        ({"scaling": "percentile", "upper_percentile": 101}, "empty range"),
        ({"scaling": "percentile", "upper_percentile": 0}, "empty range"),
        ({"scaling": "window", "window_width": "wide"}, "window_width"),
        ({"scaling": "window", "window_center": None}, "window_center"),
        ({"scaling": "window", "window_width": float("nan")}, "window_width nan"),
        ({"scaling": "window", "window_center": float("inf")}, "window_center inf"),
    ],
)
def test_tables_that_are_none(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Preset.from_table("mine", table)
    assert caught.value.code == "E_PRESET"


def test_unknown_preset_names_the_known() -> None:
    with pytest.raises(UsageError, match=r"^E_PRESET: no preset 'mri' - choose from: auto, colonoscopy, ct_abdomen"):
        ApplyPreset("mri")


@pytest.mark.parametrize("content", ["[", "just text", "preset: mine", "preset_table: 3"])
def test_files_that_are_no_presets(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(UsageError) as caught:
        resources.read_overlay(tmp_path / "mine.yaml")
    assert caught.value.code == "E_PRESET"
    assert "\n" not in str(caught.value)


# --- applying


def test_values_are_scaled_and_clamped_in_float32() -> None:
    data = torch.tensor([-1000, 0, 20, 80, 3000], dtype=torch.int16).reshape(1, 5, 1, 1)
    scaled, preset, reason = ApplyPreset("ct_head")(data, np.eye(4), NIFTI)
    assert scaled.ravel().tolist() == [0, 0, 0.25, 1, 1]
    assert scaled.dtype == torch.float32
    assert (preset.name, reason) == ("ct_head", "asked for")


def test_a_photo_is_a_displayed_picture_whatever_is_asked() -> None:
    data = torch.tensor([0.0, 51, 255]).reshape(1, 3, 1, 1)
    for name in ("auto", "ct_head", "mr_brain", "colonoscopy"):
        scaled, preset, _ = ApplyPreset(name)(data, np.eye(4), Source("photo", has_physical_size=False))
        np.testing.assert_allclose(scaled.ravel(), [0, 0.2, 1], atol=1e-7)
        assert preset.name == ("photo" if name == "auto" else name)


def test_a_table_of_ones_own() -> None:
    transform = ApplyPreset("mine", {"scaling": "range", "lower": -1, "upper": 3})
    scaled, preset, _ = transform(torch.zeros(1, 1, 1, 1), np.eye(4), NIFTI)
    assert scaled.item() == 0.25
    assert preset.name == "mine"


def test_dictionary_version_says_what_and_why() -> None:
    image = MetaTensor(_volume(0, 700), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    transform = ApplyPresetd(evidence={"mr_brain": "misses small lesions"})
    record = transform({"image": image, "source": NIFTI, "case": "a"})
    assert record["preset"] == {
        "name": "mr_brain",
        "scaling": "percentile",
        "chosen": "values from 0 to 700 are no CT numbers; MR of the head assumed",
        "evidence": "misses small lesions",
    }
    assert isinstance(record["image"], MetaTensor)
    assert torch.equal(record["image"].affine, image.affine)
    assert (record["image"].min(), record["image"].max()) == (0, 1)
    assert record["case"] == "a"
    assert ApplyPresetd()({"image": image})["preset"]["evidence"] == "not measured on such images"


# --- choosing


AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def _disc(ring: float, inside: float, outside: float = -1000.0) -> torch.Tensor:
    """(1, 80, 90, 6): a disc of 12 cm in a ring of 1 cm."""
    x, y = np.mgrid[:80, :90]
    radius = np.hypot(2 * (x - 40), 2 * (y - 45))[..., np.newaxis] + np.zeros(6)
    values = np.select([radius < 60, radius < 70], [inside, ring], outside)
    return torch.from_numpy(values.astype(np.float32))[None]


HEAD, BODY, MR = _disc(900, 35), _disc(-100, 55), _disc(60, 700, 0)


def test_by_values_where_a_file_does_not_say() -> None:
    assert choose_preset(NIFTI, HEAD, AFFINE) == (
        "ct_head",
        "values from -1000 to 900, 47 % of them like air or lung, look like CT; "
        "a closed ring of bone around brain in 6 of 6 slices looked at",
    )
    assert choose_preset(NIFTI, BODY, AFFINE) == (
        "ct_abdomen",
        "values from -1000 to 55, 47 % of them like air or lung, look like CT; no closed ring of bone around brain, "
        "taken for a body (--preset ct_head if it is a part of a head)",
    )
    assert choose_preset(NIFTI, MR, AFFINE) == (
        "mr_brain", "values from 0 to 700 are no CT numbers; MR of the head assumed"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("modality", "body_part", "data", "expected"),
    [
        ("CT", "BRAIN", BODY, "ct_head"),
        ("CT", "HEAD NECK", BODY, "ct_head"),
        ("CT", "CHEST", HEAD, "ct_chest"),
        ("CT", "ABDOMEN", HEAD, "ct_abdomen"),
        ("CT", "", HEAD, "ct_head"),
        ("CT", "", BODY, "ct_abdomen"),
        ("MR", "", BODY, "mr_brain"),
        ("MR", "BRAIN", BODY, "mr_brain"),
        ("MR", "LIVER", HEAD, "mr_body"),
        ("US", "BREAST", HEAD, "ultrasound"),
        ("ES", "", HEAD, "colonoscopy"),
        ("CR", "", HEAD, "xray_chest"),
        ("DX", "CHEST", HEAD, "xray_chest"),
        ("PT", "", HEAD, "mr_body"),
    ],
)
def test_by_what_dicom_says(modality: str, body_part: str, data: torch.Tensor, expected: str) -> None:
    source = Source("dicom", modality=modality, body_part=body_part)
    assert choose_preset(source, data, AFFINE)[0] == expected


def test_colour_of_an_unknown_modality_is_a_photo() -> None:
    name, reason = choose_preset(Source("dicom", modality="XC"), torch.zeros(3, 2, 2, 2), np.eye(4))
    assert (name, reason) == ("photo", "modality XC")


# --- what is said of a volume in which nothing can be seen


@pytest.mark.parametrize(
    ("data", "preset", "note"),
    [
        (_volume(1000, 2000), "ct_head", "0 % of the voxels are black and 100 % white"),
        (_volume(-900, -200), "ct_head", "100 % of the voxels are black and 0 % white"),
        (torch.where(MR == 60, 500, MR), "ct_head", "47 % of the voxels are black and 53 % white"),
        (torch.full((1, 4, 5, 6), 7.0), "mr_brain", "nothing is to be seen: all voxels have the value 7"),
        (MR, "mr_brain", None),
        (HEAD, "ct_head", None),
        (HEAD, "ct_abdomen", None),
    ],
)
def test_nothing_to_see(data: torch.Tensor, preset: str, note: str | None) -> None:
    record = ApplyPresetd(preset=preset)({"image": MetaTensor(data), "source": NIFTI, "notes": ["first"]})
    assert record["notes"][0] == "first"
    if note is None:
        assert record["notes"] == ["first"]
    else:
        assert note in record["notes"][1]
        assert record["notes"][1].startswith("nothing is to be seen: ")


def test_a_black_photo_is_a_photo() -> None:
    source = Source("photo", has_physical_size=False)
    record = ApplyPresetd()({"image": MetaTensor(torch.zeros(3, 4, 5, 1)), "source": source, "notes": []})
    assert record["notes"] == []


# --- in place, for what is too large to be held twice


@pytest.mark.parametrize(("preset", "data"), [("mr_brain", MR), ("ct_head", HEAD)])
def test_in_place_gives_the_same_and_takes_no_second_volume(preset: str, data: torch.Tensor) -> None:
    given = MetaTensor(data.clone(), affine=torch.from_numpy(AFFINE))
    expected = ApplyPresetd(preset=preset)({"image": given, "source": NIFTI})
    assert torch.equal(given.as_tensor(), data)  # which others may hold
    found = ApplyPresetd(preset=preset, inplace=True)({"image": given, "source": NIFTI})
    assert torch.equal(found["image"], expected["image"])
    assert torch.equal(found["image"].affine, given.affine)
    assert found["image"].data_ptr() == given.data_ptr()
    assert found["preset"] == expected["preset"]


def test_whole_numbers_are_never_scaled_in_place() -> None:
    data = torch.arange(0, 240, 2, dtype=torch.uint8).reshape(1, 4, 5, 6)
    found = ApplyPresetd(preset="photo", inplace=True)({"image": MetaTensor(data.clone())})["image"]
    torch.testing.assert_close(found.as_tensor(), data / 255)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_symmetric_is_true_or_false(value: object) -> None:
    with pytest.raises(UsageError, match="give true or false"):
        Preset.from_table("head", {"scaling": "percentile", "symmetric": value})


@pytest.mark.parametrize(("preset", "symmetric"), [("mr_brain", 1), ("ct_head", 1), ("mr_body", 0)])
def test_the_image_says_whether_left_and_right_are_alike(preset: str, symmetric: int) -> None:
    image = MetaTensor(torch.rand(1, 4, 5, 6))
    assert ApplyPresetd(preset=preset)({"image": image})["image"].meta["symmetric"] == symmetric
