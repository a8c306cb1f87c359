"""Count the elements of a DICOM data set without parsing them, so that a header of millions is not parsed at all.

pydicom makes an object of each element, which takes 15 microseconds: a few megabytes that inflate to three million
elements take most of a minute. Walking over tags and lengths (PS3.5 7.1) takes a tenth of that, up to the limit.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

MAX_ELEMENTS = 500_000
"""Most elements and sequence items of a file, nested ones included; 5,000 frames of an enhanced object have 250,000."""

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = 0x7FE0
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations with a length of four bytes, after two that are reserved (PS3.5 7.1.2)."""

_BINARY = frozenset({b"OB", b"OW"})
"""Of undefined length these hold fragments, whose bytes are no elements (PS3.5 A.4)."""


def too_many_elements(stream: BinaryIO, *, little: bool = True, limit: int = MAX_ELEMENTS) -> bool:
    """Whether more than ``limit`` elements and items follow before the pixels. The stream is left anywhere.

    A stream that is cut off or makes no sense ends the count: the parser says what is wrong with it.

    Args:
        stream: at the first element after the file meta information.
        little: whether numbers are little-endian.
        limit: that stands for too many.
    """
    order = "<" if little else ">"
    tags, shorts, longs = struct.Struct(f"{order}HH"), struct.Struct(f"{order}H"), struct.Struct(f"{order}L")
    at = stream.tell()
    head = stream.read(6)
    # Sequences that are open: where each ends (None: at its delimiter), whether what it holds is implicit, a fragment.
    holders: list[tuple[int | None, bool, bool]] = [(None, not _is_explicit(head[4:6]), False)]
    count = 0
    while count <= limit:
        while len(holders) > 1 and (end := holders[-1][0]) is not None and at >= end:
            holders.pop()
        _, implicit, fragments = holders[-1]
        stream.seek(at)
        head = stream.read(16)
        if len(head) < 8:
            return False
        group, element = tags.unpack_from(head)
        if group == 0xFFFE:
            tag, length = group << 16 | element, longs.unpack_from(head, 4)[0]
            at += 8 + (length if fragments and tag == _ITEM else 0)
            count += tag == _ITEM
            if tag == _SEQUENCE_END and len(holders) > 1:
                holders.pop()
            continue
        if group == _PIXELS and len(holders) == 1:
            return False
        count += 1
        vr = b"" if implicit or not _is_explicit(head[4:6]) else head[4:6]
        if vr in _LONG:
            if len(head) < 12:
                return False
            size, length = 12, longs.unpack_from(head, 8)[0]
        elif vr:
            size, length = 8, shorts.unpack_from(head, 6)[0]
        else:
            size, length = 8, longs.unpack_from(head, 4)[0]
        at += size
        inside = vr in (b"", b"SQ", b"UN")
        if length == _UNDEFINED:
            holders.append((None, implicit or vr == b"UN", vr in _BINARY))  # PS3.5 6.2.2: UN holds implicit elements
        elif inside and length >= 8 and head[size : size + 4] == tags.pack(0xFFFE, 0xE000):
            holders.append((at + length, implicit or vr == b"UN", False))
        else:
            at += length
    return True


def _is_explicit(vr: bytes) -> bool:
    return len(vr) == 2 and vr.isalpha() and vr.isupper()
