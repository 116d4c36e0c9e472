"""From structures to rows of ASE databases, and what a database says about the names in them."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from forgefield.core.quantities import QUANTITIES
from forgefield.core.structure import Structure
from forgefield.data.extxyz.line import TAKEN
from forgefield.data.label_names import LabelKeys, TargetKey
from forgefield.data.labelling import VOIGT

OURS = "forgefield"  # key of the metadata
COLUMNS = {"energy": "energy", "forces": "forces", "charges": "charges", "spin_charges": "magmoms", "dipole": "dipole"}
BASE, FEATURE = "base_", "feature_"
YEAR = 31557600.0  # s; ASE counts years since 2000
ASE_EPOCH = 946681200.0


class Names:
    """Names that rows use for what ASE has no column for; a database keeps them in its metadata."""

    def __init__(self) -> None:
        self._usual: dict[str, list[str]] = {}
        self._targets: dict[str, dict[str, Any]] = {}
        self._features: Counter[str] = Counter()
        self._rows, self._mask = 0, False
        self.notes: set[str] = set()

    def row(self, structure: Structure) -> dict[str, Any]:
        """Return a structure as a row by ASE's names: eV, Å, stress in Voigt order, the rest in `data`."""
        self._rows += 1
        row: dict[str, Any] = {
            "numbers": structure.numbers,
            "positions": structure.positions,
            "cell": structure.cell,
            "pbc": structure.pbc,
            "calculator": "unknown",
            "calculator_parameters": {},
            "key_value_pairs": {},
            "data": self._data(structure),
        }
        if structure.tags is not None:
            row["tags"] = np.asarray(structure.tags)
        if structure.fixed is not None:
            held = np.flatnonzero(structure.fixed).tolist()
            row["constraints"] = [{"name": "FixAtoms", "kwargs": {"indices": held}}] if held else []
        for quantity, column in COLUMNS.items():
            if quantity in structure.labels:
                value = structure.labels[quantity]
                row[column] = float(value) if value.shape == () else value
                self._note(quantity, column)
        if "stress" in structure.labels:
            row["stress"] = np.array([structure.labels["stress"][i, j] for i, j in VOIGT])
        digest = hashlib.sha256(structure.origin.encode())
        for name in ("numbers", "positions"):
            digest.update(row[name].tobytes())
        moment = (time.time() - ASE_EPOCH) / YEAR
        return row | {"unique_id": digest.hexdigest()[:32], "ctime": moment, "mtime": moment, "user": ""}

    def metadata(self) -> dict[str, Any]:
        """Return what `declared_keys` reads."""
        return {
            OURS: {
                "usual": self._usual,
                "targets": self._targets,
                "features": {name: FEATURE + name for name, n in self._features.items() if n == self._rows},
                "force_mask": self._mask,
            }
        }

    def _data(self, s: Structure) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for name, value in s.info.items():
            if isinstance(value, (bool, int, float, str)):
                other = f"info_{name}" if name.lower() in TAKEN else name
                if other != name:
                    self.notes.add(f"info {name!r} is written as {other!r}, so that it is not read as a label")
                data[other] = value
        given = {"charge": s.charge, "multiplicity": s.multiplicity, "fidelity": s.fidelity, "head": s.head}
        data |= {name: value for name, value in given.items() if value is not None}
        if s.config_type != "default":
            data["config_type"] = s.config_type
        if s.weight != 1.0:
            data["config_weight"] = s.weight
        if s.force_mask is not None:
            data["force_mask"], self._mask = np.asarray(s.force_mask, dtype=np.int64), True
        for name in s.labels.keys() - {*COLUMNS, "stress"}:
            data[name] = s.labels[name]
            self._note(name, name)
            quantity = s.declared.get(name)
            if quantity is not None:
                self._targets[name] = TargetKey.of(quantity).model_dump()
        for name, value in s.base.items():
            data[BASE + name] = value
            self._note(f"base {name}", BASE + name)
        for name, value in s.features.items():
            data[FEATURE + name] = value
        self._features.update(s.features.keys())
        return data

    def _note(self, quantity: str, name: str) -> None:
        if quantity.removeprefix("base ") in QUANTITIES and quantity not in ("energy", "forces"):
            self._usual[quantity] = [name]


def declared_names(metadata: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the usual names that a database of ours declares, by quantity; none for other databases."""
    usual = _ours(metadata).get("usual")
    if not isinstance(usual, Mapping):
        return {}
    return {
        name: [str(n) for n in found]
        for name, found in usual.items()
        if isinstance(found, list) and found and str(name).removeprefix("base ") in QUANTITIES
    }


def declared_keys(keys: LabelKeys, metadata: Mapping[str, Any]) -> LabelKeys:
    """Return the settings with targets, features and mask that a database of ours declares, where none are given."""
    ours, update = _ours(metadata), {}
    try:
        if not keys.targets and ours.get("targets"):
            update["targets"] = LabelKeys(targets=ours["targets"]).targets
        if not keys.features and ours.get("features"):
            update["features"] = LabelKeys(features=ours["features"]).features
    except ValidationError:
        return keys
    if keys.force_mask is None and ours.get("force_mask") is True:
        update["force_mask"] = "force_mask"
    return keys.model_copy(update=update)


def _ours(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    found = metadata.get(OURS)
    return found if isinstance(found, Mapping) else {}
