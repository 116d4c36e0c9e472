"""run.json: what a run was asked, on what, how long it took and how it ended."""

from __future__ import annotations

import contextlib
import datetime
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from forgefield.app.folder import RunFolder, write_json
from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.machine import environment, peak_memory
from forgefield.train.checkpoint import STATE
from forgefield.train.signals import Stopped


class RunRecord:
    """Collects the record of one run and writes it whenever something is added.

    Args:
        folder: the run folder.
        config: the run.
        device: where it computes.
        dtype: of the model.
        earlier: record of the run that this one continues.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        device: torch.device,
        dtype: torch.dtype,
        earlier: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.device = folder.record, device
        self.saved = folder.last / STATE
        self.start = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.content: dict[str, Any] = {
            **{key: value for key, value in (earlier or {}).items() if key != "stopped_by"},
            "schema_version": "forgefield-run-1",
            "name": config.name,
            "task": config.task,
            "backend": config.backend,
            "status": "running",
            "command": command_line(),
            "reproduce": shlex.join(
                ["forgefield", "run", str(folder.resolved), "--set", f"run_dir={folder.root}-again"]
            ),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "environment": environment(device, dtype),
        }

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure how long a stage takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def note(self, **parts: object) -> None:
        """Add parts to the record and write it."""
        self.content |= parts
        self.content["seconds"] = {**self.seconds, "total": time.perf_counter() - self.start}
        self.content["peak_memory"] = peak_memory(self.device)
        write_json(self.path, self.content)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Write how the run ended, also if it ended badly."""
        try:
            yield
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            status = "stopped by the user" if stopped else f"stopped by an error: {error}"
            by: dict[str, str] = {}
            if isinstance(error, Stopped):
                status = str(error)
                by = {"stopped_by": error.name} if self.saved.is_file() else {}
            with contextlib.suppress(Exception):  # the first error is the one to tell
                self.note(status=status, **by)
            raise


def command_line() -> str:
    """Return how this program was started, as it would be typed."""
    program = Path(sys.argv[0])
    if program.stem in ("forgefield", "__main__") or program.parts[-3:] == ("forgefield", "app", "cli.py"):
        return shlex.join(["forgefield", *sys.argv[1:]])
    return shlex.join(["python", *sys.argv]) if sys.argv[0] else "interactive Python"
