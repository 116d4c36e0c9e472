"""Run a worker file in another Python, and report every way that can fail as one error."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from forgefield.core.errors import ForgeError

WORKERS = Path(__file__).parent / "workers"
ERROR_FILE = "error.json"
SHOWN_LINES = 8
PACKAGES = {"mace_torch": "mace-torch", "aimnet": "aimnet"}  # worker -> what to install for it
DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS", "__PYVENV_LAUNCHER__")


class WorkerRefusal(ForgeError):
    """A worker ran and said why it cannot do what was asked."""


class Interpreter:
    """A Python executable with packages of its own.

    Args:
        python: path of the executable, or its name on the search path.
        timeout: seconds after which a worker is stopped; None waits for ever.
    """

    def __init__(self, python: str | Path, timeout: float | None = None) -> None:
        found = shutil.which(str(Path(python).expanduser()) if os.sep in str(python) else str(python))
        if found is None:
            raise ForgeError(
                f"no Python interpreter at '{python}'",
                where="backend python",
                fix="give the python of the environment that has the other program, "
                "for example --backend-python /path/to/venv/bin/python",
            )
        self.python = Path(found)
        self.timeout = timeout

    def run(self, worker: str | Path, arguments: Sequence[str | Path], folder: Path | None = None) -> str:
        """Run a worker to its end.

        The child gets the environment without the variables that would mix our packages into its own.

        Args:
            worker: name of a file in the workers folder ("mace_torch"), or a path.
            arguments: its command line.
            folder: where it leaves `error.json` when it refuses. A stale one is removed first.

        Returns:
            What it wrote to standard output.

        Raises:
            ForgeError: it could not be started, lacks a package, refused, crashed or took too long.
        """
        path = Path(worker) if os.sep in str(worker) else WORKERS / f"{worker}.py"
        refusal = None if folder is None else folder / ERROR_FILE
        if refusal is not None:
            refusal.unlink(missing_ok=True)
        command = [str(self.python), str(path), *map(str, arguments)]
        environment = {key: value for key, value in os.environ.items() if key not in DROPPED}
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise ForgeError(f"{path.name} did not end within {self.timeout:g} s", where=str(self.python)) from error
        except OSError as error:
            raise ForgeError(
                f"cannot be started: {error.strerror}",
                where=str(self.python),
                fix="check that it is a Python executable of this machine",
            ) from error
        if done.returncode:
            raise self._failure(path, done.returncode, done.stderr, refusal)
        return done.stdout

    def _failure(self, worker: Path, code: int, stderr: str, refusal: Path | None) -> ForgeError:
        """The most telling error: its own refusal, a missing package, or the end of what it said."""
        where, name = str(self.python), worker.name
        if refusal is not None and refusal.is_file():
            return WorkerRefusal(_refusal_text(refusal), where=f"{name} in {where}")
        missing = re.findall(r"^ModuleNotFoundError: No module named '([\w.]+)'", stderr, re.MULTILINE)
        if missing:
            module = missing[-1].split(".")[0]
            return ForgeError(
                f"this interpreter has no package '{module}'",
                where=where,
                fix=f"'{where} -m pip install {PACKAGES.get(worker.stem, module)}', or name another interpreter",
            )
        reason = f"exit code {code}" if code > 0 else f"ended by {_signal_name(-code)}"
        lines = [line.rstrip() for line in stderr.splitlines() if line.strip()]
        said = "\n  ".join(lines[-SHOWN_LINES:]) or "(it said nothing)"
        return ForgeError(f"{name} failed ({reason}):\n  {said}", where=where)


def _refusal_text(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["error"])
    except (ValueError, KeyError, TypeError):
        return f"refused, but {path.name} cannot be read"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
