"""A forecast in words."""

from __future__ import annotations

from forgefield.app.findings import Finding, State
from forgefield.app.forecast.memory import Memory
from forgefield.app.forecast.outlook import Forecast, Times
from forgefield.app.forecast.proposal import Proposal
from forgefield.app.reports.markup import duration, significant

_FULL = 0.8  # of the memory: more may not last


def findings(forecast: Forecast) -> list[Finding]:
    """Return the rows of the table."""
    b, times = forecast.batches, forecast.times
    frozen = forecast.parameters - forecast.trained
    weights = f"{forecast.parameters:,}" + (f", {frozen:,} of them frozen" if frozen else "")
    per_atom = significant(b.edges / b.atoms)
    size = (
        f"{b.asked}: {b.atoms:,.0f} atoms and {b.edges:,.0f} edges on average, at most "
        f"{b.atoms_most:,} and {b.edges_most:,}; {per_atom} edges per atom"
    )
    return [
        Finding("parameters", "ok", weights),
        Finding("batch", "ok", size),
        _memory(forecast.memory),
        Finding("update", "ok", _update(times)),
        Finding("epoch", "ok", _epoch(times)),
        Finding("whole run", "ok", _whole(times)),
        *([Finding("machine", "warn", _crowded(times))] if times.crowded else []),
        _disk(forecast),
        _proposal(forecast.proposal),
    ]  # fmt: skip


def _update(times: Times) -> str:
    shown = f"{significant(1000 * times.update)} ms" if times.update < 1 else duration(times.update)
    return f"{shown} on average; single ones deviate by {100 * times.spread:.0f} % from what their size says"


def _epoch(times: Times) -> str:
    return (
        f"{duration(times.epoch)} for {times.updates_per_epoch} updates; validation {duration(times.validation)}, "
        f"a checkpoint {duration(times.saving)}"
    )


def _whole(times: Times) -> str:
    hours = f"{significant(times.run / 3600)} hours" if times.run >= 3600 else duration(times.run)
    reached = f"{times.epochs:.0f} epochs"
    if times.stopped_by != "epochs":
        reached = f"train.{times.stopped_by}, which ends it after about {significant(times.epochs)} epochs"
    parts = (
        f"{duration(times.setup)} to begin, {duration(times.training)} training, {duration(times.closing)} to conclude"
    )
    return f"{hours} for {reached}: {parts}"


def _crowded(times: Times) -> str:
    share = min(1.0, times.cpu_share)
    return (
        f"other programs compute too, this one had {100 * share:.0f} % of its cores: the times are those of a machine "
        f"as busy as now; alone, the run may take {duration(share * times.run)}"
    )


def _memory(memory: Memory) -> Finding:
    text = f"{_mib(memory.peak)} at most on {memory.device}, {_mib(memory.before)} of it before training"
    state: State = "ok"
    if memory.peak - memory.before > 1.5 * (memory.training - memory.before):
        text += f"; {_mib(memory.training)} in training steps, more while evaluating batches of data.batch_size"
    if memory.share is not None:
        text += f"; {100 * memory.share:.0f} % of the {_mib(memory.limit or 0)} that there are"
        state = "error" if memory.share > 1 else "warn" if memory.share > _FULL else "ok"
    return Finding(
        "memory", state, text + (". Fix: a smaller train.batch_size or data.batch_size" if state == "error" else "")
    )


def _disk(forecast: Forecast) -> Finding:
    disk = forecast.disk
    text = (
        f"{_mib(disk.total)} in run_dir: checkpoints {_mib(disk.checkpoints)}, artifacts {_mib(disk.artifacts)}, "
        f"predictions {_mib(disk.evaluation)}, records and report {_mib(disk.records + disk.report)}"
    )
    short = disk.free is not None and disk.peak > disk.free
    return Finding("disk", "error" if short else "ok", text + (f"; only {_mib(disk.free or 0)} free" if short else ""))


def _proposal(proposal: Proposal) -> Finding:
    atoms = f"{proposal.batch_size} structures, about {proposal.atoms:,.0f} atoms"
    if not proposal.changes:
        return Finding("batch size", "ok", f"keep {atoms}: {proposal.why}")
    what = f"train.batch_size: {proposal.batch_size} ({atoms}): {proposal.why}"
    return Finding("batch size", "note", f"{what}. Fewer updates per epoch may want more epochs or a larger lr"
                   if proposal.batch_size > proposal.now else what)  # fmt: skip


def _mib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{significant(size / 2**20)} MiB"
