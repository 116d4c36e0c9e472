"""Pickles that want to run, allocate, recurse or confuse, in every format that bears some: one message and no more."""

import gzip
import pickle
import struct
import sys
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from fuzz_drive import peak, reset_peak

from forgefield.core.errors import DataError
from forgefield.data.dataset import open_dataset
from forgefield.data.pickle_scan import MAX_NESTED, Limits, scan
from forgefield.data.restricted_pickle import OPCODES
from forgefield.data.stand_ins import Refused

WATCHED = (
    "os.",
    "subprocess.",
    "socket.",
    "shutil.",
    "ctypes.",
    "exec",
    "compile",
    "marshal.",
    "urllib.",
    "pty.",
    "code.",
)
HARMLESS = ("os.listdir", "os.scandir")
MARKER = "forgefield_hostile_marker"


def in_lmdb(path, data):
    _put(path, b"0", data)


def _put(path, key, data):
    with (
        lmdb.open(str(path), subdir=False, map_size=2**28, lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(key, data)


def in_table(path, data):
    path.write_bytes(gzip.compress(data, 1))


def in_xequinet(path, data):
    _put(path, (0).to_bytes(8, "little"), data)


def in_cache(path, data):
    path.mkdir()
    _put(path / "data.mdb", b"0", data)


PLACES = {"fairchem_lmdb": in_lmdb, "pacemaker": in_table, "xequinet": in_xequinet, "alignn_cache": in_cache}
"""Formats that bear pickles, and how one is put in; a new one adds its line."""


def call(module, name, *arguments):
    """Protocol 4: module.name(*arguments), the way a class is usually named."""
    body = pickle.dumps(arguments, protocol=4)
    at = body.index(b"\x95") + 9 if b"\x95" in body[:4] else 2
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + body[at:-1] + b"R."


def text(word):
    return b"\x8c" + bytes([len(word)]) + word.encode()


def inside_table(value):
    """A DataFrame's state whose manager is made from `value`."""
    return b"\x80\x04" + text("pandas") + text("DataFrame") + b"\x93)\x81}" + text("_mgr") + value + b"sb."


def array_of(value):
    """An object array with the one element `value`."""
    numpy = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    kind = b"cnumpy\ndtype\n(" + text("O8") + b"\x89\x88tR"
    return numpy + b"(K\x01K\x01\x85" + kind + b"\x89](" + value + b"etb"


def tuples(depth):
    return b"\x80\x04)" + b"\x85" * depth


RUNS = {
    "os.system": call("os", "system", f"touch {MARKER}"),
    "posix.system": call("posix", "system", f"touch {MARKER}"),
    "nt.system": call("nt", "system", "x"),
    "subprocess.Popen": call("subprocess", "Popen", ["touch", MARKER]),
    "builtins.eval": call("builtins", "eval", f"open('{MARKER}', 'w').close()"),
    "builtins.exec": call("builtins", "exec", f"open('{MARKER}', 'w').close()"),
    "builtins.__import__": call("builtins", "__import__", "antigravity"),
    "builtins.open": call("builtins", "open", MARKER, "w"),
    "io.open": call("io", "open", MARKER, "w"),
    "shutil.rmtree": call("shutil", "rmtree", "/nowhere"),
    "socket": call("socket", "create_connection", ("127.0.0.1", 9)),
    "pty.spawn": call("pty", "spawn", "true"),
    "code.interact": call("code", "InteractiveInterpreter"),
    "ctypes": call("ctypes", "CDLL", None),
    "importlib": call("importlib", "import_module", "this"),
    "pickle in a pickle": call("pickle", "loads", call("os", "system", "true")),
    "torch.load": call("torch", "load", "x"),
    "torch storage with a pickle": call("torch.storage", "_load_from_bytes", call("os", "system", "true")),
    "numpy.load": call("numpy", "load", "x"),
    "numpy.fromfile": call("numpy", "fromfile", "/etc/passwd"),
    "numpy.memmap": call("numpy", "memmap", MARKER, "u1", "w+", 0, (10,)),
    "pandas.read_pickle": call("pandas.io.pickle", "read_pickle", "x"),
    "pandas.eval": call("pandas", "eval", "1"),
    "ase.io.read": call("ase.io", "read", "x"),
    "ase database": call("ase.db", "connect", MARKER),
    "functools.partial": call("functools", "partial", print),
    "operator.attrgetter": call("operator", "attrgetter", "system"),
    "getattr of os": b"\x80\x04" + text("builtins") + text("getattr") + b"\x93cos\nsystem\n" + text("x") + b"\x86R.",
    "dotted name": b"\x80\x04" + text("pandas") + text("DataFrame.query") + b"\x93.",
    "dunder of a stand-in": b"\x80\x04" + text("ase.atoms") + text("Atoms.__init__.__globals__") + b"\x93.",
    "global of protocol 0": b"cos\nsystem\n(S'true'\ntR.",
    "inst": b"(S'true'\nios\nsystem\n.",
    "obj": b"\x80\x02(cos\nsystem\nU\x04trueo.",
    "extension": b"\x80\x02\x82\x01.",
    "extension 4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "persistent id": b"\x80\x02X\x01\x00\x00\x00xQ.",
    "next buffer": b"\x80\x05\x97.",
    "hidden in a table": inside_table(b"cos\nsystem\n(" + text(f"touch {MARKER}") + b"tR"),
    "hidden in a block": inside_table(array_of(b"cos\nsystem\n(" + text(f"touch {MARKER}") + b"tR")),
}
SIZES = {
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"abc.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"}.",
    "memo": b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "array of billions": call("numpy._core.numeric", "_frombuffer", b"abcd", None, (10**10,), "C"),
    "zeros": call("numpy", "zeros", 10**11),
    "dtype": call("numpy", "dtype", "S2000000000"),
    "rows": inside_table(b"cpandas.core.indexes.base\n_new_Index\n(NNtR"),
    "list times number": call("operator", "mul", [0], 10**11),
    "bytearray of a number": call("builtins", "bytearray", 10**11),
    "range": call("builtins", "list", 10),
    "slice of everything": call("builtins", "slice", 0, 10**18, 1),
}
DEEP = {
    "tuples": tuples(10_000) + b".",
    "tuples as a key": b"\x80\x04}" + tuples(5_000)[2:] + b"K\x00s.",
    "lists": b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "dicts": b"\x80\x04" + b"}K\x00" * 50_000 + b"}" + b"s" * 50_000 + b".",
    "marks": b"\x80\x02" + b"(" * 300_000 + b"t" * 300_000 + b".",
    "itself": b"\x80\x02]q\x00h\x00a.",
    "doubled": b"\x80\x02]" + b"".join(b"q%c](h%ch%ce" % (k, k, k) for k in range(60)) + b".",
    "forces that are nested": inside_table(array_of(b"]" * 500 + b"a" * 499)),
}
MEMO = {
    "missing": b"\x80\x02h\x05.",
    "overwritten": b"\x80\x02}q\x00]q\x00h\x00.",
    "memo of a mark": b"\x80\x02(q\x00.",
    "stand-in rebuilt": b"\x80\x04" + text("ase.atoms") + text("Atoms") + b"\x93\x94}" + text("arrays") + b"}sb.",
    "class as instance": b"\x80\x04" + text("pandas") + text("DataFrame") + b"\x93}b.",
    "called twice": b"\x80\x04" + text("pandas") + text("DataFrame") + b"\x93\x94)Rh\x00)Rb.",
    "index into a number": b"\x80\x04K\x01K\x02K\x03s.",
    "append to a number": b"\x80\x04K\x01K\x02a.",
    "empty": b"",
    "stop alone": b".",
    "no stop": b"\x80\x04}",
    "unknown protocol": b"\x80\xff}.",
    "wrong state": b"\x80\x04" + text("numpy") + text("ndarray") + b"\x93}b.",
    "array with a state of another": b"\x80\x04" + array_of(b"N") + b"(K\x01K\x02K\x03tb.",
    "object array shorter than it says": b"\x80\x04" + array_of(b"").replace(b"](e", b"]") + b".",
    "a set of classes": b"\x80\x04\x8f(NN\x90.",
    "unknown class": b"\x80\x04" + text("mypackage") + text("Thing") + b"\x93)\x81.",
    "unknown class of ase": b"\x80\x04" + text("ase.atom") + text("Atom") + b"\x93)\x81.",
    "unknown class of pandas": b"\x80\x04" + text("pandas") + text("Categorical") + b"\x93)\x81.",
    "environment of pyace": b"\x80\x04"
    + text("pyace.catomicenvironment")
    + text("ACEAtomicEnvironment")
    + b"\x93)\x81.",
}
CORPUS = {**RUNS, **SIZES, **DEEP, **MEMO}
seen: list[str] | None = None


def listen(event, arguments):
    if seen is not None and event.startswith(WATCHED) and event not in HARMLESS:
        seen.append(event)
    if seen is not None and event == "import":
        seen.append(f"import {arguments[0]}")
    if seen is not None and event == "open" and MARKER in str(arguments[0]):
        seen.append(event)


sys.addaudithook(listen)


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """What Python's audit hook heard that must not happen."""
    monkeypatch.chdir(tmp_path)
    for name, place in PLACES.items():  # all that is imported on first use is there before anyone listens
        place(tmp_path / name, pickle.dumps([1]))
        with pytest.raises(DataError):
            list(open_dataset(tmp_path / name, name))
    events: list[str] = []
    yield events
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("format", PLACES)
@pytest.mark.parametrize("name", CORPUS)
def test_nothing_runs(format, name, tmp_path, ran):
    global seen
    path = tmp_path / "hostile.data"
    PLACES[format](path, CORPUS[name])
    start = time.process_time()
    reset_peak()
    before = peak()
    seen = ran
    try:
        with pytest.raises(DataError) as caught:
            list(open_dataset(path, format))
    finally:
        seen = None
    message = str(caught.value)
    assert ran == []
    assert "hostile.data" in message
    assert len(message) < 600
    assert time.process_time() - start < 5
    assert peak() - before < 200


def test_the_hook_hears(tmp_path, monkeypatch):
    """The test of the test: plain unpickling of such a file is heard."""
    global seen
    monkeypatch.chdir(tmp_path)
    heard: list[str] = []
    seen = heard
    try:
        pickle.loads(RUNS["builtins.eval"])
    finally:
        seen = None
    assert "exec" in heard
    assert "open" in heard


def test_a_gzip_bomb_is_stopped_early(tmp_path):
    path = tmp_path / "bomb.pckl.gzip"
    real = pickle.dumps("pandas DataFrame")
    packer = gzip.GzipFile(path, "wb", 9)
    packer.write(real[:-1])
    for _ in range(600):
        packer.write(bytes(2**20))
    packer.close()
    assert path.stat().st_size < 2**20
    reset_peak()
    before = peak()
    with pytest.raises(DataError, match=r"grows from .* when decompressed"):
        open_dataset(path)
    assert peak() - before < 250


def table_of_shared_column(rows, columns):
    """A DataFrame whose columns are all the same array of objects."""
    names = b"".join(text(f"c{k}") for k in range(columns))
    long = array_of(b"N" * rows).replace(b"K\x01\x85", b"J" + struct.pack("<i", rows) + b"\x85", 1)
    block = b"".join(
        b"cpandas._libs.internals\n_unpickle_block\n(h\x00cbuiltins\nslice\nM%bM%bK\x01\x87RK\x02tR"
        % (struct.pack("<H", k), struct.pack("<H", k + 1))
        for k in range(columns)
    )
    index = array_of(names).replace(b"K\x01\x85", b"M" + struct.pack("<H", columns) + b"\x85", 1)
    axes = b"](cpandas.core.indexes.base\n_new_Index\ncpandas\nIndex\n}" + text("data") + index + b"s\x86R"
    axes += b"cpandas.core.indexes.base\n_new_Index\ncpandas\nRangeIndex\n}(" + text("start") + b"K\x00" + text("stop")
    axes += b"J" + struct.pack("<i", rows) + text("step") + b"K\x01u\x86Re"
    manager = b"cpandas.core.internals.managers\nBlockManager\n](" + block + b"e" + axes + b"\x86R"
    manager = manager.replace(b"h\x00", long + b"q\x00", 1)
    return b"\x80\x04" + text("pandas") + text("DataFrame") + b"\x93)\x81}" + text("_mgr") + manager + b"sb."


def test_one_array_in_many_columns_is_refused(tmp_path):
    """Blocks that share one long column would make a small file a table of millions of cells."""
    in_table(tmp_path / "one", table_of_shared_column(5, 1))
    with pytest.raises(DataError, match=r"has no column 'ase_atoms'\. Fix: its columns: c0"):
        open_dataset(tmp_path / "one", "pacemaker")
    in_table(tmp_path / "many", table_of_shared_column(2_000, 900))
    with pytest.raises(DataError, match="a DataFrame of unknown layout"):
        open_dataset(tmp_path / "many", "pacemaker")
    in_table(tmp_path / "wide", table_of_shared_column(5, 1001))
    with pytest.raises(DataError, match="a table of 1001 columns"):
        open_dataset(tmp_path / "wide", "pacemaker")


def test_nesting_is_counted_through_the_memo():
    step = b"\x85q\x00h\x00\x85"
    with pytest.raises(Refused, match="nested too deep"):
        scan(b"\x80\x02)" + step * MAX_NESTED + b".", Limits(OPCODES, 10_000))
    assert scan(b"\x80\x02)" + b"\x85" * 50 + b".trailing", Limits(OPCODES, 10_000)) == 54


def test_real_pickles_pass_the_scan():
    for protocol in (2, 3, 4, 5):
        data = pickle.dumps(
            {"a": [1, 2.5, None, True, "x" * 300, b"y" * 300, (1, 2, 3, 4)], "n": np.arange(9)}, protocol
        )
        assert scan(data, Limits(OPCODES, 10_000)) == len(data)
