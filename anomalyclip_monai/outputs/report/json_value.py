"""JSON of others, read value by value with the kind that each must have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
_NEEDED = object()


@dataclass(frozen=True, slots=True)
class JSONValue:
    """A value of a parsed JSON file and its place. One of the wrong kind raises a ``ValueError`` that names the place.

    Attributes:
        value: as ``json.loads`` gives it.
        place: keys from the root, such as ``methods/clip/title``; empty for the root itself.
    """

    value: Any
    place: str = ""

    @classmethod
    def of(cls, content: Any) -> JSONValue:
        """The root of a parsed file; a value that knows its place keeps it."""
        return content if isinstance(content, JSONValue) else cls(content)

    def at(self, key: str, default: Any = _NEEDED) -> JSONValue:
        """The value of a key of an object; without a default it must be there."""
        found = self._of(dict, "an object").get(key, default)
        if found is _NEEDED:
            raise ValueError(f"{self._under(key)} is missing")
        return JSONValue(found, self._under(key))

    def text(self) -> str:
        """A string."""
        return str(self._of(str, "a text"))

    def flag(self) -> bool:
        """True or false."""
        return bool(self._of(bool, "true or false"))

    def whole(self) -> int:
        """A whole number."""
        number: int = self._of(int, "a whole number")
        return number

    def number(self) -> float:
        """A finite number; a whole one stays whole, so that it is written as it was read."""
        number: float = self._of((int, float), "a number")
        if not math.isfinite(number):
            raise ValueError(f"{self.place} is not finite")
        return number

    def optional(self, read: Callable[[JSONValue], T]) -> T | None:
        """What ``read`` makes of it, None of null."""
        return None if self.value is None else read(self)

    def each(self, read: Callable[[JSONValue], T]) -> tuple[T, ...]:
        """What ``read`` makes of every value of a list."""
        values: list[Any] = self._of(list, "a list")
        return tuple(read(JSONValue(value, self._under(str(index)))) for index, value in enumerate(values))

    def every(self, read: Callable[[JSONValue], T]) -> dict[str, T]:
        """What ``read`` makes of every value of an object, in its order."""
        values: dict[str, Any] = self._of(dict, "an object")
        return {key: read(JSONValue(value, self._under(key))) for key, value in values.items()}

    def _of(self, kinds: type | tuple[type, ...], what: str) -> Any:
        if not isinstance(self.value, kinds) or (isinstance(self.value, bool) and kinds is not bool):
            raise ValueError(f"{self.place or 'the content'} is not {what}")
        return self.value

    def _under(self, key: str) -> str:
        return f"{self.place}/{key}" if self.place else key
