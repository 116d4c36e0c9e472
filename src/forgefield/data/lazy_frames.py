"""Structures that are decoded when they are asked for: what all lazy formats share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.label_names import AUTO
from forgefield.data.label_units import LabelUnits
from forgefield.data.labelling import ATOM_NAMES, USUAL_NAMES, Chosen, choose_keys, label_structure, other_names
from forgefield.data.looked_at import frames_looked_at
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import Frames, ReaderSettings
from forgefield.data.server_address import shown

LOOKED_AT = 32  # frames that decide which names hold the labels

Declare = Callable[[Chosen, Sequence[RawFrame]], LabelUnits]
"""From the chosen names and the frames looked at to the units, those that the file declares included."""


class LazyFrames(Frames):
    """Frames that a subclass decodes one by one; some of them, spread over the source, decide the names of labels.

    Args:
        path: the file or folder.
        count: number of frames.
        settings: of the reader.
        notes: what the user should know about the source.
        declare: settles the units once the names are known; None: those of the settings.
        usual: further usual names of this format, by quantity.
    """

    def __init__(
        self,
        path: Path,
        count: int,
        settings: ReaderSettings,
        notes: Sequence[str] = (),
        declare: Declare | None = None,
        usual: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        source = shown(path)
        if count < 1:
            raise DataError("holds no structures", source, "give a source with at least one")
        self._count, self._settings, self._usual = count, settings, dict(usual or {})
        self._unread: set[str] = set()  # quantities that `declare` has decided not to read
        places = np.unique(np.linspace(0, count - 1, LOOKED_AT).astype(int)).tolist()
        sample = frames_looked_at(self.raw, places, count, settings.on_error == "skip")
        chosen = choose_keys(sample, settings.keys, settings.units, source, self._usual)
        self._units = settings.units if declare is None else declare(chosen, sample)
        super().__init__(source, chosen, other_names(sample, chosen), notes)
        self.units = self._units

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Structure:
        raw = self.raw(index)
        self._check_names(raw)
        return label_structure(raw, self.chosen, self._settings.keys, self._units)

    @abstractmethod
    def raw(self, index: int) -> RawFrame:
        """Return a frame as the file has it.

        Raises:
            DataError: it is damaged.
        """

    def _check_names(self, raw: RawFrame) -> None:
        """Refuse a frame whose labels have another name than those looked at when the source was opened."""
        for quantity in USUAL_NAMES:
            name = self.chosen[quantity]
            if quantity in self._unread:
                continue
            table = raw.arrays if quantity in ATOM_NAMES else raw.values
            if getattr(self._settings.keys, quantity) != AUTO or (name is not None and name in table):
                continue
            usual = (*USUAL_NAMES[quantity], *self._usual.get(quantity, ()))
            other = next((n for n in table if n.lower() in usual), None)
            if other is not None:
                raise DataError(
                    f"has {quantity} under {other!r}, the frames looked at first under {name!r}",
                    raw.origin,
                    f"set data.{quantity}_key to {other!r}, or repair the frames",
                )
