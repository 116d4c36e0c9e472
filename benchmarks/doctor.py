"""How long the data doctor takes, check by check, and how much memory.

    python benchmarks/doctor.py [--structures 100000] [--case copies trajectory ...] [--from FILE]

Cases: `copies` are one molecule of 27 atoms repeated with noise of 0.001 Å, `trajectory` is one long vibration of
it, frame by frame, `different` are 60 compositions far apart, `compositions` are crystals of 27 atoms and nearly as
many compositions as structures, `crystals` vibrate in strained cells of 8 atoms. With
--from, the molecules are frames of that file, each repeated with the same noise (copies) or moved (trajectory).
The structures lie in memory, so that the doctor is timed and no reader. Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from forgefield.core.catalog import Catalog
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.doctor.examine import CHECKS
from forgefield.data.doctor.survey import survey
from forgefield.data.reader import ListFrames

NOISE = 0.001  # Å
STIFF = 20.0  # eV/Å^2
HALF = 2  # share of the structures that are training data is 1 - 1 / HALF**2


def chain(atoms: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and positions of a made molecule: a folded chain of C, N and O with hydrogen."""
    heavy = [np.zeros(3)]
    while len(heavy) < (atoms + 1) // 2:
        step = random.normal(size=3)
        trial = heavy[-1] + 1.45 * step / np.linalg.norm(step)
        if min(float(np.linalg.norm(trial - p)) for p in heavy) > 1.4:
            heavy.append(trial)
    numbers, positions = random.choice([6, 6, 6, 7, 8], len(heavy)).tolist(), list(heavy)
    while len(positions) < atoms:
        step = random.normal(size=3)
        trial = heavy[int(random.integers(len(heavy)))] + 1.05 * step / np.linalg.norm(step)
        if min(float(np.linalg.norm(trial - p)) for p in positions) > 0.95:
            numbers.append(1)
            positions.append(trial)
    return np.array(numbers), np.array(positions)


def sprung(numbers: np.ndarray, rest: np.ndarray, moved: np.ndarray, k: int) -> Structure:
    """A molecule with springs between its atoms; energy and forces belong together."""
    vectors = (rest + moved)[:, None] - (rest + moved)[None]
    lengths = np.linalg.norm(vectors, axis=2) + np.eye(len(rest))
    stretch = np.where(np.eye(len(rest), dtype=bool), 0.0, lengths - np.linalg.norm(rest[:, None] - rest[None], axis=2))
    weight = STIFF * np.exp(-(lengths**2) / 4.0)
    pull = weight * stretch - 0.25 * weight * lengths * stretch**2
    energy = -40.0 * len(numbers) + 0.25 * (weight * stretch**2).sum()
    forces = -(pull[:, :, None] * vectors / lengths[:, :, None]).sum(axis=1)
    return Structure(
        numbers, rest + moved, labels={"energy": np.float64(energy), "forces": forces}, origin=f"made.xyz: frame {k}"
    )


def bases(path: Path | None, random: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Structures to start from: of the file, or one made molecule."""
    if path is None:
        return [chain(27, random)]
    return [(s.numbers, s.positions) for s in open_dataset(path) if len(s) > 1]


def copies(count: int, path: Path | None, random: np.random.Generator) -> list[Structure]:
    """Frames repeated with little noise."""
    known = bases(path, random)
    made = []
    for k in range(count):
        numbers, rest = known[k % len(known)]
        made.append(sprung(numbers, rest, random.normal(0, NOISE, rest.shape), k))
    return made


def trajectory(count: int, path: Path | None, random: np.random.Generator) -> list[Structure]:
    """Frames of one vibration: eight modes of different periods, 40 to 400 frames long."""
    numbers, rest = bases(path, random)[0]
    modes, phases = random.normal(0, 0.05, (8, *rest.shape)), random.uniform(0, 6.28, 8)
    periods = random.uniform(40, 400, 8)
    turns = (np.sin(2 * np.pi * k / periods + phases) for k in range(count))
    return [sprung(numbers, rest, np.tensordot(turn, modes, axes=1), k) for k, turn in enumerate(turns)]


def different(count: int, path: Path | None, random: np.random.Generator) -> list[Structure]:
    """Sixty compositions, atoms 0.1 Å about their places."""
    _ = path
    known = [chain(int(random.integers(12, 40)), random) for _ in range(60)]
    made = []
    for k in range(count):
        numbers, rest = known[int(random.integers(len(known)))]
        made.append(sprung(numbers, rest, random.normal(0, 0.1, rest.shape), k))
    return made


def compositions(count: int, path: Path | None, random: np.random.Generator) -> list[Structure]:
    """Each of another composition: eight elements on the sites of a cubic lattice."""
    _ = path
    steps = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) / 3.0
    elements = np.array([12, 13, 14, 22, 26, 28, 29, 30])
    made = []
    for k in range(count):
        numbers = np.sort(random.choice(elements, 27))
        cell = float(random.uniform(7.5, 8.5)) * np.eye(3)
        shift = random.normal(0, 0.05, (27, 3))
        forces = -STIFF * (shift - shift.mean(axis=0))
        energy = -3.0 * 27 - 0.1 * float(numbers.sum()) + 0.5 * STIFF * (shift**2).sum()
        labels = {"energy": np.float64(energy), "forces": forces}
        made.append(Structure(numbers, steps @ cell + shift, cell, [True] * 3, labels, origin=f"mix.xyz: frame {k}"))
    return made


def crystals(count: int, path: Path | None, random: np.random.Generator) -> list[Structure]:
    """Silicon, 8 atoms in cells strained up to 2 %, atoms 0.02 Å about their places."""
    _ = path
    sites = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    steps = np.concatenate([sites, sites + 0.25])
    made = []
    for k in range(count):
        strain = random.uniform(-0.02, 0.02, (3, 3))
        cell = 5.43 * (np.eye(3) + 0.5 * (strain + strain.T))
        shift = random.normal(0, 0.02, (8, 3))
        shift -= shift.mean(axis=0)
        energy = -43.4 + 0.5 * STIFF * (shift**2).sum() + 100.0 * (strain**2).sum()
        labels = {"energy": np.float64(energy), "forces": -STIFF * shift}
        made.append(Structure([14] * 8, steps @ cell + shift, cell, [True] * 3, labels, origin=f"si.xyz: frame {k}"))
    return made


CASES = {
    "copies": copies,
    "trajectory": trajectory,
    "different": different,
    "compositions": compositions,
    "crystals": crystals,
}


def peak() -> float:
    """Highest use of memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, count: int, path: Path | None) -> None:
    """Print seconds and findings of one case: a quarter of the structures, drawn at random, are test data."""
    random = np.random.default_rng(0)
    frames = CASES[name](count, path, random)
    held = random.random(count) < 1 / HALF**2
    parts = {
        part: Dataset([ListFrames([s for s, out in zip(frames, held.tolist(), strict=True) if out == is_held])])
        for part, is_held in (("train", False), ("test", True))
    }
    before, start = peak(), time.process_time()
    found = survey(parts)
    steps = {"survey": time.process_time() - start}
    findings: list[str] = []
    catalog = Catalog(CHECKS)
    for check in catalog.names():
        start = time.process_time()
        findings += [f"{f.name} ({len(f.places)})" for f in catalog.entry(check).build(found)]
        steps[check] = time.process_time() - start
    print(f"{name}: {count:,} structures, {sum(steps.values()):.0f} s, memory {before:.0f} -> {peak():.0f} MiB")
    print("  " + ", ".join(f"{k} {v:.1f}" for k, v in steps.items()))
    print("  " + ", ".join(findings), flush=True)


def main() -> None:
    """Measure the cases that are asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=100_000)
    parser.add_argument("--case", nargs="*", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--from", dest="path", type=Path, default=None)
    asked = parser.parse_args()
    for name in asked.case:
        measure(name, asked.structures, asked.path)


if __name__ == "__main__":
    main()
