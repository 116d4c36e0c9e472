"""Opening, checking and describing the data of a task."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from forgefield.app.folder import write_json
from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.aims import judges_unseen
from forgefield.app.tasks.steps.head_names import check_told_apart
from forgefield.app.tasks.steps.outcome import say
from forgefield.app.tasks.steps.replaying import count_replay, describe_replay, open_replay
from forgefield.app.tasks.steps.run import Run
from forgefield.app.tasks.steps.xequinet_files import check_tested
from forgefield.core.elements import symbol
from forgefield.core.errors import DataError, ModelError
from forgefield.core.structure import Structure
from forgefield.data.checks import check_elements, check_fixed, check_labels, check_tags
from forgefield.data.dataset import Dataset
from forgefield.data.drawing import WeightedDraws
from forgefield.data.isolated import separate_isolated
from forgefield.data.parts import PartName, TrainingData, open_part, open_training
from forgefield.data.reader import Frames
from forgefield.data.server_address import shown
from forgefield.data.settings import DataSettings
from forgefield.data.survey import Survey
from forgefield.train.settings import TrainSettings

_ENDINGS = re.compile(r"(\.(xz|gz|extxyz|xyz|lmdb|db))+$", re.IGNORECASE)


class HeadFrames(Frames):
    """A data set whose structures train, or are asked of, one head.

    Args:
        dataset: the structures.
        head: the head.
        always: replace the head that a structure names; otherwise only fill it in.
    """

    def __init__(self, dataset: Dataset, head: str, *, always: bool) -> None:
        others = sorted({name for part in dataset.parts for name in part.others})
        super().__init__(dataset.name, dataset.parts[0].chosen if dataset.parts else {}, others, dataset.notes)
        self._dataset, self._head, self._always = dataset, head, always

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Structure:
        structure = self._dataset[index]
        if structure.level is not None and not self._always:
            return structure
        return dataclasses.replace(structure, head=self._head)

    def survey(self) -> Survey:
        """Return what is known of the structures, with their heads."""
        found = self._dataset.survey
        kinds = [k._replace(head=self._head) if self._always or k.head is None else k for k in found.kinds]
        return Survey(kinds, found.kind, found.n_atoms)


def load_training_data(run: Run) -> TrainingData:
    """Open and split the training data, and check that every trained label is there."""
    with run.record.stage("reading"):
        data = checked_training_data(run.config)
        check_tested(run.config, data)
        if data.val is None:
            run.say("note: there are no validation data; the best epoch is chosen on the training data")
    if data.split is not None and data.split.note:
        run.say(f"note: {data.split.note}")
    n_val = 0 if data.val is None else len(data.val)
    names = " ".join(symbol(z) for z in data.train.elements())
    kept = f", {len(data.test)} to test on" if data.test is not None else ""
    run.say(f"data: {len(data.train)} structures to train on, {n_val} to validate on{kept}; elements: {names}")
    if data.replay is not None:
        run.say(describe_replay(data.replay, run.config))
    elif data.draws is not None:
        run.say(describe_draws(data.draws, run.config.data))
    return data


def describe_draws(draws: WeightedDraws, settings: DataSettings) -> str:
    """Return how the training structures are drawn, in one line."""
    names = ["the training structures"] if len(draws.sources) == 1 else [str(Path(s).name) for s in settings.train]
    return f"sampling: {draws.describe(names)}"


def checked_training_data(config: RunConfig) -> TrainingData:
    """Open and split the training data, and check that every trained label is there."""
    data = _with_head(open_training(config.data), head_of_new_data(config))
    needed = trained_quantities(config.train)
    some = config.train.missing_labels == "mask"
    check_labels(data.train, needed, some=some)
    if config.train.train_on_free_atoms:
        check_fixed(data.train)
    if config.train.tag_weights:
        check_tags(data.train, config.train.tag_weights)
    if data.val is not None:
        check_labels(data.val, needed, some=some)
    _check_elements(config, data)
    if data.draws is not None:
        data = data._replace(draws=dataclasses.replace(data.draws, seed=config.train.seed))
    return data._replace(replay=open_replay(config, len(data.train), len(data.val or data.train), needed))


def _check_elements(config: RunConfig, data: TrainingData) -> None:
    """Refuse elements that no training structure has: in validation data, and for a new model in test data.

    Test data are read after training, when it would be too late.
    """
    if judges_unseen(config):
        return
    if data.val is not None:
        check_elements(data.val, data.train.elements(), drawn=not config.data.val)
    if config.task == "train":
        known = {*data.measured.elements(), *(config.model_json.elements if config.model_json else ())}
        for test in test_sets(config, data).values():
            check_elements(separate_isolated(test)[0], known, drawn=test is data.test)


def head_of_new_data(config: RunConfig) -> str | None:
    """Return the head of structures that name none; None leaves it to the model."""
    return config.finetune.head or config.train.head_key


def open_test(config: RunConfig) -> Dataset | None:
    """Open the test data, if there are any, as they stand in the file."""
    return _fill_head(open_part(config.data, "test"), head_of_new_data(config)) if config.data.test else None


def note_training_data(run: Run, data: TrainingData) -> None:
    """Record what the training data are and how they were split."""
    if data.split is not None:
        write_json(run.folder.split, data.split.to_dict())
    described = {"train": describe(data.measured, run.config.data.train)}
    if run.config.data.val and data.val is not None:
        described["val"] = describe(data.val, run.config.data.val)
    if data.replay is not None:
        described["replay"] = describe(data.replay.train, run.config.finetune.replay.data)
        run.record.note(replay=count_replay(data.replay, run.config))
    run.record.note(data=described, split=_split_record(data, run.config.data), fingerprint=fingerprint(data))


def load_test_data(run: Run, data: TrainingData, elements: Sequence[int]) -> dict[str, Dataset]:
    """Return the test data by their names: the file's, then the test part of the split, without free atoms."""
    sources = run.config.data
    found: dict[str, Dataset] = {}
    described = dict(run.record.content.get("data", {}))
    with run.record.stage("reading"):
        for name, test in test_sets(run.config, data).items():
            found[name] = without_free_atoms(test, run.console)
            check_elements(found[name], elements, "the model")
            check_some_label(found[name])
            paths = sources.train if test is data.test else sources.test
            described["test" if "test" not in described else name] = describe(found[name], paths)
    if found:
        run.record.note(data=described)
    return found


def test_sets(config: RunConfig, data: TrainingData) -> dict[str, Dataset]:
    """Return what is evaluated after training beside the validation data, by name, as it stands in the files."""
    test = open_test(config)
    found = {} if test is None else {set_name(config.data.test): test}
    if data.test is not None:
        found["test" if "test" not in found else "test_part"] = data.test
    return found


def open_asked(settings: DataSettings, head: str | None) -> tuple[Dataset, tuple[Path, ...]]:
    """Open the data that evaluate or infer works on, and return them with their paths.

    Args:
        settings: the data block; `lmdb` is meant where it is given, else `test`.
        head: the head to ask; None leaves it to the structures.
    """
    name: PartName = "lmdb" if settings.lmdb else "test"
    dataset = open_part(settings, name, active=True)
    if len(dataset) == 0:
        raise DataError("no structure is left", dataset.name, "check data.indices and data.test_indices")
    if head is not None:
        dataset = Dataset([HeadFrames(dataset, head, always=True)])
    return dataset, getattr(settings, name)


def check_heads(dataset: Dataset, heads: Sequence[str], setting: str) -> None:
    """Refuse structures that do not say which of several heads they belong to.

    Args:
        dataset: the structures.
        heads: the model's heads.
        setting: the setting that would say it, for the message.

    Raises:
        ModelError: a structure names no head, or one that the model does not have.
    """
    listing = ", ".join(heads)
    survey = dataset.survey
    strange = survey.where(k.head not in heads and (k.head is not None or len(heads) > 1) for k in survey.kinds)
    for place in np.flatnonzero(strange)[:1]:
        structure = dataset[int(place)]
        if structure.level is None and len(heads) > 1:
            what = f"names no head, and the model has {len(heads)}: {listing}"
            raise ModelError(what, structure.origin, f"set {setting} to one of them")
        if structure.level is not None and structure.level not in heads:
            what = f"belongs to head {structure.level!r}, which the model does not have"
            fix = f"the model's heads: {listing}; {setting} sets one for all"
            fix += f"; task finetune adds it with finetune.head: {structure.level}" * (setting == "train.head_key")
            raise ModelError(what, structure.origin, fix)


def heads_of(dataset: Dataset) -> list[str]:
    """Return the heads that a new model needs: those the structures name, or one called default.

    Raises:
        DataError: some structures name a head and some do not, or two names are alike.
    """
    named, survey = sorted(dataset.heads()), dataset.survey
    check_told_apart(named, dataset.name)
    nameless = np.flatnonzero(survey.where(kind.head is None for kind in survey.kinds))
    if named and len(nameless):
        what = f"names no head, but other frames do ({', '.join(named)})"
        origin = dataset[int(nameless[0])].origin
        raise DataError(what, origin, "name one in every frame, or set train.head_key for those without")
    return named or ["default"]


def without_free_atoms(dataset: Dataset, console: Console) -> Dataset:
    """Leave out frames of one free atom: they give reference energies, and would blur the errors."""
    rest, free = separate_isolated(dataset)
    if len(rest) == 0:
        raise DataError("holds no structures to evaluate", dataset.name, "it has frames of one free atom only")
    if len(free):
        say(console, f"note: {len(free)} frames of one free atom are left out of the evaluation")
    return rest


def check_some_label(dataset: Dataset) -> None:
    """Refuse to evaluate on data without any label.

    Raises:
        DataError: there is none; what the files have instead is named.
    """
    if any(kind.labels for kind in dataset.survey.present()):
        return
    others = sorted({name for part in dataset.parts for name in part.others})
    seen = f"; the files have {', '.join(others)}" if others else ""
    fix = "set data.energy_key and data.forces_key, or use task infer, which needs no labels"
    raise DataError(f"no frame has an energy, forces or a stress to compare with{seen}", dataset.name, fix)


def trained_quantities(train: TrainSettings) -> set[str]:
    """Return the labels that the loss needs."""
    return train.trained_labels()


def fingerprint(data: TrainingData) -> str:
    """Return the SHA-256 of training and validation data together (hex)."""
    parts = [data.measured.fingerprint, "" if data.val is None else data.val.fingerprint]
    parts += [] if data.replay is None else [data.replay.train.fingerprint, data.replay.val.fingerprint]
    return hashlib.sha256(":".join(parts).encode()).hexdigest()


def describe(dataset: Dataset, paths: Sequence[Path]) -> dict[str, Any]:
    """Return where a data set comes from and what it holds, for the record."""
    return {
        "path": ", ".join(shown(p) for p in paths),
        "n_structures": len(dataset),
        "n_atoms": int(dataset.survey.n_atoms.sum()),
        "elements": dataset.elements(),
        "fingerprint": dataset.fingerprint,
    }


def set_name(paths: Sequence[Path]) -> str:
    """Return what an evaluated set is called: the file's name without its ending, or test for several files."""
    if len(paths) != 1:
        return "test"
    name = re.sub(r"[^\w.+-]+", "_", _ENDINGS.sub("", Path(paths[0]).name)).strip("._")
    return f"test_{name}" if name in ("", "val") else name


def _with_head(data: TrainingData, head: str | None) -> TrainingData:
    val = None if data.val is None else _fill_head(data.val, head)
    test = None if data.test is None else _fill_head(data.test, head)
    return data._replace(
        measured=_fill_head(data.measured, head), train=_fill_head(data.train, head), val=val, test=test
    )


def _fill_head(dataset: Dataset, head: str | None) -> Dataset:
    """Give the structures that name no head this one."""
    return dataset if head is None else Dataset([HeadFrames(dataset, head, always=False)])


def _split_record(data: TrainingData, settings: DataSettings) -> dict[str, Any]:
    """Return sizes and origin of the split."""
    sizes = {"train": len(data.train), "val": 0 if data.val is None else len(data.val)}
    if data.split is not None:
        how = f"{100 * data.split.fraction:.3g} % of the training data, drawn with seed {data.split.seed}"
        how = how if data.split.method == "random" else f"{how}, {data.split.method}"
        how = data.split.method if data.split.method.startswith("as ") else how
        more = {name: len(getattr(data.split, name)) for name in ("test", "left_out")}
        return {**sizes, **{k: v for k, v in more.items() if v}, "hash": data.split.hash, "how": how}
    return {**sizes, "hash": "", "how": "data.val" if settings.val else "no validation data"}
