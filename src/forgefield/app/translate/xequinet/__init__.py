"""XequiNet: config.yaml of `xeq train`, with key=value words over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from forgefield.app.dotted_settings import read_dotted
from forgefield.app.translate.xequinet.data import data, identity
from forgefield.app.translate.xequinet.keys import ALIASES, KEYS
from forgefield.app.translate.xequinet.losses import losses
from forgefield.app.translate.xequinet.model import model
from forgefield.app.translate.xequinet.schedule import schedule, stopping
from forgefield.app.translate.xequinet.training import remarks, training
from forgefield.app.translation import Dialect, DialectSettings, Given, Sheet
from forgefield.core.catalog import Entry


class XequinetDialect(Dialect):
    """XequiNet of 2025; dotted keys of the sections model, data and trainer. `md` is not of training."""

    program = "XequiNet"
    keys = KEYS
    aliases: Mapping[str, str] = MappingProxyType(ALIASES)

    def __init__(self, settings: DialectSettings) -> None:
        self.settings = settings

    def read(self, words: Sequence[str]) -> Given:
        """Read config.yaml and key=value words."""
        return read_dotted(self.program, words, self.keys, self.aliases)

    def translate(self, given: Given, sheet: Sheet) -> None:
        """Write every key of `given` to the sheet."""
        for part in (identity, data, model, losses, training, schedule, stopping, remarks):
            part(given, sheet)


ENTRY = Entry(DialectSettings, XequinetDialect, "XequiNet, config.yaml of xeq train")
