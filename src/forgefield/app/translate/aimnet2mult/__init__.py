"""AIMNet2mult: train.yaml and model.yaml of its multi-fidelity training, and key=value words of its command line.

Fidelities, which are numbers there, become the levels fid0, fid1, ...: AIMNet2mult's own scripts and compiled files
have these names. Where its settings were without effect, the translation says so and what they do now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from forgefield.app.settings_help import nearest
from forgefield.app.translate.aimnet2mult.batches import batches, length, validation
from forgefield.app.translate.aimnet2mult.keys import KEYS
from forgefield.app.translate.aimnet2mult.levels import data, fidelity, identity, reference_energies
from forgefield.app.translate.aimnet2mult.losses import losses, unused_labels
from forgefield.app.translate.aimnet2mult.model import model
from forgefield.app.translate.aimnet2mult.optimizer import optimizer
from forgefield.app.translate.aimnet2mult.reading import Settings, read_settings
from forgefield.app.translate.aimnet2mult.records import checkpoints, metrics, wandb
from forgefield.app.translate.aimnet2mult.schedule import schedule
from forgefield.app.translation import Dialect, DialectSettings, Given, Remark, Sheet
from forgefield.core.catalog import Entry

PARTS = (
    identity, data, fidelity, reference_energies, model, batches, length, losses, unused_labels, optimizer, schedule,
    validation, checkpoints, wandb, metrics,
)  # fmt: skip


class Aimnet2multDialect(Dialect):
    """AIMNet2mult of 2026; dotted keys of both files."""

    program = "AIMNet2mult"
    keys = KEYS
    aliases: Mapping[str, str] = MappingProxyType({})

    def __init__(self, settings: DialectSettings) -> None:
        self.settings = settings

    def read(self, words: Sequence[str]) -> Given:
        """Read train.yaml, model.yaml and key=value words, in any order."""
        return read_settings(words)

    def translate(self, given: Given, sheet: Sheet) -> None:
        """Write every key of `given` to the sheet."""
        assert isinstance(given, Settings)
        for part in PARTS:
            part(given, sheet)
        for key in sorted(given.unknown):
            near = nearest(key, KEYS)
            hint = f"; did you mean {near}?" if near else ""
            sheet.lost.append(Remark(key, given.get(key), f"AIMNet2mult has no such key{hint}"))


ENTRY = Entry(DialectSettings, Aimnet2multDialect, "AIMNet2mult, train.yaml and model.yaml")
