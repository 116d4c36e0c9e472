"""The data of a comparison: what each candidate trains, validates and is tested on, which must be the same for all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forgefield.app.compare.candidates import Trial
from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.datasets import (
    HeadFrames,
    checked_training_data,
    head_of_new_data,
    set_name,
    test_sets,
)
from forgefield.core.errors import ConfigError, DataError
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import separate_isolated
from forgefield.data.parts import open_part

Identity = dict[str, dict[str, Any]]
"""By set: number of structures, and the SHA-256 of the structures and of each of their labels."""


class Sets(NamedTuple):
    """What one candidate works on; `tests` by name."""

    train: Dataset
    val: Dataset | None
    tests: dict[str, Dataset]


def open_sets(config: RunConfig, tests: Sequence[Path]) -> Sets:
    """Open the data of a candidate as its run does, and the test files of the comparison as its evaluation does.

    Raises:
        ForgeError: they cannot be read or lack labels.
    """
    data = checked_training_data(config)
    found = {name: separate_isolated(test)[0] for name, test in test_sets(config, data).items()}
    for path in tests:
        name = set_name([path])
        if name in found:
            fix = "take it out of data.test or of --test, or rename one of the files"
            raise ConfigError(f"two test sets are named {name!r}", f"--test {path}", fix)
        found[name] = open_test(config, path)
    return Sets(data.train, data.val, found)


def open_test(config: RunConfig, path: Path) -> Dataset:
    """Open a test file with the candidate's names of labels, units and head.

    Raises:
        DataError: it cannot be read, or holds nothing to test on.
    """
    update = {"lmdb": (path,), "test": (), "indices": None, "indices_path": None}
    dataset, _ = separate_isolated(open_part(config.data.model_copy(update=update), "lmdb"))
    if len(dataset) == 0:
        raise DataError("holds no structures to test on", str(path), "give structures of more than one free atom")
    head = head_of_new_data(config)
    return dataset if head is None else Dataset([HeadFrames(dataset, head, always=False)])


def identity(sets: Sets) -> Identity:
    """Return what tells data apart: structures in their order, and each kind of label."""
    named = {"training": sets.train, **({"validation": sets.val} if sets.val is not None else {})}
    named |= {f"test {name}": dataset for name, dataset in sets.tests.items()}
    return {name: _identity(dataset) for name, dataset in named.items()}


def _identity(dataset: Dataset) -> dict[str, Any]:
    structures, labels = hashlib.sha256(), dict[str, Any]()
    for k in range(len(dataset)):
        s = dataset[k]
        for array, kind in ((s.numbers, "<i8"), (s.positions, "<f8"), (s.cell, "<f8"), (s.pbc, "?")):
            structures.update(np.ascontiguousarray(array).astype(kind).tobytes())
        for name, value in s.labels.items():
            digest = labels.setdefault(name, hashlib.sha256())
            digest.update(f"{k}:".encode() + np.asarray(value).astype("<f8").tobytes())
    hashes = {name: labels[name].hexdigest() for name in sorted(labels)}
    return {"n_structures": len(dataset), "structures": structures.hexdigest(), "labels": hashes}


def check_same(found: Mapping[str, Identity]) -> None:
    """Refuse candidates whose data differ: the structures of a set, their order, or a label that both have.

    Args:
        found: by candidate.

    Raises:
        DataError: the first two that differ, and in what.
    """
    (first, reference), *others = found.items()
    for name, own in others:
        if reference.keys() != own.keys():
            sets = "; ".join(f"{who} has {', '.join(has)}" for who, has in ((first, reference), (name, own)))
            raise DataError(f"the candidates have other sets: {sets}", "data", "give all the same val and test data")
        for title, one in own.items():
            if lines := list(_unlike(reference[title], one)):
                what = f"{first} and {name} differ in the {title} set: {', '.join(lines)}"
                fix = "a comparison needs the same data: the same files, split, split_seed, units and keys of labels"
                raise DataError(what, "data", fix)


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    if one["n_structures"] != other["n_structures"]:
        return [f"{one['n_structures']} and {other['n_structures']} structures"]
    if one["structures"] != other["structures"]:
        return ["other structures, or another order of them"]
    both = one["labels"].keys() & other["labels"].keys()
    return [f"other values of {name}" for name in sorted(both) if one["labels"][name] != other["labels"][name]]


def examine(trials: Sequence[Trial], tests: Sequence[Path]) -> Identity:
    """Open the data of every candidate and compare them; candidates with the same `data` block are opened once.

    Raises:
        ForgeError: data cannot be read, or differ.
    """
    opened: dict[str, Identity] = {}
    found: dict[str, Identity] = {}
    for trial in trials:
        config = trial.config
        key = repr((config.data, head_of_new_data(config), sorted(config.train.trained_labels()), config.finetune))
        if trial.name not in found:
            if key not in opened:
                opened[key] = identity(open_sets(config, tests))
            found[trial.name] = opened[key]
    check_same(found)
    return next(iter(found.values()))
