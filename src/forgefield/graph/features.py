"""Further inputs of structures: temperatures, pressures, descriptors, whatever the user's data hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.graph.needs import Needs


def join_features(structures: Sequence[Structure], needs: Needs) -> np.ndarray:
    """Return the features that a model asks for, one row per structure, (S, X).

    Raises:
        DataError: a structure lacks one, or it is of another length.
    """
    width = sum(length for _, length in needs.features)
    rows = np.zeros((len(structures), width))
    for row, structure in zip(rows, structures, strict=True):
        start = 0
        for name, length in needs.features:
            row[start : start + length] = _feature(structure, name, length)
            start += length
    return rows


def _feature(structure: Structure, name: str, length: int) -> np.ndarray:
    value = structure.features.get(name)
    fix = f"name it under data.features: {{{name}: NAME_IN_THE_FILE}}"
    if structure.origin == "Atoms":
        fix = f'set atoms.info["{name}"]'
    if value is None:
        raise DataError(f"the model needs the feature {name} ({length} numbers)", structure.origin, fix)
    if value.shape != (length,):
        what = f"feature {name} has shape {value.shape}, the model was made for ({length},)"
        raise DataError(what, structure.origin, "give as many numbers to each structure")
    return value
