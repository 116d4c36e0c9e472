"""From records of torch_geometric data (fairchem, XequiNet) to raw frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.raw_frame import RawFrame

NOT_LABELS = frozenset(
    {"pos", "cell", "atomic_numbers", "natoms", "tags", "fixed", "pbc", "edge_index", "cell_offsets"}
)


def frame_of_record(record: Mapping[str, Any], origin: str) -> RawFrame:
    """Return the fields of one torch_geometric record as a raw frame.

    Without a `pbc` field it is periodic in all directions if it has a cell, as in Open Catalyst data.

    Args:
        record: field name -> array, number, text or None.
        origin: file and record, for messages.

    Raises:
        DataError: a field has the wrong shape or kind.
    """
    numbers = _numbers(record, origin)
    n = len(numbers)
    arrays, values = {}, {}
    for name, value in record.items():
        if name in NOT_LABELS or value is None:
            continue
        if np.ndim(value) >= 2 and len(value) == n and np.shape(value) != (1, 3, 3):
            arrays[name] = np.asarray(value)
        elif isinstance(value, np.ndarray):
            values[name] = value.item() if value.size == 1 else value
        else:
            values[name] = value
    cell = _field(record, "cell", (3, 3), origin)
    cell = np.zeros((3, 3)) if cell is None else cell
    pbc = _field(record, "pbc", (3,), origin)
    fixed, tags = _field(record, "fixed", (n,), origin), _field(record, "tags", (n,), origin)
    positions = _field(record, "pos", (n, 3), origin)
    if positions is None:
        raise DataError("has no field 'pos'", origin, "is this a fairchem structure record?")
    return RawFrame(
        numbers=numbers,
        positions=positions,
        cell=cell,
        pbc=np.full(3, bool(np.any(cell))) if pbc is None else pbc.astype(bool),
        values=values,
        arrays=arrays,
        origin=origin,
        fixed=None if fixed is None else fixed.astype(bool),
        tags=None if tags is None else tags.astype(np.int64),
    )


def _numbers(record: Mapping[str, Any], origin: str) -> np.ndarray:
    value = record.get("atomic_numbers")
    if value is None or np.asarray(value).dtype.kind not in "iuf":
        raise DataError("has no field 'atomic_numbers'", origin, "is this a fairchem structure record?")
    numbers = np.asarray(value).reshape(-1)
    if not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
        raise DataError("atomic_numbers are not whole numbers", origin, "repair this record")
    count = record.get("natoms")
    if count is not None and np.size(count) == 1 and int(np.asarray(count).reshape(-1)[0]) != len(numbers):
        raise DataError(
            f"natoms is {np.asarray(count).item()} but there are {len(numbers)} atoms", origin, "repair this record"
        )
    return numbers.astype(np.int64)


def _field(record: Mapping[str, Any], name: str, shape: tuple[int, ...], origin: str) -> np.ndarray | None:
    """A field of known shape; leading axes of length one are dropped."""
    value = record.get(name)
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "iufb" or array.size != int(np.prod(shape)):
        raise DataError(f"field {name!r} has shape {array.shape}, expected {shape}", origin, "repair this record")
    return array.reshape(shape)
