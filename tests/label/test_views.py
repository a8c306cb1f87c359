"""What viewers get of a result: values, types, names, colours."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import anomalyclip_monai as ac
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.label.views import BAND_NAMES, BANDS, HEATMAP, MASK, VIEWS, bands, edges, write_nrrd
from anomalyclip_monai.transforms.findings import Threshold


def test_bands_are_the_mask_its_core_and_what_is_around_it():
    heatmap = np.array([[0.10, 0.25, 0.45, 0.70, 0.90, 0.90, 0.0]], np.float32)[..., None]
    mask = np.array([[0, 0, 1, 1, 1, 0, 0]], np.uint8)[..., None]
    found = bands(heatmap, mask, Threshold(0.6, 0.4, "given"))  # from .2, in the mask, in the mask from .8
    assert found[0, :, 0].tolist() == [0, 1, 2, 2, 3, 1, 0]
    assert np.array_equal(found >= 2, mask > 0)
    assert found.dtype == np.uint8


def test_nothing_is_mildly_abnormal_where_the_heatmap_is_zero():
    found = bands(np.zeros((1, 2, 1), np.float32), np.zeros((1, 2, 1), np.uint8), Threshold(0.6, 0.0, "given"))
    assert edges(Threshold(0.6, 0.0, "given")) == (0.0, 0.0, 0.8)
    assert not found.any()


def test_labels_are_numbered_without_a_gap():
    """3D Slicer takes the n-th label for the value n."""
    for view in VIEWS.values():
        assert list(view.labels.values()) == list(range(1, len(view.labels) + 1))


def ohif_colour(name: str) -> tuple[int, int, int]:
    """As OHIF's panel makes a colour of a label's name (its extension's GenericUtils)."""
    number = 4 * len(name) + sum(map(ord, name.lower()))
    return 2 * number % 256, 3 * number % 256, 5 * number % 256


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance of WCAG 2, 0 to 1."""
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour) / 255)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_are_seen_on_an_image():
    grey = luminance((128, 128, 128)) + 0.05
    marked = ohif_colour(*VIEWS[MASK].labels)
    assert (luminance(marked) + 0.05) / grey >= 3
    colours = [ohif_colour(name) for name in BAND_NAMES]
    assert min(map(luminance, colours)) > luminance((128, 128, 128))  # brighter than tissue
    apart = [np.abs(np.subtract(one, other)).max() for one in colours for other in colours if one != other]
    assert min(apart) >= 90


@pytest.mark.parametrize(
    ("name", "wanted", "dtype"),
    [(MASK, None, "uint8"), (BANDS, "uint16", "uint16"), (HEATMAP, "", "float32"), (HEATMAP, "float64", "float64")],
)
def test_types_that_hold_the_values(name, wanted, dtype):
    assert VIEWS[name].dtype(wanted) == np.dtype(dtype)


@pytest.mark.parametrize(
    ("name", "wanted"), [(HEATMAP, "uint8"), (HEATMAP, "int16"), (MASK, "nonsense"), (MASK, "U4"), (MASK, "object")]
)
def test_types_that_do_not_are_refused(name, wanted):
    with pytest.raises(UsageError, match=f"^E_OPTION: result_dtype '{wanted}' does not hold "):
        VIEWS[name].dtype(wanted)


def test_endings_that_are_not_written_are_refused():
    assert VIEWS[MASK].extension(None) == ".nii.gz"
    with pytest.raises(UsageError, match=r"E_OPTION: result_extension '\.mha' - choose from: \.nii\.gz, "):
        VIEWS[MASK].extension(".mha")


def test_no_two_answers_have_one_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    image = nib.Nifti1Image(np.random.default_rng(0).normal(300, 9, (40, 36, 3)), np.diag([2, 2, 5, 1]))
    result = ac.localize(image, fast=True)
    view = VIEWS[HEATMAP]
    files = [view.write(result, ".nii.gz", view.dtype(None)) for _ in range(2)]
    assert files[0] != files[1]
    assert [file.name[:21] for file in files] == ["anomaly_heatmap-case-"] * 2
    for file in files:
        assert np.array_equal(nib.load(file).get_fdata(dtype=np.float32), np.asarray(result.heatmap)[0])


@pytest.mark.skipif(importlib.util.find_spec("nrrd") is None, reason="pynrrd, of the extra label, is not installed")
def test_nrrd_has_the_axes_of_the_affine(tmp_path: Path, any_affine):
    import nrrd

    data = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_nrrd(tmp_path / "a.nrrd", data, any_affine)
    read, header = nrrd.read(str(tmp_path / "a.nrrd"), index_order="F")
    assert np.array_equal(read, data)
    last = header["space origin"] + np.array([1, 2, 3]) @ header["space directions"]
    assert np.allclose(last * [-1, -1, 1], (any_affine @ [1, 2, 3, 1])[:3])  # LPS to RAS
