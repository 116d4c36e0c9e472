"""Pacemaker's training data: a gzip-compressed pickle of a pandas DataFrame."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from pydantic import Field, field_validator

from forgefield.core.catalog import Entry
from forgefield.core.disk import write_atomic
from forgefield.core.elements import number
from forgefield.core.errors import ConfigError, DataError, ForgeError
from forgefield.core.structure import Structure
from forgefield.data.left_out import LeftOut
from forgefield.data.writer import Writer, WriterSettings

KEPT = ("energy", "forces", "stress", "weight", "config_type", "tags", "force_mask")
PROTOCOL = 4


class PacemakerSettings(WriterSettings):
    """How Pacemaker's table is written."""

    reference_energies: dict[str, float] = Field(
        default_factory=dict,
        description="Energy of each free atom, eV, {Cu: -0.25}: `energy_corrected`, which Pacemaker fits, is the total "
        "energy without them. Empty: it equals the total energy.",
    )

    @field_validator("reference_energies")
    @classmethod
    def _known_elements(cls, value: dict[str, float]) -> dict[str, float]:
        try:
            for name in value:
                number(name)
        except ForgeError as error:
            raise ValueError(str(error)) from None
        return value


class PacemakerWriter(Writer):
    """Keeps all rows in memory, as the format asks; needs pandas."""

    def __init__(self, path: Path, settings: PacemakerSettings) -> None:
        super().__init__(path, settings)
        try:
            import pandas
        except ImportError:
            fix = "install it: pip install 'forgefield[pacemaker]'"
            raise ConfigError("writing Pacemaker's format needs pandas", str(path), fix) from None
        self._pandas: Any = pandas
        self._references = {number(k): v for k, v in settings.reference_energies.items()}
        self._left = LeftOut("Pacemaker's table", KEPT)
        self._rows: list[Structure] = []

    def add(self, structure: Structure) -> None:
        """Append a structure.

        Raises:
            DataError: it has no energy, no forces, or an element without reference energy.
        """
        for name in ("energy", "forces"):
            if name not in structure.labels:
                fix = "leave out the structures without labels, or write another format"
                raise DataError(f"has no {name}, which Pacemaker needs", structure.origin, fix)
        if self._references:
            new = sorted(set(structure.numbers.tolist()) - self._references.keys())
            if new:
                raise DataError(
                    f"element {new[0]} has no reference energy", structure.origin, "give reference_energies"
                )
        self._left.look(structure)
        self._rows.append(structure)

    def finish(self) -> tuple[str, ...]:
        """Write the table."""
        if not self._rows:
            raise DataError("no structures to write", str(self.path), "give at least one")
        notes = list(self._left.notes())
        weighted = any(s.weight != 1.0 or _masked(s) for s in self._rows)
        columns = self._columns(weighted)
        pandas, count = self._pandas, len(self._rows)
        frame = pandas.DataFrame(index=pandas.RangeIndex(count))
        for name, values in columns.items():
            if not isinstance(values, np.ndarray):
                column = np.empty(count, dtype=object)
                for k, value in enumerate(values):
                    column[k] = value
                values = pandas.Series(column, dtype=object)
            frame[name] = values
        frame.columns = pandas.Index(list(columns), dtype=object)  # texts of other types: older pandas cannot read them
        stream = io.BytesIO()
        frame.to_pickle(stream, compression="gzip", protocol=PROTOCOL)
        write_atomic(self.path, stream.getvalue())
        if weighted:
            notes.append("weights and force masks stand in w_energy and w_forces, each adding up to 1, as in Pacemaker")
        return tuple(notes)

    def abandon(self) -> None:
        """Forget the rows; nothing was written."""
        self._rows.clear()

    def _columns(self, weighted: bool) -> dict[str, Any]:
        rows = self._rows
        energies = np.array([float(s.labels["energy"]) for s in rows])
        columns: dict[str, Any] = {
            "name": [str(s.info.get("name", s.config_type)) for s in rows],
            "ase_atoms": [_atoms(s) for s in rows],
            "energy": energies,
            "forces": [np.array(s.labels["forces"]) for s in rows],
            "energy_corrected": energies - [self._reference(s) for s in rows],
        }
        if any("stress" in s.labels for s in rows):
            columns["stress"] = [np.array(s.labels["stress"]) if "stress" in s.labels else None for s in rows]
        if any(s.config_type != "default" for s in rows):
            columns["config_type"] = [s.config_type for s in rows]
        if weighted:
            weights = np.array([s.weight for s in rows])
            shares = weights / (weights.sum() or 1.0)
            forces = [w / len(s) * _counted(s) for w, s in zip(shares, rows, strict=True)]
            total = sum(float(f.sum()) for f in forces) or 1.0
            columns |= {"w_energy": shares, "w_forces": [f / total for f in forces], "config_weight": weights}
        return columns

    def _reference(self, s: Structure) -> float:
        return sum(self._references.get(z, 0.0) for z in s.numbers.tolist())


def _masked(s: Structure) -> bool:
    return s.force_mask is not None and not np.all(s.force_mask)


def _counted(s: Structure) -> np.ndarray:
    """1 for atoms whose forces count, 0 for the others, (N,)."""
    return np.ones(len(s)) if s.force_mask is None else np.asarray(s.force_mask, dtype=np.float64)


def _atoms(s: Structure) -> Atoms:
    return Atoms(s.numbers, s.positions, cell=s.cell, pbc=s.pbc, tags=s.tags)


ENTRY = Entry(PacemakerSettings, PacemakerWriter, "Pacemaker's DataFrame of structures, *.pckl.gzip")
