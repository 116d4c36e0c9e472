"""Planted faults: good structures of real sets, spoiled in known ways. Everything is seeded.

Each kind of fault is a function (structures, random) -> (parts, expected places or None). A case is found when the
doctor names the kind, and, where places are expected, names at least 95 % of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from forgefield.core.structure import Structure
from forgefield.core.units import BOHR, GPA, HARTREE, KCAL_PER_MOL, KJ_PER_MOL
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.reader import LabelKeys, ListFrames

Frames = list[Structure]
Planted = tuple[dict[str, Frames], dict[str, set[int]] | None]
SETS = {
    "3bpa": ("3bpa/train_300K.xyz", {}),
    "ethanol": ("rmd17_ethanol/train_01.xyz.xz", {"energy": "energy", "forces": "forces"}),
    "silicon": ("mlearn_Si/train.xyz", {}),
    "oxides": ("bo2_oxides_multixc/PBE.xyz", {}),
}
MOLECULES, CRYSTALS, MOVING = ("3bpa", "ethanol"), ("silicon", "oxides"), ("3bpa", "ethanol", "silicon")
ALL = (*MOLECULES, *CRYSTALS)


def load(folder: Path) -> dict[str, Frames]:
    """Return the good structures of every set."""
    return {name: list(open_dataset(folder / path, keys=LabelKeys(**keys))) for name, (path, keys) in SETS.items()}


def as_dataset(frames: Frames) -> Dataset:
    """Return structures as a data set."""
    return Dataset([ListFrames(frames)])


def with_labels(s: Structure, **labels: object) -> Structure:
    """Return the structure with other labels."""
    return dataclasses.replace(s, labels={**s.labels, **labels})


def scaled(s: Structure, **factors: float) -> Structure:
    """Return the structure with labels times factors, where it has them."""
    return with_labels(s, **{k: s.labels[k] * f for k, f in factors.items() if k in s.labels})


def disguised(s: Structure, random: np.random.Generator, noise: float = 0.0) -> Structure:
    """Return the structure turned, moved, with its atoms in another order and its lattice vectors chosen anew."""
    turn = Rotation.random(random_state=int(random.integers(1 << 30))).as_matrix()
    order = random.permutation(len(s))
    positions = s.positions + random.normal(0, noise, s.positions.shape) if noise else s.positions
    cell = s.cell
    if s.pbc.all():
        steps = np.eye(3)
        i, j = random.choice(3, 2, replace=False)
        steps[i, j] = random.choice([-1, 1])
        cell = steps @ cell
        positions = positions + random.integers(-1, 2, (len(s), 3)) @ s.cell
    labels = dict(s.labels)
    labels["forces"] = (s.labels["forces"] @ turn.T)[order]
    if "stress" in labels:
        labels["stress"] = turn @ s.labels["stress"] @ turn.T
    shift = random.normal(0, 3, 3)
    return dataclasses.replace(
        s,
        numbers=s.numbers[order],
        positions=(positions @ turn.T)[order] + shift,
        cell=cell @ turn.T,
        labels=labels,
        origin=f"{s.origin} again",
    )


def some(frames: Sequence[Structure], random: np.random.Generator, count: int, loud: bool = False) -> list[int]:
    """Return places of structures with more than one atom, ascending."""
    able = [k for k, s in enumerate(frames) if len(s) > 1 and (not loud or np.abs(s.labels["forces"]).max() > 0.05)]
    return sorted(random.choice(able, count, replace=False).tolist())


def every(change: Callable[[Structure], Structure]) -> Callable[[Frames, np.random.Generator], Planted]:
    """Return a fault of the whole set; a random four fifths of the set are taken."""

    def plant(frames: Frames, random: np.random.Generator) -> Planted:
        kept = sorted(random.choice(len(frames), int(0.8 * len(frames)), replace=False).tolist())
        return {"train": [change(frames[k]) for k in kept]}, None

    return plant


def single(
    change: Callable[[Structure, np.random.Generator], Structure], least: int = 1, most: int = 5, loud: bool = False
) -> Callable[[Frames, np.random.Generator], Planted]:
    """Return a fault of a few structures."""

    def plant(frames: Frames, random: np.random.Generator) -> Planted:
        chosen = some(frames, random, int(random.integers(least, most + 1)), loud)
        made = [change(s, random) if k in chosen else s for k, s in enumerate(frames)]
        return {"train": made}, {"train": set(chosen)}

    return plant


def copies(noise: float) -> Callable[[Frames, np.random.Generator], Planted]:
    """Copies in disguise at the end of the set."""

    def plant(frames: Frames, random: np.random.Generator) -> Planted:
        chosen = some(frames, random, 5)
        made = [*frames, *(disguised(frames[k], random, noise) for k in chosen)]
        return {"train": made}, {"train": set(range(len(frames), len(made)))}

    return plant


def leaked(noise: float) -> Callable[[Frames, np.random.Generator], Planted]:
    """Copies in disguise of training structures among the test structures."""

    def plant(frames: Frames, random: np.random.Generator) -> Planted:
        order = random.permutation(len(frames))
        cut = int(0.8 * len(frames))
        train, test = [frames[k] for k in order[:cut]], [frames[k] for k in order[cut:]]
        chosen = some(train, random, 5)
        n = len(test)
        test += [disguised(train[k], random, noise) for k in chosen]
        return {"train": train, "test": test}, {"test": set(range(n, len(test)))}

    return plant


def contradicting(frames: Frames, random: np.random.Generator) -> Planted:
    """Copies with another energy."""
    chosen = some(frames, random, 3)
    again = [disguised(frames[k], random) for k in chosen]
    odd = [with_labels(s, energy=s.labels["energy"] + len(s) * random.choice([-1, 1]) * 0.05) for s in again]
    return {"train": [*frames, *odd]}, {"train": set(range(len(frames), len(frames) + 3))}


def mixed(frames: Frames, random: np.random.Generator) -> Planted:
    """A third of the structures at another level of theory: a constant for each atom, and forces a little different."""
    gap = random.uniform(0.15, 1.5) * random.choice([-1, 1])
    chosen = set(some(frames, random, len(frames) // 3))
    made = []
    for k, s in enumerate(frames):
        noise = random.normal(0, 0.02, s.labels["forces"].shape)
        other = with_labels(
            s, energy=s.labels["energy"] + gap * len(s), forces=s.labels["forces"] + noise - noise.mean(0)
        )
        made.append(other if k in chosen else s)
    return {"train": made}, {"train": chosen}


def trajectory(frames: Frames, random: np.random.Generator) -> Planted:
    """Vibrations about a structure, one period over 30 frames, drawn at random into training and validation."""
    start = frames[some(frames, random, 1)[0]]
    modes, phases = random.normal(0, 0.03, (4, len(start), 3)), random.uniform(0, 6.28, 4)
    made = []
    for k in range(300):
        angles = 2 * np.pi * k / 30 * np.array([1.0, 0.61, 0.37, 0.23]) + phases
        moved = start.positions + np.tensordot(np.sin(angles), modes, axes=1)
        made.append(dataclasses.replace(start, positions=moved, origin=f"md.xyz: frame {k}"))
    order = random.permutation(300)
    return {"train": [made[k] for k in sorted(order[:240])], "val": [made[k] for k in sorted(order[240:])]}, None


def squeezed(s: Structure, random: np.random.Generator) -> Structure:
    """Two atoms almost in one place."""
    one, other = random.choice(len(s), 2, replace=False)
    positions = s.positions.copy()
    positions[one] = positions[other] + random.normal(0, 0.1, 3)
    return dataclasses.replace(s, positions=positions)


def shrunken(s: Structure, random: np.random.Generator) -> Structure:
    """The cell too small for its atoms, positions as before."""
    wrong = s.cell.copy()
    axis = int(random.integers(3))
    wrong[axis] *= 0.5 + 0.2 * random.random()
    return dataclasses.replace(s, cell=wrong)


def boxed(s: Structure, random: np.random.Generator) -> Structure:
    """A molecule in a periodic box that is too small."""
    size = np.ptp(s.positions, axis=0) * random.uniform(0.35, 0.55)
    return dataclasses.replace(s, cell=np.diag(size), pbc=np.ones(3, dtype=bool))


def exploded(s: Structure, random: np.random.Generator) -> Structure:
    """One atom far away."""
    positions = s.positions.copy()
    direction = random.normal(size=3)
    away = positions - positions.mean(axis=0)
    far = float(np.linalg.norm(away, axis=1).max()) + random.uniform(6, 20)
    positions[int(random.integers(len(s)))] = positions.mean(axis=0) + far * direction / np.linalg.norm(direction)
    return dataclasses.replace(s, positions=positions)


def spike(s: Structure, random: np.random.Generator) -> Structure:
    """A wrong energy: 0.15 to 2 eV per atom off."""
    return with_labels(
        s, energy=s.labels["energy"] + len(s) * random.choice([-1, 1]) * np.exp(random.uniform(np.log(0.15), np.log(2)))
    )


def kick(s: Structure, random: np.random.Generator) -> Structure:
    """Two atoms with equal and opposite wrong forces of 80 to 400 eV/Å."""
    forces = s.labels["forces"].copy()
    one, other = random.choice(len(s), 2, replace=False)
    direction = random.normal(size=3)
    pull = direction / np.linalg.norm(direction) * random.uniform(80, 400)
    forces[one] += pull
    forces[other] -= pull
    return with_labels(s, forces=forces)


def pushed(s: Structure, random: np.random.Generator) -> Structure:
    """A force on one atom that nothing balances."""
    forces = s.labels["forces"].copy()
    forces[int(random.integers(len(s)))] += random.normal(0, 1, 3) + 3.0
    return with_labels(s, forces=forces)


def turned(s: Structure, random: np.random.Generator) -> Structure:
    """Positions turned, forces not."""
    axis = random.normal(size=3)
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * random.uniform(1.0, 2.5)).as_matrix()
    return dataclasses.replace(s, positions=s.positions @ turn.T)


def voigt(s: Structure) -> Structure:
    """Off-diagonal components in VASP's order."""
    stress = s.labels["stress"].copy()
    yz, xz, xy = stress[1, 2], stress[0, 2], stress[0, 1]
    for (i, j), value in zip(((1, 2), (0, 2), (0, 1)), (xy, yz, xz), strict=True):
        stress[i, j] = stress[j, i] = value
    return with_labels(s, stress=stress)


def as_bohr(s: Structure) -> Structure:
    """Positions in bohr, read as Å."""
    return dataclasses.replace(s, positions=s.positions / BOHR, cell=s.cell / BOHR)


def shifted(name: str) -> Callable[[Frames, np.random.Generator], Planted]:
    """Four labels copied from other structures of the same size."""

    def plant(frames: Frames, random: np.random.Generator) -> Planted:
        made, found = list(frames), set()
        for k in some(frames, random, 40):
            like = [j for j, s in enumerate(frames) if len(s) == len(frames[k]) and abs(j - k) > 3 and len(s) > 1]
            other = int(random.choice(like)) if like else k
            source = frames[other].labels[name]
            if other == k or not np.any(source) or np.allclose(source, frames[k].labels[name]):
                continue
            if other in found or k in found or len(found) >= 8:
                continue
            made[k] = with_labels(frames[k], **{name: source})
            found |= {k, other}
        return {"train": made}, {"train": found}

    return plant


def single_precision(frames: Frames, random: np.random.Generator) -> Planted:
    """Total energies through float32, counted from all electrons as molecular codes do."""
    return every(lambda s: with_labels(s, energy=np.float64(np.float32(s.labels["energy"]))))(frames, random)


def silent(s: Structure, random: np.random.Generator) -> Structure:
    """Forces that were never computed."""
    return with_labels(s, forces=np.zeros_like(s.labels["forces"]))


def missing(s: Structure, random: np.random.Generator) -> Structure:
    """An energy that stands for none."""
    return with_labels(s, energy=float(random.choice([0.0, 9999.0, -99999.0, 1e6])))


FAULTS: dict[str, list[tuple[tuple[str, ...], Callable[[Frames, np.random.Generator], Planted], str]]] = {
    "duplicates": [(ALL, copies(0.0), "turned, moved, reordered")],
    "near_duplicates": [(ALL, copies(5e-4), "the same with 0.0005 Å of noise")],
    "leaked_duplicates": [(ALL, leaked(0.0), "turned, moved, reordered")],
    "leaked_near_duplicates": [(ALL, leaked(5e-4), "the same with 0.0005 Å of noise")],
    "contradicting_labels": [(ALL, contradicting, "copies 50 meV/atom off")],
    "correlated_split": [(MOVING, trajectory, "frames of a vibration drawn at random")],
    "energy_unit": [
        (MOLECULES, every(lambda s: scaled(s, energy=1 / HARTREE)), "Ha"),
        (MOVING, every(lambda s: scaled(s, energy=1 / KCAL_PER_MOL)), "kcal/mol"),
        (ALL, every(lambda s: scaled(s, energy=1 / KJ_PER_MOL)), "kJ/mol"),
        (MOLECULES, every(lambda s: scaled(s, energy=1 / HARTREE, forces=BOHR / HARTREE)), "Ha, forces Ha/bohr"),
    ],
    "energy_per_atom": [
        (("ethanol", "silicon", "oxides"), every(lambda s: scaled(s, energy=1 / len(s))), "divided by atoms")
    ],
    "forces_sign": [(MOVING, every(lambda s: scaled(s, forces=-1.0)), "gradients")],
    "forces_unit": [
        (MOVING, every(lambda s: scaled(s, forces=1 / KCAL_PER_MOL)), "kcal/mol/Å"),
        (MOVING, every(lambda s: scaled(s, forces=BOHR / HARTREE)), "Ha/bohr"),
        (MOVING, every(lambda s: scaled(s, forces=1e3)), "meV/Å"),
    ],
    "length_unit": [(ALL, every(as_bohr), "bohr")],
    "stress_sign": [(CRYSTALS, every(lambda s: scaled(s, stress=-1.0)), "opposite")],
    "stress_unit": [
        (CRYSTALS, every(lambda s: scaled(s, stress=1 / GPA)), "GPa"),
        (CRYSTALS, every(lambda s: scaled(s, stress=-10 / GPA)), "kbar, VASP's sign"),
    ],
    "stress_is_virial": [(CRYSTALS, every(lambda s: scaled(s, stress=-s.volume)), "virial")],
    "stress_order": [(("silicon",), every(voigt), "xx yy zz xy yz zx")],
    "outlier_energies": [(ALL, single(spike), "0.15 to 2 eV/atom")],
    "outlier_forces": [(ALL, single(kick), "80 to 400 eV/Å, balanced")],
    "net_force": [(ALL, single(pushed), "one atom pushed")],
    "net_torque": [(MOLECULES, single(turned), "positions turned, forces not")],
    "mixed_theory": [(ALL, mixed, "a third 0.15 to 1.5 eV/atom off")],
    "rounded_energies": [(MOLECULES, single_precision, "float32")],
    "overlapping_atoms": [(ALL, single(squeezed), "two atoms 0.2 Å apart")],
    "cell_too_small": [(CRYSTALS, single(shrunken), "an edge 0.5 to 0.7"), (MOLECULES, single(boxed), "box too small")],
    "lone_atoms": [(MOLECULES, single(exploded), "an atom 6 to 20 Å away")],
    "zero_forces": [(MOVING, single(silent, loud=True), "all zero")],
    "placeholder_values": [(ALL, single(missing), "0, 9999, -99999, 1e6")],
    "repeated_labels": [
        (MOVING, shifted("forces"), "forces of another frame"),
        (CRYSTALS, shifted("stress"), "stress"),
    ],
    "constant_labels": [(ALL, every(lambda s: with_labels(s, energy=-123.456)), "one energy everywhere")],
}
"""Kind of finding -> (sets, how it is planted, what it is)."""


def is_found(name: str, parts: dict[str, Frames], expected: dict[str, set[int]] | None) -> bool:
    """Return whether the doctor names the fault, and at least 95 % of its structures."""
    from forgefield.data.doctor.examine import examine

    findings = [f for f in examine({k: as_dataset(v) for k, v in parts.items()}) if f.name == name]
    if not findings or not expected:
        return bool(findings)
    seen = {(p.part, p.index) for f in findings for p in f.places}
    wanted = {(part, index) for part, places in expected.items() for index in places}
    return len(seen & wanted) >= 0.95 * len(wanted)


def springy_crystals(count: int, random: np.random.Generator) -> Frames:
    """An elastic crystal of silicon at small random strains; energies and stresses belong together."""
    cell = 5.43 * np.eye(3)
    sites = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    steps = np.concatenate([sites, sites + 0.25])
    bulk, shear, volume = 100 * GPA, 60 * GPA, 5.43**3
    made = []
    for k in range(count):
        strain = random.uniform(-0.02, 0.02, (3, 3))
        strain = 0.5 * (strain + strain.T)
        mean = np.trace(strain)
        off = strain - np.eye(3) * mean / 3
        energy = -43.4 + volume * (0.5 * bulk * mean**2 + shear * (off**2).sum())
        grown = cell @ (np.eye(3) + strain)
        stress = (bulk * mean * np.eye(3) + 2 * shear * off) * volume / abs(np.linalg.det(grown))
        labels = {"energy": np.float64(energy), "forces": np.zeros((8, 3)), "stress": stress}
        made.append(Structure([14] * 8, steps @ grown, grown, [True] * 3, labels, origin=f"si.xyz: frame {k}"))
    return made
