"""The authors' checkpoints: told apart, converted, refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.weights.digests import blob_id
from anomalyclip_monai.weights.prompts import read_prompts, recognise

from .conftest import authors_checkpoint, git_blob_id, saved


def test_blob_id_is_gits(tmp_path):
    (tmp_path / "file").write_bytes(b"hello\n")
    assert blob_id(tmp_path / "file") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


@pytest.fixture
def checkpoint(tmp_path: Path, checkpoints: dict[str, bytes]) -> Path:
    path = tmp_path / "any_name.pth"
    path.write_bytes(checkpoints["mvtec"])
    return path


def test_published_checkpoint_is_told_by_its_content(checkpoint, published, tmp_path):
    assert recognise(checkpoint, published) == ("mvtec", published.prompts["mvtec"])
    prompts = read_prompts(checkpoint, published)
    prompts.save(tmp_path / "model.pt")
    assert json.loads((tmp_path / "model.json").read_text()) == {
        "published": "mvtec",
        "trained_on": "MVTEC",
        "checkpoint_blob_id": published.prompts["mvtec"].blob_id,
        "checkpoint_address": published.prompts["mvtec"].address,
        "commit": "0" * 40,
        "prompts_sha256": resources.sha256(tmp_path / "model.pt"),
    }


def test_values_are_kept_and_the_rest_is_left_out(checkpoint, published, tmp_path):
    given = authors_checkpoint(seed=2)["prompt_learner"]
    prompts = read_prompts(checkpoint, published)
    prompts.save(tmp_path / "model.pt")
    found = torch.load(tmp_path / "model.pt", weights_only=True)
    assert list(found) == ["ctx", "deep.0", "deep.1"]
    assert torch.equal(found["ctx"], torch.cat([given["ctx_pos"], given["ctx_neg"]]).squeeze(1))
    assert torch.equal(found["deep.1"], given["compound_prompts_text.1"])
    assert prompts.kept == 4 * 8 * (2 * 3 + 2 * 2)
    assert prompts.projections == 4 * 2 * (896 * 8 + 896)
    assert prompts.buffers == 2 * (4 * 8 * (1 + 73) + 8 * 77)
    assert (tmp_path / "model.pt").stat().st_size < prompts.kept + 3000


def test_views_do_not_carry_their_storage_along(published, tmp_path):
    content = authors_checkpoint()
    large = torch.zeros(1_000_000)
    content["prompt_learner"]["compound_prompts_text.0"] = large[:16].view(2, 8)
    (tmp_path / "x.pth").write_bytes(saved(content))
    read_prompts(tmp_path / "x.pth", published).save(tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size < 5000


def test_other_checkpoint_of_the_same_sizes_is_accepted_as_unknown(published, tmp_path):
    content = saved(authors_checkpoint(seed=7))
    (tmp_path / "epoch_3.pth").write_bytes(content)
    prompts = read_prompts(tmp_path / "epoch_3.pth", published)
    prompts.save(tmp_path / "model.pt")
    origin = json.loads((tmp_path / "model.json").read_text())
    assert (origin["published"], origin["trained_on"], origin["checkpoint_address"]) == ("unknown", "unknown", None)
    assert origin["checkpoint_blob_id"] == git_blob_id(content)


class Malicious:
    """Unpickling this makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def nan_checkpoint() -> dict[str, Any]:
    content = authors_checkpoint()
    content["prompt_learner"]["ctx_pos"][0, 0, 0, 0] = float("nan")
    return content


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "E_WEIGHTS", "0 bytes that are no checkpoint"),
        (b"<html>404</html>", "E_WEIGHTS", "16 bytes that are no checkpoint"),
        (saved(authors_checkpoint())[:-500], "E_WEIGHTS", "the checkpoint is cut off after 7"),
        (saved(authors_checkpoint(n_ctx=4)), "E_PROMPTS", r"ctx is \(2, 4, 8\), not \(2, 3, 8\)"),
        (saved(authors_checkpoint(width=6)), "E_PROMPTS", r"ctx is \(2, 3, 6\), not \(2, 3, 8\), deep\.0 is"),
        (saved(authors_checkpoint(depth=1)), "E_PROMPTS", r"do not fit vitl14_336: deep\.1 is missing"),
        (saved(authors_checkpoint(depth=3)), "E_PROMPTS", r"deep\.2 is unknown"),
        (saved(nan_checkpoint()), "E_PROMPTS", "ctx holds values that are not finite"),
        (saved({"visual.proj": torch.zeros(2, 2)}), "E_PROMPTS", "not a prompt checkpoint of the authors"),
        (saved({"prompt_learner": 3}), "E_PROMPTS", "not a prompt checkpoint of the authors"),
        (saved([1, 2]), "E_PROMPTS", "not a prompt checkpoint of the authors"),
    ],
    ids=["empty", "page", "truncated", "n_ctx", "width", "shallow", "deep", "nan", "other", "number", "list"],
)
def test_refused_files_get_one_line(published, tmp_path, content, code, words):
    path = tmp_path / "epoch_15.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        read_prompts(path, published)
    assert caught.value.code == code
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_in_a_checkpoint_is_not_run(published, tmp_path):
    content = {**authors_checkpoint(), "x": Malicious(tmp_path / "was here")}
    (tmp_path / "epoch_15.pth").write_bytes(saved(content))
    with pytest.raises(WeightsError, match=r"E_WEIGHTS: .*could run code; it was not run"):
        read_prompts(tmp_path / "epoch_15.pth", published)
    assert not (tmp_path / "was here").exists()


def test_missing_file(published, tmp_path):
    with pytest.raises(WeightsError, match="E_WEIGHTS: there is no such file"):
        read_prompts(tmp_path / "epoch_15.pth", published)
