"""Pairs of a graph divided into groups that lie together in space, so that few atoms have pairs in several."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from forgefield.graph.graph import Graph


class Share(NamedTuple):
    """Some of a graph's pairs and the atoms they join, with a graph of these alone."""

    pairs: Tensor  # (p,), ascending
    atoms: Tensor  # (n,), ascending
    graph: Graph  # rows, senders and pairs are counted within the share; only its table, ends and visiting order are


def divide_pairs(graph: Graph, most: int) -> list[Share]:
    """Divide the pairs of a graph into compact groups.

    Args:
        graph: one batch.
        most: pairs of a group.

    Returns:
        Every pair is in one share; each share has as many pairs as the others, or one more.
    """
    n_pairs = graph.pair_first.shape[0]
    points = _midpoints(graph)
    groups = _split(points, np.arange(n_pairs), -(-n_pairs // most))
    order = np.concatenate(groups)
    owner, place = np.empty((2, n_pairs), np.int64)
    owner[order] = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    place[order] = np.concatenate([np.arange(len(g)) for g in groups])
    device = graph.pair_first.device
    owners, places = (torch.as_tensor(x, device=device) for x in (owner, place))
    return [_share(graph, torch.as_tensor(g, device=device), owners, places, k) for k, g in enumerate(groups)]


def _share(graph: Graph, pairs: Tensor, owner: Tensor, place: Tensor, which: int) -> Share:
    first, second = graph.pair_first.index_select(0, pairs), graph.pair_second.index_select(0, pairs)
    row = torch.zeros(graph.n_atoms, dtype=torch.long, device=pairs.device)
    row[first] = row[second] = 1
    atoms = row.nonzero().squeeze(1)
    row[atoms] = torch.arange(len(atoms), device=pairs.device)
    sender, pair, sign = (t.index_select(0, atoms) for t in (graph.table_sender, graph.table_pair, graph.table_sign))
    inside = (owner[pair] == which) & (sign != 0)
    everyone = torch.arange(len(atoms), device=pairs.device)
    part = graph._replace(
        pair_first=row[first],
        pair_second=row[second],
        table_sender=row[sender] * inside,
        table_pair=place[pair] * inside,
        table_sign=sign * inside,
        inverse=everyone,
    )
    return Share(pairs, atoms, part)


def _midpoints(graph: Graph) -> np.ndarray:
    """Middle of each pair, (P, 4): number of its structure, then Å along each periodic cell vector, or x, y, z."""
    positions, cell, pbc = (t.cpu().numpy() for t in (graph.positions, graph.cell.double(), graph.pbc))
    first, second, shift = (t.cpu().numpy() for t in (graph.pair_first, graph.pair_second, graph.pair_shift))
    structure = graph.structure.cpu().numpy()[first]
    middle = 0.5 * (positions[first] + positions[second] + shift)
    found = np.empty((len(first), 4))
    found[:, 0], found[:, 1:] = structure, middle
    for k in np.flatnonzero(pbc.all(1)):
        mine = structure == k
        fraction = np.linalg.solve(cell[k].T, middle[mine].T).T
        found[mine, 1:] = (fraction - np.floor(fraction)) * np.linalg.norm(cell[k], axis=1)
    return found


def _split(points: np.ndarray, chosen: np.ndarray, count: int) -> list[np.ndarray]:
    """Cut points across their longest side, again and again, into `count` groups; first of all between structures."""
    if count <= 1:
        return [np.sort(chosen)]
    mine = points[chosen]
    extent = np.ptp(mine, axis=0)
    axis = 0 if extent[0] else 1 + int(np.argmax(extent[1:]))
    left = count // 2
    where = len(chosen) * left // count
    order = np.argpartition(mine[:, axis], where) if 0 < where < len(chosen) else np.arange(len(chosen))
    return [*_split(points, chosen[order[:where]], left), *_split(points, chosen[order[where:]], count - left)]
