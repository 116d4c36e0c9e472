"""Memory and time of the device a run computes on, as they can be read while it runs."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

STATUS, MEMINFO, STAT = Path("/proc/self/status"), Path("/proc/meminfo"), Path("/proc/stat")
GROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
_CROWDED, _OTHERS = 0.85, 0.1  # of the cores: in use in all, in use by other programs


class Clock(NamedTuple):
    """A moment, s: on the wall, in computing time of this process, and in that of the machine where it is known."""

    wall: float
    cpu: float
    machine: float | None


class Gauge:
    """Reads memory (bytes) and time: of the device on CUDA, of this process elsewhere.

    Args:
        device: where the run computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(device)

    def now(self) -> Clock:
        """Return the moment at which all work given to the device is done."""
        if self.cuda:
            torch.cuda.synchronize(self.device)
        return Clock(time.perf_counter(), time.process_time(), _machine_seconds())

    def used(self) -> int:
        """Memory in use now."""
        if self.cuda:
            return torch.cuda.memory_allocated(self.device)
        return _status("VmRSS") or process_peak()

    def peak(self) -> int:
        """Most memory used so far."""
        return torch.cuda.max_memory_allocated(self.device) if self.cuda else process_peak()

    def limit(self) -> int | None:
        """Most memory that this process may come to use; None where nothing tells."""
        if self.cuda:
            free, _ = torch.cuda.mem_get_info(self.device)
            return free + torch.cuda.memory_reserved(self.device)
        free = [room for room in (_free_memory(), *(_room(*paths) for paths in GROUPS)) if room is not None]
        return min(free) + self.used() if free else None


def process_peak() -> int:
    """Most memory that this process has held, bytes; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def crowded(start: Clock, end: Clock) -> bool:
    """Say whether other programs kept the cores that this process could have used busy between two moments."""
    if start.machine is None or end.machine is None:
        return False
    there = (end.wall - start.wall) * (os.cpu_count() or 1)
    everyone, own = end.machine - start.machine, end.cpu - start.cpu
    return everyone > _CROWDED * there and everyone - own > _OTHERS * there


def _machine_seconds() -> float | None:
    """Return the seconds that all cores have computed for anyone since the machine started; None if nothing tells."""
    try:
        first = STAT.read_text(encoding="utf-8").split("\n", 1)[0].split()
        user, nice, system, _, _, *others = map(int, first[1:9])
        return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None


def _status(name: str) -> int:
    return _kilobytes(STATUS, name) or 0


def _free_memory() -> int | None:
    return _kilobytes(MEMINFO, "MemAvailable")


def _kilobytes(path: Path, name: str) -> int | None:
    """Return a line `name: 123 kB` of a file of the kernel, in bytes."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def _room(limit: Path, used: Path) -> int | None:
    """Return what a control group leaves, bytes; None without a limit."""
    try:
        return max(0, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):
        return None
