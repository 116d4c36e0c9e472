"""Architectures have defaults of their own for training; what the user says comes first."""

import pytest

from forgefield.app.run import config_of, load_run, save_resolved
from forgefield.app.training_defaults import training_defaults


def run_of(tmp_path, backend="aimnet2", **train):
    (tmp_path / "t.xyz").write_text("1\n\nH 0 0 0\n")
    return config_of(
        {"task": "train", "backend": backend, "run_dir": "r", "data": {"train": "t.xyz"}, "train": train}, tmp_path
    )


@pytest.mark.parametrize(("backend", "lr"), [("mace", 0.01), ("aimnet2", 0.001), ("xpainn", 0.001)])
def test_the_learning_rate_is_the_architectures(tmp_path, backend, lr):
    assert run_of(tmp_path, backend).train.lr == lr
    assert training_defaults(backend).get("lr", 0.01) == lr


def test_what_the_user_says_comes_first(tmp_path):
    assert run_of(tmp_path, lr=0.02).train.lr == 0.02
    assert run_of(tmp_path, optimizer="sgd").train.lr == 0.01


def test_the_resolved_run_holds_it(tmp_path):
    config = run_of(tmp_path)
    (again,) = load_run(save_resolved(config, tmp_path))
    assert again.train.lr == 0.001
