"""Pickled DGL graphs of ALIGNN's cache -> the plain arrays of their atoms. Nothing of DGL is imported or run."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.restricted_pickle import Machine, load_with
from forgefield.data.stand_ins import Array, Record, Stand

KEPT = frozenset({("dgl.heterograph", "DGLGraph"), ("dgl.frame", "Frame"), ("dgl.frame", "Column")})
NAMES = frozenset({("dgl.heterograph_index", "HeteroGraphIndex"), ("dgl.frame", "Scheme")})


class Opaque:
    """Stand-in for what is not needed: takes anything, keeps nothing."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None: ...


class GraphRecord(NamedTuple):
    """One entry of the cache."""

    atoms: dict[str, np.ndarray]  # name -> (N, ...)
    lattice: np.ndarray  # (3, 3), Å
    label: np.ndarray


class _GraphMachine(Machine):
    """Knows the names in pickles of DGL graphs; topology is dropped, arrays of the nodes are kept."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        nothing = Stand(lambda *_: Opaque())
        self.known["dgl._ffi.object", "_new_object"] = nothing
        self.known["dgl.heterograph_index", "HeteroPickleStates"] = nothing
        self.known["builtins", "bytearray"] = nothing
        self.known["builtins", "getattr"] = Stand(lambda *_: nothing)

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a known name; nothing is imported."""
        if (module, name) in KEPT:
            return Record
        if (module, name) in NAMES:
            return name
        return super().find_class(module, name)


def load_graph(data: bytes, where: str, max_bytes: int) -> GraphRecord:
    """Decode an entry (graph, [line graph,] lattice, label).

    Raises:
        DataError: it is damaged, too large, names anything unknown, or is no such entry.
    """
    value = load_with(_GraphMachine, data, where, max_bytes)
    if not isinstance(value, tuple) or len(value) not in (3, 4) or not isinstance(value[0], Record):
        raise DataError("is no graph of ALIGNN", where, "is this ALIGNN's graph cache?")
    lattice, label = _array(value[-2]), _array(value[-1])
    if lattice is None or lattice.shape != (3, 3) or label is None:
        raise DataError("has no lattice or no label", where, "the cache is of an older ALIGNN: use id_prop.json")
    return GraphRecord(_columns(value[0], where), lattice, label)


def _columns(graph: Record, where: str) -> dict[str, np.ndarray]:
    """Arrays of the graph's nodes."""
    frames = graph.state.get("_node_frames")
    frame = frames[0] if isinstance(frames, list) and len(frames) == 1 else None
    columns = frame.state.get("_columns") if isinstance(frame, Record) else None
    if not isinstance(columns, dict):
        raise DataError("has a graph of unknown layout", where, "use the id_prop.json it was made from")
    found: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        array = _array(column.state.get("storage")) if isinstance(column, Record) else None
        if isinstance(name, str) and array is not None and column.state.get("index") is None:
            found[name] = array
    return found


def _array(value: Any) -> np.ndarray | None:
    return value.value if isinstance(value, Array) else None
