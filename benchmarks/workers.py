"""What processes that build batches ahead take off the process that trains, and what they cost.

    python benchmarks/workers.py FRAMES.xyz
    python benchmarks/workers.py FRAMES.xyz --batch-size 32 --workers 0 2 4 --cutoff 6

For each number of processes: CPU time of this process per batch (what the model waits for where it runs on an
accelerator, and what it gets back), CPU time of the others, and wall time per batch when nothing else is done; in the
first epoch, in which neighbours are found, and in a later one. Wall times need a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch

from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.isolated import separate_isolated
from forgefield.data.loader import Loader, make_loader
from forgefield.graph.needs import Needs

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(processes: list[int]) -> float:
    """Return the CPU seconds that processes have used."""
    rows = [Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split() for number in processes]
    return sum(int(row[11]) + int(row[12]) for row in rows) / TICKS


def pass_over(loader: Loader, epoch: int) -> tuple[float, float, float]:
    """Return ms per batch: CPU of this process, CPU of the others, wall; starting the others is not counted."""
    if loader.num_workers:
        list(loader.prepared([np.array([0])] * 2))  # the processes are started
    others = [] if loader.num_workers == 0 else loader._crew.processes
    before = time.process_time(), cpu_of(others), time.perf_counter()
    count = sum(1 for _ in loader.batches(epoch))
    after = time.process_time(), cpu_of(others), time.perf_counter()
    return tuple(1e3 * (b - a) / count for a, b in zip(before, after, strict=True))


def start(dataset: Dataset, needs: Needs, workers: int) -> float:
    """Return the seconds until the first batch of so many processes is there."""
    loader = make_loader(dataset, needs, batch_size=1, num_workers=workers)
    began = time.perf_counter()
    next(loader.batches())
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("frames", type=Path)
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--cutoff", type=float, default=5.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset, _ = separate_isolated(open_dataset(options.frames))
    needs = Needs(options.cutoff)
    print(f"{len(dataset)} structures, batches of {options.batch_size}, cutoff {options.cutoff} Å; ms per batch")
    print(f"{'workers':>8s} {'epoch':>8s} {'here, CPU':>12s} {'others, CPU':>12s} {'wall':>8s} {'start, s':>9s}")
    for workers in options.workers:
        loader = make_loader(dataset, needs, batch_size=options.batch_size, shuffle=True, num_workers=workers)
        began = start(dataset, needs, workers) if workers else 0.0
        for epoch, name in enumerate(("first", "", "", "", "later")):
            here, others, wall = pass_over(loader, epoch)
            if name:
                print(f"{workers:8d} {name:>8s} {here:12.2f} {others:12.2f} {wall:8.2f} {began:9.1f}")
        loader.close()
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
