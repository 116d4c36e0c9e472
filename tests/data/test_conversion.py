import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from forgefield.app.cli import app
from forgefield.core.catalog import Catalog
from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.conversion import convert
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.label_names import LabelKeys, TargetKey
from forgefield.data.store import shard_writer
from forgefield.data.store.appender import StoreAppender
from forgefield.data.store.frames import StoreFrames
from forgefield.data.writer import WRITERS
from forgefield.data.writers.store import StoreFile

REAL = os.environ.get("FORGEFIELD_DATA")  # a folder of data sets; each is converted and back


def run(*words):
    return CliRunner().invoke(app, ["data", "convert", *map(str, words)])


def writer(name, path, **settings):
    entry = Catalog(WRITERS).entry(name)
    return entry.build(path, entry.settings(**settings))


def molecules(count, seed=0):
    random = np.random.default_rng(seed)
    return [
        Structure(
            [8, 1, 1],
            random.normal(size=(3, 3)),
            labels={"energy": random.normal(), "forces": random.normal(size=(3, 3))},
        )
        for _ in range(count)
    ]


def crystal(**more):
    random = np.random.default_rng(1)
    stress, quadrupole, polarizability = (t + t.T for t in random.normal(size=(3, 3, 3)))
    labels = {
        "energy": -1.0 / 3,
        "forces": random.normal(size=(2, 3)) * 1e-7,
        "stress": stress,
        "charges": random.normal(size=2),
        "spin_charges": random.normal(size=2),
        "dipole": random.normal(size=3),
        "quadrupole": quadrupole,
        "polarizability": polarizability,
        "gap": 1.23456789012345678,
        "two": random.normal(size=(2, 2)),
    }
    keys = LabelKeys(
        charges="charges",
        spin_charges="spin_charges",
        dipole="dipole",
        quadrupole="quadrupole",
        polarizability="polarizability",
        targets={"gap": TargetKey(key="gap", per="structure"), "two": TargetKey(key="two", per="atom", components=2)},
        base={"energy": "base_energy", "forces": "base_forces"},
        features={"t": "feature_t", "u": "feature_u"},
        force_mask="force_mask",
    )
    made = Structure(
        [26, 8],
        random.normal(size=(2, 3)),
        random.normal(size=(3, 3)) + 5 * np.eye(3),
        [True, False, True],
        labels=labels,
        config_type="a b=c",
        head="pbe",
        weight=0.1,
        fixed=np.array([True, False]),
        tags=np.array([2, 0]),
        declared=keys.declared,
        force_mask=np.array([False, True]),
        charge=-1.0,
        multiplicity=3,
        fidelity="dft",
        base={"energy": 2.0 / 3, "forces": random.normal(size=(2, 3))},
        features={"t": random.normal(size=2), "u": random.normal(size=(2, 3))},
        info={"step": 7, "temperature": 300.1, "name": 'with "quotes" and = signs', "good": True},
        **more,
    )
    return made, keys


def test_extxyz_keeps_all_digits_of_everything(tmp_path):
    made, keys = crystal()
    notes = convert(Dataset.of([made]), writer("extxyz", tmp_path / "a.xyz"), "").notes
    read = open_dataset(tmp_path / "a.xyz", keys=keys)[0]
    assert Dataset.of([read]).fingerprint == Dataset.of([made]).fingerprint
    assert dict(read.info) == dict(made.info)
    assert "--set data.charges_key=charges" in notes[0]
    assert "data.base.forces=base_forces" in notes[0]


def test_extxyz_says_what_it_cannot_keep(tmp_path):
    frames = [
        Structure([1], [[0, 0, 0]], config_type="007", labels={"energy": 1.0, "stress": np.triu(np.ones((3, 3)))},
                  info={"energy": 2.0, "free_energy": 3.0, "list": [1, 2], "none": None}),
    ]  # fmt: skip
    notes = " ".join(convert(Dataset.of(frames), writer("extxyz", tmp_path / "a.xyz"), "").notes)
    told = ["stresses are not symmetric", "'config_type' look like numbers", "written as 'info_energy'"]
    told += ["written as 'info_free_energy'", "'list' is a list", "'none' of some frames was left out"]
    for words in told:
        assert words in notes
    frames[0].labels["stress"][...] = np.eye(3)
    convert(Dataset.of(frames), writer("extxyz", tmp_path / "b.xyz"), "")
    assert float(open_dataset(tmp_path / "b.xyz")[0].labels["energy"]) == 1.0


@pytest.mark.parametrize("name", ["store", "extxyz"])
def test_nothing_stands_at_the_path_before_the_end(tmp_path, name):
    path = tmp_path / "out"
    one = writer(name, path)
    one.add(molecules(1)[0])
    assert not path.exists()
    one.abandon()
    assert list(tmp_path.iterdir()) == []
    broken = molecules(2)
    broken[1].labels["energy"][...] = np.inf
    with pytest.raises(DataError, match="NaN or infinity"):
        convert(Dataset.of(broken), writer(name, path), "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["store", "extxyz"])
def test_structures_that_cannot_be_used_are_left_out_and_counted(tmp_path, name):
    frames = molecules(5)
    for k in (1, 4):
        frames[k].labels["energy"][...] = np.nan
    done = convert(Dataset.of(frames), writer(name, tmp_path / "out"), "", skip=True)
    assert (done.n_written, done.n_skipped, len(done.skipped)) == (3, 2, 2)
    assert "energy holds NaN" in done.skipped[0]
    kept = open_dataset(tmp_path / "out")
    assert kept.fingerprint == Dataset.of([frames[k] for k in (0, 2, 3)]).fingerprint


def test_a_bad_frame_of_a_file_is_left_out_by_the_command(tmp_path):
    convert(Dataset.of(molecules(4)), writer("extxyz", tmp_path / "in.xyz"), "")
    text = (tmp_path / "in.xyz").read_text().splitlines()
    text[7] = "Qq 1 2 3 4 5 6"
    (tmp_path / "in.xyz").write_text("\n".join(text) + "\n")
    failed = run(tmp_path / "in.xyz", tmp_path / "out.store")
    assert failed.exit_code == 2
    assert "in.xyz: frame 1: 'Qq' is no element" in failed.output
    assert not (tmp_path / "out.store").exists()
    done = run(tmp_path / "in.xyz", tmp_path / "out.store", "--on-error", "skip")
    assert done.exit_code == 0
    assert "3, of 4 read" in done.output
    assert len(open_dataset(tmp_path / "out.store")) == 3


def test_units_and_names_are_settled_on_the_way(tmp_path):
    (tmp_path / "in.xyz").write_text("1\nE=2 energy=5\nH 0 0 0\n")
    words = ("--set", "data.energy_key=E", "--set", "data.energy_unit=Ha")
    assert run(tmp_path / "in.xyz", tmp_path / "out.store", *words).exit_code == 0
    energy = float(open_dataset(tmp_path / "out.store")[0].labels["energy"])
    assert energy == pytest.approx(2 * 27.211386, rel=1e-6)


def test_several_sources_with_marks_become_one(tmp_path):
    for name in "ab":
        convert(Dataset.of(molecules(2)), writer("extxyz", tmp_path / f"{name}.xyz"), "")
    a, b = tmp_path / "a.xyz", tmp_path / "b.xyz"
    sources = f"data.lmdb=[{{path: {a}, fidelity: pbe}}, {{path: {b}, fidelity: scan, weight: 0.5}}]"
    assert run(tmp_path / "all.store", "--set", sources).exit_code == 0
    found = list(open_dataset(tmp_path / "all.store"))
    assert [s.fidelity for s in found] == ["pbe", "pbe", "scan", "scan"]
    assert [s.weight for s in found] == [1, 1, 0.5, 0.5]


def test_it_does_not_write_over_what_is_there(tmp_path):
    convert(Dataset.of(molecules(3)), writer("extxyz", tmp_path / "in.xyz"), "")
    out = tmp_path / "out.store"
    assert run(tmp_path / "in.xyz", out).exit_code == 0
    assert "is there already" in run(tmp_path / "in.xyz", out).output
    assert run(tmp_path / "in.xyz", out, "--overwrite", "--with", "float32=true").exit_code == 0
    assert StoreFrames(out).header.float32
    assert "is both read and written" in run(out, out).output
    for there, name in ((out, "extxyz"), (tmp_path, "store"), (tmp_path / "in.xyz", "store")):
        failed = run(out if there != out else tmp_path / "in.xyz", there, "--to", name, "--overwrite")
        assert failed.exit_code == 2
        assert "is not what format" in failed.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.xyz", "out.store"]


SLOW = """
import sys, time
from forgefield.data import conversion
from forgefield.data.store import shard_writer, store_writer
shard_writer.PENDING_BYTES = 30_000
real = conversion._one
def slowly(*args):
    real(*args)
    time.sleep(0.0005)
conversion._one = slowly
from forgefield.app.cli import main
print("ready", flush=True)
main(["data", "convert", *sys.argv[1:]])
"""


def test_killed_it_goes_on_and_the_result_is_the_same(tmp_path, monkeypatch):
    source, out = tmp_path / "in.xyz", tmp_path / "out.store"
    convert(Dataset.of(molecules(3000)), writer("extxyz", source), "")
    child = subprocess.Popen([sys.executable, "-c", SLOW, source, out], stdout=subprocess.PIPE)
    child.stdout.readline()
    beside = tmp_path / ".out.store.part"
    while not (beside / "shard-00000.mdb").exists() or (beside / "shard-00000.mdb").stat().st_size < 200_000:
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not out.exists()
    (tmp_path / "other.xyz").write_text("1\n\nH 0 0 0\n")
    assert "was begun from other inputs" in run(tmp_path / "other.xyz", out).output
    monkeypatch.setattr(shard_writer, "PENDING_BYTES", 30_000)
    done = run(source, out)
    assert "were done by an earlier run" in done.output
    found = open_dataset(out)
    assert len(found) == 3000
    assert found.fingerprint == Dataset.of(molecules(3000)).fingerprint == Dataset.of(list(found)).fingerprint
    assert not beside.exists()


def test_a_killed_one_can_be_begun_anew(tmp_path):
    source, out = tmp_path / "in.xyz", tmp_path / "out.store"
    convert(Dataset.of(molecules(3)), writer("extxyz", source), "")
    left = writer("store", out)
    left.take_up("another job")
    left.pause()
    assert "was begun from other inputs" in run(source, out).output
    assert run(source, out, "--restart").exit_code == 0
    assert len(open_dataset(out)) == 3


@pytest.mark.parametrize("name", ["extxyz", "ase_db", "aselmdb"])
def test_info_called_like_a_label_does_not_become_one(name, tmp_path):
    out = tmp_path / {"extxyz": "a.xyz", "ase_db": "a.db", "aselmdb": "a.aselmdb"}[name]
    one = Structure([1], np.zeros((1, 3)), info={"free_energy": -3.0, "mark": 7})
    done = convert(Dataset.of([one]), writer(name, out), "")
    (found,) = open_dataset(out)
    assert dict(found.labels) == {}
    assert found.info == {"info_free_energy": -3.0, "mark": 7}
    assert "info 'free_energy' is written as 'info_free_energy', so that it is not read as a label" in done.notes


def many_shards(path, count, seed):
    convert(Dataset.of(molecules(count, seed)), writer("store", path), "")
    return path


def test_appending_is_all_or_nothing(tmp_path):
    out, more = many_shards(tmp_path / "all.store", 5, 0), tmp_path / "more.xyz"
    convert(Dataset.of(molecules(7, 1)), writer("extxyz", more), "")
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    whole = more.read_text()
    more.write_text(whole + "3\n\nH 0 0 0\nH 0 0 0\nH 1 x 0\n")
    failed = run(more, out, "--append")
    assert failed.exit_code != 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    more.write_text(whole)
    done = run(more, out, "--append")
    assert done.exit_code == 0, done.output
    assert "7 were appended to 5" in " ".join(done.output.split())
    found = open_dataset(out)
    assert len(found) == 12
    assert found.fingerprint == Dataset.of([*molecules(5), *open_dataset(more)]).fingerprint
    assert Dataset.of(list(found)).fingerprint == found.fingerprint
    assert len(open_dataset(run(more, out, "--append") and out)) == 19  # again is again


@pytest.mark.parametrize("opened", [False, True])
def test_an_append_that_was_killed_goes_on(tmp_path, monkeypatch, opened):
    out, more = many_shards(tmp_path / "all.store", 5, 0), tmp_path / "more.store"
    many_shards(more, 300, 1)
    monkeypatch.setattr(shard_writer, "PENDING_BYTES", 10_000)
    monkeypatch.setattr(shard_writer, "BLOCK_BYTES", 2_000)
    real, seen = StoreAppender.add, []

    def add(self, structure):
        seen.append(structure)
        if len(seen) == 200:
            raise KeyboardInterrupt if not opened else MemoryError
        real(self, structure)

    monkeypatch.setattr(StoreAppender, "add", add)
    monkeypatch.setattr(StoreAppender, "abandon", lambda self: (self._store._shard.close(), self._store._let_go()))
    run(more, out, "--append")
    assert len(seen) == 200
    if opened:  # who reads in between takes in what was committed
        assert 5 < len(open_dataset(out)) < 205
    monkeypatch.undo()
    done = run(more, out, "--append")
    assert done.exit_code == 0, done.output
    assert "were done by an earlier run" in done.output
    found = open_dataset(out)
    assert len(found) == 305
    assert found.fingerprint == Dataset.of([*molecules(5), *molecules(300, 1)]).fingerprint
    assert found.notes == ()


def test_ctrl_c_between_a_structure_and_its_progress_loses_none(tmp_path, monkeypatch):
    source, out = many_shards(tmp_path / "in.store", 300, 1), tmp_path / "out.store"
    monkeypatch.setattr(shard_writer, "PENDING_BYTES", 10_000)
    monkeypatch.setattr(shard_writer, "BLOCK_BYTES", 2_000)
    real, seen = StoreFile.add, []

    def add(self, structure):
        seen.append(structure)
        if len(seen) == 200:
            raise KeyboardInterrupt
        real(self, structure)

    monkeypatch.setattr(StoreFile, "add", add)
    run(source, out)
    monkeypatch.undo()
    assert "were done by an earlier run" in run(source, out).output
    assert open_dataset(out).fingerprint == Dataset.of(molecules(300, 1)).fingerprint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out.xyz", "--append"], "format extxyz cannot be appended to"),
        (["all.store", "--append", "--overwrite"], "does not go with --overwrite, --restart or --with"),
        (["all.store"], "is there already. Fix: remove it, choose another name, or give --overwrite, or --append"),
    ],
)
def test_where_nothing_can_be_appended(tmp_path, words, message):
    many_shards(tmp_path / "all.store", 2, 0)
    convert(Dataset.of(molecules(2)), writer("extxyz", tmp_path / "out.xyz"), "")
    convert(Dataset.of(molecules(2)), writer("extxyz", tmp_path / "in.xyz"), "")
    found = run(tmp_path / "in.xyz", tmp_path / words[0], *words[1:])
    assert found.exit_code != 0
    assert message in " ".join(found.output.split())


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="FORGEFIELD_DATA names no folder of data sets")
def test_every_real_set_goes_to_the_store_and_back(tmp_path):
    converted = []
    for path in _candidates():
        try:
            found = open_dataset(path)
            structures = list(found)
        except DataError:
            continue  # a licence, a picture, a format that no reader knows
        out = tmp_path / f"{len(converted)}"
        convert(found, writer("store", out), "")
        assert open_dataset(out).fingerprint == Dataset.of(list(open_dataset(out))).fingerprint == found.fingerprint
        back = tmp_path / f"{len(converted)}.xyz"
        convert(open_dataset(out), writer("extxyz", back), "")
        usual = LabelKeys(**{k: None if v is None or k not in ("energy", "forces", "stress") else k
                             for k, v in found.parts[0].chosen.items() if k in LabelKeys.model_fields})  # fmt: skip
        for one, other in zip(structures, open_dataset(back, keys=usual), strict=True):
            for name in {"energy", "forces", "stress"} & one.labels.keys():
                np.testing.assert_allclose(other.labels[name], one.labels[name], rtol=0, atol=1e-12)
        converted.append(path)
    print("\n".join(converted))
    assert len(converted) >= 15


WRITTEN = {  # settings, and what a label may lose on the way there and back, relative to its size
    "ase_db": ({}, 1e-15),
    "aselmdb": ({}, 1e-15),
    "size_grouped": ({"precision": "float64"}, 1e-15),
    "pacemaker": ({}, 1e-15),
}
ENOUGH = 60  # structures of each set


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="FORGEFIELD_DATA names no folder of data sets")
@pytest.mark.parametrize("name", list(WRITTEN))
def test_every_real_set_goes_through_every_writer(name, tmp_path):
    options, loss = WRITTEN[name]
    converted, refused = [], {}
    for number, path in enumerate(_candidates()):
        try:
            found = open_dataset(path)
            alike = [s for s, _ in zip(found, range(20 * ENOUGH), strict=False)]
        except DataError:
            continue
        usual = {"energy", "forces", "stress"}
        kinds = [(len(s.labels.keys() & usual), sorted(s.labels), not s.pbc.any()) for s in alike]
        structures = [s for s, kind in zip(alike, kinds, strict=True) if kind == max(kinds)][:ENOUGH]
        out = tmp_path / (
            f"{number}" + {"pacemaker": ".pckl.gzip", "ase_db": ".db", "size_grouped": ".h5"}.get(name, "")
        )
        try:
            convert(Dataset.of(structures), writer(name, out, **options), "")
        except DataError as error:
            refused[path] = str(error)
            continue
        for one, other in zip(structures, open_dataset(out), strict=True):
            assert other.numbers.tolist() == one.numbers.tolist(), path
            np.testing.assert_allclose(other.positions, one.positions, rtol=0, atol=1e-12)
            there = usual & one.labels.keys()
            assert there == usual & other.labels.keys(), path
            for label in there:
                bound = max(1e-12, loss * float(np.abs(one.labels[label]).max(initial=0)))
                np.testing.assert_allclose(other.labels[label], one.labels[label], rtol=0, atol=bound, err_msg=path)
        converted.append(path)
    print(name, len(converted), *(f"{path}: {why}" for path, why in refused.items()), sep="\n")
    assert len(converted) >= 12
    assert all("Fix:" in why for why in refused.values())


def _candidates():
    """Files and folders; what is inside a folder that opens as a whole is tried too."""
    for folder, _, files in sorted(os.walk(REAL)):
        names = [name for name in sorted(files) if not name.endswith((".md", ".txt", ".py", ".rst", ".vasp"))]
        yield from (os.path.join(folder, name) for name in ("", *names))
