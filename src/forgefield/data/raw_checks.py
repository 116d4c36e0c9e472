"""What every frame must be, whatever file it came from, before its labels are looked at."""

from __future__ import annotations

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.raw_frame import RawFrame


def check_raw(raw: RawFrame) -> None:
    """Refuse a frame whose atoms or cell are no plain, finite numbers of the right shape.

    Raises:
        DataError: names the frame and what is wrong with it.
    """
    n = len(raw.numbers)
    if n == 0:
        raise DataError("holds no atoms", raw.origin, "remove this frame")
    shapes = {"positions": (n, 3), "cell": (3, 3), "pbc": (3,)}
    for name, shape in shapes.items():
        value = np.asarray(getattr(raw, name))
        if value.dtype.kind not in "biuf":
            raise DataError(f"{name} hold {value.dtype} instead of numbers", raw.origin, "repair this frame")
        if value.shape != shape:
            raise DataError(f"{name} has shape {value.shape}, expected {shape}", raw.origin, "repair this frame")
        if name != "pbc" and not np.isfinite(value).all():
            raise DataError(f"{name} hold NaN or infinity", raw.origin, "remove or repair this frame")
    for name in ("fixed", "tags"):
        value = getattr(raw, name)
        if value is not None and np.shape(value) != (n,):
            raise DataError(f"{name} has shape {np.shape(value)}, expected ({n},)", raw.origin, "repair this frame")
