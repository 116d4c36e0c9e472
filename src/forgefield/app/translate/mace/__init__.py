"""mace-torch 0.3.x: the settings of run_train, from YAML or from its command line."""

from __future__ import annotations

from forgefield.app.translate.mace.data import data, identity
from forgefield.app.translate.mace.keys import ALIASES, KEYS
from forgefield.app.translate.mace.model import model
from forgefield.app.translate.mace.remarks import remark
from forgefield.app.translate.mace.training import losses, records, schedule, stage_two, updates
from forgefield.app.translation import Dialect, DialectSettings, Given, Sheet
from forgefield.core.catalog import Entry


class MaceDialect(Dialect):
    """run_train of mace-torch 0.3.16; a table of keys, and rules where a key means something else here."""

    program = "mace-torch"
    keys = KEYS
    aliases = ALIASES

    def __init__(self, settings: DialectSettings) -> None:
        self.settings = settings

    def translate(self, given: Given, sheet: Sheet) -> None:
        """Write every key of `given` to the sheet."""
        for part in (identity, data, model, losses, updates, schedule, stage_two, records, remark):
            part(given, sheet)


ENTRY = Entry(DialectSettings, MaceDialect, "mace-torch 0.3.x, run_train")
