"""Small potentials with random weights, and structures of every kind; functions are handed out as fixtures."""

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk, molecule

from forgefield.core.structure import Structure
from forgefield.models.potential import ARCHITECTURES, build_potential

ELEMENTS = [1, 6, 8, 14]


def _make_potential(dtype=torch.float64, heads=("default",), scale=20.0, **settings):
    shape = {"hidden_irreps": "4x0e + 4x1o", "max_ell": 2, "correlation": 2, "radial_mlp": [8, 8], "r_max": 4.0}
    return build_potential(
        "mace",
        ARCHITECTURES.entry("mace").settings.model_validate(shape | settings),
        elements=ELEMENTS,
        heads=heads,
        reference_energies={h: {1: -13.6, 6: -1029.0, 8: -2041.0, 14: -7000.0} for h in heads},
        avg_num_neighbors=8.0,
        scale=[scale + k for k in range(len(heads))],
        shift=[0.1 * k for k in range(len(heads))],
        dtype=dtype,
        seed=1,
    )


def _make_atoms(name, seed=0):
    """Rattled ASE atoms: 'ethanol', 'water', 'silicon' (8), 'triclinic' (2, cell below the cutoff), 'slab', 'lone'."""
    if name == "silicon":
        atoms = bulk("Si", cubic=True)
    elif name == "triclinic":
        atoms = bulk("Si", cubic=False)
        atoms.symbols = ["Si", "O"]
        atoms.set_cell(atoms.cell.array @ np.array([[1.1, 0.1, 0], [0, 1, 0.2], [0.05, 0, 1]]), scale_atoms=True)
    elif name == "slab":
        atoms = bulk("Si", cubic=True)
        atoms.pbc, atoms.cell[2] = [True, True, False], [0, 0, 25.0]
    else:
        atoms = molecule({"ethanol": "CH3CH2OH", "water": "H2O", "lone": "O"}[name])
    atoms.positions += np.random.default_rng(seed).normal(0, 0.05, atoms.positions.shape)
    return atoms


def _as_structure(atoms, head=None):
    return Structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, head=head)


def _warm(atoms, kelvin=300.0, seed=0):
    """Give the atoms velocities of a temperature, without net momentum."""
    random = np.random.default_rng(seed)
    momenta = random.normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses() * units.kB * kelvin)[:, None]
    velocities = momenta / atoms.get_masses()[:, None]
    velocities -= momenta.sum(0) / atoms.get_masses().sum()
    atoms.set_velocities(velocities)


@pytest.fixture(scope="session")
def make_potential():
    return _make_potential


@pytest.fixture(scope="session")
def make_atoms():
    return _make_atoms


@pytest.fixture(scope="session")
def as_structure():
    return _as_structure


@pytest.fixture(scope="session")
def warm():
    return _warm


@pytest.fixture(scope="session")
def potential():
    return _make_potential()


@pytest.fixture(scope="session")
def two_heads():
    return _make_potential(heads=("pbe", "scan"))


@pytest.fixture(scope="session")
def sample():
    return [_as_structure(_make_atoms("ethanol", seed)) for seed in range(2)]


@pytest.fixture(scope="session")
def artifact(potential, sample, tmp_path_factory):
    from forgefield.export.artifact import export_artifacts

    folder = tmp_path_factory.mktemp("run") / "artifacts"
    return export_artifacts(potential, folder, provenance={"run": "test"}, sample=sample)
