"""What D3 costs: by its cutoffs, and in training where it is computed once for each structure.

    python benchmarks/dispersion.py --data /path/to/3bpa/train_300K.xyz
    python benchmarks/dispersion.py --parts cutoffs

benchmarks/README.md says what is measured.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk

from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.loader import make_loader
from forgefield.graph.build import build_graph
from forgefield.graph.needs import Needs
from forgefield.models.architecture import Geometry, PhysicsContext
from forgefield.models.potential import ARCHITECTURES, PHYSICS, Potential, build_potential
from forgefield.train.constant_terms import constant_terms, taken_out
from forgefield.train.loop import prepare
from forgefield.train.loss import build_loss
from forgefield.train.settings import TrainSettings
from forgefield.train.step import take_update

CUTOFFS = {
    "default": {},
    "program's, cut sharply": {"cutoff": 31.7506, "cutoff_width": 0, "cn_cutoff": 21.1671, "cn_cutoff_width": 0},
    "20 and 12 Å": {"cutoff": 20.0, "cutoff_width": 2.0, "cn_cutoff": 12.0, "cn_cutoff_width": 2.0},
}
BATCH = 5
PARTS = ("cutoffs", "training", "crystals")


def crystals() -> dict[str, Structure]:
    """Small and larger cells with displaced atoms."""
    random, found = np.random.default_rng(0), {}
    cells = {"Si 8": bulk("Si", cubic=True), "Si 64": bulk("Si", cubic=True) * (2, 2, 2)}
    cells |= {"Cu 32": bulk("Cu", cubic=True) * (2, 2, 2), "W 2": bulk("W", cubic=True)}
    for name, atoms in cells.items():
        positions = atoms.positions + random.normal(0, 0.05, atoms.positions.shape)
        found[name] = Structure(atoms.numbers, positions, atoms.cell.array, atoms.pbc)
    return found


def measure_cutoffs() -> None:
    """Print, for each choice, what it misses of the program's energy, and its time."""
    for name, structure in crystals().items():
        reference = None
        for choice in ("program's, cut sharply", "default", "20 and 12 Å"):
            entry, elements = PHYSICS.entry("d3"), tuple(sorted(set(structure.numbers.tolist())))
            settings = entry.settings.model_validate({"functional": "pbe", **CUTOFFS[choice]})
            term = entry.build(settings, PhysicsContext(elements, ("default",), (1.0,)))
            start = time.perf_counter()
            graph = build_graph([structure], Needs(3.0, far_cutoff=term.far_cutoff), dtype=torch.float64)
            search, times = time.perf_counter() - start, []
            with torch.no_grad():
                for _ in range(4):
                    start = time.perf_counter()
                    share = term(Geometry(graph, graph.pair_vectors(), graph.far_vectors()), None)
                    times.append(time.perf_counter() - start)
            energy = float(share.energies.sum()) / len(structure)
            reference = energy if reference is None else reference
            print(
                f"{name}, {choice}: {len(graph.far_first):,} pairs, {1e3 * (energy - reference):+.3f} meV/atom, "
                f"{1e3 * min(times):.1f} ms, search and graph {1e3 * search:.1f} ms",
                flush=True,
            )


def small_mace(elements: Sequence[int], dtype: torch.dtype) -> Potential:
    """MACE of the size of configs/mace_3bpa.yaml with fewer channels, and D3."""
    settings = {"r_max": 5.0, "hidden_irreps": "16x0e + 16x1o", "max_ell": 2, "correlation": 2}
    return build_potential(
        "mace",
        ARCHITECTURES.entry("mace").settings.model_validate(settings),
        elements=elements,
        reference_energies={"default": dict.fromkeys(elements, 0.0)},
        avg_num_neighbors=15.0,
        physics={"d3": PHYSICS.entry("d3").settings.model_validate({"functional": "wb97x"})},
        dtype=dtype,
    )


def epoch(potential: Potential, dataset: Dataset, *, once: bool, epochs: int) -> list[float]:
    """Median time of an update in each epoch, s; the first finds pairs and computes what is kept."""
    train, found = TrainSettings.model_validate({"batch_size": BATCH, "lr": 1e-3}), []
    names = constant_terms(potential) if once else ()
    with taken_out(potential, names) as constant:
        loader = make_loader(dataset, potential.needs, batch_size=BATCH, dtype=potential.dtype)
        state = prepare(potential, train, torch.device("cpu"), len(loader))
        state.constant, losses = constant(dataset), build_loss(train, potential)
        for _ in range(epochs):
            times, start = [], time.perf_counter()
            for batch in loader.batches():
                take_update(state, [batch], losses)
                times.append(time.perf_counter() - start)
                start = time.perf_counter()
            found.append(statistics.median(times))
    return found


def shaken_silicon(n: int) -> Dataset:
    """Cells of 64 atoms; what they are labelled with does not matter."""
    random, cell = np.random.default_rng(1), bulk("Si", cubic=True) * (2, 2, 2)
    labels = {"energy": np.zeros(()), "forces": np.zeros((64, 3))}
    moved = [cell.positions + random.normal(0, 0.05, (64, 3)) for _ in range(n)]
    return Dataset.of([Structure(cell.numbers, x, cell.cell.array, cell.pbc, labels=labels) for x in moved])


def measure_training(name: str, dataset: Dataset) -> None:
    """Print the time of an update, D3 computed in every step and once, in turns."""
    elements = sorted({int(z) for k in range(min(20, len(dataset))) for z in dataset[k].numbers})
    for dtype in (torch.float32, torch.float64):
        found: dict[bool, list[list[float]]] = {True: [], False: []}
        for _ in range(2):
            for once in (False, True):
                found[once].append(epoch(small_mace(elements, dtype), dataset, once=once, epochs=2))
        first, later = ({once: 1e3 * min(t[k] for t in found[once]) for once in found} for k in (0, 1))
        print(
            f"{name}: {len(dataset)} structures, batches of {BATCH}, {str(dtype).removeprefix('torch.')}: every step "
            f"{later[False]:.1f} ms, once {later[True]:.1f} ms an update, ratio {later[False] / later[True]:.2f} "
            f"(in the first epoch {first[False]:.1f} and {first[True]:.1f} ms)",
            flush=True,
        )


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("examples/3bpa/train.xyz"), help="structures to train on")
    parser.add_argument("--n", type=int, default=500, help="how many of them")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "cutoffs" in options.parts:
        measure_cutoffs()
    if "training" in options.parts:
        whole = open_dataset(options.data)
        measure_training("molecules of 3BPA", whole.subset(np.arange(min(options.n, len(whole)))))
    if "crystals" in options.parts:
        measure_training("silicon, 64 atoms", shaken_silicon(20))


if __name__ == "__main__":
    main()
