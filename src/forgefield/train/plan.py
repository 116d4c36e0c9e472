"""How many batches and updates a fit has."""

from __future__ import annotations

import math

from forgefield.core.errors import ConfigError
from forgefield.train.settings import TrainSettings


def usable_batches(n_batches: int, settings: TrainSettings) -> int:
    """Batches of an epoch that are trained on; `drop_last` leaves out those that do not fill an update.

    Raises:
        ConfigError: there are none.
    """
    usable = n_batches - n_batches % settings.accum_steps if settings.drop_last else n_batches
    if usable == 0:
        raise ConfigError(
            f"an epoch has {n_batches} batches of {settings.limits.describe()}, too few for one update",
            "train.batch_size",
            "use smaller batches or lower accum_steps, or set drop_last: false",
        )
    return usable


def batches_per_update(usable: int, settings: TrainSettings) -> int:
    """Batches of one update; L-BFGS takes all of an epoch."""
    return usable if settings.optimizer == "lbfgs" else settings.accum_steps


def updates_per_epoch(n_batches: int, settings: TrainSettings) -> int:
    """Updates of an epoch whose loader gives so many batches.

    Raises:
        ConfigError: there are none.
    """
    usable = usable_batches(n_batches, settings)
    return math.ceil(usable / batches_per_update(usable, settings))


def planned_updates(per_epoch: int, settings: TrainSettings) -> int:
    """Updates of the whole fit, as the settings plan it."""
    return min(settings.epochs * per_epoch, settings.max_updates or settings.epochs * per_epoch)
