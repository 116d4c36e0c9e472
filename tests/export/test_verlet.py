"""A reused neighbour list gives the pairs of a fresh search."""

import numpy as np
import pytest
import torch

from forgefield.core.errors import ConfigError, DataError
from forgefield.core.structure import Structure
from forgefield.export.prediction import predict, predict_graph
from forgefield.export.verlet import MovingGraph, VerletList, moved
from forgefield.graph.pairs import find_pairs


def changed(structure, positions=None, **changes):
    values = {"numbers": structure.numbers, "cell": structure.cell, "pbc": structure.pbc} | changes
    return Structure(positions=structure.positions if positions is None else positions, **values)


def as_set(pairs, structure):
    """Pairs as a set that does not depend on order or direction."""
    found = set()
    for i, j, shift in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.shift.tolist(), strict=True):
        found.add(min((i, j, *shift), (j, i, *(-s for s in shift))))
    assert len(found) == len(pairs.first)
    return found


@pytest.mark.parametrize("kind", ["ethanol", "silicon", "triclinic", "slab", "lone"])
def test_equal_to_fresh_search_along_a_walk(kind, make_atoms, as_structure):
    structure = as_structure(make_atoms(kind))
    random = np.random.default_rng(1)
    verlet = VerletList(4.0, skin=0.6)
    for _ in range(40):
        fresh = find_pairs(structure, 4.0)
        assert as_set(verlet.pairs(structure), structure) == as_set(fresh, structure)
        structure = changed(structure, structure.positions + random.normal(0, 0.03, structure.positions.shape))
    assert 2 <= verlet.searches <= 25 or kind == "lone"


def test_searches_again_when_it_must(make_atoms, as_structure):
    start = as_structure(make_atoms("silicon"))
    verlet = VerletList(4.0, skin=0.5)
    step = np.zeros((8, 3))
    step[3, 0] = 0.24
    verlet.pairs(start)
    verlet.pairs(start)
    verlet.pairs(changed(start, start.positions + step))
    assert verlet.searches == 1
    step[3, 0] = 0.26
    changes = [
        changed(start, start.positions + step),
        changed(start, cell=start.cell * 1.0001),
        changed(start, pbc=[True, True, False]),
        changed(start, numbers=np.full(8, 6)),
        changed(start, start.positions[:7], numbers=start.numbers[:7]),
    ]
    for k, other in enumerate(changes, start=1):
        verlet.pairs(other)
        assert verlet.searches == 2 * k
        verlet.pairs(start)


def test_a_wrapped_atom_is_found_again(make_atoms, as_structure):
    start = as_structure(make_atoms("silicon"))
    verlet = VerletList(4.0, skin=0.5)
    n_pairs = len(verlet.pairs(start).first)
    wrapped = start.positions.copy()
    wrapped[2] += start.cell[0]
    assert len(verlet.pairs(changed(start, wrapped)).first) == n_pairs


@pytest.mark.parametrize("skin", [-0.1, float("nan"), float("inf")])
def test_skin_must_be_a_distance(skin):
    with pytest.raises(ConfigError, match="skin"):
        VerletList(4.0, skin=skin)


@pytest.mark.parametrize("kind", ["ethanol", "silicon", "triclinic"])
def test_a_kept_graph_equals_a_new_one(kind, potential, make_atoms, as_structure):
    """Along a walk in which pairs come and go, the kept graph is the one that would be built from a fresh search."""
    structure = as_structure(make_atoms(kind))
    random = np.random.default_rng(3)
    moving = MovingGraph(potential.needs, skin=0.6)
    for _ in range(40):
        (found,) = predict_graph(potential, moving.graph(structure, potential), [structure])
        (expected,) = predict(potential, [structure])
        assert np.allclose(found.forces, expected.forces, rtol=0, atol=1e-10)
        assert np.allclose(found.stress, expected.stress, rtol=0, atol=1e-12)
        assert found.energy == pytest.approx(expected.energy, abs=1e-9)
        structure = moved(structure, structure.positions + random.normal(0, 0.01, structure.positions.shape))
    assert moving.neighbours.searches <= moving.builds < 40
    assert moving.builds > moving.neighbours.searches or kind == "triclinic"  # whose shells stay apart


def test_only_positions_are_put_in_anew_while_the_pairs_stay(potential, make_potential, make_atoms, as_structure):
    structure = as_structure(make_atoms("silicon"))
    moving = MovingGraph(potential.needs, skin=0.5)
    first = moving.graph(structure, potential)
    second = moving.graph(moved(structure, structure.positions + 1e-4), potential)
    assert moving.builds == 1
    assert all(a is b for name, a, b in zip(first._fields, first, second, strict=True) if name != "positions")
    assert not np.array_equal(first.positions.numpy(), second.positions.numpy())
    single = make_potential(torch.float32)
    assert moving.graph(structure, single).table_sign.dtype == torch.float32
    assert moving.builds == 2


@pytest.mark.parametrize("kind", ["ethanol", "silicon"])
def test_a_kept_float32_graph_far_from_the_origin_gives_the_same_forces(kind, make_potential, make_atoms, as_structure):
    potential, structure = make_potential(torch.float32), as_structure(make_atoms(kind))
    moving, start = MovingGraph(potential.needs, skin=0.6), structure.positions + 1000.0
    moving.graph(moved(structure, start), potential)
    step = np.random.default_rng(0).normal(0, 1e-3, start.shape)
    (found,) = predict_graph(potential, moving.graph(moved(structure, start + step), potential), [structure])
    (expected,) = predict(potential, [moved(structure, structure.positions + step)])
    assert moving.builds == 1
    assert np.abs(found.forces - expected.forces).max() <= 1e-6 * np.abs(expected.forces).max()


def test_positions_must_be_numbers(make_atoms, as_structure):
    structure = as_structure(make_atoms("water"))
    with pytest.raises(DataError, match="NaN"):
        moved(structure, structure.positions * np.nan)
