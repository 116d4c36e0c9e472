"""From the names, units and signs of a file to labelled structures: the one place where they are settled."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.label_names import AUTO, LabelKeys
from forgefield.data.label_units import LabelUnits
from forgefield.data.other_labels import (
    MARKS,
    base_names,
    choose_others,
    features,
    fidelity,
    force_mask,
    multiplicity,
    other_label,
    total_charge,
)
from forgefield.data.raw_frame import RawFrame

STRUCTURE_NAMES = {
    "energy": ("energy", "ref_energy", "dft_energy", "total_energy", "energy_ref", "energy_dft", "free_energy"),
    "stress": (
        *("stress", "ref_stress", "dft_stress", "stress_ref", "stress_dft"),
        *("virial", "virials", "ref_virial", "ref_virials", "dft_virial", "dft_virials"),
    ),
}
ATOM_NAMES = {
    "forces": (
        *("forces", "force", "ref_forces", "ref_force", "dft_forces", "dft_force"),
        *("forces_ref", "force_ref", "forces_dft", "force_dft"),
    )
}
USUAL_NAMES: dict[str, tuple[str, ...]] = {**STRUCTURE_NAMES, **ATOM_NAMES}
"""Names that `auto` looks for, in lower case; case does not matter in the file."""

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
MAX_ASYMMETRY = 1e-2  # of the largest component; DFT codes print slightly asymmetric tensors


Chosen = dict[str, str | None]


def choose_keys(
    frames: Sequence[RawFrame],
    keys: LabelKeys,
    units: LabelUnits,
    source: str,
    extra: Mapping[str, Sequence[str]] | None = None,
) -> Chosen:
    """Decide which name of the file each label is read from.

    Args:
        frames: the frames to look at.
        keys: what the user asked for.
        units: needed to tell whether a stress and a virial are the same thing twice.
        source: the file, for messages.
        extra: further usual names of this format, by quantity; also of charge, multiplicity, fidelity, "base energy".

    Returns:
        Quantity -> name in the file, or None where there is no such label.

    Raises:
        DataError: a name asked for is nowhere, or `auto` finds names that contradict each other.
    """
    chosen: Chosen = {}
    for quantity, usual in USUAL_NAMES.items():
        wanted = getattr(keys, quantity)
        if wanted is None:
            chosen[quantity] = None
        elif wanted == AUTO:
            names = (*usual, *(extra or {}).get(quantity, ()))
            chosen[quantity] = _only_name(frames, quantity, names, units, source)
        else:
            _require_somewhere(frames, quantity, wanted, source)
            chosen[quantity] = wanted
    chosen |= choose_others(frames, keys, source, extra or {})
    return chosen | {f"base {name}": key for name, key in base_names(keys, extra or {}).items()}


def other_names(frames: Iterable[RawFrame], chosen: Chosen) -> list[str]:
    """Names in the file, not chosen, that sound like a label; shown when a label is missed."""
    hints = ("energ", "forc", "stress", "viri", "grad")
    found = {name for f in frames for name in (*f.values, *f.arrays)}
    return sorted(n for n in found - set(chosen.values()) if any(h in n.lower() for h in hints))


def label_structure(raw: RawFrame, chosen: Chosen, keys: LabelKeys, units: LabelUnits) -> Structure:
    """Return the frame as a structure in internal units.

    Raises:
        DataError: a label has the wrong shape, is no number, or is not finite.
    """
    labels: dict[str, np.ndarray] = {}
    base: dict[str, np.ndarray] = {}
    for quantity, name in chosen.items():
        if name is None or quantity in MARKS:
            continue
        of_base = quantity.startswith("base ")
        value = _label(raw, quantity.removeprefix("base "), name, keys, units)
        if value is not None:
            (base if of_base else labels)[quantity.removeprefix("base ")] = value
    values = raw.values
    for name in ("config_energy_weight", "config_forces_weight", "config_stress_weight", "config_virials_weight"):
        if name in values and values[name] != 1:
            raise DataError(
                f"{name}={values[name]} is not supported", raw.origin, "use config_weight, which weighs the whole frame"
            )
    return Structure(
        numbers=raw.numbers,
        positions=np.asarray(raw.positions, dtype=np.float64) * units.length_factor,
        cell=np.asarray(raw.cell, dtype=np.float64) * units.length_factor,
        pbc=raw.pbc,
        labels=labels,
        config_type=str(values.get("config_type", "default")),
        head=str(values[keys.head]) if keys.head in values else None,
        weight=_weight(raw),
        fixed=raw.fixed,
        tags=raw.tags,
        origin=raw.origin,
        info=_scalars(values, skip={*chosen.values(), keys.head, "config_type", "config_weight"}),
        declared=keys.declared,
        force_mask=force_mask(raw, keys),
        charge=total_charge(raw, chosen.get("charge")),
        multiplicity=multiplicity(raw, chosen.get("multiplicity"), units),
        fidelity=fidelity(raw, chosen.get("fidelity")),
        base=base,
        features=features(raw, keys),
    )


def _label(raw: RawFrame, quantity: str, name: str, keys: LabelKeys, units: LabelUnits) -> np.ndarray | None:
    """A label in internal units; None where the frame has none."""
    if quantity not in USUAL_NAMES:
        return other_label(raw, quantity, name, keys, units)
    return _convert(raw, quantity, name, units) if name in _table(raw, quantity) else None


def _table(raw: RawFrame, quantity: str) -> Mapping[str, Any]:
    return raw.arrays if quantity in ATOM_NAMES else raw.values


def _only_name(
    frames: Sequence[RawFrame], quantity: str, usual: Sequence[str], units: LabelUnits, source: str
) -> str | None:
    """The name that holds the label; several are accepted only where they say the same."""
    seen: dict[str, str] = {}
    for raw in frames:
        for name in _table(raw, quantity):
            if name.lower() in usual:
                seen.setdefault(name, raw.origin)
    if not seen:
        return None
    names = sorted(seen, key=lambda n: (usual.index(n.lower()), n))
    if len(names) == 1:
        return names[0]
    listing = ", ".join(f"{n!r} (first in {seen[n]})" for n in names)
    fix = f"set data.{quantity}_key to the one that is meant"
    complete = [n for n in names if all(n in _table(f, quantity) or not _any(f, quantity, names) for f in frames)]
    if not complete:
        raise DataError(f"the {quantity} has different names in different frames: {listing}", source, fix)
    for raw in frames:
        present = [n for n in names if n in _table(raw, quantity)]
        values = [_convert(raw, quantity, n, units) for n in present]
        if not all(_same(quantity, values[0], v) for v in values[1:]):
            raise DataError(f"several names could be the {quantity} and they differ: {listing}", source, fix)
    return complete[0]


def _any(raw: RawFrame, quantity: str, names: Sequence[str]) -> bool:
    return any(n in _table(raw, quantity) for n in names)


def _same(quantity: str, one: np.ndarray, other: np.ndarray) -> bool:
    if quantity == "stress":  # one may come from a virial, rounded otherwise
        return bool(np.allclose(one, other, rtol=1e-6, atol=1e-8))
    return bool(np.array_equal(one, other, equal_nan=True))


def _require_somewhere(frames: Sequence[RawFrame], quantity: str, name: str, source: str) -> None:
    if any(name in _table(f, quantity) for f in frames):
        return
    there = sorted({n for f in frames for n in _table(f, quantity)})
    elsewhere = any(name in f.values or name in f.arrays for f in frames)
    near = difflib.get_close_matches(name, there, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    what = f"no frame has {quantity} under the name {name!r}"
    if elsewhere:
        what += f" ({name!r} is there, but not as a value per {'atom' if quantity in ATOM_NAMES else 'structure'})"
    raise DataError(what, source, f"{hint}data.{quantity}_key may be: {', '.join(there) or '(nothing is there)'}")


def _numbers(raw: RawFrame, quantity: str, name: str) -> np.ndarray:
    value = np.asarray(_table(raw, quantity)[name])
    if value.dtype.kind not in "iuf":
        raise DataError(f"{name}={value} is not a number", raw.origin, f"repair the {quantity} of this frame")
    if not np.isfinite(value).all():
        raise DataError(f"{name} holds NaN or infinity", raw.origin, "remove this frame or its label")
    return value.astype(np.float64)


def _convert(raw: RawFrame, quantity: str, name: str, units: LabelUnits) -> np.ndarray:
    """A label in internal units, checked: energy (), forces (N, 3), stress (3, 3)."""
    value = _numbers(raw, quantity, name)
    if quantity == "energy":
        if value.size != 1:
            raise DataError(
                f"{name} has shape {value.shape}, expected one number per structure",
                raw.origin,
                "give the total energy in the comment line, not as a column",
            )
        total = len(raw.numbers) if units.settled("energy_per") == "atom" else 1
        return value.reshape(()) * units.energy_factor * total
    if quantity == "forces":
        if value.shape != (len(raw.numbers), 3):
            raise DataError(
                f"{name} has shape {value.shape}, expected ({len(raw.numbers)}, 3)", raw.origin, "repair this frame"
            )
        return value * units.forces_factor
    return _stress(raw, name, value, units)


def _stress(raw: RawFrame, name: str, value: np.ndarray, units: LabelUnits) -> np.ndarray:
    tensor = _tensor(raw, name, value)
    sign = 1.0 if units.settled("stress_sign") == "ase" else -1.0
    if not _is_virial(name, units, raw.origin):
        return tensor * units.stress_factor * sign
    volume = abs(float(np.linalg.det(np.asarray(raw.cell, dtype=np.float64)))) * units.length_factor**3
    if volume <= 0.0:
        raise DataError(
            f"has a virial ({name}) but no cell", raw.origin, "give the Lattice, or set data.stress_key to null"
        )
    return -tensor * units.energy_factor * sign / volume


def _is_virial(name: str, units: LabelUnits, origin: str) -> bool:
    if units.stress_quantity != AUTO:
        return units.stress_quantity == "virial"
    virial, stress = "viri" in name.lower(), "stress" in name.lower()
    if virial and stress:
        raise DataError(
            f"{name!r} may be a stress or a virial", origin, "set data.stress_quantity to stress or to virial"
        )
    return virial


def _tensor(raw: RawFrame, name: str, value: np.ndarray) -> np.ndarray:
    """Nine numbers, or six in the order xx, yy, zz, yz, xz, xy, as a symmetric (3, 3) tensor."""
    if value.size == 6:
        flat, tensor = value.reshape(6), np.zeros((3, 3))
        for k, (i, j) in enumerate(VOIGT):
            tensor[i, j] = tensor[j, i] = flat[k]
        return tensor
    if value.size != 9:
        raise DataError(f"{name} has {value.size} numbers, expected 9 or 6", raw.origin, "repair this frame")
    tensor = value.reshape(3, 3)
    if np.abs(tensor - tensor.T).max() > MAX_ASYMMETRY * np.abs(tensor).max():
        raise DataError(
            f"{name} is not symmetric", raw.origin, "check the order of its nine numbers: xx xy xz yx yy yz zx zy zz"
        )
    return (tensor + tensor.T) / 2.0


def _weight(raw: RawFrame) -> float:
    value = raw.values.get("config_weight", 1.0)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"config_weight={value!r} is not a number", raw.origin, "repair this frame") from None


def _scalars(values: Mapping[str, Any], skip: set[str | None]) -> dict[str, object]:
    """The plain numbers and texts among the values, for `Structure.info`."""
    out: dict[str, object] = {}
    for name, value in values.items():
        if name in skip:
            continue
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1):
            value = value.item()
        if isinstance(value, (bool, int, float, str)):
            out[name] = value
    return out
