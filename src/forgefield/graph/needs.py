"""What an architecture asks of the graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """The graph an architecture is fed.

    Args:
        cutoff: neighbours up to this distance, Å.
    """

    cutoff: float
    far_cutoff: float = 0.0
    electrons: tuple[str, ...] = ()
    by_head: bool = False
