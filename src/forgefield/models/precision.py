"""How exactly float32 matrices are multiplied: strictly, unless something faster and coarser is asked for.

torch keeps this for the whole process, and the environment can change it. It is set where we compute, and put back.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor

from forgefield.core.errors import ConfigError
from forgefield.core.settings import Matmul
from forgefield.kernels.choice import kernels

_WORDS = {"float32": "highest", "tf32": "high", "bf16": "medium"}  # torch's
_STRICT = 2e-5  # relative error of a product: float32 has 1e-6, TF32 3e-4, bfloat16 2e-3
_PROBE = 128  # rows and columns of the matrices that are tried


@contextmanager
def matmul_precision(matmul: Matmul, device: torch.device) -> Generator[None]:
    """Multiply float32 matrices in this precision for the time of a `with` block; what held before is put back.

    Where the machine cannot do it the products are strict float32; `missing` says so beforehand.

    Args:
        matmul: `float32` (strict), `tf32` (factors rounded to 10 bits of fraction) or `bf16` (to 7); sums are float32.
        device: where it is computed.
    """
    with _set("float32" if missing(matmul, device) else matmul):
        yield


def missing(matmul: Matmul, device: torch.device, dtype: torch.dtype = torch.float32) -> str | None:
    """Say why a precision has no effect, as the end of a sentence about it; None if it has one.

    Args:
        matmul: the precision; `float32` is always there.
        device: where it is computed.
        dtype: of the model.
    """
    if matmul == "float32":
        return None
    if dtype != torch.float32:
        return f"is off: it is for float32 models, this one is {str(dtype).removeprefix('torch.')}"
    if matmul == "bf16" and device.type == "cuda":
        return "is off: torch has no bfloat16 products of float32 matrices on CUDA (tf32 is there)"
    if not _takes_effect(matmul, str(device)):
        needs = "an NVIDIA GPU of compute capability 8.0 or more" if matmul == "tf32" else "a processor with AMX"
        return f"is off: it needs {needs}; products of float32 matrices are exact here ({device.type})"
    return None


def require(matmul: Matmul, device: torch.device, dtype: torch.dtype, where: str) -> None:
    """Refuse a precision that has no effect.

    Args:
        matmul: the precision.
        device: where it is computed.
        dtype: of the model.
        where: the setting, for the message.

    Raises:
        ConfigError: there is no such precision, or it has no effect here.
    """
    if matmul not in _WORDS:
        raise ConfigError(f"{matmul!r} is no precision of matrix products", where, f"use one of: {', '.join(_WORDS)}")
    reason = missing(matmul, device, dtype)
    if reason is not None:
        raise ConfigError(f"{matmul} {reason}", where, "use float32")


@contextmanager
def _set(matmul: Matmul) -> Generator[None]:
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        word = torch.get_float32_matmul_precision()
    except RuntimeError:  # torch refuses to sum up settings that were made backend by backend
        word = None
    torch.set_float32_matmul_precision(_WORDS[matmul])
    try:
        yield
    finally:
        if word is not None:
            torch.set_float32_matmul_precision(word)
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = "none"  # what a broader setting says
            if backend.fp32_precision != value:
                backend.fp32_precision = value


@functools.cache
def _takes_effect(matmul: Matmul, device: str) -> bool:
    """Try it: say whether a product comes out less exact than float32."""
    with _set(matmul), torch.no_grad():
        return relative_error(torch.device(device)) > _STRICT


def relative_error(device: torch.device) -> float:
    """Return the error of one float32 product on a device as things are set now, over its largest element."""
    angles = torch.arange(_PROBE * _PROBE, dtype=torch.float64).reshape(_PROBE, _PROBE)
    first, second = (torch.sin(angles * factor).float().to(device) for factor in (1.3, 0.7))
    exact: Tensor = first.double() @ second.double()
    return float(((first @ second).double() - exact).abs().max() / exact.abs().max())


@contextmanager
def autocast(device: torch.device, dtype: torch.dtype | None) -> Generator[None]:
    """Compute in mixed precision inside a `with` block; None changes nothing.

    The compiled operators take one type only, so the hot sums run in plain PyTorch meanwhile.
    """
    if dtype is None:
        yield
        return
    with kernels("plain"), torch.autocast(device.type, dtype=dtype):
        yield
