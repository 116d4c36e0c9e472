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


def build_graph(
    structures: Sequence[Structure],
    needs: Needs,
    *,
    heads: Sequence[str] = ("default",),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    pairs: Sequence[Pairs] | None = None,
) -> Graph:
    """Join structures into one graph.

    Args:
        structures: one or more structures.
        needs: what the architecture asks for.
        heads: the model's heads; a structure's `head` picks one, None means the first.
        dtype: of the floating tensors.
        device: where the tensors go.
        pairs: pairs found before, one set per structure.

    Raises:
        DataError: a structure names a head that the model has not.
    """
    if pairs is None:
        pairs = [find_pairs(s, needs.cutoff) for s in structures]
    sizes = np.array([len(s) for s in structures])
    start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    numbers = np.concatenate([s.numbers for s in structures])
    order = np.argsort(numbers, kind="stable")
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    first = inverse[np.concatenate([p.first + o for p, o in zip(pairs, start, strict=True)]).astype(np.int64)]
    second = inverse[np.concatenate([p.second + o for p, o in zip(pairs, start, strict=True)]).astype(np.int64)]
    shift = np.concatenate([p.shift @ s.cell for p, s in zip(pairs, structures, strict=True)])
    table = _neighbour_table(first, second, len(numbers))
    integers = {
        "numbers": numbers[order],
        "structure": np.repeat(np.arange(len(structures)), sizes)[order],
        "order": order,
        "inverse": inverse,
        "head": np.array([_head_index(s, heads) for s in structures]),
        "pair_first": first,
        "pair_second": second,
    }
    floats = {
        "positions": np.concatenate([s.positions for s in structures])[order],
        "cell": np.stack([s.cell for s in structures]),
        "pair_shift": shift.reshape(-1, 3),
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


def _neighbour_table(first: np.ndarray, second: np.ndarray, n_atoms: int) -> dict[str, np.ndarray]:
    """Padded table of directed edges by receiver, with the slots of each pair and of each reverse edge."""
    n_pairs = len(first)
    receiver = np.concatenate([second, first])
    degree = np.bincount(receiver, minlength=n_atoms)
    width = int(degree.max()) if n_pairs else 0
    by_receiver = np.argsort(receiver, kind="stable")
    rank = np.empty(2 * n_pairs, dtype=np.int64)
    rank[by_receiver] = np.arange(2 * n_pairs) - np.repeat(np.cumsum(degree) - degree, degree)
    slot = receiver * width + rank
    forward, backward = slot[:n_pairs], slot[n_pairs:]
    sender, pair = np.zeros(n_atoms * width, np.int64), np.zeros(n_atoms * width, np.int64)
    sign, reverse = np.zeros(n_atoms * width), np.arange(n_atoms * width)
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
