"""A reused neighbour list gives the pairs of a fresh search."""

import numpy as np
import pytest

from forgefield.core.errors import ConfigError
from forgefield.core.structure import Structure
from forgefield.export.verlet import VerletList
from forgefield.graph.pairs import find_pairs


def moved(structure, positions=None, **changes):
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
        structure = moved(structure, structure.positions + random.normal(0, 0.03, structure.positions.shape))
    assert 2 <= verlet.searches <= 25 or kind == "lone"


def test_searches_again_when_it_must(make_atoms, as_structure):
    start = as_structure(make_atoms("silicon"))
    verlet = VerletList(4.0, skin=0.5)
    step = np.zeros((8, 3))
    step[3, 0] = 0.24
    verlet.pairs(start)
    verlet.pairs(start)
    verlet.pairs(moved(start, start.positions + step))
    assert verlet.searches == 1
    step[3, 0] = 0.26
    changes = [
        moved(start, start.positions + step),
        moved(start, cell=start.cell * 1.0001),
        moved(start, pbc=[True, True, False]),
        moved(start, numbers=np.full(8, 6)),
        moved(start, start.positions[:7], numbers=start.numbers[:7]),
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
    assert len(verlet.pairs(moved(start, wrapped)).first) == n_pairs


@pytest.mark.parametrize("skin", [-0.1, float("nan"), float("inf")])
def test_skin_must_be_a_distance(skin):
    with pytest.raises(ConfigError, match="skin"):
        VerletList(4.0, skin=skin)
