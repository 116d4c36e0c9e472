import builtins
import collections
import io
import os
import pickle
import struct
import sys
import types

import numpy as np
import pytest
import torch

from forgefield.core.errors import DataError
from forgefield.data.restricted_pickle import load_integer, load_record


@pytest.fixture
def geometric(monkeypatch):
    """Stand-ins with the names of torch_geometric's classes, so that pickles look like real ones."""
    data, storage = types.ModuleType("torch_geometric.data.data"), types.ModuleType("torch_geometric.data.storage")

    def make(module, name):
        cls = type(name, (), {"__module__": module.__name__})
        setattr(module, name, cls)
        return cls

    classes = make(data, "Data"), make(data, "DataEdgeAttr"), make(storage, "GlobalStorage")
    for module in (types.ModuleType("torch_geometric"), types.ModuleType("torch_geometric.data"), data, storage):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def wrap(fields, old=False):
        record, edge, store = classes[0](), classes[1], classes[2]()
        if old:
            record.__dict__.update(fields)
            return record
        store.__dict__.update(_mapping=fields, _parent=record)
        record.__dict__.update(_edge_attr_cls=edge, _store=store)
        return record

    return wrap


FIELDS = {
    "pos": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "transposed": torch.arange(6.0, dtype=torch.float64).reshape(2, 3).T,
    "slice": torch.arange(10)[3:7:2],
    "half": torch.tensor([0.5], dtype=torch.float16),
    "bools": torch.tensor([True, False]),
    "y": torch.tensor(-1.5, dtype=torch.float64),
    "empty": torch.zeros(0, 3),
    "array": np.arange(6, dtype=">i4").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "scalar": np.float32(2.5),
    "count": 27,
    "real": 2.25,
    "text": "slab",
    "nothing": None,
    "flag": True,
    "flat": [1, 6, 8],
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("old", [False, True], ids=["store", "plain"])
def test_known_values_come_back_as_arrays(geometric, protocol, old):
    found = load_record(pickle.dumps(geometric(FIELDS, old), protocol=protocol), "x")
    assert set(FIELDS) <= set(found)
    for name, value in FIELDS.items():
        if value is None or isinstance(value, (str, bool)):
            assert found[name] == value
        else:
            expected = np.asarray(value)
            assert np.asarray(found[name]).shape == expected.shape, name
            np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_a_plain_dict_is_a_record_and_other_things_are_not():
    assert load_record(pickle.dumps({"a": 1}), "x") == {"a": 1}
    with pytest.raises(DataError, match="no torch_geometric Data"):
        load_record(pickle.dumps([1, 2]), "x")


def test_fields_of_other_kinds_are_left_out():
    assert load_record(pickle.dumps({"a": 1, "b": {"c": 2}, "d": [[1], [2]]}), "x") == {"a": 1}


class Call:
    """Pickles as the call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def ran(monkeypatch):
    """Whether anything was run."""
    seen = []
    monkeypatch.setattr(os, "system", lambda *a: seen.append(a))
    for name in ("eval", "exec"):
        monkeypatch.setattr(builtins, name, lambda *a, **k: seen.append(a), raising=True)
    return seen


def named(module, name, *arguments):
    """A pickle that calls module.name(*arguments), written by hand."""
    body = pickle.dumps(arguments, protocol=2)[2:-1]
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + body + b"R."


HOSTILE = {
    "os.system": named("os", "system", "touch /nowhere"),
    "posix.system": named("posix", "system", "true"),
    "builtins.eval": named("builtins", "eval", "1+1"),
    "builtins.exec": named("builtins", "exec", "x=1"),
    "builtins.getattr": named("builtins", "getattr", "a", "b"),
    "__builtin__.eval": named("__builtin__", "eval", "1"),
    "subprocess": named("subprocess", "Popen", ["true"]),
    "torch.load": named("torch", "load", "x"),
    "torch.hub": named("torch.hub", "load", "x"),
    "real storage loader by another name": named("torch", "storage._load_from_bytes", b"x"),
    "dotted name": b"\x80\x04\x8c\x19torch_geometric.data.data\x8c\x0eData.__class__\x93.",
    "unknown class": named("torch_geometric.data.data", "HeteroData"),
    "numpy function": named("numpy", "save", "x", 1),
    "numpy object array": named("numpy", "dtype", "O8"),
    "numpy string type": named("numpy", "dtype", "S1000000000"),
    "text decoder": named("_codecs", "encode", "a", "rot13"),
    "function state": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",
    "inst opcode": b"(S'true'\nios\nsystem\n.",
    "obj opcode": b"(cos\nsystem\nS'true'\no.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent id": b"\x80\x02X\x01\x00\x00\x00xQ.",
    "next buffer": b"\x80\x05\x97.",
    "set": b"\x80\x04\x8f.",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "storage that is no bytes": named("torch.storage", "_load_from_bytes", "text"),
    "storage pickle that calls": named("torch.storage", "_load_from_bytes", named("os", "system", "true")),
    "class state": b"\x80\x02ctorch_geometric.data.data\nData\n}X\x01\x00\x00\x00aK\x01sb.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_run_nothing(ran, data):
    with pytest.raises(DataError) as caught:
        load_record(data, "shard.lmdb: record 3")
    assert "shard.lmdb: record 3" in str(caught.value)
    assert ran == []


def test_hostile_calls_hidden_in_a_record_run_nothing(tmp_path, geometric):
    marker = str(tmp_path / "ran")
    for call in (Call(os.mkdir, marker), Call(eval, f"open({marker!r}, 'w')"), Call(io.open, marker, "w")):
        data = pickle.dumps(geometric({"pos": torch.zeros(1, 3), "y": call}))
        with pytest.raises(DataError, match="refused: it names"):
            load_record(data, "x")
    assert not os.path.exists(marker)


def test_a_nested_pickle_inside_a_storage_runs_nothing(ran):
    for reduce in (b"cos\nsystem\n(X\x04\x00\x00\x00truetR.", b"\x80\x02cos\nsystem\n."):
        with pytest.raises(DataError, match="refused"):
            load_record(named("torch.storage", "_load_from_bytes", reduce), "x")
    assert ran == []


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc.",  # bytes
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.",  # text
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.",  # bytearray
        b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"}.",  # frame
        b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",  # memo index
    ],
    ids=["bytes", "text", "bytearray", "frame", "memo"],
)
def test_claims_of_size_allocate_nothing(data):
    with pytest.raises(DataError):
        load_record(data, "x")


def tensor(storage, offset, size, stride):
    """A pickled tensor over `storage` with any layout."""
    call = Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, collections.OrderedDict())
    return pickle.dumps({"a": call})


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (10**9, 10**9), (0, 0)),
        (0, (7,), (1,)),
        (0, (3,), (4,)),
        (5, (2,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (-1,), (1,)),
        (0, ("a",), (1,)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(offset, size, stride):
    with pytest.raises(DataError):
        load_record(tensor(_pickled_storage(), offset, size, stride), "x")


def _pickled_storage():
    """What torch writes in place of a storage of six floats."""
    function, arguments = torch.zeros(6).__reduce_ex__(2)[1][0].__reduce__()
    return Call(function, *arguments)


def test_a_tensor_over_an_array_that_is_no_storage_is_refused():
    """A view of (1000, 0) numbers has a length but no memory behind it."""
    hollow = np.zeros((1000, 0), dtype=np.float32)
    with pytest.raises(DataError, match="without storage"):
        load_record(tensor(hollow, 0, (500,), (1,)), "x")


def test_one_storage_used_very_often_is_refused():
    raw = _pickled_storage().call[1][0]
    load = b"ctorch.storage\n_load_from_bytes\nh\x00\x85R"
    data = b"\x80\x02](B" + struct.pack("<I", len(raw)) + raw + b"q\x00" + load * 1000 + b"e."
    with pytest.raises(DataError, match="many times"):
        load_record(data, "x")


def test_too_many_steps_are_refused():
    deep = b"\x80\x02" + b"(" * 30_000 + b"t" * 30_000 + b"."
    with pytest.raises(DataError, match="steps"):
        load_record(deep, "x")


def test_too_large_a_record_is_refused():
    with pytest.raises(DataError, match="more than 100"):
        load_record(pickle.dumps({"a": "x" * 200}), "x", max_bytes=100)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_damaged_record(cut):
    data = pickle.dumps({"pos": np.zeros((2, 3)), "y": torch.ones(3)})
    with pytest.raises(DataError):
        load_record(data[: -cut * 5], "x")


@pytest.mark.filterwarnings("error")
def test_a_name_with_a_backslash_is_refused_without_a_warning():
    with pytest.raises(DataError, match="unknown pickle refused"):
        load_record(b"c\\q\nname\n.", "x")


def test_random_bytes_never_do_anything_else_than_fail(ran):
    random = np.random.default_rng(0)
    whole = bytearray(pickle.dumps({"pos": torch.zeros(2, 3), "n": np.arange(3)}))
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            damaged[place] = random.integers(0, 256)
        try:
            load_record(bytes(damaged), "x")
        except DataError:
            continue
    assert ran == []


def test_the_length():
    assert load_integer(pickle.dumps(499), "x") == 499
    assert load_integer(pickle.dumps(np.int64(499)), "x") == 499
    for wrong in ("499", 1.5, True, None, [1]):
        with pytest.raises(DataError):
            load_integer(pickle.dumps(wrong), "x")
