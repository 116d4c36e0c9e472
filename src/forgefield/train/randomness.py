"""The states of all random number generators, as JSON values and tensors."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

APART = 1_000_003  # between the seeds of processes that train together


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed python, numpy and torch on every device; each process that trains with others has numbers of its own."""
    seed += APART * rank
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the states of python, numpy, torch and every CUDA device in use."""
    version, words, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state()
    plain = {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), int(place), int(has_gauss), float(cached)],
    }
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        tensors |= {f"cuda.{k}": state for k, state in enumerate(torch.cuda.get_rng_state_all())}
    return plain, tensors


def restore(plain: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Put back what `capture` returned; CUDA states only where there is such a device."""
    version, words, gauss = plain["python"]
    random.setstate((version, tuple(words), gauss))
    kind, place, has_gauss, cached = plain["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), place, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    for name, state in tensors.items():
        device = int(name.removeprefix("cuda.")) if name.startswith("cuda.") else None
        if device is not None and torch.cuda.is_available() and device < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, device)


class Draws:
    """The random numbers that torch draws from now on, to be drawn again.

    Args:
        device: where the model is, beside the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.cpu = torch.get_rng_state()
        self.device = device if device.type == "cuda" else None
        self.cuda = None if self.device is None else torch.cuda.get_rng_state(self.device)

    def again(self) -> None:
        """Go back to the moment at which this was made."""
        torch.set_rng_state(self.cpu)
        if self.device is not None and self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)


def packed() -> bytes:
    """Return the states as bytes, to be sent from one process to another."""
    plain, tensors = capture()
    head = json.dumps(plain).encode()
    return len(head).to_bytes(8, "little") + head + save_tensors(tensors)


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what `packed` held, as `capture` gave it."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), load_tensors(data[end:])
