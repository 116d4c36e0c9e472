"""Molecular dynamics of the benchmark, the same for both sides; needs ASE and NumPy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

TEMPERATURE, TIMESTEP = 300.0, 0.5  # K, fs


def first_atoms(case: dict[str, np.ndarray]) -> Atoms:
    """The first structure of a case, with velocities."""
    stop = case["ptr"][1]
    atoms = Atoms(case["numbers"][:stop], case["positions"][:stop], cell=case["cell"][0], pbc=case["pbc"][0])
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=np.random.default_rng(0))
    return atoms


def start_dynamics(atoms: Atoms) -> tuple[Callable[[], None], Callable[[], dict[str, object]]]:
    """Return one step of dynamics, and the forces where the atoms are."""
    dynamics = VelocityVerlet(atoms, TIMESTEP * units.fs)
    return lambda: dynamics.run(1), lambda: {"forces": atoms.get_forces().tolist()}
