"""What a model asks of the graph."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Electrons = Literal["charge", "multiplicity"]
Duplicates = Literal["none", "own_images", "mutual"]


@dataclass(frozen=True)
class Needs:
    """The graph a model is fed.

    Args:
        cutoff: neighbours up to this distance, Å.
        far_cutoff: a second list of pairs, at least up to this distance, for physics terms, Å; 0: none; infinity: all
            pairs of a molecule.
        electrons: what every structure must state: total charge, spin multiplicity.
        by_head: atoms are sorted by element and head, for models that keep an element of two heads apart.
        atom_charges: every structure must state the charges of its atoms.
        features: names and widths of further inputs of a structure, in the order of their columns in the graph.
        nearest: pairs are not those within the cutoff, but an atom and its so many nearest neighbours, with all others
            that are as near as the last of them; 0: those within the cutoff.
        duplicates: which of the nearest neighbours' pairs stand twice: none; those of an atom and its own image; those
            whose atoms are both among the other's nearest.
        extra_cutoff: while an atom has no neighbour, the cutoff of its structure grows by so much, Å; 0: it does not.
        own_images: whether pairs of an atom and its own image count.
        triplets: pairs of neighbours of one atom, both closer than this, Å; 0: none are listed.
        backtracking: whether a neighbour paired with itself is a triplet.
        opposite: triplets whose outer atoms are farther from each other than this, Å, are left out.
        smooth: the energy changes smoothly where a neighbour comes or goes.
    """

    cutoff: float
    far_cutoff: float = 0.0
    electrons: tuple[Electrons, ...] = ()
    by_head: bool = False
    atom_charges: bool = False
    features: tuple[tuple[str, int], ...] = ()
    nearest: int = 0
    duplicates: Duplicates = "none"
    extra_cutoff: float = 0.0
    own_images: bool = True
    triplets: float = 0.0
    backtracking: bool = True
    opposite: float = math.inf
    smooth: bool = True

    @property
    def within_cutoff(self) -> bool:
        """Whether pairs are all those within the cutoff: what programs give to exported files."""
        return not self.nearest and not self.extra_cutoff and self.own_images

    @property
    def by_distance(self) -> bool:
        """Whether distances alone say which pairs and triplets there are: a list made with a margin can be kept."""
        return self.within_cutoff and not (self.triplets and math.isfinite(self.opposite))

    def reaching(self, far_cutoff: float) -> Needs:
        """Return the same with far pairs up to this distance at least, Å."""
        return replace(self, far_cutoff=max(self.far_cutoff, far_cutoff))
