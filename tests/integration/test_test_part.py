"""The test part of a split is evaluated at the end of training; replay and workers go with budgets."""

import json

import numpy as np
import pytest

import forgefield
from forgefield.core.errors import DataError
from forgefield.data.dataset import open_dataset

QUICK = {"train__epochs": 1, "export__standard_artifacts": False}


def load(path):
    return json.loads(path.read_text())


def test_the_test_part_of_a_split_is_evaluated_by_itself(settings, data, tmp_path, capsys):
    root = tmp_path / "run"
    split = {"method": "random", "val": 3, "test": 4}
    result = forgefield.run(settings(root, data__test=[], data__split=split, **QUICK), quiet=False)
    assert "13 structures to train on, 3 to validate on, 4 to test on" in " ".join(capsys.readouterr().out.split())
    named = load(root / "split.json")["test"]
    assert len(named) == 4
    with np.load(root / "evaluation" / "test" / "predictions.npz", allow_pickle=False) as found:
        assert found["index"].tolist() == [0, 1, 2, 3]
        everything = open_dataset(data / "train.xyz")
        expected = [float(everything[k].labels["energy"]) for k in named]
        np.testing.assert_allclose(found["energy_label"], expected)
    record = load(root / "run.json")
    assert record["judged"] == "test"
    assert record["data"]["test"]["n_structures"] == 4
    assert list(result.metrics) == ["test", "val"]
    assert not set(named) & {*load(root / "split.json")["train"], *load(root / "split.json")["val"]}


def test_beside_a_file_of_test_data_it_has_a_name_of_its_own(settings, tmp_path):
    root = tmp_path / "run"
    result = forgefield.run(settings(root, data__split={"method": "random", "test": 4}, **QUICK), quiet=True)
    assert list(result.metrics) == ["test", "test_part", "val"]
    described = load(root / "run.json")["data"]
    assert described["test"]["n_structures"] == 5
    assert described["test_part"]["n_structures"] == 4


@pytest.mark.parametrize("part", ["a file", "a part of the split"])
def test_strange_elements_in_it_are_found_before_training(settings, data, tmp_path, part):
    """Test data are read again after training: what they lack must not be found out then."""
    sulphur = [line.replace("O ", "S ", 1) for line in (data / "test.xyz").read_text().splitlines(keepends=True)]
    before = (data / "train.xyz").read_text() if "split" in part else ""
    (tmp_path / "strange.xyz").write_text(before + "".join(sulphur))
    config = settings(tmp_path / "run", data__test=[str(tmp_path / "strange.xyz")], **QUICK)
    if "split" in part:
        split = {"method": "random", "val": 3, "test": [24, 25, 26, 27, 28]}
        config = settings(
            tmp_path / "run", data__train=str(tmp_path / "strange.xyz"), data__test=[], data__split=split, **QUICK
        )
    with pytest.raises(DataError, match="has S, which the training data does not have"):
        forgefield.run(config, quiet=True)
    assert not (tmp_path / "run" / "history.jsonl").exists()


def test_replay_with_a_budget_and_workers(shared_run, settings, data, tmp_path, capsys):
    new = tmp_path / "new.xyz"
    lines = (data / "train.xyz").read_text().splitlines(keepends=True)
    new.write_text("".join(lines[4 * 3 :][: 12 * 29]))  # after four free atoms
    block = {"replay": {"data": str(data / "train.xyz"), "fraction": 0.25}}
    weights = []
    for workers in (0, 1):
        config = settings(
            tmp_path / str(workers), task="finetune", model_in=str(shared_run[0]), data__train=str(new), data__test=[],
            data__val=str(data / "test.xyz"), finetune=block, **QUICK,
        )  # fmt: skip
        config["train"] |= {"batch_size": None, "max_atoms": 27 * 4, "num_workers": workers, "epochs": 2}
        config["data"] |= {"accept": ["leaked_duplicates", "leaked_near_duplicates", "duplicates"]}
        forgefield.run(config, quiet=False)
        said = " ".join(capsys.readouterr().out.split())
        assert "replay: 4 of 18 old structures beside 12 new ones in every epoch (25.0 %; spread evenly over " in said
        weights.append((tmp_path / str(workers) / "checkpoints" / "last" / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1]
