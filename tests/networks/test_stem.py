from __future__ import annotations

import open_clip
import pytest
import torch
from torch import nn

from anomalyclip_monai.networks import AnomalyCLIP, clip_from_state_dict
from anomalyclip_monai.networks.stem import ConvolutionalStem

pytestmark = pytest.mark.usefixtures("one_thread")

STEM = {"timm_model": "mobilenetv3_small_050", "out_indices": [2, 3, 4], "neck_width": 8, "width": 32}
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 64},
    "text_cfg": {"width": 32, "heads": 2, "layers": 1},
    "stem": STEM,
}


@torch.no_grad()
def test_one_token_per_8_pixels() -> None:
    stem = ConvolutionalStem(**STEM).eval()
    assert stem.stride == 32
    assert stem(torch.rand(2, 3, 64, 96)).shape == (2, 32, 8, 12)


def test_folded_batch_norms_give_the_same_features() -> None:
    stem = ConvolutionalStem(**STEM)
    for module in stem.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after a training: every channel on a scale of its own
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    images = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        before = stem.eval()(images)
        stem.fold()
        torch.testing.assert_close(stem(images), before, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in stem.modules())


def test_stem_takes_the_place_of_the_patch_embedding() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        stem = ConvolutionalStem(**STEM)
        clip = open_clip.model.CLIP(
            16, open_clip.CLIPVisionCfg(**CONFIG["vision_cfg"]), open_clip.CLIPTextCfg(**CONFIG["text_cfg"])
        )
        clip.visual.conv1 = stem
    found = clip_from_state_dict(clip.state_dict(), CONFIG)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found.visual.conv1(images), stem.eval()(images))
        network = AnomalyCLIP(found, image_size=(64, 96), feature_layers=[2], dpam_layer=2, depth=1).eval()
        features = network.encode_image(network.preprocess(torch.rand(1, 1, 33, 20)))
    assert features.grid == (8, 12)
    assert network(torch.rand(1, 1, 33, 20)).shape == (1, 2, 33, 20)


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no_such_encoder"):
        ConvolutionalStem("no_such_encoder", [2], 8, 32)
