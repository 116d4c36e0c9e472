"""Structures and their pairs -> one Graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.graph.electrons import check_electrons, join_charges
from forgefield.graph.features import join_features
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.graph.pairs import Pairs
from forgefield.graph.pieces import Piece, add_triplets, fill_table, find_piece, make_piece
from forgefield.graph.triplets import join_triplets

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
        dtype: of the model; positions and shifts of pairs are float64 always.
        device: where the tensors go.
        pairs: pairs found before, one set per structure; as pieces they cost least. Where `needs` ask for far pairs,
            pieces must hold them.

    Raises:
        DataError: a structure names a head that the model has not, or lacks a charge, multiplicity or feature that it
            needs.
    """
    if pairs is None:
        pairs = [find_piece(s, needs) for s in structures]
    pieces = [p if isinstance(p, Piece) else make_piece(p, len(s)) for p, s in zip(pairs, structures, strict=True)]
    pieces = [add_triplets(p, s, needs) for p, s in zip(pieces, structures, strict=True)]
    check_electrons(structures, needs)
    sizes = np.array([len(s) for s in structures])
    numbers = np.concatenate([s.numbers for s in structures])
    head = np.array([head_index(s, heads) for s in structures])
    key = numbers * len(heads) + np.repeat(head, sizes) if needs.by_head else numbers
    order = np.argsort(key, kind="stable")
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
        "head": head,
        "pair_first": first,
        "pair_second": second,
    }
    doubles = {
        "positions": np.concatenate([s.positions for s in structures])[order],
        "pair_shift": shift.reshape(-1, 3),
    }
    floats = {
        "cell": np.stack([s.cell for s in structures]),
        "table_sign": table.pop("table_sign"),
        "charge": np.array([s.charge or 0.0 for s in structures]),
        "multiplicity": np.array([s.multiplicity or 1 for s in structures]),
        "features": join_features(structures, needs),
        "atom_charges": join_charges(structures)[order] if needs.atom_charges else np.zeros(0),
    }
    found = [p.triplets for p in pieces if p.triplets is not None]
    triplets = join_triplets(found, [len(p.first) for p in pieces if p.triplets is not None])
    floats["triplet_filled"] = np.ones(len(triplets["triplet_leaving"]))
    more = {**_far_pairs(pieces, structures, inverse, sizes), **triplets}
    tensors = {k: torch.as_tensor(v, device=device) for k, v in {**integers, **table, **doubles, **more}.items()}
    tensors |= {k: torch.as_tensor(v, dtype=dtype, device=device) for k, v in floats.items()}
    return Graph(pbc=torch.as_tensor(np.stack([s.pbc for s in structures]), device=device), **tensors)


def head_index(structure: Structure, heads: Sequence[str]) -> int:
    """Return the place of the head that a structure belongs to: the one it names, or the first.

    Raises:
        DataError: the model does not have it.
    """
    level = structure.level
    if level is None or (len(heads) == 1 and level == heads[0]):
        return 0
    if level not in heads:
        raise DataError(f"head {level!r} is not in the model", structure.origin, "heads: " + ", ".join(heads))
    return list(heads).index(level)


def _far_pairs(
    pieces: Sequence[Piece], structures: Sequence[Structure], inverse: np.ndarray, sizes: np.ndarray
) -> dict[str, np.ndarray]:
    """Join the far pairs of all structures."""
    found = [p.far for p in pieces if p.far is not None]
    if not found:
        empty = np.zeros(0, np.int64)
        return {"far_first": empty, "far_second": empty, "far_shift": np.zeros((0, 3))}
    offset = np.repeat(np.cumsum(sizes) - sizes, [len(p.first) for p in found])
    shifts = [_translations(p, s) for p, s in zip(found, structures, strict=True)]
    return {
        "far_first": inverse[np.concatenate([p.first for p in found]) + offset],
        "far_second": inverse[np.concatenate([p.second for p in found]) + offset],
        "far_shift": np.concatenate(shifts).reshape(-1, 3),
    }


def _translations(piece: Piece | Pairs, structure: Structure) -> np.ndarray:
    """What is added to the second atom of each pair, (P, 3), Å."""
    return piece.shift @ structure.cell if structure.pbc.any() else np.zeros(piece.shift.shape)
