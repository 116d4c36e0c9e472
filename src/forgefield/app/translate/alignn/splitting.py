"""alignn: which structures train, validate and test; the same ones as there, where the data can be counted."""

from __future__ import annotations

import random
from typing import NamedTuple

from forgefield.app.translate.alignn.data import data_file, data_folder
from forgefield.app.translation import Given, Remark, Sheet
from forgefield.core.errors import ForgeError
from forgefield.data.dataset import open_dataset
from forgefield.data.json_list import JsonList

SEED = 123
"""Of alignn's shuffle: always this one, whatever `random_seed` is."""
COUNTS, RATIOS = ("n_train", "n_val", "n_test"), ("train_ratio", "val_ratio", "test_ratio")


class Lists(NamedTuple):
    """Indices of the structures of each part."""

    train: list[int]
    val: list[int]
    test: list[int]


def split(given: Given, sheet: Sheet) -> None:
    """Write alignn's own lists; without the data, the same sizes drawn at random."""
    values = {name: given[name] for name in (*COUNTS, *RATIOS, "keep_data_order", "random_seed")}
    try:
        whole = len(open_dataset(data_folder(given)))
        labelled = _labelled(given, whole)
    except ForgeError:
        _at_random(given, sheet)
        return
    total = len(labelled)
    if values["train_ratio"] is None:
        values["train_ratio"] = 1 - (values["val_ratio"] or 0.0) - (values["test_ratio"] or 0.0)
    sizes = [
        int(values[count]) if values[count] is not None else int((values[ratio] or 0.0) * total)
        for count, ratio in zip(COUNTS, RATIOS, strict=True)
    ]
    if sum(sizes) > total or min(sizes) < 0 or sizes[0] < 1:
        what = f"{sizes[0]} to train on, {sizes[1]} to validate on and {sizes[2]} to test on, of {total} structures"
        raise given.wrong(
            next((n for n in (*COUNTS, *RATIOS) if given.says(n)), "n_train"), what, "give fitting numbers"
        )
    lists = lists_of(total, *sizes, ordered=values["keep_data_order"])
    _put(given, sheet, Lists(*([labelled[k] for k in part] for part in lists)), whole, whole - total)


def _labelled(given: Given, whole: int) -> list[int]:
    """Return the structures that alignn takes: those whose target is a number, or numbers."""
    file = data_file(given)
    if file is None or file.suffix == ".csv":
        return list(range(whole))
    records, key = JsonList(file), given["target_key"]
    there = [record.get(key) if isinstance(record, dict) else None for record in (records[k] for k in range(whole))]
    return [k for k, value in enumerate(there) if value is not None and value != "na" and value == value] or list(
        range(whole)
    )


def lists_of(total: int, n_train: int, n_val: int, n_test: int, *, ordered: bool) -> Lists:
    """Return alignn's lists: the first structures train, the last validate and test; shuffled before if not ordered."""
    places = list(range(total))
    if not ordered:
        random.Random(SEED).shuffle(places)
    end = total - n_test
    return Lists(places[:n_train], places[end - n_val : end], places[end:])


def _put(given: Given, sheet: Sheet, lists: Lists, total: int, unlabelled: int) -> None:
    used = [*lists.train, *lists.val, *lists.test]
    places = {place: k for k, place in enumerate(used)}
    kept = sorted(used) == list(range(total))
    if not kept:
        note = f"those of {total} structures that alignn takes; data.split counts in this list"
        lacking = f"; {unlabelled} have no number as {given['target_key']}" if unlabelled else ""
        sheet.put("data.indices", used, note + lacking)
    val, test = ([k if kept else places[k] for k in part] for part in (lists.val, lists.test))
    block = {"method": "random", "val": sorted(val)} | ({"test": sorted(test)} if test else {})
    order = "in the order of the file" if given["keep_data_order"] else "as alignn shuffles them"
    if not val:
        sheet.put("data.val_fraction", 0.0, "no structures to validate on, as in alignn")
        if test:
            sheet.put("data.split", {"method": "random", "test": sorted(test)}, f"alignn's parts, {order}")
        return
    note = f"alignn's parts, {order}; all of the validation counts (alignn leaves out what fills no batch)"
    sheet.put("data.split", block, note)


def _at_random(given: Given, sheet: Sheet) -> None:
    part = {c: given[c] if given[c] is not None else given[r] for c, r in zip(COUNTS, RATIOS, strict=True)}
    note = "the data are not there to be counted: parts of the same size, drawn at random"
    block = {"method": "random", "val": part["n_val"], "test": part["n_test"] or 0.0}
    sheet.put("data.split", {key: value for key, value in block.items() if value}, note)
    sheet.put("data.split_seed", given["random_seed"])
    if given.says("n_train"):
        why = "all others train; translated where the data are, the parts are alignn's own"
        sheet.needless.append(Remark("n_train", given["n_train"], why))
