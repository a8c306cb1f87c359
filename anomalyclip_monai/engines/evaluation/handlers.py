"""What MONAI's metric handlers need of a record: a prediction and what is true.

Each function is the ``output_transform`` of a ``monai.handlers.IgniteMetricHandler`` on a
:class:`~anomalyclip_monai.engines.evaluation.SetEvaluator`. Records that do not know what is true are left out.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from anomalyclip_monai.engines.evaluation.measured import records_in

Pairs: TypeAlias = tuple[list[torch.Tensor], list[torch.Tensor]]
"""Predictions and what is true, channel first, of each record; ignite hands them to the metric one by one."""


def scores_and_labels(output: Any) -> Pairs:
    """(1,) score of an image or volume, and (1,) whether it is abnormal."""
    records = records_in(output)
    scores = [torch.tensor([record["findings"].score], dtype=torch.float64) for record in records]
    return scores, [torch.tensor([int(record["abnormal"])]) for record in records]


def maps_and_masks(output: Any) -> Pairs:
    """(1, H, W) heatmap of a photo and its true mask, on the protocol's grid; nothing of volumes."""
    known = [record for record in records_in(output) if record["truth"] is not None and not record["sample"].volume]
    maps = [record["heatmap"].as_tensor()[..., 0] for record in known]
    return maps, [torch.as_tensor(record["truth"][None, ..., 0]) for record in known]


def masks_and_truth(output: Any) -> Pairs:
    """(1, X, Y, Z) mask that is written for a case, and the true one, on the protocol's grid."""
    known = [record for record in records_in(output) if record["truth"] is not None]
    masks = [record["pred"].as_tensor() for record in known]
    return masks, [torch.as_tensor(record["truth"][None]) for record in known]
