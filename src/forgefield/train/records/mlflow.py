"""Records as a run of MLflow, in files below run_dir unless asked otherwise."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.disk import disk_errors, write_atomic
from forgefield.core.errors import ForgeError
from forgefield.core.settings import Settings
from forgefield.train.sink import Origin, Part, Row, Sink, numbers_of, numbers_of_parts

FOLDER = "mlruns"
MOST = 1000  # metrics that one call may carry
LONGEST = 500  # characters of a parameter


class MlflowSettings(Settings):
    """`train.mlflow`: the run of MLflow."""

    tracking_uri: str | None = Field(
        default=None,
        description="Where MLflow keeps runs: a server's address or sqlite:///FILE; null = files in run_dir/mlruns.",
    )
    experiment: str = Field(default="forgefield", min_length=1, description="Experiment that the run belongs to.")
    name: str | None = Field(default=None, description="Name shown for the run; null = the name of run_dir.")


class Mlflow(Sink):
    """Metrics over the updates and the `train` block as parameters.

    A fit that is continued goes on in the same run, whose identity is kept in `mlflow_run.txt`. MLflow takes nothing
    back: updates that are computed again after an interruption stand there twice, with the same numbers.
    """

    needs: ClassVar[str | None] = "mlflow"

    def __init__(self, settings: MlflowSettings, origin: Origin) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would report its use over the network
        if settings.tracking_uri is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions want to be asked for plain files
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]
        from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        self.folder, self._metric = origin.folder, Metric
        try:
            with disk_errors(origin.folder):
                uri = settings.tracking_uri or (origin.folder / FOLDER).resolve().as_uri()
                self.client = MlflowClient(tracking_uri=uri)
                self.run_id = self._open(settings, origin)
        except MlflowException as error:
            first = str(error).splitlines()[0]
            raise ForgeError(
                f"MLflow did not start: {first}", "train.mlflow.tracking_uri", "give a server that answers, or null"
            ) from error

    def _open(self, settings: MlflowSettings, origin: Origin) -> str:
        """Take up the run of this folder, or begin one."""
        known = origin.folder / "mlflow_run.txt"
        if known.is_file():
            identity = known.read_text(encoding="utf-8").strip()
            self.client.set_terminated(identity, "RUNNING")
            return identity
        found = self.client.get_experiment_by_name(settings.experiment)
        experiment = found.experiment_id if found else self.client.create_experiment(settings.experiment)
        name = settings.name or origin.folder.resolve().name
        identity = str(self.client.create_run(experiment, run_name=name).info.run_id)
        for key, value in _flat(origin.train):
            self.client.log_param(identity, key, value[:LONGEST])
        write_atomic(known, identity + "\n")
        return identity

    def update(self, number: int, values: Mapping[str, float]) -> None:
        """Log `update/...`."""
        self._log(number, {f"update/{name}": value for name, value in values.items()})

    def validation(self, row: Row, parts: Sequence[Part]) -> None:
        """Log `train/...`, `validation/...` and `run/...`."""
        self._log(int(row["update"] or 0), {**numbers_of(row), **numbers_of_parts(parts)})

    def _log(self, number: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [self._metric(name, float(value), now, number) for name, value in values.items()]
        with disk_errors(self.folder):
            for start in range(0, len(metrics), MOST):
                self.client.log_batch(self.run_id, metrics[start : start + MOST])

    def close(self) -> None:
        """Mark the run as ended."""
        self.client.set_terminated(self.run_id)


def _flat(block: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in block.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, str(value)))
    return found


ENTRY = Entry(MlflowSettings, Mlflow, "a run of MLflow, in files below run_dir by default")
