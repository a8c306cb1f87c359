"""A look at maps while prompts are learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Events
from PIL import Image
from torch.nn import functional as F

from anomalyclip_monai.engines.prompts.items import PhotoItem, SliceItem, Upright
from anomalyclip_monai.engines.prompts.trainer import PromptTrainer
from anomalyclip_monai.files import whole_file
from anomalyclip_monai.networks import AnomalyCLIP
from anomalyclip_monai.networks.dual_path import ImageFeatures
from anomalyclip_monai.outputs.preview import OUTLINE, PANEL_SIZE, blend, draw_outline
from anomalyclip_monai.types import PathLike

GAP = 8
"""Pixels between panels."""


class MapPictures:
    """Handler that draws the present maps of a few training images: ``epoch_001.png`` and so on.

    The same images each time, with lesion where there are any, each beside its map on the fixed colour scale of the
    previews. The outline is the lesion that was drawn by hand.

    Args:
        data: the items.
        network: whose maps are drawn.
        folder: of the pictures.
        count: images.
        every: epochs between two pictures; there is one after the first and the last epoch as well.
    """

    def __init__(
        self,
        data: Sequence[PhotoItem | SliceItem],
        network: AnomalyCLIP,
        folder: PathLike,
        count: int = 4,
        every: int = 5,
    ) -> None:
        self.data = data
        self.network = network
        self.folder = Path(folder)
        self.count = count
        self.every = every
        self._shown: list[tuple[Upright, ImageFeatures]] = []

    def attach(self, engine: PromptTrainer) -> None:
        """Draw when an epoch has ended."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: PromptTrainer) -> None:
        """Draw if it is time, on the first process."""
        epoch = engine.state.epoch
        due = epoch in (1, engine.state.max_epochs) or epoch % self.every == 0
        if due and idist.get_rank() == 0:
            with whole_file(self.folder / f"epoch_{epoch:03d}.png") as temporary:
                self.draw().save(temporary)

    @torch.no_grad()
    def draw(self) -> Image.Image:
        """One row a picture: the image with its outline, and the same under its map."""
        if not self._shown:
            self._shown = [(item, self._encode(item)) for item in self._chosen()]
        rows = [self._row(item, self.network.anomaly_map(features).cpu()) for item, features in self._shown]
        canvas = Image.new("RGB", (max(row.width for row in rows), sum(row.height + GAP for row in rows)))
        y = 0
        for row in rows:
            canvas.paste(row, (0, y))
            y += row.height + GAP
        return canvas

    @staticmethod
    def _row(item: Upright, anomaly_map: torch.Tensor) -> Image.Image:
        rows, columns = item.mask.shape
        scale = PANEL_SIZE / max(rows, columns)
        size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        heat = F.interpolate(anomaly_map, (rows, columns), mode="bilinear", align_corners=False)[0, 0].numpy()
        row = Image.new("RGB", (2 * size[0] + GAP, size[1]))
        for column, shown in enumerate((np.zeros_like(heat), heat)):
            panel = blend(item.image.numpy(), shown, size)
            draw_outline(panel, item.mask.numpy(), OUTLINE)
            row.paste(panel, (column * (size[0] + GAP), 0))
        return row

    def _chosen(self) -> list[Upright]:
        """Evenly over the items, those with lesion first."""
        order = np.unique(np.linspace(0, len(self.data) - 1, 4 * self.count).astype(int)).tolist()
        items = [self.data[index].read() for index in order]
        return sorted(items, key=lambda item: -item.label)[: self.count]

    def _encode(self, item: Upright) -> ImageFeatures:
        images = item.image[None].to(self.network.mean.device)
        return self.network.encode_image(self.network.preprocess(images))
