"""Reads a pickle's steps without carrying them out: which they are, and whether what they claim is there."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import NamedTuple

from forgefield.data.stand_ins import refuse

MAX_NESTED = 100  # tuples in tuples: hashing and freeing them recurses
MAX_LINE = 1000  # bytes of a name in the old notation


class Limits(NamedTuple):
    """What a pickle may ask for."""

    opcodes: frozenset[str]
    steps: int
    numbers: bool = False  # whether numbers may be written as text, in protocols 0 and 1


_BY_CODE = {ord(op.code): op for op in pickletools.opcodes}
_FIXED = {"uint1": 1, "uint2": 2, "int4": 4, "uint4": 4, "uint8": 8, "float8": 8}
_COUNTED = {
    **{"bytes1": 1, "string1": 1, "unicodestring1": 1, "long1": 1},
    **{"bytes4": 4, "string4": 4, "unicodestring4": 4, "long4": 4},
    **{"bytes8": 8, "unicodestring8": 8, "bytearray8": 8},
}
_PLAIN = 0  # nesting of what is not a tuple


def scan(data: bytes | memoryview, limits: Limits) -> int:
    """Walk through one pickle.

    Args:
        data: begins with the pickle; more may follow.
        limits: what it may contain.

    Returns:
        Length of the pickle in bytes.

    Raises:
        Refused: an unknown step, too many of them, a claim larger than the data, a memo out of order, deep nesting.
        ValueError: it ends too early.
    """
    view = memoryview(data)
    kinds = {code: _Kind.of(op) for code, op in _BY_CODE.items() if op.name in limits.opcodes}
    nest = _Nesting()
    at, size = 0, len(view)
    for count in range(limits.steps):
        if at >= size:
            raise ValueError("the pickle has no end")
        kind = kinds.get(view[at])
        if kind is None:
            op = _BY_CODE.get(view[at])
            refuse(f"opcode {op.name if op else hex(view[at])}")
        at += 1
        argument = 0
        if kind.fixed:
            argument = int.from_bytes(view[at : at + kind.fixed], "little")
            at += kind.fixed
        elif kind.counted:
            argument = int.from_bytes(view[at : at + kind.counted], "little")
            at += kind.counted + argument
        elif kind.lines:
            at = _after_lines(view, at, kind.lines)
        if at > size:
            refuse("a claim of size larger than the data") if kind.counted else _ended()
        if kind.name == "STOP":
            return at
        if kind.name == "FRAME" and argument > size - at:
            refuse("a frame longer than the data")
        if kind.step is not None:
            kind.step(nest, argument, count)
    refuse(f"more than {limits.steps} steps")


def _ended() -> None:
    raise ValueError("the pickle has no end")


def _after_lines(view: memoryview, at: int, lines: int) -> int:
    for _ in range(lines):
        end = bytes(view[at : at + MAX_LINE]).find(b"\n")
        if end < 0:
            raise ValueError("a name has no end")
        at += end + 1
    return at


class _Nesting:
    """Depth of the tuples on the pickle's stack and in its memo."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.marks: list[int] = []
        self.memo: dict[int, int] = {}

    def push(self, *_: int) -> None:
        self.stack.append(_PLAIN)

    def mark(self, *_: int) -> None:
        self.marks.append(len(self.stack))

    def pack(self, width: int) -> None:
        """Put the top `width` values into a tuple."""
        taken = self.stack[-width:] if width else []
        if len(taken) < width:
            raise ValueError("the pickle takes more than it has")
        depth = 1 + max(taken, default=0)
        if depth > MAX_NESTED:
            refuse("tuples nested too deep")
        del self.stack[len(self.stack) - width :]
        self.stack.append(depth)

    def to_mark(self) -> int:
        """Return how many values lie above the last mark, and take the mark away."""
        if not self.marks or self.marks[-1] > len(self.stack):
            raise ValueError("a mark is missing")
        return len(self.stack) - self.marks.pop()

    def drop(self, width: int) -> None:
        if width > len(self.stack):
            raise ValueError("the pickle takes more than it has")
        if width:
            del self.stack[-width:]

    def fold(self, width: int) -> None:
        """Replace values by one that is no tuple."""
        self.drop(width)
        self.stack.append(_PLAIN)

    def keep(self, index: int, count: int) -> None:
        if not self.stack:
            raise ValueError("the pickle takes more than it has")
        if index > count:
            refuse("a memo index out of order")
        self.memo[index] = self.stack[-1]

    def fetch(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError("a memo entry is missing")
        self.stack.append(self.memo[index])


Step = Callable[[_Nesting, int, int], None]
_STEPS: dict[str, Step | None] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP")),
    "MARK": _Nesting.mark,
    "EMPTY_TUPLE": lambda n, a, c: n.pack(0),
    "TUPLE1": lambda n, a, c: n.pack(1),
    "TUPLE2": lambda n, a, c: n.pack(2),
    "TUPLE3": lambda n, a, c: n.pack(3),
    "TUPLE": lambda n, a, c: n.pack(n.to_mark()),
    "APPEND": lambda n, a, c: n.drop(1),
    "APPENDS": lambda n, a, c: n.drop(n.to_mark()),
    "SETITEM": lambda n, a, c: n.drop(2),
    "SETITEMS": lambda n, a, c: n.drop(n.to_mark()),
    "BUILD": lambda n, a, c: n.drop(1),
    "REDUCE": lambda n, a, c: n.fold(2),
    "NEWOBJ": lambda n, a, c: n.fold(2),
    "NEWOBJ_EX": lambda n, a, c: n.fold(3),
    "STACK_GLOBAL": lambda n, a, c: n.fold(2),
    "LIST": lambda n, a, c: n.fold(n.to_mark()),
    "DICT": lambda n, a, c: n.fold(n.to_mark()),
    "BINPERSID": lambda n, a, c: n.fold(1),
    "MEMOIZE": lambda n, a, c: n.keep(len(n.memo), c),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda n, a, c: n.keep(a, c)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda n, a, c: n.fetch(a)),
}
"""What each step does to the stack; all others push one value."""


class _Kind(NamedTuple):
    """How one opcode is read."""

    name: str
    fixed: int
    counted: int
    lines: int
    step: Step | None

    @classmethod
    def of(cls, op: pickletools.OpcodeInfo) -> _Kind:
        argument = op.arg.name if op.arg is not None else ""
        lines = {"stringnl_noescape_pair": 2}.get(argument, 1 if argument and "nl" in argument else 0)
        step = _STEPS.get(op.name, _Nesting.push)
        return cls(op.name, _FIXED.get(argument, 0), _COUNTED.get(argument, 0), lines, step)
