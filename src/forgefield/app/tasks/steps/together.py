"""A run in several processes: the first writes and speaks, the others only compute."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from forgefield.app.baseline.cache import FILE
from forgefield.app.folder import RECORD, RESOLVED
from forgefield.app.run import RunConfig
from forgefield.app.run_rules import TRAINING
from forgefield.app.tasks.steps.outcome import say
from forgefield.core.errors import ConfigError
from forgefield.train.joining import join, launched


@contextlib.contextmanager
def together(config: RunConfig, console: Console) -> Iterator[tuple[RunConfig, Console]]:
    """Join the processes that torchrun or srun started; yields the run and the console of this one.

    All but the first get a run folder of their own that is thrown away, with the checkpoints of the real one in it, and
    a console that shows nothing: whatever they write, the run's folder stays the first one's. One process alone
    gets back what it gave.

    Raises:
        ConfigError: the task is for one process.
        DeviceError: the processes cannot work together.
    """
    launch = launched()
    if launch is None:
        yield config, console
        return
    if config.task not in TRAINING:
        what = f"task {config.task} is for one process, and {launch.launcher} started {launch.processes}"
        raise ConfigError(what, "task", f"start it without {launch.launcher}")
    team, _ = join(config.device)
    team.barrier()  # an earlier run of the list is concluded
    if team.leads:
        say(console, f"processes: {team.size}, started by {launch.launcher}; batches are shared, one process writes")
        team.barrier()  # the others have looked at the folder
        yield config, console
        return
    with tempfile.TemporaryDirectory(prefix="forgefield-") as scratch, open(os.devnull, "w") as nothing:
        own = config.model_copy(update={"run_dir": _image(config.run_dir, Path(scratch) / "run")})
        team.barrier()
        yield own, Console(file=nothing)


def _image(real: Path | None, scratch: Path) -> Path | None:
    """Make a folder that looks like the run's to who only reads checkpoints and settings."""
    if real is None or not real.is_dir():
        return None if real is None else scratch
    scratch.mkdir()
    for name in (RESOLVED, RECORD, FILE):
        if (real / name).is_file():
            shutil.copy(real / name, scratch / name)
    if (real / "checkpoints").is_dir():
        (scratch / "checkpoints").symlink_to(real.absolute() / "checkpoints", target_is_directory=True)
    return scratch
