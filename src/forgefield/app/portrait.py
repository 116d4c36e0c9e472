"""What a data set looks like to someone about to train on it: sizes, labels, distances, and signs of wrong units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from forgefield.core.elements import covalent_radii, symbol
from forgefield.core.quantities import ALWAYS
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import is_isolated
from forgefield.graph.pairs import find_pairs

CUTOFFS = (4.0, 4.5, 5.0, 5.5, 6.0)
_SAMPLE = 50  # frames whose distances are looked at
_LIGHT = 10  # up to here all-electron energies of an atom are near -0.5 Z^2.4 Ha


@dataclass(frozen=True, eq=False)
class Portrait:
    """Plain numbers about a data set; frames of one free atom are counted apart.

    Args:
        sizes: atoms of each structure, (S,).
        elements: atomic number -> atoms.
        labels: quantity -> structures that have it.
        n_periodic: structures with a periodic direction.
        isolated: atomic numbers of frames of one free atom with an energy.
        energies: energy per atom, eV, of the structures that have one.
        force_rms: root mean square force component, eV/Å; None without forces.
        stress_rms: root mean square stress component, eV/Å^3; None without stress.
        neighbors: cutoff, Å -> (smallest, mean) number of neighbours of an atom, from a sample.
        contact: median over sampled atoms of nearest distance over sum of covalent radii; None without neighbours.
        looks_per_atom: energies are the same sums divided by the number of atoms, by the look of it.
        looks_hartree: energies are as large as all-electron energies in Hartree.
        heads: head -> structures, where frames name one.
    """

    sizes: np.ndarray
    elements: dict[int, int]
    labels: dict[str, int]
    n_periodic: int
    isolated: list[int]
    energies: np.ndarray
    force_rms: float | None
    stress_rms: float | None
    neighbors: dict[float, tuple[int, float]]
    contact: float | None
    looks_per_atom: bool
    looks_hartree: bool
    heads: dict[str, int]

    @property
    def n_structures(self) -> int:
        """Structures, without frames of one free atom."""
        return len(self.sizes)

    @property
    def size(self) -> float:
        """Mean number of atoms."""
        return float(self.sizes.mean()) if len(self.sizes) else 0.0

    def names(self) -> str:
        """Return the element symbols."""
        return " ".join(symbol(z) for z in self.elements)


def look_at(dataset: Dataset) -> Portrait:
    """Read a data set once and say what it is like."""
    kept, isolated, sizes, periodic = [], set(), [], 0
    elements: Counter[int] = Counter()
    labels: Counter[str] = Counter()
    heads: Counter[str] = Counter()
    squares = {"forces": 0.0, "stress": 0.0}
    numbers_of = {"forces": 0, "stress": 0}
    counts, energies = [], []
    for index, structure in enumerate(dataset):
        if is_isolated(structure):
            isolated |= {int(structure.numbers[0])} if "energy" in structure.labels else set()
            continue
        kept.append(index)
        sizes.append(len(structure))
        elements.update(structure.numbers.tolist())
        labels.update(list(structure.labels))
        heads.update([structure.level] if structure.level else [])
        periodic += bool(structure.pbc.any())
        for name in squares:
            values = structure.labels.get(name)
            if values is not None:
                squares[name] += float((values**2).sum())
                numbers_of[name] += values.size
        if "energy" in structure.labels:
            counts.append(np.bincount(structure.numbers, minlength=119))
            energies.append(float(structure.labels["energy"]))
    rms = {name: float(np.sqrt(squares[name] / n)) if (n := numbers_of[name]) else None for name in squares}
    composition = np.array(counts, dtype=np.float64).reshape(-1, 119)
    total = np.array(energies)
    neighbors, contact = _distances(dataset, kept)
    return Portrait(
        sizes=np.array(sizes, dtype=np.int64),
        elements=dict(sorted(elements.items())),
        labels={name: labels[name] for name in (*ALWAYS, *sorted(labels.keys() - set(ALWAYS)))},
        n_periodic=periodic,
        isolated=sorted(isolated),
        energies=total / composition.sum(axis=1) if len(total) else total,
        force_rms=rms["forces"],
        stress_rms=rms["stress"],
        neighbors=neighbors,
        contact=contact,
        looks_per_atom=_grows_with_fractions(composition, total),
        looks_hartree=_is_all_electron_hartree(composition, total),
        heads=dict(heads.most_common()),
    )


def _distances(dataset: Dataset, kept: list[int]) -> tuple[dict[float, tuple[int, float]], float | None]:
    """Return neighbours at several cutoffs, and how close atoms are compared with their covalent radii."""
    step = max(1, len(kept) // _SAMPLE)
    degrees: dict[float, list[np.ndarray]] = {cutoff: [] for cutoff in CUTOFFS}
    contacts: list[float] = []
    for index in kept[::step][:_SAMPLE]:
        structure = dataset[index]
        first, second, distances = _pairs(structure, CUTOFFS[-1])
        for cutoff in CUTOFFS:
            inside = distances < cutoff
            ends = np.concatenate([first[inside], second[inside]])
            degrees[cutoff].append(np.bincount(ends, minlength=len(structure)))
        radii = covalent_radii[structure.numbers]
        ratio = distances / (radii[first] + radii[second])
        for atom in range(len(structure)):
            mine = ratio[(first == atom) | (second == atom)]
            contacts += [float(mine.min())] if len(mine) else []
    neighbors = {}
    for cutoff, parts in degrees.items():
        joined = np.concatenate(parts) if parts else np.zeros(0, dtype=int)
        neighbors[cutoff] = (int(joined.min()), float(joined.mean())) if len(joined) else (0, 0.0)
    return neighbors, float(np.median(contacts)) if contacts else None


def _pairs(structure: Structure, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pairs = find_pairs(structure, cutoff)
    first, second = pairs.first.astype(np.int64), pairs.second.astype(np.int64)
    vectors = structure.positions[second] + pairs.shift @ structure.cell - structure.positions[first]
    return first, second, np.linalg.norm(vectors, axis=1)


def _grows_with_fractions(composition: np.ndarray, energies: np.ndarray) -> bool:
    """Say whether energies follow the fractions of the elements much better than their numbers: energies per atom."""
    sizes = composition.sum(axis=1)
    if len(energies) < 4 or sizes.min() * 1.5 > sizes.max():
        return False
    residuals = []
    for table in (composition, composition / sizes[:, None]):
        used = table[:, table.any(axis=0)]
        solution = np.linalg.lstsq(used, energies, rcond=None)[0]
        residuals.append(float(np.abs(used @ solution - energies).mean()))
    return residuals[1] < 0.2 * residuals[0]


def _is_all_electron_hartree(composition: np.ndarray, energies: np.ndarray) -> bool:
    """Say whether energies have the size of all-electron energies in Hartree.

    A light neutral atom has about -0.5 Z^2.4 Ha, which is -13.6 Z^2.4 eV; cohesive and pseudopotential energies in eV
    are far from the first for elements such as C, N and O.

    Source:
        Total energies of atoms fit a power of Z: J. Schwinger, Phys. Rev. A 22, 1827 (1980), leading terms.
    """
    numbers = np.arange(composition.shape[1])
    light = len(energies) > 0 and not composition[:, _LIGHT + 1 :].any()
    if not light or not composition[:, 5:].any(axis=1).all():
        return False
    expected = -(composition @ (0.5 * numbers**2.4))
    ratio = np.median(energies / expected)
    return bool(0.8 < ratio < 1.3)


def warnings(portrait: Portrait) -> Iterator[str]:
    """Yield signs that units or labels are not what they should be; each says what to look at."""
    force, stress, contact = portrait.force_rms, portrait.stress_rms, portrait.contact
    if contact is not None and not 0.6 < contact < 1.5:
        guess = {True: "bohr", False: "nm"}[contact > 1.5]
        yield (
            f"atoms are {contact:.2f} times as far apart as covalent radii say (1 is usual): positions in {guess}? "
            f"Then set data.length_unit: {guess}"
        )
    if force is not None and force > 15:
        yield f"forces are large (RMS {force:.1f} eV/Å): kcal/mol/Å? Then set data.energy_unit, which forces follow"
    if force is not None and force < 1e-4:
        yield f"forces are all but zero (RMS {force:.1e} eV/Å): is the label right?"
    if portrait.looks_hartree:
        small = force is not None and force < 0.1
        forces = ", and the forces in Ha/bohr" if small else ""
        yield f"energies have the size of all-electron energies in Hartree{forces}: set data.energy_unit: Ha?"
    if portrait.looks_per_atom:
        yield "energies do not grow with the number of atoms: are they per atom? Total energies are needed"
    if stress is not None and stress > 0.3:
        gpa = stress * 160.21766
        yield f"stresses are large (RMS {stress:.2f} eV/Å^3 = {gpa:.0f} GPa): is data.stress_unit right (GPa, kbar)?"
    missing = [name for name in ("energy", "forces") if portrait.labels[name] == 0]
    if missing:
        yield f"no frame has {' or '.join(missing)}: set data.{missing[0]}_key if it has another name"
    for name, count in portrait.labels.items():
        if 0 < count < portrait.n_structures:
            yield f"{portrait.n_structures - count} of {portrait.n_structures} frames have no {name}"
