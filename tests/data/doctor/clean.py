"""Sets without faults, made by simple potentials on which no threshold of the doctor was set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.cluster import Octahedron
from ase.md.langevin import Langevin

from forgefield.core.structure import Structure


def labelled(atoms: Atoms, origin: str) -> Structure:
    """Return the atoms with what their calculator says."""
    labels = {"energy": np.float64(atoms.get_potential_energy()), "forces": atoms.get_forces()}
    if atoms.pbc.all():
        labels["stress"] = atoms.get_stress(voigt=False)
    return Structure(atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc, labels, origin=origin)


def rattled(start: Atoms, calc: Calculator, name: str, count: int, random: np.random.Generator) -> list[Structure]:
    """Atoms moved at random, cells strained a little."""
    made = []
    for k in range(count):
        atoms = start.copy()
        if atoms.pbc.all():
            strain = random.normal(0, 0.015, (3, 3))
            atoms.set_cell(atoms.cell @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
        atoms.positions += random.normal(0, random.uniform(0.03, 0.15), atoms.positions.shape)
        atoms.calc = calc
        made.append(labelled(atoms, f"{name}.xyz: frame {k}"))
    return made


def moving(start: Atoms, calc: Calculator, name: str, count: int, heat: float, seed: int) -> list[Structure]:
    """Frames of a molecular dynamics run, 60 fs apart."""
    atoms, random = start.copy(), np.random.default_rng(seed)
    atoms.calc = calc
    atoms.set_momenta(random.normal(0, 1, (len(atoms), 3)) * np.sqrt(atoms.get_masses() * units.kB * heat)[:, None])
    run = Langevin(atoms, 3 * units.fs, temperature_K=heat, friction=0.02, rng=random, fixcm=False)
    made = []
    for k in range(count):
        run.run(20)
        frame = atoms.copy()
        frame.calc = calc
        made.append(labelled(frame, f"{name}.xyz: frame {k}"))
    return made


def clean_sets(count: int, seed: int = 0) -> Iterator[tuple[str, list[Structure]]]:
    """Yield named sets of about `count` structures each."""
    random = np.random.default_rng(seed)
    copper, gold = bulk("Cu", cubic=True).repeat(2), bulk("Au", cubic=True).repeat(2)
    yield "copper, rattled", rattled(copper, EMT(), "a", count, random)
    yield "gold, 600 K", moving(gold, EMT(), "b", count, 600.0, seed)
    alloys = []
    for k in range(count):
        alloy = bulk("Ni", cubic=True).repeat(2)
        alloy.numbers = random.choice([13, 28, 29, 46], len(alloy))
        alloy.set_cell(alloy.cell * random.uniform(1.03, 1.12), scale_atoms=True)
        alloys += rattled(alloy, EMT(), f"c{k}", 1, random)
    yield "alloys of Al, Ni, Cu, Pd", alloys
    yield "platinum slab, 500 K", moving(fcc111("Pt", (3, 3, 3), vacuum=8.0), EMT(), "d", count, 500.0, seed)
    yield "silver cluster, 400 K", moving(Octahedron("Ag", 4, 1), EMT(), "e", count, 400.0, seed)
    holes = []
    for k in range(count):
        crystal = copper.copy()
        del crystal[sorted(random.choice(len(crystal), int(random.integers(0, 3)), replace=False).tolist())[::-1]]
        holes += rattled(crystal, EMT(), f"f{k}", 1, random)
    yield "copper with vacancies", holes
    argon = bulk("Ar", "fcc", 5.31, cubic=True).repeat(2)
    soft = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0, smooth=True)
    yield "argon, rattled", rattled(argon, soft, "g", count, random)
    yield "argon, 40 K", moving(argon, soft, "h", count, 40.0, seed)
    nitrogen = MorsePotential(epsilon=9.8, r0=1.1, rho0=2.96, rcut1=20.0, rcut2=25.0)
    yield "nitrogen, rattled", rattled(molecule("N2"), nitrogen, "i", count, random)
