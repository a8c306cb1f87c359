from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from anomalyclip_monai.data.geometry import (
    SliceView,
    check_plausible,
    closest_axes,
    is_sheared,
    plane_distance,
    resolve_slice_axis,
    spacing,
    voxel_volume,
)
from anomalyclip_monai.exceptions import CaseError

CUBE = (200, 210, 220)
"""No axis has fewer than half the samples of the others."""


def _affine(*size: float) -> np.ndarray:
    return np.diag([*size, 1.0])


# --- measures, by hand


def test_measures_of_a_sheared_affine() -> None:
    # slices 4 mm apart along S, each shifted 3 mm to the right: 5 mm from voxel to voxel
    affine = np.array([[2.0, 0, 3, 7], [0, 1, 0, 8], [0, 0, 4, 9], [0, 0, 0, 1]])
    assert spacing(affine).tolist() == [2, 1, 5]
    assert plane_distance(affine, 2) == pytest.approx(4)
    assert plane_distance(affine, 0) == pytest.approx(1.6)  # 2 mm, cut at 3:4:5
    assert plane_distance(affine, 1) == pytest.approx(1)
    assert voxel_volume(affine) == pytest.approx(8)
    assert is_sheared(affine)
    assert voxel_volume(_affine(-2, 3, 4)) == pytest.approx(24)


def test_only_the_sheared_affine_is_sheared(affines: dict[str, np.ndarray]) -> None:
    assert {name for name, affine in affines.items() if is_sheared(affine)} == {"sheared"}


def test_closest_axes(affines: dict[str, np.ndarray]) -> None:
    assert closest_axes(affines["oblique"]).tolist() == [[0, -1], [1, -1], [2, 1]]
    assert closest_axes(affines["sagittal"]).tolist() == [[1, -1], [2, -1], [0, -1]]
    with pytest.raises(ValueError, match="no three independent axes"):
        closest_axes(np.diag([1.0, 1, 0, 1]))


@pytest.mark.parametrize(
    ("size", "shape"), [((0.01, 0.01, 50), (9, 9, 60)), ((0.8, 0.8, 3), (512, 512, 1000)), ((1e-2, 1, 1), (1, 1, 3000))]
)
def test_sizes_that_a_scan_can_have(size: tuple[float, ...], shape: tuple[int, ...]) -> None:
    affine = _affine(*np.float32(size))  # .01 as a header stores it is a little less
    assert check_plausible(affine, shape) is affine


@pytest.mark.parametrize(
    ("size", "shape", "unit", "way_out"),
    [
        ((0.001, 0.001, 0.005), CUBE, "millimetres", "if its numbers are metres, not millimetres, correct its unit"),
        ((900, 900, 5000), CUBE, "millimetres", "if its numbers are micrometres, not millimetres, correct its unit"),
        ((900, 900, 5000), CUBE, "metres", "if its numbers are millimetres, not metres, correct its unit"),
        ((0.0009, 0.0009, 0.005), CUBE, "micrometres", "if its numbers are millimetres, not micrometres"),
        ((1, 1, 51), CUBE, "millimetres", "check the header"),
        ((0.009, 9, 40), CUBE, "millimetres", "check the header"),
        ((1, 1, 5), (200, 200, 601), "millimetres", "check the header"),
        ((1, 1, float("nan")), CUBE, "millimetres", "check the header"),
    ],
)
def test_sizes_that_no_scan_has(size: tuple[float, ...], shape: tuple[int, ...], unit: str, way_out: str) -> None:
    with pytest.raises(CaseError) as caught:
        check_plausible(_affine(*size), shape, None, unit)
    assert caught.value.code == "E_GEOMETRY"
    assert way_out in str(caught.value)


# --- the slice axis, rule by rule


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_clearly_coarsest_axis_comes_first(axis: int) -> None:
    size = [0.8, 1.0, 0.9]
    size[axis] = 1.5 * max(s for a, s in enumerate(size) if a != axis)  # the ratio itself counts
    assert resolve_slice_axis("auto", _affine(*size), CUBE, acquisition_axis=(axis + 1) % 3) == axis


def test_then_the_plane_of_acquisition() -> None:
    affine = _affine(1.0, 1.0, 1.49)
    assert resolve_slice_axis("auto", affine, CUBE, acquisition_axis=0) == 0
    assert resolve_slice_axis("auto", affine, (200, 10, 220), acquisition_axis=0) == 0
    assert resolve_slice_axis("auto", affine, CUBE) == 2


def test_then_the_axis_with_fewer_than_half_the_samples() -> None:
    cube = _affine(1, 1, 1)
    assert resolve_slice_axis("auto", cube, (99, 200, 300)) == 0
    assert resolve_slice_axis("auto", cube, (300, 99, 200)) == 1
    assert resolve_slice_axis("auto", cube, (100, 200, 300)) == 2  # half is not fewer than half
    assert resolve_slice_axis("auto", cube, (40, 50, 300)) == 2  # fewest, but not against both others


def test_then_axial(affines: dict[str, np.ndarray]) -> None:
    assert resolve_slice_axis("auto", _affine(1, 1, 1), CUBE) == 2
    # stored with superior-inferior first
    permuted = np.eye(4)[:, [2, 0, 1, 3]]
    assert resolve_slice_axis("auto", permuted, CUBE) == 0
    assert resolve_slice_axis("auto", affines["left-handed"], CUBE) == 2


def test_names_mean_planes_of_the_patient(affines: dict[str, np.ndarray]) -> None:
    def of(name: str) -> list[int]:
        return [resolve_slice_axis(plane, affines[name], CUBE) for plane in ("sagittal", "coronal", "axial")]

    assert of("oblique") == [0, 1, 2]
    assert of("sagittal") == [2, 0, 1]


@pytest.mark.parametrize("given", [0, 1, 2, "0", "1", "2"])
def test_numbers_mean_array_axes(given: int | str) -> None:
    assert resolve_slice_axis(given, _affine(1, 1, 9), CUBE, acquisition_axis=2) == int(given)


@pytest.mark.parametrize("given", ["oblique", "3", 3, -1, "", "Axial"])
def test_anything_else_is_refused(given: int | str) -> None:
    with pytest.raises(ValueError, match="must be auto, axial, coronal, sagittal, 0, 1 or 2"):
        resolve_slice_axis(given, _affine(1, 1, 1), CUBE)


# --- upright views


def _all_48() -> list[np.ndarray]:
    """Affines of all ways to store a volume along the axes of the patient."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, order] * signs * (0.5, 2.0, 3.0)
            affine[:3, 3] = (-7, 11, 13)
            found.append(affine)
    return found


def _world(affine: np.ndarray, shape: tuple[int, int, int]) -> torch.Tensor:
    """(3, X, Y, Z): R, A and S of every voxel."""
    index = np.stack([*np.indices(shape), np.ones(shape)])
    return torch.from_numpy(np.einsum("ij,jxyz->ixyz", affine, index)[:3])


RUNS_DOWN = {"axial": "A", "coronal": "S", "sagittal": "S"}
RUNS_RIGHT = {"axial": "R", "coronal": "R", "sagittal": "A"}
"""World coordinates that fall from top to bottom and from left to right of an upright slice."""


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_all_48_orientations_come_upright(plane: str) -> None:
    shape = (3, 4, 5)
    for affine in _all_48():
        axis = resolve_slice_axis(plane, affine, shape)
        view = SliceView.upright(affine, axis)
        world = _world(affine, shape)
        slices = view.flip(view.slices(world))  # (S, 3, H, W)
        assert slices.shape == (shape[axis], 3, shape[view.row_axis], shape[view.column_axis])
        for index, letter in enumerate("RAS"):
            down, right = slices[:, index].diff(dim=1), slices[:, index].diff(dim=2)
            assert (down < 0).all() if letter == RUNS_DOWN[plane] else (down == 0).all()
            assert (right < 0).all() if letter == RUNS_RIGHT[plane] else (right == 0).all()


def test_oblique_slices_come_upright_too(any_affine: np.ndarray) -> None:
    for plane in ("axial", "coronal", "sagittal"):
        view = SliceView.upright(any_affine, resolve_slice_axis(plane, any_affine, (3, 4, 5)))
        slices = view.flip(view.slices(_world(any_affine, (3, 4, 5))))
        assert (slices[:, "RAS".index(RUNS_DOWN[plane])].diff(dim=1) < 0).all()
        assert (slices[:, "RAS".index(RUNS_RIGHT[plane])].diff(dim=2) < 0).all()


def test_a_view_shares_memory_and_flips_back() -> None:
    volume = torch.zeros(1, 3, 4, 5)
    view = SliceView.upright(np.eye(4), 0)
    # sagittal slices of a volume stored to R, A, S: rows are S, columns are A, both stored the other way
    assert (view.row_axis, view.column_axis, view.flip_rows, view.flip_columns) == (2, 1, True, True)
    view.slices(volume)[2, 0, 4, 1] = 1
    assert volume[0, 2, 1, 4] == 1
    slices = torch.rand(3, 1, 5, 4)
    assert torch.equal(view.flip(view.flip(slices)), slices)


def test_a_photo_is_upright_as_it_is() -> None:
    view = SliceView.upright(np.diag([-1.0, -1, 1, 1]), 2)
    assert (view.row_axis, view.column_axis, view.flip_rows, view.flip_columns) == (1, 0, False, False)
