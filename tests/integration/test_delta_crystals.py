"""Delta-learning of crystals, with stress; and of several levels of theory."""

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import read, write

import forgefield
from forgefield.core.structure import Structure
from forgefield.export.calculator import ForgeField
from forgefield.models.baseline.settings import BaselineSettings
from forgefield.models.baseline.xtb import Xtb

PROGRAM = Xtb(BaselineSettings(method="gfn1-xtb"))


def base_of(atoms):
    return PROGRAM.compute(Structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc))


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    """Distorted cells of SiC whose labels are no chemistry, but energy, forces and stress of one function."""
    path, random, frames = tmp_path_factory.mktemp("crystals") / "sic.xyz", np.random.default_rng(0), []
    for _ in range(8):
        atoms = bulk("SiC", "zincblende", a=4.36)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + random.normal(0, 0.02, (3, 3))), scale_atoms=True)
        atoms.positions += random.normal(0, 0.05, atoms.positions.shape)
        atoms.calc = LennardJones(sigma=1.7, epsilon=0.5, rc=5.0, smooth=True)
        atoms.get_stress()
        frames.append(atoms)
    write(path, frames, format="extxyz")
    return path


@pytest.fixture(scope="module")
def delta(settings, crystals, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "crystals"
    config = settings(root, data__train=str(crystals), data__test=str(crystals), train__stress_weight=1.0,
                      export__targets=[], data__accept=["leaked_duplicates", "duplicates"])  # fmt: skip
    config["model"] = {**config["model"], "baseline": "gfn1-xtb"}
    return root, forgefield.run(config, quiet=True)


def test_stress_of_the_whole(delta, crystals):
    root, result = delta
    calculator = ForgeField.load(root / "artifacts")
    alone = ForgeField.load(root / "artifacts", baseline="correction")
    atoms, h = read(crystals, "0"), 1e-3
    label = atoms.get_stress(voigt=False)
    atoms.calc = calculator
    stress, energy = atoms.get_stress(voigt=False), atoms.get_potential_energy()
    (found,) = forgefield.predict(root, [atoms])
    assert found.stress == pytest.approx(stress, abs=1e-9)
    assert found.energy == pytest.approx(energy, abs=1e-9)
    atoms.calc = alone
    assert atoms.get_stress(voigt=False) + base_of(atoms)["stress"] == pytest.approx(stress, abs=1e-9)
    energies = []
    for step in (h, -h):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + step * np.diag([1, 0, 0])), scale_atoms=True)
        strained.calc = calculator
        energies.append(strained.get_potential_energy())
    assert stress[0, 0] == pytest.approx((energies[0] - energies[1]) / (2 * h * atoms.get_volume()), abs=5e-5)
    with np.load(root / "evaluation" / "sic" / "predictions.npz") as arrays:
        assert arrays["stress_label"][0] == pytest.approx(label, abs=1e-7)
        assert arrays["stress"][0] == pytest.approx(stress, abs=1e-9)
    wrong = np.stack([base_of(a)["stress"] - a.get_stress(voigt=False) for a in read(crystals, ":")])
    measured = result.metrics["sic"]["baseline"]["stress_rmse"]
    assert measured == pytest.approx(np.sqrt(np.square(wrong).mean()), rel=1e-6)


def test_one_baseline_serves_several_levels(settings, data, tmp_path):
    shift, frames = 7.0, read(data / "train.xyz", ":")
    for name, size in (("high", 0.0), ("low", shift)):
        for atoms in frames:
            atoms.info["energy_dft"] = atoms.get_potential_energy() + size * len(atoms)
        plain = [_without_results(atoms) for atoms in frames]
        write(tmp_path / f"{name}.xyz", plain, format="extxyz")
    config = settings(
        tmp_path / "run", data__test=[], train__epochs=1, export__targets=[], train__force_weight=0.0,
        data__train=[{"path": str(tmp_path / f"{n}.xyz"), "fidelity": n} for n in ("high", "low")],
        data__accept=["duplicates", "leaked_duplicates", "leaked_near_duplicates", "near_duplicates"],
    )  # fmt: skip
    config["data"]["energy_key"] = "energy_dft"
    config["model"] = {**config["model"], "baseline": "gfn2-xtb"}
    metrics = forgefield.run(config, quiet=True).metrics["val"]
    manifest = json.loads((tmp_path / "run" / "checkpoints" / "best" / "manifest.json").read_text())
    energies = manifest["reference_energies"]
    for element, value in energies["high"].items():
        assert energies["low"][element] - value == pytest.approx(shift, abs=1e-9)
    assert metrics["baseline"]["energy_rmse_per_atom"] < 0.1  # each level with its own reference energies
    labels = json.loads((tmp_path / "run" / "run.json").read_text())["baseline"]["labels"]
    assert labels["computed"] == 24
    assert labels["kept"] == 24  # the same structures at the other level


def _without_results(atoms):
    plain = atoms.copy()
    plain.calc = None
    return plain
