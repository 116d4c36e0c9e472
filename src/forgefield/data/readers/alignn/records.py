"""Records of id_prop.json: structures of JARVIS with labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgefield.core.elements import number
from forgefield.core.errors import DataError, ForgeError
from forgefield.data.alignn_labels import is_box
from forgefield.data.json_list import JsonList
from forgefield.data.label_names import AUTO
from forgefield.data.label_units import LabelUnits
from forgefield.data.labelling import USUAL_NAMES, Chosen
from forgefield.data.lazy_frames import LazyFrames
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import ReaderSettings

USUAL = {"stress": ("stresses",)}
SIX = "stresses_of_six"  # under which six numbers wait until the user says what they are
VASP_ORDER = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2))
CLEARLY = 2.0  # times less scatter is needed to believe that energies are totals
SHOWN = 8
REPAIR = "repair or remove this entry"


class RecordFrames(LazyFrames):
    """Entries of id_prop.json, decoded when asked for.

    Args:
        file: the JSON file or archive.
        settings: of the reader.
    """

    def __init__(self, file: Path, settings: ReaderSettings) -> None:
        self._file, self._list, self._six = file, JsonList(file, skip=settings.on_error == "skip"), False
        notes: list[str] = []
        declare = lambda chosen, sample: self._declared(chosen, sample, notes)  # noqa: E731
        super().__init__(file, len(self._list), settings, (), declare, USUAL)
        self.notes = (*self._list.notes, *self.notes, *notes)

    def raw(self, index: int) -> RawFrame:
        """Return one entry as the file has it."""
        origin = f"{self._file.name}: entry {index}"
        record = self._list[index]
        if not isinstance(record, dict) or not isinstance(record.get("atoms"), dict):
            raise DataError("has no 'atoms'", origin, REPAIR)
        numbers, positions, cell = atoms_of_jarvis(record["atoms"], origin)
        molecule = is_box(cell)
        values, arrays = _labels(record, len(numbers), origin)
        self._settle_six(values, origin)
        return RawFrame(
            numbers=numbers,
            positions=positions,
            cell=np.zeros((3, 3)) if molecule else cell,
            pbc=np.full(3, not molecule),
            values=values,
            arrays=arrays,
            origin=f"{origin} ({record['jid']})" if _is_name(record.get("jid")) else origin,
        )

    def _settle_six(self, values: dict[str, Any], origin: str) -> None:
        """Six stresses: set aside unless the user names them; then their order goes with their sign."""
        found = values.get("stresses")
        if found is None or np.size(found) != 6:
            return
        self._six = True
        if self._settings.keys.stress == AUTO:
            values[SIX] = values.pop("stresses")
        elif self._settings.units.stress_sign == "vasp":
            tensor = np.zeros((3, 3))
            for value, (i, j) in zip(np.asarray(found, dtype=np.float64).reshape(6), VASP_ORDER, strict=True):
                tensor[i, j] = tensor[j, i] = value
            values["stresses"] = tensor

    def _used(self, chosen: Chosen) -> set[str | None]:
        """Names that something is done with, or that the user has said not to read."""
        keys = self._settings.keys
        refused = [name for name in ("energy", "forces", "stress") if getattr(keys, name) is None]
        names = {word for name in refused for word in (*USUAL_NAMES[name], *USUAL.get(name, ()))}
        return {*chosen.values(), *keys.features.values(), *names, SIX, "jid"}

    def _declared(self, chosen: Chosen, sample: Sequence[RawFrame], notes: list[str]) -> LabelUnits:
        units = self._settings.units
        if self._six and self._settings.keys.stress == AUTO:
            notes.append(
                "stresses of six numbers are not read: the file does not say their order, unit and sign. Data of VASP "
                "(xx yy zz xy yz zx, kbar): data.stress_key: stresses, stress_unit: kbar, stress_sign: vasp; "
                "in ASE's order (xx yy zz yz xz xy), GPa: data.stress_key: stresses"
            )
        elif chosen["stress"] is not None and AUTO in (units.stress, units.stress_sign):
            notes.append(
                "stresses are read as GPa, positive = tensile, as ALIGNN computes them, unless data.stress_unit and "
                "data.stress_sign say otherwise (VASP's are kbar, vasp); the file does not say it"
            )
        notes += unused(sample, self._used(chosen))
        per = "atom"
        if chosen["energy"] is not None and units.energy_per == AUTO:
            per, why = energies_per(sample, chosen["energy"])
            notes.append(why)
        return units.declared(stress="GPa", stress_sign="ase", energy_per=per)


def energies_per(sample: Sequence[RawFrame], name: str) -> tuple[str, str]:
    """Return whether energies are per "atom" or per "structure", and why.

    ALIGNN wants them per atom; files with totals exist. Totals grow with the number of atoms, so they scatter less
    when divided by it.
    """
    labelled = [raw for raw in sample if np.size(raw.values.get(name, ())) == 1]
    labelled = [raw for raw in labelled if np.asarray(raw.values[name]).dtype.kind in "iuf"]
    energies = np.array([float(np.asarray(raw.values[name]).reshape(())) for raw in labelled])
    sizes = np.array([len(raw.numbers) for raw in labelled], dtype=np.float64)
    told = f"{name} is per atom in ALIGNN's files: multiplied by the number of atoms"
    other = "if it is a total here, set data.energy_per to structure"
    if len(energies) < 2 or np.ptp(sizes) == 0 or not np.isfinite(energies).all():
        return "atom", f"{told}; all structures looked at have the same size, so this cannot be checked: {other}"
    scatter = [float(np.std(x) / max(abs(float(np.mean(x))), 1e-12)) for x in (energies, energies / sizes)]
    if scatter[1] * CLEARLY < scatter[0]:
        what = f"{name} grows with the number of atoms: read as total energies, though ALIGNN wants them per atom"
        return "structure", f"{what}; if it is per atom, set data.energy_per to atom"
    return "atom", f"{told}; {other}"


def unused(sample: Sequence[RawFrame], used: Collection[str | None]) -> list[str]:
    """Return a note on the numbers of the records that nothing is done with, if there are any."""
    sizes = {name: np.size(v) for raw in sample for name, v in (*raw.values.items(), *raw.arrays.items())
             if name not in used and np.asarray(v).dtype.kind in "iuf"}  # fmt: skip
    if not sizes:
        return []
    named = [name if size == 1 else f"{name} ({size} numbers)" for name, size in sorted(sizes.items())]
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    how = "data.targets trains on them, data.features gives them to the model"
    return [f"also in the file and not used: {', '.join(named[:SHOWN])}{more}; {how}"]


def atoms_of_jarvis(atoms: Mapping[str, Any], origin: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return atomic numbers (N,), positions (N, 3) and cell (3, 3) in Å.

    Raises:
        DataError: something is missing, or has the wrong shape or kind.
    """
    symbols = atoms.get("elements")
    if not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
        raise DataError("its atoms have no list of elements", origin, REPAIR)
    try:
        numbers = np.array([number(s.strip()) for s in symbols], dtype=np.int64)
    except ForgeError as error:
        raise DataError(error.what, origin, REPAIR) from None
    cell = _floats(atoms.get("lattice_mat"), (3, 3), "lattice_mat", origin)
    coordinates = _floats(atoms.get("coords"), (len(numbers), 3), "coords", origin)
    cartesian = atoms.get("cartesian", False)
    if not isinstance(cartesian, bool):
        raise DataError(f"cartesian is {str(cartesian)[:40]!r}, expected true or false", origin, REPAIR)
    return numbers, coordinates if cartesian else coordinates @ cell, cell


def _labels(record: Mapping[str, Any], n: int, origin: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    values: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, value in record.items():
        if name == "atoms" or value is None or value == "na":
            continue
        if isinstance(value, (bool, int, float, str)):
            values[name] = value
        elif isinstance(value, list):
            array = _array(value)
            if array is None:
                raise DataError(f"{name} is no array of numbers", origin, REPAIR)
            if name == "forces" or (array.shape[:1] == (n,) and name != "stresses" and array.ndim == 2):
                arrays[name] = array
            else:
                values[name] = array
    return values, arrays


def _array(value: Any) -> np.ndarray | None:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return array if array.dtype.kind in "biuf" else None


def _floats(value: Any, shape: tuple[int, ...], name: str, origin: str) -> np.ndarray:
    array = _array(value)
    if array is None or array.shape != shape:
        found = "no array of numbers" if array is None else f"shape {array.shape}, expected {shape}"
        raise DataError(f"{name} has {found}" if array is not None else f"{name} is {found}", origin, REPAIR)
    return array.astype(np.float64)


def _is_name(jid: Any) -> bool:
    """Whether the id of a record can stand in messages and tables."""
    return isinstance(jid, int) or (isinstance(jid, str) and 0 < len(jid) <= 100 and jid.isprintable())
