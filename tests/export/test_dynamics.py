"""Constant-energy dynamics conserve the energy."""

import numpy as np
import pytest
from ase import units
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from forgefield.export.calculator import ForgeField


@pytest.fixture(scope="module")
def relaxed(make_potential, make_atoms):
    """Ethanol near a minimum of a potential stiff enough to hold it together."""
    potential = make_potential(scale=3.0, hidden_irreps="8x0e + 8x1o", pair_repulsion=True)
    atoms = make_atoms("ethanol")
    atoms.calc = ForgeField(potential)
    BFGS(atoms, logfile=None).run(fmax=0.1, steps=400)
    return potential, atoms


def run(potential, start, warm, steps, femtoseconds):
    """Total and kinetic energies, meV per atom, and times, ps."""
    atoms = start.copy()
    warm(atoms)
    atoms.calc = ForgeField(potential)
    dynamics = VelocityVerlet(atoms, femtoseconds * units.fs)
    energies = []
    for _ in range(steps):
        dynamics.run(1)
        energies.append([atoms.get_total_energy(), atoms.get_kinetic_energy()])
    total, kinetic = 1000.0 * np.array(energies).T / len(atoms)
    return total, kinetic, np.arange(1, steps + 1) * femtoseconds / 1000.0


def test_fluctuations_shrink_with_the_square_of_the_step(relaxed, warm):
    potential, start = relaxed
    spread = {}
    for dt, steps in ((0.5, 100), (0.25, 200)):
        total, kinetic, _ = run(potential, start, warm, steps, dt)
        spread[dt] = np.ptp(total)
        assert np.ptp(kinetic) > 5.0
        assert spread[dt] < 0.02 * np.ptp(kinetic)
    assert 3.3 < spread[0.5] / spread[0.25] < 4.7


@pytest.mark.slow
def test_no_drift_in_1000_steps(relaxed, warm):
    total, kinetic, times = run(*relaxed, warm, 1000, 0.5)
    slope = np.polyfit(times, total, 1)[0]
    assert np.ptp(kinetic) > 10.0
    assert abs(slope) < 1.0  # meV/atom/ps
