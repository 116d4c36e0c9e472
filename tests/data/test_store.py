import dataclasses
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.quantities import Quantity
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.label_names import LabelKeys
from forgefield.data.store import shard
from forgefield.data.store.frames import StoreFrames
from forgefield.data.store.header import FILE
from forgefield.data.store.store_writer import StoreWriter
from forgefield.data.survey import survey

GAP = Quantity("gap", "eV", "structure", (), "a target of the user's own", "total")
TWO = Quantity("two", "", "atom", (2,), "a target of the user's own", "total")


def rich(k, random):
    """A structure with everything that a structure can have."""
    n = 1 + k % 5
    normal = random.normal
    quadrupole, polarizability = (t + t.T for t in normal(size=(2, 3, 3)))
    return Structure(
        random.integers(1, 119, n),
        normal(size=(n, 3)),
        np.diag([4.0, 5.0, 6.0]) + 0.1 * normal(size=(3, 3)),
        [True, False, True],
        labels={"energy": normal(), "forces": normal(size=(n, 3)), "stress": normal(size=(3, 3)), "gap": 1.0 / 3,
                "charges": normal(size=n), "spin_charges": normal(size=n), "dipole": normal(size=3),
                "quadrupole": quadrupole, "polarizability": polarizability, "two": normal(size=(n, 2))},
        config_type=f"größe {k}",
        head="pbe" if k % 2 else None,
        weight=0.1 * k,
        fixed=random.integers(0, 2, n).astype(bool),
        tags=random.integers(0, 3, n),
        origin=f"here.xyz: frame {k}",
        info={"a": 1, "b": 0.1 + k, "c": "x\ny", "d": True, "e": np.arange(3.0), "f": [1, [2.5, None]], "g": 1e-320},
        declared={"gap": GAP, "two": TWO},
        force_mask=random.integers(0, 2, n).astype(bool),
        charge=-1.0,
        multiplicity=2,
        fidelity="dft",
        base={"energy": normal(), "forces": normal(size=(n, 3))},
        features={"t": normal(size=2), "u": normal(size=(n, 4))},
    )  # fmt: skip


def plain(k, random):
    return Structure(
        [6, 1], random.normal(size=(2, 3)), labels={"energy": float(k), "forces": random.normal(size=(2, 3))}
    )


def many(count, seed=0):
    random = np.random.default_rng(seed)
    return [(rich if k % 3 else plain)(k, random) for k in range(count)]


def write(path, structures, **options):
    writer = StoreWriter(path, **options)
    for structure in structures:
        writer.add(structure)
    writer.finish()
    return path


def assert_identical(one, other):
    for field in dataclasses.fields(Structure):
        if field.name != "origin":
            same(getattr(one, field.name), getattr(other, field.name), field.name)


def same(x, y, name):
    assert type(x) is type(y), name
    if isinstance(x, np.ndarray):
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()), name
    elif isinstance(x, dict):
        assert list(x) == list(y), name
        for key in x:
            same(x[key], y[key], f"{name} {key}")
    else:
        assert x == y, name


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "set.store", many(40))


def test_every_field_comes_back_to_the_bit(store):
    found = open_dataset(store)
    assert len(found) == 40
    for one, other in zip(many(40), found, strict=True):
        assert_identical(one, other)
    assert found[4].origin == "set.store: record 4 (here.xyz: frame 4)"


def test_a_second_store_keeps_the_first_origin(store, tmp_path):
    again = open_dataset(write(tmp_path / "b.store", open_dataset(store)))
    assert again[4].origin == "b.store: record 4 (here.xyz: frame 4)"


def test_signs_of_zeros_and_smallest_numbers_are_kept(tmp_path):
    one = Structure([1], [[-0.0, 5e-324, 9.9e5]], cell=[[-0.0, 0, 0]] + [[0, 0, 0]] * 2, labels={"energy": -0.0})
    assert_identical(one, open_dataset(write(tmp_path / "s", [one]))[0])


def test_sizes_survey_and_fingerprint_need_no_record(store, monkeypatch):
    structures = many(40)
    frames = StoreFrames(store)
    monkeypatch.setattr(shard.Shard, "get", None)
    expected = survey(structures)
    assert frames.sizes.tolist() == [len(s) for s in structures] == frames.survey().n_atoms.tolist()
    assert [expected.kinds[k] for k in expected.kind] == [frames.survey().kinds[k] for k in frames.survey().kind]
    assert open_dataset(store).fingerprint == Dataset.of(structures).fingerprint


def test_a_part_has_a_fingerprint_of_its_own(store):
    part = open_dataset(store).subset([3, 1])
    assert part.fingerprint == Dataset.of([many(40)[3], many(40)[1]]).fingerprint


def test_arrays_of_a_structure_may_be_changed_and_others_stay(store):
    found = open_dataset(store)
    found[0].positions[:] = 0
    assert_identical(found[0], many(40)[0])


def test_several_shards(tmp_path):
    path = write(tmp_path / "s", many(300), shard_bytes=100_000)
    assert len(list(path.glob("shard-*.mdb"))) > 2
    for one, other in zip(many(300), open_dataset(path), strict=True):
        assert_identical(one, other)


def test_appending_keeps_what_was_there(store):
    more = many(25, seed=1)
    write(store, more)
    found = open_dataset(store)
    for one, other in zip([*many(40), *more], found, strict=True):
        assert_identical(one, other)
    assert found.fingerprint == Dataset.of([*many(40), *more]).fingerprint


def test_who_reads_does_not_see_an_append_that_comes_later(store):
    before = open_dataset(store)
    list(before)
    writer = StoreWriter(store)
    writer.add(many(1)[0])
    writer.commit()
    assert len(list(before)) == len(open_dataset(store)) == 40
    writer.finish()
    assert (len(list(before)), len(open_dataset(store))) == (40, 41)


def test_a_store_that_is_replaced_is_not_mixed_with_the_old(store, tmp_path):
    before = open_dataset(store)
    list(before)
    shutil.rmtree(store)
    write(store, many(40, seed=5))
    twin = pickle.dumps(before)
    assert_identical(open_dataset(store)[3], many(40, seed=5)[3])
    assert_identical(before[3], many(40)[3])
    with pytest.raises(DataError, match=r"is damaged|cut off|too long"):
        pickle.loads(twin)


def test_an_append_that_was_cut_short_keeps_what_was_committed(store):
    writer = StoreWriter(store)
    for structure in many(7, seed=2):
        writer.add(structure)
    writer.commit()
    writer.add(many(1)[0])
    writer._shard.close()
    os.close(writer._lock)
    found = open_dataset(store)
    assert len(found) == 47
    assert "an append to it was cut short" in found.notes[0]
    assert found.fingerprint == Dataset.of([*many(40), *many(7, seed=2)]).fingerprint
    write(store, many(1, seed=3))
    assert len(open_dataset(store)) == 48
    assert open_dataset(store).notes == ()


ENDLESS = """
import sys, pathlib, numpy as np
from forgefield.core.structure import Structure
from forgefield.data.store import shard_writer
from forgefield.data.store.store_writer import StoreWriter
shard_writer.PENDING_BYTES = 20_000
writer = StoreWriter(pathlib.Path(sys.argv[1]), shard_bytes=400_000)
print("ready", flush=True)
k = len(writer)
while True:
    writer.add(Structure([1] * 20, np.full((20, 3), float(k)), labels={"energy": float(k)}))
    k += 1
"""


def test_killed_at_any_moment_it_is_continued(tmp_path):
    path, last = tmp_path / "s", 0
    for wait in (0.0, 0.05, 0.2, 0.35):
        child = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        writer = StoreWriter(path)
        assert len(writer) >= last
        last = len(writer)
        writer.stop()
    write(path, [])
    found = open_dataset(path)
    assert len(found) == last > 0
    assert [float(s.labels["energy"]) for s in found] == list(range(last))
    assert found.fingerprint == Dataset.of(list(found)).fingerprint


def test_two_writers_are_refused(store):
    first = StoreWriter(store)
    with pytest.raises(DataError, match="is being written by another process"):
        StoreWriter(store)
    first.finish()
    StoreWriter(store).finish()


def test_threads_and_processes_read_at_once(tmp_path):
    found = open_dataset(write(tmp_path / "s", many(200), shard_bytes=100_000))
    expected = [s.positions.tobytes() for s in many(200)]
    order = np.random.default_rng(0).permutation(200).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: found[i].positions.tobytes(), order * 5))
    assert read == [expected[i] for i in order * 5]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(read_one, [(found, i) for i in order[:40]]) == [expected[i] for i in order[:40]]


def test_threads_open_the_same_store_at_once(store):
    with ThreadPoolExecutor(8) as pool:
        assert {len(found) for found in pool.map(open_dataset, [store] * 64)} == {40}


def read_one(dataset, index):
    return dataset[index].positions.tobytes()


def test_a_fork_reads_on(store):
    found = open_dataset(store)
    list(found)
    child = os.fork()
    if child == 0:
        os._exit(0 if found[7].positions.tobytes() == many(40)[7].positions.tobytes() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_flipped_bit_anywhere_is_one_message_or_changes_nothing(tmp_path):
    structures = many(30)
    path = write(tmp_path / "s", structures)
    file = next(path.glob("shard-*.mdb"))
    whole, random, found = file.read_bytes(), np.random.default_rng(0), 0
    for place in [*range(0, 200, 7), *random.integers(0, len(whole), 200).tolist()]:
        broken = bytearray(whole)
        broken[place] ^= 1 << int(random.integers(8))
        file.write_bytes(broken)
        try:
            for one, other in zip(structures, open_dataset(path), strict=True):
                assert_identical(one, other)
        except DataError as error:
            found += file.name in str(error) or pytest.fail(str(error))
    assert found > 100


def test_a_damaged_record_is_named_and_the_others_are_read(store):
    file = next(store.glob("shard-*.mdb"))
    raw = bytearray(file.read_bytes())
    raw[raw.index(many(40)[10].positions.tobytes()) + 3] ^= 16
    file.write_bytes(raw)
    found = open_dataset(store)
    with pytest.raises(DataError, match=r"set.store/shard-00000.mdb: record 10: is damaged: its checksum is wrong"):
        found[10]
    assert_identical(found[11], many(40)[11])


@pytest.mark.parametrize("place", range(0, 600, 41))
def test_a_flipped_bit_in_the_header(store, place):
    raw = bytearray((store / FILE).read_bytes())
    raw[place % len(raw)] ^= 1
    (store / FILE).write_bytes(raw)
    with pytest.raises(DataError, match=r"checksum is wrong|cannot be read|not the header|is of version"):
        StoreFrames(store)


def test_a_truncated_or_missing_shard(store):
    file = next(store.glob("shard-*.mdb"))
    file.write_bytes(file.read_bytes()[:-4096])
    with pytest.raises(DataError, match="is cut off"):
        open_dataset(store)
    file.unlink()
    with pytest.raises(DataError, match="is gone"):
        open_dataset(store)


def test_another_version_is_refused(store):
    block = json.loads((store / FILE).read_text())
    (store / FILE).write_text(json.dumps(block | {"version": 2}))
    with pytest.raises(DataError, match="is of version 2, this ForgeField reads version 1"):
        open_dataset(store)


def test_float32_only_where_asked_and_said(tmp_path):
    structures = many(9)
    path = write(tmp_path / "s", structures, float32=True)
    found = open_dataset(path)
    assert "rounded to float32" in found.notes[0]
    for one, other in zip(structures, found, strict=True):
        assert other.positions.dtype == np.float64
        assert other.positions.tolist() == one.positions.astype(np.float32).astype(float).tolist()
        assert other.labels["forces"].tolist() == one.labels["forces"].astype(np.float32).astype(float).tolist()
        assert other.labels["energy"].tobytes() == one.labels["energy"].tobytes()
    assert found.fingerprint == Dataset.of(list(found)).fingerprint
    with pytest.raises(DataError, match="keeps positions and forces in float32"):
        StoreWriter(path)


def test_a_structure_that_became_wrong_is_not_written(tmp_path):
    wrong = many(1)[0]
    wrong.labels["energy"][...] = np.nan
    writer = StoreWriter(tmp_path / "s")
    with pytest.raises(DataError, match="NaN or infinity"):
        writer.add(wrong)
    with pytest.raises(DataError, match="a store keeps numbers, texts and arrays"):
        writer.add(Structure([1], [[0, 0, 0]], info={"x": object()}))
    assert len(writer) == 0
    writer.finish()


def test_a_conversion_that_is_not_finished_does_not_open(tmp_path):
    writer = StoreWriter(tmp_path / "s", job={"inputs": "a"})
    writer.add(many(1)[0])
    writer.progress = {"consumed": 3}
    writer.stop()
    with pytest.raises(DataError, match="repeat the command"):
        open_dataset(tmp_path / "s")
    with pytest.raises(DataError, match="was begun from other inputs"):
        StoreWriter(tmp_path / "s", job={"inputs": "b"})
    again = StoreWriter(tmp_path / "s", job={"inputs": "a"})
    assert (len(again), again.progress) == (1, {"consumed": 3})
    again.finish()
    assert len(open_dataset(tmp_path / "s")) == 1


def test_names_can_be_chosen_as_in_any_format(store):
    found = open_dataset(store, keys=LabelKeys(stress=None, energy="gap"))
    one, other = many(40)[4], found[4]
    assert "stress" not in other.labels
    assert float(other.labels["energy"]) == float(one.labels["gap"])
    for name in ("forces", "charges", "two", "quadrupole"):
        assert other.labels[name].tobytes() == one.labels[name].tobytes()
    assert other.base["forces"].tobytes() == one.base["forces"].tobytes()
    assert (other.charge, other.multiplicity, other.fidelity, other.head) == (-1.0, 2, "dft", None)
    assert other.features["u"].tobytes() == one.features["u"].tobytes()
    assert other.force_mask.tolist() == one.force_mask.tolist()
    assert found[5].head == "pbe"
