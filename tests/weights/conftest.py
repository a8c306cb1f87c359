"""A published model in miniature, and a web server on this machine that misbehaves on request."""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from anomalyclip_monai.networks.checkpoints import empty_clip
from anomalyclip_monai.weights.fetch import Patience
from anomalyclip_monai.weights.published import PublishedFile, PublishedModel, PublishedPrompts

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"layers": 3, "width": 64, "head_width": 64, "patch_size": 14, "image_size": 42},
    "text_cfg": {"width": 64, "heads": 1, "layers": 2, "vocab_size": 60, "context_length": 20},
}

PATIENT = Patience(attempts=3, pause=0, timeout=5)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own homes, caches, proxies and switches."""
    for name in ("ANOMALYCLIP_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANOMALYCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """Random weights of the miniature backbone."""
    random = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(value.shape, generator=random) * 0.1 for key, value in empty_clip(CONFIG).state_dict().items()
    }


def authors_checkpoint(
    n_ctx: int = 3, t_n_ctx: int = 2, width: int = 8, depth: int = 2, *, seed: int = 0, context_length: int = 77
) -> dict[str, Any]:
    """What the authors' code saves, with random values."""
    random = torch.Generator().manual_seed(seed)
    content: dict[str, Any] = {}
    for side in ("pos", "neg"):
        content[f"ctx_{side}"] = torch.randn(1, 1, n_ctx, width, generator=random)
        content[f"token_prefix_{side}"] = torch.randn(1, 1, 1, width, generator=random)
        content[f"token_suffix_{side}"] = torch.randn(1, 1, context_length - 1 - n_ctx, width, generator=random)
        content[f"tokenized_prompts_{side}"] = torch.zeros(1, context_length, dtype=torch.int64)
    for i in range(depth):
        content[f"compound_prompts_text.{i}"] = torch.randn(t_n_ctx, width, generator=random)
        content[f"compound_prompt_projections.{i}.weight"] = torch.randn(896, width, generator=random)
        content[f"compound_prompt_projections.{i}.bias"] = torch.randn(896, generator=random)
    return {"prompt_learner": content}


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def git_blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def checkpoints() -> dict[str, bytes]:
    """Contents of two checkpoints of prompts."""
    return {"visa": saved(authors_checkpoint(seed=1)), "mvtec": saved(authors_checkpoint(seed=2))}


@pytest.fixture
def backbone(state: dict[str, torch.Tensor]) -> bytes:
    """Content of the backbone's file."""
    return safetensors.torch.save(state)


@dataclass
class Behaviour:
    """How the server treats a file.

    ``cuts`` are the bytes after which a request is cut off, one for each request until they are used up; after
    ``stalls`` it falls silent for a while first, and ``statuses`` are answers instead of the file. ``claims`` is a
    Content-Length that is no true one, ``reason`` a phrase for statuses, and ``endless`` repeats the content.
    """

    content: bytes
    etag: str | None = '"v1"'
    modified: str | None = None
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    stalls: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirect: str | None = None
    length: bool = True
    delay: float = 0.0
    claims: str | None = None
    reason: str | None = None
    endless: bool = False
    sent: int = 0


class Server(ThreadingHTTPServer):
    """Serves ``files``, notes ``requests`` as (path, range), and keeps quiet about clients that leave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Behaviour] = {}
        self.requests: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        file = self.server.files.get(self.path)
        if file is None:
            return self._answer(404)
        if file.statuses:
            return self._answer(file.statuses.pop(0), reason=file.reason)
        if file.redirect:
            return self._answer(302, {"Location": file.redirect})
        start = 0
        if asked and file.ranges and self.headers.get("If-Range") in (file.etag, file.modified):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(file.content):
                return self._answer(416, {"Content-Range": f"bytes */{len(file.content)}"})
        body = file.content[start:]
        headers = {"ETag": file.etag, "Last-Modified": file.modified}
        if file.length:
            headers["Content-Length"] = str(len(body))
        if file.claims is not None:
            headers["Content-Length"] = file.claims
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(file.content) - 1}/{len(file.content)}"
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            while file.endless:
                file.sent += self.wfile.write(body)
        stall = file.stalls.pop(0) if file.stalls else None
        sent = body[: file.cuts.pop(0)] if file.cuts else body[:stall]
        for i in range(0, len(sent), 16384):
            self.wfile.write(sent[i : i + 16384])
            time.sleep(file.delay)
        if stall is not None:
            time.sleep(0.3)
        return None

    def _answer(self, status: int, headers: dict[str, str] | None = None, reason: str | None = None) -> None:
        self.send_response(status, reason)
        for name, value in {**(headers or {}), "Content-Length": "0", "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def published(server: Server, backbone: bytes, checkpoints: dict[str, bytes]) -> PublishedModel:
    """A published model in miniature, served by ``server``; the archive of the same weights is served nowhere."""
    digest = hashlib.sha256(backbone).hexdigest()
    address = f"{server.address}/hub/open_clip_model.safetensors"
    server.files["/hub/open_clip_model.safetensors"] = Behaviour(backbone)
    prompts = {}
    for name, folder in (("visa", "9_12_4_multiscale"), ("mvtec", "9_12_4_multiscale_visa")):
        path = f"/authors/{folder}/epoch_15.pth"
        server.files[path] = Behaviour(checkpoints[name])
        prompts[name] = PublishedPrompts(
            f"prompts {name}",
            f"{folder}/epoch_15.pth",
            server.address + path,
            len(checkpoints[name]),
            blob_id=git_blob_id(checkpoints[name]),
            trained_on=name.upper(),
            commit="0" * 40,
        )
    return PublishedModel(
        name="vitl14_336",
        architecture=CONFIG,
        hub_repository="someone/some_clip",
        backbone=(
            PublishedFile("a small CLIP", "open_clip_model.safetensors", address, len(backbone), sha256=digest),
            PublishedFile("its archive", "ViT-L-14-336px.pt", f"{server.address}/archive.pt", 9, sha256="0" * 64),
        ),
        prompts=prompts,
        prompt_shapes={"ctx": (2, 3, 8), "deep.0": (2, 8), "deep.1": (2, 8)},
    )
