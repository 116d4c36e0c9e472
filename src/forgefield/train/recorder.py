"""What is shown and written while fitting: log lines or a progress bar, events, and the sinks of `train.loggers`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from forgefield.core.catalog import Catalog
from forgefield.core.disk import disk_errors
from forgefield.train.catalogs import RECORDS
from forgefield.train.records.jsonl import HISTORY
from forgefield.train.records.jsonl import read_history as read_history
from forgefield.train.settings import TrainSettings
from forgefield.train.sink import COLUMNS, Origin, Part, Row, Sink, columns_with
from forgefield.train.step import UpdateReport

_LINES_IN_ALL = 20


class Recorder:
    """Shows one fit and hands its numbers to the sinks; use it in a `with` block.

    Each validation gives one row, with the same columns. Errors are in eV per atom, eV/Å and eV/Å^3; `seconds` are
    those since the last row, `structures_per_second` leaves validation out. `events.jsonl` keeps what was decided on
    the way or done differently than asked.

    Args:
        folder: run folder.
        console: where lines go; a terminal gets a progress bar instead of log lines between validations.
        settings: the `train` block.
        update: updates done before.
        total_updates: updates in all.
        further: names of the quantities beside energy, forces and stress that have columns.
    """

    def __init__(
        self,
        folder: Path,
        console: Console,
        settings: TrainSettings,
        *,
        update: int,
        total_updates: int,
        further: tuple[str, ...] = (),
    ) -> None:
        self.columns = columns_with(further)
        self.history, self.events = folder / HISTORY, folder / "events.jsonl"
        self.done, self.total_updates, self.epochs = update, total_updates, settings.epochs
        shown = console.is_terminal if settings.progress_bar == "auto" else settings.progress_bar
        self.console = Console(file=console.file, force_terminal=True) if shown and not console.is_terminal else console
        self.every = max(1, total_updates // _LINES_IN_ALL) if settings.log_every == "auto" else settings.log_every
        self.bar = _make_bar(self.console, settings.progress_mininterval) if shown else None
        self.task = self.bar.add_task("", total=total_updates, completed=update, status="") if self.bar else None
        self.sinks: list[Sink] = []
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._open(settings, Origin(folder, update, settings.model_dump(mode="json"), further))

    def _open(self, settings: TrainSettings, origin: Origin) -> None:
        """Open the sinks one after the other; if one fails, those before it are closed."""
        try:
            for name in settings.loggers:
                entry = Catalog(RECORDS).entry(name)
                block = getattr(settings, name) if name in TrainSettings.model_fields else entry.settings()
                self.sinks.append(entry.build(block, origin))
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        for sink in self.sinks:
            sink.close()

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        self._close()

    def note(self, text: str) -> None:
        """Show a line that must not be missed."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def event(self, text: str) -> None:
        """Show a line that must not be missed, and keep it in `events.jsonl`."""
        self.note(text)
        with disk_errors(self.events), open(self.events, "a", encoding="utf-8") as file:
            file.write(json.dumps({"update": self.done, "event": text}) + "\n")

    def wants(self, number: int) -> bool:
        """Say whether the numbers of this update are to be logged."""
        return bool(self.every) and number % (self.every or 1) == 0

    def update(self, number: int, epoch: int, report: UpdateReport, rates: Mapping[str, float], speed: float) -> None:
        """Show one update: the bar always; every `log_every` updates a line, unless there is a bar, and the sinks.

        Args:
            number: updates done.
            epoch: from 1.
            report: what the update did.
            rates: learning rate of each parameter group.
            speed: structures per second.
        """
        self.done = number
        if report.skipped:
            self.note(f"update {number}: left out, its float16 gradient overflowed")
        if self.bar is not None and self.task is not None:
            status = f"epoch {epoch}/{self.epochs}  loss {report.loss:.4g}"
            self.bar.update(self.task, completed=number, status=status)
        if not self.wants(number):
            return
        if self.bar is None:
            self.note(
                f"update {number}/{self.total_updates}  epoch {epoch}/{self.epochs}  loss {report.loss:.6g}"
                f"  gradient {report.grad_norm:.3g}  lr {next(iter(rates.values())):.3g}"
            )
        values = {"loss": report.loss, "grad_norm": report.grad_norm, "structures_per_second": speed}
        values |= {f"lr/{name}": rate for name, rate in rates.items()}
        for sink in self.sinks:
            sink.update(number, values)

    def cycle(self, row: Row, parts: Sequence[Part] = ()) -> None:
        """Write one row, with its breakdown, and show it as a line."""
        assert tuple(row) == self.columns, "history rows have fixed columns"
        for sink in self.sinks:
            sink.validation(row, parts)
        self.note(describe(row, self.epochs))


def validation_columns(all_errors: Mapping[str, Any]) -> Row:
    """Return the validation errors for a history row from the `all` block of the metrics; same names, same units."""
    return {f"val_{name}": value for name, value in all_errors.items() if not name.startswith("n_")}


def describe(row: Mapping[str, Any], epochs: int) -> str:
    """Return one line for a row of the history; errors in meV."""
    parts = [f"epoch {row['epoch']}/{epochs}", f"train {row['train_loss']:.5g}", f"val {row['val_loss']:.5g}"]
    for label, name, unit in (
        ("E", "val_energy_rmse_per_atom", "meV/atom"),
        ("F", "val_forces_rmse", "meV/Å"),
        ("S", "val_stress_rmse", "meV/Å^3"),
    ):
        if row[name] is not None:
            parts.append(f"{label} {1000 * row[name]:.4g} {unit}")
    for name, value in row.items():
        if name.startswith("val_") and name.endswith("_rmse") and name not in COLUMNS and value is not None:
            parts.append(f"{name.removeprefix('val_').removesuffix('_rmse')} {value:.4g}")
    parts += [f"lr {row['lr']:.3g}", f"{row['structures_per_second']:.0f} structures/s"]
    return "  ".join(parts) + ("  best" if row["best"] else "")


def peak_memory(device: torch.device) -> float:
    """Most memory used so far, MiB: of the device on CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # not on every platform

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20


def _make_bar(console: Console, interval: float) -> Progress:
    columns = (
        BarColumn(), MofNCompleteColumn(), TextColumn("updates"), TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )  # fmt: skip
    return Progress(*columns, console=console, refresh_per_second=1.0 / interval, transient=True)


class Silence:
    """A recorder of nothing, for the processes that do not write; any method may be called."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return _nothing


def _nothing(*args: Any, **more: Any) -> None:
    """Do nothing."""
