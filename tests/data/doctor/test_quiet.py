"""The doctor says nothing about sets that are right by construction."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.doctor.examine import examine

_spec = importlib.util.spec_from_file_location("doctor_clean", Path(__file__).parent / "clean.py")
clean = importlib.util.module_from_spec(_spec)
sys.modules["doctor_clean"] = clean
_spec.loader.exec_module(clean)

MOST = 0.02  # of the structures


def alarms(frames: list[Structure]) -> tuple[list[str], int]:
    """Names of findings about the whole set, and how many structures the others name."""
    found = [f for f in examine({"train": Dataset.of(frames)}) if f.level != "info"]
    whole = [f"{f.name}: {f.text}" for f in found if not f.places]
    return whole, len({p.index for f in found for p in f.places})


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_false_alarms_on_sets_that_no_threshold_has_seen(seed: int) -> None:
    told, total = 0, 0
    for name, frames in clean.clean_sets(120, seed):
        whole, count = alarms(frames)
        print(f"seed {seed}: {name}: {count} of {len(frames)} structures named; {whole or 'nothing about the set'}")
        assert not whole, f"{name}: {whole}"
        told, total = told + count, total + len(frames)
    assert told <= MOST * total
