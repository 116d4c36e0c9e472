"""DeePMD-kit's npy folders: one system, or a tree of them; fixed types and mixed types."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.elements import NUMBERS
from forgefield.core.errors import DataError
from forgefield.data.frame_blocks import Block, BlockFrames, Column, check_column
from forgefield.data.npy_file import read_npy
from forgefield.data.passed_over import open_each
from forgefield.data.reader import Reader, ReaderSettings

USUAL = {"energy": ("energy",), "forces": ("force",), "stress": ("virial",)}
PER_ATOM = ("force", "atom_ener", "atomic_dipole")
NOT_LABELS = frozenset(("coord", "box", "real_atom_types", "type"))
DEEPEST = 4  # folders below the one that is named
MAX_TEXT = 64 * 2**20


class DeepmdNpySettings(ReaderSettings):
    """DeePMD-kit: eV, Å, the virial in eV with the sign of minus volume times ASE's stress."""


class DeepmdNpyReader(Reader):
    """Maps the arrays of every set; frames are made when they are asked for."""

    usual = USUAL

    def __init__(self, settings: DeepmdNpySettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is a folder with `type.raw` and sets, or holds such folders."""
        return path.is_dir() and bool(_systems(path, DEEPEST))

    def open(self, path: Path) -> BlockFrames:
        """Return the frames of all systems and sets, in the order of their names.

        Raises:
            DataError: a file is missing or damaged, or the arrays do not fit each other.
        """
        systems = _systems(path, DEEPEST) if path.is_dir() else []
        if not systems:
            raise DataError("holds no type.raw beside set.000", str(path), "name the folder of a DeePMD system")
        skip = self.settings.on_error == "skip"
        opened, notes = open_each(systems, lambda system: _blocks(system, path, skip), "systems", skip=skip)
        blocks = [block for found, _ in opened for block in found]
        return BlockFrames(blocks, str(path), self.settings, USUAL, [*notes, *(n for _, more in opened for n in more)])


def _systems(path: Path, depth: int) -> list[Path]:
    try:
        if (path / "type.raw").is_file() and any(path.glob("set.*")):
            return [path]
        below = sorted(p for p in path.iterdir() if p.is_dir() and not p.is_symlink()) if depth else []
    except OSError:
        return []
    return [found for p in below for found in _systems(p, depth - 1)]


def _blocks(system: Path, root: Path, skip: bool) -> tuple[list[Block], list[str]]:
    """The sets of a system, and a note on those that are left out."""
    numbers = _types(system)
    sets = sorted(p for p in system.glob("set.*") if p.is_dir())
    periodic = not (system / "nopbc").exists()
    names = _names(system)
    return open_each(sets, lambda one: _block(one, root, numbers, names, periodic), f"sets of {system.name}", skip=skip)


def _block(folder: Path, root: Path, types: np.ndarray, names: np.ndarray | None, periodic: bool) -> Block:
    where = str(folder.relative_to(root.parent))
    files = {p.stem: p for p in sorted(folder.glob("*.npy"))}
    if "coord" not in files:
        raise DataError("has no coord.npy", where, "is this a complete DeePMD set?")
    arrays = {name: read_npy(path) for name, path in files.items()}
    n, atoms = len(arrays["coord"]) if arrays["coord"].ndim else 0, len(types)
    coord = _shaped(arrays["coord"], (n, atoms, 3), "coord", where)
    numbers = _numbers(arrays.get("real_atom_types"), types, names, n, where)
    if periodic and "box" not in arrays:
        raise DataError("has no box.npy", where, "a system without cell has an empty file nopbc beside type.raw")
    cell = _shaped(arrays["box"], (n, 3, 3), "box", where) if periodic else None
    values: dict[str, Column] = {}
    per_atom: dict[str, Column] = {}
    for name, array in arrays.items():
        if name in NOT_LABELS or array.ndim == 0 or len(array) != n:
            if name in ("energy", "force", "virial"):
                raise DataError(f"{name}.npy has {array.shape} for {n} frames", where, "repair this set")
            continue
        if name in PER_ATOM and array.size % max(n * atoms, 1) == 0:
            width = array.size // max(n * atoms, 1)
            per_atom[name] = array.reshape((n, atoms, width) if width > 1 else (n, atoms))
        elif name == "virial":
            values[name] = _shaped(array, (n, 9), name, where)
        else:
            values[name] = array
    return Block(where, "frame", 0, n, numbers, coord, cell, np.full(3, periodic), values, per_atom)


def _shaped(array: np.ndarray, shape: tuple[int, ...], name: str, where: str) -> np.ndarray:
    """An array whose last axes may lie in one row."""
    if array.size != int(np.prod(shape)) or len(array) != shape[0]:
        raise DataError(f"{name}.npy has shape {array.shape}, expected {shape}", where, "repair this set")
    found = array.reshape(shape)
    check_column(found, shape, f"{name}.npy", where)
    return found


def _numbers(mixed: np.ndarray | None, types: np.ndarray, names: np.ndarray | None, n: int, where: str) -> np.ndarray:
    """Atomic numbers, (N,) or (n, N); 0 for the padding of mixed types."""
    if names is None:
        fix = "write type_map.raw with the element of each type, one to a line"
        raise DataError("has no type_map.raw beside type.raw: types have no elements", where, fix)
    if mixed is None:
        if types.min() < 0 or types.max() >= len(names):
            raise DataError(f"type.raw names type {types.max()}, type_map.raw has {len(names)}", where, "repair them")
        return names[types]
    check_column(mixed, (n, len(types)), "real_atom_types.npy", where)
    if mixed.dtype.kind not in "iu" or (mixed.size and (mixed.min() < -1 or mixed.max() >= len(names))):
        raise DataError("real_atom_types.npy names types that type_map.raw has not", where, "repair them")
    return np.append(names, 0)[np.asarray(mixed)]


def _types(system: Path) -> np.ndarray:
    words = _words(system / "type.raw")
    try:
        types = np.array([int(w) for w in words], dtype=np.int64)
    except (ValueError, OverflowError):
        raise DataError("holds something else than whole numbers", str(system / "type.raw"), "repair it") from None
    if len(types) == 0:
        raise DataError("is empty", str(system / "type.raw"), "give the type of each atom")
    return types


def _names(system: Path) -> np.ndarray | None:
    """Atomic number of each type, by its name."""
    path = system / "type_map.raw"
    if not path.is_file():
        return None
    words = _words(path)
    for word in words:
        if word not in NUMBERS:
            raise DataError(f"names {word[:20]!r}, which is no element", str(path), "use element symbols")
    if not words:
        raise DataError("is empty", str(path), "give the element of each type")
    return np.array([NUMBERS[w] for w in words], dtype=np.int64)


def _words(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_TEXT:
            raise DataError("is far too long", str(path), "give the type of each atom")
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({type(error).__name__})", str(path), "copy it again") from None


ENTRY = Entry(DeepmdNpySettings, DeepmdNpyReader, "DeePMD-kit npy folder, or a tree of them")
