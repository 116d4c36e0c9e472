"""How long idle threads of GNU OpenMP spin before they sleep.

At the end of every parallel loop threads wait for each other. libgomp lets them spin for about a millisecond, which is
best on a machine of one's own. Beside other busy programs the thread that is waited for may have lost its core to one
that spins, again and again: a model then ran more than thirty times slower (benchmarks/LOG.md).
"""

from __future__ import annotations

import os
import sys

VARIABLE = "GOMP_SPINCOUNT"
SPINS = "3000"  # about ten microseconds: no slower on a quiet machine
_OWN_SETTINGS = (VARIABLE, "OMP_WAIT_POLICY")


def bound_spinning() -> bool:
    """Set the limit for this process and those it starts; libgomp reads it when PyTorch is imported.

    Returns:
        Whether it was set: not over a setting of the user's own, and not once PyTorch has been imported.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _OWN_SETTINGS):
        return False
    os.environ[VARIABLE] = SPINS
    return True
