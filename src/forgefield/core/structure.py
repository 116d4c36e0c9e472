"""A set of atoms with what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from forgefield.core.elements import MAX_NUMBER
from forgefield.core.errors import DataError
from forgefield.core.plausible import check_extent, check_size, check_symmetric, whole_numbers
from forgefield.core.quantities import QUANTITIES, Quantity


@dataclass(frozen=True, eq=False)
class Structure:
    """Atoms, cell and labels in internal units (eV, Å). Checked when made.

    Args:
        numbers: atomic numbers, (N,).
        positions: (N, 3), Å.
        cell: rows are lattice vectors, (3, 3), Å; zeros for a molecule.
        pbc: periodic along each lattice vector, (3,).
        labels: reference values by quantity name; a missing name means "not labelled".
        config_type: free group name, used in reports.
        head: name of the model head the labels belong to; None = the only or first one.
        weight: weight of this structure in the loss.
        fixed: atoms held fixed by a constraint, (N,), or None.
        tags: integer tags (0 sub-surface, 1 surface, 2 adsorbate), (N,), or None.
        origin: where it was read, for messages.
        info: further scalars and texts.
        declared: what labels that are none of `QUANTITIES` are, by name.
        force_mask: atoms whose force label counts, (N,), or None = all.
        charge: total charge, e; None = not stated.
        multiplicity: spin multiplicity, 2S + 1; None = not stated.
        fidelity: name of the level of theory of the labels.
        base: labels of a cheaper level that a model is to correct, by quantity name as in `labels`.
        features: further inputs by name, (k,) for the structure or (N, k) for its atoms.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: np.ndarray = field(default_factory=lambda: np.zeros(3, dtype=bool))
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    config_type: str = "default"
    head: str | None = None
    weight: float = 1.0
    fixed: np.ndarray | None = None
    tags: np.ndarray | None = None
    origin: str = "structure"
    info: Mapping[str, object] = field(default_factory=dict)
    declared: Mapping[str, Quantity] = field(default_factory=dict)
    force_mask: np.ndarray | None = None
    charge: float | None = None
    multiplicity: int | None = None
    fidelity: str | None = None
    base: Mapping[str, np.ndarray] = field(default_factory=dict)
    features: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        put("numbers", whole_numbers(self.numbers, self.origin))
        put("positions", np.ascontiguousarray(self.positions, dtype=np.float64).reshape(-1, 3))
        put("cell", np.ascontiguousarray(self.cell, dtype=np.float64).reshape(3, 3))
        put("pbc", np.ascontiguousarray(np.broadcast_to(self.pbc, 3), dtype=bool))
        put("charge", None if self.charge is None else float(self.charge))
        for name in ("labels", "base", "features"):
            put(name, {k: np.asarray(v, dtype=np.float64) for k, v in getattr(self, name).items()})
        self.check()

    @classmethod
    def trusted(cls, fields: Mapping[str, Any]) -> Structure:
        """Make a structure of fields that were checked before, without checking them again.

        For data whose checksum shows that they are what was once a structure.

        Args:
            fields: numbers (int64), positions, cell, pbc, and whatever is not as usual, in their final types.
        """
        made = object.__new__(cls)
        made.__dict__.update(labels={}, info={}, declared={}, base={}, features={})
        made.__dict__.update(fields)
        return made

    def check(self) -> None:
        """Check everything anew, for a structure whose arrays may have been changed.

        Raises:
            DataError: says what is wrong.
        """
        self._check_atoms()
        self._check_electrons()
        self._check_labels(self.labels, "")
        self._check_labels(self.base, "base label ")
        self._check_features()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def level(self) -> str | None:
        """Head of a model that its labels train: the one it names, else the one named like its fidelity."""
        return self.head if self.head is not None else self.fidelity

    @cached_property
    def volume(self) -> float:
        """Volume of the cell, Å^3; 0 for a molecule without one."""
        return float(abs(np.linalg.det(self.cell)))

    def _check_atoms(self) -> None:
        n = len(self.numbers)
        if n == 0:
            raise DataError("holds no atoms", self.origin, "remove this frame")
        if len(self.positions) != n:
            raise DataError(f"{n} atomic numbers but {len(self.positions)} positions", self.origin, "repair the frame")
        if self.numbers.min() < 1 or self.numbers.max() > MAX_NUMBER:
            raise DataError("atomic numbers must lie in 1..118", self.origin, "repair the element column")
        for name in ("positions", "cell"):
            if not np.isfinite(getattr(self, name)).all():
                raise DataError(f"{name} hold NaN or infinity", self.origin, "remove or repair this frame")
        check_extent(self.positions, self.cell, self.pbc, self.origin)
        for name in ("fixed", "tags", "force_mask"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != (n,):
                raise DataError(f"{name} has shape {np.shape(value)}, expected ({n},)", self.origin)
        if not np.isfinite(self.weight) or self.weight < 0:
            raise DataError(f"weight {self.weight} must be finite and not negative", self.origin)

    def _check_electrons(self) -> None:
        if self.charge is not None and not np.isfinite(self.charge):
            raise DataError(f"total charge {self.charge} is not finite", self.origin, "repair it")
        if self.multiplicity is not None and self.multiplicity < 1:
            what = f"spin multiplicity {self.multiplicity} is below 1"
            raise DataError(what, self.origin, "give 2S + 1; for unpaired electrons set data.spin to unpaired")

    def _check_features(self) -> None:
        for name, value in self.features.items():
            if value.ndim not in (1, 2) or (value.ndim == 2 and len(value) != len(self)):
                what = f"feature {name} has shape {value.shape}, expected (k,) or ({len(self)}, k)"
                raise DataError(what, self.origin, "give one row per atom, or one per structure")
            if not np.isfinite(value).all():
                raise DataError(f"feature {name} holds NaN or infinity", self.origin, "remove this frame or repair it")

    def _check_labels(self, labels: Mapping[str, np.ndarray], kind: str) -> None:
        for name, value in labels.items():
            quantity = QUANTITIES.get(name) or self.declared.get(name)
            if quantity is None:
                known = ", ".join((*QUANTITIES, *self.declared))
                raise DataError(f"unknown {kind or 'label '}{name!r}", self.origin, f"known: {known}")
            shape = quantity.shape if quantity.per == "structure" else (len(self), *quantity.shape)
            if value.shape != shape:
                raise DataError(f"{kind}{name} has shape {value.shape}, expected {shape}", self.origin)
            if not np.isfinite(value).all():
                raise DataError(f"{kind}{name} holds NaN or infinity", self.origin, "remove this frame or its label")
            check_size(f"{kind}{name}", name, value, len(self), self.origin)
            check_symmetric(f"{kind}{name}", quantity, value, self.origin)
