"""Choosing a part of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.settings import Sampling
from forgefield.data.split import read_part

PartName = Literal["train", "val", "test"]


def select(dataset: Dataset, sampling: Sampling, part: PartName = "train") -> Dataset:
    """Return the part that the settings ask for.

    Args:
        dataset: all structures.
        sampling: the settings.
        part: which list of a saved split is meant, where `indices_path` is one.

    Raises:
        DataError: the index file is wrong or names a frame that is not there.
    """
    places = np.arange(len(dataset))
    if sampling.indices_path is not None:
        places = np.asarray(read_indices(sampling.indices_path, part), dtype=np.int64)
    if sampling.shuffle:
        places = np.random.default_rng(sampling.seed).permutation(places)
    return dataset.subset(places[: sampling.max_samples])


def read_indices(path: Path, part: PartName = "train") -> list[int]:
    """Read a JSON list of frame numbers, counted from 0, or one part of a saved split.

    Raises:
        DataError: the file is missing, is no such list, or names a frame twice.
    """
    if (listed := read_part(path, part)) is not None:
        return check_indices(listed, str(path))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path), "check data.*indices_path") from None
    except ValueError as error:
        raise DataError(f"is not JSON ({error})", str(path), "write a list of whole numbers: [0, 1, 2]") from None
    return check_indices(found, str(path))


def check_indices(indices: object, where: str) -> list[int]:
    """Return the indices as a list of ints.

    Raises:
        DataError: it is empty, has something that is no whole number, or names a frame twice.
    """
    if not isinstance(indices, (list, tuple)) or not all(type(i) is int for i in indices):
        raise DataError("is not a list of whole numbers", where, "write a list of frame numbers: [0, 1, 2]")
    if not indices:
        raise DataError("is an empty list", where, "name at least one frame")
    if len(set(indices)) < len(indices):
        twice = next(i for i in indices if indices.count(i) > 1)
        raise DataError(f"names frame {twice} more than once", where, "remove the repetition")
    return list(indices)
