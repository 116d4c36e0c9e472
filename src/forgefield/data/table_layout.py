"""What a DataFrame's stand-ins hold: blocks, names and rows, as pandas 1, 2 and 3 lay them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from forgefield.data.arrow_texts import Texts
from forgefield.data.stand_ins import Array, NumberType, checked_sizes, refuse

MAX_COLUMNS = 1000
MAX_TEXT = 1000  # letters of a text in an array


class Table(NamedTuple):
    """Columns by name; each has one entry per row."""

    columns: dict[str, Sequence[Any]]
    n_rows: int


class Kept:
    """Stand-in for an object of any known class: keeps what it is made from, does nothing."""

    __slots__ = ("arguments", "entries", "state")
    name = ""

    def __new__(cls, *arguments: Any) -> Kept:
        """Make one; pickles skip `__init__`."""
        self = object.__new__(cls)
        self.arguments, self.state, self.entries = arguments, None, {}
        return self

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def __reduce__(self) -> Any:
        """Travel to the worker processes of a loader, where the class of this name is made again."""
        return _kept_again, (self.name, self.arguments, self.state, self.entries)


def _kept_again(name: str, arguments: tuple[Any, ...], state: object, entries: dict[Any, Any]) -> Kept:
    made = kept_class(name)(*arguments)
    made.state, made.entries = state, entries
    return made


def kept_class(name: str) -> type[Kept]:
    """Make the stand-in of a class."""
    return type("Kept", (Kept,), {"__slots__": (), "name": name})


class Cells(Array):
    """Stand-in for an array of numbers, texts or objects; objects stay a plain list."""

    __slots__ = ("objects", "shape")

    def __init__(self, value: np.ndarray | None = None) -> None:
        super().__init__(value)
        self.objects: list[Any] | None = None
        self.shape: tuple[int, ...] = () if value is None else value.shape

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.shape = checked_sizes(shape)
        if not isinstance(kind, CellType) or kind.plain:
            super().__setstate__(state)
            return
        if not isinstance(raw, list) or len(raw) != math.prod(self.shape) or (fortran and min(self.shape) > 1):
            refuse("an array of objects that is not as long as it claims")
        self.objects = raw

    def __reduce__(self) -> Any:
        """Travel to the worker processes of a loader."""
        return _cells_again, (self.value, self.objects, self.shape)


def _cells_again(value: np.ndarray | None, objects: list[Any] | None, shape: tuple[int, ...]) -> Cells:
    made = Cells(value)
    made.objects, made.shape = objects, shape
    return made


class CellType(NumberType):
    """Stand-in for a numpy dtype: numbers, short texts, or objects."""

    __slots__ = ("plain",)

    def __init__(self, code: Any, *rest: Any) -> None:
        text = code.lstrip("<>=|") if isinstance(code, str) else ""
        self.plain = text not in ("O", "O4", "O8")
        if not self.plain:
            self.dtype = np.dtype(object)
        elif text[:1] in ("U", "S") and text[1:].isdigit() and 0 < int(text[1:]) <= MAX_TEXT:
            self.dtype = np.dtype(text)
        else:
            super().__init__(code, *rest)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.plain:
            super().__setstate__(state)


class TableBlock(Kept):
    """Values of some columns: (values, places, dimensions)."""

    name = "block"


class TableIndex(Kept):
    """Names of columns or rows: (class, {"data": ...} or {"start", "stop", "step"})."""

    name = "index"


def table_of(frame: Kept) -> Table:
    """Find the columns in a DataFrame's stand-in."""
    state = frame.state if isinstance(frame.state, dict) else {}
    manager = state.get("_mgr", state.get("_data"))
    if not isinstance(manager, Kept) or manager.name != "BlockManager":
        refuse("a DataFrame of unknown layout")
    if manager.arguments:
        blocks, axes = manager.arguments[:2]
    else:  # pandas before 1.3
        state_of_old: Any = manager.state
        inner = state_of_old[3]["0.14.1"]
        blocks = [TableBlock(b["values"], b["mgr_locs"]) for b in inner["blocks"]]
        axes = inner["axes"]
    names, n_rows = _texts(axes[0]), _length(axes[1])
    columns: dict[str, Any] = {}
    seen: set[int] = set()
    if len(names) > MAX_COLUMNS:
        refuse(f"a table of {len(names)} columns")
    for block in blocks:
        if not isinstance(block, TableBlock) or id(block.arguments[0]) in seen:
            refuse("a DataFrame of unknown layout")
        values, places = block.arguments
        seen.add(id(values))
        chosen = names[places] if isinstance(places, slice) else [names[int(p)] for p in _numbers(places)]
        for name, column in zip(chosen, _rows(values, len(chosen)), strict=True):
            if len(column) != n_rows:
                raise ValueError(f"column {name!r} has {len(column)} of {n_rows} rows")
            columns[name] = column
    return Table(columns, n_rows)


def _numbers(value: Any) -> np.ndarray:
    if not isinstance(value, Cells) or value.value is None or value.value.dtype.kind not in "iu":
        refuse("a DataFrame of unknown layout")
    return value.value.reshape(-1)


def _texts(index: Any) -> list[str]:
    """Names of the columns."""
    if not isinstance(index, TableIndex) or not isinstance(index.arguments[1], dict):
        refuse("column names of unknown layout")
    return [n if isinstance(n, str) else str(_item(n))[:100] for n in _rows(index.arguments[1].get("data"), 1)[0]]


def _length(index: Any) -> int:
    """Number of rows."""
    if not isinstance(index, TableIndex) or not isinstance(index.arguments[1], dict):
        refuse("row names of unknown layout")
    parts = index.arguments[1]
    if "data" in parts:
        return len(_rows(parts["data"], 1)[0])
    if not all(type(parts.get(k)) is int for k in ("start", "stop", "step")):
        refuse("row names of unknown layout")
    return len(range(parts["start"], parts["stop"], parts["step"]))


def _rows(values: Any, count: int) -> list[Any]:
    """The `count` columns of a block."""
    while isinstance(values, Kept):  # an array of texts around the array that holds them
        parts = values.state if isinstance(values.state, tuple) else values.arguments
        parts = [*parts, *(values.state.values() if isinstance(values.state, dict) else ())]
        inner = [p for p in parts if isinstance(p, (Cells, Texts))]
        if len(inner) != 1:
            refuse("texts of unknown layout")
        values = inner[0]
    if isinstance(values, Texts) and count == 1:
        return [values]
    if not isinstance(values, Cells):
        refuse("a DataFrame of unknown layout")
    length = values.shape[-1] if values.shape else 0
    if math.prod(values.shape) != count * length:
        raise ValueError(f"a block of shape {values.shape} for {count} columns")
    if values.objects is not None and count == 1:
        return [values.objects]
    if values.objects is not None:
        return [values.objects[k * length : (k + 1) * length] for k in range(count)]
    if values.value is None:
        refuse("an array without numbers")
    return list(values.value.reshape(count, length))


def _item(value: Any) -> Any:
    return value.value.item() if isinstance(value, Array) and value.value is not None else value


def single(value: Any) -> float | None:
    """Return the one number that stands in a cell of the table; None if anything else does."""
    if isinstance(value, Array):
        value = value.value
    if isinstance(value, np.ndarray):
        value = value.item() if value.size == 1 else None
    return float(value) if isinstance(value, (bool, int, float, np.number)) else None


def plain(value: Any, limit: int = 10_000) -> Any:
    """Return an array, number or text for what stands in a cell of the table; None for anything else.

    Lists of numbers, and lists of such lists, become arrays while they hold at most `limit` numbers.
    """
    if isinstance(value, Array):
        return value.value
    if isinstance(value, (bool, int, float, str)):
        return value
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= limit:
        return None
    if all(isinstance(v, (bool, int, float)) for v in value):
        return np.asarray(value, dtype=np.float64)
    rows = [v.value if isinstance(v, Array) else _array(v) for v in value]
    shape = None if rows[0] is None else rows[0].shape
    if shape is None or len(shape) > 1 or any(v is None or v.shape != shape for v in rows):
        return None
    return np.asarray(rows) if math.prod((len(rows), *shape)) <= limit else None


def _array(value: Any) -> np.ndarray | None:
    """A short list of numbers as an array."""
    short = isinstance(value, (list, tuple)) and len(value) <= MAX_TEXT
    if not short or not all(isinstance(v, (bool, int, float)) for v in value):
        return None
    return np.asarray(value, dtype=np.float64)
