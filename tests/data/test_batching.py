"""Batches within budgets: never exceeded, little wasted, the same number in every epoch, fixed by seed and epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.batching import ByCount, Consecutive, Extents, Limits, Packed, check_extents
from forgefield.data.bins import fewest_bins, roomy_bins, spread
from forgefield.data.dataset import Dataset
from forgefield.data.loader import make_loader
from forgefield.data.mixing import Mixture
from forgefield.graph.needs import Needs
from forgefield.train.team import Team, share_of

NEEDS = Needs(cutoff=3.0)


def molecules(sizes, seed=0):
    random = np.random.default_rng(seed)
    return Dataset.of(
        [Structure(np.ones(n), random.random((n, 3)) * 2 * n ** (1 / 3), origin=f"a.xyz: frame {k + 1}")
         for k, n in enumerate(sizes)], "a.xyz"
    )  # fmt: skip


@pytest.fixture(scope="module")
def mixed():
    return molecules(np.random.default_rng(1).integers(2, 12, 60))


def extents(atoms, edges=None):
    return Extents(np.asarray(atoms), None if edges is None else np.asarray(edges))


def total(loader, column):
    atoms, edges = loader._cache.atoms(), loader._cache.edges()
    return [int({"atoms": atoms, "edges": edges}[column][places].sum()) for places in loader.places(1)]


LIMITS = [
    Limits(atoms=30),
    Limits(edges=150),
    Limits(structures=4, atoms=30),
    Limits(atoms=40, edges=180),
    Limits(structures=5, same_size=True),
    Limits(atoms=24, same_size=True),
    Limits(structures=3, edges=160, same_size=True),
]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("shuffle", [True, False])
def test_no_limit_is_exceeded_and_no_structure_is_lost(mixed, limits, shuffle):
    loader = make_loader(mixed, NEEDS, limits=limits, shuffle=shuffle, seed=3)
    atoms, edges = loader._cache.atoms(), loader._cache.edges()
    for epoch in range(5):
        batches = loader.places(epoch)
        assert len(batches) == len(loader)
        assert sorted(np.concatenate(batches).tolist()) == list(range(60))
        for places in batches:
            assert limits.structures is None or len(places) <= limits.structures
            assert limits.atoms is None or atoms[places].sum() <= limits.atoms
            assert limits.edges is None or edges[places].sum() <= limits.edges
            assert not limits.same_size or len(set(atoms[places].tolist())) == 1
    if not shuffle:
        assert np.concatenate(loader.places(4)).tolist() == list(range(60))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 900)), min_size=1, max_size=120),
    st.integers(40, 200),
    st.integers(900, 4000),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_limits_hold_for_whatever_sizes(sizes, atoms, edges, same_size, seed):
    measured = extents(*np.array(sizes).T)
    packed = Packed(Limits(atoms=atoms, edges=edges, same_size=same_size), measured, [np.arange(len(sizes))], seed)
    for epoch in range(3):
        order = np.random.default_rng(epoch).permutation(len(sizes))
        batches = packed.divide(order, epoch)
        assert len(batches) == packed.count
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(sizes)))
        for places in batches:
            assert measured.atoms[places].sum() <= atoms
            assert measured.edges[places].sum() <= edges


@pytest.mark.parametrize(
    ("draw", "least"),
    [
        (lambda r: r.integers(5, 100, 4000), 0.95),
        (lambda r: np.exp(r.normal(3.5, 0.8, 4000)).astype(int).clip(2, 400), 0.95),
        (lambda r: r.choice([12, 27, 96], 4000), 0.95),
    ],
)
def test_little_room_is_wasted_and_batches_are_even(draw, least):
    atoms = draw(np.random.default_rng(0))
    packed = Packed(Limits(atoms=500), extents(atoms), [np.arange(len(atoms))], 0)
    filled = np.array([atoms[places].sum() for places in packed.divide(np.arange(len(atoms)), 0)])
    assert filled.mean() / 500 > least
    assert filled.min() > 0.75 * 500


def test_other_structures_meet_in_every_epoch():
    atoms = np.random.default_rng(0).integers(60, 140, 400)  # pairs that must fit together: the hardest case
    for sizes in (atoms, np.random.default_rng(0).integers(5, 50, 400)):
        packed = Packed(Limits(atoms=200), extents(sizes), [np.arange(400)], 0)
        sets = [{frozenset(b.tolist()) for b in packed.divide(np.arange(400), e) if len(b) > 1} for e in (0, 1)]
        assert len(sets[0] & sets[1]) < 0.2 * len(sets[0])


def test_the_order_depends_on_seed_and_epoch_only(mixed):
    def batches(seed, epoch, **more):
        loader = make_loader(mixed, NEEDS, limits=Limits(atoms=30), shuffle=True, seed=seed, **more)
        return [b.index.tolist() for b in loader.batches(epoch)]

    assert batches(0, 2) == batches(0, 2) == batches(0, 2, num_workers=2)
    loader = make_loader(mixed, NEEDS, limits=Limits(atoms=30), shuffle=True)
    list(loader.batches(0))
    assert [b.index.tolist() for b in loader.batches(2)] == batches(0, 2)
    assert len({str(batches(s, e)) for s in (0, 1) for e in (0, 1)}) == 4
    for start in (1, 4):
        assert [b.index.tolist() for b in loader.batches(2, start)] == batches(0, 2)[start:]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ranks_share_each_batch_without_loss_or_repetition(mixed, size):
    loader = make_loader(mixed, NEEDS, limits=Limits(edges=200), shuffle=True)
    parts = [[share_of(Team(rank, size), places) for places in loader.places(0)] for rank in range(size)]
    assert sorted(np.concatenate([p for part in parts for p in part]).tolist()) == list(range(60))
    edges = loader._cache.edges()
    for shares in zip(*parts, strict=True):
        loads = [int(edges[p].sum()) for p in shares]
        assert max(loads) - min(loads) <= edges[np.concatenate(shares)].max(), "no more apart than one structure"


def test_too_large_a_structure_is_named_or_stands_alone(mixed):
    data = molecules([3, 3, 30, 3, 40])
    with pytest.raises(DataError) as caught:
        make_loader(data, NEEDS, limits=Limits(atoms=20), shuffle=True)
    assert "structure 2 has 30 atoms, more than max_atoms (20) allows in a batch; 2 of 5" in str(caught.value)
    assert "a.xyz: frame 3" in str(caught.value)
    assert "train.max_atoms to 40 or more" in str(caught.value)
    for shuffle in (True, False):
        loader = make_loader(data, NEEDS, limits=Limits(atoms=20, oversize="alone"), shuffle=shuffle)
        batches = [places.tolist() for places in loader.places(3)]
        assert [2] in batches
        assert [4] in batches
        assert len(loader) == len(batches) == (3 if shuffle else 4)
        assert sorted(place for batch in batches for place in batch) == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="edges, more than max_edges"):
        check_extents(data, Limits(edges=3), extents([3] * 5, [1, 2, 3, 4, 5]))


def test_draws_that_vary_keep_the_number_of_batches_and_the_limits():
    sizes = np.concatenate([np.full(40, 3), np.random.default_rng(0).integers(4, 20, 40)])
    data = molecules(sizes)
    for limits in (Limits(atoms=40), Limits(structures=4, same_size=True), Limits(atoms=18, oversize="alone")):
        loader = make_loader(data, NEEDS, limits=limits, mixture=Mixture(40, 40, 13, 0))
        lost = 0
        for epoch in range(30):
            batches = loader.places(epoch)
            assert len(batches) == len(loader)
            assert all(len(b) == 1 or sizes[b].sum() <= (limits.atoms or 10**6) for b in batches)
            lost += 53 - sum(map(len, batches))
        assert lost <= 0.01 * 30 * 53


def test_bins_are_as_few_as_space_allows():
    sizes = np.array([[6], [4], [5], [5], [3], [7]])
    assert fewest_bins(sizes, np.array([10])) == 3
    assert fewest_bins(np.zeros((0, 1), dtype=int), np.array([10])) == 0
    assert roomy_bins(np.full((100, 1), 6), np.array([10])) == 100
    found = spread(sizes, np.array([10]), 3, np.random.default_rng(0))
    assert np.bincount(found, sizes[:, 0]).tolist() == [10, 10, 10]
    assert (spread(sizes, np.array([10]), 2, np.random.default_rng(0)) == -1).any()


def test_batches_of_a_count_are_cut_from_the_order():
    order = np.array([4, 2, 0, 1, 3])
    assert [b.tolist() for b in ByCount(5, 2).divide(order, 0)] == [[4, 2], [0, 1], [3]]
    assert [b.tolist() for b in ByCount(5, 2, drop_last=True).divide(order, 0)] == [[4, 2], [0, 1]]
    in_order = Consecutive(Limits(atoms=5), extents([2, 3, 1, 4, 9]))
    assert [b.tolist() for b in in_order.divide(np.arange(5), 0)] == [[0, 1], [2, 3], [4]]
