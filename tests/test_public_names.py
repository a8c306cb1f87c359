"""The public names are few, and this list is what they are."""

from __future__ import annotations

import ast
from pathlib import Path

import anomalyclip_monai
from anomalyclip_monai import networks

PACKAGE = Path(anomalyclip_monai.__file__).parent

# who may import whom: a layer imports from itself and from those behind it
LAYERS = [
    {"cli", "label"},
    {"api"},
    {"outputs", "engines", "inferers", "weights"},
    {"networks", "transforms", "losses", "metrics"},
    {"data"},
    {"resources"},
    {"exceptions", "types"},
]


def test_public_names():
    assert anomalyclip_monai.__all__ == ["AnomalyCLIPError", "Result", "load_model", "localize", "localize_many"]
    for name in anomalyclip_monai.__all__:
        assert getattr(anomalyclip_monai, name) is not None
    assert networks.__all__ == [
        "AnomalyCLIP",
        "AnomalyCLIPEnsemble",
        "HandWrittenCLIP",
        "clip_from_state_dict",
        "load_backbone",
        "named_config",
        "prompts_from_authors",
        "read_state_dict",
    ]


def test_imports_point_one_way():
    level = {name: index for index, names in enumerate(LAYERS) for name in names}
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        relative = file.relative_to(PACKAGE)
        room = relative.parts[0].removesuffix(".py")
        if room == "__init__" or relative.parts[0] in ("bundles", "presets"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                parts = module.split(".")
                if parts[0] == "anomalyclip_monai" and len(parts) > 1 and level[parts[1]] < level[room]:
                    wrong.append(f"{relative} imports {module}")
                if room == "networks" and parts[:2] == ["anomalyclip_monai", "data"]:
                    wrong.append(f"{relative} knows of files")
    assert wrong == []


def test_only_the_command_prints():
    printing = [
        file.relative_to(PACKAGE).parts[0]
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert set(printing) <= {"cli"}
