"""Structures and their pairs -> one Graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.graph.pairs import Pairs, find_pairs
from forgefield.graph.pieces import Piece, fill_table, make_piece

_NUMPY: dict[torch.dtype, type[np.floating]] = {torch.float32: np.float32, torch.float64: np.float64}


def build_graph(
    structures: Sequence[Structure],
    needs: Needs,
    *,
    heads: Sequence[str] = ("default",),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    pairs: Sequence[Pairs | Piece] | None = None,
) -> Graph:
    """Join structures into one graph.

    Args:
        structures: one or more structures.
        needs: what the architecture asks for.
        heads: the model's heads; a structure's `head` picks one, None means the first.
        dtype: of the floating tensors.
        device: where the tensors go.
        pairs: pairs found before, one set per structure; as pieces they cost least.

    Raises:
        DataError: a structure names a head that the model has not.
    """
    if pairs is None:
        pairs = [find_pairs(s, needs.cutoff) for s in structures]
    pieces = [p if isinstance(p, Piece) else make_piece(p, len(s)) for p, s in zip(pairs, structures, strict=True)]
    sizes = np.array([len(s) for s in structures])
    numbers = np.concatenate([s.numbers for s in structures])
    order = np.argsort(numbers, kind="stable")
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    offset = np.repeat(np.cumsum(sizes) - sizes, [len(p.first) for p in pieces])
    first = inverse[np.concatenate([p.first for p in pieces]) + offset]
    second = inverse[np.concatenate([p.second for p in pieces]) + offset]
    shift = np.concatenate([_translations(p, s) for p, s in zip(pieces, structures, strict=True)])
    table = fill_table(pieces, first, second, len(numbers), _NUMPY.get(dtype, np.float64))
    integers = {
        "numbers": numbers[order],
        "structure": np.repeat(np.arange(len(structures)), sizes)[order],
        "order": order,
        "inverse": inverse,
        "head": np.array([_head_index(s, heads) for s in structures]),
        "pair_first": first,
        "pair_second": second,
        "far_first": np.zeros(0, np.int64),
        "far_second": np.zeros(0, np.int64),
    }
    floats = {
        "positions": np.concatenate([s.positions for s in structures])[order],
        "cell": np.stack([s.cell for s in structures]),
        "pair_shift": shift.reshape(-1, 3),
        "charge": np.array([0.0 if s.charge is None else s.charge for s in structures]),
        "multiplicity": np.array([1.0 if s.multiplicity is None else s.multiplicity for s in structures]),
        "far_shift": np.zeros((0, 3)),
        "table_sign": table.pop("table_sign"),
    }
    tensors = {k: torch.as_tensor(v, device=device) for k, v in {**integers, **table}.items()}
    tensors |= {k: torch.as_tensor(v, dtype=dtype, device=device) for k, v in floats.items()}
    return Graph(pbc=torch.as_tensor(np.stack([s.pbc for s in structures]), device=device), **tensors)


def _head_index(structure: Structure, heads: Sequence[str]) -> int:
    if structure.head is None or (len(heads) == 1 and structure.head == heads[0]):
        return 0
    if structure.head not in heads:
        raise DataError(f"head {structure.head!r} is not in the model", structure.origin, "heads: " + ", ".join(heads))
    return list(heads).index(structure.head)


def _translations(piece: Piece, structure: Structure) -> np.ndarray:
    """What is added to the second atom of each pair, (P, 3), Å."""
    return piece.shift @ structure.cell if structure.pbc.any() else np.zeros(piece.shift.shape)
