"""Frames of equal size held as arrays over frames: how npz, npy and HDF5 files keep them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.labelling import choose_keys, label_structure, other_names
from forgefield.data.looked_at import frames_looked_at
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import Frames, ReaderSettings

LOOKED_AT = 32  # frames that decide which names hold the labels


class Column(Protocol):
    """An array, or what reads like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype: ...  # noqa: D102

    def __getitem__(self, index: Any, /) -> Any: ...


class Block(NamedTuple):
    """Frames with the same number of atoms.

    Args:
        origin: file and part, for messages.
        unit: what one frame is called there: "frame", "structure".
        first: number of the first frame within the part, for messages.
        count: number of frames n.
        numbers: (N,) or (n, N); atoms of number 0 are padding and left out.
        positions: (n, N, 3).
        cell: (n, 3, 3), or None where there is none.
        pbc: (3,) of all frames, (n, 3), or None: periodic where there is a cell.
        values: of the structures, (n, ...).
        arrays: of the atoms, (n, N, ...).
    """

    origin: str
    unit: str
    first: int
    count: int
    numbers: Column
    positions: Column
    cell: Column | None
    pbc: Column | None
    values: Mapping[str, Column]
    arrays: Mapping[str, Column]

    def frame(self, k: int) -> RawFrame:
        """Return one frame as the file has it."""
        numbers = np.asarray(self.numbers[k] if len(self.numbers.shape) == 2 else self.numbers[:])
        origin = f"{self.origin}: {self.unit} {self.first + k}"
        if numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
            raise DataError("atomic numbers are not whole numbers", origin, "repair this frame")
        positions = _row(self.positions, k).reshape(-1, 3)
        arrays = {name: _row(column, k) for name, column in self.arrays.items()}
        cell = np.zeros((3, 3)) if self.cell is None else _row(self.cell, k).reshape(3, 3)
        there = numbers != 0
        if not there.all():
            numbers, positions = numbers[there], positions[there]
            arrays = {name: value[there] for name, value in arrays.items()}
        return RawFrame(
            numbers=numbers.astype(np.int64),
            positions=positions,
            cell=cell,
            pbc=self._pbc(k, cell),
            values={name: _plain(_row(column, k)) for name, column in self.values.items()},
            arrays=arrays,
            origin=origin,
        )

    def _pbc(self, k: int, cell: np.ndarray) -> np.ndarray:
        if self.pbc is None:
            return np.full(3, bool(np.any(cell)))
        pbc = self.pbc[k] if len(self.pbc.shape) == 2 else self.pbc[:]
        return np.asarray(pbc).astype(bool)


Repair = Callable[[RawFrame], RawFrame]


class BlockFrames(Frames):
    """The frames of several blocks, made when asked for.

    Args:
        blocks: in their order.
        source: file or folder, for messages.
        settings: names and units; the units are those to read by, declared ones included.
        usual: names that this format gives to its labels.
        notes: what the user should know about the source.
        order: place of each frame among the blocks taken together, or None = as they come.
        repair: a change of each frame before it is labelled.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        source: str,
        settings: ReaderSettings,
        usual: Mapping[str, Sequence[str]],
        notes: Sequence[str] = (),
        order: np.ndarray | None = None,
        repair: Repair | None = None,
    ) -> None:
        self._blocks, self._settings, self._order, self._repair = list(blocks), settings, order, repair
        self.units = settings.units
        self._ends = np.cumsum([b.count for b in self._blocks], dtype=np.int64)
        if not len(self._ends) or not self._ends[-1]:
            raise DataError("holds no structures", source, "give a file with at least one")
        sample = frames_looked_at(self._raw, self._looked_at(), len(self), settings.on_error == "skip")
        chosen = choose_keys(sample, settings.keys, settings.units, source, usual)
        super().__init__(source, chosen, other_names(sample, chosen), notes)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Structure:
        at = index if self._order is None else int(self._order[index])
        return label_structure(self._raw(at), self.chosen, self._settings.keys, self._settings.units)

    def _raw(self, at: int) -> RawFrame:
        which = int(np.searchsorted(self._ends, at, side="right"))
        raw = self._blocks[which].frame(at - (int(self._ends[which - 1]) if which else 0))
        return raw if self._repair is None else self._repair(raw)

    def _looked_at(self) -> np.ndarray:
        """The first frame of every block, up to a number of them, and some between."""
        starts = np.concatenate([[0], self._ends[:-1]])[[b.count > 0 for b in self._blocks]]
        few = starts[np.unique(np.linspace(0, len(starts) - 1, LOOKED_AT).astype(int))]
        return np.unique(np.concatenate([few, np.linspace(0, len(self) - 1, LOOKED_AT).astype(int)]))


def check_column(column: Column, shape: tuple[int | None, ...], name: str, where: str) -> None:
    """Refuse an array of another shape than expected, or that holds no plain numbers; None stands for any length.

    Raises:
        DataError: says what is there and what should be.
    """
    fits = len(column.shape) == len(shape) and all(
        e is None or n == e for n, e in zip(column.shape, shape, strict=True)
    )
    if not fits:
        expected = ", ".join("n" if e is None else str(e) for e in shape)
        raise DataError(f"{name} has shape {tuple(column.shape)}, expected ({expected})", where, "repair the file")
    if column.dtype.kind not in "biuf":
        raise DataError(f"{name} holds {column.dtype} instead of numbers", where, "repair the file")


def _row(column: Column, k: int) -> np.ndarray:
    return np.array(column[k])


def _plain(value: np.ndarray) -> Any:
    """A row of one number or text as that number or text."""
    if value.ndim:
        return value
    plain = value.item()
    return plain.decode("utf-8", "replace") if isinstance(plain, bytes) else plain
