"""A published model is brought together from the network, a mirror, a folder and caches."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from anomalyclip_monai.exceptions import AnomalyCLIPError, NoInputError, UsageError, WeightsError
from anomalyclip_monai.weights import store
from anomalyclip_monai.weights.backbone import is_half
from anomalyclip_monai.weights.download import Obtained, download, missing, offline
from anomalyclip_monai.weights.published import PublishedModel

from .conftest import PATIENT, Behaviour, authors_checkpoint, saved

HUB = "/hub/open_clip_model.safetensors"


def obtain(model: PublishedModel, prompts: tuple[str, ...] = ("visa",), **options) -> list[Obtained]:
    return list(download(model, prompts, patience=PATIENT, **options))


def names() -> list[str]:
    return sorted(path.name for path in store.folder().iterdir())


def failure(model: PublishedModel, **options) -> AnomalyCLIPError:
    with pytest.raises(AnomalyCLIPError) as caught:
        obtain(model, **options)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "given" / "deeper").mkdir(parents=True)
    return tmp_path / "given"


def assert_same(path: Path, state: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> None:
    found = safetensors.torch.load_file(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(value, state[key].to(dtype)) for key, value in found.items())


# --- from the network


def test_publishers(published, server, state):
    found = obtain(published, ("visa", "mvtec"))
    assert [item.what for item in found] == [
        "backbone",
        "prompts visa, trained on VISA",
        "prompts mvtec, trained on MVTEC",
    ]
    assert found[0].source == f"from {server.address}{HUB}"
    assert names() == [
        "open_clip_model.safetensors",
        "prompts_mvtec.json",
        "prompts_mvtec.pt",
        "prompts_visa.json",
        "prompts_visa.pt",
        "weights.json",
    ]
    assert_same(store.backbone(), state)
    assert json.loads((store.folder() / "prompts_visa.json").read_text())["published"] == "visa"
    noted = json.loads((store.folder() / "weights.json").read_text())["open_clip_model.safetensors"]
    assert noted == {"sha256": published.backbone[0].sha256, "source": "a small CLIP"}


def test_what_is_there_is_not_fetched_again(published, server):
    obtain(published)
    server.requests.clear()
    assert [item.source for item in obtain(published)] == ["there already", "there already"]
    assert server.requests == []
    obtain(published, ("mvtec",))
    assert [path for path, _ in server.requests] == ["/authors/9_12_4_multiscale_visa/epoch_15.pth"]


def test_what_is_there_must_not_have_changed(published, state):
    obtain(published)
    state["visual.proj"] += 1
    safetensors.torch.save_file(state, store.backbone())
    assert failure(published).code == "E_WEIGHTS_CHANGED"


@pytest.mark.parametrize("name", ["ViT-L-14-336px.pt", "open_clip_model.safetensors"])
def test_what_is_there_must_be_a_backbone(published, name):
    store.folder().mkdir(parents=True)
    (store.folder() / name).write_bytes(b"<html>")
    error = failure(published)
    assert error.code == "E_WEIGHTS"
    assert name in str(error)


def test_cut_download_of_the_backbone_is_resumed(published, server, state):
    server.files[HUB].cuts = [100_000, 0, 0, 0]
    assert failure(published).code == "E_DOWNLOAD"
    server.requests.clear()
    obtain(published)
    assert server.requests[0] == (HUB, "bytes=100000-")
    assert_same(store.backbone(), state)


def test_half_of_a_download(published, state):
    found = obtain(published, half=True)
    assert found[0].what == "backbone, float16"
    assert "open_clip_model.safetensors" not in names()
    assert_same(store.folder() / "backbone.safetensors", state, torch.float16)


def test_half_of_what_is_there(published, state, server):
    obtain(published)
    server.requests.clear()
    found = obtain(published, half=True)
    assert found[0].source == "from open_clip_model.safetensors; open_clip_model.safetensors can be deleted"
    assert_same(store.backbone(), state, torch.float16)
    assert obtain(published, half=True)[0].source == "there already"
    assert server.requests == []


def test_next_file_where_the_first_is_not_served(published, server, state, tmp_path):
    plain = tmp_path / "plain.pt"
    torch.save({key: value.half() for key, value in state.items()}, plain)
    server.files["/archive.pt"] = Behaviour(plain.read_bytes())
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    second = dataclasses.replace(published.backbone[1], sha256=digest)
    del server.files[HUB]
    obtain(dataclasses.replace(published, backbone=(published.backbone[0], second)))
    assert_same(store.backbone(), state, torch.float16)
    assert "ViT-L-14-336px.pt" not in names()


def test_nothing_is_served(published, server):
    server.files.clear()
    error = failure(published)
    assert str(error).startswith("E_DOWNLOAD: open_clip_model.safetensors is not served: the server answers 404 ")
    assert HUB in str(error)


def test_wrong_prompts(published, server):
    server.files["/authors/9_12_4_multiscale/epoch_15.pth"].content = saved(authors_checkpoint(seed=9))
    error = failure(published)
    assert "are not the published file (blob " in str(error)
    assert "prompts_visa.pt" not in names()


def test_mirror(published, server, state):
    for name in ("open_clip_model.safetensors", "9_12_4_multiscale/epoch_15.pth"):
        origin = HUB if "open" in name else f"/authors/{name}"
        server.files[f"/mirror/a/{name}"] = server.files.pop(origin)
    found = obtain(published, mirror=f"{server.address}/mirror/a/")
    assert [item.source for item in found] == [
        f"from {server.address}/mirror/a/open_clip_model.safetensors",
        f"from {server.address}/mirror/a/9_12_4_multiscale/epoch_15.pth",
    ]
    assert_same(store.backbone(), state)


@pytest.mark.parametrize("mirror", ["file:///etc", "mirror.example"])
def test_mirror_must_be_a_web_address(published, mirror):
    error = failure(published, mirror=mirror)
    assert isinstance(error, UsageError)
    assert error.code == "E_OPTION"


def test_endpoint_of_the_hub(published, server, monkeypatch):
    hub = dataclasses.replace(published.backbone[0], address="https://huggingface.co/hub/open_clip_model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    obtain(dataclasses.replace(published, backbone=(hub,)))
    assert server.requests[0] == (HUB, None)


# --- offline


@pytest.mark.parametrize("variable", ["ANOMALYCLIP_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(published, server, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    error = failure(published, prompts=("visa", "mvtec"))
    assert str(error).startswith(f"E_OFFLINE: 3 files are missing and {variable} is set ({store.folder()})")
    assert server.requests == []
    assert [(item.files[0].name, item.target.name) for item in missing(published, ("visa",))] == [
        ("open_clip_model.safetensors", "open_clip_model.safetensors"),
        ("9_12_4_multiscale/epoch_15.pth", "prompts_visa.pt"),
    ]


def test_offline_is_no_trouble_where_nothing_is_missing(published, monkeypatch):
    obtain(published)
    monkeypatch.setenv("ANOMALYCLIP_OFFLINE", "true")
    obtain(published)
    assert missing(published, ("visa",)) == []
    error = failure(published, prompts=("visa", "mvtec"))
    assert str(error).startswith("E_OFFLINE: 1 file is missing")


def test_a_named_mirror_is_not_the_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "ON")
    assert offline() == "HF_HUB_OFFLINE"
    assert offline(mirror="http://here") is None
    monkeypatch.setenv("ANOMALYCLIP_OFFLINE", "1")
    assert offline(mirror="http://here") == "ANOMALYCLIP_OFFLINE"
    monkeypatch.setenv("ANOMALYCLIP_OFFLINE", "0")
    assert offline(mirror="http://here") is None


# --- from a folder


def test_folder_with_everything_needs_no_network(published, folder, backbone, checkpoints, state, server, monkeypatch):
    monkeypatch.setenv("ANOMALYCLIP_OFFLINE", "1")
    (folder / "open_clip_model.safetensors").write_bytes(backbone)
    (folder / "one.pth").write_bytes(checkpoints["mvtec"])
    (folder / "deeper" / "other.pth").write_bytes(checkpoints["visa"])
    (folder / "epoch_3.pth").write_bytes(saved(authors_checkpoint(seed=5)))  # of another epoch: left alone
    found = obtain(published, ("visa", "mvtec"), folder=folder)
    assert [item.path.name for item in found] == ["open_clip_model.safetensors", "prompts_visa.pt", "prompts_mvtec.pt"]
    assert_same(store.backbone(), state)
    assert server.requests == []
    assert json.loads((store.folder() / "prompts_visa.json").read_text())["trained_on"] == "VISA"


def test_published_file_from_a_folder_takes_no_second_space(published, folder, backbone):
    given = folder / "open_clip_model.safetensors"
    given.write_bytes(backbone)
    given.chmod(0o444)
    obtain(published, folder=folder)
    assert store.backbone().samefile(given)
    assert given.stat().st_mode & 0o777 == 0o444


def test_copy_where_links_are_not_possible(published, folder, backbone, monkeypatch):
    def refuse(*_):
        raise OSError("another disk")

    monkeypatch.setattr("os.link", refuse)
    (folder / "open_clip_model.safetensors").write_bytes(backbone)
    obtain(published, folder=folder)
    assert store.backbone().read_bytes() == backbone
    assert not store.backbone().samefile(folder / "open_clip_model.safetensors")


@pytest.mark.parametrize("name", ["fine_tuned.pt", "fine_tuned.safetensors", "pytorch_model.bin"])
def test_plain_state_dict_of_any_name(published, folder, state, name):
    state["visual.proj"] += 1
    save = safetensors.torch.save_file if name.endswith("safetensors") else torch.save
    save(state, folder / name)
    found = obtain(published, folder=folder)
    assert found[0].source == f"from {folder / name}, not as published"
    assert_same(store.folder() / "backbone.safetensors", state)
    assert json.loads((store.folder() / "weights.json").read_text())["backbone.safetensors"]["source"] == (
        "not one of the published files"
    )


def test_the_file_that_fits_is_found_among_others(published, folder, state):
    torch.save({"fc.weight": torch.zeros(99, 999)}, folder / "a_resnet.pt")
    torch.save(state, folder / "the_clip.pt")
    assert "the_clip.pt" in obtain(published, folder=folder)[0].source


def test_folder_without_a_backbone_that_fits(published, folder, state):
    del state["visual.proj"]
    torch.save(state, folder / "open_clip_model.pt")
    error = failure(published, folder=folder)
    assert error.code == "E_BACKBONE"
    assert str(folder / "open_clip_model.pt") in str(error)
    assert store.find_backbone() is None


def test_prompts_alone_from_a_folder_and_the_rest_from_the_network(published, folder, checkpoints, server):
    (folder / "epoch_15.pth").write_bytes(checkpoints["visa"])
    obtain(published, folder=folder)
    assert [path for path, _ in server.requests] == [HUB]


def test_folders_that_are_of_no_use(published, folder, tmp_path):
    error = failure(published, folder=tmp_path / "nowhere")
    assert (type(error), error.code) == (NoInputError, "E_NOT_FOUND")
    (folder / "epoch_3.pth").write_bytes(saved(authors_checkpoint(seed=5)))
    error = failure(published, folder=folder)
    assert error.code == "E_NO_WEIGHTS"
    assert "none of these files is here: open_clip_model.safetensors, ViT-L-14-336px.pt, 9_12_4_" in str(error)


# --- from caches


def lay_out_hub_cache(tmp_path: Path, name: str, content: bytes, revision: str = "a" * 40) -> Path:
    """As huggingface_hub does: the content under its sha256, and a link with its name."""
    root = tmp_path / "hub" / "models--someone--some_clip"
    blob = root / "blobs" / hashlib.sha256(content).hexdigest()
    link = root / "snapshots" / revision / name
    for path in (blob, link):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(f"../../blobs/{blob.name}")
    return blob


def test_hub_cache_on_disk(published, tmp_path, backbone, state, server, checkpoints, folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    blob = lay_out_hub_cache(tmp_path, "open_clip_model.safetensors", backbone)
    (folder / "epoch_15.pth").write_bytes(checkpoints["visa"])
    found = obtain(published, folder=folder)
    assert found[0].source.startswith(f"from the cache {tmp_path}")
    assert store.backbone().samefile(blob)
    assert not store.backbone().is_symlink()
    assert server.requests == []


def test_hub_cache_with_the_older_kind_of_file(published, tmp_path, state, server):
    lay_out_hub_cache(tmp_path, "open_clip_pytorch_model.bin", saved(state))
    obtain(published)
    assert_same(store.backbone(), state)
    assert HUB not in [path for path, _ in server.requests]


@pytest.mark.parametrize("damage", [lambda content: content[:-1] + b"?", lambda content: content[:500]])
def test_damaged_hub_cache_is_passed_over(published, tmp_path, backbone, state, server, caplog, damage):
    lay_out_hub_cache(tmp_path, "open_clip_model.safetensors", backbone).write_bytes(damage(backbone))
    obtain(published)
    assert "its bytes are not those published" in caplog.text
    assert_same(store.backbone(), state)
    assert server.requests[0][0] == HUB


def test_hub_cache_of_another_model_under_this_name(published, tmp_path, state, server, caplog):
    del state["visual.proj"]
    lay_out_hub_cache(tmp_path, "open_clip_model.safetensors", safetensors.torch.save(state))
    obtain(published)
    assert "a file in a cache is not used: E_BACKBONE" in caplog.text
    assert server.requests[0][0] == HUB


def test_cache_of_openais_own_code(published, tmp_path, backbone, server):
    path = tmp_path / "user/.cache/clip/open_clip_model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(backbone)
    obtain(published, half=True)
    assert is_half(store.backbone())
    assert path.read_bytes() == backbone
    assert HUB not in [address for address, _ in server.requests]


def test_home_that_cannot_be_written(published, tmp_path):
    (tmp_path / "home").write_text("a file is in the way")
    assert failure(published).code == "E_WRITE"


def test_errors_are_of_weights(published, server):
    server.files.clear()
    assert isinstance(failure(published), WeightsError)
