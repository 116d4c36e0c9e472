"""All formats on small real files: recognised by one reader alone, read to the end, and in pieces only as errors."""

import importlib.util
import multiprocessing
import pickle
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from forgefield.core.catalog import Catalog
from forgefield.core.errors import DataError
from forgefield.data.dataset import detect_format, open_dataset

_spec = importlib.util.spec_from_file_location("samples", Path(__file__).parent / "samples.py")
_samples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_samples)
SAMPLES = _samples.SAMPLES
CATALOG = Catalog("forgefield.data.readers")
FLIPS = 6  # of each file


@pytest.fixture(params=sorted(SAMPLES))
def sample(request):
    return SAMPLES[request.param]


def copied(sample, folder):
    """A copy of a sample, and of what lies beside it: the path to open, and the file to damage."""
    root = sample.path if sample.path.is_dir() else sample.path.parent
    shutil.copytree(root, folder)
    return folder / sample.path.relative_to(root), folder / sample.file.relative_to(root)


def attempt(action):
    """What an action returns, or the DataError that it raises; other errors come through."""
    try:
        return action()
    except DataError as error:
        return error


def read_all(path, format="auto"):
    """Open and read everything; the data set, and how many could be read."""
    dataset = open_dataset(path, format)
    found = [attempt(lambda i=i: dataset[i]) for i in range(len(dataset))]
    errors = [x for x in found if isinstance(x, DataError)]
    assert all(error.where for error in errors)
    return dataset, len(found) - len(errors)


def test_one_reader_alone_recognises_it(sample):
    readers = {name: CATALOG.entry(name) for name in CATALOG.names()}
    assert [n for n, e in readers.items() if e.build(e.settings()).recognises(sample.path)] == [sample.format]


def test_the_name_does_not_matter(sample, tmp_path):
    if sample.path.is_dir() or sample.path.suffix == ".csv":
        pytest.skip("a folder, or a table that names the files beside it")
    assert detect_format(shutil.copy(sample.path, tmp_path / "data.bin")) == sample.format


def test_it_opens_by_its_name_alone(sample):
    dataset = open_dataset(sample.path)
    assert len(dataset) == sample.structures
    assert all(len(s) > 0 and np.isfinite(s.positions).all() for s in dataset)
    assert len({s.origin for s in dataset}) == sample.structures


def test_threads_and_pickles_read_the_same(sample):
    dataset = open_dataset(sample.path)
    expected = [s.positions for s in dataset]
    twin = pickle.loads(pickle.dumps(dataset))
    with ThreadPoolExecutor(4) as pool:
        for found in (pool.map(dataset.__getitem__, range(len(dataset))), twin):
            for one, other in zip(expected, found, strict=True):
                np.testing.assert_array_equal(one, other.positions)


def _child(dataset, queue):
    queue.put([float(s.positions.sum()) for s in dataset])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_reads_the_same(sample):
    dataset = open_dataset(sample.path)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_child, args=(dataset, queue))
    process.start()
    assert queue.get(timeout=60) == [float(s.positions.sum()) for s in dataset]
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.97])
def test_a_file_that_is_cut_off(sample, tmp_path, part):
    path, file = copied(sample, tmp_path / "cut")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * part)])
    found = attempt(lambda: read_all(path, sample.format))
    if isinstance(found, DataError):
        where = Path(found.where.split(":")[0]).name
        assert where in (file.name, path.name)
    else:  # a trajectory of which some frames are left, or a text that only its last line betrays
        dataset, good = found
        assert good < sample.structures or any("newline" in note for note in dataset.notes)


@pytest.mark.parametrize("seed", range(FLIPS))
def test_bytes_that_are_flipped(sample, tmp_path, seed):
    path, file = copied(sample, tmp_path / "flipped")
    damaged, draw = bytearray(file.read_bytes()), random.Random(seed)
    for _ in range(draw.choice((1, 3, 30, 300))):
        damaged[draw.randrange(len(damaged))] = draw.choice((0, 255, draw.randrange(256)))
    file.write_bytes(damaged)
    for format in (sample.format, "auto"):
        found = attempt(lambda format=format: read_all(path, format))
        assert not isinstance(found, DataError) or (found.what and found.where)


def test_a_file_that_is_empty(sample, tmp_path):
    path, file = copied(sample, tmp_path / "empty")
    file.write_bytes(b"")
    with pytest.raises(DataError, match=r"empty|cut off|no LMDB|no cache|cannot|no lines"):
        read_all(path, sample.format)


def test_a_file_that_changes_while_it_is_read(sample, tmp_path):
    path, file = copied(sample, tmp_path / "changed")
    dataset = open_dataset(path)
    expected = [s.positions for s in dataset]
    file.with_name("other").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    file.with_name("other").replace(file)
    for index, positions in enumerate(expected):
        found = attempt(lambda index=index: dataset[index])
        if isinstance(found, DataError):
            assert "changed" in str(found) or "cut off" in str(found)
        else:  # held in memory or mapped
            np.testing.assert_array_equal(found.positions, positions)
