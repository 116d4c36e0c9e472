import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch

from forgefield.core.errors import DataError
from forgefield.data.dataset import open_dataset
from forgefield.data.reader import LabelKeys


def record(k=0, **changes):
    n = 2 + k % 2
    fields = {
        "pos": torch.arange(3.0 * n).reshape(n, 3) + k,
        "cell": torch.eye(3)[None] * 20,
        "atomic_numbers": torch.full((n,), 8.0),
        "natoms": torch.tensor([n]),
        "y": -1.5 - k,
        "force": torch.ones(n, 3) * k,
        "fixed": torch.zeros(n),
        "tags": torch.ones(n, dtype=torch.long),
        "sid": k,
        "fid": torch.tensor([3]),
    }
    fields.update(changes)
    return {name: v for name, v in fields.items() if v is not None}


def write(path, records, extra=None):
    environment = lmdb.open(str(path), subdir=False, map_size=2**22, lock=False)
    with environment.begin(write=True) as transaction:
        for key, value in enumerate(records):
            transaction.put(str(key).encode(), value if isinstance(value, bytes) else pickle.dumps(value))
        for key, value in (extra or {}).items():
            transaction.put(key, value)
    environment.close()
    return path


HERE = Path(__file__).parent


def test_a_real_file_agrees_with_the_published_frames(tmp_path):
    """Pickles that torch_geometric wrote, in float32, against the same frames as text."""
    dataset = open_dataset(HERE / "ocp_3bpa" / "data.lmdb")
    text = open_dataset(HERE.parents[1] / "examples" / "3bpa" / "train.xyz").subset(range(4, 9))
    for one, other in zip(dataset, text, strict=True):
        assert one.numbers.tolist() == other.numbers.tolist()
        np.testing.assert_allclose(one.positions, other.positions, atol=3e-7)
        np.testing.assert_allclose(one.labels["forces"], other.labels["forces"], atol=3e-7)
        assert float(one.labels["energy"]) == pytest.approx(float(other.labels["energy"]), abs=1e-3)
        np.testing.assert_allclose(one.cell, other.cell)
    assert "float32" in dataset.notes[-1]


def test_a_file_that_is_replaced_while_it_is_open(tmp_path):
    path = shutil.copy(HERE / "ocp_3bpa" / "data.lmdb", tmp_path / "a.lmdb")
    held = open_dataset(path)
    path.unlink()
    write(path, [record()])
    with pytest.raises(DataError, match="changed while it was in use"):
        open_dataset(path)
    del held
    assert len(open_dataset(path)) == 1


def test_fields_become_a_structure(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.lmdb", [record(k) for k in range(12)]))
    assert len(dataset) == 12
    s = dataset[11]  # keys are text: 11 sorts before 2, but comes last
    assert s.labels["energy"] == -12.5
    assert s.numbers.tolist() == [8, 8, 8]
    assert s.pbc.all()
    assert not s.fixed.any()
    assert s.tags.tolist() == [1, 1, 1]
    assert (s.info["sid"], s.info["fid"]) == (11, 3)
    assert s.origin == "a.lmdb: record 11"
    np.testing.assert_array_equal(s.labels["forces"], np.full((3, 3), 11.0))


def test_newer_names_and_a_missing_cell(tmp_path):
    fields = record(y=None, force=None, cell=None, energy=torch.tensor([2.0]), forces=torch.zeros(2, 3))
    s = open_dataset(write(tmp_path / "a.lmdb", [fields]))[0]
    assert s.labels["energy"] == 2.0
    assert not s.pbc.any()


def test_shards_in_the_order_of_their_names(tmp_path):
    write(tmp_path / "data.0001.lmdb", [record(k) for k in (10, 11)])
    write(tmp_path / "data.0000.lmdb", [record(k) for k in (0, 1, 2)])
    (tmp_path / "notes.txt").write_text("x")
    dataset = open_dataset(tmp_path)
    assert [s.info["sid"] for s in dataset] == [0, 1, 2, 10, 11]


def test_threads_and_copies_read_the_same(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.lmdb", [record(k) for k in range(30)]))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: dataset[i].info["sid"], list(range(30)) * 5))
    assert found == list(range(30)) * 5
    again = pickle.loads(pickle.dumps(dataset))
    assert again[7].info["sid"] == 7


def test_a_length_that_is_too_large_is_an_error_and_one_too_small_a_note(tmp_path):
    records = [record(k) for k in range(4)]
    with pytest.raises(DataError, match="says it has 5 records but has 4"):
        open_dataset(write(tmp_path / "a.lmdb", records, {b"length": pickle.dumps(5)}))
    dataset = open_dataset(write(tmp_path / "b.lmdb", records, {b"length": pickle.dumps(3)}))
    assert len(dataset) == 4
    assert "says 3, but 4 records are there" in dataset.notes[0]


@pytest.mark.parametrize(
    ("records", "extra", "message"),
    [
        ([], {b"5": pickle.dumps(record())}, "record 0 is missing"),
        ([record(), record()], {b"3": pickle.dumps(record())}, "record 2 is missing"),
        ([], {b"nextid": b"3", b"1": b"x"}, "ASE database in LMDB"),
        ([], {b"\0" * 8: b"x"}, "has no record '0'"),
        ([], {}, "no records"),
        ([b"garbage"], {}, "a.lmdb: record 0: .*"),
        ([record(pos=None)], {}, "no field 'pos'"),
        ([record(atomic_numbers=None)], {}, "no field 'atomic_numbers'"),
        ([record(atomic_numbers=torch.tensor([1.5, 2.0]))], {}, "not whole numbers"),
        ([record(natoms=9)], {}, "natoms is 9 but there are 2"),
        ([record(tags=torch.ones(5))], {}, r"'tags' has shape \(5,\)"),
        ([record(force=torch.ones(5, 3))], {}, r"force has shape|no frame"),
        ([record(y=float("nan"))], {}, "NaN"),
        ([record(energy=-9.0)], {}, "several names could be the energy"),
    ],
)
def test_wrong_files(tmp_path, records, extra, message):
    path = write(tmp_path / "a.lmdb", records, extra)
    with pytest.raises(DataError, match=message) as caught:
        list(open_dataset(path, "lmdb", keys=LabelKeys(forces="force") if "shape" in message else None))
    assert "a.lmdb" in str(caught.value)


def test_another_name_deep_in_the_file_is_noticed(tmp_path):
    records = [record(k) for k in range(200)]
    records[101] = record(101, y=None, energy=-1.0)
    dataset = open_dataset(write(tmp_path / "a.lmdb", records))
    with pytest.raises(DataError, match="record 101: has energy under 'energy', the frames looked at first under 'y'"):
        list(dataset)


def test_a_hostile_record_runs_nothing(tmp_path):
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return open, (str(marker), "w")

    path = write(tmp_path / "a.lmdb", [{"pos": Bomb()}])
    with pytest.raises(DataError, match="refused: it names"):
        open_dataset(path)
    assert not marker.exists()


def test_energies_rounded_to_float32_are_noted(tmp_path):
    records = [record(k, y=float(np.float32(-17660.46 - k))) for k in range(5)]
    (note,) = open_dataset(write(tmp_path / "a.lmdb", records)).notes
    assert "float32" in note
    exact = [record(k, y=-17660.46 - k) for k in range(5)]
    assert open_dataset(write(tmp_path / "b.lmdb", exact)).notes == ()


def test_reading_leaves_no_lock_file(tmp_path):
    list(open_dataset(write(tmp_path / "a.lmdb", [record()])))
    assert [p.name for p in tmp_path.iterdir()] == ["a.lmdb"]


def test_folders_that_hold_no_shards(tmp_path):
    with pytest.raises(DataError, match="folder without"):
        open_dataset(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"x")
    with pytest.raises(DataError, match="no LMDB environment"):
        open_dataset(tmp_path)
