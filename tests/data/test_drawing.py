"""Weights of sources are sampling frequencies: counted."""

import numpy as np
import pytest

from forgefield.core.structure import Structure
from forgefield.data.batching import Limits
from forgefield.data.dataset import Dataset
from forgefield.data.drawing import WeightedDraws
from forgefield.data.loader import make_loader
from forgefield.data.mixing import Mixture
from forgefield.graph.needs import Needs

SOURCES = (np.arange(700), np.arange(700, 1000), np.arange(1000, 1007))


def draws(shares=(0.5, 0.3, 0.2), n_drawn=1000, seed=0, **more):
    return WeightedDraws(SOURCES, shares, n_drawn, seed, **more)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize(
    ("shares", "n_drawn"), [((0.5, 0.3, 0.2), 1000), ((0.123, 0.456, 0.421), 37), ((0.9, 0.0997, 0.0003), 999)]
)
def test_shares_are_the_weights_over_a_hundred_thousand_draws(shares, n_drawn, replacement):
    made = draws(shares, n_drawn, replacement=replacement)
    found = np.concatenate([made.order(epoch) for epoch in range(-(-100_000 // n_drawn))])
    assert len(found) >= 100_000
    for places, share in zip(SOURCES, shares, strict=True):
        measured = np.isin(found, places).mean()
        assert measured == pytest.approx(share, rel=0.01 if share > 0.001 else 0.05)


def test_every_batch_has_its_share():
    order = draws((0.5, 0.25, 0.25)).order(3)
    for k in range(0, 1000, 8):
        counts = [int(np.isin(order[k : k + 8], places).sum()) for places in SOURCES]
        assert abs(counts[0] - 4) <= 2
        assert abs(counts[1] - 2) <= 2


def test_without_replacement_none_comes_again_before_the_others():
    made = draws((0.4, 0.4, 0.2), 100)
    found = np.concatenate([made.order(epoch) for epoch in range(50)])
    counts = np.bincount(found, minlength=1007)
    for places in SOURCES:
        assert counts[places].max() - counts[places].min() <= 1
    small = found[found >= 1000]
    assert all(len(set(small[k : k + 7].tolist())) == 7 for k in range(0, len(small) - 7, 7))
    again = np.concatenate([draws((0.4, 0.4, 0.2), 100, replacement=True).order(e) for e in range(50)])
    counts = np.bincount(again, minlength=1007)
    assert counts[:700].max() - counts[:700].min() > 1


def test_an_epoch_depends_on_seed_and_number_alone():
    assert np.array_equal(draws().order(5), draws().order(5))
    assert not np.array_equal(draws().order(5), draws().order(4))
    assert not np.array_equal(draws().order(5), draws(seed=1).order(5))
    assert all(len(draws(n_drawn=37).order(e)) == 37 for e in range(20))


def test_the_loader_draws_and_goes_on_in_the_middle():
    data = Dataset.of([Structure([1] * (1 + k % 3), np.eye(3)[: 1 + k % 3]) for k in range(20)])
    made = WeightedDraws((np.arange(5), np.arange(5, 20)), (0.5, 0.5), 30, 1)
    for limits in (Limits(4), Limits(atoms=9)):
        loader = make_loader(data, Needs(3.0), limits=limits, mixture=made)
        whole = [batch.index.tolist() for batch in loader.batches(2)]
        assert len(whole) == len(loader)
        assert sum(k < 5 for batch in whole for k in batch) == pytest.approx(15, abs=1)
        assert [batch.index.tolist() for batch in loader.batches(2, start=3)] == whole[3:]


def test_replay_is_dealt_as_before():
    assert Mixture(6, 5, 3, 4).order(7).tolist() == [9, 5, 1, 10, 4, 0, 8, 2, 3]
