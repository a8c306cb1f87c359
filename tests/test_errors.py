"""Codes of errors: the table in the documentation is the list of those in the package."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import anomalyclip_monai
from anomalyclip_monai import exceptions
from anomalyclip_monai.exceptions import NoInputError, known_cause, unwrapped

PACKAGE = Path(anomalyclip_monai.__file__).parent
TABLE = PACKAGE.parent / "docs" / "errors.md"
CODE = re.compile(r"E_[A-Z0-9_]+")

EXITS = {"UsageError": 2, "NoInputError": 2, "WeightsError": 2, "CaseError": 1, "OutputError": 1, "Problem": 1}
"""What is made with a code -> exit code; a ``Problem`` of a DICOM header becomes a ``CaseError``."""


def table() -> dict[str, tuple[str, str, str]]:
    """Code -> exit codes, meaning, what to do."""
    rows = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"\| `(E_[A-Z0-9_]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", line):
            assert found[1] not in rows, f"{found[1]} has two rows"
            rows[found[1]] = (found[2], found[3], found[4])
    return rows


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Every node of the package's code, and the file that it is in."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            yield str(file.relative_to(PACKAGE)), node


def codes() -> dict[str, str]:
    """Code -> a file in which it stands as a literal."""
    return {
        node.value: file
        for file, node in nodes()
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value)
    }


def exits() -> dict[str, set[int]]:
    """Code -> exit codes of the errors that are made with it."""
    found: dict[str, set[int]] = defaultdict(set)
    for _, node in nodes():
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            code, made = node.args[0].value, getattr(node.func, "id", "")
            if isinstance(code, str) and CODE.fullmatch(code) and made in EXITS:
                found[code].add(EXITS[made])
    return found


def test_every_code_is_in_the_table_and_no_other():
    listed, used = table(), codes()
    assert used, "no codes were found, the test looks in the wrong place"
    new = [f"| `{code}` | ? | ? | ? |    <- {used[code]}" for code in sorted(used.keys() - listed.keys())]
    assert not new, "add to docs/errors.md:\n" + "\n".join(new)
    gone = sorted(listed.keys() - used.keys())
    assert not gone, f"no code of the package, take out of docs/errors.md: {gone}"


def test_exit_codes_are_those_of_the_errors():
    listed = table()
    wrong = {
        code: f"table {listed[code][0]}, package {', '.join(map(str, sorted(made)))}"
        for code, made in exits().items()
        if code in listed and listed[code][0] != ", ".join(map(str, sorted(made)))
    }
    assert not wrong


def test_rows_are_sorted_and_complete():
    rows = table()
    assert list(rows) == sorted(rows)
    for code, (_, meaning, todo) in rows.items():
        assert meaning.endswith("."), code
        assert todo.endswith("."), code
    count = TABLE.read_text(encoding="utf-8").count("\n| `E_")
    assert count == len(rows), "a row is not of the form that is read here"


def test_every_kind_of_error_has_an_exit_code():
    kinds = {
        name
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and issubclass(kind, exceptions.AnomalyCLIPError)
    }
    assert kinds - {"AnomalyCLIPError"} <= EXITS.keys()


def test_known_cause_looks_through_wrappings() -> None:
    cause = NoInputError("E_NO_IMAGES", "no image found")
    assert known_cause(cause) is cause
    wrapped, handling = RuntimeError("applying transform"), KeyError("while handling")
    wrapped.__cause__ = handling
    handling.__context__ = cause
    assert known_cause(wrapped) is cause
    assert known_cause(RuntimeError("no")) is None
    assert known_cause(None) is None


def test_an_error_of_ours_comes_out_of_its_wrapping() -> None:
    cause = NoInputError("E_NO_IMAGES", "no image found")
    cause.__cause__ = reason = OSError("gone")
    with pytest.raises(NoInputError) as caught, unwrapped():
        raise RuntimeError("applying transform") from cause
    assert caught.value is cause
    assert cause.__cause__ is reason
    with pytest.raises(KeyError), unwrapped():
        raise KeyError("of others")
