"""The errors a user can meet, each one line: ``E_CODE: what (which file) - what to do``.

::

    AnomalyCLIPError
    |-- UsageError       the request itself cannot be carried out
    |-- NoInputError     nothing that could be read was found
    |-- CaseError        this case cannot be read or scored; others go on
    |   `-- OutputError  its results cannot be written
    `-- WeightsError     weights or prompts are missing, damaged or of another model

:class:`UsageError`, :class:`NoInputError` and :class:`WeightsError` mean that nothing could start (exit code 2);
a :class:`CaseError` ends one case (exit code 1).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from anomalyclip_monai.text import printable


class AnomalyCLIPError(Exception):
    """Base of all errors that this package raises for its user.

    Args:
        code: one of the ``E_...`` codes, the same for the same cause wherever it is found.
        what: what is wrong, with the values that show it. Never a value that identifies a patient.
        path: the file or folder, as the user gave it.
        todo: what the user can do about it.
    """

    def __init__(
        self, code: str, what: str, path: str | os.PathLike[str] | None = None, todo: str | None = None
    ) -> None:
        self.code = code
        self.what = what
        self.path = path
        self.todo = todo
        super().__init__(code, what, path, todo)

    def __str__(self) -> str:
        what = printable(" ".join(self.what.split()))
        where = f" ({printable(self.path)})" if self.path is not None else ""
        todo = f" - {printable(self.todo)}" if self.todo else ""
        return f"{self.code}: {what}{where}{todo}"


class UsageError(AnomalyCLIPError):
    """The request cannot be carried out as it was made."""


class NoInputError(AnomalyCLIPError):
    """Nothing that could be read was found."""


class CaseError(AnomalyCLIPError):
    """One case cannot be read, scored or written; the others are not affected."""


class OutputError(CaseError):
    """The results of a case cannot be written (``E_WRITE``)."""


class WeightsError(AnomalyCLIPError, RuntimeError):
    """Weights or prompts are missing, damaged or belong to another model.

    Also a ``RuntimeError``, which is what ``torch.nn.Module.load_state_dict`` raises for wrong keys.
    """


def known_cause(error: BaseException | None) -> AnomalyCLIPError | None:
    """The error of this package in a chain of causes; MONAI wraps what a transform raises."""
    while error is not None:
        if isinstance(error, AnomalyCLIPError):
            return error
        error = error.__cause__ or error.__context__
    return None


def innermost(error: BaseException) -> str:
    """Type and message of what started a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


@contextlib.contextmanager
def unwrapped() -> Iterator[None]:
    """Raise an error of this package as it was, where MONAI has wrapped it in one of its own; others stay."""
    try:
        yield
    except Exception as error:
        known = known_cause(error)
        if known is None:
            raise
        raise known from known.__cause__


def unforeseen(error: Exception, path: str | os.PathLike[str] | None = None) -> CaseError:
    """An error that nobody thought of, as one line of one case (``E_INTERNAL``): it must never stop the others."""
    return CaseError("E_INTERNAL", f"unexpected {innermost(error)}", path, "please report this")
