"""Records as a run of Weights & Biases, offline unless asked otherwise."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.disk import disk_errors, write_atomic
from forgefield.core.errors import ForgeError
from forgefield.core.settings import Settings
from forgefield.train.sink import Origin, Part, Row, Sink, numbers_of, numbers_of_parts


class WandbSettings(Settings):
    """`train.wandb`: the run of Weights & Biases."""

    mode: Literal["offline", "online"] = Field(
        default="offline",
        description="offline: files below run_dir/wandb, nothing leaves the machine; `wandb sync` sends them later. "
        "online: sent as training goes on.",
    )
    project: str = Field(default="forgefield", min_length=1, description="Project that the run belongs to.")
    entity: str | None = Field(
        default=None, description="User or team that owns the project; null = the account's own."
    )
    name: str | None = Field(default=None, description="Name shown for the run; null = the name of run_dir.")
    tags: tuple[str, ...] = Field(default=(), description="Tags of the run.")


class Wandb(Sink):
    """Curves over `update`; a fit that is continued goes on under the same identity, kept in `wandb/identity.txt`.

    Offline each attempt leaves a folder of its own; `wandb sync --append` joins them.
    """

    needs: ClassVar[str | None] = "wandb"

    def __init__(self, settings: WandbSettings, origin: Origin) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would report its own faults over the network
        import wandb  # pyright: ignore[reportMissingImports]  # optional, slow to import

        identity = origin.folder / "wandb" / "identity.txt"
        with disk_errors(identity):
            known = _identity(identity)
        about: dict[str, Any] = {"resume": "allow"} if settings.mode == "online" else {}
        try:
            self.run = wandb.init(
                mode=settings.mode,
                project=settings.project,
                entity=settings.entity,
                name=settings.name or origin.folder.resolve().name,
                tags=list(settings.tags) or None,
                id=known,
                dir=str(origin.folder),
                config=dict(origin.train),
                settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True),
                **about,
            )
        except wandb.Error as error:
            raise ForgeError(
                f"Weights & Biases did not start: {error}", "train.wandb", "set mode: offline, or log in with wandb"
            ) from error
        self.run.define_metric("*", step_metric="update")

    def update(self, number: int, values: Mapping[str, float]) -> None:
        """Log `update/...`."""
        self.run.log({"update": number, **{f"update/{name}": value for name, value in values.items()}})

    def validation(self, row: Row, parts: Sequence[Part]) -> None:
        """Log `train/...`, `validation/...` and `run/...`."""
        self.run.log({"update": row["update"], **numbers_of(row), **numbers_of_parts(parts)})

    def close(self) -> None:
        """Finish the run's files."""
        self.run.finish()


def _identity(path: Path) -> str:
    """Return the identity of the run in this folder; a new one is drawn and kept."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, secrets.token_hex(4) + "\n")
    return path.read_text(encoding="utf-8").strip()


ENTRY = Entry(WandbSettings, Wandb, "a run of Weights & Biases, offline by default")
