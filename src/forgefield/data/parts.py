"""From the `data:` block to the data sets of a task: opened, sampled, split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.drawing import WeightedDraws
from forgefield.data.energy_file import is_energy_file
from forgefield.data.isolated import separate_isolated
from forgefield.data.mixing import Mixture
from forgefield.data.own_split import split_of_data
from forgefield.data.reader import Frames
from forgefield.data.reference import E0, Trimmed
from forgefield.data.sampling import check_indices, read_indices, select
from forgefield.data.settings import E0_WORDS, DataSettings, Sampling
from forgefield.data.source_weights import weighted_draws
from forgefield.data.sources import open_sources
from forgefield.data.split import Split, read_split
from forgefield.data.split_settings import SplitSettings
from forgefield.data.splitting import make_split
from forgefield.data.survey import Survey

PartName = Literal["train", "val", "test", "lmdb"]


class TrainingData(NamedTuple):
    """What a training task works on."""

    measured: Dataset  # training structures with the frames of one free atom: for `measure`
    train: Dataset  # without them: for the batches
    val: Dataset | None
    split: Split | None  # None where `data.val` is given, or val_fraction is 0
    replay: Replay | None = None  # old data beside the new
    draws: WeightedDraws | None = None  # of `train`; None: each structure once per epoch
    test: Dataset | None = None  # the test part of the split, evaluated after training

    @property
    def fitted(self) -> Dataset:
        """All structures that batches are drawn from: the new ones, then the old."""
        return self.train if self.replay is None else Dataset([View(self.train), View(self.replay.train)])

    @property
    def mixture(self) -> Mixture | WeightedDraws | None:
        """How the structures of an epoch are drawn from `fitted`; None: all of them."""
        return self.draws if self.replay is None else self.replay.mixture

    @property
    def checked(self) -> Dataset:
        """What is validated on: new structures, those trained on where there are no others, then old ones."""
        new = self.val or self.train
        return new if self.replay is None else Dataset([View(new), View(self.replay.val)])


class Replay(NamedTuple):
    """Old data that are trained on beside the new."""

    train: Dataset
    val: Dataset
    mixture: Mixture  # of the new and old structures of an epoch


class View(Frames):
    """A data set as a part of another, in its own order.

    Args:
        dataset: the structures.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset.name, {})
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Structure:
        return self.dataset[index]

    def survey(self) -> Survey:
        """Return what the data set knows of its structures."""
        return self.dataset.survey


def open_part(settings: DataSettings, name: PartName, *, active: bool = False) -> Dataset:
    """Open one of the data sets that the settings name, and take the part of it that they ask for.

    Args:
        settings: the `data:` block.
        name: train, val, test, or lmdb (the data to evaluate or predict).
        active: whether this is the set that the task works on: `indices` and `indices_path` apply to it.

    Raises:
        DataError: it is not named, or cannot be read.
    """
    paths = getattr(settings, name)
    if not paths:
        raise DataError(f"data.{name} is not given", "data", f"set data.{name} to a file")
    dataset = open_sources(paths, settings)
    part = "test" if name == "lmdb" else name
    if active and settings.indices is not None:
        return dataset.subset(check_indices(list(settings.indices), "data.indices"))
    if active and settings.indices_path is not None:
        return dataset.subset(read_indices(settings.indices_path, part))
    sampling = getattr(settings, f"{name}_indices", Sampling())
    return select(dataset, sampling, part)


def open_training(settings: DataSettings) -> TrainingData:
    """Open training and validation data; without `data.val` part of the training data is set aside.

    Raises:
        DataError: no training data, or too little to split.
    """
    everything = open_part(settings, "train", active=True)
    split = None
    measured, val, test = everything, None, None
    if settings.val:
        if settings.split != SplitSettings():
            raise DataError("data.val is given, so nothing is split off", "data.split", "keep one of the two")
        val, _ = separate_isolated(open_part(settings, "val"))
        if len(val) == 0:
            raise DataError("holds no structures to validate on", val.name, "it has frames of one free atom only")
    else:
        split = _split(everything, settings)
        if split is not None:
            measured, val = everything.subset(split.train), everything.subset(split.val) if len(split.val) else None
            test = everything.subset(split.test) if len(split.test) else None
    train, _ = separate_isolated(measured)
    draws = weighted_draws(
        train, settings.train, settings.sampling, settings.draws_per_epoch, replacement=settings.replacement
    )
    return TrainingData(measured, train, val, split, draws=draws, test=test)


def _split(everything: Dataset, settings: DataSettings) -> Split | None:
    """Divide the training data as the settings say; None where all of them are trained on."""
    if isinstance(settings.split, Path):
        return read_split(settings.split, everything)
    if settings.split == SplitSettings() and settings.val_fraction == DataSettings().val_fraction:
        own = split_of_data(everything)
        if own is not None:
            return own
    if settings.split == SplitSettings() and settings.val_fraction == 0:
        return None
    return make_split(everything, settings.split, settings.val_fraction, settings.split_seed)


def reference_setting(settings: DataSettings) -> E0:
    """Return `data.e0` for `measure`; a file of structures is opened with the names and units of the settings."""
    e0: str | Path | Mapping[str, Any] | Dataset = settings.e0
    if isinstance(e0, Path) and str(e0) not in E0_WORDS and not is_energy_file(e0):
        e0 = open_dataset(e0, "auto", settings.keys, settings.units)
    return e0 if settings.e0_percentiles is None else Trimmed(e0, settings.e0_percentiles)
