"""One frame as its file has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class RawFrame(NamedTuple):
    """One frame as the file has it: its own names, units and signs."""

    numbers: np.ndarray  # (N,)
    positions: np.ndarray  # (N, 3)
    cell: np.ndarray  # (3, 3), rows
    pbc: np.ndarray  # (3,)
    values: Mapping[str, Any]  # of the structure
    arrays: Mapping[str, np.ndarray]  # of the atoms, (N, ...)
    origin: str
    fixed: np.ndarray | None = None
    tags: np.ndarray | None = None
