"""Register the Triton operators for CUDA, if Triton is installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from typing import NamedTuple

import torch


class Loaded(NamedTuple):
    """What came of loading the operators for CUDA."""

    ready: bool
    words: str  # "Triton 3.6.0", or why not


@cache
def load() -> Loaded:
    """Register the operators for CUDA tensors if asked to. Never raises: else plain PyTorch runs and is told."""
    if os.environ.get("FORGEFIELD_KERNELS") == "plain":
        return Loaded(False, "plain PyTorch (FORGEFIELD_KERNELS=plain)")
    if os.environ.get("FORGEFIELD_TRITON") != "1":
        # Until `pytest -m gpu tests/kernels` has passed on a device, nobody gets these kernels unasked.
        return Loaded(False, "plain PyTorch (the Triton kernels are unproven: FORGEFIELD_TRITON=1 asks for them)")
    found = importlib.util.find_spec("triton")
    if found is None or found.origin is None:
        return _absent("Triton is not installed")
    try:
        import triton

        from forgefield.kernels import operators  # noqa: F401  (defines what is registered below)
        from forgefield.kernels.triton import contraction, edge_product, gated
    except (ImportError, RuntimeError) as error:
        return _absent(f"Triton cannot be loaded: {str(error).strip().splitlines()[0]}")
    for module in (edge_product, contraction, gated):
        for function in module.OPERATORS:
            torch.library.impl(f"forgefield::{function.__name__}", "cuda", function)
    return Loaded(True, f"Triton {triton.__version__}")


def _absent(reason: str) -> Loaded:
    print(f"Triton kernels not available, plain PyTorch runs instead (slower): {reason}", file=sys.stderr, flush=True)
    return Loaded(False, f"plain PyTorch ({reason})")
