"""Pairs divided into compact groups: none is lost, and each share is a graph of its own."""

import numpy as np
import pytest
import torch

from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.graph.division import divide_pairs
from forgefield.graph.needs import Needs

CUTOFF = 3.0


def gas(n, length, pbc, seed=0):
    random = np.random.default_rng(seed)
    positions = random.uniform(-length, 2 * length, (n, 3)) if all(pbc) else random.uniform(0, length, (n, 3))
    cell = np.array([[length, 0, 0], [0.3 * length, length, 0], [0, -0.2 * length, length]])
    return Structure(random.choice([1, 6, 8], n), positions, cell, np.array(pbc))


@pytest.fixture(params=[(True, True, True), (True, True, False), (False, False, False)])
def graph(request):
    structures = [
        gas(80, 9.0, request.param),
        gas(3, 3.2, request.param, 1),
        Structure(np.array([6]), np.zeros((1, 3))),
    ]
    return build_graph(structures, Needs(CUTOFF), dtype=torch.float64)


@pytest.mark.parametrize("most", [1, 10, 37, 10**6])
def test_every_pair_is_in_one_share_with_both_its_edges(graph, most):
    shares = divide_pairs(graph, most)
    n_pairs = len(graph.pair_first)
    assert torch.equal(torch.cat([s.pairs for s in shares]).sort()[0], torch.arange(n_pairs))
    sizes = [len(s.pairs) for s in shares]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    for pairs, atoms, part in shares:
        rows, slots = (part.table_sign != 0).nonzero().T
        forward = part.table_sign[rows, slots] > 0
        ends = torch.where(forward, graph.pair_second[pairs[part.table_pair[rows, slots]]],
                           graph.pair_first[pairs[part.table_pair[rows, slots]]])  # fmt: skip
        assert torch.equal(atoms[rows], ends)
        senders = torch.where(forward, graph.pair_first[pairs[part.table_pair[rows, slots]]],
                              graph.pair_second[pairs[part.table_pair[rows, slots]]])  # fmt: skip
        assert torch.equal(atoms[part.table_sender[rows, slots]], senders)
        key = 2 * part.table_pair[rows, slots] + forward
        assert torch.equal(key.sort()[0], torch.arange(2 * len(pairs)))
        assert torch.equal(atoms[part.pair_first], graph.pair_first[pairs])
        assert torch.equal(part.inverse, torch.arange(len(atoms)))


def test_shares_are_compact():
    """Eighths of a crystal: cut at random, each would touch nearly all of its atoms."""
    grid = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), -1).reshape(-1, 3) * 2.0
    grid = grid[np.random.default_rng(0).permutation(len(grid))] - 40.0 * np.eye(3)[0]
    crystal = Structure(np.full(len(grid), 14), grid, np.eye(3) * 32.0, np.ones(3, bool))
    graph = build_graph([crystal], Needs(2.5))
    shares = divide_pairs(graph, -(-len(graph.pair_first) // 8))
    assert len(shares) == 8
    assert max(len(s.atoms) for s in shares) < 1.6 * len(grid) / 8
