"""Pairs, neighbour table and gathers against slow, obvious code."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.graph import gather
from forgefield.graph.build import build_graph
from forgefield.graph.needs import Needs
from forgefield.graph.pairs import find_pairs

CELLS = {
    "triclinic": np.array([[2.5, 0, 0], [1.0, 2.6, 0], [0.4, 0.7, 3.0]]),
    "cubic": np.eye(3) * 6,
    "flat": np.array([[3.0, 0, 0], [0.5, 3.0, 0], [0, 0, 0]]),
}
CUTOFF = 4.0


def random_structure(cell, pbc, n=5, seed=0):
    positions = np.random.default_rng(seed).uniform(-4, 9, (n, 3))
    numbers = np.random.default_rng(seed + 1).choice([8, 1, 6], n)
    return Structure(numbers, positions, CELLS[cell], np.array(pbc, bool))


@pytest.mark.parametrize(
    ("cell", "pbc"),
    [
        ("triclinic", (1, 1, 1)),
        ("triclinic", (1, 1, 0)),
        ("cubic", (0, 1, 0)),
        ("cubic", (0, 0, 0)),
        ("flat", (1, 1, 0)),
    ],
)
def test_pairs_are_those_of_ase(cell, pbc):
    s = random_structure(cell, pbc)
    found = find_pairs(s, CUTOFF)
    half = {
        (a, b, *c) for a, b, c in zip(found.first.tolist(), found.second.tolist(), found.shift.tolist(), strict=True)
    }
    assert len(half) == len(found.first)
    full = half | {(b, a, *[-x for x in c]) for a, b, *c in half}
    box = s.cell if cell != "flat" else s.cell + np.diag([0, 0, 50.0])
    atoms = Atoms(numbers=s.numbers, positions=s.positions, cell=box, pbc=pbc)
    i, j, shift = neighbor_list("ijS", atoms, CUTOFF)
    assert full == {(a, b, *c) for a, b, c in zip(i.tolist(), j.tolist(), shift.tolist(), strict=True)}
    assert len(full) == 2 * len(half)


@pytest.fixture
def graph():
    structures = [
        random_structure("cubic", (0, 0, 0), 6),
        Structure(np.array([6]), np.zeros((1, 3))),
        random_structure("triclinic", (1, 1, 1), 3, seed=4),
    ]
    return build_graph(structures, Needs(CUTOFF), dtype=torch.float64)


def test_atoms_are_sorted_and_can_be_put_back(graph):
    assert bool((graph.numbers.diff() >= 0).all())
    assert graph.structure[graph.inverse].tolist() == [0] * 6 + [1] + [2] * 3
    assert torch.equal(graph.order[graph.inverse], torch.arange(10))


def test_table_holds_each_directed_edge_once(graph):
    vectors, sign = graph.pair_vectors(), graph.table_sign
    edges = []
    for atom in range(graph.n_atoms):
        for k in range(sign.shape[1]):
            if sign[atom, k] == 0:
                continue
            pair, sender = int(graph.table_pair[atom, k]), int(graph.table_sender[atom, k])
            ends = (int(graph.pair_first[pair]), int(graph.pair_second[pair]))
            assert (sender, atom) == (ends if sign[atom, k] > 0 else ends[::-1])
            edges.append((pair, float(sign[atom, k])))
    assert sorted(edges) == sorted((p, s) for p in range(len(vectors)) for s in (-1.0, 1.0))
    assert bool((torch.linalg.vector_norm(vectors, dim=1) < CUTOFF).all())


def test_reverse_is_the_other_slot_of_the_pair(graph):
    assert torch.equal(graph.reverse[graph.slot_forward], graph.slot_backward)
    assert torch.equal(graph.reverse[graph.slot_backward], graph.slot_forward)
    padding = graph.table_sign.reshape(-1) == 0
    assert torch.equal(graph.reverse[padding], torch.arange(len(padding))[padding])


def check_gather(move, plain, values, mask):
    """A move and its plain twin agree in value and, where slots are masked, in gradient."""
    a, b = values.clone().requires_grad_(), values.clone().requires_grad_()
    left, right = move(a), plain(b)
    assert torch.allclose(left, right, atol=1e-13)
    weights = torch.rand_like(left) * mask(left)
    (left * weights).sum().backward()
    (right * weights).sum().backward()
    assert torch.allclose(a.grad, b.grad, atol=1e-14)


def test_gathers_equal_index_operations(graph):
    n, k = graph.table_sign.shape
    filled = gather.filled_slots(graph, 2)
    slots = torch.rand(n * k, 3, dtype=torch.float64) * filled
    pair, sender = graph.table_pair.reshape(-1), graph.table_sender.reshape(-1)
    check_gather(
        lambda v: gather.pairs_to_slots(v, graph),
        lambda v: v[pair],
        torch.rand(len(graph.pair_first), 3, dtype=torch.float64),
        lambda out: filled,
    )
    check_gather(
        lambda v: gather.slots_to_pairs(v * filled, graph),
        lambda v: torch.zeros(len(graph.pair_first), 3, dtype=v.dtype).index_add(0, pair, v * filled),
        slots,
        torch.ones_like,
    )
    check_gather(
        lambda v: gather.senders_to_slots(v, graph),
        lambda v: v[sender],
        torch.rand(n, 3, dtype=torch.float64),
        lambda out: filled,
    )
    check_gather(
        lambda v: gather.slots_to_senders(v * filled, graph),
        lambda v: torch.zeros(n, 3, dtype=v.dtype).index_add(0, sender, v * filled),
        slots,
        torch.ones_like,
    )


def test_a_head_the_model_lacks_is_named():
    s = Structure(np.array([1]), np.zeros((1, 3)), head="gw", origin="a.xyz: frame 3")
    with pytest.raises(DataError, match=r"a.xyz: frame 3: head 'gw'.*heads: pbe, r2scan"):
        build_graph([s], Needs(3.0), heads=("pbe", "r2scan"))
