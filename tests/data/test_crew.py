"""Batches that other processes build ahead."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from forgefield.core.errors import DataError, DeviceError
from forgefield.core.structure import Structure
from forgefield.data.batching import Limits
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.loader import make_loader
from forgefield.data.reader import Frames
from forgefield.data.store.store_writer import StoreWriter
from forgefield.graph.needs import Needs

NEEDS = Needs(cutoff=3.0)
SLOW = pytest.mark.slow  # an interpreter that imports torch is started each time


def frames(n, seed=0):
    random = np.random.default_rng(seed)
    for k in range(n):
        size = 2 + k % 4
        labels = {"energy": random.normal(), "forces": random.normal(size=(size, 3)), "dipole": random.normal(size=3)}
        yield Structure(random.integers(1, 9, size), 1.5 * random.normal(size=(size, 3)), labels=labels, origin=f"f{k}")


def flat(batch):
    """All tensors of a batch as bytes, with their names and types."""
    tables = {**batch.labels.extra, **{f"has {k}": v for k, v in batch.labels.has_extra.items()}}
    tensors = {**batch.graph._asdict(), **batch.labels._asdict(), **tables, "index": batch.index}
    return {
        k: (v.dtype, tuple(v.shape), v.numpy().tobytes()) for k, v in tensors.items() if isinstance(v, torch.Tensor)
    }


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def soon(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.fixture
def store(tmp_path):
    writer = StoreWriter(tmp_path / "s", shard_bytes=2000)
    for structure in frames(23):
        writer.add(structure)
    writer.finish()
    return open_dataset(tmp_path / "s")


@pytest.mark.parametrize("limits", [Limits(edges=20, oversize="alone"), pytest.param(Limits(3), marks=SLOW)], ids=str)
def test_batches_are_the_same_to_the_bit_from_any_position(store, limits):
    more = {"limits": limits, "shuffle": True, "seed": 4, "dtype": torch.float32}
    plain, ahead = make_loader(store, NEEDS, **more), make_loader(store, NEEDS, num_workers=2, **more)
    try:
        for epoch in range(2):
            expected = [flat(batch) for batch in plain.batches(epoch)]
            assert len(expected) > 4
            assert [flat(batch) for batch in ahead.batches(epoch)] == expected
            first = list(ahead._crew.processes)
            for start in (1, len(expected) - 2):
                assert [flat(batch) for batch in ahead.batches(epoch, start)] == expected[start:]
            assert ahead._crew.processes == first  # kept from epoch to epoch
    finally:
        ahead.close()


@SLOW
def test_other_processes_build_them(store, monkeypatch):
    loader = make_loader(store, NEEDS, batch_size=4, num_workers=1)
    monkeypatch.setattr(loader, "build", None)
    monkeypatch.setattr(type(loader._builder), "build", None)  # of this process
    assert sum(len(batch.index) for batch in loader.batches()) == 23
    loader.close()


@SLOW
def test_two_passes_at_once(store):
    loader = make_loader(store, NEEDS, batch_size=4, num_workers=2)
    pairs = zip(loader.batches(), loader.batches(), strict=True)
    assert all(flat(one) == flat(other) for one, other in pairs)
    loader.close()


def test_processes_end_when_batches_are_left_and_start_again(store):
    loader = make_loader(store, NEEDS, batch_size=2, num_workers=2)
    batches = loader.batches()
    next(batches)
    first = loader._crew.processes
    batches.close()
    assert not any(map(alive, first))
    assert sum(len(batch.index) for batch in loader.batches()) == 23
    second = loader._crew.processes
    assert all(map(alive, second))
    del loader, batches
    assert not any(map(alive, second))


class Faulty(Frames):
    """Structures of which one cannot be read."""

    def __init__(self, error):
        super().__init__("some.file", {})
        self.error = error

    def __len__(self):
        return 9

    def __getitem__(self, index):
        if index == 5:
            raise self.error
        return next(frames(1, index))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("has no atoms", "some.file: frame 5", "remove it"), "some.file: frame 5: has no atoms. Fix: remove"),
        pytest.param(
            KeyError("seven"), r"some.file: structure 5: cannot be made a graph of \(KeyError: 'seven'\)", marks=SLOW
        ),
    ],
)
def test_an_error_names_the_structure_and_the_file(error, message):
    dataset = Dataset([Faulty(error)])
    loader = make_loader(dataset, NEEDS, batch_size=2, num_workers=1)
    batches = loader.batches()
    assert [next(batches).index.tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(DataError, match=message):
        next(batches)
    assert not any(map(alive, loader._crew.processes))


def test_a_killed_process_is_one_message(store):
    loader = make_loader(store, NEEDS, batch_size=2, num_workers=2)
    batches = loader.batches()
    next(batches)
    os.kill(loader._crew.processes[1], signal.SIGKILL)
    with pytest.raises(DeviceError, match="a process that builds batches was killed by SIGKILL"):
        list(batches)
    assert not any(map(alive, loader._crew.processes))


def test_data_that_cannot_be_sent(store):
    class Local(Frames):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return store[index]

    loader = make_loader(Dataset([Local("local", {})]), NEEDS, batch_size=1, num_workers=1)
    with pytest.raises(DataError, match=r"local: cannot be sent to the processes .* Fix: set train.num_workers to 0"):
        next(loader.batches())


SCRIPT = """
import sys, time
from forgefield.data.dataset import open_dataset
from forgefield.data.loader import make_loader
from forgefield.graph.needs import Needs
loader = make_loader(open_dataset(sys.argv[1]), Needs(3.0), batch_size=1, num_workers=2)
for batch in loader.batches():
    print(*loader._crew.processes, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=SLOW), pytest.param(signal.SIGTERM, marks=SLOW)]
)
def test_nobody_is_left_when_the_program_is_ended(store, tmp_path, number):
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "s")]  # a script without `if __name__ == "__main__"`
    script = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True)
    processes = [int(n) for n in script.stdout.readline().split()]
    assert len(processes) == 2
    assert all(map(alive, processes))
    os.killpg(script.pid, number) if number == signal.SIGINT else os.kill(script.pid, number)
    _, said = script.communicate(timeout=30)
    assert script.returncode != 0
    assert said.count("Traceback") == (1 if number == signal.SIGINT else 0)  # that of the script alone
    assert soon(lambda: not any(map(alive, processes)))
