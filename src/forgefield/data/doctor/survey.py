"""One pass over all structures: the numbers that the checks work on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.doctor.finding import Place
from forgefield.data.doctor.geometry import N_DESCRIPTOR, Bonds, add_bonds, survey_geometry

TRAJECTORY_KEYS = ("trajectory", "trajectory_id", "traj", "traj_id", "walker", "replica", "md_id", "sid")
FRAME_KEYS = ("frame", "frame_id", "step", "md_step", "ionic_step", "fid", "time")
_TAIL = re.compile(r"^(.*?)(\d+)\D*$", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Survey:
    """All structures of all parts, one row each (S rows).

    Args:
        parts: training, validation and test data by name.
        cutoff: of the model, Å.
        part: name of the part, (S,).
        index: place in the part, (S,).
        origin: where it was read.
        atoms: number of atoms, (S,).
        composition: counts by element, (S, n_elements); columns are `elements`.
        level: level of theory: head and fidelity as one text, (S,).
        group: config_type, (S,).
        energy: (S,), eV, NaN where there is none.
        stress: (S, 3, 3), eV/Å^3, NaN where there is none.
        volume: (S,), Å^3; 0 unless periodic along all vectors.
        periodic: along any vector, (S,).
        numbers: one column each for the values below, (S,).
        descriptor: (S, N_DESCRIPTOR).
        prints: digests of the labels by name, (S,), empty where there is none; "geometry" of atoms and cell.
        bonds: by part and level.
        trajectory: name and frame number of the trajectory, as far as known.
        hinted: whether the file names the trajectory, (S,).
        spin: charge and multiplicity where both are stated.
        unreadable: structures that raised an error, and it.
        memory: what one check computed and another needs.
    """

    parts: Mapping[str, Dataset]
    cutoff: float
    part: np.ndarray
    index: np.ndarray
    origin: list[str]
    atoms: np.ndarray
    composition: np.ndarray
    elements: list[int]
    level: np.ndarray
    group: np.ndarray
    energy: np.ndarray
    stress: np.ndarray
    volume: np.ndarray
    periodic: np.ndarray
    numbers: Mapping[str, np.ndarray]
    descriptor: np.ndarray
    prints: Mapping[str, np.ndarray]
    bonds: Mapping[tuple[str, str], Bonds]
    trajectory: list[tuple[str, int]]
    hinted: np.ndarray
    spin: list[tuple[float, float] | None]
    unreadable: list[tuple[Place, str]] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.atoms)

    def structure(self, row: int) -> Structure:
        """Return the structure of a row."""
        return self.parts[str(self.part[row])][int(self.index[row])]

    def places(self, rows: Iterable[int]) -> tuple[Place, ...]:
        """Return where these rows come from."""
        return tuple(Place(str(self.part[k]), int(self.index[k]), self.origin[k]) for k in map(int, rows))

    @cached_property
    def sources(self) -> list[tuple[str, str, np.ndarray]]:
        """Part, level and rows of everything that should obey one set of units."""
        names = np.char.add(np.char.add(self.part.astype(str), "\x1f"), self.level.astype(str))
        found = sorted(by_value(names), key=lambda rows: int(rows[0]))
        return [(str(self.part[rows[0]]), str(self.level[rows[0]]), rows) for rows in found]

    @cached_property
    def kind(self) -> np.ndarray:
        """Number of each structure's composition (with its number of atoms) at its level, (S,)."""
        table = np.concatenate([self.composition, _codes(self.level)[:, None]], axis=1)
        return np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)

    @cached_property
    def cloud(self) -> np.ndarray:
        """Descriptors turned so that few columns hold most of their differences, (S, at most 8)."""
        centred = self.descriptor - self.descriptor.mean(axis=0)
        _, axes = np.linalg.eigh(centred.T @ centred)
        return np.ascontiguousarray(centred @ axes[:, ::-1][:, :8])

    def title(self, part: str, level: str) -> str:
        """How a source is called in messages."""
        return f"{part} data" + (f" of {level}" if level else "")


def by_value(values: np.ndarray) -> Iterator[np.ndarray]:
    """Places of each value, ascending; one sort, however many values there are."""
    if len(values):
        order = np.argsort(values, kind="stable")
        yield from np.split(order, np.flatnonzero(values[order][1:] != values[order][:-1]) + 1)


def _codes(names: np.ndarray) -> np.ndarray:
    return np.unique(names.astype(str), return_inverse=True)[1].reshape(-1)


class _Rows:
    """Columns that grow by one structure at a time."""

    def __init__(self) -> None:
        self.columns: dict[str, list] = {}

    def add(self, **values: object) -> None:
        for name, value in values.items():
            self.columns.setdefault(name, []).append(value)

    def array(self, name: str, dtype: type[np.generic] = np.float64) -> np.ndarray:
        return np.asarray(self.columns.get(name, []), dtype=dtype)


def survey(parts: Mapping[str, Dataset], cutoff: float = 5.0, advance: Callable[[int], object] | None = None) -> Survey:
    """Look at every structure once.

    Args:
        parts: data sets by the name of the part: train, val, test.
        cutoff: of the model, Å.
        advance: told 1 after each structure, for a progress bar.

    Raises:
        DataError: not one structure can be read.
    """
    rows, bonds, unreadable = _Rows(), dict[tuple[str, str], Bonds](), []
    for part, dataset in parts.items():
        for index in range(len(dataset)):
            try:
                structure = dataset[index]
            except DataError as error:
                unreadable.append((Place(part, index, error.where or dataset.name), error.what))
                continue
            _add(rows, part, index, structure, bonds)
            if advance is not None:
                advance(1)
    if not rows.columns:
        raise DataError("no structure can be read", ", ".join(d.name for d in parts.values()), "check the files")
    return _assemble(parts, cutoff, rows, bonds, unreadable)


NUMBERS = (
    *("closest", "closest_own", "closest_length", "typical", "loneliest", "polarity"),
    *("force_rms", "force_max", "net_force", "net_torque", "nonzero_forces", "width", "n_fixed"),
)
PRINTED = ("energy", "forces", "stress")


def _add(rows: _Rows, part: str, index: int, s: Structure, bonds: dict[tuple[str, str], Bonds]) -> None:
    geometry = survey_geometry(s)
    level = " / ".join(str(x) for x in (s.head, getattr(s, "fidelity", None)) if x is not None)
    add_bonds(bonds.setdefault((part, level), {}), geometry.bonds)
    hint = next((str(s.info[k]) for k in TRAJECTORY_KEYS if k in s.info), "")
    rows.add(
        part=part,
        index=index,
        origin=s.origin,
        atoms=len(s),
        composition=np.bincount(s.numbers, minlength=119),
        level=level,
        group=s.config_type,
        energy=float(s.labels.get("energy", np.nan)),
        stress=s.labels.get("stress", np.full((3, 3), np.nan)),
        volume=s.volume if s.pbc.all() else 0.0,
        periodic=bool(s.pbc.any()),
        descriptor=geometry.descriptor,
        trajectory=_frame(s, hint),
        hinted=bool(hint),
        spin=_spin(s),
        **{name: getattr(geometry, name) for name in NUMBERS[:6]},
        **_force_numbers(s),
        **{f"print_{name}": _print(s, name) for name in PRINTED},
        print_geometry=_digest(s.numbers, s.positions, s.cell, s.pbc),
        n_fixed=0 if s.fixed is None else int(np.sum(s.fixed)),
        width=_width(s),
    )


def _assemble(
    parts: Mapping[str, Dataset],
    cutoff: float,
    rows: _Rows,
    bonds: Mapping[tuple[str, str], Bonds],
    unreadable: list[tuple[Place, str]],
) -> Survey:
    counts = rows.array("composition", np.int64)
    elements = np.flatnonzero(counts.any(axis=0))
    return Survey(
        parts=parts,
        cutoff=cutoff,
        part=rows.array("part", np.str_),
        index=rows.array("index", np.int64),
        origin=rows.columns["origin"],
        atoms=rows.array("atoms", np.int64),
        composition=counts[:, elements],
        elements=elements.tolist(),
        level=rows.array("level", np.str_),
        group=rows.array("group", np.str_),
        energy=rows.array("energy"),
        stress=rows.array("stress").reshape(-1, 3, 3),
        volume=rows.array("volume"),
        periodic=rows.array("periodic", np.bool_),
        numbers={name: rows.array(name) for name in NUMBERS},
        descriptor=rows.array("descriptor").reshape(-1, N_DESCRIPTOR),
        prints={name: rows.array(f"print_{name}", np.str_) for name in (*PRINTED, "geometry")},
        bonds=bonds,
        trajectory=rows.columns["trajectory"],
        hinted=rows.array("hinted", np.bool_),
        spin=rows.columns["spin"],
        unreadable=unreadable,
    )


def _force_numbers(s: Structure) -> dict[str, float]:
    forces = s.labels.get("forces")
    if forces is None:
        return dict.fromkeys(("force_rms", "force_max", "net_force", "net_torque", "nonzero_forces"), np.nan)
    arms = s.positions - s.positions.mean(axis=0)
    torque = np.cross(arms, forces - forces.mean(axis=0)).sum(axis=0)
    lever = np.sqrt((arms**2).sum())
    return {
        "force_rms": float(np.sqrt((forces**2).mean())),
        "force_max": float(np.sqrt((forces**2).sum(axis=1)).max()),
        "net_force": float(np.linalg.norm(forces.sum(axis=0))) / np.sqrt(len(s)),
        "net_torque": float(np.linalg.norm(torque)) / max(lever, 1e-9),
        "nonzero_forces": float(np.count_nonzero(forces)),
    }


def _width(s: Structure) -> float:
    """Largest spread of the atoms over the length of a periodic lattice vector."""
    if not s.pbc.any() or abs(np.linalg.det(s.cell)) < 1e-9:
        return 0.0
    steps = np.linalg.solve(s.cell.T, s.positions.T)
    return float(np.ptp(steps, axis=1)[s.pbc].max())


def _print(s: Structure, name: str) -> str:
    value = s.labels.get(name)
    return "" if value is None else _digest(value)


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(array + 0.0).tobytes())
    return digest.hexdigest()


def _frame(s: Structure, hint: str) -> tuple[str, int]:
    """Trajectory and frame number: from the file's own keys, else file name and place in it."""
    tail = _TAIL.match(s.origin)
    file, place = (tail.group(1), int(tail.group(2))) if tail else (s.origin, 0)
    if not hint:
        return file, place
    number = next((s.info[k] for k in FRAME_KEYS if k in s.info), place)
    return f"{s.config_type} {hint}", int(number) if isinstance(number, (int, float)) else place


def _spin(s: Structure) -> tuple[float, float] | None:
    """Charge and multiplicity where both are stated."""
    charge, multiplicity = getattr(s, "charge", None), getattr(s, "multiplicity", None)
    if charge is None or multiplicity is None:
        return None
    return float(charge), float(multiplicity)
