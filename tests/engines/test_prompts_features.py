"""Features on disk: what is read back, going on after a kill, and when they are computed anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anomalyclip_monai.engines.prompts.features import FILES, FeatureMaps
from anomalyclip_monai.engines.prompts.prediction import encode_frozen
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.networks import AnomalyCLIP

pytestmark = pytest.mark.usefixtures("one_thread")


class Images:
    """Random images as the trainer prepares them; counts what is asked for."""

    def __init__(self, count: int = 7, fail_at: int | None = None) -> None:
        random = torch.Generator().manual_seed(0)
        self.images = torch.randn(count, 3, 84, 84, generator=random)
        self.masks = (torch.rand(count, 1, 84, 84, generator=random) > 0.7).float()
        self.fail_at = fail_at
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append(index)
        return {"image": self.images[index], "label": torch.tensor(index % 2), "mask": self.masks[index]}


def compute(images: Images, network: AnomalyCLIP, folder: Path, precision: str = "fp32", key: str = "a") -> FeatureMaps:
    return FeatureMaps.compute(images, network, folder, key, precision, batch_size=2)


@pytest.mark.parametrize(("precision", "dtype", "error"), [
    ("fp32", torch.float32, 0), ("fp16", torch.float16, 1e-3), ("bf16", torch.bfloat16, 8e-3),
])  # fmt: skip
def test_rows_are_what_the_network_says(tmp_path, tiny_network, precision, dtype, error):
    images = Images()
    maps = compute(images, tiny_network, tmp_path, precision)
    assert len(maps) == 7
    encoded = encode_frozen(tiny_network, images.images[4:6])  # in the batches in which they were computed
    for index in (5, 4):
        row = maps[index]
        assert row["features"].dtype == row["patches"].dtype == dtype
        assert row["patches"].shape == (2, 36, 16)  # two feature layers, 6 x 6 patches, no class token
        for found, expected in ((row["features"], encoded.image), (row["patches"], encoded.patches)):
            torch.testing.assert_close(found.float(), expected[index - 4], rtol=error, atol=error)
        assert int(row["label"]) == index % 2
        assert torch.equal(row["mask"], images.masks[index])


def test_files_hold_no_more_than_is_needed(tmp_path, tiny_network):
    compute(Images(), tiny_network, tmp_path, "fp16")
    sizes = {path.stem: path.stat().st_size for path in tmp_path.rglob("*.bin")}
    assert sizes == {"features": 7 * 16 * 2, "patches": 7 * 2 * 36 * 16 * 2, "label": 7 * 8, "mask": 7 * 84 * 84 // 8}


def test_a_killed_run_goes_on_behind_the_last_whole_row(tmp_path, tiny_network):
    with pytest.raises(KeyboardInterrupt):
        compute(Images(fail_at=5), tiny_network, tmp_path / "killed")
    part = tmp_path / "killed" / "part_1_of_1"
    with open(part / "patches.bin", "ab") as file:
        file.write(b"half a row")  # as a kill in the middle of a write leaves it
    with open(part / "mask.bin", "r+b") as file:
        file.truncate(3 * 84 * 84 // 8 + 5)
    images = Images()
    maps, whole = (
        compute(images, tiny_network, tmp_path / "killed"),
        compute(Images(), tiny_network, tmp_path / "whole"),
    )
    assert images.asked == [3, 4, 5, 6]
    for index in range(7):
        for name in FILES:
            torch.testing.assert_close(maps[index][name], whole[index][name], rtol=1e-5, atol=1e-6)


def test_computed_once_and_anew_for_anything_else(tmp_path, tiny_network):
    def asked(**changes: str) -> int:
        images = Images()
        compute(images, tiny_network, tmp_path, **changes)
        return len(images.asked)

    assert [asked(), asked(), asked(key="b"), asked(key="b"), asked(key="b", precision="bf16")] == [7, 0, 7, 0, 7]
    tiny_network.ctx.data += 1  # prompts are no part of it
    assert asked(key="b", precision="bf16") == 0
    tiny_network.clip.visual.proj.data += 1
    assert asked(key="b", precision="bf16") == 7


def test_a_layout_of_which_half_was_written_is_none(tmp_path, tiny_network):
    compute(Images(), tiny_network, tmp_path)
    layout = tmp_path / "layout.json"
    layout.write_text(layout.read_text()[:20])
    images = Images()
    assert compute(images, tiny_network, tmp_path)[0]["features"].shape
    assert len(images.asked) == 7


def test_values_beyond_half_precision_are_refused(tmp_path, tiny_network):
    tiny_network.clip.visual.proj.data *= 1e6
    with pytest.raises(UsageError, match="E_PRECISION"):
        compute(Images(), tiny_network, tmp_path, "fp16")
    compute(Images(), tiny_network, tmp_path, "bf16")


def test_progress_counts_images(tmp_path, tiny_network):
    told: list[tuple[int, int]] = []
    FeatureMaps.compute(
        Images(), tiny_network, tmp_path, "a", "fp32", batch_size=3, progress=lambda *count: told.append(count)
    )
    assert told == [(3, 7), (6, 7), (7, 7)]
