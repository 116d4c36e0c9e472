"""The frames of an extended XYZ file, parsed when asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.extxyz.parse import parse_frame
from forgefield.data.extxyz.scan import Index, Scan
from forgefield.data.extxyz.text import Text
from forgefield.data.label_names import AUTO, LabelKeys
from forgefield.data.label_units import LabelUnits
from forgefield.data.labelling import USUAL_NAMES, Chosen, RawFrame, choose_keys, label_structure, other_names
from forgefield.data.reader import Frames

KEPT_BYTES = 64 * 2**20  # of text, the structures of which stay in memory
TRIED = 8  # frames of one kind that are tried until one can be read


class ExtxyzFrames(Frames):
    """Keeps the places of the frames, and the structures of the first 64 MiB of text.

    The names of the labels are chosen by all frames, as if all were in memory: the file is read once to find where
    frames begin and which names they use.

    Args:
        path: the file, plain, .xz or .gz.
        keys: names of the labels.
        units: units and signs.
        skip: leave out frames whose count of atoms is wrong and what is cut off, and say so in the notes.

    Raises:
        DataError: the file is empty, cut off or no text, or its labels cannot be told apart.
    """

    def __init__(self, path: Path, keys: LabelKeys, units: LabelUnits, *, skip: bool = False) -> None:
        self._path, self._keys, self._units = path, keys, units
        self._text = Text(path, skip=skip)
        with self._text.stream() as stream:
            scan = Scan(stream, path, skip=skip)
            self._index: Index = scan.index()
        self._text.check()
        looked_at = self._examples()
        looked_at += self._contradictions()
        looked_at.sort(key=lambda item: item[0])
        raw = [frame for _, frame in looked_at]
        chosen: Chosen = choose_keys(raw, keys, units, str(path))
        _require_one(raw, chosen, keys, units)
        self._kept: dict[int, Structure] = {}
        self._room = KEPT_BYTES
        self._lock = threading.Lock()
        super().__init__(str(path), chosen, other_names(raw, chosen), (*self._text.notes, *scan.notes()))
        self.units, self.n_left_out = units, scan.n_left_out

    def __len__(self) -> int:
        return len(self._index.starts)

    def __getitem__(self, index: int) -> Structure:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        made = label_structure(self._raw(index), self.chosen, self._keys, self._units)
        size = int(self._index.lengths[index])
        with self._lock:
            if size <= self._room and index not in self._kept:
                self._room -= size
                self._kept[index] = made
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "_room": KEPT_BYTES, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._lock = threading.Lock()

    def _raw(self, index: int) -> RawFrame:
        start, length = int(self._index.starts[index]), int(self._index.lengths[index])
        text = self._text.part(start, length).decode().replace("\r\n", "\n")
        lines = text.removesuffix("\n").split("\n")
        return parse_frame(
            lines, int(self._index.counts[index]), f"{self._path.name}: frame {self._index.numbers[index]}"
        )

    def _examples(self) -> list[tuple[int, RawFrame]]:
        """The first frame of each set of names; of frames that cannot be read, the reader of the frame is told."""
        found: list[tuple[int, RawFrame]] = []
        for group in range(len(self._index.names)):
            for place in np.flatnonzero(self._index.group == group)[:TRIED].tolist():
                try:
                    found.append((place, self._raw(place)))
                    break
                except DataError:
                    continue
        return found

    def _contradictions(self) -> list[tuple[int, RawFrame]]:
        """The first frame in which two names that may be one label differ: choosing the names will refuse it."""
        for quantity, usual in USUAL_NAMES.items():
            if getattr(self._keys, quantity) != AUTO:
                continue
            several = [len(_usual_in(names, usual)) > 1 for names in self._index.names]
            only = LabelKeys.model_validate({name: AUTO if name == quantity else None for name in _ALL})
            for place in np.flatnonzero(np.array(several)[self._index.group]).tolist():
                raw = self._raw(place)
                try:
                    choose_keys([raw], only, self._units, str(self._path))
                except DataError:
                    return [(place, raw)]
        return []


def _require_one(frames: Sequence[RawFrame], chosen: Chosen, keys: LabelKeys, units: LabelUnits) -> None:
    """Raise the error of the first frame if none of them can be used: then the settings are wrong, not a frame."""
    first: DataError | None = None
    for raw in frames:
        try:
            label_structure(raw, chosen, keys, units)
            return
        except DataError as error:
            first = first or error
    if first is not None:
        raise first


_ALL = tuple(name for name in LabelKeys.model_fields if LabelKeys.model_fields[name].default == AUTO)


def _usual_in(names: tuple[frozenset[str], str], usual: tuple[str, ...]) -> set[str]:
    """Names of a frame that may be this label, of the structure or as a column."""
    return {name for name in (*names[0], *names[1].split(":")[::3]) if name.lower() in usual}
