"""The ASE calculator: equal to the model, the same with and without skin, loud when it cannot."""

import json
import shutil

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from forgefield.core.errors import ConfigError, DeviceError, ForgeError, ModelError
from forgefield.export.calculator import ForgeField
from forgefield.export.prediction import predict


@pytest.mark.parametrize("kind", ["ethanol", "silicon", "triclinic", "slab", "lone"])
def test_equals_the_model(kind, artifact, potential, make_atoms, as_structure):
    atoms = make_atoms(kind, seed=2)
    atoms.calc = ForgeField.load(artifact.folder, device="cpu")
    (expected,) = predict(potential, [as_structure(atoms)])
    assert atoms.get_potential_energy() == pytest.approx(expected.energy, abs=1e-10)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert np.allclose(atoms.get_forces(), expected.forces, rtol=0, atol=1e-10)
    assert np.allclose(atoms.get_potential_energies(), expected.atom_energies, rtol=0, atol=1e-10)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy())
    if atoms.pbc.all():
        assert np.allclose(atoms.get_stress(voigt=False), expected.stress, rtol=0, atol=1e-10)


def test_forces_and_stress_are_derivatives(artifact, make_atoms):
    atoms = make_atoms("triclinic")
    atoms.calc = ForgeField.load(artifact.folder, device="cpu")
    forces, stress = atoms.get_forces(), atoms.get_stress()
    assert np.abs(stress).max() > 1e-3
    assert np.allclose(forces, calculate_numerical_forces(atoms, eps=1e-4), atol=1e-6)
    assert np.allclose(stress, calculate_numerical_stress(atoms, eps=1e-5), atol=1e-7)


@pytest.mark.parametrize("kind", ["ethanol", "slab"])
def test_no_stress_without_three_periodic_directions(kind, artifact, make_atoms):
    atoms = make_atoms(kind)
    atoms.calc = ForgeField.load(artifact.folder, device="cpu")
    with pytest.raises(PropertyNotImplementedError, match="periodic in all three"):
        atoms.get_stress()
    atoms.get_forces()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def trajectory(atoms, calculator, steps):
    atoms.calc = calculator
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    record = []
    for _ in range(steps):
        dynamics.run(1)
        stress = atoms.get_stress() if atoms.pbc.all() else np.zeros(6)
        record.append(np.concatenate([[atoms.get_potential_energy()], atoms.get_forces().ravel(), stress]))
    return np.array(record)


@pytest.mark.parametrize("kind", ["silicon", "ethanol"])
def test_skin_changes_nothing_along_a_trajectory(kind, potential, make_atoms, warm):
    records = {}
    for skin in (0.0, 0.3, 1.5):
        atoms = make_atoms(kind)
        warm(atoms, kelvin=2000.0)
        calculator = ForgeField(potential, skin=skin)
        records[skin] = trajectory(atoms, calculator, 30)
        searches = calculator.neighbours.searches
        assert searches > 25 if skin == 0 else searches < 25
    assert np.ptp(records[0.0][:, 0]) > 1e-3
    for skin in (0.3, 1.5):
        assert np.allclose(records[skin], records[0.0], rtol=0, atol=1e-8)


def test_nothing_is_computed_twice(potential, make_atoms, monkeypatch):
    atoms = make_atoms("silicon")
    atoms.calc = ForgeField(potential)
    calls = []
    monkeypatch.setattr(atoms.calc, "calculate", lambda *a, f=atoms.calc.calculate: calls.append(1) or f(*a))
    for _ in range(2):
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(), atoms.get_potential_energies()
    assert len(calls) == 1
    atoms.positions[0, 0] += 0.01
    atoms.get_forces()
    assert len(calls) == 2


def test_relaxes_with_the_cell(potential, make_atoms):
    atoms = make_atoms("triclinic")
    atoms.calc = ForgeField(potential)
    before = atoms.get_potential_energy()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=8)
    assert atoms.get_potential_energy() < before


def test_heads(two_heads, make_atoms, as_structure):
    atoms = make_atoms("ethanol")
    for head in two_heads.heads:
        atoms.calc = ForgeField(two_heads, head=head)
        assert atoms.get_potential_energy() == predict(two_heads, [as_structure(atoms, head)])[0].energy
    with pytest.raises(ModelError, match=r"2 heads.*'pbe', 'scan'"):
        ForgeField(two_heads)
    with pytest.raises(ModelError, match="no head 'pbesol'"):
        ForgeField(two_heads, head="pbesol")


def test_missing_head_of_a_single_head_model(artifact):
    with pytest.raises(ModelError, match="no head 'pbe'"):
        ForgeField.load(artifact.folder, device="cpu", head="pbe")


def test_unknown_element(artifact):
    atoms = Atoms("AuH", [[0, 0, 0], [0, 0, 1.5]], calculator=ForgeField.load(artifact.folder, device="cpu"))
    with pytest.raises(ForgeError, match="Au"):
        atoms.get_potential_energy()


def test_nan_is_an_error(make_potential, make_atoms):
    potential = make_potential()
    with torch.no_grad():
        potential.architecture.embedding[0] = float("nan")
    atoms = make_atoms("water")
    atoms.calc = ForgeField(potential)
    with pytest.raises(ForgeError, match="NaN or infinite"):
        atoms.get_potential_energy()
    assert "energy" not in atoms.calc.results


def test_a_failed_calculation_leaves_no_results(potential, make_atoms):
    atoms = make_atoms("water")
    atoms.calc = ForgeField(potential)
    atoms.get_potential_energy()
    atoms.numbers[0] = 79
    for _ in range(2):
        with pytest.raises(ForgeError, match="Au"):
            atoms.get_potential_energy()
    assert not atoms.calc.results


def test_dtype(artifact, make_atoms):
    energies = {}
    for dtype in ("float32", torch.float64, None):
        atoms = make_atoms("ethanol")
        atoms.calc = ForgeField.load(artifact.folder, device="cpu", dtype=dtype)
        energies[dtype] = atoms.get_potential_energy()
    assert energies[None] == energies[torch.float64]
    assert 1e-9 < abs(energies["float32"] - energies[None]) < 1e-3
    with pytest.raises(ConfigError, match="float16"):
        ForgeField.load(artifact.folder, device="cpu", dtype="float16")


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there(device, artifact):
    with pytest.raises(DeviceError, match=device):
        ForgeField.load(artifact.folder, device=device)


def test_changed_weights_are_refused(artifact, tmp_path):
    folder = shutil.copytree(artifact.folder, tmp_path / "copy")
    ForgeField.load(folder, device="cpu")
    ForgeField.load(folder / "manifest.json", device="cpu")
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match="sha256"):
        ForgeField.load(folder, device="cpu")
    weights.unlink()
    with pytest.raises(ModelError, match="missing"):
        ForgeField.load(folder, device="cpu")


def test_wrong_folder(tmp_path):
    with pytest.raises(ModelError, match=r"no manifest\.json"):
        ForgeField.load(tmp_path, device="cpu")
    (tmp_path / "manifest.json").write_text(json.dumps({"schema_version": "other"}))
    with pytest.raises(ModelError, match="version"):
        ForgeField.load(tmp_path, device="cpu")
