"""Dividing a data set into training, validation and test."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from forgefield.core.disk import write_atomic
from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import are_isolated

FORMAT = "forgefield-split-2"
PARTS = ("train", "val", "test", "left_out")
_FEW = 20  # groups that a message names


@dataclass(frozen=True, eq=False)
class Split:
    """Places of the training and validation structures in a data set, each ascending.

    Args:
        train: (n,)
        val: (m,)
        fraction: the part asked for.
        seed: of the draw.
        test: kept for testing, (k,).
        left_out: between blocks of a trajectory, used for nothing, (l,).
        method: how it was made.
        note: the same in words, where the user should know.
        contents: SHA-256 of the structures (`contents_of`), hex; empty if not known.
    """

    train: np.ndarray
    val: np.ndarray
    fraction: float
    seed: int
    test: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    left_out: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    method: str = "random"
    note: str = ""
    contents: str = ""

    @property
    def hash(self) -> str:
        """SHA-256 of the lists of places (hex)."""
        digest = hashlib.sha256(b"forgefield-split-1")
        for places in (self.train, self.val, *((self.test,) if len(self.test) else ())):
            digest.update(f"{len(places)}:".encode())
            digest.update(places.astype("<i8").tobytes())
        return digest.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, for split.json."""
        return {
            "format": FORMAT,
            "method": self.method,
            "note": self.note,
            "seed": self.seed,
            "fraction": self.fraction,
            "hash": self.hash,
            "contents": self.contents,
            **{name: getattr(self, name).tolist() for name in PARTS},
        }

    def save(self, path: Path) -> None:
        """Write a file that `data.split` takes."""
        write_atomic(path, json.dumps(self.to_dict()) + "\n")

    def with_contents(self, dataset: Dataset) -> Split:
        """Return the split together with the mark of the structures it belongs to."""
        return replace(self, contents=contents_of(dataset))


def contents_of(dataset: Dataset) -> str:
    """Return the SHA-256 of elements and positions of all structures in their order (hex)."""
    digest = hashlib.sha256()
    for structure in dataset:
        digest.update(structure.numbers.astype("<i4").tobytes() + structure.positions.astype("<f8").tobytes())
    return digest.hexdigest()


def split_dataset(dataset: Dataset, fraction: float, seed: int, free: np.ndarray | None = None) -> Split:
    """Draw `fraction` of the structures for validation.

    Frames of one free atom always stay in training, where reference energies are measured.

    Raises:
        DataError: too few structures to have both parts.
    """
    free = are_isolated(dataset) if free is None else free
    rest = np.flatnonzero(~free)
    count = round(len(rest) * fraction)
    if fraction > 0:
        count = max(count, 1)
        if count >= len(rest):
            raise too_few(len(rest), dataset)
    val = np.sort(np.random.default_rng(seed).permutation(rest)[:count])
    train = np.setdiff1d(np.arange(len(dataset)), val)
    return Split(train, val, fraction, seed)


def too_few(count: int, dataset: Dataset) -> DataError:
    """Return the complaint that there is not enough to divide."""
    return DataError(
        f"{count} structures cannot be split into training and validation",
        dataset.name,
        "give more data, give data.val, or set data.val_fraction to 0",
    )


def read_split(path: Path, dataset: Dataset) -> Split:
    """Read a split that was saved, and see that it belongs to the data.

    Raises:
        DataError: the file is missing, damaged or was edited, or belongs to other data.
    """
    found = _load(path)
    places = {name: np.asarray(found.get(name, []), dtype=np.int64) for name in PARTS}
    everything = np.concatenate(list(places.values()))
    if len(np.unique(everything)) < len(everything):
        raise DataError("names a structure twice", str(path), "a structure belongs to one part")
    if everything.min(initial=0) < 0 or everything.max(initial=0) >= len(dataset):
        what = f"names structure {everything.max()}, the data have {len(dataset)} (0 to {len(dataset) - 1})"
        raise DataError(what, str(path), "it was made for other data")
    contents = str(found.get("contents", ""))
    split = Split(
        np.sort(places["train"]), np.sort(places["val"]), float(found.get("fraction", 0.0)), int(found.get("seed", 0)),
        np.sort(places["test"]), np.sort(places["left_out"]), f"as in {path.name}", "", contents,
    )  # fmt: skip
    if "hash" in found and found["hash"] != split.hash:
        raise DataError("its lists are not those of its hash", str(path), "undo the change, or take out the hash")
    if contents and contents != contents_of(dataset):
        raise DataError(
            "was made for other structures, or for the same in another order",
            str(path),
            "name the same files in the same order, or make a new split: forgefield data split",
        )
    if not len(split.train):
        raise DataError("has no training structures", str(path), "give the list 'train'")
    return split


def read_part(path: Path, name: Literal["train", "val", "test"]) -> list[int] | None:
    """Return the indices of one part of a saved split; None if the file is none.

    Raises:
        DataError: it is a split without that part.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not (isinstance(found, dict) and isinstance(found.get("train"), list)):
        return None
    if not found.get(name):
        raise DataError(f"is a split without a list {name!r}", str(path), "name a list of frame numbers")
    return list(found[name])


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error})", str(path), "make it by: forgefield data split") from None
    lists = found if isinstance(found, dict) else {}
    good = [
        isinstance(lists.get(name, []), list) and all(type(k) is int for k in lists.get(name, [])) for name in PARTS
    ]
    if "train" not in lists or not all(good):
        raise DataError("is no split", str(path), 'write {"train": [0, 1], "val": [2]}, or use forgefield data split')
    return lists
