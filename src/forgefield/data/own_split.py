"""The split that data bring along (XequiNet's split.json), for training without a split of the user's."""

from __future__ import annotations

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.split import Split

NAMES = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}
OVERRULE = "data.split: random, or another, overrules it"


def split_of_data(dataset: Dataset) -> Split | None:
    """Return the split that every source of a data set brings along; None where one of them has none.

    Args:
        dataset: whole sources.

    Raises:
        DataError: a split names a structure twice, or has nothing to train on.
    """
    parts = [part for part in dataset.parts if len(part)]
    splits = [part.own_split for part in parts]
    total = sum(map(len, dataset.parts))
    if not splits or not np.array_equal(dataset.indices, np.arange(total)):
        return None
    found: dict[str, list[np.ndarray]] = {name: [np.zeros(0, dtype=np.int64)] for name in NAMES}
    first = 0
    for part, split in zip(parts, splits, strict=True):
        if split is None or not all(any(len(split.get(n, ())) for n in NAMES[name]) for name in ("train", "val")):
            return None
        for name, names in NAMES.items():
            found[name] += [first + split[n] for n in names if n in split][:1]
        first += len(part)
    train, val, test = (np.sort(np.concatenate(found[name])) for name in NAMES)
    named = np.concatenate([train, val, test])
    if len(np.unique(named)) < len(named):
        what = "the split that comes with the data names a structure in two parts, or twice"
        raise DataError(what, dataset.name, f"mend it, or split otherwise ({OVERRULE})")
    rest = np.setdiff1d(np.arange(total), named)
    more = "".join(
        f", {len(places)} {what}" for places, what in ((test, "to test on"), (rest, "in no part")) if len(places)
    )
    note = f"the data bring a split along: {len(train)} to train on, {len(val)} to validate on{more}; {OVERRULE}"
    return Split(train, val, len(val) / total, 0, test, rest, "as the data's own split", note)
