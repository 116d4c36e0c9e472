import json
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest
from ase.io.jsonio import encode

from forgefield.core.catalog import Catalog
from forgefield.core.errors import DataError
from forgefield.core.quantities import Quantity
from forgefield.core.structure import Structure
from forgefield.data.dataset import open_dataset
from forgefield.data.lmdb_check import check_lmdb
from forgefield.data.reader import ReaderSettings
from forgefield.data.readers.aselmdb import AselmdbReader, AselmdbSettings

SILICON = Path(__file__).parent / "aselmdb" / "silicon.aselmdb"
ROW = {"numbers": [8, 1], "positions": [[0, 0, 0], [0, 0, 1.0]], "energy": -3.5, "forces": [[0, 0, 1.0], [0, 0, -1.0]]}


def packed(value):
    return zlib.compress(encode(value).encode())


def write(path, values):
    environment = lmdb.open(str(path), subdir=False, map_size=2**24, lock=False)
    with environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value if isinstance(value, bytes) else packed(value))
    environment.close()
    return path


def rich():
    """A structure with everything that a row can hold."""
    random = np.random.default_rng(0)
    tensor = random.normal(size=(3, 3))
    gap = Quantity("gap", "eV", "structure", (), "a target of the user's own", "total")
    return Structure(
        [14, 8, 1],
        random.normal(size=(3, 3)),
        5 * np.eye(3),
        [True, True, False],
        labels={
            **{"energy": -1.25, "forces": random.normal(size=(3, 3)), "stress": tensor + tensor.T, "gap": 0.75},
            **{"charges": random.normal(size=3), "spin_charges": random.normal(size=3)},
            **{"dipole": random.normal(size=3), "polarizability": tensor + tensor.T, "quadrupole": tensor + tensor.T},
        },
        config_type="bulk",
        head="pbe",
        weight=2.0,
        fixed=np.array([True, False, False]),
        tags=np.array([0, 1, 2]),
        force_mask=np.array([True, False, True]),
        charge=-1.0,
        multiplicity=2,
        fidelity="PBE",
        base={"energy": -1.0, "forces": random.normal(size=(3, 3))},
        features={"temperature": np.array([300.0]), "radius": random.normal(size=(3, 2))},
        declared={"gap": gap},
        info={"sid": 7, "name": "seven"},
    )


def test_what_ase_db_backends_wrote():
    dataset = open_dataset(SILICON)
    assert [s.origin for s in dataset] == [f"silicon.aselmdb: row {k}" for k in (1, 2, 4)]  # 3 was deleted
    assert [s.info["sid"] for s in dataset] == ["s0", "s1", "s3"]
    assert dataset[1].fixed.sum() == 2
    assert set(dataset[0].labels) == {"energy", "forces", "stress"}
    assert set(dataset[2].labels) == {"energy", "forces"}
    assert dataset[0].charge == 0.0


def test_plain_lists_and_missing_fields(tmp_path):
    (s,) = open_dataset(write(tmp_path / "a", {"1": zlib.compress(json.dumps(ROW).encode()), "nextid": 2}))
    assert not s.pbc.any()
    assert float(s.labels["energy"]) == -3.5
    assert s.labels["forces"].shape == (2, 3)


def test_shards_in_the_order_of_their_names(tmp_path):
    for k in (2, 1):
        write(tmp_path / f"part{k}.aselmdb", {"1": {**ROW, "energy": -k}, "nextid": 2, "deleted_ids": []})
    dataset = open_dataset(tmp_path)
    assert [float(s.labels["energy"]) for s in dataset] == [-1.0, -2.0]
    assert [s.origin for s in dataset] == ["part1.aselmdb: row 1", "part2.aselmdb: row 1"]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"1": ROW, "nextid": 3}, "3 rows|keys|missing"),
        ({"1": ROW, "2": ROW, "nextid": 4, "deleted_ids": []}, "row 3: is missing"),
        ({"1": ROW, "nextid": "two"}, "nextid"),
        ({"1": ROW, "nextid": 2, "deleted_ids": 5}, "deleted_ids"),
        ({"nextid": 1}, "no rows"),
        ({"1": b"not compressed", "nextid": 2}, "row 1: is damaged"),
        ({"1": zlib.compress(b'{"numbers": [1')[:-3], "nextid": 2}, "row 1: is cut off"),
        ({"1": [1, 2], "nextid": 2}, "row 1: is no row"),
        ({"1": {**ROW, "positions": [[0, 0]]}, "nextid": 2}, "row 1: positions has shape"),
        ({"1": {**ROW, "forces": [[0, 0, 1]]}, "nextid": 2}, "row 1: forces has shape"),
        ({"1": {**ROW, "numbers": []}, "nextid": 2}, "row 1: .*shape|row 1: holds no atoms"),
        ({"1": {**ROW, "numbers": [8, 1.5]}, "nextid": 2}, "row 1: numbers are not whole"),
        ({"1": {**ROW, "positions": "here"}, "nextid": 2}, "row 1: positions is not made of numbers"),
    ],
)
def test_bad_rows_are_named(tmp_path, values, match):
    with pytest.raises(DataError, match=match):
        list(open_dataset(write(tmp_path / "a.aselmdb", values), "aselmdb"))


def test_a_row_that_grows_without_bounds_is_refused(tmp_path):
    path = write(tmp_path / "a", {"1": zlib.compress(b" " * 2**22), "nextid": 2})
    with pytest.raises(DataError, match="larger than 1000000 bytes"):
        AselmdbReader(AselmdbSettings(max_record_bytes=1_000_000)).open(path)
    assert AselmdbSettings().max_record_bytes > 2**22
    assert issubclass(AselmdbSettings, ReaderSettings)


@pytest.mark.parametrize(("name", "file"), [("aselmdb", "a.aselmdb"), ("ase_db", "a.db")])
def test_everything_comes_back(tmp_path, name, file):
    entry = Catalog("forgefield.data.writers").entry(name)
    writer = entry.build(tmp_path / file, entry.settings())
    bare = Structure([1], np.zeros((1, 3)), features={"temperature": np.ones(1), "radius": np.ones((1, 2))})
    for structure in (rich(), bare):
        writer.add(structure)
        assert not (tmp_path / file).exists()
    assert writer.finish() == ()
    assert [p.name for p in tmp_path.iterdir()] == [file]
    found, other = open_dataset(tmp_path / file)
    expected = rich()
    for table in ("labels", "base", "features"):
        assert set(getattr(found, table)) == set(getattr(expected, table))
        for key, value in getattr(expected, table).items():
            np.testing.assert_array_equal(getattr(found, table)[key], value, err_msg=key)
    for mark in ("config_type", "head", "weight", "charge", "multiplicity", "fidelity", "declared"):
        assert getattr(found, mark) == getattr(expected, mark), mark
    for mark in ("numbers", "positions", "cell", "pbc", "fixed", "tags", "force_mask"):
        np.testing.assert_array_equal(getattr(found, mark), getattr(expected, mark), err_msg=mark)
    assert found.info["sid"] == 7
    assert found.info["name"] == "seven"
    assert not other.labels
    assert (other.charge, other.multiplicity, other.fixed, other.tags) == (None, None, None, None)


@pytest.mark.parametrize("name", ["aselmdb", "ase_db"])
def test_a_writer_that_gives_up_leaves_nothing(tmp_path, name):
    entry = Catalog("forgefield.data.writers").entry(name)
    writer = entry.build(tmp_path / "a", entry.settings())
    writer.add(rich())
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_the_file_grows_beyond_its_first_map(tmp_path, monkeypatch):
    monkeypatch.setattr("forgefield.data.writers.aselmdb.FIRST_SIZE", 2**15)
    entry = Catalog("forgefield.data.writers").entry("aselmdb")
    writer = entry.build(tmp_path / "a.lmdb", entry.settings(rows_per_commit=7))
    for _ in range(50):
        writer.add(rich())
    (note,) = writer.finish()
    assert ".aselmdb" in note
    assert len(list(open_dataset(tmp_path / "a.lmdb"))) == 50


def test_pages_of_sound_files_pass(tmp_path):
    """Trees of one to three levels, small and large values, keys deleted."""
    random = np.random.default_rng(0)
    for count, size in ((1, 10), (60, 3000), (3000, 40), (20000, 1)):
        path = tmp_path / f"{count}"
        environment = lmdb.open(str(path), subdir=False, map_size=2**26, lock=False)
        with environment.begin(write=True) as transaction:
            for k in random.permutation(count):
                transaction.put(b"key %d" % k * 3, bytes(size))
        with environment.begin(write=True) as transaction:
            for k in range(0, count - 1, 3):
                transaction.delete(b"key %d" % k * 3)
        environment.close()
        check_lmdb(path)


def test_pages_that_lead_outside_are_refused(tmp_path):
    """Each byte of headers and of the tree, one after the other; the library would read anywhere."""
    path = write(tmp_path / "a", {f"{k}": b"x" * (6000 if k % 9 == 0 else 50) for k in range(300)})
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), 61):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            check_lmdb(path)
        except DataError:
            refused += 1
            continue
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False)
        with environment.begin() as transaction:
            assert sum(len(value) for _, value in transaction.cursor()) > 0
        environment.close()
    assert refused > 50
