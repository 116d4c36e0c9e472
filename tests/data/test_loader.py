import numpy as np
import pytest
import torch

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.labels import join_labels
from forgefield.data.loader import make_loader
from forgefield.data.sample_cache import SampleCache
from forgefield.graph.needs import Needs

NEEDS = Needs(cutoff=3.0)


def frames(count=11):
    random = np.random.default_rng(0)
    out = []
    for k in range(count):
        n = 2 + k % 3
        labels = {"energy": float(k), "forces": random.normal(size=(n, 3))}
        if k % 2:
            labels["stress"] = np.eye(3) * k
        out.append(Structure(random.integers(1, 9, n), random.normal(size=(n, 3)), 9 * np.eye(3), True, labels))
    return out


@pytest.fixture
def dataset():
    return Dataset.of(frames(), "memory")


def tensors(batch):
    plain = [value for value in batch.labels if isinstance(value, torch.Tensor)]
    return [*batch.graph, *plain, *batch.labels.extra.values(), *batch.labels.has_extra.values(), batch.index]


def same(one, other):
    for a, b in zip(tensors(one), tensors(other), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_labels_say_what_is_there():
    a, b = frames(2)
    bare = Structure([1], np.zeros((1, 3)), weight=3.0)
    found = join_labels([a, bare, b])
    assert found.energy.dtype == torch.float64
    assert found.forces.dtype == torch.float32
    assert found.energy.tolist() == [0.0, 0.0, 1.0]
    assert found.has_energy.tolist() == [True, False, True]
    assert found.has_stress.tolist() == [False, False, True]
    assert found.has_forces.tolist() == [True, True, False, True, True, True]
    assert found.structure.tolist() == [0, 0, 1, 2, 2, 2]
    assert found.n_atoms.tolist() == [2, 1, 3]
    assert found.weight.tolist() == [1.0, 3.0, 1.0]
    assert found.stress.shape == (3, 3, 3)
    np.testing.assert_allclose(found.forces[:2], a.labels["forces"], rtol=1e-6)
    assert (found.forces[2] == 0).all()


def test_the_last_batch_is_smaller_or_dropped(dataset):
    loader = make_loader(dataset, NEEDS, batch_size=4)
    assert [len(b.index) for b in loader.batches()] == [4, 4, 3]
    assert len(loader) == 3
    dropping = make_loader(dataset, NEEDS, batch_size=4, drop_last=True)
    assert [len(b.index) for b in dropping.batches()] == [4, 4]
    assert len(dropping) == 2


def test_without_shuffle_the_order_is_that_of_the_data(dataset):
    found = [i for b in make_loader(dataset, NEEDS, batch_size=4).batches(5) for i in b.index.tolist()]
    assert found == list(range(11))


def test_the_order_depends_on_seed_and_epoch_only(dataset):
    def order(seed, epoch, batch_size=4, **more):
        loader = make_loader(dataset, NEEDS, batch_size=batch_size, shuffle=True, seed=seed, **more)
        return [i for b in loader.batches(epoch) for i in b.index.tolist()]

    assert sorted(order(0, 0)) == list(range(11))
    assert order(0, 0) == order(0, 0)
    assert order(0, 0) == order(0, 0, batch_size=3)
    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1, 2)}) == 6
    assert order(3, 2) == [7, 0, 1, 4, 10, 9, 2, 6, 8, 3, 5]  # pinned: old runs resume in the same order


def test_an_epoch_can_be_entered_in_the_middle(dataset):
    loader = make_loader(dataset, NEEDS, batch_size=3, shuffle=True, seed=1)
    whole = list(loader.batches(2))
    for start in (1, 3, 4):
        rest = list(loader.batches(2, start))
        assert len(rest) == len(whole) - start
        for one, other in zip(whole[start:], rest, strict=True):
            same(one, other)


def test_graph_and_labels_belong_together(dataset):
    for batch in make_loader(dataset, NEEDS, batch_size=4, shuffle=True, dtype=torch.float64).batches():
        structures = [dataset[i] for i in batch.index.tolist()]
        positions = batch.graph.positions[batch.graph.inverse]
        np.testing.assert_allclose(positions, np.concatenate([s.positions for s in structures]))
        np.testing.assert_allclose(batch.labels.forces, np.concatenate([s.labels["forces"] for s in structures]))
        assert batch.labels.structure.tolist() == batch.graph.structure[batch.graph.inverse].tolist()
        assert batch.labels.energy.tolist() == [float(s.labels["energy"]) for s in structures]


def test_the_cache_is_bounded_and_changes_nothing(dataset):
    unbounded, tiny = SampleCache(dataset, Needs(3.0)), SampleCache(dataset, Needs(3.0), limit_mb=0.002)
    for _ in range(2):
        for i in range(len(dataset)):
            one, other = unbounded.get(i), tiny.get(i)
            for a, b in zip(one.pairs, other.pairs, strict=True):
                np.testing.assert_array_equal(a, b)
    assert len(unbounded) == 11
    assert 0 < len(tiny) < 11
    assert sum(tiny.get(i).n_bytes for i in tiny._kept) <= 0.002 * 2**20
    assert unbounded.get(3) is unbounded.get(3)


def test_no_batch_is_an_error(dataset):
    with pytest.raises(DataError, match="11 structures give no batch with drop_last and batch_size 12"):
        make_loader(dataset, NEEDS, batch_size=12, drop_last=True)
    with pytest.raises(DataError, match="0 structures give no batch"):
        make_loader(dataset.subset([]), NEEDS, batch_size=12)
    with pytest.raises(DataError, match="batch_size is 0"):
        make_loader(dataset, NEEDS, batch_size=0)
