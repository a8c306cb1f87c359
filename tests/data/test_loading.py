from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, Lambda

from anomalyclip_monai.data import CaseDataset, collate_cases
from anomalyclip_monai.data.loading import decollate_cases
from anomalyclip_monai.exceptions import CaseError


def _transform(record: dict[str, Any]) -> dict[str, Any]:
    if record["image"] == "bad":
        raise CaseError("E_NIFTI", "not a readable NIfTI file")
    if record["image"] == "bug":
        raise KeyError("a mistake of ours")
    return {
        **record,
        "image": MetaTensor(torch.ones(1, 2, 3, 4), affine=torch.diag(torch.tensor([2.0, 3, 4, 1]))),
    }


def _dataset(*images: str) -> CaseDataset:
    records = [{"image": image, "case": f"case {index}"} for index, image in enumerate(images)]
    return CaseDataset(records, Compose([Lambda(_transform)]))


def test_a_bad_case_becomes_its_error() -> None:
    good, bad = _dataset("good", "bad")
    assert good["image"].shape == (1, 2, 3, 4)
    assert set(bad) == {"case", "error"}
    assert bad["case"] == "case 1"
    assert str(bad["error"]) == "E_NIFTI: not a readable NIfTI file"


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="applying transform"):
        _dataset("bug")[0]


def test_the_loader_goes_through_all_cases() -> None:
    loader = DataLoader(_dataset("good", "bad", "good"), batch_size=1, collate_fn=collate_cases)
    first, second, third = loader
    assert first["image"].shape == third["image"].shape == (1, 1, 2, 3, 4)
    assert second["error"][0].code == "E_NIFTI"
    assert [batch["case"] for batch in (first, second, third)] == [["case 0"], ["case 1"], ["case 2"]]


def test_collating_stacks_tensors_and_lists_the_rest() -> None:
    affines = [np.diag([1.0 + i, 1, 1, 1]) for i in range(2)]
    records = [
        {"image": MetaTensor(torch.full((1, 2, 3, 4), float(i)), affine=torch.from_numpy(affines[i])),
         "roi": torch.ones(1, 2, 3, 4, dtype=torch.bool), "notes": [f"note {i}"], "case": str(i), "source": object()}
        for i in range(2)
    ]  # fmt: skip
    batch = collate_cases(records)
    assert batch["image"].shape == (2, 1, 2, 3, 4)
    assert batch["image"].is_batch
    np.testing.assert_array_equal(batch["image"].affine, affines)
    assert batch["roi"].dtype == torch.bool
    assert batch["notes"] == [["note 0"], ["note 1"]]
    assert batch["case"] == ["0", "1"]

    for index, record in enumerate(decollate_cases(batch)):
        assert set(record) == set(records[index])
        assert torch.equal(record["image"].as_tensor(), records[index]["image"].as_tensor())
        np.testing.assert_array_equal(record["image"].affine, affines[index])
        assert record["notes"] == [f"note {index}"]
        assert record["source"] is records[index]["source"]


def test_records_without_tensors() -> None:
    error = CaseError("E_PIXELS", "no voxel has a finite value")
    batch = collate_cases([{"case": "a", "error": error}])
    assert batch == {"case": ["a"], "error": [error]}
    assert decollate_cases({**batch, "epoch": 3}) == [{"case": "a", "error": error, "epoch": 3}]
