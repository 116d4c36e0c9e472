"""From what was observed in a rehearsal to what the whole run will take."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from forgefield.app.forecast.choice import Plan
from forgefield.app.forecast.cost import Cost, fit_cost, work_of
from forgefield.app.forecast.memory import Memory, Observed, Sets, peak_of
from forgefield.app.forecast.proposal import Proposal, kept, propose
from forgefield.app.forecast.trial import Rehearsal
from forgefield.app.run import RunConfig
from forgefield.data.sizes import total
from forgefield.train.intervals import Interval
from forgefield.train.settings import TrainSettings
from forgefield.train.state import TrainState

# Bytes of records: a validation in history.jsonl, .csv and TensorBoard; more for each head and element in the breakdown
# of it; all else that is small; report.html.
_ROW, _PART, _RECORDS, _REPORT = 4_000, 1_500, 30_000, 100_000
_STATE_JSON = 22_000  # state.json, which holds every setting, and manifest.json
_TRACE = 100_000  # code of a TorchScript file


@dataclass(frozen=True)
class Times:
    """Seconds.

    Args:
        setup: reading and measuring the data, making the model.
        first: once, at the first steps (buffers, compilation).
        update: of one update on average, its data included.
        spread: typical relative deviation of an update from what its size says.
        epoch: all updates of an epoch.
        validation: of one validation.
        saving: of one checkpoint.
        training: all epochs (or as far as a limit of time lets it) with validations and checkpoints.
        closing: evaluation, export and report.
        run: all of it.
        stopped_by: epochs, max_minutes or max_cpu_minutes.
        epochs: of the run, as far as they are reached.
        updates_per_epoch: updates.
        cpu_share: computing time per wall time and thread during the steps; less than 1 where others compute too.
        crowded: whether others do, on the CPU that the run computes on.
    """

    setup: float
    first: float
    update: float
    spread: float
    epoch: float
    validation: float
    saving: float
    training: float
    closing: float
    run: float
    stopped_by: str
    epochs: float
    updates_per_epoch: int
    cpu_share: float
    crowded: bool


@dataclass(frozen=True)
class Disk:
    """Bytes that the run leaves; `peak` while a checkpoint is replaced."""

    checkpoints: int
    artifacts: int
    evaluation: int
    records: int
    report: int
    total: int
    peak: int
    free: int | None


@dataclass(frozen=True)
class Batches:
    """Mean and largest batch: its limits as asked, atoms and directed edges."""

    asked: str
    atoms: float
    atoms_most: int
    edges: float
    edges_most: int


@dataclass(frozen=True)
class Forecast:
    """What a run will take."""

    parameters: int
    trained: int
    structures: dict[str, int]
    batches: Batches
    memory: Memory
    times: Times
    disk: Disk
    proposal: Proposal
    steps: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; times in seconds, sizes in bytes."""
        return asdict(self)


def look_ahead(
    config: RunConfig, state: TrainState, plan: Plan, rehearsal: Rehearsal, sets: Sets, seen: Observed
) -> Forecast:
    """Put together what the whole run will take."""
    parameters = [p for p in state.potential.parameters()]
    memory = peak_of(config, plan, rehearsal, sets, seen)
    sizes = [batch.size for batch in plan.batches]
    batches = Batches(
        config.train.limits.describe(),
        float(np.mean([s.atoms for s in sizes])),
        max(s.atoms for s in sizes),
        float(np.mean([s.edges for s in sizes])),
        max(s.edges for s in sizes),
    )
    counts = {"train": len(sets.train.atoms), "val": len(sets.val.atoms)}
    counts |= {"test": len(sets.test.atoms)} if sets.test is not None else {}
    times = _times(config, plan, rehearsal, sets, seen)
    return Forecast(
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        counts,
        batches,
        memory,
        times,
        _disk(config, state, sets, seen, _validations(config.train, plan, times.epochs)),
        _proposal(config, rehearsal, sets, memory),
        tuple(_plain(step) for step in rehearsal.steps),
    )


def _times(config: RunConfig, plan: Plan, rehearsal: Rehearsal, sets: Sets, seen: Observed) -> Times:
    train = config.train
    cost = _update_cost(rehearsal)
    of_updates = [cost.seconds(np.array([work_of([b.size for b in u]) for u in epoch])) for epoch in plan.epochs]
    epoch = float(np.mean([seconds.sum() for seconds in of_updates]))
    first = sum(
        max(0.0, step.seconds - float(cost.seconds(np.array([work_of(step.sizes)]))[0]))
        for step in rehearsal.steps if step.kind == "first"
    )  # fmt: skip
    validation = seen.checking.per_edge * float(sets.val.edges.sum())
    updates = float(np.mean([len(seconds) for seconds in of_updates]))
    planned = train.epochs if train.max_updates is None else min(train.epochs, train.max_updates / updates)
    epochs: float = max(0.0, planned - seen.epochs_done)
    validations = _validations(train, plan, 1)
    cycles = _cycles(train, plan, 1)
    saving = seen.saving.seconds * (validations / cycles + 1 / train.save_every)
    per_epoch = epoch + validations * validation + cycles * saving
    training, stopped_by = first + epochs * per_epoch, "epochs"
    threads = torch.get_num_threads()
    typical = [step for step in rehearsal.steps if step.kind == "typical"] or rehearsal.steps
    share = sum(s.cpu_seconds for s in typical) / max(1e-9, sum(s.seconds for s in typical) * threads)
    for name, limit in _limits(train, share * threads):
        if training > limit:
            stopped_by, training = name, limit + validation + saving
            epochs = max(0.0, (limit - first) / per_epoch)
    closing = _closing(config, sets, seen)
    return Times(
        seen.setup, first, float(np.mean(np.concatenate(of_updates))), cost.spread, epoch, validation,
        seen.saving.seconds, training, closing, seen.setup + training + closing, stopped_by, epochs,
        round(updates), share,
        seen.crowded,
    )  # fmt: skip


def _limits(train: TrainSettings, cores: float) -> list[tuple[str, float]]:
    """Return the limits of time by name, in seconds of wall time, with so many cores in use on average."""
    of_cpu = None if train.max_cpu_minutes is None else train.max_cpu_minutes / max(cores, 1e-9)
    found = {"max_minutes": train.max_minutes, "max_cpu_minutes": of_cpu}
    return [(name, 60 * minutes) for name, minutes in found.items() if minutes is not None]


def _update_cost(rehearsal: Rehearsal) -> Cost:
    """Fit seconds to the size of updates; the first steps pay for what happens once and are left out."""
    steady = [s for s in rehearsal.steps if s.kind in ("typical", "largest")] or rehearsal.steps
    return fit_cost([work_of(step.sizes) for step in steady], [step.seconds for step in steady])


def _cycles(train: TrainSettings, plan: Plan, epochs: float) -> float:
    """Return how many cycles so many epochs have."""
    updates = float(np.mean([len(epoch) for epoch in plan.epochs]))
    return epochs * updates / train.cycle_steps if train.cycle_steps else epochs


def _validations(train: TrainSettings, plan: Plan, epochs: float) -> float:
    """Return how many validations so many epochs have."""
    updates = float(np.mean([len(epoch) for epoch in plan.epochs]))
    return Interval.read(train.validate_every).times(epochs * updates, updates, train.cycle_steps)


def _closing(config: RunConfig, sets: Sets, seen: Observed) -> float:
    judged = [s for s in (sets.test, sets.val) if s is not None]
    seconds = seen.export
    for sizes in judged:
        seconds += seen.checking.judging_per_edge * float(sizes.edges.sum())
        seconds += seen.checking.writing_per_atom * float(sizes.atoms.sum())
    if config.task == "finetune":  # judged before training too
        seconds += seen.checking.judging_per_edge * float(sets.val.edges.sum())
    return seconds


def _disk(config: RunConfig, state: TrainState, sets: Sets, seen: Observed, validations: float) -> Disk:
    held = [*state.potential.parameters(), *state.potential.buffers()]
    model = sum(t.numel() * t.element_size() for t in held)
    weights = sum(p.numel() * p.element_size() for p in state.potential.parameters())
    checkpoint = seen.saving.size + _STATE_JSON
    artifacts = weights + len(config.export.targets) * (model + _TRACE) if config.export.standard_artifacts else 0
    atoms = sum(int(s.atoms.sum()) for s in (sets.val, sets.test) if s is not None)
    evaluation = round(seen.checking.bytes_per_atom * atoms)
    parts = len(state.potential.heads) + len(state.potential.elements)
    records = _RECORDS + math.ceil(validations) * (_ROW + parts * _PART)
    everything = 2 * checkpoint + artifacts + evaluation + records + _REPORT
    place = config.run_dir
    there = next((p for p in (place, *place.parents) if p.is_dir()), None) if place is not None else None
    free = shutil.disk_usage(there).free if there is not None else None
    return Disk(2 * checkpoint, artifacts, evaluation, records, _REPORT, everything, everything + checkpoint, free)


def _proposal(config: RunConfig, rehearsal: Rehearsal, sets: Sets, memory: Memory) -> Proposal:
    n = len(sets.train.atoms)
    mean = float(sets.train.atoms.mean()), float(sets.train.edges.mean())
    steps = [step for step in rehearsal.steps if step.kind in ("typical", "probe")] or rehearsal.steps
    largest = max((s for s in rehearsal.steps if s.kind != "probe"), key=lambda s: max(z.atoms for z in s.sizes))
    ratio = max(0, largest.peak - memory.before) / max(size.atoms for size in largest.sizes)
    if config.train.batch_size is None or not config.train.limits.plain:
        sizes = [size for step in rehearsal.steps if step.kind == "typical" for size in step.sizes]
        return kept(sizes or [largest.sizes[0]], config.train.limits.describe())
    now = config.train.batch_size
    return propose(steps, now, mean, lambda atoms: memory.before + ratio * atoms, memory.limit, n)


def _plain(step: Any) -> dict[str, Any]:
    size = total(step.sizes)
    return {"kind": step.kind, "batches": len(step.sizes), **size._asdict(), "seconds": step.seconds,
            "cpu_seconds": step.cpu_seconds, "peak": step.peak}  # fmt: skip
