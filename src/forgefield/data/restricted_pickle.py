"""Pickled records -> plain arrays, without running anything that the pickle names.

A pickle is a program. Here it may only name the classes of `Machine.find_class`, each of which is replaced by a
stand-in of ours that stores what it is given; every other name, opcode or claim of size is refused before it acts.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.pickle_scan import Limits, scan
from forgefield.data.stand_ins import (
    Array,
    NumberType,
    Record,
    Refused,
    Stand,
    array_from_bytes,
    checked_sizes,
    refuse,
    tensor_view,
)

MAX_BYTES = 256 * 2**20
MAX_OPCODES = 20_000  # a record of torch tensors needs about 150; bounds nesting too

OPCODES = frozenset(
    name
    for group in (
        ("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        ("APPEND", "APPENDS", "SETITEM", "SETITEMS"),
        ("BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
        ("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ"),
    )
    for name in group
)
RECORD_CLASSES = frozenset(
    {
        ("torch_geometric.data.data", "Data"),
        ("torch_geometric.data.storage", "GlobalStorage"),
        ("torch_geometric.data.storage", "BaseStorage"),
        ("xequinet.data.datapoint", "XequiData"),
    }
)
MARKERS = frozenset(
    {
        ("torch_geometric.data.data", "DataEdgeAttr"),
        ("torch_geometric.data.data", "DataTensorAttr"),
        ("torch_geometric.data.graph_store", "EdgeAttr"),
        ("torch_geometric.data.feature_store", "TensorAttr"),
        ("numpy", "ndarray"),
    }
)
STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL = 1001


def load_record(data: bytes, where: str, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Decode one pickled `torch_geometric` Data object or dict.

    Args:
        data: the pickle.
        where: file and record, for messages.
        max_bytes: refuse larger records.

    Returns:
        Field name -> array, number, text or None. Fields of other kinds are left out.

    Raises:
        DataError: the record is damaged, too large, or names anything that is not known.
    """
    value = load_with(Machine, data, where, max_bytes)
    if isinstance(value, Record):
        value = value.fields()
    if not isinstance(value, dict):
        raise DataError("the record is no torch_geometric Data object and no dict", where, "check the file's origin")
    plain = {k: _plain(v) for k, v in value.items() if isinstance(k, str)}
    return {k: v for k, v in plain.items() if not isinstance(v, _Unknown)}


def load_integer(data: bytes, where: str) -> int:
    """Decode a pickled integer.

    Raises:
        DataError: it is anything else.
    """
    value = _plain(load_with(Machine, data, where, 4096))
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError("expected a pickled whole number", where, "check the file's origin")
    return value


class _Unknown:
    """Kind of a field that is neither array, number nor text."""


def load_with(machine: type[Machine], data: bytes, where: str, max_bytes: int) -> Any:
    """Decode a pickle with the stand-ins that a machine knows.

    Raises:
        DataError: the record is damaged, too large, or names anything that the machine does not know.
    """
    if len(data) > max_bytes:
        raise DataError(
            f"the record has {len(data)} bytes, more than {max_bytes}", where, "is this an atomistic data set?"
        )
    try:
        scan(data, Limits(OPCODES, MAX_OPCODES))
        return machine(data).load()
    except Refused as error:
        raise DataError(f"unsafe or unknown pickle refused: {error}", where, "check the file's origin") from None
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise DataError(f"the record is damaged ({error})", where, "copy the file again") from None
    except (EOFError, RecursionError, pickle.UnpicklingError) as error:
        raise DataError(f"the record is damaged ({error})", where, "copy the file again") from None


class Machine(pickle.Unpickler):
    """Unpickler with an allow-list; every name leads to a stand-in made anew for this record."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._budget = 4 * len(data)  # bytes that stand-ins may copy: old protocols need it twice
        frombuffer = Stand(array_from_bytes)
        self.known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): Stand(tensor_view),
            ("torch.storage", "_load_from_bytes"): Stand(self._storage),
            ("torch", "Size"): Stand(lambda sizes=(): checked_sizes(sizes)),
            ("collections", "OrderedDict"): Stand(lambda: {}),
            ("_codecs", "encode"): Stand(self._encode),
            ("numpy", "dtype"): Stand(NumberType),
        }
        for package in ("numpy.core", "numpy._core"):
            self.known[f"{package}.multiarray", "_reconstruct"] = Stand(lambda *_: Array())
            self.known[f"{package}.multiarray", "scalar"] = Stand(lambda kind, raw: array_from_bytes(raw, kind, ()))
            self.known[f"{package}.numeric", "_frombuffer"] = frombuffer

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a known name; nothing is imported."""
        if (module, name) in RECORD_CLASSES:
            return Record
        if (module, name) in MARKERS:
            return name
        if (module, name) not in self.known:
            refuse(f"it names {module}.{name}"[:200])
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to things outside the record."""
        refuse("an outside reference")

    def _spend(self, n_bytes: int) -> None:
        self._budget -= n_bytes
        if self._budget < 0:
            refuse("the same bytes used many times")

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        self._spend(len(text))
        if encoding != "latin1":
            refuse("text encoding")
        return text.encode("latin1")

    def _storage(self, raw: Any) -> Array:
        if not isinstance(raw, bytes):
            refuse("a storage without bytes")
        self._spend(len(raw))
        return Array(_read_storage(raw))


class _StorageMachine(pickle.Unpickler):
    """Unpickler of the short pickles inside a saved torch storage: no calls at all, one outside reference."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the number type of a torch storage class."""
        if module != "torch" or name not in STORAGES:
            refuse(f"it names {module}.{name}"[:200])
        return np.dtype(STORAGES[name])

    def persistent_load(self, pid: Any) -> Any:
        """Return (number type, key, count) of the one storage."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            refuse("an outside reference")
        return pid[1], pid[2], pid[4]


STORAGE_OPCODES = (OPCODES | {"BINPERSID"}) - {"REDUCE", "BUILD", "NEWOBJ"}


def _read_storage(raw: bytes) -> np.ndarray:
    """The numbers of a torch storage saved in the layout before zip files, (n,).

    Five pickles (magic number, protocol, system, storage reference, keys), then a count and the raw numbers.
    """
    stream = io.BytesIO(raw)

    def following() -> Any:
        start = stream.tell()
        stream.seek(scan(memoryview(raw)[start:], Limits(STORAGE_OPCODES, MAX_OPCODES)), io.SEEK_CUR)
        return _StorageMachine(io.BytesIO(raw[start : stream.tell()])).load()

    magic, protocol, system, reference, keys = (following() for _ in range(5))
    if magic != TORCH_MAGIC or protocol != TORCH_PROTOCOL or not system.get("little_endian"):
        refuse("a storage of unknown layout")
    kind, key, count = reference
    if not isinstance(kind, np.dtype) or keys != [key]:
        refuse("a storage of unknown layout")
    start = stream.tell() + 8
    if int.from_bytes(raw[start - 8 : start], "little") != count or len(raw) - start != count * kind.itemsize:
        refuse("a storage whose size is not what it claims")
    return np.frombuffer(raw, kind.newbyteorder("<"), offset=start)


def _plain(value: Any) -> Any:
    """Array, number, text or None; lists of numbers become arrays; `_Unknown` for all else."""
    if isinstance(value, Array):
        value = value.value
    if value is None or isinstance(value, (np.ndarray, bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(v, (bool, int, float)) for v in value):
        return np.asarray(value)
    return _Unknown()
