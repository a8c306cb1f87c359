"""The public names are few, and this list is what they are."""

from __future__ import annotations

import ast
from pathlib import Path

import anomalyclip_monai
from anomalyclip_monai import networks

PACKAGE = Path(anomalyclip_monai.__file__).parent


def test_public_names():
    assert anomalyclip_monai.__all__ == ["AnomalyCLIPError", "Result", "load_model", "localize", "localize_many"]
    for name in anomalyclip_monai.__all__:
        assert getattr(anomalyclip_monai, name) is not None
    assert networks.__all__ == [
        "AnomalyCLIP",
        "AnomalyCLIPEnsemble",
        "Fusion",
        "HandWrittenCLIP",
        "NetworkSettings",
        "Symmetry",
        "clip_from_state_dict",
        "named_config",
        "prompts_from_authors",
    ]


def test_only_the_command_prints():
    printing = [
        file.relative_to(PACKAGE).parts[0]
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert set(printing) <= {"cli"}
