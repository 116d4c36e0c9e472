"""Damaged LMDB files are refused before liblmdb can follow them; the alternative is a crash of the process."""

import random
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.data.lmdb_check import check_lmdb

REAL = Path(__file__).parent / "ocp_3bpa" / "data.lmdb"
PAGE = 4096
LOOK = """
import sys
from pathlib import Path
import lmdb
from forgefield.core.errors import DataError
from forgefield.data.lmdb_check import check_lmdb

refused = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        check_lmdb(path)
    except DataError:
        refused += 1
        continue
    try:
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as env, env.begin() as reading:
            keys = [bytes(k) for k in reading.cursor().iternext(values=False)]
            for key in keys:
                len(reading.get(key) or b"")
    except lmdb.Error:
        pass
print(refused)
"""


def fill(path, count=300, long=False):
    environment = lmdb.open(str(path), subdir=False, map_size=2**26, lock=False)
    with environment.begin(write=True) as transaction:
        for k in range(count):
            transaction.put(b"%d" % k, bytes([k % 256]) * (5000 if long else 100))
    environment.close()
    return path


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("count", [0, 1, 300, 3000])
def test_whole_files_pass(tmp_path, count, long):
    check_lmdb(fill(tmp_path / "a", count, long))
    check_lmdb(REAL)


def test_files_that_were_written_to_again_pass(tmp_path):
    path = fill(tmp_path / "a")
    for size in (10, 9000, 40):
        environment = lmdb.open(str(path), subdir=False, map_size=2**24, lock=False)
        with environment.begin(write=True) as transaction:
            for k in range(0, 300, 7):
                transaction.put(b"%d" % k, b"x" * size)
                transaction.delete(b"%d" % (k + 1))
        environment.close()
        check_lmdb(path)


def test_keys_of_eight_bytes_pass(tmp_path):
    with (
        lmdb.open(str(tmp_path / "a"), subdir=False, lock=False) as environment,
        environment.begin(write=True) as writing,
    ):
        for k in range(1000):
            writing.put(k.to_bytes(8, "little"), b"x" * 50)
    check_lmdb(tmp_path / "a")


def test_databases_within_are_refused(tmp_path):
    with lmdb.open(str(tmp_path / "a"), subdir=False, lock=False, max_dbs=2) as environment:
        environment.open_db(b"inner")
    with pytest.raises(DataError, match="holds databases within the database"):
        check_lmdb(tmp_path / "a")


@pytest.mark.parametrize("size", [0, 1, 100, PAGE, 2 * PAGE, 3 * PAGE + 5])
def test_files_cut_off(tmp_path, size):
    path = fill(tmp_path / "a")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"empty|cut off|damaged"):
        check_lmdb(path)


def newest(raw):
    """Offset of the header that counts."""
    return max((0, PAGE), key=lambda at: int.from_bytes(raw[at + 16 + 128 : at + 16 + 136], "little"))


@pytest.mark.parametrize(
    ("offset", "value", "size"),
    [
        (16, 0, 4),  # magic
        (20, 999, 4),  # version
        (16 + 24, 0, 4),  # page size
        (16 + 24, 3, 4),
        (16 + 24 + 48 + 4, 4, 2),  # several values to a key
        (16 + 24 + 48 + 6, 60, 2),  # depth
        (16 + 24 + 48 + 6, 0, 2),
        (16 + 24 + 48 + 32, 5, 8),  # entries
        (16 + 24 + 48 + 40, 2**40, 8),  # root
        (16 + 24 + 48 + 40, 0, 8),
        (16 + 120, 2**50, 8),  # last page
    ],
)
def test_a_wrong_header(tmp_path, offset, value, size):
    path = fill(tmp_path / "a")
    raw = bytearray(path.read_bytes())
    at = newest(raw) + offset
    raw[at : at + size] = value.to_bytes(size, "little")
    path.write_bytes(raw)
    with pytest.raises(DataError):
        check_lmdb(path)


def test_a_page_that_names_itself(tmp_path):
    path = fill(tmp_path / "a", 3000)
    raw = bytearray(path.read_bytes())
    root = int.from_bytes(raw[newest(raw) + 16 + 24 + 88 : newest(raw) + 16 + 24 + 96], "little")
    pointer = int.from_bytes(raw[root * PAGE + 16 : root * PAGE + 18], "little")
    raw[root * PAGE + pointer : root * PAGE + pointer + 4] = root.to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(DataError, match="named twice"):
        check_lmdb(path)


def test_no_damage_takes_the_process_down(tmp_path):
    """400 files with damaged pages: each is refused or can be read to its end by liblmdb."""
    rng = random.Random(0)
    wholes = [fill(tmp_path / f"{k}", 400, long=bool(k)).read_bytes() for k in range(2)]
    folder = tmp_path / "damaged"
    folder.mkdir()
    for k in range(400):
        raw = bytearray(wholes[k % 2])
        for _ in range(rng.choice([1, 2, 10])):
            page = rng.randrange(min(len(raw) // PAGE, 30))
            at = page * PAGE + rng.choice([rng.randrange(200), rng.randrange(PAGE)])
            raw[at : at + 4] = rng.choice([rng.randbytes(4), b"\xff" * 4, b"\0" * 4])
        if rng.random() < 0.1:
            raw = raw[: rng.randrange(len(raw))]
        (folder / f"{k:03d}").write_bytes(raw)
    found = subprocess.run([sys.executable, "-c", LOOK, str(folder)], capture_output=True, text=True)
    assert found.returncode == 0, f"the process ended by {found.returncode}: {found.stderr[-500:]}"
    assert 100 < int(found.stdout) < 400


def test_it_costs_little(tmp_path):
    """Leaf pages are looked at, values are not: 3000 records of 5 kB are 15 MB of file and 20 pages of tree."""
    from forgefield.data import lmdb_check

    path = fill(tmp_path / "a", 3000, long=True)
    walk = lmdb_check._Walk(np.memmap(path, np.uint8, "r"), lmdb_check._newest(path, path.stat().st_size), "a")
    walk.run()
    assert len(walk._seen) < 60
