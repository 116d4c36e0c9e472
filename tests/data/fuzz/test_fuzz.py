"""Damaged files of every registered format: a ForgeError or success, in time and in memory."""

import pickle
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fuzz_drive
from fuzz_samples import SAMPLES

from forgefield.core.catalog import Catalog
from forgefield.data.dataset import detect_format, open_dataset

NAMES = Catalog("forgefield.data.readers").names()


def test_every_registered_format_has_a_sample():
    missing = [name for name in NAMES if name not in SAMPLES]
    assert not missing, f"add a small sample of {missing} to tests/data/fuzz/fuzz_samples.py"


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_samples_are_read_as_what_they_are(name, tmp_path):
    for number, sample in enumerate(SAMPLES[name]):
        path = tmp_path / f"sample{number}"
        sample.write(path)
        assert detect_format(path) == name
        dataset = open_dataset(path)
        assert all(len(structure) for structure in dataset)
        travelled = pickle.loads(pickle.dumps(dataset))  # as to the worker processes of a loader
        assert travelled.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_some_damage(name):
    _, failures = fuzz_drive.run(name, 30)
    assert not failures, f"mutation {failures[0][0]} of {name}:\n{failures[0][1]}"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_much_damage(name):
    outcomes, failures = fuzz_drive.run(name, 1000)
    assert not failures, f"{len(failures)} of 1000; mutation {failures[0][0]} of {name}:\n{failures[0][1]}"
    assert outcomes["refused"] >= 100, "damage that is never noticed is no test"


def test_the_driver_notices_what_must_not_happen(monkeypatch):
    """The test of the test: errors of other kinds, hangs and growth are failures."""
    held = []

    def crash(path, format):
        raise ValueError("not a ForgeError")

    def spin(path, format):
        while True:
            pass

    def grow(path, format):
        held.append(bytearray(b"x") * (fuzz_drive.MEGABYTES + 50) * 2**20)
        return []

    for fault, word, seconds in (
        (crash, "not a ForgeError", 10),
        (spin, "TookTooLong", 0.3),
        (grow, "memory grew", 10),
    ):
        monkeypatch.setattr(fuzz_drive, "SECONDS", seconds)
        monkeypatch.setattr(fuzz_drive, "open_dataset", fault)
        _, failures = fuzz_drive.run("extxyz", 1)
        assert word in failures[0][1]
        held.clear()
