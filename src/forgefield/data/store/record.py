"""One structure as bytes: a head of 16 bytes, arrays one after the other, two texts. A schema describes the arrays."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any, NamedTuple, cast, final

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.quantities import QUANTITIES, Quantity
from forgefield.core.structure import Structure

HEAD = struct.Struct("<4I")  # schema, atoms, bytes of the text, bytes of the origin
ARRAYS = ("fixed", "tags", "force_mask")  # fields of a structure that are arrays or None
SCALARS: dict[str, Callable[[Any], Any]] = {"weight": float, "charge": float, "multiplicity": int}
TEXTS = {"config_type": "default", "head": None, "fidelity": None}
TABLES = ("labels", "base", "features")
KINDS = "biuf"
IN_FLOAT32 = ("positions", "forces")


class Field(NamedTuple):
    """One array of a record."""

    group: str  # labels, base, features; "" = a field of the structure itself
    name: str
    dtype: str  # as numpy writes it, little-endian
    per_atom: bool
    shape: tuple[int, ...]  # without the axis of the atoms


@final
class Schema:
    """The arrays of a record, in their order; largest numbers first, so that all are aligned.

    Args:
        fields: the arrays.
        declared: what labels of the user's own are.
    """

    def __init__(self, fields: tuple[Field, ...], declared: tuple[Quantity, ...]) -> None:
        self.fields, self.declared = fields, declared
        self._declared = {q.name: q for q in declared}
        fixed, atoms = HEAD.size, 0
        self._plan: list[tuple[str, str, np.dtype, bool, tuple[int, ...], int, int]] = []
        for f in fields:
            dtype = np.dtype(f.dtype)
            self._plan.append((f.group, f.name, dtype, f.per_atom, f.shape, fixed, atoms))
            size = dtype.itemsize * int(np.prod(f.shape, dtype=np.int64))
            fixed, atoms = (fixed, atoms + size) if f.per_atom else (fixed + size, atoms)
        self._fixed, self._atoms = fixed, atoms

    def to_json(self) -> str:
        """Return the schema as text."""
        declared = [asdict(q) for q in self.declared]
        return json.dumps({"fields": [[*f[:4], list(f.shape)] for f in self.fields], "declared": declared})

    @classmethod
    def from_json(cls, text: str | bytes | bytearray) -> Schema:
        """Read what `to_json` wrote."""
        block = json.loads(text)
        fields = tuple(Field(a, b, c, d, tuple(shape)) for a, b, c, d, shape in block["fields"])
        rows: list[dict[str, Any]] = block["declared"]
        declared = tuple(_quantity(row) for row in rows)
        return cls(fields, declared)

    def decode(self, buffer: bytearray, n: int, n_text: int, n_origin: int, where: str) -> Structure:
        """Return the structure of a record; its arrays are views of the buffer."""
        found: dict[str, Any] = {}
        tables: dict[str, dict[str, np.ndarray]] = {"labels": {}, "base": {}, "features": {}}
        make = np.ndarray
        for group, name, dtype, per_atom, shape, fixed, atoms in self._plan:
            value = make((n, *shape) if per_atom else shape, dtype, buffer, fixed + atoms * n)
            if group:
                tables[group][name] = value
            else:
                found[name] = value
        found["numbers"] = found["numbers"].astype(np.int64)
        found["pbc"] = found["pbc"] if "pbc" in found else np.zeros(3, dtype=bool)
        if "cell" not in found:
            found["cell"] = np.zeros((3, 3))
        if self.has_float32:
            _widen(found, tables)
        for name in SCALARS.keys() & found.keys():
            found[name] = SCALARS[name](found[name])
        end = self._fixed + self._atoms * n
        if n_text:
            found.update(_text(bytes(buffer[end : end + n_text])))
            found["info"] = _with_arrays(found["info"])
        end += n_text
        found["origin"] = f"{where} ({buffer[end : end + n_origin].decode()})" if n_origin else where
        return Structure.trusted(found | tables | ({"declared": self._declared} if self._declared else {}))

    @property
    def has_float32(self) -> bool:
        """Whether positions or forces are kept in float32."""
        return any(f.dtype == "<f4" and f.name in IN_FLOAT32 for f in self.fields)

    def size(self, n: int) -> int:
        """Bytes of head and arrays of a record of n atoms."""
        return self._fixed + self._atoms * n


def _quantity(row: dict[str, Any]) -> Quantity:
    row["shape"] = tuple(row["shape"])
    return Quantity(**row)


@final
class Schemas:
    """The schemas of one shard, by number."""

    def __init__(self) -> None:
        self.all: list[Schema] = []
        self._numbers: dict[tuple[Any, ...], int] = {}

    def append(self, schema: Schema) -> None:
        """Take in a schema that a shard has."""
        self._numbers[schema.fields, schema.declared] = len(self.all)
        self.all.append(schema)

    def encode(self, structure: Structure, float32: bool) -> bytes:
        """Return the bytes of a structure; a schema that is new is appended.

        Raises:
            DataError: it holds something that has no place in a store.
        """
        arrays = _arrays(structure, float32)
        arrays.sort(key=lambda item: -item[1].itemsize)
        fields = tuple(item[0] for item in arrays)
        declared = tuple(structure.declared.values())
        number = self._numbers.get((fields, declared))
        if number is None:
            number = len(self.all)
            self.append(Schema(fields, declared))
        text, origin = _tail(structure), _first_origin(structure.origin).encode()
        head = HEAD.pack(number, len(structure.numbers), len(text), len(origin))
        return b"".join([head, *(item[1].tobytes() for item in arrays), text, origin])


def _arrays(s: Structure, float32: bool) -> list[tuple[Field, np.ndarray]]:
    """Everything that is an array or a number, with what describes it."""
    found = [_field(s, "", "positions", s.positions, True), _field(s, "", "numbers", s.numbers.astype(np.uint8), True)]
    if s.cell.any() or np.signbit(s.cell).any():
        found.append(_field(s, "", "cell", s.cell, False))
    if s.pbc.any():
        found.append(_field(s, "", "pbc", s.pbc, False))
    for name in ARRAYS:
        value = getattr(s, name)
        if value is not None:
            found.append(_field(s, "", name, value, True))
    for name, kind in SCALARS.items():
        value = getattr(s, name)
        if value is not None and not (name == "weight" and value == 1.0):
            found.append(_field(s, "", name, np.array(value, dtype=np.float64 if kind is float else np.int64), False))
    for group in TABLES:
        for name, value in cast(Mapping[str, np.ndarray], getattr(s, group)).items():
            found.append(_field(s, group, name, value, _per_atom(s, group, name, value)))
    if float32:
        found = [_narrow(s, item) if item[0].name in IN_FLOAT32 else item for item in found]
    return found


def _per_atom(s: Structure, group: str, name: str, value: np.ndarray) -> bool:
    if group == "features":
        return np.ndim(value) == 2
    return (QUANTITIES.get(name) or s.declared[name]).per == "atom"


def _field(s: Structure, group: str, name: str, value: Any, per_atom: bool) -> tuple[Field, np.ndarray]:
    array = np.asarray(value)
    if array.dtype.kind not in KINDS:
        raise DataError(f"{group or 'structure'}: {name} is of type {array.dtype}", s.origin, "a store keeps numbers")
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return Field(group, name, array.dtype.str, per_atom, array.shape[1:] if per_atom else array.shape), array


def _narrow(s: Structure, item: tuple[Field, np.ndarray]) -> tuple[Field, np.ndarray]:
    with np.errstate(over="ignore"):
        array = item[1].astype("<f4")
    if not np.isfinite(array).all():
        raise DataError(f"{item[0].name} are too large for float32", s.origin, "keep them in float64")
    return item[0]._replace(dtype="<f4"), array


def _widen(found: dict[str, Any], tables: dict[str, dict[str, np.ndarray]]) -> None:
    found["positions"] = found["positions"].astype(np.float64)
    for group in ("labels", "base"):
        if "forces" in tables[group]:
            tables[group]["forces"] = tables[group]["forces"].astype(np.float64)


def _tail(s: Structure) -> bytes:
    """The texts and the further scalars, where they are not what they usually are."""
    if s.config_type == "default" and s.head is None and s.fidelity is None and not s.info:
        return b""
    block: dict[str, Any] = {k: getattr(s, k) for k, usual in TEXTS.items() if getattr(s, k) != usual}
    block["info"] = {k: _plain(v, k, s.origin) for k, v in s.info.items()}
    return json.dumps(block, ensure_ascii=False).encode()


def _plain(value: Any, name: str, origin: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in KINDS:
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        return {"$array": [little.dtype.str, list(value.shape), base64.b64encode(little.tobytes()).decode()]}
    if isinstance(value, (list, tuple)):
        return [_plain(v, name, origin) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise DataError(f"info {name!r} is a {type(value).__name__}", origin, "a store keeps numbers, texts and arrays")


@lru_cache(maxsize=4096)
def _text(raw: bytes) -> dict[str, Any]:
    return json.loads(raw)


def _with_arrays(info: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of what `_text` keeps, with arrays where there are any."""
    return {k: _revived(v) if isinstance(v, (dict, list)) else v for k, v in info.items()}


def _revived(value: Any) -> Any:
    if isinstance(value, list):
        return [_revived(v) for v in value]
    if not isinstance(value, dict):
        return value
    dtype, shape, text = value["$array"]
    return np.frombuffer(base64.b64decode(text), np.dtype(dtype)).reshape(shape).copy()


def _first_origin(origin: str) -> str:
    """Where a structure was read first, if it came through another store."""
    if ": record " in origin and origin.endswith(")"):
        origin = origin[origin.index("(") + 1 : -1]
    return origin[:200]
