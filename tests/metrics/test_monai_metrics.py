from __future__ import annotations

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler

from anomalyclip_monai.metrics import PixelScores, exact_pro, paper_pro, ranking
from anomalyclip_monai.metrics.monai_metrics import IMAGE_MEASURES, PIXEL_MEASURES, ImageMetrics, MaskDice, PixelMetrics
from anomalyclip_monai.metrics.undefined import Undefined


def _batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand((6, 1, 12, 17), generator=generator)
    masks = (torch.rand((6, 1, 12, 17), generator=generator) > 0.9).to(torch.uint8)
    return [(maps[:4], masks[:4]), (maps[4:], masks[4:])]


def test_pixel_metrics_in_an_ignite_engine():
    engine = Engine(lambda _, batch: batch)
    IgniteMetricHandler(PixelMetrics("pixel_auroc")).attach(engine, "auroc")
    IgniteMetricHandler(PixelMetrics()).attach(engine, "pixels")
    for _ in range(2):  # the second epoch starts afresh
        engine.run(_batches())
    pixels = PixelScores()
    for maps, masks in _batches():
        for heatmap, mask in zip(maps, masks, strict=True):
            pixels.update(heatmap[0].numpy(), mask[0].numpy())
    metrics = engine.state.metrics
    assert metrics["auroc"] == metrics["pixel_auroc"] == pixels.auroc()
    assert metrics["pixel_ap"] == pixels.average_precision()
    assert metrics["pixel_pro_paper"] == paper_pro(pixels)
    assert metrics["pixel_pro_exact"] == exact_pro(pixels)
    assert set(PIXEL_MEASURES) <= set(metrics)
    assert engine.state.metric_details["pixels"].shape == (6, 2)


def test_image_metrics_in_an_ignite_engine():
    scores, labels = np.array([0.2, 0.7, 0.6, 0.9, 0.4], np.float32), np.array([0, 0, 1, 1, 1])
    engine = Engine(lambda _, batch: batch)
    IgniteMetricHandler(ImageMetrics()).attach(engine, "images")
    engine.run(
        [(torch.tensor(scores[:3]), torch.tensor(labels[:3])), (torch.tensor(scores[3:]), torch.tensor(labels[3:]))]
    )
    metrics = engine.state.metrics
    assert set(IMAGE_MEASURES) <= set(metrics)
    assert metrics["image_auroc"] == pytest.approx(ranking.auroc(labels, scores))
    assert metrics["image_ap"] == pytest.approx(ranking.average_precision(labels, scores))


def test_dice_of_masks_is_a_mean_over_images_with_a_lesion():
    masks, true = torch.zeros((3, 1, 3, 5), dtype=torch.uint8), torch.zeros((3, 1, 3, 5), dtype=torch.bool)
    masks[0, 0, 0, :4], true[0, 0, 0, 2:] = 1, True  # 2 of 4 and of 3
    masks[1, 0, 2, 2] = 1  # a false alarm in a normal image says nothing
    true[2, 0, 1, 1] = True  # missed
    engine = Engine(lambda _, batch: batch)
    IgniteMetricHandler(MaskDice()).attach(engine, "dice")
    engine.run([(masks[:2], true[:2]), (list(masks[2:]), list(true[2:]))])
    assert engine.state.metrics["dice"] == pytest.approx((2 * 2 / 7 + 0) / 2)
    assert engine.state.metric_details["dice"].isnan().tolist() == [[False], [True], [False]]
    volumes = MaskDice()
    volumes(torch.ones((1, 1, 2, 3, 4)), torch.zeros((1, 1, 2, 3, 4)))
    assert volumes.aggregate() == MaskDice().aggregate() == Undefined("no image with a lesion")


def test_regions_are_looked_for_only_where_a_pro_is_asked_for():
    assert PixelMetrics("pixel_pro_exact").pixels.measures_regions
    assert PixelMetrics().pixels.measures_regions
    assert not PixelMetrics(["pixel_auroc", "pixel_dice_max"]).pixels.measures_regions


def test_lists_of_channel_first_tensors():
    metric = PixelMetrics("pixel_auroc")
    for maps, masks in _batches():
        metric(list(maps), list(masks))
    whole = PixelMetrics("pixel_auroc")
    whole(*(torch.cat(parts) for parts in zip(*_batches(), strict=True)))
    assert metric.aggregate() == whole.aggregate()
    metric.reset()
    assert metric.aggregate() == Undefined("no pixel")


def test_undefined_comes_through():
    metric = ImageMetrics("image_auroc")
    assert metric.aggregate() == Undefined("no image")
    metric(torch.tensor([[0.5], [0.6]]), torch.tensor([[1], [1]]))
    assert metric.aggregate() == Undefined("no normal image")


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="one number for each image"):
        ImageMetrics()(torch.rand(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        PixelMetrics()(torch.rand(2, 2, 3, 3), torch.zeros(2, 2, 3, 3))
    with pytest.raises(ValueError, match="unknown"):
        PixelMetrics("image_auroc")
    with pytest.raises(ValueError, match="must both be"):
        MaskDice()(torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3, 4))


def test_pixel_metrics_refuse_several_processes(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(RuntimeError, match="one process"):
        PixelMetrics().aggregate()
