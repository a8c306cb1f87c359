"""Large backbones with random weights: memory, and time per slice against plain softmax attention in the same run.

    python benchmarks/backbone.py [--backbones NAME ...] [--precisions fp32 bf16 fp16] [--threads 2] [--slices 2]

One process per line, one after the other. Weights are written as safetensors in the wanted precision and loaded as a
user's are. CPU seconds are summed over threads. The ratio compares between machines, seconds do not.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "data"))

HUB_TOWERS = {"BiomedCLIP (vision tower alone)": ("vit_base_patch16_224", 512)}
"""CLIPs whose text side's configuration comes from a hub: timm's name of the vision tower, and the joint size."""


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, precision: str, threads: int, slices: int) -> dict[str, Any]:
    import torch
    from torch.nn import functional as F

    import anomalyclip_monai.api  # noqa: F401 - what a command imports belongs to the memory before
    from anomalyclip_monai.networks import dual_path

    torch.set_num_threads(threads)
    before = peak_mb()
    encode, images = vision_alone(name, precision) if name in HUB_TOWERS else whole_network(name, precision)

    def plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1) @ value

    def seconds() -> float:
        times = []
        for _ in range(slices):
            start = time.process_time()
            encode(images)
            times.append(time.process_time() - start)
        return min(times)

    with torch.no_grad():
        encode(images)
        fused, peak = seconds(), peak_mb()
        dual_path.F = type("Plain", (), {"scaled_dot_product_attention": staticmethod(plain)})
        plainly = seconds()
        dual_path.F = F
    return {"size": images.shape[-1], "seconds": fused, "plain": plainly, "peak": peak, "before": before}


def whole_network(name: str, precision: str) -> tuple[Any, Any]:
    import random_weights
    import torch

    from anomalyclip_monai.networks import AnomalyCLIP, NetworkSettings
    from anomalyclip_monai.weights import load_backbone
    from anomalyclip_monai.weights.hub import network_definition

    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: memory for making random numbers is not the model's.
        target = str(Path(folder) / "backbone.safetensors")
        one = [sys.executable, random_weights.__file__, target, name, precision]
        subprocess.run(one, check=True)
        weights = Path(target)
        definition = network_definition(name, weights=weights, pretrained=some_tag(name), precision=precision)
        definition.pop("_target_")
        clip = definition.pop("clip")
        clip.pop("_target_")
        settings = definition.pop("settings")
        settings.pop("_target_")
        network = AnomalyCLIP(load_backbone(**clip), NetworkSettings(**settings)).eval()
    with torch.no_grad():
        network.text_features()
    return network.score_and_map, torch.rand(1, 1, *network.settings.size)


def some_tag(name: str) -> str | None:
    import open_clip

    return next(iter(open_clip.list_pretrained_tags_by_model(name)), None)


def vision_alone(name: str, precision: str) -> tuple[Any, Any]:
    import torch
    from open_clip.timm_model import TimmModel

    from anomalyclip_monai.networks.checkpoints import floating_type
    from anomalyclip_monai.networks.dual_path import encode_image
    from anomalyclip_monai.networks.towers import vision_tower
    from anomalyclip_monai.weights.hub import PUBLISHED_LOCAL_SHARE, image_size

    trunk, width = HUB_TOWERS[name]
    visual = TimmModel(trunk, width, pool="", proj="linear").eval().requires_grad_(False).to(floating_type(precision))
    tower, size = vision_tower(visual), image_size(visual)
    blocks = len(tower.blocks)
    local = round(PUBLISHED_LOCAL_SHARE * blocks)
    return (
        lambda images: encode_image(tower, images, local_blocks=local, feature_layers=[blocks]),
        torch.rand(1, 3, size, size),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=["ViT-L-14-336-quickgelu"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "fp16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slices", type=int, default=2, help="the fastest of these counts")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    common = {"threads": arguments.threads, "slices": arguments.slices}
    if arguments.one:
        print(json.dumps(measure(arguments.backbones[0], arguments.precisions[0], **common)))
        return
    columns = (
        "backbone",
        "precision",
        "image size",
        "peak MB",
        "MB after imports",
        "CPU seconds per slice",
        "fused / plain",
    )
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in arguments.backbones:
        for precision in arguments.precisions:
            one = [sys.executable, __file__, "--one", "--backbones", name, "--precisions", precision]
            one += [part for key, value in common.items() for part in (f"--{key}", str(value))]
            done = subprocess.run(one, capture_output=True, text=True)
            if done.returncode:
                print(f"| {name} | {precision} | failed: {done.stderr.strip().splitlines()[-1]} | | | | |", flush=True)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            row = (name, precision, found["size"], f"{found['peak']:.0f}", f"{found['before']:.0f}")
            times = (f"{found['seconds']:.1f}", f"{found['seconds'] / found['plain']:.2f}")
            print(f"| {' | '.join(map(str, (*row, *times)))} |", flush=True)


if __name__ == "__main__":
    main()
