"""ALIGNN's graph cache: a folder with an LMDB environment of pickled DGL graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.elements import MAX_NUMBER
from forgefield.core.errors import DataError
from forgefield.data.alignn_labels import is_box
from forgefield.data.graph_pickle import GraphRecord, load_graph
from forgefield.data.lazy_frames import LazyFrames
from forgefield.data.lmdb_file import PICKLE, LmdbFile, is_lmdb
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import Reader, ReaderSettings
from forgefield.data.restricted_pickle import MAX_BYTES

FILE = "data.mdb"
USUAL = {"forces": ("atomwise_grad",), "energy": ("label",)}
WAY_OUT = "read the id_prop.json that the cache was made from"
NOTES = (
    "ALIGNN's cache holds rounded copies (usually float32): " + WAY_OUT + " where you have it",
    "the label is read as an energy per atom, as ALIGNN-FF wants it; for another property set data.energy_key to null "
    "and declare data.targets: {name: {key: label, per: structure}}",
)


class AlignnCacheSettings(ReaderSettings):
    """ALIGNN's LMDB of pickled graphs, read by a restricted unpickler that runs nothing."""

    max_record_bytes: int = Field(default=MAX_BYTES, gt=0, description="Refuse records larger than this, bytes.")


class AlignnCacheReader(Reader):
    """Reads graphs one by one, when they are asked for; only where atoms are described by their atomic number."""

    usual = USUAL

    def __init__(self, settings: AlignnCacheSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is a folder with an LMDB environment whose record `0` is a pickle, or a damaged one."""
        file = path / FILE
        if not path.is_dir() or not file.is_file():
            return False
        try:
            first = LmdbFile(file).get(b"0") if is_lmdb(file) else PICKLE
        except DataError:
            return True  # `open` says what is wrong
        return first is not None and first.startswith(PICKLE)

    def open(self, path: Path) -> CacheFrames:
        """Return the graphs in the order of their numbers.

        Raises:
            DataError: no such folder, a damaged file, or graphs that do not say their elements.
        """
        file = path / FILE if path.is_dir() else path
        if not file.is_file() or not is_lmdb(file):
            raise DataError("holds no LMDB environment, so it is no cache of ALIGNN", str(path), WAY_OUT)
        return CacheFrames(path, file, self.settings)


class CacheFrames(LazyFrames):
    """Graphs, decoded when asked for.

    Args:
        path: the folder, for messages.
        file: its data.mdb.
        settings: of the reader.
    """

    def __init__(self, path: Path, file: Path, settings: AlignnCacheSettings) -> None:
        self._file, self._limit, self._name = LmdbFile(file), settings.max_record_bytes, path.name
        entries = int(self._file.environment.stat()["entries"])
        if entries and self._file.get(b"%d" % (entries - 1)) is None:
            raise DataError(f"has {entries} entries but no record {entries - 1}", str(path), WAY_OUT)
        units = lambda *_: settings.units.declared(stress="GPa", stress_sign="ase", energy_per="atom")  # noqa: E731
        super().__init__(path, entries, settings, NOTES, units, USUAL)

    def raw(self, index: int) -> RawFrame:
        """Return one graph as the file has it."""
        origin = f"{self._name}: record {index}"
        stored = self._file.get(b"%d" % index)
        if stored is None:
            raise DataError("is missing", origin, "the cache is incomplete: make it again, or " + WAY_OUT)
        return _frame(load_graph(stored, origin, self._limit), origin)


def _frame(graph: GraphRecord, origin: str) -> RawFrame:
    numbers = _numbers(graph.atoms.get("atom_features"), origin)
    n = len(numbers)
    places = graph.atoms.get("frac_coords")
    if places is None or places.shape != (n, 3):
        raise DataError("has no fractional coordinates", origin, f"the cache is of an older ALIGNN: {WAY_OUT}")
    cell = graph.lattice.astype(np.float64)
    molecule = is_box(cell)
    values = {"label": graph.label.item() if graph.label.size == 1 else graph.label}
    arrays = {k: v for k, v in graph.atoms.items() if k not in ("atom_features", "frac_coords", "V", "stresses")}
    stresses = graph.atoms.get("stresses")
    if stresses is not None and stresses.shape == (n, 3, 3):  # the same for each atom
        values["stress"] = stresses[0]
    return RawFrame(
        numbers=numbers,
        positions=places.astype(np.float64) @ cell,
        cell=np.zeros((3, 3)) if molecule else cell,
        pbc=np.full(3, not molecule),
        values=values,
        arrays=arrays,
        origin=origin,
    )


def _numbers(features: np.ndarray | None, origin: str) -> np.ndarray:
    """Atomic numbers, where the features of the atoms are nothing else."""
    if features is None or features.ndim not in (1, 2) or features.size != len(features):
        what = "does not say its elements: its atoms are described by a table of properties (atom_features: cgcnn)"
        raise DataError(what, origin, WAY_OUT)
    flat = features.reshape(-1).astype(np.float64)
    whole = np.round(flat)
    if not np.array_equal(whole, flat) or not ((flat >= 1) & (flat <= MAX_NUMBER)).all():
        raise DataError("its atom features are no atomic numbers", origin, WAY_OUT)
    return whole.astype(np.int64)


ENTRY = Entry(AlignnCacheSettings, AlignnCacheReader, "ALIGNN's LMDB cache of graphs")
