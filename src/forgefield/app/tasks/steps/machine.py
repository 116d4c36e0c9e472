"""The machine a run computes on: device, versions, memory."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch
from rich.console import Console

from forgefield.app.tasks.steps.outcome import say
from forgefield.core import allocator
from forgefield.core.errors import DeviceError
from forgefield.kernels.choice import describe

PACKAGES = ("torch", "e3nn", "ase", "numpy", "vesin")


def choose_device(name: str, console: Console) -> torch.device:
    """Return the device that `name` means, and say which it is.

    Args:
        name: auto (the first CUDA device, else the CPU), cpu, cuda or cuda:N.
        console: for one line.

    Raises:
        DeviceError: it is not there; what is there is named.
    """
    count = torch.cuda.device_count()
    chosen = ("cuda:0" if count else "cpu") if name == "auto" else name
    device = torch.device(chosen)
    if device.type == "cuda" and (device.index or 0) >= count:
        there = "; ".join(["cpu", *(f"cuda:{k} ({torch.cuda.get_device_name(k)})" for k in range(count))])
        raise DeviceError(f"{name} is not there", "device", f"use auto, or one of: {there}")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda:0")
    note = " (auto: no CUDA device found)" if name == "auto" and not count else ""
    say(console, f"device: {describe_device(device)}{note}")
    return device


def describe_device(device: torch.device) -> str:
    """Return the device in words."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({processor()}, {torch.get_num_threads()} threads)"


def environment(device: torch.device, dtype: torch.dtype) -> dict[str, object]:
    """Return versions and machine, for the record of a run."""
    found: dict[str, object] = {"forgefield": sys.modules["forgefield"].__version__}
    found |= {name: _version(name) for name in PACKAGES}
    return found | {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": f"{processor()}, {os.cpu_count()} logical cores",
        "threads": torch.get_num_threads(),
        "allocator": allocator.in_use(),
        "device": describe_device(device),
        "kernels": describe(device),
        "dtype": str(dtype).removeprefix("torch."),
    }


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return the most memory used so far, MiB: of this process, and on the device."""
    found = {}
    if sys.platform != "win32":
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        found["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    if device.type == "cuda":
        found[str(device)] = torch.cuda.max_memory_allocated(device) / 2**20
    return found


def processor() -> str:
    """Return the processor's name, or its kind."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
            return next(names, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
