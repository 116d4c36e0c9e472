"""How long a trained model takes to predict, and how much memory: measured in a process of its own, warm, the median.

Two ways: a batch of structures, as evaluation computes them (neighbour search and graph included), and one structure
whose atoms move a little between calls of the ASE calculator, as in molecular dynamics.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from forgefield.app.compare.sets import open_sets
from forgefield.app.folder import write_json
from forgefield.app.forecast.gauge import Gauge, crowded
from forgefield.app.run import RunConfig, load_run
from forgefield.core.errors import ForgeError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.export.calculator import ForgeField
from forgefield.graph.build import build_graph
from forgefield.kernels.choice import kernels
from forgefield.models.bundle import load_bundle
from forgefield.models.potential import Potential

MOST_ATOMS, MOST_STRUCTURES = 2000, 64  # of the batch
WARM, LEAST, MOST, SECONDS = 3, 5, 200, 4.0  # calls before, calls timed at least and at most, time for them
STEP = 0.01  # Å, how far atoms move between calls


def measure(config: RunConfig, model: Path, structures: Sequence[Structure]) -> dict[str, Any]:
    """Measure a model on some structures.

    Args:
        config: the run that trained it, for device and kernels.
        model: folder of its weights.
        structures: of elements that it knows; levels named where it has several.

    Returns:
        Seconds per atom in a batch and in a calculator, the sizes they were measured on, threads, peak memory in MiB,
        whether other programs computed meanwhile.
    """
    device = torch.device(_device(config.device))
    gauge = Gauge(device)
    begun = gauge.now()
    potential = load_bundle(model, device=device).hold_weights().eval()
    batch = batch_of(structures)
    n_atoms = sum(map(len, batch))

    def whole() -> None:
        with torch.no_grad():
            weight = next(potential.parameters())
            graph = build_graph(batch, potential.needs, heads=potential.heads, dtype=weight.dtype, device=weight.device)
            potential(graph)

    seconds, calls = median_of(whole, gauge)
    found: dict[str, Any] = {
        "batch_seconds_per_atom": seconds / n_atoms, "batch_atoms": n_atoms, "batch_structures": len(batch),
        "batch_calls": calls, **_calculator(potential, max(structures, key=len), gauge),
    }  # fmt: skip
    return found | {
        "threads": torch.get_num_threads(), "memory_mib": gauge.peak() / 2**20, "device": str(device),
        "crowded": crowded(begun, gauge.now()),
    }  # fmt: skip


def _calculator(potential: Potential, structure: Structure, gauge: Gauge) -> dict[str, Any]:
    """Time one structure in the ASE calculator; empty with the reason where it cannot be used."""
    atoms = Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
    atoms.info |= {"charge": structure.charge or 0.0, "multiplicity": structure.multiplicity or 1}
    if potential.needs.atom_charges:
        atoms.set_initial_charges(structure.labels["charges"])
    random, start = np.random.default_rng(0), structure.positions.copy()
    try:
        atoms.calc = ForgeField(potential, head=structure.level or potential.heads[0])

        def step() -> None:
            atoms.set_positions(start + random.normal(0.0, STEP, start.shape))
            atoms.get_forces()

        seconds, calls = median_of(step, gauge)
    except (ForgeError, NotImplementedError) as error:
        return {"step_seconds_per_atom": None, "step_note": str(error)}
    return {"step_seconds_per_atom": seconds / len(structure), "step_atoms": len(structure), "step_calls": calls}


def median_of(call: Callable[[], None], gauge: Gauge) -> tuple[float, int]:
    """Return the median seconds of a call, after a few that warm it up, and how many were timed."""
    for _ in range(WARM):
        call()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < LEAST or (len(times) < MOST and time.perf_counter() - begin < SECONDS):
        start = gauge.now().wall
        call()
        times.append(gauge.now().wall - start)
    return statistics.median(times), len(times)


def batch_of(structures: Sequence[Structure]) -> list[Structure]:
    """Return the first structures, as many as a batch shall hold, at least one."""
    found: list[Structure] = []
    for structure in structures[:MOST_STRUCTURES]:
        if found and sum(map(len, found)) + len(structure) > MOST_ATOMS:
            break
        found.append(structure)
    return found


def write_timing(plan: Path, target: Path, tests: Sequence[Path]) -> Path:
    """Measure the best weights of a run on the comparison's first test set, else on its validation structures."""
    (config,) = load_run(plan)
    sets = open_sets(config, tests)
    datasets: list[Dataset] = [*sets.tests.values(), *([sets.val] if sets.val is not None else []), sets.train]
    chosen = [datasets[0][k] for k in range(min(len(datasets[0]), MOST_STRUCTURES))]
    with kernels(config.kernels):
        model = (config.run_dir or Path()) / "checkpoints" / "best"
        return write_json(target, measure(config, model, chosen))


def _device(name: str) -> str:
    return ("cuda:0" if torch.cuda.is_available() else "cpu") if name == "auto" else name


if __name__ == "__main__":
    try:
        write_timing(Path(sys.argv[1]), Path(sys.argv[2]), [Path(word) for word in sys.argv[3:]])
    except ForgeError as problem:
        sys.stderr.write(f"error: {problem}\n")
        raise SystemExit(2) from None
