"""Texts as pyarrow pickles them, for tables that pandas 3 wrote beside it: offsets and letters, no pyarrow needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from forgefield.data.stand_ins import Stand, refuse

OFFSETS = {"string": "<i4", "large_string": "<i8"}


class ArrowType:
    """Name of a type."""

    __slots__ = ("name",)

    def __init__(self, name: Any) -> None:
        if name not in OFFSETS:
            refuse(f"a column of Arrow's type {str(name)[:40]!r}")
        self.name: str = name

    def __setstate__(self, state: object) -> None:
        refuse("state for a type")


class Texts(list[Any]):
    """Texts of a column; None where one is missing."""

    def __setstate__(self, state: object) -> None:
        refuse("state for texts")


def known_names(spend: Callable[[int], None]) -> dict[tuple[str, str], Any]:
    """What the names of pyarrow in a pickle lead to; `spend` is told how many texts are made, and may refuse."""

    def restored(parts: Any) -> Texts:
        spend(8 * parts[1])
        return _restored(parts)

    def joined(chunks: Any, *_: Any) -> Texts:
        spend(sum(8 * len(c) for c in chunks))
        return _joined(chunks)

    return {
        ("pyarrow.lib", "type_for_alias"): Stand(ArrowType),
        ("pyarrow.lib", "py_buffer"): Stand(_bytes),
        ("pyarrow.lib", "_restore_array"): Stand(restored),
        ("pyarrow.lib", "chunked_array"): Stand(joined),
        ("builtins", "bytearray"): Stand(_bytes),
        ("__builtin__", "bytearray"): Stand(_bytes),
    }


def _bytes(raw: Any) -> bytes | bytearray:
    if not isinstance(raw, (bytes, bytearray)):
        refuse("a buffer without plain bytes")
    return raw


def _restored(parts: Any) -> Texts:
    """Decode (type, length, missing, offset, (validity, offsets, letters), children, dictionary)."""
    kind, length, _, start, buffers = parts[:5]
    if not isinstance(kind, ArrowType) or type(length) is not int or type(start) is not int or min(length, start) < 0:
        refuse("an Arrow array of unknown layout")
    validity, offsets, letters = buffers
    if length == 0:
        return Texts()
    places = np.frombuffer(offsets, OFFSETS[kind.name])[start : start + length + 1]
    if len(places) != length + 1 or places[0] < 0 or (np.diff(places) < 0).any() or places[-1] > len(letters or b""):
        refuse("an Arrow array whose texts are not where it says")
    there = np.ones(length, dtype=bool)
    if validity is not None:
        bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")[start : start + length]
        if len(bits) != length:
            refuse("an Arrow array whose marks are too short")
        there = bits.astype(bool)
    raw, ends = bytes(letters or b""), places.tolist()
    return Texts(
        raw[a:b].decode("utf-8", "replace") if ok else None for a, b, ok in zip(ends[:-1], ends[1:], there, strict=True)
    )


def _joined(chunks: Any) -> Texts:
    if not isinstance(chunks, list) or not all(isinstance(c, Texts) for c in chunks):
        refuse("an Arrow array of unknown layout")
    return Texts(text for chunk in chunks for text in chunk)
