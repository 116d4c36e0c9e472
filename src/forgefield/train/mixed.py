"""Mixed precision: which type is computed in, and whether the device can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from forgefield.core.errors import ConfigError

if TYPE_CHECKING:
    from forgefield.models.potential import Potential

Amp = bool | Literal["float16", "bfloat16"]


def asked_type(amp: Amp) -> torch.dtype | None:
    """Return the type that a value of `amp` stands for; None without mixed precision."""
    if not amp:
        return None
    return torch.bfloat16 if amp == "bfloat16" else torch.float16


def usable_type(amp: Amp, device: torch.device) -> torch.dtype | None:
    """Return the type that is computed in on a device: the one asked for, or None where it is not to be had."""
    return None if lacking(amp, device) is not None else asked_type(amp)


def lacking(amp: Amp, device: torch.device) -> str | None:
    """Return why the type asked for is not to be had on a device, in words; None if it is."""
    wanted = asked_type(amp)
    if wanted is torch.float16 and device.type != "cuda":
        return f"float16 autocast is for CUDA devices only, this is {device.type}"
    if wanted is not torch.bfloat16:
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU does not compute in bfloat16"
    if device.type not in ("cpu", "cuda"):
        return f"bfloat16 autocast is for CUDA devices and CPUs, this is {device.type}"
    return None


def check_amp(amp: Amp, potential: Potential) -> None:
    """Refuse mixed precision of a float64 model.

    Raises:
        ConfigError: that is what is asked for.
    """
    wanted = asked_type(amp)
    if wanted is not None and potential.dtype == torch.float64:
        name = str(wanted).removeprefix("torch.")
        raise ConfigError(f"amp computes in {name}, the model is float64", "train.amp", "set dtype: float32, or no amp")
