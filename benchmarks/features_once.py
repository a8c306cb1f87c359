"""Learning prompts from features that are computed once, against encoding every image at every step.

    python benchmarks/features_once.py [--images 64] [--epochs 15] [--threads 2] [--direct-epochs 2]

A ViT-B/16 with random weights at 224 px, the whole trainer both ways in one run, from image files to prompts. The
direct way is timed for ``--direct-epochs`` (its first epoch, the second and so on cost the same) and scaled. The text
tower is run both ways: to the end token, as this package does, and over all 77 positions, as the published code does.
Seconds are those of the processor, so that other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from ignite.engine import Events
from monai.transforms import Compose
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader

from anomalyclip_monai.engines.prompts import (
    GlobalBatches,
    PromptInferer,
    PromptTrainer,
    fresh_prompts,
    learned,
    training_data,
    training_dataset,
)
from anomalyclip_monai.engines.prompts.items import TrainingData
from anomalyclip_monai.losses import PromptLoss
from anomalyclip_monai.networks import AnomalyCLIP, named_config
from anomalyclip_monai.networks.prompts import text_tower
from anomalyclip_monai.transforms import ApplyPresetd, LoadImageCased

BATCH, SEED = 8, 111


class AllPositions(AnomalyCLIP):
    """The text tower over all its positions: what is behind the end token is computed for nothing."""

    def encode_text(self) -> torch.Tensor:
        tower = text_tower(self.clip)
        embedded = tower.token_embedding(self.tokens)
        x = torch.cat([embedded[:, :1], self.ctx, embedded[:, 1 + self.ctx.shape[1] :]], dim=1)
        x = x + tower.positional_embedding
        for index, block in enumerate(tower.blocks):
            if 1 <= index <= len(self.deep):
                prompt = self.deep[index - 1].expand(len(x), -1, -1)
                x = torch.cat([x[:, :1], prompt, x[:, 1 + prompt.shape[1] :]], dim=1)
            x = block(x, attn_mask=tower.mask)
        return F.normalize(tower.ln_final(x)[[0, 1], self.tokens.argmax(dim=-1)] @ tower.projection, dim=-1)


def network_of(kind: type[AnomalyCLIP]) -> AnomalyCLIP:
    torch.manual_seed(0)
    config = named_config("ViT-B-16", "openai")
    clip = open_clip.model.CLIP(
        config["embed_dim"],
        open_clip.CLIPVisionCfg(**config["vision_cfg"]),
        open_clip.CLIPTextCfg(**config["text_cfg"]),
        quick_gelu=True,
    )
    return fresh_prompts(kind(clip, image_size=224, feature_layers=(12,), dpam_layer=10), SEED)


def write_photos(root: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for folder in ("normal", "abnormal", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        photo, mask = random.integers(0, 255, (256, 256, 3), np.uint8), np.zeros((256, 256), np.uint8)
        kind = "abnormal" if index % 2 else "normal"
        if index % 2:
            mask[80:140, 60:120] = 255
            Image.fromarray(mask).save(root / "masks" / f"{index}.png")
        Image.fromarray(photo).save(root / kind / f"{index}.png")


def seconds_and_losses(
    kind: type[AnomalyCLIP], data: TrainingData, folder: Path, features: str, epochs: int
) -> tuple[float, np.ndarray]:
    network = network_of(kind)
    start = time.process_time()
    dataset = training_dataset(data, network, folder=folder, features=features, batch_size=BATCH, seed=SEED)
    trainer = PromptTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(dataset, batch_sampler=GlobalBatches(len(data), BATCH, SEED)),
        network=network,
        optimizer=torch.optim.Adam(learned(network), lr=1e-3, betas=(0.5, 0.999)),
        loss_function=PromptLoss(),
        inferer=PromptInferer(),
    )
    losses: list[float] = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: losses.append(engine.curve[-1]["loss"]))
    trainer.run()
    return time.process_time() - start, np.array(losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--direct-epochs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    timed = min(arguments.direct_epochs, arguments.epochs)
    print(f"ViT-B/16 at 224 px, {arguments.images} images, {arguments.epochs} epochs, {arguments.threads} threads")
    print("| text tower | features | direct, s | once, s | direct / once | largest difference of a loss |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_photos(root / "photos", arguments.images)
        data = training_data(
            [("folder", root / "photos")], Compose([LoadImageCased(), ApplyPresetd()]), root / "slices"
        )
        ways = ((AllPositions, ("fp32",)), (AnomalyCLIP, ("fp32", "fp16", "bf16")))
        for kind, precisions in ways:
            direct, expected = seconds_and_losses(kind, data, root, "none", timed)
            direct *= arguments.epochs / timed
            for precision in precisions:
                folder = root / kind.__name__ / precision
                once, found = seconds_and_losses(kind, data, folder, precision, arguments.epochs)
                difference = np.abs(found[:timed] / expected - 1).max()
                name = "all 77 positions" if kind is AllPositions else "to the end token"
                print(
                    f"| {name} | {precision} | {direct:.0f} | {once:.0f} | {direct / once:.1f} | {difference:.0e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
