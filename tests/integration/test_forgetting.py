"""Replay keeps what a model knew: a short form of benchmarks/forgetting.py."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "forgetting.py"


@pytest.mark.slow
def test_with_replay_less_is_forgotten(tmp_path):
    found = runpy.run_path(str(SCRIPT))
    base = found["train_base"](tmp_path / "base", 6)
    before = found["judge"](base, tmp_path / "tests" / "base")
    after = {}
    for name in ("new head", "new head, replay 50 %"):
        model = found["train_further"](base, tmp_path / name, found["WAYS"][name], 6, head_only=False)
        after[name] = found["judge"](model, tmp_path / "tests" / name)
    alone, replayed = after["new head"], after["new head, replay 50 %"]
    assert alone["3bpa"]["forces"] > 2.0 * before["3bpa"]["forces"]
    assert replayed["3bpa"]["forces"] < 1.3 * before["3bpa"]["forces"]
    assert replayed["ethanol"]["forces"] < 0.5 * before["ethanol"]["forces"]
