"""The sources of a data set: files with names, units and marks of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, model_serializer

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset, open_frames
from forgefield.data.passed_over import Unopened, bare, told
from forgefield.data.reader import Frames
from forgefield.data.reading import Reading
from forgefield.data.survey import Survey
from forgefield.data.survey import survey as make_survey


class Source(Reading):
    """A file or folder that is read in its own way: what is not given here is as in the `data` block."""

    path: Path = Field(description="The file or folder.")
    fidelity: str | None = Field(
        default=None, description="Level of theory of all its labels, in place of one the file names."
    )
    head: str | None = Field(default=None, description="Model head that all its frames train.")
    weight: float = Field(default=1.0, ge=0.0, description="Factor on the weight of its frames in the loss.")
    sampling_weight: float | None = Field(
        default=None,
        gt=0.0,
        description="How often its frames are drawn, relative to the other sources: the share of all draws is this by "
        "the sum of all; a source that gives none counts 1. Only for training data; it leaves the loss alone.",
    )

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @model_serializer(mode="plain")
    def _as_written(self) -> dict[str, Any]:
        """Keep what was given alone, so that the rest goes on following the `data` block."""
        plain: dict[str, Any] = {}
        for name in type(self).model_fields:
            if name in self.model_fields_set:
                value = getattr(self, name)
                plain[name] = str(value) if isinstance(value, Path) else value
        return plain

    def within(self, block: Reading) -> Reading:
        """Return how it is read: its own settings, else those of the block."""
        mine = {name: getattr(self, name) for name in Reading.model_fields if name in self.model_fields_set}
        return Reading(**{name: getattr(block, name) for name in Reading.model_fields} | mine)


def _as_sources(value: Any) -> Any:
    if value is None:
        return ()
    if isinstance(value, (str, Path, dict, Source)):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Sources = Annotated[
    tuple[Path | Source, ...],
    BeforeValidator(_as_sources, json_schema_input_type=str | Source | list[str | Source] | None),
]
"""Paths, or mappings with a path and settings of their own."""


def open_sources(sources: Sequence[Path | Source], block: Reading, *, screened: bool = True) -> Dataset:
    """Open files and folders, each as it or the block says, as one data set.

    With `on_error: skip` what cannot be read is left out, up to whole sources, and told in the notes of the data set;
    each source is a part of it all the same. A source that does not exist is an error always.

    Args:
        sources: files and folders, or how each is read.
        block: how those are read that do not say it.
        screened: with `on_error: skip`, read every structure once and leave out those that raise an error. False: who
            reads them does so.

    Raises:
        DataError: one is missing, empty, damaged or of unknown format; with `on_error: skip`, all are.
    """
    if not sources:
        raise DataError("no data were given", fix="name at least one file")
    parts = [_opened(source, block, screened) for source in sources]
    failed = [part for part in parts if isinstance(part, Unopened)]
    if failed and not any(map(len, parts)):
        if len(parts) == 1:
            raise bare(failed[0].error)
        what = f"none of {len(parts)} sources can be opened; the first: {failed[0].error}"
        raise DataError(what, ", ".join(part.source for part in parts))
    return Dataset(parts)


def skipped_parts(sources: Sequence[Path | Source], block: Reading) -> np.ndarray:
    """Return for each source whether structures of it that cannot be used are left out, (sources,)."""
    each = [source.within(block) if isinstance(source, Source) else block for source in sources]
    return np.array([reading.on_error == "skip" for reading in each])


def _opened(source: Path | Source, block: Reading, screened: bool) -> Frames:
    reading = source.within(block) if isinstance(source, Source) else block
    try:
        return _open(source, reading, screened)
    except DataError as error:
        if reading.on_error != "skip" or not Path(source).exists():
            raise
        return Unopened(str(source), error)


def _open(source: Path | Source, reading: Reading, screened: bool) -> Frames:
    frames = open_frames(Path(source), reading.format, reading.keys, reading.units, reading.select, reading.on_error)
    if reading.on_error == "skip" and screened:
        frames = Screened(frames)
    marks = {"charge": reading.charge, "multiplicity": reading.multiplicity}
    if isinstance(source, Source):
        marks |= {"fidelity": source.fidelity, "head": source.head, "weight": source.weight}
    marks = {name: mark for name, mark in marks.items() if mark is not None and (name, mark) != ("weight", 1.0)}
    return Marked(frames, marks) if marks else frames


FILLED_IN = ("charge", "multiplicity")  # where a structure states none


class Marked(Frames):
    """Structures of one source with the fidelity, head and weight of that source.

    Args:
        frames: the structures.
        marks: fidelity and head in place of those a structure names, a factor on its weight, and the charge and
            multiplicity of those that state none.
    """

    def __init__(self, frames: Frames, marks: Mapping[str, Any]) -> None:
        super().__init__(frames.source, frames.chosen, frames.others, frames.notes)
        self.units, self.own_split, self.n_left_out = frames.units, frames.own_split, frames.n_left_out
        self._frames, self._marks = frames, dict(marks)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Structure:
        structure = self._frames[index]
        marks = {n: v for n, v in self._marks.items() if n not in FILLED_IN or getattr(structure, n) is None}
        return dataclasses.replace(structure, **marks | {"weight": structure.weight * self._marks.get("weight", 1.0)})

    def survey(self) -> Survey:
        """Return what is known of the structures, with the head of this source."""
        found, head, fidelity = self._frames.survey(), self._marks.get("head"), self._marks.get("fidelity")
        if head is None and fidelity is None:
            return found
        if head is None and any(kind.head is not None for kind in found.kinds):
            # A frame's own head goes before the fidelity of its source.
            return make_survey(self[k] for k in range(len(self)))
        return Survey([kind._replace(head=head or fidelity) for kind in found.kinds], found.kind, found.n_atoms)


class Screened(Frames):
    """The structures of a source that can be read: all are read once, and those that raise an error are left out.

    Args:
        frames: the structures.
    """

    def __init__(self, frames: Frames) -> None:
        good, bad = [], []
        for index in range(len(frames)):
            try:
                frames[index]
            except DataError as error:
                bad.append(str(error))
            else:
                good.append(index)
        if not good:
            raise DataError(f"none of {len(frames)} structures can be read; the first: {bad[0]}", frames.source)
        notes = list(frames.notes)
        if bad:
            notes.append(told(f"{len(bad)} of {len(frames)} structures {'is' if len(bad) == 1 else 'are'}", bad))
        super().__init__(frames.source, frames.chosen, frames.others, notes)
        self.units, self.n_left_out = frames.units, frames.n_left_out + len(bad)
        self._frames, self._good = frames, np.array(good, dtype=np.int64)
        if frames.own_split is not None:
            self.own_split = {k: np.flatnonzero(np.isin(self._good, v)) for k, v in frames.own_split.items()}

    def __len__(self) -> int:
        return len(self._good)

    def __getitem__(self, index: int) -> Structure:
        return self._frames[int(self._good[index])]
