"""Time energies, forces and stress of bulk silicon from 64 to 8,000 atoms: the cost of an atom should not grow.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --repeats 2 4 8 10 14     # 14: 21,952 atoms

One model (random weights) of the shape of `mace_train.py`, sizes in turns; medians. Pairs and graph are made anew in
each call and timed by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import bulk

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from geometry import displaced  # noqa: E402
from mace_train import describe_machine  # noqa: E402

from forgefield.core import allocator  # noqa: E402
from forgefield.core.structure import Structure  # noqa: E402
from forgefield.graph.build import build_graph  # noqa: E402
from forgefield.graph.pairs import find_pairs  # noqa: E402
from forgefield.models.architectures.mace.settings import MaceSettings  # noqa: E402
from forgefield.models.potential import Potential, build_potential  # noqa: E402

CUTOFF = 5.0  # Å
ATOMS_PER_TURN = 4096  # small cells are computed several times in a turn, so that it is long enough for the clock


def crystal(repeats: int) -> Structure:
    """Diamond silicon, displaced at random."""
    atoms = displaced(bulk("Si", cubic=True) * ((repeats,) * 3), seed=0)
    return Structure(atoms.numbers, atoms.positions, atoms.cell.array, np.ones(3, dtype=bool))


def make_potential(structure: Structure, dtype: torch.dtype) -> Potential:
    """A MACE with 64x0e + 64x1o, cutoff 5 Å, two interactions, random weights."""
    neighbours = 2 * len(find_pairs(structure, CUTOFF).first) / len(structure)
    settings = MaceSettings(hidden_irreps="64x0e + 64x1o", r_max=CUTOFF)
    energies = {"default": {14: -5.0}}
    return build_potential(
        "mace", settings, elements=[14], reference_energies=energies, avg_num_neighbors=neighbours, dtype=dtype
    )


def one_turn(potential: Potential, structure: Structure, atoms_per_turn: int) -> tuple[float, float]:
    """Microseconds per atom of the graph and of the model."""
    dtype, times = potential.dtype, max(1, atoms_per_turn // len(structure))
    start = time.perf_counter()
    for _ in range(times):
        graph = build_graph([structure], potential.needs, heads=potential.heads, dtype=dtype)
    middle = time.perf_counter()
    with torch.no_grad():
        for _ in range(times):
            potential(graph)
    per_atom = 1e6 / (times * len(structure))
    return (middle - start) * per_atom, (time.perf_counter() - middle) * per_atom


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians over the rounds; in each round every size has a turn."""
    dtype = getattr(torch, options.dtype)
    structures = [crystal(n) for n in options.repeats]
    potential = make_potential(structures[0], dtype)
    found: list[list[tuple[float, float]]] = [[] for _ in structures]
    for turn in range(options.rounds + 1):
        for row, structure in zip(found, structures, strict=True):
            row.append(one_turn(potential, structure, 1 if options.quick else ATOMS_PER_TURN))
            if turn == 0:
                row.clear()  # warm-up
    rows = []
    for structure, row in zip(structures, found, strict=True):
        graph, model = np.median(np.array(row), axis=0)
        rows.append({"n_atoms": len(structure), "graph_us_per_atom": graph, "model_us_per_atom": model})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, nargs="+", default=[2, 4, 8, 10], help="cubic cells along each edge")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a smoke test: one round of two small cells")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "scaling.json")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.rounds = [1, 2], 1
    options.allocator, options.compile = allocator.in_use(), False
    allocator.tune()
    torch.set_num_threads(options.threads)
    machine = describe_machine(options)
    rows = measure(options)
    first = rows[0]["model_us_per_atom"]
    for row in rows:
        text = f"{row['n_atoms']} atoms: graph {row['graph_us_per_atom']:.1f}, model {row['model_us_per_atom']:.1f} µs"
        print(f"{text} per atom, ratio to the smallest: {row['model_us_per_atom'] / first:.2f}", flush=True)
    options.json.write_text(json.dumps({"machine": machine, "dtype": options.dtype, "sizes": rows}, indent=1) + "\n")
    print(f"written: {options.json}")


if __name__ == "__main__":
    main()
