"""No text that a user or a file gives is parsed, ends in a traceback, or forges a line of output."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import getpass
import json
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from made_result import PHOTO, made_result
from PIL import Image

import anomalyclip_monai as ac
from anomalyclip_monai import resources
from anomalyclip_monai.api import calibrate
from anomalyclip_monai.cli import _parser, info, main
from anomalyclip_monai.data import phantom
from anomalyclip_monai.definition import configured
from anomalyclip_monai.exceptions import AnomalyCLIPError
from anomalyclip_monai.options import CaseOptions, InputOptions, ModelOptions

HOSTILE = {
    "expression": "$__import__('pathlib').Path('RAN').touch() or print('CODE-RAN')",
    "reference": "@output_dir",
    "macro": "%b",
    "home": "~x",
    "empty": "",
    "newline": "a\nE_FORGED: all is well",
    "ansi": "\x1b[2Jgone\x1b]0;title\x07",
    "no_utf8": os.fsdecode(b"n\xff\xfe"),
    "option": "--output",
}
"""Texts that mean something to MONAI's parser, the shell, a terminal, or a line-based reader."""


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    # A server does not end; what it is given is tested beside it.
    return {name: parser for name, parser in action.choices.items() if name != "serve"}


def texts_of(command: str) -> list[argparse.Action]:
    """Options and positionals of a command that take a text."""
    return [action for action in commands()[command]._actions if action.nargs != 0 and action.dest != "help"]


def walked() -> Iterator[tuple[str, str]]:
    for command in commands():
        for action in texts_of(command):
            yield command, (action.option_strings or [action.dest])[-1]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, a set of photos with masks, and the results of a case."""
    folder = tmp_path_factory.mktemp("inputs")
    random = np.random.default_rng(0)
    data = random.normal(300, 10, (34, 26, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([1, 1, 5, 1.0])), folder / "head.nii.gz")
    photo_set(folder / "set", ["0", "1"])
    made_result(np.full((9, 7, 1), 0.9, np.float32), np.eye(4), source=PHOTO).save(folder / "done")
    return folder


def photo_set(folder: Path, names: list[str], normal: str = "normal") -> None:
    """A set of the layout ``folder``, or, with another ``normal``, of BrainMRI."""
    random = np.random.default_rng(0)
    abnormal = {"normal": "abnormal", "no": "yes"}[normal]
    for kind in (normal, abnormal):
        (folder / kind).mkdir(parents=True)
        for name in names:
            picture = random.integers(0, 255, (30, 36, 3), dtype=np.uint8)
            Image.fromarray(picture).save(folder / kind / f"{name}-{kind}.png")
    mask = np.zeros((30, 36), np.uint8)
    mask[5:12, 7:19] = 255
    (folder / "masks").mkdir()
    for name in names if normal == "normal" else ():
        Image.fromarray(mask).save(folder / "masks" / f"{name}-{abnormal}.png")


@functools.cache
def thin_head(lesion: bool, whole=phantom.head_phantom) -> phantom.Phantom:
    head = whole(lesion=lesion)
    return dataclasses.replace(head, data=head.data[::6, ::6, 8:11], lesion=head.lesion[::6, ::6, 8:11])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working folder, no connection, a home without weights, and a small head for the demo."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANOMALYCLIP_OFFLINE", "1")
    monkeypatch.setenv("ANOMALYCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(phantom, "head_phantom", lambda lesion: thin_head(lesion))


def baseline(command: str, inputs: Path) -> list[str]:
    """A request that works, quick where it runs a network."""
    one_plane = ["--fast", "--axes", "1", "--no-mirror"]
    return {
        "localize": [str(inputs / "head.nii.gz"), "-o", "out", *one_plane],
        "calibrate": [str(inputs / "head.nii.gz"), "-o", "out.json", *one_plane],
        "evaluate": ["folder", str(inputs / "set"), "-o", "out", *one_plane, "--bootstrap", "0", "--limit", "2"],
        "train": ["folder", str(inputs / "set"), "-o", "out", "--epochs", "1"],
        "demo": ["-o", "out", "--fast", "--report"],
        "report": [str(inputs / "done")],
        "info": [],
        "download": ["vitl14_336"],
        "convert-prompts": [str(inputs / "head.nii.gz"), "-o", "out.pt"],
    }[command]


def with_hostile(command: str, option: str, text: str, inputs: Path) -> list[str]:
    """The request that works, with a hostile text in the place of one of its words."""
    words = baseline(command, inputs)
    action = next(a for a in texts_of(command) if option in (*a.option_strings, a.dest))
    if not action.option_strings:
        positionals = [a.dest for a in texts_of(command) if not a.option_strings]
        words[positionals.index(action.dest)] = text
        return [command, *words]
    pairs = isinstance(action.nargs, int) and action.nargs == 2
    for known in action.option_strings:
        if known in words:
            del words[words.index(known) : words.index(known) + 2]
    return [command, *words, *([option, "folder", text] if pairs else [f"{option}={text}"])]


def check_lines(printed: str) -> None:
    lines = printed.splitlines()
    assert "CODE-RAN" not in lines
    assert not any(line.startswith("E_FORGED") for line in lines)
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "Traceback" not in printed
    assert not Path("RAN").exists()


@pytest.mark.parametrize("command", ["localize", "report", "calibrate", "evaluate", "train", "demo", "info"])
def test_the_requests_that_are_changed_work(command, inputs, capsys):
    assert main([command, *baseline(command, inputs)]) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(("command", "option"), list(walked()))
def test_commands_take_texts_as_values(command, option, kind, inputs, capsys):
    try:
        code = main(with_hostile(command, option, HOSTILE[kind], inputs))
    except SystemExit as stopped:  # argparse: the usage, and one line
        code = stopped.code
    assert code in (0, 1, 2)
    out, err = capsys.readouterr()
    check_lines(out)
    check_lines(err)
    assert not Path(__file__).parent.joinpath("RAN").exists()


FUNCTIONS = {"localize": ac.localize, "localize_many": ac.localize_many, "calibrate": calibrate}


def arguments() -> list[str]:
    sets = (CaseOptions, InputOptions, ModelOptions)
    return ["image", *(known.name for options in sets for known in options.known() if known.kind == "text")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("argument", arguments())
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_take_texts_as_values(function, argument, kind, inputs, capsys):
    image = HOSTILE[kind] if argument == "image" else inputs / "head.nii.gz"
    options = {"fast": True, "axes": 1, "mirror": False}
    if argument != "image":
        options[argument] = HOSTILE[kind]
    if function == "calibrate" and argument in ("roi", "series"):
        pytest.skip("no argument of calibrate")
    try:
        found = FUNCTIONS[function](image, **options)
        for result in found if function == "localize_many" else ():
            check_lines(str(result.error))
    except AnomalyCLIPError as error:
        check_lines(str(error))
    check_lines("".join(capsys.readouterr()))


def test_a_bundle_in_the_working_folder_is_not_taken_by_a_bare_name(inputs, capsys):
    definition = {"imports": ["$__import__('pathlib').Path('RAN').touch()"], "network_def": None}
    for name in ("tiny", "mine"):
        (Path(name) / "configs").mkdir(parents=True)
        (Path(name) / "configs" / "inference.json").write_text(json.dumps(definition))
    assert main(["localize", str(inputs / "head.nii.gz"), "-o", "out", "--fast", "--axes", "1", "--model", "tiny"]) == 0
    assert main(["localize", str(inputs / "head.nii.gz"), "-o", "out", "--model", "mine"]) == 2
    assert not Path("RAN").exists()
    assert "E_MODEL: no model 'mine'" in capsys.readouterr().err


def test_a_bundle_from_elsewhere_is_named_as_code(inputs, capsys):
    shutil.copytree(resources.bundle_root("tiny"), "copy")
    request = ["localize", str(inputs / "head.nii.gz"), "-o", "out", "--fast", "--axes", "1", "--model", "./copy"]
    assert main(request) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == [f"running the code of a bundle that does not come with the package: {Path('copy').resolve()}"]
    assert main([*request, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_values_reach_the_configuration_as_they_are(tmp_path):
    file = tmp_path / "inference.json"
    file.write_text('{"a": 1, "b": "@a", "c": "$@a", "d": {"_target_": "builtins.dict", "x": "@a", "y": 2}}')
    for value in ("$1 + 1", "@b", "%c", {"_target_": "builtins.exit", "e": "$1"}, ["@a", "$2"], Path("$x")):
        parser = configured([file], {"a": value, "d#y": value})
        for name in ("a", "b", "c"):
            assert parser.get_parsed_content(name) is value
        assert parser.get_parsed_content("d") == {"x": value, "y": value}
    parser = configured([file], {}, {"new": {"_target_": "builtins.dict", "z": "$1", "list": ["@a", 3]}})
    assert parser.get_parsed_content("new") == {"z": "$1", "list": ["@a", 3]}


@pytest.mark.parametrize(
    "content",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\npreset_table: {scaling: *c}",
        "[" * 20000,
        "preset_table:\n" + "".join(" " * level + "a:\n" for level in range(1, 50)),
        "preset_table: {scaling: range}\nnetwork_def: {_target_: os.system}",
        "preset: [1]\npreset_table: {scaling: range}",
        "!!python/object/apply:os.system ['touch RAN']",
        "preset_table: {scaling: range, reason: '" + "x" * 70_000 + "'}",
        "\x00",
        "preset_table: {scaling: range, lower: !!python/name:os.system }",
        "",
        "- 1",
    ],
    ids=["laughs", "deep", "deeper", "other entries", "name", "python", "large", "null", "tag", "empty", "list"],
)
def test_presets_are_data_with_limits(content, inputs, capsys):
    Path("p.yaml").write_text(content)
    assert main(["localize", str(inputs / "head.nii.gz"), "-o", "out", "--preset", "p.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("E_PRESET: ")
    assert "p.yaml" in line


NAMES = [
    HOSTILE[kind].replace("/", "_")
    for kind in ("expression", "reference", "macro", "home", "newline", "ansi", "no_utf8")
]
"""Names of files and folders."""


def test_names_in_data_sets_are_values(inputs, capsys):
    photo_set(Path("set"), [*NAMES, "<script>alert(1)<", "a|b`c", "=1+1"])
    photo_set(Path("sets") / NAMES[0] / "BrainMRI", NAMES, normal="no")
    photo_set(Path("sets") / NAMES[4] / "BrainMRI", NAMES, normal="no")
    for words in (["folder", "set"], ["--all", "sets"]):
        assert main(["evaluate", *words, "-o", "out", "--fast", "--no-mirror", "--bootstrap", "0"]) == 0
        out, err = capsys.readouterr()
        check_lines(out)
        check_lines(err)
    for file in (*Path("out").glob("*.*"), *Path("out").glob("*/*.[mh][dt]*")):
        text = file.read_text(encoding="utf-8")
        check_lines(text)
        assert "<script>alert" not in text
    assert main(["train", "folder", "set", "-o", "learned", "--epochs", "1"]) == 0
    check_lines("".join(capsys.readouterr()))


def test_cells_of_lists_are_values(inputs, capsys):
    rows = [
        f'"{inputs}/set/{kind}/{index}-{kind}.png",{kind},"{category}"'
        for kind in ("normal", "abnormal")
        for index, category in enumerate((HOSTILE["expression"], HOSTILE["newline"] + "<script>alert(1)</script>|"))
    ]
    Path("list.csv").write_text("\n".join(["image,label,category", *rows]) + "\n")
    assert main(["evaluate", "csv", "list.csv", "-o", "out", "--fast", "--no-mirror", "--bootstrap", "0"]) == 0
    check_lines("".join(capsys.readouterr()))
    for name in ("report.html", "table.md"):
        text = (Path("out/csv") / name).read_text(encoding="utf-8")
        check_lines(text)
        assert "<script>alert" not in text


@pytest.mark.parametrize("cell", ["x" * 200_000, "x" * 5_000, "a\0b", '"a\nE_FORGED: b"'])
def test_lists_that_name_nothing_are_one_line(cell, capsys):
    Path("list.csv").write_text(f"image,label\n{cell},normal\n")
    assert main(["evaluate", "csv", "list.csv", "-o", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(("E_CSV: ", "E_MIXED: "))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("option", ["--threshold", "--preset", "--prompts", "--roi"])
def test_pipes_are_not_opened(option, inputs, capsys):
    os.mkfifo("pipe.yaml")
    assert main(["localize", *baseline("localize", inputs), option, "pipe.yaml"]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "E_" in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_in_the_place_of_a_report_is_not_opened(inputs, capsys):
    os.mkfifo("report.json")
    assert main(["evaluate", *baseline("evaluate", inputs), "--against", "report.json"]) == 2
    assert capsys.readouterr().err.startswith("E_REPORT: no report: this is no file (")


@pytest.mark.parametrize("name", ["auto", "", "x" * 100])
def test_a_preset_has_a_name_of_its_own(name, inputs, capsys):
    Path("p.yaml").write_text(f"preset: '{name}'\npreset_table: {{scaling: range}}")
    assert main(["localize", *baseline("localize", inputs), "--preset", "p.yaml"]) == 2
    assert capsys.readouterr().err.startswith("E_PRESET: a preset cannot be called ")


def test_what_libraries_say_does_not_reach_the_terminal(monkeypatch, capsys):
    def talking(arguments):
        for name, level in (("pydicom", logging.WARNING), ("anomalyclip_monai.x", logging.WARNING)):
            monkeypatch.setattr(logging.getLogger(name), "level", level)
            logging.getLogger(name).warning("%s says\nE_FORGED: Doe^John", name)
        warnings.warn("Invalid value for VR PN: 'Doe^John'", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(info, "run", talking)
    monkeypatch.setattr(logging.root, "handlers", [])
    level = logging.root.level
    try:
        assert main(["info"]) == 0
    finally:
        logging.root.setLevel(level)
    assert capsys.readouterr().err == "anomalyclip_monai.x says\\nE_FORGED: Doe^John\n"


@pytest.mark.parametrize(
    "error", [RuntimeError("a\nb"), KeyError("x"), UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no")]
)
def test_a_mistake_of_ours_is_one_line(error, monkeypatch, capsys):
    def failing(arguments):
        raise error

    monkeypatch.setattr(info, "run", failing)
    assert main(["info"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"E_INTERNAL: unexpected {type(error).__name__}: ")


def kept(path: Path) -> bool:
    return path.read_text() == "of others"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("calibrate", "out.json"),
        ("evaluate", "out/folder/report.json"),
        ("evaluate", "out/folder/bootstrap.npz"),
        ("train", "out/model.pt"),
        ("train", "out/training.json"),
    ],
)
def test_a_file_of_others_is_left_as_it_is(command, name, inputs, capsys):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("of others")
    assert main([command, *baseline(command, inputs)]) == 1
    assert "E_WRITE: a file is there that was not written by this program" in capsys.readouterr().err
    assert kept(Path(name))
    Path(name).unlink()
    for _ in range(2):  # ours are replaced
        assert main([command, *baseline(command, inputs)]) == 0, capsys.readouterr().err


def test_the_demo_leaves_an_input_of_others(inputs, capsys):
    Path("out/input").mkdir(parents=True)
    Path("out/input/lesion.nii.gz").write_text("of others")
    assert main(["demo", *baseline("demo", inputs)]) == 0
    assert kept(Path("out/input/lesion.nii.gz"))
    assert Path("out/input-2/lesion.nii.gz").is_file()


def test_results_are_left_where_options_mean_the_same(inputs, capsys):
    Path("p.yaml").write_text("preset_table: {scaling: range, upper: 400}")
    request = ["localize", *baseline("localize", inputs)]
    same = [
        (
            [],
            ["--preset", "auto", "--threshold", "auto", "--smooth-slices", "0.70", "--slice-batch", "3", "--no-dicom"],
        ),
        (["--threshold", "0.4"], ["--threshold", ".40"]),
        (["--preset", "p.yaml"], ["--preset", "./p.yaml"]),
    ]
    for first, second in same:
        assert main([*request, *first]) == 0
        capsys.readouterr()
        assert main([*request, *second, "--continue"]) == 0
        assert ": there already -> " in capsys.readouterr().out
    Path("p.yaml").write_text("preset_table: {scaling: range, upper: 401}")
    assert main([*request, "--preset", "p.yaml", "--continue"]) == 0
    assert "(replaced)" in capsys.readouterr().out


def test_a_folder_with_the_name_of_no_bundle_is_not_listed(capsys):
    for name in ("mine", HOSTILE["newline"]):
        (Path("home/bundles") / name / "configs").mkdir(parents=True)
        (Path("home/bundles") / name / "configs/inference.json").write_text("{}")
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "model mine: " in out
    check_lines(out)
    assert "E_FORGED" not in out


def test_prompts_that_are_not_finite_are_refused(inputs, capsys):
    own = torch.load(resources.bundle_root("tiny") / "models/model.pt", weights_only=True)
    torch.save({key: value * float("nan") for key, value in own.items()}, "nan.pt")
    assert main(["localize", *baseline("localize", inputs), "--prompts", "nan.pt"]) == 2
    assert re.match(r"E_PROMPTS: \S+ holds values that are not finite \(", capsys.readouterr().err)


def test_without_a_place_for_temporary_files_nothing_starts(inputs, monkeypatch, capsys):
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert main(["localize", *baseline("localize", inputs)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "E_WRITE: there is no folder for temporary files that can be written - set TMPDIR to one"


def test_a_user_without_a_name_and_a_home(monkeypatch, capsys):
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "ANOMALYCLIP_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(getpass, "getuser", unknown)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    ac._name_the_user()
    assert os.environ["USER"] == f"user{os.getuid()}"
    assert main(["info"]) == 0
    assert "home: E_HOME: this user has no home folder" in capsys.readouterr().out
