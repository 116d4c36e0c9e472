"""The clock of computing time."""

import time

from forgefield.train import cpu_time
from forgefield.train.cpu_time import CpuClock


def test_it_counts_what_is_computed_and_not_what_is_waited():
    clock = CpuClock()
    began = time.process_time()
    while time.process_time() < began + 0.05:
        sum(range(1000))
    after = clock.seconds()
    assert after >= 0.05
    time.sleep(0.2)
    assert clock.seconds() < after + 0.1


def test_it_never_runs_backwards(monkeypatch):
    """A process that has ended may be told to have computed a tick less than while it ran."""
    others = iter([0.0, 0.08, 0.01, 0.01])
    monkeypatch.setattr(cpu_time, "_of_others", lambda: next(others))
    monkeypatch.setattr(cpu_time, "_PAUSE", 0.0)
    clock = CpuClock()
    first, second = clock.seconds(), clock.seconds()
    assert first >= 0.08
    assert second >= first
