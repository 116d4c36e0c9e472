"""A structure as the text of one extended XYZ frame, with all digits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict

from forgefield.core.quantities import QUANTITIES
from forgefield.core.structure import Structure
from forgefield.data.labelling import USUAL_NAMES

TAKEN = frozenset(name for names in USUAL_NAMES.values() for name in names)
"""Names that would be taken for a label when they are read."""
MARKS = ("charge", "multiplicity", "fidelity", "head")
OWN = frozenset({"Lattice", "Properties", "pbc", "config_type", "config_weight", *MARKS})


def frame_text(s: Structure, notes: set[str]) -> str:
    """Return a frame; what it cannot keep is added to the notes."""
    columns = _columns(s)
    symbols = [chemical_symbols[z] for z in s.numbers.tolist()]
    rows = [[f"{symbol:<2}"] for symbol in symbols]
    properties = ["species:S:1"]
    for name, value in columns.items():
        kind = {"b": "L", "i": "I", "u": "I"}.get(value.dtype.kind, "R")
        table = value.reshape(len(s), -1)
        properties.append(f"{name}:{kind}:{table.shape[1]}")
        for row, numbers in zip(rows, table.tolist(), strict=True):
            row += [("T" if x else "F") if kind == "L" else repr(x) for x in numbers]
    words = [] if not s.cell.any() else [_numbers("Lattice", s.cell)]
    words += [f"Properties={':'.join(properties)}", *_values(s, {*columns}, notes)]
    words.append('pbc="' + " ".join("T" if p else "F" for p in s.pbc) + '"')
    return "\n".join([str(len(s)), " ".join(words), *(" ".join(row) for row in rows), ""])


def _columns(s: Structure) -> dict[str, np.ndarray]:
    """Columns by their name in the file; positions first."""
    out: dict[str, np.ndarray] = {"pos": s.positions}
    for prefix, table in (("", s.labels), ("base_", s.base)):
        for name, value in table.items():
            if (QUANTITIES.get(name) or s.declared[name]).per == "atom":
                out[prefix + name] = value
    out |= {f"feature_{name}": value for name, value in s.features.items() if value.ndim == 2}
    if s.fixed is not None:
        out["move_mask"] = ~np.asarray(s.fixed, dtype=bool)
    if s.tags is not None:
        out["tags"] = np.asarray(s.tags)
    if s.force_mask is not None:
        out["force_mask"] = np.asarray(s.force_mask, dtype=bool)
    return out


def _values(s: Structure, columns: set[str], notes: set[str]) -> list[str]:
    """What stands in the comment line beside cell, columns and periodicity."""
    words: list[str] = []
    for prefix, table in (("", s.labels), ("base_", s.base)):
        for name, value in table.items():
            if prefix + name in columns:
                continue
            if name == "stress" and not np.array_equal(value, value.T):
                notes.add("some stresses are not symmetric; reading makes them so, or refuses them")
            words.append(_numbers(prefix + name, value))
    words += [_numbers(f"feature_{name}", value) for name, value in s.features.items() if value.ndim != 2]
    if s.config_type != "default":
        words.append(_word("config_type", s.config_type, notes))
    if s.weight != 1.0:
        words.append(f"config_weight={float(s.weight)!r}")
    words += [_word(name, getattr(s, name), notes) for name in MARKS if getattr(s, name) is not None]
    written = columns | OWN | {*s.labels, *(f"base_{n}" for n in s.base), *(f"feature_{n}" for n in s.features)}
    return words + _info(s.info, written, notes)


def _info(info: Mapping[str, Any], written: set[str], notes: set[str]) -> list[str]:
    words: list[str] = []
    for name, value in info.items():
        if value is None or isinstance(value, dict):
            notes.add(f"info {name!r} of some frames was left out: {type(value).__name__}")
            continue
        other = f"info_{name}" if name.lower() in TAKEN or name in written else name
        if other != name:
            notes.add(f"info {name!r} is written as {other!r}, so that it is not read as a label")
        if isinstance(value, (list, np.ndarray)):
            notes.add(f"info {name!r} is a list: it is written, but our reader keeps single values only")
            value = np.asarray(value)
        words.append(_word(other, value, notes))
    return words


def _numbers(name: str, value: np.ndarray) -> str:
    flat = np.asarray(value).reshape(-1).tolist()
    return f"{name}={flat[0]!r}" if len(flat) == 1 else f'{name}="{" ".join(map(repr, flat))}"'


def _word(name: str, value: Any, notes: set[str]) -> str:
    if not isinstance(value, str):
        return key_val_dict_to_str({name: value})
    text, kept = _text(name, value)
    if not kept:
        notes.add(f"some texts of {name!r} look like numbers or truth values and are read as such")
    return text


@lru_cache(maxsize=4096)
def _text(name: str, value: str) -> tuple[str, bool]:
    """The word of a text, and whether it is read as that text again."""
    text = key_val_dict_to_str({name: value.replace("\n", " ")})
    try:
        return text, key_val_str_to_dict(text).get(name) == value
    except (ValueError, TypeError, IndexError):
        return text, False
