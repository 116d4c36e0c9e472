"""Potential + loader -> predictions of every structure, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor

from forgefield.core.errors import DataError
from forgefield.core.settings import Matmul
from forgefield.models.precision import autocast, matmul_precision, missing
from forgefield.train.loss import LossReport, WeightedLoss
from forgefield.train.metrics import Metrics, Table, measure_errors
from forgefield.train.mixed import usable_type
from forgefield.train.packing import Packer
from forgefield.train.team import ALONE, Team

if TYPE_CHECKING:
    from forgefield.data.loader import Batch, Loader
    from forgefield.models.potential import Outputs, Potential


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the potential says of one structure.

    Args:
        index: position of the structure in the data set.
        energy: total energy, eV.
        forces: (n, 3), eV/Å; None if only energies were asked for.
        stress: (3, 3), eV/Å^3, zero without a cell; None if only energies were asked for.
    """

    index: int
    energy: float
    forces: np.ndarray | None
    stress: np.ndarray | None


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

    Raises:
        DataError: the loader is empty, or a prediction is not finite.
        DeviceError: with `memory`, one structure alone does not fit into memory.
    """
    device = next(potential.parameters()).device
    packer = None if memory is None else Packer(loader, memory)
    parts: list[Table] = []
    with matmul_precision(matmul, device):
        for part in _tables(potential, loader, usable_type(amp, device), packer):
            parts.append(part)
            if progress is not None:
                progress(len(part.index))
    table = _join(parts)
    _check_finite(table, loader)
    structures = [loader.dataset[i] for i in table.index.tolist()]
    groups = {
        "config_type": np.array([s.config_type for s in structures], dtype=object),
        "head": np.array([s.head or potential.heads[0] for s in structures], dtype=object),
    }
    if energy_only:
        table = table._replace(has_forces=np.zeros_like(table.has_forces), has_stress=np.zeros_like(table.has_stress))
    notes = [] if packer is None else list(packer.notes)
    if amp and device.type != "cuda":
        notes.append("eval.amp is off: float16 autocast is for CUDA devices only")
    elif amp and potential.dtype == torch.float64:
        notes.append("eval.amp has no effect: the model is float64, which autocast leaves alone")
    if (lack := missing(matmul, device, potential.dtype)) is not None:
        notes.append(f"eval.matmul: {matmul} {lack}")
    return Evaluation(_predictions(table, energy_only), measure_errors(table, groups), tuple(notes))


def gather(potential: Potential, loader: Loader, *, amp: bool = False) -> Table:
    """Predict every structure of a loader once; the table is in the order of the data set."""
    device = next(potential.parameters()).device
    return _join(list(_tables(potential, loader, usable_type(amp, device))))


def _tables(
    potential: Potential, loader: Loader, amp: torch.dtype | None, packer: Packer | None = None
) -> Iterator[Table]:
    """Yield predictions and labels batch by batch; the batches are the packer's, or without one the loader's."""
    if packer is None:
        for batch, outputs in _predict(potential, loader, amp):
            yield _columns(batch, outputs)
        return

    def compute(batch: Batch) -> Table:
        with torch.no_grad(), autocast(batch.graph.positions.device, amp):
            outputs = potential(batch.graph)
        return _columns(batch, outputs)

    with _evaluating(potential):
        yield from packer.run(compute)


def validate(
    potential: Potential,
    loader: Loader,
    losses: WeightedLoss,
    *,
    amp: torch.dtype | None = None,
    team: Team = ALONE,
) -> tuple[LossReport, Metrics]:
    """Return the loss and the errors over a loader, in one pass.

    The loss is a ratio of sums over the whole set, so it does not depend on the batch size. Each process of a team
    predicts its share of every batch, and all get the same result.

    Raises:
        DataError: the loader is empty, or a prediction is not finite.
    """
    parts, heads, sums, counts = [], [], [], []
    for batch, outputs in _predict(potential, loader, amp, team):
        parts.append(_columns(batch, outputs))
        heads.append(_host(batch.graph.head))
        sums.append(losses.sums(outputs, batch.labels))
        counts.append(losses.counts(batch.labels))
    if team.size > 1:
        parts, heads = _gathered(parts, heads, team)
    table = _join(parts)
    _check_finite(table, loader)
    added = [_summed(part, list(losses.terms), team) for part in (sums, counts)]
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


def _gathered(parts: list[Table], heads: list[np.ndarray], team: Team) -> tuple[list[Table], list[np.ndarray]]:
    """Return the tables and heads of all processes, also of those that have predicted nothing."""
    own = b""
    if parts:
        # Predictions may lie in another order in memory, which the packed form does not keep.
        packed = {name: np.ascontiguousarray(value) for name, value in _join(parts)._asdict().items()}
        order = np.argsort(np.concatenate([part.index for part in parts]), kind="stable")
        own = save_arrays({**packed, "head": np.concatenate(heads)[order]})
    found = [load_arrays(data) for data in team.gather(own) if data]
    return [Table(**{name: a[name] for name in Table._fields}) for a in found], [a["head"] for a in found]


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


def _columns(batch: Batch, outputs: Outputs) -> Table:
    labels, graph = batch.labels, batch.graph
    return Table(
        index=_host(batch.index),
        n_atoms=_host(labels.n_atoms).astype(np.int64),
        energy=_host(outputs.energy),
        energy_label=_host(labels.energy),
        has_energy=_host(labels.has_energy),
        stress=_host(outputs.stress),
        stress_label=_host(labels.stress),
        has_stress=_host(labels.has_stress),
        forces=_host(outputs.forces),
        forces_label=_host(labels.forces),
        has_forces=_host(labels.has_forces),
        numbers=_host(graph.numbers.index_select(0, graph.inverse)),
    )


def _host(tensor: Tensor) -> np.ndarray:
    """Copy to numpy; floating numbers become float64."""
    tensor = tensor.detach()
    return (tensor.double() if tensor.is_floating_point() else tensor).cpu().numpy()


def _join(parts: list[Table]) -> Table:
    if not parts:
        raise DataError("there are no structures to evaluate", fix="give a larger data set or another split")
    joined = Table(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    order = np.argsort(joined.index, kind="stable")
    if (order == np.arange(len(order))).all():
        return joined
    first = joined.first_atom.tolist()
    atoms = np.concatenate([np.arange(first[k], first[k + 1]) for k in order.tolist()])
    per_atom = {"forces", "forces_label", "has_forces", "numbers"}
    pick = {name: value[atoms if name in per_atom else order] for name, value in joined._asdict().items()}
    return Table(**pick)


def _check_finite(table: Table, loader: Loader) -> None:
    """Refuse predictions that are not numbers, naming the first structure concerned."""
    good = np.isfinite(table.energy) & np.isfinite(table.stress).all((1, 2))
    bad_atoms = ~np.isfinite(table.forces).all(1)
    good &= np.add.reduceat(bad_atoms.astype(int), table.first_atom[:-1]) == 0
    if good.all():
        return
    worst = int(table.index[~good][0])
    raise DataError(
        f"the prediction is not finite ({int((~good).sum())} structures in all)",
        loader.dataset[worst].origin,
        "check the structure (atoms on top of each other?) and the model (trained with too high a train.lr?)",
    )


def _predictions(table: Table, energy_only: bool) -> list[Prediction]:
    first = table.first_atom
    return [
        Prediction(
            index=int(index),
            energy=float(table.energy[k]),
            forces=None if energy_only else table.forces[first[k] : first[k + 1]],
            stress=None if energy_only else table.stress[k],
        )
        for k, index in enumerate(table.index)
    ]
