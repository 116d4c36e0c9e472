"""What the names in a pickle lead to: stand-ins that keep what they are given and can do nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

MAX_DIMENSIONS = 8
NUMBER_TYPES = frozenset(("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"))


class Refused(Exception):
    """The pickle asks for something that is not allowed."""


def refuse(reason: str) -> NoReturn:
    """Give up on the record."""
    raise Refused(reason)


class Stand:
    """A function of ours that the pickle may call; the pickle cannot change it."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run

    def __call__(self, *arguments: Any) -> Any:
        """Run the function."""
        return self._run(*arguments)

    def __setstate__(self, state: object) -> None:
        refuse("state for a function")


class Record:
    """Stand-in for Data and its storages: keeps the state it is given."""

    __slots__ = ("state",)

    def __new__(cls) -> Record:
        """Make an empty one; pickles skip `__init__`."""
        self = object.__new__(cls)
        self.state = {}
        return self

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            refuse("object state that is no dict")
        self.state = state

    def fields(self) -> dict[str, Any]:
        """Field name -> value, of the new layout (Data -> store -> mapping) and of the old one (plain state)."""
        store = self.state.get("_store")
        if isinstance(store, Record):
            mapping = store.state.get("_mapping")
            return mapping if isinstance(mapping, dict) else {}
        return self.state


class Array:
    """Stand-in for arrays, tensors and storages. The pickle never gets hold of the real array inside."""

    __slots__ = ("value",)

    def __init__(self, value: np.ndarray | None = None) -> None:
        self.value = value

    def __setstate__(self, state: tuple[int, tuple[int, ...], NumberType, bool, bytes]) -> None:
        _, shape, kind, fortran, raw = state
        self.value = array_from_bytes(raw, kind, shape, "F" if fortran else "C").value


class NumberType:
    """Stand-in for a numpy dtype: plain numbers only."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code.lstrip("<>=|") not in NUMBER_TYPES:
            refuse(f"numpy type {str(code)[:40]!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|"):
            refuse("numpy byte order")
        self.dtype = self.dtype.newbyteorder(order)


def array_from_bytes(raw: Any, kind: Any, shape: Any, order: Any = "C") -> Array:
    """Array over bytes that are already there; nothing is allocated."""
    if not isinstance(raw, (bytes, bytearray)) or not isinstance(kind, NumberType):
        refuse("array without plain bytes")
    return Array(np.frombuffer(raw, kind.dtype).reshape(checked_sizes(shape), order="F" if order == "F" else "C"))


def checked_sizes(shape: Any) -> tuple[int, ...]:
    """Return a shape or strides as a tuple of counts."""
    if not isinstance(shape, (tuple, list)) or len(shape) > MAX_DIMENSIONS:
        refuse("a shape that is no tuple")
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        refuse("a shape that is no tuple of counts")
    return tuple(shape)


def tensor_view(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Array:
    """View of a storage with torch's sizes and strides; it must lie inside, and not repeat elements."""
    sizes, steps = checked_sizes(size), checked_sizes(stride)
    flat = storage.value if isinstance(storage, Array) else None
    if flat is None or flat.ndim != 1 or not flat.flags.c_contiguous:
        refuse("a tensor without storage")
    if not isinstance(offset, int) or offset < 0 or len(sizes) != len(steps):
        refuse("a tensor of unknown layout")
    count = math.prod(sizes)
    last = offset + sum((n - 1) * s for n, s in zip(sizes, steps, strict=True))
    if count > len(flat) or (count and last >= len(flat)):
        refuse("a tensor larger than its storage")
    if count == 0:
        return Array(flat[:0].reshape(sizes))
    strides = tuple(s * flat.itemsize for s in steps)
    return Array(np.lib.stride_tricks.as_strided(flat[offset:], sizes, strides, writeable=False))
