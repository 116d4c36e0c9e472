"""The rows of a database as frames, with the units that SchNetPack's metadata declare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgefield.data.ase_frames import frame_of_row
from forgefield.data.label_names import AUTO
from forgefield.data.label_units import LabelUnits
from forgefield.data.labelling import Chosen
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import ReaderSettings
from forgefield.data.result_frames import ResultFrames
from forgefield.data.structure_rows import declared_keys, declared_names
from forgefield.data.unit_expressions import declared_units, find_unit, named_unit

COLUMN = "energy"  # the row's own: never ambiguous


class Table(ABC):
    """Rows of one database."""

    ids: np.ndarray  # (n,), of the selected rows, ascending
    metadata: Mapping[str, Any]
    name: str

    def origin(self, row_id: int) -> str:
        """Return the name of a row, for messages."""
        return f"{self.name}: row {row_id}"

    @abstractmethod
    def row(self, row_id: int) -> Mapping[str, Any]:
        """Return a row, decoded, in the form that `frame_of_row` takes.

        Raises:
            DataError: it is gone or damaged.
        """


class DatabaseFrames(ResultFrames):
    """The selected rows of a database.

    Args:
        path: the file, for messages.
        table: the rows.
        settings: of the reader.
    """

    def __init__(self, path: Path, table: Table, settings: ReaderSettings) -> None:
        self._table = table
        keys = declared_keys(settings.keys, table.metadata)
        settings = settings.model_copy(update={"keys": keys})
        super().__init__(path, len(table.ids), (), settings, declared_names(table.metadata))

    def raw(self, index: int) -> RawFrame:
        """Return one row as the database has it."""
        row_id = int(self._table.ids[index])
        return self.settled(frame_of_row(self._table.row(row_id), self._table.origin(row_id)))

    def settled_units(self, chosen: Chosen, sample: Sequence[RawFrame], notes: list[str]) -> LabelUnits:
        """Return the units: those of ASE, or what SchNetPack's metadata say of the names that are read."""
        units = super().settled_units(chosen, sample, notes)
        declared = self._table.metadata.get("_property_unit_dict")
        if not isinstance(declared, Mapping):
            return units
        where, distance = f"{self._table.name}: metadata", self._table.metadata.get("_distance_unit")
        energies = [name for name, unit in declared.items() if find_unit("energy", str(unit)) is not None]
        energies = [name for name in energies if "energy" in name.lower()] or energies
        if self._settings.keys.energy == AUTO and chosen["energy"] != COLUMN and len(energies) > 1:
            chosen["energy"] = None  # "free_energy" of QM9 is that of a gas at 298 K
            self._unread.add("energy")
        if chosen["energy"] is None and energies:
            notes.append(f"no energy is read: set data.energy_key to one of {', '.join(energies)}")
        found: dict[str, str] = {}
        for quantity in ("energy", "forces", "stress", "dipole"):
            name = chosen.get(quantity)
            if name is not None and name in declared:
                found[quantity] = named_unit(quantity, str(declared[name]), where)
        if isinstance(distance, str):
            found["length"] = named_unit("length", distance, where)
        notes += [*declared_units(found), *units.overruled(**found)]
        return units.declared(**found)
