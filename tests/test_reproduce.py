"""``docs/reproduce.sh`` from nothing to its table, with a miniature of the model and of each data set.

The script is the real one. The ``anomalyclip`` that it finds hands each command to this process, which runs the real
command line with another table of published files, so that nothing has to be imported again for each of them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from anomalyclip_monai import cli, resources
from anomalyclip_monai.data.benchmarks import LAYOUTS
from anomalyclip_monai.data.published import PUBLISHED
from anomalyclip_monai.networks.checkpoints import empty_clip
from anomalyclip_monai.outputs.report import write
from anomalyclip_monai.weights import bundle as bundle_weights
from anomalyclip_monai.weights.published import (
    MODELS,
    VITL14_336,
    PublishedFile,
    PublishedModel,
    PublishedPrompts,
    paper_prompts,
)

pytestmark = pytest.mark.usefixtures("one_thread")

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "docs" / "reproduce.sh"

MEDICAL = ["headct", "brainmri", "br35h", "covid19", "isic", "colondb", "clinicdb", "kvasir", "endo", "tn3k"]

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 8,
    "quick_gelu": True,
    "vision_cfg": {"layers": 24, "width": 16, "head_width": 16, "patch_size": 14, "image_size": 42},
    "text_cfg": {"width": 16, "heads": 1, "layers": 12, "vocab_size": 49408, "context_length": 77},
}
"""As many blocks as ViT-L/14 has, each of them tiny."""

# Folders of a set below ROOT: (images, how they are named, masks, how they are named); NUMBER stands for 1, 2, ...
TREES = {
    "HeadCT": [(".", "00NUMBER.png", "", "")],
    "BrainMRI/brain_tumor_dataset": [("no", "no NUMBER.jpg", "", ""), ("yes", "YNUMBER.JPG", "", "")],
    "Br35H": [("no", "noNUMBER.jpg", "", ""), ("yes", "yNUMBER.jpg", "", ""), ("pred", "predNUMBER.jpg", "", "")],
    "COVID-19_Radiography_Dataset": [
        ("Normal/images", "Normal-NUMBER.png", "Normal/masks", "Normal-NUMBER.png"),
        ("COVID/images", "COVID-NUMBER.png", "COVID/masks", "COVID-NUMBER.png"),
    ],
    "ISIC": [
        (
            *("ISBI2016_ISIC_Part1_Test_Data", "ISIC_NUMBER.jpg"),
            *("ISBI2016_ISIC_Part1_Test_GroundTruth", "ISIC_NUMBER_Segmentation.png"),
        )
    ],
    "CVC-ColonDB": [("images", "NUMBER.png", "masks", "NUMBER.png")],
    "CVC-ClinicDB": [("Original", "NUMBER.tif", "Ground Truth", "NUMBER.tif")],
    "Kvasir-SEG": [("images", "cNUMBER.jpg", "masks", "cNUMBER.jpg")],
    "EndoTect": [("images", "eNUMBER.jpg", "masks", "eNUMBER.jpg")],
    "TN3K": [("test-image", "000NUMBER.jpg", "test-mask", "000NUMBER.jpg")],
}


def make_sets(root: Path) -> None:
    """Two photos in each folder of :data:`TREES`, of 40 x 56 pixels (rows, columns), with a bright block."""
    random = np.random.default_rng(0)
    for name, folders in TREES.items():
        for images, image_name, masks, mask_name in folders:
            for number in "12":
                mask = np.zeros((40, 56), np.uint8)
                row, column = random.integers(4, 20, 2)
                mask[row : row + 14, column : column + 12] = 255
                photo = np.clip(random.normal(90, 12, mask.shape) + 0.4 * mask, 0, 255).astype(np.uint8)
                for folder, file, content in ((images, image_name, photo), (masks, mask_name, mask)):
                    if folder:
                        (root / name / folder).mkdir(parents=True, exist_ok=True)
                        Image.fromarray(content).save(root / name / folder / file.replace("NUMBER", number))
    (root / "HeadCT" / "labels.csv").write_text("id, hemorrhage\n1,1\n2,0\n")


def checkpoint(seed: int) -> bytes:
    """What the authors' code saves, for :data:`ARCHITECTURE`, with random values."""
    random = torch.Generator().manual_seed(seed)
    content: dict[str, Any] = {f"ctx_{side}": torch.randn(1, 1, 12, 16, generator=random) for side in ("pos", "neg")}
    for i in range(8):
        content[f"compound_prompts_text.{i}"] = torch.randn(4, 16, generator=random)
        content[f"compound_prompt_projections.{i}.weight"] = torch.zeros(896, 16)
        content[f"compound_prompt_projections.{i}.bias"] = torch.zeros(896)
    file = io.BytesIO()
    torch.save({"prompt_learner": content}, file)
    return file.getvalue()


def publish(folder: Path) -> PublishedModel:
    """Write the files of a miniature of the published model, as a mirror has them; -> what is said of them."""
    random = torch.Generator().manual_seed(0)
    state = {
        key: 0.2 * torch.randn(value.shape, generator=random)
        for key, value in empty_clip(ARCHITECTURE).state_dict().items()
    }
    known = VITL14_336.backbone[0]
    content = safetensors.torch.save(state)
    (folder / known.name).write_bytes(content)
    backbone = PublishedFile(known.title, known.name, known.address, len(content), hashlib.sha256(content).hexdigest())
    prompts = {}
    for seed, (short, published) in enumerate(VITL14_336.prompts.items()):
        content = checkpoint(seed)
        (folder / published.name).parent.mkdir()
        (folder / published.name).write_bytes(content)
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        prompts[short] = PublishedPrompts(
            *(published.title, published.name, published.address, len(content)),
            blob_id=blob,
            trained_on=published.trained_on,
            commit=published.commit,
        )
    shapes = {"ctx": (2, 12, 16), **{f"deep.{i}": (4, 16) for i in range(8)}}
    return PublishedModel("vitl14_336", ARCHITECTURE, VITL14_336.hub_repository, (backbone,), prompts, shapes)


@dataclass
class Commands:
    """Runs the commands that the script's ``anomalyclip`` hands over, and keeps their arguments.

    Attributes:
        socket: where they are handed over.
        run: arguments -> exit code.
        seen: arguments of each command.
    """

    socket: str
    run: Callable[[list[str]], int]
    seen: list[list[str]] = field(default_factory=list)

    def serve(self, listener: Listener) -> None:
        while True:
            with listener.accept() as connection:
                request = connection.recv()
                if request is None:
                    return
                self.seen.append(request)
                out, err = io.StringIO(), io.StringIO()
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    try:
                        code: Any = self.run(request)
                    except SystemExit as error:
                        code = error.code
                    except BaseException:
                        traceback.print_exc()
                        code = 70
                connection.send((code, out.getvalue(), err.getvalue()))


SHIM = """#!{python} -IS
import sys
from multiprocessing.connection import Client
with Client({socket!r}) as connection:
    connection.send(sys.argv[1:])
    code, out, err = connection.recv()
print(out, end="", flush=True)
print(err, end="", file=sys.stderr, flush=True)
sys.exit(code)
"""


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """The ``anomalyclip`` that scripts find, a folder ``bin`` with it."""
    found = Commands(str(tmp_path / "socket"), cli.main)
    shim = tmp_path / "bin" / "anomalyclip"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(python=sys.executable, socket=found.socket))
    shim.chmod(0o755)
    with Listener(found.socket) as listener:
        thread = threading.Thread(target=found.serve, args=(listener,))
        thread.start()
        yield found
        with Client(found.socket) as connection:
            connection.send(None)
        thread.join()


@pytest.fixture
def script(tmp_path: Path, commands: Commands) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the script with the commands' ``anomalyclip`` first on the path."""

    def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **variables}
        for name in {"VENV", "FROM", "MIRROR"} - set(variables):
            environment.pop(name, None)
        done = subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=280)
        print(done.args, done.stdout, done.stderr, f"exit code {done.returncode}", sep="\n")
        return done

    return run


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server on this machine with a miniature of the published model, which is the one that is known here."""
    for name in ("ANOMALYCLIP_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANOMALYCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    served = tmp_path / "served"
    served.mkdir()
    monkeypatch.setitem(MODELS, "vitl14_336", publish(served))

    bundle = tmp_path / "bundles" / "anomalyclip_vitl14_336"
    shutil.copytree(resources.bundle_root("vitl14_336"), bundle, ignore=shutil.ignore_patterns("models"))
    config = json.loads(resources.inference_config(bundle).read_text())
    config["settings"]["image_size"] = 70
    resources.inference_config(bundle).write_text(json.dumps(config))
    monkeypatch.setattr(resources, "bundle_folders", lambda: [tmp_path / "bundles"])

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have tests of their own, and take most of the time."""
    monkeypatch.setattr(write, "draw_curves", lambda _: {})
    monkeypatch.setattr(write, "show_cases", lambda *_: [])


def reports(out: Path, prompts: str) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in (out / prompts).glob("*/report.json")}


@pytest.mark.usefixtures("no_pictures")
def test_from_nothing_to_the_table(script, commands, mirror, tmp_path, monkeypatch):
    root, out = tmp_path / "root", tmp_path / "out"
    make_sets(root)

    monkeypatch.setenv("ANOMALYCLIP_OFFLINE", "1")
    offline = script(root, out, "--bootstrap", "0")
    assert offline.returncode == 2
    assert "E_OFFLINE: 3 files are missing and ANOMALYCLIP_OFFLINE is set" in offline.stderr
    for file in (*MODELS["vitl14_336"].backbone, *MODELS["vitl14_336"].prompts.values()):
        assert file.address in offline.stdout
    assert [command[0] for command in commands.seen] == ["download"]

    monkeypatch.delenv("ANOMALYCLIP_OFFLINE")
    done = script(root, out, "--bootstrap", "0", MIRROR=mirror)
    assert done.returncode == 0
    blobs = {short: known.blob_id for short, known in MODELS["vitl14_336"].prompts.items()}
    for prompts in ("mvtec", "visa"):
        found = reports(out, prompts)
        assert list(found)
        assert set(found) == set(MEDICAL)
        for report in found.values():
            assert report["protocol"]["id"] == "paper-518-pro200"
            assert report["model"]["prompts_blob_id"] == blobs[prompts]
            assert report["options"]["precision"] == "float32"
    images = {name: report["samples"]["count"] for name, report in reports(out, "mvtec").items()}
    assert images == dict.fromkeys(MEDICAL, 2) | dict.fromkeys(("brainmri", "br35h", "covid19"), 4)
    table = (out / "verdict.txt").read_text()
    assert table in done.stdout
    for name in MEDICAL:
        assert f"\n{LAYOUTS[name].title:<13} {images[name]:>6}  " in table
        for published in PUBLISHED[name]["AnomalyCLIP"].values():
            assert f" {100 * published:.1f} " in table
    assert table.count("no verdict, 2 of the ") == 7
    assert "BrainMRI: no verdict, 4 of the 253 images of the published set\n" in table
    assert f"prompts_blob_id {blobs['mvtec'][:12]}" in table

    # Only what is not there is measured again.
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/report.json")}
    shutil.rmtree(out / "visa" / "kvasir")
    again = script(root, out, "--bootstrap", "0", MIRROR=mirror)
    assert again.returncode == 0
    assert "there already" in again.stdout
    measured = {path for path in out.glob("*/*/report.json") if before[path] != path.stat().st_mtime_ns}
    assert measured == {out / "visa" / "kvasir" / "report.json"}
    assert (out / "verdict.txt").read_text() == table

    # What is asked otherwise is measured anew.
    other = ["--all", str(root / "TN3K"), "--limit", "1", "--quiet"]
    assert cli.main([*commands.seen[-1], *other]) == 0
    assert len(reports(out, "visa")["tn3k"]["samples"]["list"]) == 1


def write_report(folder: Path, published: dict[str, float], off: list[float | None], **changes: Any) -> None:
    """A report whose measures are off the published ones by so much; None: undefined."""
    measures = {
        name: {"undefined": "no reason"} if by is None else {"value": published[name] + by}
        for name, by in zip(published, off, strict=True)
    }
    folder.mkdir(parents=True)
    report = {
        "protocol": {"name": "paper", "id": "paper-518-pro200"},
        "methods": {"anomalyclip": {"measures": measures}},
        "measure_titles": {name: name.replace("_", " ") for name in published},
        "published": published,
        "complete": True,
        "note": "",
        "failed": [],
        "samples": {"count": 200},
        "options": {"precision": "float32"},
        "model": {"bundle": "b", "weights_sha256": "a" * 64},
        "versions": {"torch": "2"},
        "device": "cpu",
    }
    (folder / "report.json").write_text(json.dumps(report | changes))


def test_verdicts(script, commands, tmp_path):
    def measure(arguments: list[str]) -> int:
        return int("visa" in arguments)  # of the second run an image failed

    commands.run = measure
    (tmp_path / "root").mkdir()
    out = tmp_path / "out"
    image = {"image_auroc": 0.934, "image_ap": 0.916}
    write_report(out / "mvtec" / "headct", image, [0.005, -0.005])
    write_report(out / "visa" / "headct", image, [0.02, 0.03])
    write_report(out / "mvtec" / "brainmri", image, [0.006, -0.02])
    write_report(out / "mvtec" / "br35h", image, [0, None])
    write_report(out / "mvtec" / "covid19", image, [0, 0], failed=[{"name": "1", "error": "E"}])
    write_report(out / "mvtec" / "isic", image, [0, 0], complete=False, note="9 of the 379 images of the published set")
    write_report(out / "mvtec" / "colondb", image, [0, 0], protocol={"name": "native", "id": "native"})
    write_report(out / "mvtec" / "clinicdb", image, [0, 0], options={"precision": "bfloat16"})
    done = script(tmp_path / "root", out, "--device", "cpu")
    assert done.returncode == 1
    assert commands.seen[1] == [
        *("evaluate", "--all", str(tmp_path / "root"), "--output", str(out / "mvtec")),
        *("--model", "vitl14_336", "--protocol", "paper", "--device", "cpu"),
    ]
    assert commands.seen[2][-4:] == ["--prompts", "visa", "--device", "cpu"]
    lines = (out / "verdict.txt").read_text().splitlines()
    assert lines[2:4] == [
        "HeadCT           200  image auroc   93.4     93.9   +0.5     95.4   +2.0",
        "                      image ap      91.6     91.1   -0.5     94.6   +3.0",
    ]
    assert "                      image ap      91.6        -               -" in lines
    assert lines[lines.index("") + 1 :] == [
        "HeadCT: within the tolerance of 0.5",
        "BrainMRI: differs by image auroc +0.6, image ap -2.0",
        "Br35H: no verdict, a published measure is undefined",
        "COVID-19: no verdict, 1 of the images failed",
        "ISIC: no verdict, 9 of the 379 images of the published set",
        "CVC-ColonDB: no verdict, the protocol is not the paper's",
        "CVC-ClinicDB: no verdict, it was computed in bfloat16",
        *(
            f"{title}: not measured, no folder below ROOT was taken for it, or it failed as a whole"
            for title in ("Kvasir-SEG", "Endo", "TN3K")
        ),
        "",
        "model: weights_sha256 aaaaaaaaaaaa",
        "versions: torch 2; device: cpu; protocol: paper-518-pro200",
    ]


def test_stops_where_nothing_can_start(script, commands, tmp_path):
    assert script().returncode == 2
    assert script(tmp_path, "--device").returncode == 2
    missing = script(tmp_path / "nowhere", tmp_path / "out")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert f"no such folder: {tmp_path / 'nowhere'}" in missing.stderr
    assert commands.seen == []
    commands.run = lambda arguments: 2 * (arguments[0] == "evaluate")
    assert script(tmp_path, tmp_path / "out").returncode == 2
    assert [command[0] for command in commands.seen] == ["download", "evaluate"]


def test_prompts_of_the_paper_were_never_trained_on_the_set():
    assert [paper_prompts(name) for name in ("mvtec", "visa", "headct")] == ["visa", "mvtec", "mvtec"]


def test_checkpoint_is_named_of_just_its_prompts(tmp_path):
    path = tmp_path / "prompts_visa.pt"
    path.write_bytes(b"prompts")
    known = {"prompts_sha256": hashlib.sha256(b"prompts").hexdigest()}
    assert bundle_weights.prompts_fingerprint(path) == known
    path.with_suffix(".json").write_text(json.dumps({**known, "checkpoint_blob_id": "c90f"}))
    assert bundle_weights.prompts_fingerprint(path) == {**known, "prompts_blob_id": "c90f"}
    path.write_bytes(b"others")
    assert "prompts_blob_id" not in bundle_weights.prompts_fingerprint(path)
