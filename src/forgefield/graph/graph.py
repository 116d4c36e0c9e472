"""The graph of a batch of structures: plain tensors only."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Graph(NamedTuple):
    """Atoms sorted by atomic number over the whole batch, pairs, and the neighbour table by receiver.

    An undirected pair appears once; its vector is `x[second] + shift - x[first]`. Each pair fills two slots of
    the table: one at its second atom (sign +1, the sender is its first) and one at its first (sign -1).
    Empty slots have sign 0, pair 0, sender 0, and are their own reverse.

    Far pairs are a second list, of physics terms that reach beyond the cutoff. It holds the near pairs too, and may
    hold pairs beyond the far cutoff: each term cuts by itself. Models that keep an element of two heads apart get atoms
    sorted by head within each element.

    Triplets are pairs of edges that meet at an atom, as numbers of directed edges: edge p runs from first to second
    atom of pair p, edge P + p back. They may hold edges beyond the cutoff of triplets: models cut by themselves.
    """

    positions: Tensor  # (N, 3), Å, float64 whatever the model's precision: their differences must keep its digits
    numbers: Tensor  # (N,), ascending
    structure: Tensor  # (N,), index of the structure
    order: Tensor  # (N,), sorted row -> original row
    inverse: Tensor  # (N,), original row -> sorted row
    cell: Tensor  # (S, 3, 3), Å
    pbc: Tensor  # (S, 3), bool
    head: Tensor  # (S,), index of the head
    pair_first: Tensor  # (P,)
    pair_second: Tensor  # (P,)
    pair_shift: Tensor  # (P, 3), Å, float64 as positions
    table_sender: Tensor  # (N, K)
    table_pair: Tensor  # (N, K)
    table_sign: Tensor  # (N, K), float
    reverse: Tensor  # (N * K,), slot of the opposite edge
    slot_forward: Tensor  # (P,), slot at the second atom
    slot_backward: Tensor  # (P,), slot at the first atom
    charge: Tensor  # (S,), total charge, e; 0 where it is not stated
    multiplicity: Tensor  # (S,), 2S + 1; 1 where it is not stated
    far_first: Tensor  # (F,)
    far_second: Tensor  # (F,)
    far_shift: Tensor  # (F, 3), Å, float64
    features: Tensor  # (S, X), further inputs of the structures, in the order of `Needs.features`
    triplet_entering: Tensor  # (T,), edge u -> v
    triplet_leaving: Tensor  # (T,), edge v -> w
    triplet_angle: Tensor  # (T,), number of the angle: u -> v -> w and w -> v -> u have the same one
    angle_triplet: Tensor  # (A,), a triplet with each angle
    triplet_filled: Tensor  # (T,), 1, or 0 for padding, which exported models have
    atom_charges: Tensor  # (N,), charges that come with the structures, e; (0,) where no term asks for them

    @property
    def n_atoms(self) -> int:
        """Atoms in the batch."""
        return self.positions.shape[0]

    @property
    def n_structures(self) -> int:
        """Structures in the batch."""
        return self.cell.shape[0]

    def pair_vectors(self) -> Tensor:
        """Vector of each pair, first to second, (P, 3), Å, subtracted in float64, then rounded to the model's type."""
        second = self.positions.index_select(0, self.pair_second)
        vectors = second - self.positions.index_select(0, self.pair_first) + self.pair_shift
        return vectors.to(self.table_sign.dtype)

    def far_vectors(self) -> Tensor:
        """Vector of each far pair, first to second, (F, 3), Å, as `pair_vectors`."""
        second = self.positions.index_select(0, self.far_second)
        vectors = second - self.positions.index_select(0, self.far_first) + self.far_shift
        return vectors.to(self.table_sign.dtype)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Graph:
        """Copy to a device; `dtype` is that of the model: positions and shifts keep theirs."""
        moved = Graph(*(t.to(device=device) for t in self))
        if dtype is None:
            return moved
        of_model = ("cell", "table_sign", "charge", "multiplicity", "features", "triplet_filled", "atom_charges")
        return moved._replace(**{name: getattr(moved, name).to(dtype) for name in of_model})
