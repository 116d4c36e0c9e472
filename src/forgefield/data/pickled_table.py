"""A pickled pandas DataFrame of ASE structures -> columns of plain arrays, without pandas and without running anything.

Every class that the pickle may name leads to a stand-in that keeps what it is given. The layouts of pandas 1, 2 and 3
differ in how blocks, names and texts are packed; what they say is the same.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from forgefield.core.errors import DataError
from forgefield.data.arrow_texts import known_names
from forgefield.data.pickle_scan import Limits, scan
from forgefield.data.restricted_pickle import OPCODES
from forgefield.data.stand_ins import (
    Array,
    Refused,
    Stand,
    array_from_bytes,
    refuse,
)
from forgefield.data.table_layout import Cells, CellType, Kept, Table, TableBlock, TableIndex, kept_class, table_of

MIN_STEPS, BYTES_PER_STEP = 20_000, 3  # a table of structures has at least four bytes in each step
FRAMES = frozenset((("pandas", "DataFrame"), ("pandas.core.frame", "DataFrame")))
MANAGERS = frozenset((("pandas.core.internals.managers", "BlockManager"), ("pandas.core.internals", "BlockManager")))
PANDAS = (
    FRAMES
    | MANAGERS
    | frozenset(
        {
            *((module, "Index") for module in ("pandas", "pandas.core.indexes.base")),
            *((module, "RangeIndex") for module in ("pandas", "pandas.core.indexes.range")),
            *(("pandas.core.indexes.numeric", f"{kind}Index") for kind in ("Int64", "Float64", "UInt64")),
            *((module, "StringDtype") for module in ("pandas", "pandas.core.arrays.string_")),
            *((module, "StringArray") for module in ("pandas", "pandas.arrays", "pandas.core.arrays.string_")),
            *((module, "ArrowStringArray") for module in ("pandas.arrays", "pandas.core.arrays.string_arrow")),
            ("pandas.core.arrays.string_arrow", "ArrowStringArrayNumpySemantics"),
            ("pandas.core.arrays.string_", "StringArrayNumpySemantics"),
            ("pandas.core.arrays.numpy_", "PandasArray"),
        }
    )
)
ASE = ("ase.constraints", "ase.calculators")
PLACES = ("ase.atoms.Atoms", "ase.cell.Cell")


def load_table(data: bytes, where: str) -> Table:
    """Decode a pickled DataFrame.

    Args:
        data: the pickle, already decompressed.
        where: the file, for messages.

    Raises:
        DataError: it is damaged, names anything that is not known, or is no DataFrame.
    """
    try:
        scan(data, Limits(OPCODES, max(MIN_STEPS, len(data) // BYTES_PER_STEP)))
        found = _Machine(io.BytesIO(data)).load()
        if not isinstance(found, Kept) or found.name != "DataFrame":
            raise DataError("is no pickled DataFrame", where, "write it with DataFrame.to_pickle")
        return table_of(found)
    except Refused as error:
        raise DataError(f"unsafe or unknown pickle refused: {error}", where, "check the file's origin") from None
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise DataError(f"is damaged ({_short(error)})", where, "copy the file again") from None
    except (EOFError, RecursionError, pickle.UnpicklingError) as error:
        raise DataError(f"is damaged ({_short(error)})", where, "copy the file again") from None


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


class _Machine(pickle.Unpickler):
    """Unpickler with an allow-list; every name leads to a stand-in."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self._made: dict[tuple[str, str], type[Kept]] = {}
        self._budget = 4 * len(stream.getbuffer())
        frombuffer = Stand(lambda *a: _as_cells(array_from_bytes(*a)))
        self._known: dict[tuple[str, str], Any] = {
            **known_names(self._spend),
            ("_codecs", "encode"): Stand(self._encode),
            ("numpy", "dtype"): Stand(CellType),
            ("numpy", "ndarray"): "ndarray",
            ("collections", "OrderedDict"): Stand(lambda: {}),
            ("pandas._libs.internals", "_unpickle_block"): Stand(_block),
            ("pandas.core.indexes.base", "_new_Index"): Stand(_index),
            ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): Stand(lambda cls, *_: _new(cls)),
        }
        for package in ("builtins", "__builtin__"):
            self._known[package, "slice"] = Stand(_slice)
            self._known[package, "getattr"] = Stand(lambda *_: None)  # a method of a calculator: not needed
        for package in ("numpy.core", "numpy._core"):
            self._known[f"{package}.multiarray", "_reconstruct"] = Stand(lambda *_: Cells())
            self._known[f"{package}.multiarray", "scalar"] = Stand(_scalar)
            self._known[f"{package}.numeric", "_frombuffer"] = frombuffer

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a known name; nothing is imported."""
        place = (module, name)
        if place in self._known:
            return self._known[place]
        family = any(module == m or module.startswith(f"{m}.") for m in ASE)
        if place not in PANDAS and f"{module}.{name}" not in PLACES and not family:
            refuse(f"it names {module}.{name}"[:200])
        if place not in self._made:
            self._made[place] = kept_class(name)
        return self._made[place]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to things outside the file."""
        refuse("an outside reference")

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        self._spend(len(text))
        if encoding != "latin1":
            refuse("text encoding")
        return text.encode("latin1")

    def _spend(self, n_bytes: int) -> None:
        self._budget -= n_bytes
        if n_bytes < 0 or self._budget < 0:
            refuse("the same bytes used many times")


def _as_cells(array: Array) -> Cells:
    return Cells(array.value)


def _scalar(kind: Any, raw: Any) -> Any:
    if not isinstance(kind, CellType) or not kind.plain:
        refuse("a number of unknown type")
    return _as_cells(array_from_bytes(raw, kind, ()))


def _slice(*parts: Any) -> slice:
    if not all(p is None or type(p) is int for p in parts):
        refuse("a slice that is not of numbers")
    return slice(*parts)


def _new(cls: Any) -> Kept:
    if not isinstance(cls, type) or not issubclass(cls, Kept):
        refuse("an array of unknown class")
    return cls()


def _block(values: Any, places: Any, *rest: Any) -> Kept:
    return TableBlock(values, places)


def _index(kind: Any, state: Any) -> Kept:
    return TableIndex(kind, state)
