"""Extension of griffe: cross-references in docstrings, which are written for Sphinx, as Markdown."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(?P<name>[^`]+)`")


class Roles(Extension):
    """``:class:`~a.b.C``` becomes ```C```."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of anything that has one."""
        if obj.docstring:
            obj.docstring.value = without_roles(obj.docstring.value)


def without_roles(text: str) -> str:
    """A docstring with plain names in the place of roles."""
    return ROLE.sub(lambda found: f"`{plain(found['name'])}`", text)


def plain(name: str) -> str:
    """``~a.b.C`` -> ``C``, any other name as it is."""
    return name.rpartition(".")[2] if name.startswith("~") else name
