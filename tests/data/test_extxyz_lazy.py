"""Extended XYZ is read frame by frame: the same results as from memory, and no more memory for more frames."""

import gzip
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.data.dataset import open_dataset
from forgefield.data.extxyz import frames as frames_module
from forgefield.data.extxyz.parse import parse_by_ase, parse_plain
from forgefield.data.extxyz.scan import Scan
from forgefield.data.label_names import LabelKeys

FORCES = "Properties=species:S:1:pos:R:3:forces:R:3"
CELL = 'Lattice="4 0 0.5 0 5 0 0 0 6"'


def frame(k, comment=None):
    comment = comment if comment is not None else f"{FORCES} energy={k}.5"
    return f"2\n{comment}\nO {k}.25 0 0 0.1 0.2 0.3\nH 0 0 1e-3 -1 -2 {k}\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.xyz"


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch):
    monkeypatch.setattr(frames_module, "KEPT_BYTES", 0)


def test_frames_are_read_in_any_order_in_threads_and_after_pickling(path):
    path.write_text("\n".join(frame(k) for k in range(50)))
    found = open_dataset(path)
    order = np.random.default_rng(0).permutation(50).tolist()
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda k: float(found[k].positions[0, 0]), order))
    assert read == [k + 0.25 for k in order]
    again = pickle.loads(pickle.dumps(found))
    assert [float(again[k].labels["energy"]) for k in order] == [k + 0.5 for k in order]
    assert found[7].origin == "set.xyz: frame 7"


def test_a_packed_file_is_read_at_any_place_and_leaves_nothing(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    path.write_bytes(gzip.compress("".join(frame(k) for k in range(50)).encode()))
    found = open_dataset(path)
    assert float(pickle.loads(pickle.dumps(found))[33].labels["energy"]) == float(found[33].labels["energy"]) == 33.5
    assert list((tmp_path / "tmp").iterdir()) == []


def test_names_are_chosen_by_all_frames(path):
    last = frame(7, f"{FORCES} energy=1 REF_energy=2")
    path.write_text("".join(frame(k) for k in range(300)) + last)
    with pytest.raises(DataError, match=r"several names could be the energy and they differ.*frame 300"):
        open_dataset(path)
    path.write_text("".join(frame(k) for k in range(300)) + last.replace("energy=1", "energy=2"))
    assert float(open_dataset(path)[300].labels["energy"]) == 2.0
    path.write_text("".join(frame(k) for k in range(300)) + frame(0, f"{FORCES} REF_energy=2"))
    with pytest.raises(DataError, match=r"different names.*'REF_energy' \(first in set.xyz: frame 300"):
        open_dataset(path)
    assert len(open_dataset(path, keys=LabelKeys(energy="REF_energy"))[3].labels) == 1


def test_two_names_that_differ_in_a_middle_frame_are_found(path):
    both = [frame(k, f"{FORCES} energy={k} free_energy={k}") for k in range(100)]
    path.write_text("".join(both))
    assert float(open_dataset(path)[63].labels["energy"]) == 63.0
    both[63] = frame(63, f"{FORCES} energy=63 free_energy=64")
    path.write_text("".join(both))
    with pytest.raises(DataError, match="several names could be the energy and they differ"):
        open_dataset(path)


def test_a_bad_frame_is_told_when_it_is_asked_for_and_the_others_are_read(path):
    path.write_text(frame(0) + frame(1).replace("O ", "Qq ") + frame(2))
    found = open_dataset(path)
    assert float(found[2].labels["energy"]) == 2.5
    with pytest.raises(DataError, match=r"set\.xyz: frame 1: 'Qq' is no element"):
        found[1]


@pytest.mark.parametrize("change", ["size", "time", "other", "gone"])
def test_a_file_that_changes_while_it_is_read(path, change):
    path.write_text(frame(0) + frame(1))
    found = open_dataset(path)
    assert float(found[0].labels["energy"]) == 0.5
    if change == "size":
        path.write_text(frame(0) + frame(1) + frame(2))
    elif change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "other":
        path.rename(path.with_name("old"))
        path.write_text(frame(0) + frame(1))
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"set\.xyz: was changed while it was read. Fix: start again"):
        found[1]


def test_memory_does_not_grow_with_the_frames(path):
    path.write_text("".join(frame(k % 10, f"{FORCES} energy={k} name=n{k}") for k in range(3000)))
    with path.open("rb") as stream:
        scan = Scan(stream, path)
        index = scan.index()
    assert len(index.names) == 1
    assert len(scan._patterns) <= 4096
    assert sum(a.nbytes for a in index[:4]) == 3000 * 32
    found = open_dataset(path)
    list(found)
    assert found.parts[0]._kept == {}


COMMENTS = [
    "", "energy=1", f"{FORCES}", f'{CELL} {FORCES} energy=-1.5 pbc="T F T"', f"{CELL} {FORCES} energy=1e-3",
    f'{FORCES} pbc="F F F" name="a b" flag=T n=3 list="1 2 3"', f"{FORCES} stress=\"1 2 3 4 5 6 7 8 9\" {CELL}",
    "Properties=species:S:1:pos:R:3:REF_forces:R:3", "Properties=species:S:1:pos:R:3:a:R:1:b:R:2",
    "Properties=species:S:1:pos:R:3:forces:R:3 forces=\"1 2\"", "Properties=species:S:1:pos:R:3:magmoms:R:3",
    "Properties=species:S:1:pos:R:3:a:R:3 a=5", "Properties=species:S:1:pos:R:3:energy:R:3", f"{FORCES} pbc=T",
    "Properties=species:S:1:pos:R:3:move_mask:R:3", "Properties=species:S:1:pos:R:3:tags:R:1:x:R:2",
    f"{FORCES} dipole=\"1 2 3\" free_energy=2 charge=1", "Properties=pos:R:3:species:S:1:forces:R:3",
]  # fmt: skip


@pytest.mark.parametrize("comment", COMMENTS)
def test_plain_tables_are_parsed_as_ase_does(comment):
    lines = ["3", comment, "O 0.1 -0.0 1e-300 0.1 0.2 0.3", "h 1 2 3 nan 5 inf", "Cl 1_0 .5 5. 1E5 +2 -3"]
    plain = parse_plain(lines, "x")
    if plain is None:  # left to ASE, with its result or message
        return
    reference = parse_by_ase(lines, "x")
    for name in ("numbers", "positions", "cell", "pbc"):
        one, other = getattr(plain, name), getattr(reference, name)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), name
    for name in ("values", "arrays"):
        one, other = getattr(plain, name), getattr(reference, name)
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
            assert np.asarray(one[key]).dtype == np.asarray(other[key]).dtype
    assert (plain.fixed, plain.tags, plain.origin) == (reference.fixed, reference.tags, reference.origin)


def test_the_usual_tables_are_not_left_to_ase():
    rows = ["O 0 0 0 1 2 3", "H 0 0 1 1 2 3"]
    for comment in (f"{FORCES} energy=1", f'{CELL} {FORCES} energy=1 pbc="T T T"', COMMENTS[7]):
        assert parse_plain(["2", comment, *rows], "x") is not None
