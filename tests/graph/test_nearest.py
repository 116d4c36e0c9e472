"""Neighbours that are not simply all within a cutoff, and triplets."""

import math

import numpy as np
import pytest
import torch

from forgefield.core.structure import Structure
from forgefield.export.triplet_table import padded_triplets
from forgefield.graph.build import build_graph
from forgefield.graph.nearest import find_neighbours
from forgefield.graph.needs import Needs
from forgefield.graph.pairs import find_pairs


def salt():
    """Rock salt, displaced: 6 neighbours of the first shell are no longer equally far."""
    base = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]) * 2.8
    positions = base + np.random.default_rng(0).normal(0, 0.1, (8, 3))
    return Structure(np.array([11] * 4 + [17] * 4), positions, np.eye(3) * 5.6, np.ones(3, bool))


def chain():
    """Atoms at 0, 1, 2.5, 5 and 20 Å."""
    return Structure(np.full(5, 6), np.array([[0.0], [1.0], [2.5], [5.0], [20.0]]) * np.array([[1.0, 0, 0]]))


def as_pairs(pairs):
    return sorted((min(i, j), max(i, j)) for i, j in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def test_each_atom_has_its_nearest_neighbours():
    s, k = salt(), 5
    pairs = find_neighbours(s, Needs(3.0, nearest=k))
    wide = find_pairs(s, 9.0)
    x = s.positions
    lengths = lambda p: np.linalg.norm(x[p.second] - x[p.first] + p.shift @ s.cell, axis=1)  # noqa: E731
    for atom in range(8):
        mine = (pairs.first == atom) | (pairs.second == atom)
        all_of_it = np.sort(lengths(wide)[(wide.first == atom) | (wide.second == atom)])
        assert np.allclose(np.sort(lengths(pairs)[mine])[:k], all_of_it[:k])


def test_nearest_neighbours_of_a_chain():
    once = find_neighbours(chain(), Needs(1.2, nearest=1))
    assert as_pairs(once) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    twice = find_neighbours(chain(), Needs(1.2, nearest=1, duplicates="mutual"))
    assert as_pairs(twice) == [(0, 1), (0, 1), (1, 2), (2, 3), (3, 4)]
    assert len(find_neighbours(chain(), Needs(1.2, nearest=99)).first) == 10  # no more than there are
    assert len(find_neighbours(Structure(np.array([6]), np.zeros((1, 3))), Needs(1.2, nearest=3)).first) == 0


def test_a_shell_is_never_cut():
    square = Structure(np.full(4, 6), np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]))
    assert as_pairs(find_neighbours(square, Needs(1.5, nearest=1))) == [(0, 1), (0, 2), (1, 3), (2, 3)]


def test_images_of_an_atom_itself():
    one = Structure(np.array([29]), np.zeros((1, 3)), np.eye(3) * 2.5, np.ones(3, bool))
    needs = Needs(3.0, nearest=6)
    assert len(find_neighbours(one, needs).first) == 3
    assert len(find_neighbours(one, Needs(3.0, nearest=6, duplicates="own_images")).first) == 6
    assert len(find_neighbours(one, Needs(3.0)).first) == 3
    assert len(find_neighbours(one, Needs(3.0, own_images=False)).first) == 0


def test_the_cutoff_grows_until_nobody_is_alone():
    assert as_pairs(find_neighbours(chain(), Needs(1.2))) == [(0, 1)]
    grown = find_neighbours(chain(), Needs(1.2, extra_cutoff=2.0))  # 15 Å to the last atom: 1.2 + 7 x 2
    assert (3, 4) in as_pairs(grown)
    assert (2, 4) not in as_pairs(grown)
    near = Structure(np.full(2, 6), np.array([[0.0, 0, 0], [500.0, 0, 0]]))
    assert len(find_neighbours(near, Needs(1.0, extra_cutoff=0.5)).first) == 0  # it gives up


def by_hand(graph, needs):
    """All pairs of directed edges that meet, by comparing each with each."""
    vectors = graph.pair_vectors().double()
    vectors = torch.cat([vectors, -vectors])
    source = torch.cat([graph.pair_first, graph.pair_second])
    target = torch.cat([graph.pair_second, graph.pair_first])
    n, found = len(source), set()
    for a in range(n):
        for b in range(n):
            meet = target[a] == source[b] and max(vectors[a].norm(), vectors[b].norm()) < needs.triplets
            back = b == (a + n // 2) % n
            across = (vectors[a] + vectors[b]).norm()
            if meet and (needs.backtracking or not back) and across < needs.opposite:
                found.add((a, b))
    return found


@pytest.mark.parametrize("more", [{}, {"backtracking": False}, {"opposite": 3.0}])
def test_triplets_of_a_batch(more):
    needs = Needs(3.0, triplets=2.9, **more)
    graph = build_graph([chain(), salt(), chain()], needs, dtype=torch.float64)
    found = list(zip(graph.triplet_entering.tolist(), graph.triplet_leaving.tolist(), strict=True))
    assert len(found) == len(set(found)) > 10
    assert set(found) == by_hand(graph, needs)
    vectors = graph.pair_vectors()
    tables = vectors, graph.table_pair, graph.table_sign, needs.triplets, needs.opposite, needs.backtracking
    entering, leaving, there = padded_triplets(*tables)  # what exported files do
    assert set(zip(entering[there].tolist(), leaving[there].tolist(), strict=True)) == set(found)


def test_no_triplets_unless_asked_for():
    graph = build_graph([salt()], Needs(3.0))
    assert graph.triplet_entering.shape == graph.triplet_filled.shape == (0,)
    assert math.isinf(Needs(3.0).opposite)
