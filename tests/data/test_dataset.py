import re

import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset, detect_format, open_dataset


def atom(z, **more):
    return Structure([z], np.zeros((1, 3)), **more)


def chain(*numbers, **more):
    return Structure(numbers, np.arange(3.0 * len(numbers)).reshape(-1, 3), **more)


def test_several_files_are_one_data_set(tmp_path):
    for name, count in (("a.xyz", 2), ("b.xyz", 3)):
        (tmp_path / name).write_text(
            "".join(f"1\nenergy={k}\n{'H' if count == 2 else 'O'} 0 0 0\n" for k in range(count))
        )
    dataset = open_dataset([tmp_path / "b.xyz", tmp_path / "a.xyz"])
    assert len(dataset) == 5
    assert [float(s.labels["energy"]) for s in dataset] == [0, 1, 2, 0, 1]
    assert [s.origin for s in dataset][2:4] == ["b.xyz: frame 2", "a.xyz: frame 0"]
    assert dataset.elements() == [1, 8]


def test_a_subset_of_a_subset():
    dataset = Dataset.of([atom(z) for z in range(1, 11)])
    part = dataset.subset([9, 3, 5, 1]).subset([2, 0])
    assert [int(s.numbers[0]) for s in part] == [6, 10]
    with pytest.raises(DataError, match="index 2 is out of range: there are 2"):
        part.subset([0, 2])
    with pytest.raises(DataError, match="out of range"):
        part.subset([-1])
    with pytest.raises(IndexError):
        part[2]


def test_missing_files_name_near_ones(tmp_path):
    (tmp_path / "train_300K.xyz").write_text("x")
    with pytest.raises(DataError, match=re.escape("did you mean 'train_300K.xyz'?")):
        open_dataset(tmp_path / "train_300k.xyz")
    with pytest.raises(DataError, match="there is no folder"):
        open_dataset(tmp_path / "nowhere" / "a.xyz")
    with pytest.raises(DataError, match="no data were given"):
        open_dataset([])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"SQLite format 3\0rest", "SQLite"),
        (b"\x80\x04}.", "a pickle, which is never loaded"),
        (b"hello\n", "it starts with b'hello"),
        (b"\xff\xfe\x00\x01", "not known"),
        (b"", "is empty"),
    ],
)
def test_an_unknown_format_says_what_it_seems_to_be(tmp_path, content, message):
    path = tmp_path / "data.xyz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_dataset(path)


def test_the_format_is_found_by_looking_not_by_the_name(tmp_path):
    path = tmp_path / "data.lmdb"
    path.write_text("1\n\nH 0 0 0\n")
    assert detect_format(path) == "extxyz"


def base(**changes):
    fields = {
        "numbers": [8, 1],
        "positions": np.array([[0.0, 0, 0], [0, 0, 1]]),
        "cell": np.eye(3),
        "pbc": True,
        "labels": {"energy": 1.0},
    }
    return Structure(**(fields | changes))


CHANGES = {
    "numbers": {"numbers": [8, 2]},
    "positions": {"positions": np.array([[0.0, 0, 0], [0, 0, 1 + 1e-12]])},
    "cell": {"cell": 2 * np.eye(3)},
    "pbc": {"pbc": [True, True, False]},
    "energy": {"labels": {"energy": 1.0 + 1e-12}},
    "no energy": {"labels": {}},
    "forces": {"labels": {"energy": 1.0, "forces": np.zeros((2, 3))}},
    "config_type": {"config_type": "a"},
    "head": {"head": "default"},
    "weight": {"weight": 2.0},
    "fixed": {"fixed": np.array([True, False])},
    "tags": {"tags": np.array([0, 1])},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_content_changes_the_fingerprint(change):
    assert Dataset.of([base()]).fingerprint != Dataset.of([base(**change)]).fingerprint


def test_the_fingerprint_is_that_of_what_is_used_in_its_order():
    one, two = base(), base(weight=2.0)
    both = Dataset.of([one, two])
    assert len(both.fingerprint) == 64
    assert both.fingerprint != both.subset([1, 0]).fingerprint
    assert both.fingerprint != both.subset([0]).fingerprint
    assert both.subset([1]).fingerprint == Dataset.of([base(weight=2.0, origin="elsewhere")], "other").fingerprint


def test_describe_counts():
    labels = {"energy": 1.0, "forces": np.zeros((3, 3))}
    frames = [
        chain(8, 1, 1, labels=labels, config_type="water"),
        chain(8, 1, 1, labels={"energy": 2.0}, head="pbe"),
        base(fixed=np.array([True, False])),
    ]
    found = Dataset.of(frames, "here").describe()
    assert found["n_structures"] == 3
    assert found["n_atoms"] == 8
    assert found["labels"] == {"energy": 3, "forces": 1, "stress": 0}
    assert found["elements"] == {"H": 5, "O": 3}
    assert found["formulas"] == {"H2O1": 2, "H1O1": 1}
    assert found["config_types"] == {"default": 2, "water": 1}
    assert found["heads"] == {"(none)": 2, "pbe": 1}
    assert (found["n_periodic"], found["n_with_fixed_atoms"]) == (1, 1)
    assert found["sources"][0]["path"] == "here"
    assert Dataset.of([base(), base(head="b"), base(head="a"), base(head="b")]).heads() == ["b", "a"]
