import math

import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.graph.electrons import check_spin
from forgefield.graph.needs import Needs
from forgefield.graph.pairs import find_pairs

WATER = np.array([8, 1, 1]), np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def test_what_is_needed_must_be_stated():
    needs = Needs(3.0, electrons=("charge", "multiplicity"))
    with pytest.raises(DataError, match=r"total charge, which is not stated.*data\.charge: 0"):
        build_graph([Structure(*WATER)], needs)
    with pytest.raises(DataError, match=r"multiplicity.*data\.multiplicity: 1"):
        build_graph([Structure(*WATER, charge=0)], needs)
    graph = build_graph(
        [Structure(*WATER, charge=1, multiplicity=2), Structure(*WATER, charge=-1, multiplicity=4)], needs
    )
    assert graph.charge.tolist() == [1, -1]
    assert graph.multiplicity.tolist() == [2, 4]
    graph = build_graph([Structure(*WATER)], Needs(3.0))
    assert (graph.charge.tolist(), graph.multiplicity.tolist()) == ([0], [1])


@pytest.mark.parametrize(("charge", "multiplicity", "says"), [
    (0, 2, "10 electrons cannot have multiplicity 2"),
    (1, 1, "9 electrons cannot have multiplicity 1"),
    (10, 3, "more than the 0 electrons"),
    (11, None, "more than its elements can carry"),
])  # fmt: skip
def test_what_cannot_be_is_refused(charge, multiplicity, says):
    with pytest.raises(DataError, match=says):
        check_spin(Structure(*WATER, charge=charge, multiplicity=multiplicity))


@pytest.mark.parametrize(("charge", "multiplicity"), [(0, 1), (0, 3), (1, 2), (-1, 2), (10, 1), (10, None)])
def test_what_can_be_passes(charge, multiplicity):
    check_spin(Structure(*WATER, charge=charge, multiplicity=multiplicity))


def test_far_pairs_hold_the_near_ones_and_reach_further():
    cell = np.array([[2.9, 0.0, 0.0], [0.7, 3.1, 0.0], [-0.4, 0.5, 3.3]])
    crystal = Structure(np.array([14, 8]), np.array([[0.1, 0, 0.2], [1.6, 1.4, 1.8]]), cell, np.ones(3, bool))
    molecule = Structure(*WATER)
    graph = build_graph([crystal, molecule, crystal], Needs(3.0, far_cutoff=7.5))
    for vectors, cutoff in ((graph.pair_vectors(), 3.0), (graph.far_vectors(), 7.5)):
        wanted = 2 * len(find_pairs(crystal, cutoff).first) + len(find_pairs(molecule, cutoff).first)
        assert len(vectors) == wanted
        assert float(vectors.norm(dim=1).max()) <= cutoff + 1e-6
    structure = graph.structure[graph.far_first]
    assert bool((structure == graph.structure[graph.far_second]).all())


def test_all_pairs_of_a_molecule():
    graph = build_graph([Structure(*WATER)], Needs(1.1, far_cutoff=math.inf))
    assert (len(graph.pair_first), len(graph.far_first)) == (2, 3)
    with pytest.raises(DataError, match=r"is periodic.*dsf or ewald"):
        build_graph([Structure(*WATER, cell=9 * np.eye(3), pbc=True)], Needs(1.1, far_cutoff=math.inf))
