"""on_error: skip, when a source is opened: what cannot be read is left out, counted and told, by every command."""

import gc
import gzip
import json
import lzma
import pickle
import shutil
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
from typer.testing import CliRunner

from forgefield.app.cli import app
from forgefield.core.catalog import Catalog
from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import open_dataset
from forgefield.data.readers import ase_files
from forgefield.data.settings import DataSettings
from forgefield.data.sources import open_sources
from forgefield.data.store.store_writer import StoreWriter

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from fuzz_samples import SAMPLES, copied

PAIR = "2\nProperties=species:S:1:pos:R:3:forces:R:3 energy={}\nH 0 0 0 0 0 1\nH 0 0 {} 0 0 -1\n"


def opened(*paths, **settings):
    block = DataSettings(lmdb=[str(path) for path in paths], on_error="skip", **settings)
    return open_sources(block.lmdb, block)


def refused(*paths):
    with pytest.raises(DataError):
        list(open_dataset(list(paths)))


def frames(path, count=4):
    path.write_text("".join(PAIR.format(k, 0.7 + 0.01 * k) for k in range(count)))
    return path


def cut(path, share=0.45):
    """Cut a file, or the largest one of a folder, off."""
    file = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size) if path.is_dir() else path
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def run(*words):
    return CliRunner().invoke(app, ["data", *map(str, words)])


@pytest.mark.parametrize("name", Catalog("forgefield.data.readers").names())
def test_a_broken_source_of_any_format_does_not_stop_the_others(name, tmp_path):
    for number, sample in enumerate(SAMPLES[name]):
        broken = tmp_path / f"broken{number}"
        sample.write(broken)
        whole = len(open_dataset(broken))
        cut(broken)
        good = frames(tmp_path / "good.xyz")
        failed = run("convert", good, broken, tmp_path / f"{number}.store")
        if failed.exit_code == 0:  # what was cut off belongs to no structure
            assert len(open_dataset(tmp_path / f"{number}.store")) == 4 + whole
            continue
        assert failed.exit_code == 2, failed.output
        assert not (tmp_path / f"{number}.store").exists()
        done = run("convert", good, broken, tmp_path / f"{number}.store", "--on-error", "skip")
        assert done.exit_code == 0, done.output
        kept = open_dataset(tmp_path / f"{number}.store")
        assert 4 <= len(kept) < 4 + whole
        assert "left out" in done.output
        assert len(opened(good, broken)) == len(kept)


@pytest.mark.parametrize(
    "words", [("info",), ("stats",), ("sae",), ("split", "--out", "s.json"), ("view", "--out", "v.html"), ("doctor",)]
)
def test_every_command_goes_on_and_tells_what_is_left_out(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = frames(tmp_path / "good.xyz", 30)
    (tmp_path / "broken.xyz").write_bytes(b"5\nno end\nH 0 0 0\n")
    assert run(words[0], good, "broken.xyz", *words[1:]).exit_code == 2
    done = run(words[0], good, "broken.xyz", *words[1:], "--on-error", "skip")
    assert done.exit_code == (2 if words[0] == "doctor" else 0), done.output  # it has something to say on the good one
    assert "left out (on_error: skip): broken.xyz: " in done.output.replace("\n", " ").replace(f"{tmp_path}/", "")


def test_the_number_left_out_stands_in_the_tables(tmp_path):
    good = frames(tmp_path / "a.xyz")
    good.write_text(good.read_text()[:-20])
    found = json.loads(run("info", good, "--json", "--on-error", "skip").stdout)
    assert (found["structures"], found["left_out"]) == (3, 1)
    done = run("convert", good, tmp_path / "a.store", "--on-error", "skip")
    assert "3, of 4 read" in done.output
    assert "1 when the inputs were opened (--on-error skip)" in done.output


def test_what_does_not_exist_is_never_left_out(tmp_path):
    good = frames(tmp_path / "good.xyz")
    with pytest.raises(DataError, match="does not exist"):
        opened(good, tmp_path / "god.xyz")


def test_where_nothing_can_be_opened_it_is_said(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(b"\x00\x01nothing")
    with pytest.raises(DataError, match="the format is not known"):
        opened(tmp_path / "a")
    with pytest.raises(DataError, match=r"none of 2 sources can be opened; the first: .*format is not known"):
        opened(tmp_path / "a", tmp_path / "b")


def test_each_source_decides_for_itself(tmp_path):
    good, broken = frames(tmp_path / "good.xyz"), tmp_path / "broken.xyz"
    broken.write_text(PAIR.format(1, 0.7) + "1\n\nQq 0 0 0\n")
    sources = "data.lmdb=[{{path: {}}}, {{path: {}, on_error: {}}}]"
    words = ("convert", "--set", sources.format(good, broken, "skip"), tmp_path / "a.store")
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert len(open_dataset(tmp_path / "a.store")) == 5
    words = ("convert", "--on-error", "skip", "--set", sources.format(good, broken, "raise"), tmp_path / "b.store")
    failed = run(*words)
    assert failed.exit_code == 2
    assert "'Qq' is no element" in failed.output


@pytest.mark.parametrize("pack", [lzma.open, gzip.open])
def test_of_a_packed_file_that_is_cut_off_the_whole_frames_are_read(pack, tmp_path):
    path = tmp_path / "a.xyz.packed"
    random = np.random.default_rng(0)
    with pack(path, "wt") as stream:
        for k in range(20_000):
            stream.write(PAIR.format(k, random.normal()))
    cut(path, 0.6)
    refused(path)
    found = opened(path)
    assert 9_000 < len(found) < 15_000
    assert [float(s.labels["energy"]) for s in found] == list(range(len(found)))
    assert "compressed file is cut off" in found.notes[0]
    assert pickle.loads(pickle.dumps(found)).fingerprint == found.fingerprint


def test_bytes_that_are_no_text_cost_one_frame(tmp_path):
    path = frames(tmp_path / "a.xyz", 5)
    data = path.read_bytes()
    at = data.index(b"energy=2")
    path.write_bytes(data[:at] + b"\xff\xfe" + data[at + 2 :])
    refused(path)
    found = opened(path)
    assert [float(s.labels["energy"]) for s in found] == [0, 1, 3, 4]
    assert "frame 2 (line 9): is no text" in found.notes[0]


@pytest.mark.parametrize("name", ["aselmdb", "fairchem_lmdb", "xequinet", "alignn_cache"])
def test_nothing_is_kept_open_of_what_could_not_be_opened(name, tmp_path):
    """A file that was mended, or replaced, is read as it then is."""
    path = tmp_path / "data"
    SAMPLES[name][0].write(path)
    whole = len(open_dataset(path))
    file = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size) if path.is_dir() else path
    data = file.read_bytes()
    gc.disable()
    try:
        for k in range(3):
            file.unlink()
            file.write_bytes(data.replace(b"\x80", b"\x81"))  # pages as they were, records damaged
            with pytest.raises(DataError):
                opened(path)
            file.unlink()
            file.write_bytes(data + bytes(4096 * k))
            assert len(opened(path)) == whole
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["aselmdb", "fairchem_lmdb"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_broken_shard_leaves_the_others(name, which, tmp_path):
    ending = ".aselmdb" if name == "aselmdb" else ".lmdb"
    for k in range(3):
        SAMPLES[name][0].write(tmp_path / f"s{k}{ending}")
    cut(tmp_path / f"s{which}{ending}")
    refused(tmp_path)
    found = opened(tmp_path)
    assert len(found) == 6
    assert "1 of 3 shards is left out" in found.notes[0]
    assert f"s{which}{ending}" in found.notes[0]


def test_records_missing_in_a_shard_are_counted(tmp_path):
    SAMPLES["fairchem_lmdb"][0].write(tmp_path / "a.lmdb")
    environment = lmdb.open(str(tmp_path / "a.lmdb"), subdir=False, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.delete(b"1")
    environment.close()
    refused(tmp_path / "a.lmdb")
    found = opened(tmp_path / "a.lmdb")
    assert [s.origin for s in found] == ["a.lmdb: record 0", "a.lmdb: record 2"]
    assert found.n_left_out == 1
    assert "1 record is missing and left out (on_error: skip): a.lmdb: the first is record 1" in found.notes[0]


def test_a_broken_group_set_or_list_leaves_the_others(tmp_path):
    SAMPLES["size_grouped"][2].write(tmp_path / "npz")
    cut(tmp_path / "npz" / "002.npz")
    refused(tmp_path / "npz")
    found = opened(tmp_path / "npz")
    assert (len(found), {len(s) for s in found}) == (3, {5})
    assert "1 of 2 groups is left out" in found.notes[0]

    for name in ("one", "two"):
        SAMPLES["deepmd_npy"][0].write(tmp_path / "tree" / name)
    shutil.copytree(tmp_path / "tree" / "two" / "set.000", tmp_path / "tree" / "two" / "set.001")
    cut(tmp_path / "tree" / "one" / "set.000" / "coord.npy")
    cut(tmp_path / "tree" / "two" / "set.000" / "force.npy")
    refused(tmp_path / "tree")
    found = opened(tmp_path / "tree")
    assert len(found) == 2
    assert [note.split(":")[0] for note in found.notes] == [
        "1 of 2 systems is left out (on_error",
        "1 of 2 sets of two is left out (on_error",
    ]

    SAMPLES["structure_store"][0].write(tmp_path / "sampler")
    with (tmp_path / "sampler" / "structures" / "index.jsonl").open("a") as stream:
        stream.write('{"id": "x", "path": "structu')
    refused(tmp_path / "sampler")
    found = opened(tmp_path / "sampler")
    assert (len(found), found.n_left_out) == (3, 1)


def test_lists_and_tables_keep_what_comes_before_the_damage(tmp_path):
    copied("alignn/forces/id_prop.json").write(tmp_path / "id_prop.json")
    cut(tmp_path / "id_prop.json", 0.8)
    refused(tmp_path / "id_prop.json")
    found = opened(tmp_path / "id_prop.json")
    assert 0 < len(found) < 4
    assert f"what comes after {len(found)} entries is left out" in found.notes[0]

    copied("alignn/table").write(tmp_path / "table")
    table = tmp_path / "table" / "id_prop.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], lines[1] + ",oops", "", *lines[2:]]) + "\n")
    refused(table)
    found = opened(table)
    assert [s.origin.split(":")[1].split("(")[0].strip() for s in found] == ["line 1", "line 4", "line 5"]
    assert "line 2: has 2 targets" in found.notes[0]


def test_files_of_ase_keep_the_frames_before_the_damage(tmp_path):
    copied("ase_files/vasprun.xml").write(tmp_path / "vasprun.xml")
    cut(tmp_path / "vasprun.xml", 0.9)
    refused(tmp_path / "vasprun.xml")
    found = opened(tmp_path / "vasprun.xml")
    assert len(found) == 1
    assert "what comes after 1 frames is left out (on_error: skip): " in found.notes[0]
    assert "has no end" in found.notes[0]


def test_of_a_parser_that_fails_midway_the_frames_before_are_kept(tmp_path, monkeypatch):
    copied("ase_files/bpa.pdb").write(tmp_path / "a.pdb")
    parsed = ase_files.iread

    def failing(*words, **more):
        yield next(iter(parsed(*words, **more)))
        raise ValueError("no number")

    monkeypatch.setattr(ase_files, "iread", failing)
    refused(tmp_path / "a.pdb")
    found = opened(tmp_path / "a.pdb")
    assert len(found) == 1
    assert "what comes after 1 frames is left out (on_error: skip): a.pdb: frame 1: cannot be read" in found.notes[0]


def test_a_broken_shard_of_a_store_leaves_the_others(tmp_path):
    for first in range(2):
        writer = StoreWriter(tmp_path / "a.store")
        for k in range(3):
            position = [[0, 0, 3 * first + k]]
            writer.add(Structure([1], position, labels={"energy": np.float64(3 * first + k)}))
        writer.finish()
    assert len(list((tmp_path / "a.store").glob("*.mdb"))) == 2
    cut(tmp_path / "a.store" / "shard-00000.mdb")
    refused(tmp_path / "a.store")
    found = opened(tmp_path / "a.store")
    assert [float(s.labels["energy"]) for s in found] == [3, 4, 5]
    assert found.n_left_out == 3
    assert "1 of 2 shards is left out" in found.notes[0]
    assert found.fingerprint != json.loads((tmp_path / "a.store" / "store.json").read_text())["fingerprint"]
    renamed = opened(tmp_path / "a.store", energy_unit="Ha")
    assert (len(renamed), renamed.n_left_out) == (3, 3)
