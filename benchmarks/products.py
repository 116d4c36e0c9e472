"""Rates of the C++ matrix products beside PyTorch's own (MKL), for the shapes of a training step.

    python benchmarks/products.py --threads 1

Both sides take turns; the best of the turns counts, since what else runs on the machine only slows them down.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from forgefield.core import allocator
from forgefield.kernels.choice import describe
from forgefield.kernels.library import load
from forgefield.kernels.operators import ops

SHAPES = [(896, 64, 64), (896, 64, 640), (896, 640, 64), (3000, 64, 640)]  # rows x depth x columns
TURNS = 40


def best(*sides: Callable[[], object]) -> list[float]:
    """Shortest time of each side, s."""
    found = [float("inf")] * len(sides)
    for _ in range(TURNS):
        for place, side in enumerate(sides):
            start = time.perf_counter()
            side()
            found[place] = min(found[place], time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    allocator.tune()
    torch.set_num_threads(threads)
    if load().path is None:
        raise SystemExit(f"there is nothing to compare: {load().words}")
    print(f"{describe(torch.device('cpu'))}, torch {torch.__version__}, {threads} threads; GFLOP/s, own / PyTorch")
    none = torch.zeros(0, dtype=torch.int64)
    for rows, depth, columns in SHAPES:
        line = f"{rows} x {depth} x {columns}"
        for dtype in (torch.float32, torch.float64):
            x, w = torch.randn(rows, depth, dtype=dtype), torch.randn(depth, columns, dtype=dtype)
            g = torch.randn(rows, columns, dtype=dtype)
            own, theirs, own_gradient, their_gradient = best(
                lambda x=x, w=w: ops.linear(x, w, none, [1, 1, 0, 0], 1.0, False),
                lambda x=x, w=w: x @ w,
                lambda x=x, g=g, w=w: ops.linear_weights(x, g, none, [1, 1, 0, 0], 1.0, False, list(w.shape)),
                lambda x=x, g=g: x.T @ g,
            )
            work = 2e-9 * rows * depth * columns
            line += f" | {dtype}".replace("torch.", "") + f" {work / own:.0f} / {work / theirs:.0f}"
            line += f", gradient by the weights {work / own_gradient:.0f} / {work / their_gradient:.0f}"
        print(line)


if __name__ == "__main__":
    main()
