"""What every file format offers, and the settings that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from forgefield.core.settings import Settings
from forgefield.core.structure import Structure
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits
from forgefield.data.survey import Survey, survey


class ReaderSettings(Settings):
    """Settings that every format has."""

    keys: LabelKeys = Field(default=LabelKeys(), description="Names of the labels in the file.")
    units: LabelUnits = Field(default=LabelUnits(), description="Units and signs of the file.")
    select: str | None = Field(
        default=None, description="Which records of a database are read, in its own words: 'status=completed'."
    )
    on_error: Literal["raise", "skip"] = Field(
        default="raise", description="Whether the source opens although some of its frames or files cannot be read."
    )


class Frames(ABC):
    """The structures of one source, in their order.

    `units` are those it is read by, where its file or format declares some. `own_split` are the parts that it brings
    along: name -> places, (m,). `n_left_out` structures were left out when it was opened (on_error: skip), which a note
    tells too.

    Args:
        source: the file or folder, for messages.
        chosen: the key that each label was read from; None = that label is not in the file.
        others: further names in the file that a label might have been meant to have.
        notes: what the user should know about this source.
    """

    units: LabelUnits | None = None
    own_split: Mapping[str, np.ndarray] | None = None
    n_left_out: int = 0
    _surveyed: Survey | None = None

    def __init__(
        self,
        source: str,
        chosen: dict[str, str | None],
        others: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.source, self.chosen = source, dict(chosen)
        self.others, self.notes = tuple(others), tuple(notes)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Structure: ...

    @property
    def fingerprint(self) -> str | None:
        """`Dataset.fingerprint` of all structures, where the source keeps it; else None."""
        return None

    def survey(self) -> Survey:
        """Return kinds and sizes of all structures: kept after one pass over them, or known without."""
        if self._surveyed is None:
            self._surveyed = survey(self[i] for i in range(len(self)))
        return self._surveyed


class ListFrames(Frames):
    """Structures that are all in memory."""

    def __init__(
        self,
        structures: Sequence[Structure],
        source: str = "memory",
        chosen: dict[str, str | None] | None = None,
        others: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(source, chosen or {}, others, notes)
        self._structures = list(structures)

    def __len__(self) -> int:
        return len(self._structures)

    def __getitem__(self, index: int) -> Structure:
        return self._structures[index]


class Reader(ABC):
    """One file format; `selects` says whether it can choose records by the setting `select`."""

    selects: ClassVar[bool] = False

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Return whether the contents of `path` (not its name) look like this format."""

    @abstractmethod
    def open(self, path: Path) -> Frames:
        """Return the structures of a file or folder.

        Raises:
            DataError: it is empty, damaged, or its labels cannot be told apart.
        """
