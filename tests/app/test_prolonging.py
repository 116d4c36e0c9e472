"""A run that is to go on for longer and cannot says which key ended it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from forgefield.app.tasks.steps.prolonging import ENDED_BY, hint, prolonging
from forgefield.train.loop import FitResult
from forgefield.train.settings import TrainSettings


def ended(reason, epochs_done=3):
    return FitResult(1, 0.0, epochs_done, 0.0, reason, Path("history.jsonl"), 0)


def asked(**train):
    return SimpleNamespace(train=TrainSettings.model_validate(train))


@pytest.mark.parametrize("reason", ENDED_BY)
def test_the_key_that_ended_it_is_named(reason):
    key = ENDED_BY[reason]
    said = hint(asked(epochs=20, max_updates=30), asked(epochs=10, max_updates=30), ended(reason))
    assert said is not None
    assert f"train.{key}" in said
    assert "after 3 of 20 epochs" in said
    assert key in TrainSettings.model_fields


def test_max_updates_is_told_with_its_value():
    said = hint(asked(epochs=20, max_updates=30), asked(epochs=10, max_updates=30), ended("max_updates"))
    assert said == (
        "train.epochs did not decide: train.max_updates: 30 ended the fit after 3 of 20 epochs; to go on: "
        "forgefield resume --set train.max_updates=N or null"
    )


@pytest.mark.parametrize(
    ("now", "before", "result"),
    [
        (20, 10, ended("epochs", 20)),
        (10, 10, ended("max_updates")),  # no more epochs were asked for
        (20, 10, ended("max_updates", 20)),  # and all are done
    ],
)
def test_nothing_is_said_where_nothing_is_wrong(now, before, result):
    assert hint(asked(epochs=now), asked(epochs=before), result) is None


def test_what_is_proposed_trains_for_longer():
    config = asked(epochs=10, max_updates=30)
    assert prolonging("runs/a", config, ended("epochs"))[1] == "forgefield resume runs/a --epochs 20"
    assert prolonging("runs/a", config, ended("max_updates"))[1].endswith("--set train.max_updates=60")
    assert prolonging("runs/a", config, ended("max_minutes"))[1] == "forgefield resume runs/a"
