"""The frames of a source that decide which names hold its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from forgefield.core.errors import DataError
from forgefield.data.passed_over import bare
from forgefield.data.raw_frame import RawFrame


def frames_looked_at(raw: Callable[[int], RawFrame], places: Iterable[int], count: int, skip: bool) -> list[RawFrame]:
    """Return the frames at these places.

    Args:
        raw: decodes a frame.
        places: those that are looked at.
        count: how many frames the source has.
        skip: pass over frames that cannot be decoded; if all are such, the first other one that can be is returned.

    Raises:
        DataError: one cannot be decoded, or, with `skip`, none of the source can.
    """
    found, first = list[RawFrame](), None
    for place in places:
        try:
            found.append(raw(int(place)))
        except DataError as error:
            if not skip:
                raise
            first = first or bare(error)
    for place in range(count if not found else 0):
        try:
            return [raw(place)]
        except DataError as error:
            first = first or bare(error)
    if first is not None and not found:
        raise bare(first)
    return found
