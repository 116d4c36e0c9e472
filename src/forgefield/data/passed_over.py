"""What of a source cannot be opened and is left out (on_error: skip), counted and told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.reader import Frames

SHOWN = 5
Part = TypeVar("Part")
Opened = TypeVar("Opened")


def told(what: str, reasons: Sequence[str]) -> str:
    """Return one line: what is left out, and the first reasons.

    Args:
        what: "2 of 5 shards are".
        reasons: messages of the errors.
    """
    listing = "; ".join(reasons[:SHOWN]) + ("; ..." if len(reasons) > SHOWN else "")
    return f"{what} left out (on_error: skip): {listing}"


def bare(error: DataError) -> DataError:
    """Return the same error without its traceback, which would keep open what it was raised about."""
    return DataError(error.what, error.where, error.fix)


def open_each(
    parts: Iterable[Part], open_one: Callable[[Part], Opened], what: str, *, skip: bool
) -> tuple[list[Opened], list[str]]:
    """Open the parts of a source one by one.

    Args:
        parts: files, sets or lines.
        open_one: opens one.
        what: they are called, in the plural.
        skip: leave out those that cannot be opened.

    Returns:
        What was opened, and a note on what was left out, if anything was.

    Raises:
        DataError: one cannot be opened; with `skip`, none can.
    """
    good, bad = list[Opened](), list[DataError]()
    for part in parts:
        try:
            good.append(open_one(part))
        except DataError as error:
            if not skip:
                raise
            bad.append(bare(error))
    if bad and not good:
        raise bare(bad[0])
    are = "is" if len(bad) == 1 else "are"
    notes = [told(f"{len(bad)} of {len(bad) + len(good)} {what} {are}", list(map(str, bad)))] if bad else []
    return good, notes


class Unopened(Frames):
    """A source that cannot be opened: no structures, and a note.

    Args:
        source: the file or folder.
        error: why.
    """

    def __init__(self, source: str, error: DataError) -> None:
        self.error = bare(error)
        super().__init__(source, {}, (), [told("the whole source is", [str(error)])])

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Structure:
        raise IndexError(index)
