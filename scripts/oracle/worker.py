"""The project's own worker, loaded from its file: golden files have the form that users' imports have."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

WORKER = Path(__file__).resolve().parents[2] / "src/forgefield/engines/workers/mace_torch.py"


def load_worker() -> ModuleType:
    """The worker as a module."""
    spec = importlib.util.spec_from_file_location("mace_torch_worker", WORKER)
    if spec is None or spec.loader is None:
        raise SystemExit(f"no worker at {WORKER}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
