"""Labels beside energy, forces and stress, and what else a frame says: charge, spin, fidelity, masks, features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.quantities import QUANTITIES, Quantity
from forgefield.data.label_names import AUTO, LabelKeys
from forgefield.data.label_units import LabelUnits
from forgefield.data.raw_frame import RawFrame

MARKS = ("charge", "multiplicity", "fidelity")
FREE_NAMES = {
    "charge": ("charge", "total_charge"),
    "multiplicity": ("multiplicity", "spin_multiplicity"),
    "fidelity": ("fidelity",),
}
"""Names that `auto` takes in any file; labels in this module have none, a format may have its own."""
OTHERS = ("charges", "spin_charges", "dipole", "quadrupole", "polarizability")


def choose_others(
    frames: Sequence[RawFrame], keys: LabelKeys, source: str, usual: Mapping[str, Sequence[str]]
) -> dict[str, str | None]:
    """Decide which name of the file each of these is read from; None: it is not read.

    Raises:
        DataError: a name that was asked for is nowhere in the frames.
    """
    chosen: dict[str, str | None] = {}
    for name in (*OTHERS, *MARKS):
        wanted = getattr(keys, name)
        if wanted == AUTO:
            chosen[name] = _usual_name(frames, usual.get(name, ()), FREE_NAMES.get(name, ()))
        else:
            chosen[name] = wanted
            if wanted is not None:
                _require(frames, name, wanted, f"data.{name}_key", source)
    for name, target in keys.targets.items():
        chosen[name] = target.key
        _require(frames, name, target.key, f"data.targets.{name}.key", source)
    for name, key in keys.features.items():
        _require(frames, f"feature {name}", key, f"data.features.{name}", source)
    for name, key in keys.base.items():
        _require(frames, f"base label {name}", key, f"data.base.{name}", source)
    if keys.force_mask is not None:
        _require(frames, "mask of the forces", keys.force_mask, "data.force_mask_key", source)
    return chosen


def base_names(keys: LabelKeys, usual: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the names of the base labels in the file: those of the format, and in their place the user's."""
    own = {name: usual[f"base {name}"][0] for name in QUANTITIES if f"base {name}" in usual}
    return own | keys.base


def _usual_name(frames: Iterable[RawFrame], own: Sequence[str], free: Sequence[str]) -> str | None:
    """The first of the format's names that is there, else its first; else a name that any file may use."""
    there = {name for frame in frames for name in (*frame.values, *frame.arrays)}
    for name in (*own, *free):
        if name in there:
            return name
    return own[0] if own else None


def _require(frames: Sequence[RawFrame], what: str, key: str, place: str, source: str) -> None:
    if any(found(frame, key) is not None for frame in frames):
        return
    there = ", ".join(sorted({n for frame in frames for n in (*frame.values, *frame.arrays)}))
    raise DataError(f"no frame has a {what} under the name {key!r}", source, f"{place} may be: {there or '(nothing)'}")


def other_label(raw: RawFrame, name: str, key: str, keys: LabelKeys, units: LabelUnits) -> np.ndarray | None:
    """Return a label in internal units, (N, ...) or of its own shape; None where the frame has none.

    Raises:
        DataError: it has the wrong shape, is no number, or is not finite.
    """
    value = found(raw, key)
    if value is None:
        return None
    quantity = QUANTITIES.get(name) or keys.declared[name]
    shaped = _shaped(raw, np.asarray(value), key, quantity)
    if quantity.kind == "class":
        return (shaped > (keys.targets[name].threshold or 0.0)).astype(np.float64)
    return shaped * units.factor_of(name)


def _shaped(raw: RawFrame, value: np.ndarray, key: str, quantity: Quantity) -> np.ndarray:
    name = quantity.name
    if value.dtype.kind not in "iuf":
        raise DataError(f"{key} is not a number", raw.origin, f"repair the {name} of this frame")
    shape = quantity.shape if quantity.per == "structure" else (len(raw.numbers), *quantity.shape)
    if quantity.shape == (3, 3) and quantity.symmetric and quantity.per == "structure" and value.size == 6:
        xx, yy, zz, yz, xz, xy = value.reshape(6)
        value = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if value.size != int(np.prod(shape)):
        raise DataError(f"{key} has shape {value.shape}, expected {shape}", raw.origin, f"is it the {name}?")
    if not np.isfinite(value).all():
        raise DataError(f"{key} holds NaN or infinity", raw.origin, "remove this frame or its label")
    return value.astype(np.float64).reshape(shape)


def force_mask(raw: RawFrame, keys: LabelKeys) -> np.ndarray | None:
    """Return which atoms' force labels count, (N,) bool; None where the frame does not say.

    Raises:
        DataError: it is not one truth value per atom.
    """
    given = None if keys.force_mask is None else found(raw, keys.force_mask)
    if given is None:
        return None
    value = np.asarray(given)
    if value.shape != (len(raw.numbers),) or value.dtype.kind not in "biu" or not np.isin(value, (0, 1)).all():
        raise DataError(
            f"{keys.force_mask} is not one truth value per atom", raw.origin, "give 0 and 1, or T and F, as a column"
        )
    return value.astype(bool)


def total_charge(raw: RawFrame, key: str | None) -> float | None:
    """Return the total charge, e; None where the frame does not say.

    Raises:
        DataError: it is not one number.
    """
    return _one_number(raw, key, "charge")


def multiplicity(raw: RawFrame, key: str | None, units: LabelUnits) -> int | None:
    """Return the spin multiplicity 2S + 1; None where the frame does not say.

    Raises:
        DataError: it is not a whole number that the setting `spin` allows.
    """
    value = _one_number(raw, key, "multiplicity")
    if value is None:
        return None
    unpaired = units.settled("spin") == "unpaired"
    if value != round(value) or value < (0 if unpaired else 1):
        meant = "unpaired electrons" if unpaired else "multiplicity 2S + 1"
        raise DataError(f"{key}={value:g} is no {meant}", raw.origin, "set data.spin, or data.multiplicity_key")
    return int(value) + 1 if unpaired else int(value)


def _one_number(raw: RawFrame, key: str | None, name: str) -> float | None:
    value = raw.values.get(key) if key is not None else None
    if value is None:
        return None
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise DataError(f"{key}={value!r} is not one number", raw.origin, f"repair it, or set data.{name}_key to null")
    return float(array.reshape(()))


def fidelity(raw: RawFrame, key: str | None) -> str | None:
    """Return the name of the level of theory; None where the frame does not say."""
    value = raw.values.get(key) if key is not None else None
    return None if value is None else str(value)


def features(raw: RawFrame, keys: LabelKeys) -> dict[str, np.ndarray]:
    """Return the further inputs of a frame, (k,) of the structure or (N, k) of its atoms.

    Raises:
        DataError: one is missing or no number.
    """
    out: dict[str, np.ndarray] = {}
    for name, key in keys.features.items():
        value = found(raw, key)
        array = np.asarray(value)
        if value is None or array.dtype.kind not in "iufb":
            raise DataError(f"has no feature {name} (numbers under the name {key!r})", raw.origin, "add or repair it")
        rows = (len(raw.numbers), -1) if key in raw.arrays else (-1,)
        out[name] = array.astype(np.float64).reshape(rows)
    return out


def found(raw: RawFrame, key: str) -> Any:
    """Return what a frame has under a name, of the atoms or of the structure; None if nothing."""
    return raw.arrays[key] if key in raw.arrays else raw.values.get(key)
