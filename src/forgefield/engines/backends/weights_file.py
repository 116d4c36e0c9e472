"""Tensors by name from a file of `torch.save`, by torch's restricted reader: nothing in the file is called."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgefield.core.errors import ModelError

WITHIN = ("model", "state_dict", "model_state_dict")
"""Where checkpoints that hold more than weights keep them."""
SPREAD = "module."
"""Before each name, where a model was trained by several processes."""
FIX = "give a file of tensors by name, as torch.save(model.state_dict(), ...) writes it"
DAMAGED = (RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a model that another program saved with torch.

    Args:
        path: of the file: tensors by name, or a checkpoint that holds them under `model` or `state_dict`.

    Raises:
        ModelError: it is damaged, holds other things than tensors and plain values, or no weights.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notices about pickle's protocol
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = "cannot be read as weights: it holds more than tensors and plain values, or is damaged"
        raise ModelError(what, str(path), FIX) from error
    except DAMAGED as error:
        what = f"cannot be read as weights ({str(error).strip().splitlines()[0][:200] if str(error) else 'damaged'})"
        raise ModelError(what, str(path), FIX) from error
    inner = next((found[k] for k in WITHIN if isinstance(found, dict) and isinstance(found.get(k), dict)), found)
    if not isinstance(inner, dict) or not inner or not all(isinstance(value, Tensor) for value in inner.values()):
        raise ModelError(
            "holds no tensors by name", str(path), "give the weights of a model, for example best_model.pt"
        )
    return {str(name).removeprefix(SPREAD): value for name, value in inner.items()}
