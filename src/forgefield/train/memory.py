"""How much memory there is, and how much a piece of work took."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEMINFO = Path("/proc/meminfo")
GROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)  # the limit of a container and what is used of it, version 2 and version 1


class Meter(ABC):
    """Memory of one device, bytes."""

    @abstractmethod
    def free(self) -> int | None:
        """Return what can still be had; None if the system does not tell."""

    @abstractmethod
    def start(self) -> None:
        """Begin to watch for the highest use."""

    @abstractmethod
    def taken(self) -> int:
        """Return the highest use since `start`, over what was in use when the meter was made."""

    @abstractmethod
    def clear(self) -> None:
        """Give back what is held but not used."""


class HostMeter(Meter):
    """Memory of this process: its resident set, from the kernel's records (Linux)."""

    def __init__(self) -> None:
        self._before = _status("VmRSS") or 0

    def free(self) -> int | None:
        """Return the memory that is available to this process, the limit of its container included."""
        found = [_entry(MEMINFO, "MemAvailable"), *(_room(limit, used) for limit, used in GROUPS)]
        known = [value for value in found if value is not None]
        return min(known) if known and _status("VmHWM") is not None else None

    def start(self) -> None:
        """Begin to watch for the highest use."""
        try:
            CLEAR.write_text("5", encoding="ascii")  # forgets the highest resident set so far
        except OSError:
            return  # then the highest use of the whole process counts: a batch may look larger than it is

    def taken(self) -> int:
        """Return the highest resident set since `start`, over the one when the meter was made."""
        return max(0, (_status("VmHWM") or 0) - self._before)

    def clear(self) -> None:
        """Nothing: the allocator decides."""


class CudaMeter(Meter):
    """Memory of a CUDA device as torch's allocator counts it.

    Args:
        device: the CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = torch.cuda.memory_allocated(device)

    def free(self) -> int | None:
        """Return what the driver has left, and what the allocator holds without using it."""
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(torch.cuda.mem_get_info(self.device)[0]) + unused

    def start(self) -> None:
        """Begin to watch for the highest use."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def taken(self) -> int:
        """Return the most memory allocated since `start`, over what was allocated when the meter was made."""
        return max(0, torch.cuda.max_memory_allocated(self.device) - self._before)

    def clear(self) -> None:
        """Give the allocator's unused blocks back to the driver."""
        torch.cuda.empty_cache()


def meter_of(device: torch.device) -> Meter:
    """Return the meter of a device."""
    return CudaMeter(device) if device.type == "cuda" else HostMeter()


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory was not enough."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _status(name: str) -> int | None:
    return _entry(STATUS, name) if sys.platform == "linux" else None


def _entry(path: Path, name: str) -> int | None:
    """Return a line `name: 123 kB` of a file of the kernel in bytes."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith(f"{name}:")]
    return int(found[0][1]) * 1024 if found else None


def _room(limit: Path, used: Path) -> int | None:
    """Return what a container's limit leaves; None without one."""
    try:
        return max(0, int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return None
