"""Weights of sources are sampling frequencies: counted."""

import numpy as np
import pytest
from pydantic import ValidationError

from forgefield.app.run import config_of
from forgefield.core.errors import DataError, ForgeError
from forgefield.core.structure import Structure
from forgefield.data.batching import Limits
from forgefield.data.dataset import Dataset
from forgefield.data.drawing import WeightedDraws
from forgefield.data.loader import make_loader
from forgefield.data.mixing import Mixture
from forgefield.data.parts import open_training
from forgefield.data.settings import DataSettings
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
        assert np.isin(found, places).mean() == pytest.approx(share, rel=0.01, abs=1e-5)


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


@pytest.fixture
def files(tmp_path):
    for name, count in (("dft", 3), ("cheap", 9)):
        frames = [f"2\nenergy={k}\nH 0 0 0\nH 0 0 1\n" for k in range(count)]
        (tmp_path / f"{name}.xyz").write_text("".join(frames))
    return tmp_path


def opened(files, sources=None, **keys):
    sources = sources or [files / "dft.xyz", files / "cheap.xyz"]
    return open_training(DataSettings(train=sources, val_fraction=0, **keys)).draws


def test_settings_become_shares(files):
    assert opened(files) is None
    assert opened(files, sampling="balanced").shares == (0.5, 0.5)
    made = opened(files, sampling={"dft": 3, "cheap.xyz": 1})
    assert made.shares == (0.75, 0.25)
    assert [len(places) for places in made.sources] == [3, 9]
    assert made.n_drawn == 12
    assert opened(files, draws_per_epoch=5).n_drawn == 5
    assert opened(files, replacement=True).replacement
    own = [{"path": files / "dft.xyz", "sampling_weight": 4, "fidelity": "high"}, files / "cheap.xyz"]
    assert opened(files, own).shares == (0.8, 0.2)
    assert (
        opened(files, [own[0] | {"sampling_weight": None}, own[1]], sampling={"high": 1, "cheap": 1}).shares[0] == 0.5
    )


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"dft": 1}, "names cheap.xyz not at all"),
        ({"dft": 1, "dft.xyz": 2, "cheap": 1}, "names dft.xyz twice"),
        ({"dft": 1, "cheap": 1, "chaep": 1}, "names 'chaep', which is no source"),
    ],
)
def test_wrong_names_are_told(files, sampling, message):
    with pytest.raises(DataError, match=message):
        opened(files, sampling=sampling)


def test_weights_are_given_once_and_positive(files):
    own = [{"path": files / "dft.xyz", "sampling_weight": 4}, files / "cheap.xyz"]
    with pytest.raises(DataError, match="keep one of the two"):
        opened(files, own, sampling="balanced")
    for wrong in ({"dft": 0, "cheap": 1}, "even"):
        with pytest.raises(ValidationError, match="sampling"):
            DataSettings(sampling=wrong)
    with pytest.raises(ForgeError, match=r"data.sampling.*finetune.replay decides"):
        config_of({"task": "finetune", "model_in": "m", "run_dir": "r", "data": {"train": "a", "sampling": "balanced"},
                   "finetune": {"replay": {"data": "b"}}})  # fmt: skip


def test_weights_of_levels_are_frequencies(tmp_path):
    """One file with both levels, and a second with more of one: the share is that of the level, not of the file."""
    for name, marks in (("both", ["dft", "cheap", "cheap"] * 4), ("more", ["dft"] * 5)):
        frames = [f"2\nenergy={k} fidelity={mark}\nH 0 0 0\nH 0 0 1\n" for k, mark in enumerate(marks)]
        (tmp_path / f"{name}.xyz").write_text("".join(frames))
    sources = [tmp_path / "both.xyz", tmp_path / "more.xyz"]
    draws = opened(tmp_path, sources, sampling={"dft": 1, "cheap": 3}, draws_per_epoch=1000)
    data = open_training(DataSettings(train=sources, val_fraction=0)).train
    level = np.array([structure.level for structure in data])
    drawn = np.concatenate([draws.order(epoch) for epoch in range(100)])
    assert len(drawn) == 100_000
    assert (level[drawn] == "cheap").mean() == pytest.approx(0.75, abs=0.01)
    with pytest.raises(DataError, match="no weight for the fidelity cheap"):
        opened(tmp_path, sources, sampling={"dft": 1})


def test_batches_of_one_level(tmp_path):
    made = [Structure([1] * (1 + k % 3), np.eye(3)[: 1 + k % 3], fidelity="ab"[k % 2]) for k in range(20)]
    data = Dataset.of(made)
    for limits in (Limits(4, same_fidelity=True), Limits(atoms=9, same_size=True, same_fidelity=True)):
        loader = make_loader(data, Needs(3.0), limits=limits, heads=("a", "b"), shuffle=True)
        batches = [batch.index.tolist() for batch in loader.batches(1)]
        assert sorted(k for batch in batches for k in batch) == list(range(20))
        assert all(len({k % 2 for k in batch}) == 1 for batch in batches)
        if limits.same_size:
            assert all(len({k % 3 for k in batch}) == 1 for batch in batches)
