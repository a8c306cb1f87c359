"""Imports point one way: from the command down to the ground floor, never up."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import anomalyclip_monai
import recipes

PACKAGE = Path(anomalyclip_monai.__file__).parent

FLOORS: tuple[frozenset[str], ...] = (
    # The root holds the version, and public names that it imports when they are first used.
    frozenset(
        {"", "definition", "exceptions", "files", "folders", "options", "resources", "text", "types", "yaml_data"}
    ),
    frozenset({"data", "losses", "metrics", "networks", "transforms"}),
    frozenset({"weights"}),
    frozenset({"engines", "inferers", "outputs"}),
    frozenset({"api"}),
    frozenset({"cli", "label"}),
)
"""From the ground up. A room imports from floors below it; between rooms of a floor imports go one way as well."""

HUBS = ("huggingface_hub", "requests", "http", "urllib.request", "socket", "ftplib")
"""What reaches beyond this machine: ``weights`` alone."""

NO_TENSORS = (
    *(f"anomalyclip_monai.{room}" for room in ("data", "definition", "files", "options", "resources", "weights")),
    "huggingface_hub",
    "safetensors",
)
"""What ``networks`` must not know: files, bundles and their options, which weights there are, and any hub."""


class Import(NamedTuple):
    """One import: the file below its root, and the full name of what it takes."""

    file: str
    line: int
    name: str


@functools.cache
def imports(root: Path) -> tuple[Import, ...]:
    """Every import of every module below a folder, those within functions and for type checkers as well."""
    return tuple(_imports(root))


def _imports(root: Path) -> Iterator[Import]:
    for file in sorted(root.rglob("*.py")):
        relative = file.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{relative}:{node.lineno}: write the whole name"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            yield from (Import(relative, node.lineno, name) for name in names)


def room_of(path: str) -> str:
    """Path below the package -> its room; "" is the package's own file."""
    first = path.split("/")[0].removesuffix(".py")
    return "" if first == "__init__" else first


def module_of(path: str) -> str:
    """Path below the package -> the module's whole name."""
    return f"anomalyclip_monai.{path.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")


def room_of_name(name: str) -> str | None:
    """The room that an imported name belongs to; None outside the package."""
    parts = name.split(".")
    if parts[0] != "anomalyclip_monai":
        return None
    known = {room for floor in FLOORS for room in floor}
    return parts[1] if len(parts) > 1 and parts[1] in known else ""


def is_below(name: str, modules: tuple[str, ...]) -> bool:
    """Whether an imported name is one of these modules or in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def told(found: Import) -> str:
    """An import in words."""
    return f"{found.file}:{found.line} imports {found.name}"


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(file.relative_to(PACKAGE).as_posix()) for file in PACKAGE.rglob("*.py")}
    assert rooms - {room for floor in FLOORS for room in floor} == set()


def test_no_import_points_up() -> None:
    level = {room: index for index, floor in enumerate(FLOORS) for room in floor}
    wrong = [
        told(found)
        for found in imports(PACKAGE)
        # the package's own file opens the public names, which are made upstairs
        if (room := room_of(found.file))
        and (other := room_of_name(found.name)) is not None
        and level[other] > level[room]
    ]
    assert wrong == []


def test_rooms_of_a_floor_import_one_way() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for found in imports(PACKAGE):
        room, other = room_of(found.file), room_of_name(found.name)
        if room and other and other != room:
            graph[room].add(other)
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_networks_know_tensors_only() -> None:
    wrong = [
        told(found)
        for found in imports(PACKAGE)
        if room_of(found.file) == "networks" and is_below(found.name, NO_TENSORS)
    ]
    assert wrong == []


def test_modules_import_one_way() -> None:
    """No circle within a room either, be it for type checkers."""
    graph: dict[str, set[str]] = defaultdict(set)
    modules = {module_of(file.relative_to(PACKAGE).as_posix()) for file in PACKAGE.rglob("*.py")}
    for found in imports(PACKAGE):
        module, other = module_of(found.file), found.name
        while other and other not in modules:
            other = other.rpartition(".")[0]
        if other and other != module and module != "anomalyclip_monai":  # the package's own file, see above
            graph[module].add(other)
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_weights_alone_reach_beyond_this_machine() -> None:
    wrong = [
        told(found) for found in imports(PACKAGE) if is_below(found.name, HUBS) and room_of(found.file) != "weights"
    ]
    assert wrong == []
    naming = {
        room_of(file.relative_to(PACKAGE).as_posix())
        for file in PACKAGE.rglob("*.py")
        if re.search(r"(ANOMALYCLIP|HUB)_OFFLINE|HF_[A-Z]", file.read_text(encoding="utf-8"))
    }
    assert naming == {"weights"}


def test_nothing_imports_the_command() -> None:
    wrong = [
        told(found)
        for found in imports(PACKAGE)
        if room_of(found.file) != "cli" and is_below(found.name, ("anomalyclip_monai.cli",))
    ]
    # A recipe's benchmarks measure what the command writes; what it is made of stands on the Python API.
    wrong += [
        told(found)
        for found in imports(Path(recipes.__file__).parent)
        if "/benchmarks/" not in found.file and is_below(found.name, ("anomalyclip_monai.cli",))
    ]
    assert wrong == []


@pytest.mark.parametrize("outside", ["recipes", "benchmarks", "tests"])
def test_the_package_imports_nothing_that_is_not_installed(outside: str) -> None:
    assert [told(found) for found in imports(PACKAGE) if is_below(found.name, (outside,))] == []


def test_the_wheel_holds_the_package_and_its_data_alone() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"] == [
        "anomalyclip_monai",
        "bundles",
        "transforms",
    ]


def test_an_arrow_upward_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "bad.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from anomalyclip_monai import api\n"
        "def late():\n    import anomalyclip_monai.cli.console as c\n    from anomalyclip_monai import __version__\n"
    )
    found = imports(tmp_path)
    assert [(room_of(one.file), room_of_name(one.name)) for one in found if "anomaly" in one.name] == [
        ("metrics", "api"),
        ("metrics", "cli"),
        ("metrics", ""),
    ]
