"""What several test modules share: a CLIP that is built offline, an identity network, affines, data folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip import CLIPTextCfg, CLIPVisionCfg
from torch import nn
from torch.nn import functional as F

from anomalyclip_monai.networks import AnomalyCLIP

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: each, and what it starts, has one of them
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tensors of these tests are so small that a second thread only costs, the more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_clip() -> nn.Module:
    """A CLIP with random weights, the same in every test: 4 x 4 patches, width 32, 4 blocks, joint size 16."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_clip.model.CLIP(
            16,
            CLIPVisionCfg(layers=4, width=32, head_width=16, patch_size=14, image_size=56),
            CLIPTextCfg(width=32, heads=2, layers=3),
        )


@pytest.fixture
def tiny_network(tiny_clip: nn.Module) -> AnomalyCLIP:
    """AnomalyCLIP on ``tiny_clip`` for 84 x 84 images (6 x 6 patches), text features computed."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = AnomalyCLIP(
            tiny_clip,
            image_size=84,
            feature_layers=(3, 4),
            dpam_layer=3,
            n_ctx=4,
            depth=3,
            t_n_ctx=2,
            sigma=2.0,
        ).eval()
    with torch.no_grad():
        network.text_features()
    return network


class IdentityNetwork(nn.Module):
    """(B, C, H, W) -> (B, 2, H, W) whose last channel is the first channel of the image.

    Like AnomalyCLIP it squashes slices to a fixed size (bicubic, antialias) and resizes its map back (bilinear).
    That size is at least the slice's, so that nothing is lost on the way.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = tuple(images.shape[-2:])
        assert max(size) <= self.size, "the input of the identity network must be at least the slice's size"
        squashed = F.interpolate(
            images[:, :1], (self.size, self.size), mode="bicubic", align_corners=False, antialias=True
        )
        back = F.interpolate(squashed, size, mode="bilinear", align_corners=False)
        return torch.cat([1 - back, back], dim=1)


@pytest.fixture
def identity_network() -> IdentityNetwork:
    return IdentityNetwork(64)


def _rotation(axis: int, degrees: float) -> np.ndarray:
    first, second = (other for other in range(3) if other != axis)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


@pytest.fixture
def affines() -> dict[str, np.ndarray]:
    """Voxel to RAS mm: one of each kind that a scanner or a converter can produce."""

    def affine(matrix: np.ndarray, origin: tuple[float, float, float]) -> np.ndarray:
        full = np.eye(4)
        full[:3, :3], full[:3, 3] = matrix, origin
        return full

    tilt = np.tan(np.radians(20))
    return {
        "oblique": affine(_rotation(0, 25) @ _rotation(2, 15) @ np.diag([-0.9, -1.1, 3.0]), (81.5, 112.25, -40.0)),
        # columns run to posterior, rows to inferior, slices to the patient's left
        "sagittal": affine(np.array([[0, 0, -4.0], [-0.8, 0, 0], [0, -0.8, 0]]), (60.0, 100.0, 120.0)),
        "left-handed": affine(np.diag([-1.0, 1.0, 1.2]), (90.0, -126.0, -72.0)),
        # gantry tilt: the step between slices is not along their normal
        "sheared": affine(np.array([[-0.7, 0, 0], [0, -0.7, 5.0 * tilt], [0, 0, 5.0]]), (10.0, 20.0, 30.0)),
    }


@pytest.fixture(params=["oblique", "sagittal", "left-handed", "sheared"])
def any_affine(request: pytest.FixtureRequest, affines: dict[str, np.ndarray]) -> np.ndarray:
    """Each of ``affines`` in turn."""
    return affines[request.param]


def _existing(folder: Path, what: str) -> Path:
    if not folder.is_dir():
        pytest.skip(f"{what} are not there: {folder.name} is no folder")
    return folder


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real images, named by the environment variable ANOMALYCLIP_TEST_DATA."""
    if not (given := os.environ.get("ANOMALYCLIP_TEST_DATA")):
        pytest.skip("real images are not there: ANOMALYCLIP_TEST_DATA is not set")
    return _existing(Path(given), "real images")


@pytest.fixture(scope="session")
def golden(test_data: Path) -> Path:
    """Folder ``golden`` beside the real images: what the published code computes for made-up weights."""
    return _existing(test_data.parent / "golden", "golden outputs")
