"""Words on their way to a line that a person reads: names and texts of others, and numbers of things."""

from __future__ import annotations

import os
import unicodedata

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that move the cursor, reorder or break a line, or that no terminal shows."""


def printable(text: str | os.PathLike[str]) -> str:
    r"""A text on one line: control characters, line breaks and undecodable bytes as ``\x1b``, ``\n``, ``\udcff``.

    A line of output then says what it seems to say, whatever a file name, a server or a DICOM header holds.

    >>> printable("a\nE_FORGED: b")
    'a\\nE_FORGED: b'
    """
    text = os.fspath(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if _is_hidden(character) else character for character in text)


def counted(count: int, noun: str) -> str:
    """-> ``1 case``, ``2 cases``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def name_bytes(text: str) -> bytes:
    """A name, with what is no UTF-8 in it, for a hash; of others ``text.encode()``."""
    return text.encode("utf-8", "surrogatepass")


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
