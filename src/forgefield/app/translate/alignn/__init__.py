"""alignn: config.json of train_alignn.py, and its arguments as key=value words.

What alignn minimises is kept: the mean absolute errors of each batch, with its weights. Keys of its schedule that it
took and did not use do here what they say, with a comment; `published=true` leaves them without effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from forgefield.app.dotted_settings import read_dotted
from forgefield.app.translate.alignn.data import data, identity
from forgefield.app.translate.alignn.keys import ALIASES, KEYS, NEEDLESS, OF_MODELS
from forgefield.app.translate.alignn.losses import losses
from forgefield.app.translate.alignn.model import model
from forgefield.app.translate.alignn.splitting import split
from forgefield.app.translate.alignn.training import training
from forgefield.app.translation import Dialect, DialectSettings, Given, Remark, Sheet
from forgefield.core.catalog import Entry


class AlignnDialect(Dialect):
    """alignn of 2024 to 2026."""

    program = "alignn"
    keys = KEYS
    aliases: Mapping[str, str] = MappingProxyType(ALIASES)

    def __init__(self, settings: DialectSettings) -> None:
        self.settings = settings

    def read(self, words: Sequence[str]) -> Given:
        """Read config.json and key=value words; what they do not give are the defaults of the model they name."""
        given = read_dotted(self.program, words, self.keys, self.aliases)
        for key, value in OF_MODELS.get(given["model.name"], {}).items():
            if not given.says(f"model.{key}"):
                given.values[f"model.{key}"] = value
        return given

    def translate(self, given: Given, sheet: Sheet) -> None:
        """Write every key of `given` to the sheet."""
        for part in (identity, data, split, model, losses, training):
            part(given, sheet)
        for key, why in NEEDLESS.items():
            if given.says(key):
                sheet.needless.append(Remark(key, given[key], why))


ENTRY = Entry(DialectSettings, AlignnDialect, "alignn, config.json and the arguments of train_alignn.py")
