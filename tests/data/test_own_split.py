"""The split that data bring along, and the test part of a split."""

import json
import shutil
from pathlib import Path

import pytest

from forgefield.core.errors import DataError
from forgefield.data.parts import open_training
from forgefield.data.settings import DataSettings

FOLDER = Path(__file__).parent / "xequinet"  # 5 records: train 0 1 2, valid 3, test 4


def places(dataset):
    return None if dataset is None else dataset.indices.tolist()


def parts(**keys):
    data = open_training(DataSettings.model_validate(keys))
    return data, [places(data.measured), places(data.val), places(data.test)]


def copy(folder, split):
    shutil.copytree(FOLDER, folder)
    (folder / "split.json").write_text(json.dumps(split))
    return str(folder)


def test_it_is_used_by_itself_and_said():
    data, found = parts(train=str(FOLDER))
    assert found == [[0, 1, 2], [3], [4]]
    assert data.split.method == "as the data's own split"
    said = "the data bring a split along: 3 to train on, 1 to validate on, 1 to test on; data.split: random"
    assert data.split.note.startswith(said)


@pytest.mark.parametrize("keys", [{"split": "random"}, {"split": {"val": 2}}, {"val_fraction": 0.4}], ids=str)
def test_a_split_of_the_users_overrules_it(keys):
    data, found = parts(train=str(FOLDER), **keys)
    assert found[2] is None
    assert data.split.method != "as the data's own split"
    assert len(found[0]) + len(found[1]) == 5


def test_chosen_records_and_given_validation_data_are_not_split_by_it(tmp_path):
    assert parts(train={"path": str(FOLDER), "select": "train"}, val={"path": str(FOLDER), "select": "test"})[1] == [
        [0, 1, 2], [0], None,
    ]  # fmt: skip
    assert parts(train=str(FOLDER), train_indices={"max_samples": 3})[0].split.method == "random"
    plain = copy(tmp_path / "a", {"train": [0, 1, 2, 3]})  # nothing to validate on
    assert parts(train=plain)[0].split.method == "random"


def test_marks_skipped_frames_and_several_sources(tmp_path):
    second = copy(tmp_path / "b", {"train": [4, 3], "val": [0, 1]})
    sources = [{"path": str(FOLDER), "head": "a", "weight": 2.0}, {"path": second, "on_error": "skip"}]
    data, found = parts(train=sources)
    assert found == [[0, 1, 2, 8, 9], [3, 5, 6], [4]]
    assert data.split.left_out.tolist() == [7]
    assert "1 in no part" in data.split.note
    (Path(second) / "split.json").unlink()
    assert parts(train=sources)[0].split.method == "random"  # one of them brings none


def test_an_overlap_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"names a structure in two parts.*data\.split: random, or another, overrules"):
        parts(train=copy(tmp_path / "a", {"train": [0, 1, 2], "valid": [2]}))
