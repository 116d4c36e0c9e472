import json

import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import separate_isolated
from forgefield.data.parts import open_part, open_training, reference_setting
from forgefield.data.sampling import read_indices, select
from forgefield.data.settings import DataSettings, Sampling
from forgefield.data.split import split_dataset


def numbered(count=20):
    return Dataset.of([Structure([1, 1], np.eye(3)[:2], labels={"energy": float(k)}) for k in range(count)])


def which(dataset):
    return [int(s.labels["energy"]) for s in dataset]


@pytest.fixture
def frames(tmp_path):
    """Two files: 20 frames of two atoms and a free atom in front; 5 frames."""
    pair = "2\nenergy={k}\nH 0 0 0\nH 0 0 1\n"
    atom = "1\nenergy=-13 config_type=IsolatedAtom\nH 0 0 0\n"
    (tmp_path / "a.xyz").write_text(atom + "".join(pair.format(k=k) for k in range(20)))
    (tmp_path / "b.xyz").write_text("".join(pair.format(k=k) for k in range(100, 105)))
    return tmp_path


def test_sampling_keeps_the_first_or_draws_by_the_seed():
    data = numbered()
    assert which(select(data, Sampling())) == list(range(20))
    assert which(select(data, Sampling(max_samples=3))) == [0, 1, 2]
    drawn = which(select(data, Sampling(shuffle=True, max_samples=5, seed=1)))
    assert drawn == which(select(data, Sampling(shuffle=True, max_samples=5, seed=1)))
    assert drawn != which(select(data, Sampling(shuffle=True, max_samples=5, seed=2)))
    assert len(set(drawn)) == 5
    assert which(select(data, Sampling(max_samples=500))) == list(range(20))


def test_sampling_from_a_file(tmp_path):
    path = tmp_path / "list.json"
    path.write_text("[7, 3, 11]")
    assert which(select(numbered(), Sampling(indices_path=path))) == [7, 3, 11]
    assert which(select(numbered(), Sampling(indices_path=path, max_samples=2))) == [7, 3]
    path.write_text("[7, 20]")
    with pytest.raises(DataError, match="index 20 is out of range: there are 20"):
        select(numbered(), Sampling(indices_path=path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "not JSON"),
        ("{}", "whole numbers"),
        ("[1.0]", "whole numbers"),
        ("[true]", "whole numbers"),
        ("[]", "empty"),
        ("[3, 3]", "frame 3 more than once"),
    ],
)
def test_wrong_index_files(tmp_path, text, message):
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_indices(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_indices(tmp_path / "no.json")


def test_a_split_is_a_partition_that_the_seed_fixes():
    data = numbered()
    one = split_dataset(data, 0.25, 3)
    assert sorted([*one.train, *one.val]) == list(range(20))
    assert len(one.val) == 5
    assert one.hash == split_dataset(data, 0.25, 3).hash
    assert one.hash != split_dataset(data, 0.25, 4).hash
    assert one.val.tolist() == [3, 8, 12, 16, 18]  # pinned: old runs keep their split
    assert json.loads(json.dumps(one.to_dict()))["val"] == one.val.tolist()
    assert len(split_dataset(data, 0.001, 0).val) == 1
    assert len(split_dataset(data, 0.0, 0).val) == 0
    with pytest.raises(DataError, match="1 structures cannot be split"):
        split_dataset(numbered(1), 0.5, 0)


def test_free_atoms_stay_in_training_and_out_of_batches(frames):
    for seed in range(5):
        data = open_training(DataSettings(train=frames / "a.xyz", val_fraction=0.5, split_seed=seed))
        assert len(data.val) == 10
        assert (len(data.measured), len(data.train)) == (11, 10)
        assert not set(which(data.train)) & set(which(data.val))
        assert len(separate_isolated(data.measured)[1]) == 1


def test_given_validation_data_are_not_split(frames):
    data = open_training(DataSettings(train=frames / "a.xyz", val=frames / "b.xyz"))
    assert (len(data.train), len(data.val)) == (20, 5)
    assert data.split is None
    data = open_training(DataSettings(train=frames / "a.xyz", val_fraction=0))
    assert data.val is None


def test_indices_override_sampling_for_the_set_that_is_worked_on(frames):
    path = frames / "list.json"
    path.write_text("[4, 2]")
    block = {"lmdb": frames / "b.xyz", "test": frames / "b.xyz", "test_indices": {"max_samples": 3}}
    assert which(open_part(DataSettings(**block), "lmdb", active=True)) == [100, 101, 102, 103, 104]
    assert which(open_part(DataSettings(**block), "test")) == [100, 101, 102]
    both = DataSettings(**block, indices=[1], indices_path=path)
    assert which(open_part(both, "lmdb", active=True)) == [101]
    assert which(open_part(DataSettings(**block, indices_path=path), "test", active=True)) == [104, 102]
    assert which(open_part(both, "test")) == [100, 101, 102]
    with pytest.raises(DataError, match=r"data\.val is not given"):
        open_part(both, "val")
    with pytest.raises(DataError, match="more than once"):
        open_part(DataSettings(**block, indices=[1, 1]), "lmdb", active=True)


def test_names_and_units_apply_to_all_files(frames):
    settings = DataSettings(train=frames / "a.xyz", e0=frames / "a.xyz", energy_unit="meV", val_fraction=0)
    assert float(open_training(settings).train[3].labels["energy"]) == pytest.approx(3e-3)
    assert float(reference_setting(settings)[0].labels["energy"]) == pytest.approx(-13e-3)
    assert reference_setting(DataSettings(e0={"H": -1.0})) == {"H": -1.0}
    assert reference_setting(DataSettings(e0="least_squares")) == "least_squares"
