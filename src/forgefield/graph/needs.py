"""What a model asks of the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Electrons = Literal["charge", "multiplicity"]


@dataclass(frozen=True)
class Needs:
    """The graph a model is fed.

    Args:
        cutoff: neighbours up to this distance, Å.
        far_cutoff: a second list of pairs, at least up to this distance, for physics terms, Å; 0: none; infinity: all
            pairs of a molecule.
        electrons: what every structure must state: total charge, spin multiplicity.
        by_head: atoms are sorted by element and head, for models that keep an element of two heads apart.
        features: names and widths of further inputs of a structure, in the order of their columns in the graph.
        smooth: the energy changes smoothly where a neighbour comes or goes.
    """

    cutoff: float
    far_cutoff: float = 0.0
    electrons: tuple[Electrons, ...] = ()
    by_head: bool = False
    features: tuple[tuple[str, int], ...] = ()
    smooth: bool = True

    def reaching(self, far_cutoff: float) -> Needs:
        """Return the same with far pairs up to this distance at least, Å."""
        return replace(self, far_cutoff=max(self.far_cutoff, far_cutoff))
