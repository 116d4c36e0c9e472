"""Records as curves of TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forgefield.core.catalog import Entry
from forgefield.core.disk import disk_errors
from forgefield.core.settings import Settings
from forgefield.train.sink import Origin, Part, Row, Sink, numbers_of, numbers_of_parts


class TensorboardSettings(Settings):
    """TensorBoard has no settings."""


class Tensorboard(Sink):
    """Curves over the updates in `tensorboard/`; those later than the checkpoint that is continued are hidden."""

    def __init__(self, settings: TensorboardSettings, origin: Origin) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.folder = origin.folder / "tensorboard"
        self.board = SummaryWriter(str(self.folder), purge_step=origin.update + 1 if origin.update else None)

    def update(self, number: int, values: Mapping[str, float]) -> None:
        """Add `update/...`."""
        with disk_errors(self.folder):
            for name, value in values.items():
                self.board.add_scalar(f"update/{name}", value, number)

    def validation(self, row: Row, parts: Sequence[Part]) -> None:
        """Add `train/...`, `validation/...` and `run/...`."""
        with disk_errors(self.folder):
            for name, value in {**numbers_of(row), **numbers_of_parts(parts)}.items():
                self.board.add_scalar(name, value, int(row["update"] or 0))
            self.board.flush()

    def close(self) -> None:
        """Close the file."""
        self.board.close()


ENTRY = Entry(TensorboardSettings, Tensorboard, "curves in tensorboard/")
