"""Labels that are read only when they are named: charges, spin charges, dipole, targets of the user's own, masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.quantities import QUANTITIES, Quantity
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import LabelKeys, LabelUnits


def other_label(raw: RawFrame, name: str, keys: LabelKeys, units: LabelUnits) -> np.ndarray | None:
    """Return a label in internal units, (N, ...) or of its own shape; None where the frame has none.

    Raises:
        DataError: it has the wrong shape, is no number, or is not finite.
    """
    quantity, key = _quantity(name, keys), keys.of_others()[name]
    found = _found(raw, key)
    if found is None:
        return None
    value = np.asarray(found)
    if value.dtype.kind not in "iuf":
        raise DataError(f"{key} is not a number", raw.origin, f"repair the {name} of this frame")
    shape = quantity.shape if quantity.per == "structure" else (len(raw.numbers), *quantity.shape)
    if value.size != int(np.prod(shape)):
        raise DataError(f"{key} has shape {value.shape}, expected {shape}", raw.origin, f"is it the {name}?")
    if not np.isfinite(value).all():
        raise DataError(f"{key} holds NaN or infinity", raw.origin, "remove this frame or its label")
    factor = units.dipole_factor if name == "dipole" else 1.0
    return value.astype(np.float64).reshape(shape) * factor


def require_other(frames: Sequence[RawFrame], name: str, key: str, keys: LabelKeys, source: str) -> None:
    """Refuse a name that is nowhere in the frames looked at.

    Raises:
        DataError: the names that are there are listed.
    """
    place = f"data.targets.{name}.key" if name in keys.targets else f"data.{name}_key"
    _require(frames, name, key, place, source)


def require_mask(frames: Sequence[RawFrame], keys: LabelKeys, source: str) -> None:
    """Refuse a mask of forces that is nowhere in the frames looked at.

    Raises:
        DataError: the names that are there are listed.
    """
    if keys.force_mask is not None:
        _require(frames, "mask of the forces", keys.force_mask, "data.force_mask_key", source)


def _require(frames: Sequence[RawFrame], what: str, key: str, place: str, source: str) -> None:
    if any(_found(frame, key) is not None for frame in frames):
        return
    there = ", ".join(sorted({n for frame in frames for n in (*frame.values, *frame.arrays)}))
    raise DataError(f"no frame has a {what} under the name {key!r}", source, f"{place} may be: {there or '(nothing)'}")


def force_mask(raw: RawFrame, keys: LabelKeys) -> np.ndarray | None:
    """Return which atoms' force labels count, (N,) bool; None where the frame does not say.

    Raises:
        DataError: it is not one truth value per atom.
    """
    if keys.force_mask is None:
        return None
    found = _found(raw, keys.force_mask)
    if found is None:
        return None
    value = np.asarray(found)
    if value.shape != (len(raw.numbers),) or value.dtype.kind not in "biu" or not np.isin(value, (0, 1)).all():
        raise DataError(
            f"{keys.force_mask} is not one truth value per atom", raw.origin, "give 0 and 1, or T and F, as a column"
        )
    return value.astype(bool)


def _quantity(name: str, keys: LabelKeys) -> Quantity:
    return QUANTITIES.get(name) or keys.declared[name]


def _found(raw: RawFrame, key: str) -> Any:
    """What a frame has under a name, of the atoms or of the structure."""
    return raw.arrays[key] if key in raw.arrays else raw.values.get(key)
