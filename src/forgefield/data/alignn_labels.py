"""What all of ALIGNN's files have in common."""

from __future__ import annotations

import numpy as np

BOX = 499.0  # Å: ALIGNN puts molecules into a box of 500


def is_box(cell: np.ndarray) -> bool:
    """Return whether a cell is the empty box that ALIGNN puts molecules into."""
    return bool(np.array_equal(cell, np.diag(np.diag(cell))) and (np.diag(cell) >= BOX).all())
