"""What the documentation tells people to type: every command is understood, every option exists, Python blocks run."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import open_clip
import pytest
import torch
from made_result import PHOTO, made_result
from open_clip import CLIPTextCfg, CLIPVisionCfg
from PIL import Image

from anomalyclip_monai import cli
from anomalyclip_monai.data.dicom_series import read_series, scan
from anomalyclip_monai.outputs.dicom_series import write_mr_series
from recipes.tiny import commands

ROOT = Path(__file__).parents[1]

PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "bundles").glob("*/docs/README.md")),
    ROOT / "recipes" / "tiny" / "README.md",
)

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "anomalyclip": cli._parser,
    "python -m recipes.tiny": commands.parser,
}
"""How a command line begins -> what reads the rest."""

OF_OTHERS = frozenset(
    {
        "--beside",  # of the recipe's table
        "--dicom",
        "--evidence",
        "--shipped",
        "--nproc-per-node",  # of torchrun
    }
)
"""Options that the pages name of other programs."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of every block of code; blocks that are only indented have none."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield found[1], found[2]
    unfenced = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for found in re.finditer(r"(?:^ {4}.*\n)+", unfenced, re.MULTILINE):
        yield "", re.sub(r"^ {4}", "", found[0], flags=re.MULTILINE)


def command_lines(text: str) -> Iterator[tuple[str, list[str]]]:
    """Program and arguments of every command of ours in a block, of a synopsis with all that it may take.

    Two spaces begin a remark; ``[--half]`` is given, of ``visa|mvtec`` the first, ``INPUT...`` once.
    """
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        typed = re.split(r" {2,}", line.strip())[0]
        for program in PARSERS:
            if typed.startswith(f"{program} "):
                plain = typed.removeprefix(program).replace("...", "").replace("[", " ").replace("]", " ")
                yield program, [word.split("|")[0] for word in shlex.split(plain) if not word.startswith("$")]


TYPED = [(page, *command) for page in PAGES for _, text in blocks(page) for command in command_lines(text)]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """All options of a parser and of its commands."""
    found: set[str] = set()
    for action in parser._actions:
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(options_of(command) for command in action.choices.values()))
    return found


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        pytest.param(program, arguments, id=f"{name_of(page)}: {' '.join(arguments)}")
        for page, program, arguments in TYPED
    ],
)
def test_commands_are_understood(program: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        PARSERS[program]().parse_args(arguments)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


def test_commands_are_found_in_both_kinds_of_blocks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    indented, fenced = "    anomalyclip info [--json]    a remark", "```sh\nanomalyclip demo \\\n    -o x  # y\nls\n```"
    page.write_text(f"a\n\n{indented}\n\n{fenced}\n")
    assert [command for _, text in blocks(page) for command in command_lines(text)] == [
        ("anomalyclip", ["demo", "-o", "x"]),
        ("anomalyclip", ["info", "--json"]),
    ]
    assert len(TYPED) > 30


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_option_exists(page: Path) -> None:
    known = set().union(*(options_of(make()) for make in PARSERS.values())) | OF_OTHERS
    text = page.read_text(encoding="utf-8")
    ours = re.sub(r"^.*(?:monai\.bundle|pip install|git ).*(?:\\\n.*)*$", "", text, flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*\b(?!_)", ours))
    assert named - known == set()


def write_head(file: Path, seed: int = 0) -> None:
    """A few thick slices of noise in the values of an MR, H != W != D: the network's time is by the slice."""
    voxels = np.random.default_rng(seed).normal(300, 10, (9, 7, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([4, 4, 9, 1.0])), file)


def for_the_readme(folder: Path) -> dict[str, Any]:
    write_head(folder / "brain.nii.gz")
    return {}


def for_data_sets(folder: Path) -> dict[str, Any]:
    for name in ("images", "masks"):
        (folder / "CVC-ColonDB" / name).mkdir(parents=True)
    Image.new("RGB", (574, 500), (120, 60, 50)).save(folder / "CVC-ColonDB" / "images" / "1.png")
    Image.new("L", (574, 500), 255).save(folder / "CVC-ColonDB" / "masks" / "1.png")
    return {}


def for_an_evaluation(folder: Path) -> dict[str, Any]:
    for_data_sets(folder)
    request = ["evaluate", "colondb", "CVC-ColonDB", "-o", "reports", "--fast", "--no-mirror", "--bootstrap", "0", "-q"]
    assert cli.main(request) == 0
    return {}


def for_hand_written_prompts(folder: Path) -> dict[str, Any]:
    return {"images": torch.full((1, 3, 70, 90), 0.5)}


def for_the_network(folder: Path) -> dict[str, Any]:
    """A CLIP as deep as the published one, but narrow, and prompts that fit it, as its authors save them."""
    width, vision = 32, {"layers": 24, "width": 32, "head_width": 16, "patch_size": 14, "image_size": 56}
    text = {"width": width, "heads": 2, "layers": 12}
    clip = open_clip.model.CLIP(16, CLIPVisionCfg(**vision), CLIPTextCfg(**text), quick_gelu=True)
    learned = {f"ctx_{side}": torch.zeros(1, 1, 12, width) for side in ("pos", "neg")}
    learned |= {f"compound_prompts_text.{index}": torch.zeros(4, width) for index in range(8)}
    torch.save({"prompt_learner": learned}, folder / "epoch_15.pth")
    config = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    return {"state_dict": clip.state_dict(), "config": config}


def for_a_threshold_of_ones_own(folder: Path) -> dict[str, Any]:
    (folder / "my_normal_cases").mkdir()
    for seed in (0, 1):
        write_head(folder / "my_normal_cases" / f"{seed}.nii.gz", seed)
    return {}


class Nninteractive:
    """What nnInteractive's session refuses: a box or a point outside the image, a box of more than one slice."""

    def set_image(self, image: np.ndarray) -> None:
        assert image.ndim == 4
        self.shape = image.shape[1:]

    def set_target_buffer(self, buffer: torch.Tensor) -> None:
        assert buffer.shape == self.shape
        self.target_buffer = buffer

    def add_bbox_interaction(self, box: list[list[int]], include_interaction: bool) -> None:
        assert all(0 <= low < high <= size for (low, high), size in zip(box, self.shape, strict=True))
        assert 1 in [high - low for low, high in box]
        self.target_buffer[tuple(slice(*ends) for ends in box)] = 1

    def add_point_interaction(self, point: tuple[int, ...], include_interaction: bool) -> None:
        assert self.target_buffer[point] == 1  # the point lies in the box
        self.points = [*getattr(self, "points", []), point]

    def add_initial_seg_interaction(self, mask: np.ndarray) -> None:
        assert mask.shape == self.shape
        assert mask[self.points[0]] == 1
        assert mask[self.points[1]] == 0

    def reset_interactions(self) -> None:
        self.target_buffer[:] = 0


class MedSAM2:
    """Marks the box it is given in all slices of a film."""

    def init_state(self, film: torch.Tensor, height: int, width: int) -> np.ndarray:
        assert film.shape[1:] == (3, 512, 512)
        return np.full((len(film), height, width), -1.0, np.float32)

    def add_new_points_or_box(self, *, inference_state: np.ndarray, frame_idx: int, obj_id: int, box: Any) -> None:
        x_min, y_min, x_max, y_max = box.tolist()
        assert 0 <= x_min <= x_max < inference_state.shape[2]
        assert 0 <= y_min <= y_max < inference_state.shape[1]
        inference_state[frame_idx, y_min : y_max + 1, x_min : x_max + 1] = 1

    def propagate_in_video(self, state: np.ndarray, reverse: bool) -> Iterator[tuple[int, list[int], torch.Tensor]]:
        for frame, logits in enumerate(state):
            yield frame, [1], torch.from_numpy(logits)[None, None]

    def reset_state(self, state: np.ndarray) -> None:
        state[:] = -1


class Sam:
    def predict(self, *, point_coords: np.ndarray, point_labels: np.ndarray, box: np.ndarray) -> tuple[Any, Any, Any]:
        assert (point_coords.shape, point_labels.shape, box.shape) == ((1, 2), (1,), (4,))
        assert (box[:2] <= point_coords[0]).all()
        assert (point_coords[0] <= box[2:]).all()
        return None, None, None


def for_refining(folder: Path) -> dict[str, Any]:
    """Two lesions in a volume, H != W != D, and one in a photo; in the place of segmenters what refuses bad prompts."""
    values = np.zeros((9, 7, 4), np.float32)
    values[1:4, 2:4, 1], values[7, 5, 3] = 0.9, 0.8
    affine = np.diag([4, 4, 9, 1.0])
    made_result(values, affine, case="brain").save(folder / "out", prompts_out=True)
    nib.save(nib.Nifti1Image(values, affine), folder / "brain.nii.gz")
    photo = np.diag([-1.0, -1, 1, 1])
    made_result(values[..., 1:2], photo, case="polyp", source=PHOTO).save(folder / "out", prompts_out=True)
    return {"session": Nninteractive(), "predictor": MedSAM2(), "sam": Sam()}


def for_results_as_dicom(folder: Path) -> dict[str, Any]:
    values = np.zeros((9, 7, 4), np.float32)
    values[1:4, 2:4, 1] = 0.9
    affine = np.array([[-1.0, 0, 0, 9], [0, -1, 0, 8], [0, 0, 4, 7], [0, 0, 0, 1]])
    write_mr_series(folder / "series", values * 100, affine)
    volume = read_series(scan(folder / "series")[0][0])
    made_result(values, volume.affine, case="thigh", source=volume.source).save(folder / "out")
    return {}


PREPARED: dict[str, Callable[[Path], dict[str, Any]]] = {
    "README.md": for_the_readme,
    "docs/datasets.md": for_data_sets,
    "docs/evaluation.md": for_an_evaluation,
    "docs/hand_written.md": for_hand_written_prompts,
    "docs/network.md": for_the_network,
    "docs/dicom_results.md": for_results_as_dicom,
    "docs/refine.md": for_refining,
    "docs/report.md": for_the_readme,
    "docs/volumes_3d.md": for_a_threshold_of_ones_own,
}
"""Page -> what makes the files that its blocks read, and gives the names that they take for granted."""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(language == "python" for language, _ in blocks(page))], ids=name_of
)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = PREPARED.get(name_of(page), lambda folder: {})(tmp_path)
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, name_of(page), "exec"), names)
