"""Dispersion computed once for each structure, or with every prediction: the key decides, the run says so."""

import pytest

import forgefield
from forgefield.train.records.jsonl import read_history

D3 = {"d3": {"functional": "wb97x"}}


def test_the_key_decides_and_the_digits_stay(settings, tmp_path):
    losses, told = [], []
    for name in ("once", "every_step"):
        root = tmp_path / name
        config = settings(
            root, data__test=[], data__fidelities={"default": {"dispersion": "included"}}, model__physics=D3,
            train__epochs=1, train__constant_physics=name, dtype="float64", export__targets=[],
        )  # fmt: skip
        forgefield.run(config, quiet=True)
        losses += [row["val_loss"] for row in read_history(root / "history.jsonl")]
        events = root / "events.jsonl"
        told.append(events.exists() and "train.constant_physics: d3" in events.read_text())
    assert told == [True, False]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
