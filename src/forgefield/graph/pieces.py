"""What of a graph follows from one structure alone, found once and joined in every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forgefield.core.structure import Structure
from forgefield.graph.nearest import find_neighbours
from forgefield.graph.needs import Needs
from forgefield.graph.pairs import Pairs, find_far_pairs
from forgefield.graph.triplets import Triplets, find_triplets


class Piece(NamedTuple):
    """The pairs of one structure, and the place of each of their two edges among those of its receiver.

    The edges of a receiver are numbered from 0: first those to a pair's second atom, then those to its first, in the
    order of the pairs. The atoms' order in a batch changes neither these numbers nor the largest count.
    """

    first: np.ndarray  # (P,), int32
    second: np.ndarray  # (P,), int32
    shift: np.ndarray  # (P, 3), int32: lattice translations of the second atom
    rank_forward: np.ndarray  # (P,), int32: of the edge to the second atom
    rank_backward: np.ndarray  # (P,), int32: of the edge to the first atom
    width: int  # largest number of neighbours
    far: Pairs | None = None  # far pairs, where a model asks for them
    triplets: Triplets | None = None  # pairs of edges at an atom, where a model asks for them

    @property
    def n_bytes(self) -> int:
        """Memory of the arrays."""
        arrays = [a for a in (*self, *(self.far or ()), *(self.triplets or ())) if isinstance(a, np.ndarray)]
        return sum(a.nbytes for a in arrays)


def find_piece(structure: Structure, needs: Needs) -> Piece:
    """Find all pairs and triplets of a structure that a model asks for.

    Raises:
        DataError: all pairs are asked for, and the structure is periodic; or there are too few neighbours.
    """
    piece = add_triplets(make_piece(find_neighbours(structure, needs), len(structure)), structure, needs)
    return piece._replace(far=find_far_pairs(structure, needs.far_cutoff)) if needs.far_cutoff else piece


def add_triplets(piece: Piece, structure: Structure, needs: Needs) -> Piece:
    """Add the triplets that a model asks for, unless they are there."""
    if not needs.triplets or piece.triplets is not None:
        return piece
    return piece._replace(triplets=find_triplets(piece.first, piece.second, piece.shift, structure, needs))


def make_piece(pairs: Pairs, n_atoms: int) -> Piece:
    """Number the edges of each receiver.

    Args:
        pairs: of one structure.
        n_atoms: its atoms.
    """
    n_pairs = len(pairs.first)
    receiver = np.concatenate([pairs.second, pairs.first])
    degree = np.bincount(receiver, minlength=n_atoms)
    by_receiver = np.argsort(receiver, kind="stable")
    rank = np.empty(2 * n_pairs, dtype=np.int32)
    rank[by_receiver] = np.arange(2 * n_pairs) - np.repeat(np.cumsum(degree) - degree, degree)
    return Piece(*pairs, rank[:n_pairs], rank[n_pairs:], int(degree.max()) if n_pairs else 0)


def fill_table(
    pieces: Sequence[Piece], first: np.ndarray, second: np.ndarray, n_atoms: int, dtype: type[np.floating]
) -> dict[str, np.ndarray]:
    """Lay out the padded table of directed edges by receiver, with the slots of each pair and of each reverse edge.

    Args:
        pieces: of the structures of a batch.
        first: first atoms of all pairs, as numbered in the batch, (P,).
        second: second atoms, (P,).
        n_atoms: atoms of the batch.
        dtype: of the signs.
    """
    n_pairs, width = len(first), max(piece.width for piece in pieces)
    forward = second * width + np.concatenate([piece.rank_forward for piece in pieces])
    backward = first * width + np.concatenate([piece.rank_backward for piece in pieces])
    sender, pair = np.zeros((2, n_atoms * width), np.int64)
    sign, reverse = np.zeros(n_atoms * width, dtype), np.arange(n_atoms * width)
    sender[forward], sender[backward] = first, second
    pair[forward] = pair[backward] = np.arange(n_pairs)
    sign[forward], sign[backward] = 1.0, -1.0
    reverse[forward], reverse[backward] = backward, forward
    shape = (n_atoms, width)
    return {
        "table_sender": sender.reshape(shape),
        "table_pair": pair.reshape(shape),
        "table_sign": sign.reshape(shape),
        "reverse": reverse,
        "slot_forward": forward,
        "slot_backward": backward,
    }
