"""Predictions and labels of many batches as plain arrays, in the order of the data set."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor

from forgefield.core.errors import DataError
from forgefield.core.quantities import QUANTITIES
from forgefield.train.measured import Measured
from forgefield.train.values import predicted, present, rows_of, wanted

if TYPE_CHECKING:
    from forgefield.data.loader import Batch
    from forgefield.models.potential import Outputs
    from forgefield.train.team import Team


class Further(NamedTuple):
    """Predictions and labels of one more quantity, R rows of D components; absent labels are 0."""

    value: np.ndarray  # (R, D)
    label: np.ndarray  # (R, D)
    present: np.ndarray  # (R,), bool
    per: Literal["structure", "atom"]
    kind: Literal["number", "class"] = "number"


class Table(NamedTuple):
    """Predictions and labels of S structures with N atoms in all, in the order of the data set; absent labels are 0."""

    index: np.ndarray  # (S,), position in the data set
    n_atoms: np.ndarray  # (S,)
    energy: np.ndarray  # (S,), eV
    energy_label: np.ndarray  # (S,), eV
    has_energy: np.ndarray  # (S,), bool
    stress: np.ndarray  # (S, 3, 3), eV/Å^3
    stress_label: np.ndarray  # (S, 3, 3), eV/Å^3
    has_stress: np.ndarray  # (S,), bool
    forces: np.ndarray  # (N, 3), eV/Å
    forces_label: np.ndarray  # (N, 3), eV/Å
    has_forces: np.ndarray  # (N,), bool: labelled, and not left out
    numbers: np.ndarray  # (N,)
    further: MappingProxyType[str, Further] = MappingProxyType({})

    @property
    def first_atom(self) -> np.ndarray:
        """First atom of each structure, and the number of atoms at the end, (S + 1,)."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)])


_PLAIN = Table._fields[:-1]
_PER_ATOM = {"forces", "forces_label", "has_forces", "numbers"}


def table_of(batch: Batch, outputs: Outputs, measured: Measured) -> Table:
    """Return predictions and labels of one batch."""
    labels, graph = batch.labels, batch.graph
    forces = QUANTITIES["forces"]
    further = {
        q.name: Further(
            host(predicted(q, outputs, labels)), host(wanted(q, labels)), host(present(q, labels)), q.per, q.kind
        )
        for q in measured.further
    }  # fmt: skip
    return Table(
        index=host(batch.index),
        n_atoms=host(labels.n_atoms).astype(np.int64),
        energy=host(outputs.energy),
        energy_label=host(labels.energy),
        has_energy=host(labels.has_energy) & measured.energy,
        stress=host(outputs.stress),
        stress_label=host(labels.stress),
        has_stress=host(labels.has_stress) & measured.energy,
        forces=host(outputs.forces),
        forces_label=host(labels.forces),
        has_forces=host(rows_of(forces, labels, measured.choice_of(forces)).present) & measured.energy,
        numbers=host(graph.numbers.index_select(0, graph.inverse)),
        further=MappingProxyType(further),
    )


def host(tensor: Tensor) -> np.ndarray:
    """Copy to numpy; floating numbers become float64."""
    tensor = tensor.detach()
    return (tensor.double() if tensor.is_floating_point() else tensor).cpu().numpy()


def joined(parts: Sequence[Table]) -> Table:
    """Return one table in the order of the data set.

    Raises:
        DataError: there are no structures.
    """
    if not parts:
        raise DataError("there are no structures to evaluate", fix="give a larger data set or another split")
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PLAIN}
    further = {name: _further([part.further[name] for part in parts]) for name in parts[0].further}
    order = np.argsort(whole["index"], kind="stable")
    if (order == np.arange(len(order))).all():
        return Table(**whole, further=MappingProxyType(further))
    first = np.concatenate([[0], np.cumsum(whole["n_atoms"])]).tolist()
    atoms = np.concatenate([np.arange(first[k], first[k + 1]) for k in order.tolist()])
    pick = {name: value[atoms if name in _PER_ATOM else order] for name, value in whole.items()}
    moved: dict[str, Further] = {}
    for name, (value, label, there, per, kind) in further.items():
        rows = atoms if per == "atom" else order
        moved[name] = Further(value[rows], label[rows], there[rows], per, kind)
    return Table(**pick, further=MappingProxyType(moved))


def _further(parts: Sequence[Further]) -> Further:
    value, label, there = (np.concatenate([part[k] for part in parts]) for k in range(3))
    return Further(value, label, there, parts[0].per, parts[0].kind)


def gathered(parts: list[Table], heads: list[np.ndarray], team: Team) -> tuple[list[Table], list[np.ndarray]]:
    """Return the tables and heads of all processes, also of those that have predicted nothing."""
    own = b""
    if parts:
        order = np.argsort(np.concatenate([part.index for part in parts]), kind="stable")
        own = _packed(joined(parts), np.concatenate(heads)[order])
    found = [load_arrays(data) for data in team.gather(own) if data]
    return [_unpacked(arrays) for arrays in found], [arrays["head"] for arrays in found]


def _packed(table: Table, head: np.ndarray) -> bytes:
    arrays: dict[str, Any] = {name: getattr(table, name) for name in _PLAIN}
    for name, (value, label, there, per, kind) in table.further.items():
        place = f"{per}:{kind}:{name}"
        arrays |= {f"{place}:value": value, f"{place}:label": label, f"{place}:present": there}
    # Predictions may lie in another order in memory, which the packed form does not keep.
    return save_arrays({**{name: np.ascontiguousarray(value) for name, value in arrays.items()}, "head": head})


def _unpacked(arrays: dict[str, np.ndarray]) -> Table:
    further: dict[str, Further] = {}
    for key in arrays:
        if key.endswith(":value"):
            place = key.removesuffix(":value")
            per, kind, name = place.split(":")
            further[name] = Further(arrays[key], arrays[f"{place}:label"], arrays[f"{place}:present"], per, kind)  # type: ignore[arg-type]
    return Table(**{name: arrays[name] for name in _PLAIN}, further=MappingProxyType(further))
