"""Hand cases to MONAI's data loader one by one, the unreadable ones with their error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import Dataset, decollate_batch, list_data_collate

from anomalyclip_monai.exceptions import known_cause
from anomalyclip_monai.types import Record


class CaseDataset(Dataset):
    """A dataset that returns ``{"case", "error"}`` for a case whose transform fails with a known error.

    One bad case then does not stop the others; :class:`~anomalyclip_monai.engines.CaseEvaluator` collects the errors.

    Args:
        data: records from :func:`~anomalyclip_monai.data.datalist`.
        transform: preprocessing of one record.
    """

    def __init__(self, data: Sequence[Record], transform: Callable[..., Any] | None = None) -> None:
        super().__init__(data, transform)

    def __getitem__(self, index: Any) -> Any:
        try:
            return super().__getitem__(index)
        except Exception as error:
            known = known_cause(error)
            if known is None:
                raise
            return {"case": self.data[index]["case"], "error": known}


def collate_cases(batch: Sequence[Record]) -> Record:
    """Tensors get a batch axis as MONAI does it, everything else becomes a list."""
    tensors = {key for key, value in batch[0].items() if isinstance(value, torch.Tensor)}
    collated: Record = list_data_collate([{key: record[key] for key in tensors} for record in batch]) if tensors else {}
    for key in batch[0]:
        if key not in tensors:
            collated[key] = [record[key] for record in batch]
    return collated


def decollate_cases(batch: Record) -> list[Record]:
    """The inverse of :func:`collate_cases`; what is neither a tensor nor a list goes to every record."""
    tensors = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
    records: list[Record] = decollate_batch(tensors) if tensors else []
    count = len(records) or max(len(value) for value in batch.values() if isinstance(value, list))
    return [
        {
            key: record[key] if key in tensors else value[index] if isinstance(value, list) else value
            for key, value in batch.items()
        }
        for index, record in enumerate(records or [{}] * count)
    ]
