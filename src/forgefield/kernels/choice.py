"""Which code runs the hot sums: the compiled operators, or plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from forgefield.kernels.library import load
from forgefield.kernels.triton.load import load as load_triton

Kernels = Literal["auto", "plain"]
_chosen: Kernels = "auto"


@contextmanager
def kernels(choice: Kernels) -> Iterator[None]:
    """Choose inside a `with` block: auto (compiled operators where there are some) or plain (never)."""
    global _chosen
    before, _chosen = _chosen, choice
    try:
        yield
    finally:
        _chosen = before


def compiled(x: Tensor) -> bool:
    """Whether compiled operators take this tensor; never while a model is traced for export."""
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return False
    return _ready(x.device.type, _chosen)


@torch.compiler.assume_constant_result  # so that torch.compile need not follow how a library is built and loaded
def _ready(device: str, choice: Kernels) -> bool:
    if choice == "plain":
        return False
    if device == "cuda":
        return load_triton().ready
    return device == "cpu" and load().path is not None


def describe(device: torch.device) -> str:
    """Return what runs on a device, in words for records and reports."""
    if _chosen == "plain":
        return "plain PyTorch (kernels: plain)"
    if device.type == "cuda":
        return load_triton().words
    return load().words if device.type == "cpu" else "plain PyTorch"
