"""Where the plug-ins of the trainer stand."""

from __future__ import annotations

from collections.abc import Callable

from forgefield.core.errors import ForgeError

LOSSES = "forgefield.train.losses"
OPTIMIZERS = "forgefield.train.optimizers"
SCHEDULES = "forgefield.train.schedules"
RECORDS = "forgefield.train.records"


def as_value_error(action: Callable[[], object]) -> None:
    """Run a check so that its complaint is reported at the key, with file and line."""
    try:
        action()
    except ForgeError as error:
        raise ValueError(str(error)) from None
