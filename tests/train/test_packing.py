"""Batches sized by measuring: the same results, within the memory allowed, and smaller after running out."""

import sys

import numpy as np
import pytest
import torch
from toy import load, make_potential, make_structures

from forgefield.core.errors import DeviceError
from forgefield.train import packing
from forgefield.train.evaluate import evaluate
from forgefield.train.memory import HostMeter, Meter, ran_out
from forgefield.train.packing import Growth, Packer


class FakeMeter(Meter):
    """A device on which a batch takes as many bytes as its table has slots; `now` is set by the computation."""

    def __init__(self, free):
        self.memory, self.now, self.cleared = free, 0, 0

    def free(self):
        return self.memory

    def start(self):
        self.now = 0

    def taken(self):
        return self.now

    def clear(self):
        self.cleared += 1


def run(structures, meter, share=0.5, capacity=np.inf):
    """Batches as (structures, slots), in order, the places seen, and the packer."""
    loader = load(structures)
    packer, seen, places = Packer(loader, share, meter), [], []

    def compute(batch):
        slots = batch.graph.table_sender.numel()
        if slots > capacity:
            raise torch.OutOfMemoryError("tried to allocate too much")
        meter.now = slots
        seen.append((len(batch.index), slots))
        places.extend(batch.index.tolist())
        return True

    assert all(packer.run(compute))
    assert places == list(range(len(structures)))
    return seen, packer


@pytest.fixture(autouse=True)
def steady_clock(monkeypatch):
    """Every batch takes one second: larger ones are faster per slot, so that growth is up to memory."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(packing.time, "perf_counter", lambda: float(next(ticks)))


def test_grows_up_to_its_share_of_memory_and_no_further():
    structures = make_structures(6) * 40
    slots = max(load([s]).build(np.array([0])).graph.table_sender.numel() for s in structures[:6])
    seen, packer = run(structures, FakeMeter(free=64 * slots))
    assert seen[0][0] == 1
    assert max(n for n, _ in seen) > 8
    assert max(size for _, size in seen) <= 32 * slots
    assert [n for n, _ in seen[:4]] == sorted(n for n, _ in seen[:4])
    assert "chosen by measured speed within" in packer.notes[-1]


def test_stays_small_where_size_brings_nothing():
    growth = Growth(budget=1e12, limit=100, best=100)
    for size in (100, 200, 400):
        growth.learn(size, seconds=size * 1e-3, taken=size)
    assert (growth.grows, growth.limit) == (False, 100)
    faster = Growth(budget=1e12, limit=100, best=100)
    for size in (100, 200, 400):
        faster.learn(size, seconds=1.0, taken=size)
    assert (faster.grows, faster.limit) == (True, 800)


def test_runs_out_of_memory_halves_and_says_so():
    structures = make_structures(6) * 20
    meter = FakeMeter(free=10**12)
    seen, packer = run(structures, meter, capacity=300)
    assert meter.cleared == 1
    assert max(size for _, size in seen) <= 300
    assert "ran out of memory; went on with half" in packer.notes[0]


def test_one_structure_that_does_not_fit_is_named():
    with pytest.raises(DeviceError, match=r"of \d+ atoms alone does not fit"):
        run(make_structures(3), FakeMeter(free=10**12), capacity=1)


def test_other_errors_pass():
    packer = Packer(load(make_structures(3)), 0.5, FakeMeter(10**9))

    def compute(batch):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        list(packer.run(compute))
    assert ran_out(MemoryError())
    assert ran_out(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."))


def test_unknown_memory_takes_fixed_batches():
    seen, packer = run(make_structures(6) * 12, FakeMeter(None))
    assert [n for n, _ in seen] == [32, 32, 8]
    assert "does not tell" in packer.notes[-1]
    seen, packer = run(make_structures(6) * 12, FakeMeter(None), capacity=200)
    assert max(size for _, size in seen) <= 200
    assert "went on with half" in packer.notes[0]


def test_predictions_do_not_depend_on_the_batches():
    structures, potential = make_structures(40), make_potential()
    plain = evaluate(potential, load(structures, 7))
    counted = []
    packed = evaluate(potential, load(structures, 7), memory=0.5, progress=counted.append)
    assert sum(counted) == 40
    assert counted[0] == 1
    assert len(packed.notes) == 1
    assert [p.index for p in packed.predictions] == list(range(40))
    for one, two in zip(plain.predictions, packed.predictions, strict=True):
        assert one.energy == pytest.approx(two.energy, rel=1e-12)
        assert np.allclose(one.forces, two.forces, rtol=0, atol=1e-12)
        assert np.allclose(one.stress, two.stress, rtol=0, atol=1e-13)
    assert packed.metrics["all"] == pytest.approx(plain.metrics["all"], rel=1e-11)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's records are read")
def test_the_memory_of_the_process_is_measured():
    meter = HostMeter()
    free = meter.free()
    assert 2**26 < free < 2**46
    meter.start()
    before = meter.taken()
    block = np.ones(2**25)  # 256 MiB
    during = meter.taken() - before
    del block
    assert 0.9 * 2**28 < during < 1.5 * 2**28
    meter.start()
    assert meter.taken() < before + 2**27


@pytest.mark.gpu
def test_cuda_batches_grow_and_agree():
    structures, potential = make_structures(40), make_potential()
    plain = evaluate(potential, load(structures, 7))
    potential = potential.to("cuda")
    packed = evaluate(potential, load(structures, 7, device="cuda"), memory=0.5)
    for one, two in zip(plain.predictions, packed.predictions, strict=True):
        assert np.allclose(one.forces, two.forces, rtol=0, atol=1e-9)
