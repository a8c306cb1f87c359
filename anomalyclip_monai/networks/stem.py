"""A pretrained convolutional stem in the place of a vision transformer's patch embedding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


class ConvolutionalStem(nn.Module):
    """(B, 3, H, W) -> (B, width, H / 8, W / 8): timm features under a top-down neck (Lin et al., CVPR 2017).

    Stands where open_clip's ``visual.conv1`` stands, so that nothing else of the tower changes. The patch token
    sees the neck and, past it, the encoder's own features at stride 8.

    Args:
        timm_model: name of an encoder with ``features_only``; never downloads weights.
        out_indices: encoder stages with strides 8, 16, 32 ..., finest first.
        neck_width: channels of the neck.
        width: channels of the tokens.
    """

    def __init__(self, timm_model: str, out_indices: Sequence[int], neck_width: int, width: int) -> None:
        super().__init__()
        self.encoder = timm.create_model(
            timm_model, pretrained=False, features_only=True, out_indices=tuple(out_indices)
        )
        channels = self.encoder.feature_info.channels()
        self.stride = max(self.encoder.feature_info.reduction())
        """H and W must be multiples of this."""
        self.lateral = nn.ModuleList(nn.Conv2d(count, neck_width, 1) for count in channels)
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(neck_width, neck_width, 3, padding=1, groups=neck_width),
                nn.Conv2d(neck_width, neck_width, 1),
                nn.ReLU(),
            )
            for _ in channels
        )
        self.project = nn.Conv2d(neck_width + channels[0], width, 1)

    def fold(self) -> None:
        """Multiply the encoder's batch norms into the convolutions before them: the same features in less time.

        For evaluation alone, and the last thing to be done to weights: their names are no longer those of a file.
        """
        for parent in list(self.encoder.modules()):
            children = list(parent.named_children())
            for (name, convolution), (norm_name, norm) in pairwise(children):
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
                    setattr(parent, norm_name, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())

    def features(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the encoder's own (B, channels, H / stride, W / stride) of each stage, finest first."""
        # Depthwise convolutions on the CPU take little more than half the time in this layout.
        shown = images.to(next(self.encoder.parameters()).dtype).contiguous(memory_format=torch.channels_last)
        found: list[Tensor] = self.encoder(shown)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width, H / 8, W / 8)."""
        features = self.features(images)
        levels: list[Tensor] = []
        for feature, lateral, smooth in reversed(list(zip(features, self.lateral, self.smooth, strict=True))):
            level = lateral(feature)
            if levels:
                level = level + F.interpolate(levels[-1], level.shape[-2:], mode="bilinear", align_corners=False)
            levels.append(level + smooth(level))
        return self.project(torch.cat([levels[-1], features[0]], dim=1))
