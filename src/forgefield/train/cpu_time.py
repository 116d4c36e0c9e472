"""Computing time: of this process with all its threads, and of the processes that it started."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

PROC = Path("/proc")
_PAUSE = 1.0  # s of wall time for which what is known of other processes is good enough


class CpuClock:
    """Counts the seconds that all cores together have computed for this process since it was made.

    Processes that were started from here (they read data, or compile) count too: while they run where the system tells
    of them (Linux), else when they have ended. Their share may be a second old.
    """

    def __init__(self) -> None:
        self._looked, self._others = time.monotonic(), _of_others()
        self._start = time.process_time() + self._others
        self._told = 0.0

    def seconds(self) -> float:
        """Return the computing time since the clock was made, s; never less than before.

        The system rounds the time of a process that runs and of one that has ended to its ticks, each by itself.
        """
        now = time.monotonic()
        if now - self._looked >= _PAUSE:
            self._looked, self._others = now, _of_others()
        self._told = max(self._told, time.process_time() + self._others - self._start)
        return self._told


def _of_others() -> float:
    """Return the computing time of processes started from here: those that ended, and those that run."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)  # to the microsecond; os.times() counts ticks
    return ended.ru_utime + ended.ru_stime + sum(map(_with_descendants, _children(os.getpid())))


def _with_descendants(number: int) -> float:
    """Return the computing time of a process and of all below it; 0 if it has just ended."""
    try:
        fields = (PROC / str(number) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    own = sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")  # user, system, and of its ended ones
    return own + sum(map(_with_descendants, _children(number)))


def _children(number: int) -> list[int]:
    """Return the processes that a process has started and that run; none where the system does not tell."""
    found: list[int] = []
    for path in (PROC / str(number) / "task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text(encoding="utf-8").split()]
        except OSError:  # the thread has ended
            continue
    return found
