"""What is written and shown while fitting: history files, TensorBoard, log lines or a progress bar."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from forgefield.core.disk import disk_errors, write_atomic
from forgefield.train.settings import TrainSettings
from forgefield.train.step import UpdateReport

Row = dict[str, float | int | bool | None]

COLUMNS = (
    "cycle", "epoch", "update", "seconds", "total_seconds", "lr", "grad_norm",
    "train_loss", "train_energy", "train_forces", "train_stress",
    "val_loss", "val_energy", "val_forces", "val_stress",
    "val_energy_mae_per_atom", "val_energy_rmse_per_atom", "val_forces_mae", "val_forces_rmse",
    "val_stress_mae", "val_stress_rmse",
    "structures_per_second", "peak_memory_mib", "skipped_updates", "best", "partial",
)  # fmt: skip
_LINES_IN_ALL = 20


class Recorder:
    """Keeps the records of one fit; use it in a `with` block.

    `history.jsonl` and `history.csv` get one row per validation, with the same columns. Errors are in eV per atom, eV/Å
    and eV/Å^3; `seconds` are those of the cycle, `structures_per_second` leaves validation out. Rows later than
    `update`, left by an attempt that ended before its checkpoint, are taken out first. `events.jsonl` keeps what was
    decided on the way or done differently than asked.

    Args:
        folder: run folder.
        console: where lines go; a terminal gets a progress bar instead of log lines between validations.
        settings: the `train` block.
        update: updates done before.
        total_updates: updates in all.
    """

    def __init__(
        self, folder: Path, console: Console, settings: TrainSettings, *, update: int, total_updates: int
    ) -> None:
        self.history, self.table = folder / "history.jsonl", folder / "history.csv"
        self.events, self.done = folder / "events.jsonl", update
        self.total_updates = total_updates
        self.epochs = settings.epochs
        shown = console.is_terminal if settings.progress_bar == "auto" else settings.progress_bar
        self.console = Console(file=console.file, force_terminal=True) if shown and not console.is_terminal else console
        every = max(1, total_updates // _LINES_IN_ALL) if settings.log_every == "auto" else settings.log_every
        self.log_every = None if shown else every
        self.bar = _make_bar(self.console, settings.progress_mininterval) if shown else None
        self.task = self.bar.add_task("", total=total_updates, completed=update, status="") if self.bar else None
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._prune(update)
            self.board = _open_board(folder / "tensorboard", update)

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        self.board.close()

    def note(self, text: str) -> None:
        """Show a line that must not be missed."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def event(self, text: str) -> None:
        """Show a line that must not be missed, and keep it in `events.jsonl`."""
        self.note(text)
        with disk_errors(self.events):
            _append(self.events, json.dumps({"update": self.done, "event": text}) + "\n")

    def update(self, number: int, epoch: int, report: UpdateReport, learning_rate: float) -> None:
        """Show one update: the bar always, a line every `log_every` updates."""
        self.done = number
        if report.skipped:
            self.note(f"update {number}: left out, its float16 gradient overflowed")
        if self.bar is not None and self.task is not None:
            status = f"epoch {epoch}/{self.epochs}  loss {report.loss:.4g}"
            self.bar.update(self.task, completed=number, status=status)
        if self.log_every and number % self.log_every == 0:
            self.note(
                f"update {number}/{self.total_updates}  epoch {epoch}/{self.epochs}  loss {report.loss:.6g}"
                f"  gradient {report.grad_norm:.3g}  lr {learning_rate:.3g}"
            )
            self.board.add_scalar("update/loss", report.loss, number)
            self.board.add_scalar("update/grad_norm", report.grad_norm, number)

    def cycle(self, row: Row) -> None:
        """Write one row of the history and show it as a line."""
        assert tuple(row) == COLUMNS, "history rows have fixed columns"
        with disk_errors(self.history):
            _append(self.history, json.dumps(row, allow_nan=False) + "\n")
            _append(self.table, _csv_line([_cell(value) for value in row.values()]))
            for name, value in row.items():
                if value is not None and not isinstance(value, bool):
                    self.board.add_scalar(_tag(name), value, int(row["update"] or 0))
            self.board.flush()
        self.note(describe(row, self.epochs))

    def _prune(self, update: int) -> None:
        """Keep the rows of the history up to `update`, and write the table's header."""
        rows = [row for row in read_history(self.history) if row["update"] <= update]
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows]
        cells = [_csv_line([_cell(row.get(name)) for name in COLUMNS]) for row in rows]
        for path, text in ((self.history, "".join(lines)), (self.table, _csv_line(COLUMNS) + "".join(cells))):
            write_atomic(path, text)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a `history.jsonl`; a last line that was cut off is left out."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def validation_columns(all_errors: Mapping[str, Any]) -> Row:
    """Return the validation errors of a history row from the `all` block of the metrics; same names, same units."""
    names = ("energy_mae_per_atom", "energy_rmse_per_atom", "forces_mae", "forces_rmse", "stress_mae", "stress_rmse")
    return {f"val_{name}": all_errors[name] for name in names}


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


def _open_board(folder: Path, update: int) -> Any:
    """Open TensorBoard's writer; events after `update` are taken out of sight."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    return SummaryWriter(str(folder), purge_step=update + 1 if update else None)


def _append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def _csv_line(cells: Any) -> str:
    return ",".join(map(str, cells)) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else repr(value)


def _tag(column: str) -> str:
    for prefix, section in (("train_", "train/"), ("val_", "validation/")):
        if column.startswith(prefix):
            return section + column.removeprefix(prefix)
    return "run/" + column


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
