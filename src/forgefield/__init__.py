"""ForgeField: train, judge and hand out machine-learned interatomic potentials.

Names are imported when they are first used, so that `import forgefield` is quick and does nothing. None of them may be
called like a room (`train`, `export`, ...): importing a room sets its name here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forgefield.app.notebook import evaluate, fit, load, predict, run, save
    from forgefield.app.reports.page import write_report
    from forgefield.app.run import RunConfig, load_run
    from forgefield.core.errors import ForgeError
    from forgefield.core.structure import Structure
    from forgefield.data.dataset import open_dataset
    from forgefield.export.calculator import ForgeField

__version__ = "0.1.0"

__all__ = [
    "ForgeError",
    "ForgeField",
    "RunConfig",
    "Structure",
    "__version__",
    "evaluate",
    "fit",
    "load",
    "load_run",
    "open_dataset",
    "predict",
    "run",
    "save",
    "write_report",
]

_PLACES = {
    "ForgeError": "forgefield.core.errors",
    "ForgeField": "forgefield.export.calculator",
    "RunConfig": "forgefield.app.run",
    "Structure": "forgefield.core.structure",
    "evaluate": "forgefield.app.notebook",
    "fit": "forgefield.app.notebook",
    "load": "forgefield.app.notebook",
    "load_run": "forgefield.app.run",
    "open_dataset": "forgefield.data.dataset",
    "predict": "forgefield.app.notebook",
    "run": "forgefield.app.notebook",
    "save": "forgefield.app.notebook",
    "write_report": "forgefield.app.reports.page",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _PLACES:
        raise AttributeError(f"module 'forgefield' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
