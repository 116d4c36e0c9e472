"""How often something is done: every so many updates, epochs or cycles."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from forgefield.train.state import Progress

Unit = Literal["update", "epoch", "cycle"]
_TEXT = re.compile(r"(\d+)(?: *(update|epoch|cycle)s?)?")


class Interval(NamedTuple):
    """So many updates, epochs or cycles; a cycle is `cycle_steps` updates, or an epoch."""

    number: int
    unit: Unit

    @classmethod
    def read(cls, value: int | str) -> Interval:
        """Read a number of cycles, or a text such as `200 updates`.

        Raises:
            ValueError: it is neither, or the number is less than 1.
        """
        found = None if isinstance(value, int) else _TEXT.fullmatch(value.strip())
        number = value if isinstance(value, int) else int(found[1]) if found else 0
        if number < 1:
            raise ValueError(
                f"{value!r} is no interval; write a number of cycles from 1 on, `200 updates` or `5 epochs`"
            )
        units: dict[str, Unit] = {"update": "update", "epoch": "epoch"}
        return cls(number, units.get(found[2] or "", "cycle") if found else "cycle")

    def due(self, progress: Progress, *, cycle_over: bool) -> bool:
        """Say whether it is time after an update; what it depends on is saved in checkpoints.

        Args:
            progress: with the update counted, and the epoch if it is over; not yet the cycle.
            cycle_over: whether the update ends a cycle.
        """
        if self.unit == "update":
            return progress.update % self.number == 0
        if self.unit == "epoch":
            return progress.batch == 0 and progress.epoch % self.number == 0
        return cycle_over and (progress.cycle + 1) % self.number == 0

    def times(self, updates: float, per_epoch: float, cycle_steps: int) -> float:
        """Return how often it is due in so many updates.

        Args:
            updates: of the fit, or of a part of it.
            per_epoch: updates in an epoch.
            cycle_steps: updates in a cycle; 0 = those of an epoch.
        """
        length = {"update": 1.0, "epoch": per_epoch, "cycle": float(cycle_steps or per_epoch)}[self.unit]
        return updates / (length * self.number)
