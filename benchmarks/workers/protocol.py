"""What both benchmark workers share: the case, the clock, the memory, and the talk with the parent.

Runs in either interpreter; needs NumPy only.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

MODEL = {
    "hidden": os.environ.get("BENCHMARK_HIDDEN", "64x0e + 64x1o"),
    "r_max": 5.0,
    "max_ell": 3,
    "correlation": 3,
    "num_interactions": 2,
    "num_bessel": 8,
    "num_polynomial_cutoff": 5,
    "radial": [64, 64, 64],
    "readout": "16x0e",
    "energy_per_atom": -5.0,
}
LEARNING_RATE, CLIP = 1e-3, 10.0
ENERGY_WEIGHT, FORCE_WEIGHT = 1.0, 100.0


def load_case(path: str) -> dict[str, np.ndarray]:
    """The structures and labels that the parent wrote: ptr, numbers, positions, cell, pbc, energy, forces."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def resident_kib(peak: bool = False) -> int:
    """Memory of this process now, or its highest since `forget_peak`, KiB (Linux)."""
    field = "VmHWM" if peak else "VmRSS"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise RuntimeError(f"no {field} in /proc/self/status")


def forget_peak() -> None:
    """Start a new high-water mark of the resident memory."""
    Path("/proc/self/clear_refs").write_text("5")


def malloc_library() -> str:
    """Name of the library whose malloc this process calls (Linux)."""
    address = ctypes.cast(ctypes.CDLL(None).malloc, ctypes.c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(text, 16) for text in line.split()[0].split("-"))
        if start <= address < stop:
            return line.rsplit("/", 1)[-1]
    raise RuntimeError("no file holds malloc")


class Channel:
    """JSON lines to the parent; whatever else is printed goes to standard error."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def send(self, message: dict[str, object]) -> None:
        """Write one line."""
        print(json.dumps(message), file=self.out, flush=True)


def serve(
    channel: Channel,
    steps: dict[str, Callable[[], None]],
    predict: Callable[[], dict[str, object]],
    about: dict[str, object],
) -> None:
    """Answer the parent's orders until it closes the pipe.

    `{"do": "predict"}` is answered with the predictions of the untrained model. `{"do": "train", "steps": 3}` is
    answered with the seconds of each step, the peak of the resident memory above what it was when set-up was done and
    nothing had been computed yet, MiB, and the pages that the kernel gave per step.
    """
    at_rest = resident_kib()
    channel.send({"rest_mib": at_rest / 1024, **about})
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "predict":
            channel.send(predict())
            continue
        step, seconds = steps[order["do"]], []
        forget_peak()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(order["steps"]):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        above = (resident_kib(peak=True) - at_rest) / 1024
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        channel.send({"seconds": seconds, "peak_mib": above, "faults": faults / len(seconds)})
