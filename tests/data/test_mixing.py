"""Old and new structures in one epoch: shares that hold, draws that are fair and fixed."""

import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.batching import Limits
from forgefield.data.dataset import Dataset
from forgefield.data.loader import make_loader
from forgefield.data.mixing import Mixture, OldFrames, drawn_of, spread
from forgefield.data.refit import explain_rank, fit_correction
from forgefield.graph.needs import Needs


def molecules(n, head=None, weight=1.0):
    return [
        Structure(np.array([8, 1]), np.array([[0.0, 0, 0], [1, 0, 0]]), head=head, weight=weight, labels={"energy": -k})
        for k in range(n)
    ]


@pytest.mark.parametrize("epoch", range(4))
def test_every_batch_has_its_share(epoch):
    order = Mixture(60, 50, 20, 5).order(epoch)
    assert sorted(order[order < 60]) == list(range(60))
    assert (order >= 60).sum() == 20
    old = [(order[k : k + 8] >= 60).sum() for k in range(0, 80, 8)]
    assert sum(old) == 20
    assert min(old) >= 1
    assert max(old) <= 3


def test_all_old_structures_are_drawn_equally_often():
    mixture = Mixture(10, 7, 3, 0)
    counts = np.zeros(17, dtype=int)
    for epoch in range(14):
        np.add.at(counts, mixture.order(epoch), 1)
    assert (counts[:10] == 14).all()
    assert (counts[10:] == 6).all()


def test_an_epoch_depends_on_seed_and_number_alone():
    one = Mixture(9, 5, 4, 1)
    assert np.array_equal(one.order(3), Mixture(9, 5, 4, 1).order(3))
    assert not np.array_equal(one.order(3), one.order(4))
    assert not np.array_equal(one.order(3), Mixture(9, 5, 4, 2).order(3))


def test_the_loader_follows_the_mixture():
    data = Dataset.of(molecules(6) + molecules(4))
    mixture = Mixture(6, 4, 2, 0)
    loader = make_loader(data, Needs(cutoff=3.0), batch_size=4, mixture=mixture, shuffle=True)
    assert len(loader) == 2
    seen = [i for batch in loader.batches(1) for i in batch.index.tolist()]
    assert seen == mixture.order(1).tolist()
    assert [batch.index.tolist() for batch in loader.batches(1, start=1)] == [seen[4:]]


def chain(n, k):
    return Structure(np.full(n, 1), np.arange(3.0 * n).reshape(n, 3), labels={"energy": -k})


@pytest.mark.parametrize(
    "limits",
    [
        Limits(atoms=40),
        Limits(edges=60),
        Limits(6, atoms=40),
        Limits(atoms=40, same_size=True),
        Limits(atoms=20, oversize="alone"),
    ],
    ids=str,
)
def test_under_budgets_every_epoch_has_all_new_structures(limits):
    random = np.random.default_rng(3)
    sizes = [*random.integers(2, 9, 40).tolist(), *random.permutation([2] * 40 + [24] * 10).tolist()]
    data = Dataset.of([chain(n, k) for k, n in enumerate(sizes)])
    loader = make_loader(data, Needs(cutoff=6.0), limits=limits, mixture=Mixture(40, 50, 25, 1), shuffle=True)
    drawn = np.zeros(90, dtype=int)
    for epoch in range(40):
        batches = loader.places(epoch)
        assert len(batches) == len(loader)
        assert min(map(len, batches)) > 0
        for places in batches:
            atoms = [sizes[k] for k in places]
            assert len(places) == 1 or limits.atoms is None or sum(atoms) <= limits.atoms
            assert limits.structures is None or len(places) <= limits.structures
            assert not limits.same_size or len(set(atoms)) == 1
        counts = np.bincount(np.concatenate(batches), minlength=90)
        assert (counts[:40] == 1).all()  # none is left out, none comes twice
        assert counts.max() == 1
        assert counts[40:].sum() >= 22
        drawn += counts
    assert drawn[40:].sum() >= 0.98 * 40 * 25
    assert drawn[40:].min() >= 17  # of 20 turns each


def test_where_large_old_structures_take_the_room_it_is_old_ones_that_are_left_out():
    data = Dataset.of([chain(n, n) for n in [10] * 10 + [20, 3] * 100])
    for limits in (Limits(atoms=20), Limits(atoms=20, same_size=True)):
        loader = make_loader(data, Needs(1.5), limits=limits, mixture=Mixture(10, 200, 10, 4), shuffle=True)
        drawn = [np.concatenate(loader.places(epoch)) for epoch in range(100)]
        assert {len(loader.places(epoch)) for epoch in range(100)} == {len(loader)}
        assert all(sorted(places[places < 10].tolist()) == list(range(10)) for places in drawn)
        assert min(map(len, drawn)) < 20  # there are epochs that do not fit


def test_under_a_budget_every_batch_has_its_share():
    data = Dataset.of(molecules(60) + molecules(50))
    loader = make_loader(data, Needs(3.0), limits=Limits(atoms=16), mixture=Mixture(60, 50, 20, 5), shuffle=True)
    for epoch in range(5):
        old = [int((places >= 60).sum()) for places in loader.places(epoch)]
        assert sum(old) == 20
        assert set(old) == {1, 2} if len(old) > 10 else {2}


def test_how_many_are_drawn():
    assert drawn_of(75, 100, 0.25) == 25
    assert drawn_of(75, 100, None) == 100
    with pytest.raises(DataError, match=r"needs 25 old structures .* there are 20.*lower it to 0\.211"):
        drawn_of(75, 20, 0.25)
    with pytest.raises(DataError, match="not one old structure"):
        drawn_of(3, 20, 0.01)
    assert spread(10, 3).tolist() == [0, 3, 6]


def test_old_structures_get_head_and_weight():
    given = Dataset.of([*molecules(1, "mine", 2.0), *molecules(1)])
    found = Dataset([OldFrames(given, "base", 0.5)])
    assert [(s.head, s.weight) for s in found] == [("mine", 1.0), ("base", 0.5)]
    assert [s.head for s in Dataset([OldFrames(given, None, 1.0)])] == ["mine", None]


def test_a_correction_is_found_exactly_where_compositions_tell():
    random = np.random.default_rng(0)
    counts = random.integers(1, 9, (30, 3))
    true = np.array([1.5, -200.0, 0.25])
    found = fit_correction(counts, counts @ true)
    np.testing.assert_allclose(found.values, true, atol=1e-9)
    assert found.rank == 3
    assert found.rms_after < 1e-10
    assert found.rms_before == pytest.approx(np.sqrt(np.mean((counts @ true / counts.sum(1)) ** 2)))
    assert explain_rank(found, [1, 6, 8], "E0") is None


def test_one_composition_determines_one_number():
    counts = np.tile([4, 2, 2], (5, 1))
    found = fit_correction(counts, np.full(5, 12.0))
    np.testing.assert_allclose(found.values, [2.0, 1.0, 1.0])  # the smallest with 4a + 2b + 2c = 12
    text = explain_rank(found, [1, 6, 8], "E0")
    assert text is not None
    assert "only 1 of 3 values (H, C, O)" in text
