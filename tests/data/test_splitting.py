"""Splits: no trajectory leaks by default, groups stay whole, a saved split is the same split."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.parts import open_part, open_training
from forgefield.data.settings import DataSettings
from forgefield.data.split import read_split, split_dataset
from forgefield.data.split_settings import SplitSettings
from forgefield.data.splitting import make_split
from forgefield.data.trajectories import TrajectoryFinder, distance


def moving(n, seed=0, atoms=8, step=0.05, periodic=False, **more):
    """Frames of atoms on springs that are driven slowly: each frame is close to the last."""
    random = np.random.default_rng(seed)
    home, phase = random.random((atoms, 3)) * 6, random.random((atoms, 3)) * 7
    box = {"cell": np.eye(3) * 6, "pbc": True} if periodic else {}
    rate = step * (1 + random.random((atoms, 3)))
    frames = []
    for k in range(n):
        positions = home + np.sin(phase + rate * k) + 0.02 * random.normal(size=home.shape)
        positions = positions % 6 if periodic else positions
        frames.append(Structure([6] * atoms, positions, labels={"energy": k}, **box, **more))
    return frames


def drawn(n, seed=0, atoms=8, number=6, **more):
    random = np.random.default_rng(seed)
    home = random.random((atoms, 3)) * 6
    shifts = random.normal(0, 0.3, (n, atoms, 3))
    return [Structure([number] * atoms, home + shift, labels={"energy": k}, **more) for k, shift in enumerate(shifts)]


def trajectories(frames):
    finder = TrajectoryFinder()
    for frame in frames:
        finder.add(frame)
    return finder.found()


def split(frames, fraction=0.1, seed=0, **keys):
    return make_split(Dataset.of(frames, "a.xyz"), SplitSettings(**keys), fraction, seed)


def check_partition(found, n):
    parts = np.concatenate([found.train, found.val, found.test, found.left_out])
    assert sorted(parts.tolist()) == list(range(n))


def test_frames_that_follow_each_other_are_found():
    assert [t[:2] for t in trajectories(moving(100))] == [(0, 100)]
    assert [t[:2] for t in trajectories(moving(100, periodic=True))] == [(0, 100)]
    both = [*moving(60), *moving(40, seed=5)]
    assert [t[:2] for t in trajectories(both)] == [(0, 60), (60, 100)]
    between = [*drawn(30, number=7), *moving(50), *drawn(30, number=8)]
    assert [t[:2] for t in trajectories(between)] == [(30, 80)]


@pytest.mark.parametrize("atoms", [2, 3, 8, 50])
@pytest.mark.parametrize("seed", range(5))
def test_independent_frames_are_no_trajectory(atoms, seed):
    assert trajectories(drawn(200, seed, atoms)) == []
    assert trajectories(drawn(6, seed, atoms)) == []


def test_a_crossed_cell_wall_or_a_drift_is_no_displacement():
    cell = {"cell": np.eye(3) * 5, "pbc": [True, True, False]}
    a = Structure([1, 1], np.array([[4.9, 1, 1], [2, 2, 2]]), **cell)
    b = Structure([1, 1], np.array([[0.1, 1, 1], [2.2, 2, 2]]), **cell)
    assert distance(a, b) == pytest.approx(0.0, abs=1e-12)
    c = Structure([1, 1], np.array([[4.9, 1, 1], [2, 2, 5.0]]), **cell)
    assert distance(a, c) == pytest.approx(1.5), "the cell does not repeat along z"


def test_independent_frames_are_split_as_ever():
    data = Dataset.of(drawn(50))
    one, other = split(drawn(50), 0.2, 3), split_dataset(data, 0.2, 3)
    assert one.hash == other.hash
    assert one.note == ""


@pytest.mark.parametrize("seed", range(4))
def test_a_trajectory_is_cut_in_blocks_with_gaps(seed):
    found = split(moving(400), 0.1, seed)
    check_partition(found, 400)
    assert 30 <= len(found.val) <= 50
    assert np.diff(found.val).max() == 1, "one block"
    assert np.abs(found.val[:, None] - found.train[None]).min() > 1, "no neighbour in training"
    assert len(found.left_out) > 0
    assert "400 of 400 frames belong to a trajectory" in found.note
    assert "data.split: random" in found.note
    again = split(moving(400), 0.1, seed)
    assert again.hash == found.hash
    assert split(moving(400), 0.1, seed + 1).hash != found.hash


def test_gaps_and_methods_are_chosen():
    frames = moving(200)
    assert not len(split(frames, gap=0).left_out)
    wide = split(frames, gap=7)
    assert np.abs(wide.val[:, None] - wide.train[None]).min() == 8
    single = split(frames, method="random")
    assert single.hash == split_dataset(Dataset.of(frames), 0.1, 0).hash
    blocks = split(drawn(200), method="blocks", gap=2)
    assert np.diff(blocks.val).max() == 1
    assert split(frames, val=30).val.size == pytest.approx(30, abs=1)


def test_many_trajectories_stay_whole():
    frames = [f for k in range(30) for f in moving(12, seed=k)]
    found = split(frames, 0.2)
    check_partition(found, 360)
    assert not len(found.left_out)
    owners = found.val // 12
    assert all((owners == k).sum() in (0, 12) for k in range(30))
    assert len(found.val) == 72
    assert "whole trajectories" in found.note


def test_order_of_drawing_hides_no_trajectory():
    """Frames that our own sampling shuffled are looked at in the order of the file."""
    data = Dataset.of(moving(300)).subset(np.random.default_rng(0).permutation(300)[:200])
    found = make_split(data, SplitSettings(), 0.1, 0)
    assert "belong to a trajectory" in found.note
    frames = data.indices[found.val]
    assert frames.max() - frames.min() < 60


def test_free_atoms_stay_in_training_of_every_method():
    free = [Structure([z], np.zeros((1, 3))) for z in (1, 6)]
    for keys in ({}, {"method": "blocks"}, {"method": "groups", "by": "composition"}, {"test": 0.2}):
        found = split([*free, *moving(50), *drawn(20, number=7), *drawn(9, number=8)], 0.2, **keys)
        assert {0, 1} <= set(found.train.tolist())


@pytest.mark.parametrize("by", ["composition", "config_type", "batch"])
def test_groups_stay_whole(by):
    frames = [frame for k in range(12) for frame in drawn(5, k, number=k + 1, config_type=f"c{k}", info={"batch": k})]
    found = split(frames, 0.25, method="groups", by=by, test=0.1)
    check_partition(found, 60)
    for part in (found.val, found.test):
        assert all((part // 5 == k).sum() in (0, 5) for k in range(12))
    assert (len(found.val), len(found.test)) == (15, 5)
    with pytest.raises(DataError, match=r"no entry 'bathc' to group by.*composition, trajectory"):
        split(frames, 0.25, method="groups", by="bathc")
    with pytest.raises(DataError, match="1 groups by composition cannot be split"):
        split(drawn(10), 0.2, method="groups", by="composition")


def test_counts_and_indices():
    found = split(drawn(50), val=7, test=5)
    check_partition(found, 50)
    assert (len(found.val), len(found.test)) == (7, 5)
    found = split(drawn(50), val=(3, 1), test=0.1)
    assert found.val.tolist() == [1, 3]
    assert len(found.test) == 5
    with pytest.raises(DataError, match="index 50 is out of range"):
        split(drawn(50), val=(50,))
    with pytest.raises(DataError, match="in val and in test"):
        split(drawn(50), val=(5,), test=(5,))
    with pytest.raises(DataError, match="50 structures cannot be split"):
        split(drawn(50), val=45, test=5)


@pytest.fixture
def file(tmp_path):
    frames = [f"2\nenergy={k}\nH 0 0 0\nH 0 0 {1 + (k * 7919 % 97) / 97}\n" for k in range(30)]
    (tmp_path / "a.xyz").write_text("".join(frames))
    return tmp_path / "a.xyz"


def test_a_saved_split_is_the_same_split(file, tmp_path):
    data = open_part(DataSettings(train=file), "train")
    made = make_split(data, SplitSettings(test=0.2), 0.2, 5).with_contents(data)
    made.save(tmp_path / "split.json")
    again = read_split(tmp_path / "split.json", data)
    assert again.hash == made.hash
    opened = open_training(DataSettings(train=file, split=tmp_path / "split.json"))
    assert [int(s.labels["energy"]) for s in opened.val] == made.val.tolist()
    assert len(opened.train) == len(made.train) == 18
    asked = DataSettings(test=file, indices_path=tmp_path / "split.json")
    assert [int(s.labels["energy"]) for s in open_part(asked, "test", active=True)] == made.test.tolist()


def test_a_split_that_does_not_belong_is_refused(file, tmp_path):
    data, path = open_part(DataSettings(train=file), "train"), tmp_path / "split.json"
    made = make_split(data, SplitSettings(), 0.2, 5).with_contents(data)
    made.save(path)
    with pytest.raises(DataError, match="other structures, or for the same in another order"):
        read_split(path, data.subset(np.arange(30)[::-1]))
    with pytest.raises(DataError, match="names structure 29, the data have 10"):
        read_split(path, data.subset(np.arange(10)))
    whole = json.loads(path.read_text())
    for change, message in (
        ({"val": whole["val"][:-1]}, "not those of its hash"),
        ({"val": whole["train"]}, "names a structure twice"),
        ({"train": None}, "is no split"),
        ({"train": ["a"]}, "is no split"),
    ):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(DataError, match=message):
            read_split(path, data)
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_split(path, data)
    path.write_text('{"train": [0, 1], "val": [2]}')
    assert read_split(path, data).val.tolist() == [2]


def test_settings_of_a_split_are_checked(file):
    for wrong in ("randm", {"method": "randm"}, {"val": 1.5}, {"val": [1, 1]}, {"gap": -1}, {"val": -1}):
        with pytest.raises(ValidationError, match="split"):
            DataSettings(train=file, split=wrong)
    assert DataSettings(split="random").split.method == "random"
    with pytest.raises(DataError, match=r"data\.val is given"):
        open_training(DataSettings(train=file, val=file, split="random"))
    assert open_training(DataSettings(train=file, val_fraction=0)).split is None
