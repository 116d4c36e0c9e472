"""From one format to another, structure by structure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.server_address import server_address, shown
from forgefield.data.writer import Writer

SHOWN, LONGEST = 5, 200  # skipped structures that are told, and characters of each


@dataclass
class Converted:
    """What a conversion did.

    Args:
        n_read: structures of the inputs that were looked at.
        n_written: structures written, also by an earlier, killed conversion that was gone on with.
        continued: how many of the inputs an earlier conversion had done.
        n_skipped: structures that were left out.
        skipped: the first of them, with the reason.
        notes: what the format could not keep.
    """

    n_read: int = 0
    n_written: int = 0
    continued: int = 0
    n_skipped: int = 0
    skipped: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def progress(self) -> dict[str, Any]:
        """Return what must be known to go on."""
        return {"read": self.n_read, "written": self.n_written, "n_skipped": self.n_skipped, "skipped": self.skipped}


def convert(
    dataset: Dataset,
    writer: Writer,
    job: str,
    *,
    skip: bool | np.ndarray = False,
    tell: Callable[[int], None] = lambda _: None,
) -> Converted:
    """Write all structures of a data set; one is in memory at a time.

    A conversion that is interrupted or killed goes on where it was if the format can (see `Writer.take_up`).

    Args:
        dataset: what is written.
        writer: where to.
        job: stands for the inputs, see `job_of`.
        skip: leave out structures that cannot be read or written, and count them; one answer for each part of the
            data set, (parts,), or for all.
        tell: called with the number of structures done.

    Raises:
        DataError: a structure is wrong and `skip` is false, or all of them are.
    """
    of_part, parts = np.broadcast_to(skip, len(dataset.parts)), dataset.part_numbers()
    try:
        before = writer.take_up(job)
        done = Converted(before.get("read", 0), before.get("written", 0), before.get("read", 0))
        done.n_skipped, done.skipped = before.get("n_skipped", 0), list(before.get("skipped", ()))
        for index in range(done.continued, len(dataset)):
            _one(dataset, index, writer, done, bool(of_part[parts[index]]))
            tell(done.n_read)
        if not done.n_written:
            first = f"; the first: {done.skipped[0]}" if done.skipped else ""
            raise DataError(f"none of {len(dataset)} structures can be converted{first}", dataset.name)
        done.notes = writer.finish()
    except KeyboardInterrupt:
        writer.pause()
        raise
    except BaseException:
        writer.abandon()
        raise
    return done


def _one(dataset: Dataset, index: int, writer: Writer, done: Converted, skip: bool) -> None:
    written = done.n_written
    try:
        structure = dataset[index]
        done.n_read, done.n_written = index + 1, written + 1
        writer.keep(done.progress())
        writer.add(structure)
    except DataError as error:
        if not skip:
            raise
        done.n_read, done.n_written = index + 1, written
        done.n_skipped += 1
        if len(done.skipped) < SHOWN:
            done.skipped.append(str(error)[:LONGEST])
        writer.keep(done.progress())


def job_of(paths: Sequence[Path], settings: Any) -> str:
    """Return what stands for the inputs and how they are read; it changes when a file does."""
    files: list[Any] = []
    for path in paths:
        if server_address(path) is not None:
            files.append(shown(path))  # what a server holds cannot be looked at so
            continue
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            found = file.stat()
            files.append([str(file.resolve()), found.st_size, found.st_mtime_ns])
    text = json.dumps([files, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
