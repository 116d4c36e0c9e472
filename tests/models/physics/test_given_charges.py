"""Coulomb energy of charges that come with the structures: from files, from ASE, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from ase import Atoms
from physics_sums import ELEMENTS, crystal, make, molecule, total

from forgefield.core.errors import DataError, ModelError
from forgefield.core.structure import Structure
from forgefield.export.artifact import export_artifacts
from forgefield.export.calculator import ForgeField
from forgefield.export.target import directed_edges
from forgefield.graph.build import build_graph
from forgefield.graph.needs import Needs
from forgefield.models.architecture import PhysicsContext
from forgefield.models.potential import ARCHITECTURES, PHYSICS, build_potential

GIVEN = {"method": "dsf", "charges": "given"}
BY_ELEMENT = {"H": 0.2, "C": -0.1, "O": -0.4, "Na": 0.9, "Si": 0.5, "Cl": -1.1}
NUMBERS = dict(zip(BY_ELEMENT, (1, 6, 8, 11, 14, 17), strict=True))


def charged(structure, charges=None):
    if charges is None:
        charges = 0.3 * np.sin(np.arange(len(structure)) + 1.0)
    return dataclasses.replace(structure, labels={"charges": charges})


def by_element(structure):
    table = {NUMBERS[name]: q for name, q in BY_ELEMENT.items()}
    return charged(structure, np.array([table[z] for z in structure.numbers]))


def sums(term, *structures):
    needs = Needs(5.0, far_cutoff=term.far_cutoff, atom_charges=term.given_charges)
    graph = build_graph(structures, needs, dtype=torch.float64)
    with torch.no_grad():
        return total(term, graph)


@pytest.mark.parametrize("method", ["simple", "dsf", "ewald", "pme"])
def test_charges_of_atoms_equal_those_by_element(method):
    made = [molecule(), molecule(3, 5)] if method == "simple" else [crystal(), crystal(9)]
    given = sums(make("coulomb", {"method": method, "charges": "given"}), *map(by_element, made))
    expected = sums(make("coulomb", {"method": method, "charges": BY_ELEMENT}), *made)
    for a, b in zip(given[:3], expected[:3], strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["dsf", "ewald"])
def test_forces_are_the_energys_slope_at_fixed_charges(method):
    term, structure = make("coulomb", {"method": method, "charges": "given"}), charged(crystal())
    here, step = sums(term, structure), 1e-4
    for atom, axis in ((0, 0), (1, 2), (2, 1)):
        energies = []
        for sign in (1, -1):
            x = structure.positions.copy()
            x[atom, axis] += sign * step
            energies.append(float(sums(term, dataclasses.replace(structure, positions=x)).energy[0]))
        slope = (energies[0] - energies[1]) / (2 * step)
        assert float(here.forces[atom, axis]) == pytest.approx(-slope, abs=1e-7)


def test_the_order_of_atoms_does_not_matter():
    term, structure = make("coulomb", GIVEN), charged(molecule())
    order = np.random.default_rng(0).permutation(len(structure))
    turned = Structure(
        structure.numbers[order], structure.positions[order], labels={"charges": structure.labels["charges"][order]}
    )
    here, there = sums(term, structure), sums(term, turned)
    assert float(here.energy[0]) == pytest.approx(float(there.energy[0]), abs=1e-12)
    assert torch.allclose(here.forces[order], there.forces, rtol=0, atol=1e-12)


def potential():
    settings = ARCHITECTURES.entry("mace").settings
    small = {"hidden_irreps": "2x0e", "max_ell": 1, "correlation": 1, "radial_mlp": [4], "num_interactions": 1}
    return build_potential(
        "mace",
        settings.model_validate({**small, "r_max": 4.0}),
        elements=[1, 6, 8],
        reference_energies={"default": {1: -1.0, 6: -2.0, 8: -3.0}},
        avg_num_neighbors=5.0,
        physics={"coulomb": PHYSICS.entry("coulomb").settings.model_validate(GIVEN)},
        dtype=torch.float64,
    )


def test_structures_without_charges_are_refused():
    with pytest.raises(DataError, match=r"charge of each atom, and this structure states none.*data.charges_key"):
        build_graph([charged(molecule()), molecule()], potential().needs)


def test_in_ase_they_are_initial_charges():
    structure, model = charged(molecule()), potential()
    atoms = Atoms(structure.numbers, structure.positions)
    atoms.calc = ForgeField(model)
    with pytest.raises(DataError, match="set_initial_charges"):
        atoms.get_potential_energy()
    found = []
    for charges in (structure.labels["charges"], 2.0 * structure.labels["charges"]):
        atoms.set_initial_charges(charges)
        with torch.no_grad():
            graph = build_graph([charged(structure, charges)], model.needs, dtype=torch.float64)
            expected = model(graph)
        assert atoms.get_potential_energy() == pytest.approx(float(expected.energy[0]), abs=1e-10)
        assert np.abs(atoms.get_forces() - expected.forces.numpy()).max() < 1e-10
        found.append(atoms.get_potential_energy())
    assert abs(found[1] - found[0]) > 1e-3
    atoms.set_array("initial_charges", None)
    with pytest.raises(DataError, match="set_initial_charges"):
        atoms.get_potential_energy()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_files_take_charges_and_so_do_the_weights(tmp_path):
    model, sample = potential(), [charged(molecule())]
    with pytest.raises(ModelError, match="coordinates, elements, charge and multiplicity alone"):
        export_artifacts(model, tmp_path / "a", targets=["aimnet_jit"], provenance={}, sample=sample)
    made = export_artifacts(model, tmp_path / "a", targets=["torchscript"], provenance={}, sample=sample)
    file = torch.jit.load(str(made.path("torchscript")))
    x, z = torch.from_numpy(sample[0].positions), torch.from_numpy(sample[0].numbers)
    index, shifts = (torch.from_numpy(a) for a in directed_edges(sample[0], file.cutoff))
    q = torch.from_numpy(sample[0].labels["charges"])
    found = [float(file(x, z, torch.zeros(3, 3), index, shifts, charges=c)["energy"]) for c in (q, 2.0 * q)]
    assert abs(found[1] - found[0]) > 1e-3
    for wrong, message in ((None, "needs the charges of the atoms"), (q[1:], r"charges must be \(7,\)")):
        with pytest.raises(torch.jit.Error, match=message):
            file(x, z, torch.zeros(3, 3), index, shifts, charges=wrong)
    atoms = Atoms(sample[0].numbers, sample[0].positions)
    atoms.set_initial_charges(sample[0].labels["charges"])
    atoms.calc = ForgeField.load(made.folder)
    with torch.no_grad():
        expected = model(build_graph(sample, model.needs, dtype=torch.float64))
    assert atoms.get_potential_energy() == pytest.approx(float(expected.energy[0]), abs=1e-10)
    physics = json.loads((made.folder / "manifest.json").read_text())["physics"]
    assert "given" in json.dumps(physics)


def test_models_without_it_ask_for_no_charges():
    context = PhysicsContext(ELEMENTS, ("default",), (1.0,))
    entry = PHYSICS.entry("coulomb")
    term = entry.build(entry.settings.model_validate({"method": "dsf"}), context)
    assert (term.uses_charges, term.given_charges) == (True, False)
    assert not len(build_graph([charged(molecule())], Needs(4.0)).atom_charges)
