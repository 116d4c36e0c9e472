"""Finding trajectories: frames that follow each other more closely than frames that lie far apart."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from forgefield.core.structure import Structure

CLOSE = 0.5  # of the usual distance of two frames: a step shorter than this is a step along a trajectory
LEAST_FRAMES = 5
_FREEDOM = 24  # by the degrees of freedom: more frames of few atoms, whose distances vary more by chance
_KEPT = 8  # earlier frames of a run that a frame is compared with
_CHANCE = 2.0  # times as many short steps as distant frames happen to be close


class Trajectory(NamedTuple):
    """Consecutive structures `start` to `stop - 1`; `reach` is the number of steps in which atoms move on by CLOSE."""

    start: int
    stop: int
    reach: int


def distance(first: Structure, second: Structure) -> float:
    """Return the root mean square displacement between two structures of the same atoms, Å.

    Periodic images count as the same place, and a shift of all atoms does not count. Rotations do.
    """
    moved = second.positions - first.positions
    if second.pbc.any():
        cell = second.cell * second.pbc[:, None]
        turns = np.linalg.inv(cell) if second.pbc.all() else np.linalg.pinv(cell)
        moved = moved - np.round(moved @ turns) @ cell
    moved = moved - moved.mean(axis=0)
    return math.sqrt(float((moved**2).sum()) / len(moved))


class TrajectoryFinder:
    """Takes structures one by one, in the order of their file, and says which of them are trajectories.

    A step is short where it is less than `CLOSE` times the median distance of frames of the same atoms that are not
    neighbours; frames drawn independently have steps as long as any other distance. Memory: two numbers per structure.
    """

    def __init__(self) -> None:
        self._count = 0
        self._start = 0
        self._last: Structure | None = None
        self._kept: list[Structure] = []
        self._stride = 1
        self._steps: list[float] = []
        self._far: list[float] = []
        self._found: list[Trajectory] = []

    def add(self, structure: Structure) -> None:
        """Take the next structure."""
        if self._last is None or not np.array_equal(structure.numbers, self._last.numbers):
            self._close_run()
        if self._last is not None:
            self._steps.append(distance(self._last, structure))
            self._far.append(distance(self._kept[(5 * self._count) % len(self._kept)], structure))
        place = self._count - self._start
        if place % self._stride == 0:
            self._kept.append(structure)
            if len(self._kept) > _KEPT:
                self._kept, self._stride = self._kept[::2], 2 * self._stride
        self._last, self._count = structure, self._count + 1

    def found(self) -> list[Trajectory]:
        """Return the trajectories, in order."""
        self._close_run()
        return self._found

    def _close_run(self) -> None:
        """Look for trajectories in the structures of the same atoms that have come to an end."""
        atoms = 0 if self._last is None else len(self._last)
        least = LEAST_FRAMES + _FREEDOM // (3 * atoms - 3) if atoms > 1 else len(self._steps) + 2
        if len(self._steps) >= least - 1:
            steps, far = np.array(self._steps), np.array(self._far)
            usual = float(np.median(far))
            short = steps < CLOSE * usual
            if short.mean() > _CHANCE * (far < CLOSE * usual).mean() + 0.05 or short.mean() > 0.9:
                self._add_chains(short, steps, usual, least)
        self._start, self._last = self._count, None
        self._kept, self._stride, self._steps, self._far = [], 1, [], []

    def _add_chains(self, short: np.ndarray, steps: np.ndarray, usual: float, least: int) -> None:
        borders = np.flatnonzero(np.diff(np.concatenate([[False], short, [False]]).astype(np.int8)))
        for first, last in borders.reshape(-1, 2).tolist():
            if last - first + 1 >= least:
                step = max(float(np.median(steps[first:last])), 1e-9)
                reach = math.ceil(min(CLOSE * usual / step, 1e6))
                self._found.append(Trajectory(self._start + first, self._start + last + 1, reach))
