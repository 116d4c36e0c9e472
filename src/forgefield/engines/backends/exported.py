"""What every import of another program's checkpoint does: ask its interpreter, read what was written, keep a bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forgefield.core.errors import ModelError
from forgefield.engines.interpreter import Interpreter, WorkerRefusal
from forgefield.models.bundle import save_bundle
from forgefield.models.potential import Potential

Arrays = Mapping[str, np.ndarray]


class Program(NamedTuple):
    """Another program: its name, the worker that runs in its interpreter, and what it can read, in words."""

    name: str
    worker: Path
    takes: str


def import_checkpoint(
    program: Program, path: Path, python: Path, out: Path, convert: Callable[[Mapping[str, Any], Arrays], Potential]
) -> Potential:
    """Turn a checkpoint into a bundle.

    Args:
        program: whose checkpoint it is.
        path: the file; opened only by the other interpreter.
        python: an interpreter that has the program.
        out: folder of the new bundle.
        convert: builds our potential from the exported settings and arrays.

    Raises:
        ModelError: the model uses something we do not have; nothing is written.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            Interpreter(python).run(program.worker, ["export", str(Path(path).resolve()), folder], Path(folder))
        except WorkerRefusal as error:
            raise ModelError(error.what, Path(path).name, f"give {program.takes}") from error
        model, arrays = read_export(Path(folder))
    potential = convert(model, arrays)
    provenance = {"source": Path(path).name, "imported_from": {"engine": program.name, **model["versions"]}}
    save_bundle(potential, Path(out), provenance=provenance)
    return potential


def read_export(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what the worker wrote: the settings and all arrays."""
    with np.load(folder / "arrays.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads((folder / "model.json").read_text()), arrays
