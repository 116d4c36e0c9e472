"""GFN-xTB by tblite: its own numbers, its derivatives, and what must not reach it."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from tblite.ase import TBLite
from threadpoolctl import ThreadpoolController

from forgefield.core.errors import DataError, ModelError
from forgefield.core.structure import Structure
from forgefield.models.baseline.settings import BaselineSettings, as_baseline
from forgefield.models.baseline.xtb import Unsolved, Xtb, electrons

# Printed in the documentation of tblite.
PUBLISHED = {"gfn2-xtb": -137.96777625229421, "gfn1-xtb": -156.96750590276173}


def structure(atoms, **more):
    cell = atoms.cell.array if atoms.pbc.any() else np.zeros((3, 3))
    return Structure(atoms.numbers, atoms.positions, cell, atoms.pbc, **more)


def program(method="gfn2-xtb", **more):
    return Xtb(BaselineSettings(method=method, **more))


def rattled(atoms, size=0.05):
    atoms.positions += np.random.default_rng(1).normal(0, size, atoms.positions.shape)
    return atoms


@pytest.mark.parametrize("method", PUBLISHED)
def test_published_energies(method):
    found = program(method).compute(structure(molecule("H2O")))
    assert float(found["energy"]) == pytest.approx(PUBLISHED[method], abs=2e-6)
    assert found["atom_energies"].sum() == pytest.approx(float(found["energy"]), abs=1e-9)


@pytest.mark.parametrize(("charge", "multiplicity"), [(0, 1), (1, 2), (0, 3)])
def test_agrees_with_the_ase_calculator_of_tblite(charge, multiplicity):
    atoms = rattled(molecule("CH3CH2OH"))
    atoms.calc = TBLite(charge=charge, multiplicity=multiplicity, accuracy=0.1, verbosity=0)
    found = program().compute(structure(atoms, charge=charge, multiplicity=multiplicity))
    assert float(found["energy"]) == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert found["forces"] == pytest.approx(atoms.get_forces(), abs=1e-9)
    assert found["charges"] == pytest.approx(atoms.get_charges(), abs=1e-9)
    assert found["dipole"] == pytest.approx(atoms.get_dipole_moment(), abs=1e-9)


@pytest.mark.parametrize("method", PUBLISHED)
def test_forces_are_derivatives(method):
    atoms, h, one = rattled(molecule("CH3OH")), 1e-3, program(method)
    forces = one.compute(structure(atoms))["forces"]
    for atom, axis in ((0, 0), (1, 2), (4, 1)):
        energies = []
        for step in (h, -h):
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            energies.append(float(one.compute(structure(moved))["energy"]))
        assert forces[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * h), abs=1e-4)


def test_stress_of_a_crystal_is_a_derivative():
    atoms, h, one = rattled(bulk("SiC", "zincblende", a=4.36)), 1e-3, program("gfn1-xtb")
    found = one.compute(structure(atoms))
    energies = []
    for step in (h, -h):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + step * np.diag([1, 0, 0])), scale_atoms=True)
        energies.append(float(one.compute(structure(strained))["energy"]))
    assert found["stress"][0, 0] == pytest.approx((energies[0] - energies[1]) / (2 * h * atoms.get_volume()), abs=2e-5)
    assert "dipole" not in found


def test_results_do_not_depend_on_what_was_computed_before():
    one, atoms = program(), rattled(molecule("CH3OH"))
    first = one.compute(structure(atoms))
    one.compute(structure(rattled(molecule("C6H6"))))
    again, elsewhere = one.compute(structure(atoms)), pickle.loads(pickle.dumps(one)).compute(structure(atoms))
    for other in (again, elsewhere):
        assert all(np.array_equal(first[name], other[name]) for name in first)


def test_spin_is_the_lowest_unless_stated():
    assert electrons(structure(Atoms("N"))) == (0.0, 1)
    assert electrons(structure(Atoms("C"))) == (0.0, 0)
    assert electrons(structure(Atoms("C"), multiplicity=3)) == (0.0, 2)
    assert electrons(structure(molecule("H2O"), charge=1)) == (1.0, 1)


def test_valence_electrons_are_those_of_the_program():
    one = program()
    for number in (1, 2, 3, 10, 13, 21, 26, 29, 30, 31, 36, 47, 48, 57, 60, 71, 72, 80, 81, 86):
        charge, unpaired = electrons(structure(Atoms(numbers=[number])))
        calculator = one._program("GFN2-xTB", np.array([number]), np.zeros((1, 3)), charge, unpaired)
        calculator.set("verbosity", 0)
        occupied = calculator.singlepoint()["orbital-occupations"].sum()
        lone = structure(Atoms(numbers=[number]), charge=round(occupied) - 1)
        assert electrons(lone) == (round(occupied) - 1, 1)
        with pytest.raises(DataError, match="leaves no valence electrons"):
            electrons(structure(Atoms(numbers=[number]), charge=round(occupied)))


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: structure(molecule("H2O"), charge=9), "leaves no valence electrons"),  # tblite would crash
        (lambda: structure(molecule("H2O"), charge=0.5), "no whole number"),
        (lambda: structure(molecule("H2O"), multiplicity=2), "cannot have multiplicity 2"),
        (lambda: structure(Atoms("UO2", np.eye(3) * 2)), "ends at Rn"),
        (lambda: structure(Atoms("Al", cell=[3, 3, 20], pbc=[1, 1, 0])), "periodic in all three directions"),
    ],
)
def test_what_the_method_is_not_made_for(made, text):
    with pytest.raises(DataError, match=text):
        program().compute(made())


def test_too_few_iterations_are_named():
    with pytest.raises(Unsolved, match="not converged in 2 cycles"):
        program(max_iterations=2).compute(structure(molecule("H2O"), origin="water"))


def test_accuracy_and_temperature_are_passed_on():
    atoms = structure(rattled(molecule("O2"), 0.3))
    usual = program().compute(atoms)
    assert float(program(temperature=5000).compute(atoms)["energy"]) != pytest.approx(float(usual["energy"]), abs=1e-3)
    rough, fine = (program(accuracy=value).compute(atoms)["forces"] for value in (1000.0, 0.001))
    assert not np.array_equal(rough, fine)


def test_one_thread_while_it_computes_and_the_others_come_back(monkeypatch):
    threads = ThreadpoolController().select(user_api="openmp")
    one, seen = program(), []
    real = one._program

    def spying(*args):
        seen.append(
            [library.num_threads for library in ThreadpoolController().select(user_api="openmp").lib_controllers]
        )
        return real(*args)

    one._program = spying
    with threads.limit(limits=2):
        one.compute(structure(molecule("H2O")))
        after = [library.num_threads for library in ThreadpoolController().select(user_api="openmp").lib_controllers]
    assert seen
    assert set(seen[0]) == {1}
    assert set(after) == {2}


def test_a_missing_program_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    with pytest.raises(ModelError, match="pip install 'forgefield\\[xtb\\]'"):
        program()


def test_importing_forgefield_does_not_import_tblite():
    code = "import sys, forgefield.app.tasks.train; assert not any(m.startswith('tblite') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ), timeout=120)


def test_keys_without_an_effect_are_refused():
    with pytest.raises(ValueError, match="has an effect with a method that tblite computes only"):
        BaselineSettings(method="labels", accuracy=1.0)
    with pytest.raises(ValueError, match="has an effect with method labels only"):
        BaselineSettings(method="gfn2-xtb", level="PBE")
    with pytest.raises(ValueError, match="no map of levels"):
        as_baseline({"dft": "gfn2-xtb"})
    assert as_baseline("gfn1-xtb") == {"method": "gfn1-xtb"}
