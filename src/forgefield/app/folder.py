"""The folder of one run: what stands where, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from forgefield.core.disk import disk_errors, write_atomic
from forgefield.core.errors import ForgeError

RESOLVED = "run.resolved.yaml"
RECORD = "run.json"
METRICS = "metrics.json"
_SIGNS_OF_A_RUN = (
    RESOLVED,
    RECORD,
    "history.jsonl",
    "checkpoints",
    "statistics.json",
    "split.json",
    "artifacts",
)
_LAYOUT = (
    *_SIGNS_OF_A_RUN, "history.csv", "breakdown.jsonl", "breakdown.csv", "events.jsonl", "trained.json", "tensorboard",
    "wandb", "mlruns", "mlflow_run.txt", "evaluation", "alignn", "xequinet", "report.html",
)  # fmt: skip


class RunFolder:
    """Names every file of a run and guards it against being overwritten.

    Use `RunFolder.create` for a new run and `RunFolder.open` for one that is there.
    """

    def __init__(self, root: str | Path) -> None:
        """Name the files below `root`; touches nothing."""
        self.root = Path(root)
        self.resolved = self.root / RESOLVED
        self.record = self.root / RECORD
        self.statistics = self.root / "statistics.json"
        self.split = self.root / "split.json"
        self.history = self.root / "history.jsonl"
        self.history_csv = self.root / "history.csv"
        self.breakdown = self.root / "breakdown.jsonl"
        self.tensorboard = self.root / "tensorboard"
        self.checkpoints = self.root / "checkpoints"
        self.best = self.checkpoints / "best"
        self.last = self.checkpoints / "last"
        self.artifacts = self.root / "artifacts"
        self.report = self.root / "report.html"

    def evaluation(self, name: str) -> Path:
        """Return the folder of one evaluated data set."""
        return self.root / "evaluation" / name

    def evaluations(self) -> list[Path]:
        """Return the folders that hold metrics: one per evaluated data set, or this folder itself."""
        found = [*self.root.glob(f"evaluation/*/{METRICS}"), *self.root.glob(METRICS)]
        return sorted(path.parent for path in found)

    @property
    def holds_a_run(self) -> bool:
        """Say whether a run has been written here."""
        return any((self.root / name).exists() for name in _SIGNS_OF_A_RUN)

    @classmethod
    def create(cls, root: str | Path) -> RunFolder:
        """Make the folder of a new run.

        Other files in it (data, notes) are left alone.

        Raises:
            ForgeError: a run, or a plain file, is already there.
        """
        folder = cls(root)
        if folder.root.exists() and not folder.root.is_dir():
            raise ForgeError("run_dir is a file, not a folder", str(root), "choose another run_dir")
        if folder.holds_a_run:
            found = next(name for name in _SIGNS_OF_A_RUN if (folder.root / name).exists())
            raise ForgeError(
                f"run_dir already holds a run (it has {found})",
                str(root),
                "choose another run_dir, or continue that run: forgefield resume RUN_DIR",
            )
        with disk_errors(root):
            folder.root.mkdir(parents=True, exist_ok=True)
        return folder

    @classmethod
    def open(cls, root: str | Path) -> RunFolder:
        """Take the folder of a run that is there.

        Raises:
            ForgeError: there is none.
        """
        folder = cls(root)
        if not folder.resolved.is_file():
            state = "holds no run" if folder.root.is_dir() else "does not exist"
            raise ForgeError(
                f"run_dir {state}: no {RESOLVED}", str(root), "give the run_dir of a finished or stopped run"
            )
        return folder

    @classmethod
    @contextlib.contextmanager
    def claim(cls, root: str | Path) -> Iterator[RunFolder]:
        """Create a run folder, and take it away again if nothing worth keeping came of it.

        A run that fails before its first checkpoint leaves no trace: the same command can be repeated.
        """
        existed = Path(root).is_dir()
        folder = cls.create(root)
        before = set(folder.root.iterdir())
        try:
            yield folder
        except BaseException:
            if not any(folder.checkpoints.glob("*/*")):
                folder._discard(before, keep_root=existed)
            raise

    def clear(self) -> None:
        """Remove what a run has written here; other files stay."""
        self._discard(set(), keep_root=True)

    def _discard(self, before: set[Path], keep_root: bool) -> None:
        """Remove the files of the layout that were not there `before`, and the folder if it is then empty."""
        for path in (self.root / name for name in _LAYOUT):
            if path in before or not path.exists():
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if not keep_root and not any(self.root.iterdir()):
            self.root.rmdir()


def write_json(path: str | Path, content: object) -> Path:
    """Write JSON atomically. Numbers that are not finite become null, since JSON has no word for them."""
    return write_atomic(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        ForgeError: it is missing or damaged.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ForgeError("no such file", str(path), "give the folder of a complete run") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ForgeError(f"not readable as JSON: {error}", str(path), "restore the file or repeat the run") from None


def _finite(value: object) -> object:
    """Return `value` as JSON can hold it: numpy numbers plain, NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _finite(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
