"""Potential + loader -> predictions of every structure, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from forgefield.core.errors import DataError
from forgefield.core.settings import Matmul
from forgefield.models.precision import autocast, matmul_precision, missing
from forgefield.train.constant_terms import ConstantTerms
from forgefield.train.loss import LossReport, WeightedLoss
from forgefield.train.measured import Measured, measured_in_evaluation
from forgefield.train.metrics import Errors, Metrics, measure_errors
from forgefield.train.mixed import usable_type
from forgefield.train.packing import Packer
from forgefield.train.table import Table, gathered, host, joined, table_of
from forgefield.train.team import ALONE, Team
from forgefield.train.whole import lacks_base_forces, put_together

if TYPE_CHECKING:
    from forgefield.core.structure import Structure
    from forgefield.data.loader import Batch, Loader
    from forgefield.models.potential import Outputs, Potential

STANDARD = Measured()


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the potential says of one structure.

    Args:
        index: position of the structure in the data set.
        energy: total energy, eV; None from a model without energies.
        forces: (n, 3), eV/Å; None if only energies were asked for.
        stress: (3, 3), eV/Å^3, zero without a cell; None if only energies were asked for.
        further: what else was measured, by name: components of the structure, (D,), or of its atoms, (n, D).
        counted: atoms whose forces are compared with labels, (n,), bool; None without forces.
        base: what of the energy and the forces a cheaper level of theory has, where the model corrects one.
    """

    index: int
    energy: float | None
    forces: np.ndarray | None
    stress: np.ndarray | None
    further: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    counted: np.ndarray | None = None
    base: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions in the order of the data set, their errors, and what was done differently than asked.

    Args:
        predictions: one per structure.
        metrics: see `metrics.measure_errors`.
        notes: sentences for the user, e.g. that amp was off on a CPU.
    """

    predictions: list[Prediction]
    metrics: Metrics
    notes: tuple[str, ...] = ()


def evaluate(
    potential: Potential,
    loader: Loader,
    *,
    energy_only: bool = False,
    amp: bool = False,
    matmul: Matmul = "float32",
    memory: float | None = None,
    progress: Callable[[int], None] | None = None,
    measured: Measured | None = None,
    whole: bool = False,
) -> Evaluation:
    """Predict every structure of a loader once and compare with the labels there are.

    Args:
        potential: used as it stands, in evaluation mode, without gradients.
        loader: its `dataset` tells config_type and head of each structure.
        energy_only: leave forces and stress out of predictions and errors.
        amp: float16 autocast on CUDA.
        matmul: precision of products of float32 matrices.
        memory: share of the free memory, 0 to 1: batches are sized by measuring, see `packing.Packer`; None takes the
            loader's batches.
        progress: called after each batch with the number of structures it held.
        measured: quantities to compare, and which atoms' forces; None = all that the model predicts, all atoms.
        whole: add the base labels of the structures, whose labels are differences (`data.differences`); the errors of
            the base alone are the metrics' `baseline`.

    Raises:
        DataError: the loader is empty, or a prediction is not finite, or a base label is missing.
        DeviceError: with `memory`, one structure alone does not fit into memory.
    """
    device = next(potential.parameters()).device
    packer = None if memory is None else Packer(loader, memory)
    measured = measured or measured_in_evaluation(potential)
    parts: list[Table] = []
    with matmul_precision(matmul, device):
        for part in _tables(potential, loader, usable_type(amp, device), packer, measured):
            parts.append(part)
            if progress is not None:
                progress(len(part.index))
    table = joined(parts)
    _check_finite(table, loader)
    structures = [loader.dataset[i] for i in table.index.tolist()]
    notes: list[str] = []
    baseline: Errors = {}
    if whole:
        table, baseline = put_together(table, structures, potential)
        if lacks_base_forces(structures) and not energy_only:
            energy_only = True
            notes.append("forces and stress are left out: some structures have no base forces")
    groups = {
        "config_type": np.array([s.config_type for s in structures], dtype=object),
        "head": np.array([s.level or potential.heads[0] for s in structures], dtype=object),
    }
    if energy_only:
        none = {name: np.zeros_like(getattr(table, name)) for name in ("has_forces", "has_stress")}
        table = table._replace(**none, further=MappingProxyType({}))
    notes += [] if packer is None else list(packer.notes)
    if amp and device.type != "cuda":
        notes.append("eval.amp is off: float16 autocast is for CUDA devices only")
    elif amp and potential.dtype == torch.float64:
        notes.append("eval.amp has no effect: the model is float64, which autocast leaves alone")
    if (lack := missing(matmul, device, potential.dtype)) is not None:
        notes.append(f"eval.matmul: {matmul} {lack}")
    metrics = measure_errors(table, groups)
    if measured.energy and not energy_only and (left_out := _left_out(table, structures)):
        notes.append(f"{left_out:,} labelled atoms do not count in the errors of forces (force_mask, fixed, tags)")
        cast("Errors", metrics["all"])["n_forces_left_out"] = left_out
    if baseline:
        metrics["baseline"] = baseline
    based = structures if whole else ()
    return Evaluation(_predictions(table, energy_only, measured.energy, based), metrics, tuple(notes))


def _left_out(table: Table, structures: Sequence[Structure]) -> int:
    """Atoms whose structure is labelled with forces, but that do not count."""
    labelled = [len(s) for s in structures if "forces" in s.labels]
    return sum(labelled) - int(table.has_forces.sum())


def gather(potential: Potential, loader: Loader, *, amp: bool = False) -> Table:
    """Predict every structure of a loader once; the table is in the order of the data set."""
    device = next(potential.parameters()).device
    return joined(list(_tables(potential, loader, usable_type(amp, device))))


def _tables(
    potential: Potential,
    loader: Loader,
    amp: torch.dtype | None,
    packer: Packer | None = None,
    measured: Measured = STANDARD,
) -> Iterator[Table]:
    """Yield predictions and labels batch by batch; the batches are the packer's, or without one the loader's."""
    if packer is None:
        for batch, outputs in _predict(potential, loader, amp):
            yield table_of(batch, outputs, measured)
        return

    def compute(batch: Batch) -> Table:
        with torch.no_grad(), autocast(batch.graph.positions.device, amp):
            outputs = potential(batch.graph)
        return table_of(batch, outputs, measured)

    with _evaluating(potential):
        yield from packer.run(compute)


def validate(
    potential: Potential,
    loader: Loader,
    losses: WeightedLoss,
    *,
    amp: torch.dtype | None = None,
    team: Team = ALONE,
    measured: Measured = STANDARD,
    constant: ConstantTerms | None = None,
) -> tuple[LossReport, Metrics]:
    """Return the loss and the errors over a loader, in one pass.

    The loss is a ratio of sums over the whole set, so it does not depend on the batch size. Each process of a team
    predicts its share of every batch, and all get the same result. `constant` holds what physics terms that are left
    out of the potential add.

    Raises:
        DataError: the loader is empty, or a prediction is not finite.
    """
    parts, heads, sums, counts = [], [], [], []
    for batch, outputs in _predict(potential, loader, amp, team):
        if constant is not None:
            outputs = constant.add(outputs, batch)
        parts.append(table_of(batch, outputs, measured))
        heads.append(host(batch.graph.head))
        sums.append(losses.sums(outputs, batch.labels))
        counts.append(losses.counts(batch.labels))
    if team.size > 1:
        parts, heads = gathered(parts, heads, team)
    table = joined(parts)
    _check_finite(table, loader)
    added = _summed(sums, losses.sum_names, team), _summed(counts, list(losses.terms), team)
    order = np.argsort(np.concatenate([part.index for part in parts]), kind="stable")
    names = np.array(potential.heads, dtype=object)[np.concatenate(heads)[order]]
    return losses.combine(*added), measure_errors(table, {"head": names})


def _summed(parts: Sequence[dict[str, Tensor]], names: Sequence[str], team: Team) -> dict[str, Tensor]:
    """Add the numbers of batches and processes."""
    if team.size == 1:
        return {name: torch.stack([p[name] for p in parts]).sum(0) for name in names}
    own = torch.zeros(len(names), dtype=torch.float64, device=team.device)
    for part in parts:
        own += torch.stack([part[name].double() for name in names])
    return dict(zip(names, team.sum_values(own).unbind(), strict=True))


def _predict(
    potential: Potential, loader: Loader, amp: torch.dtype | None, team: Team = ALONE
) -> Iterator[tuple[Batch, Outputs]]:
    """Yield each batch with its outputs; the potential's mode is restored."""
    with _evaluating(potential), torch.no_grad():
        for batch in team.batches(loader, 0):
            if batch is None:
                continue
            with autocast(batch.graph.positions.device, amp):
                outputs = potential(batch.graph)
            yield batch, outputs


@contextmanager
def _evaluating(potential: Potential) -> Generator[None]:
    """Put the potential into evaluation mode, and back."""
    was_training = potential.training
    potential.eval()
    try:
        yield
    finally:
        potential.train(was_training)


def _check_finite(table: Table, loader: Loader) -> None:
    """Refuse predictions that are not numbers, naming the first structure concerned."""
    good = np.isfinite(table.energy) & np.isfinite(table.stress).all((1, 2))
    bad_atoms = ~np.isfinite(table.forces).all(1)
    for value, _, _, per, _ in table.further.values():
        bad_rows = ~np.isfinite(value).all(1)
        bad_atoms, good = (bad_atoms | bad_rows, good) if per == "atom" else (bad_atoms, good & ~bad_rows)
    good &= np.add.reduceat(bad_atoms.astype(int), table.first_atom[:-1]) == 0
    if good.all():
        return
    worst = int(table.index[~good][0])
    raise DataError(
        f"the prediction is not finite ({int((~good).sum())} structures in all)",
        loader.dataset[worst].origin,
        "check the structure (atoms on top of each other?) and the model (trained with too high a train.lr?)",
    )


def _predictions(table: Table, energy_only: bool, energy: bool, based: Sequence[Structure] = ()) -> list[Prediction]:
    first = table.first_atom
    found: list[Prediction] = []
    for k, index in enumerate(table.index):
        atoms = slice(first[k], first[k + 1])
        rows = {name: part.value[atoms if part.per == "atom" else k] for name, part in table.further.items()}
        found.append(
            Prediction(
                index=int(index),
                energy=float(table.energy[k]) if energy else None,
                forces=table.forces[atoms] if energy and not energy_only else None,
                stress=table.stress[k] if energy and not energy_only else None,
                further=rows,
                counted=table.has_forces[atoms] if energy and not energy_only else None,
                base={n: based[k].base[n] for n in ("energy", "forces") if n in based[k].base} if based else {},
            )
        )
    return found
