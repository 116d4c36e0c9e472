"""ForgeField's own store: a folder of typed arrays in LMDB shards, checked when written and when read."""

from __future__ import annotations

from pathlib import Path

from forgefield.core.catalog import Entry
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits
from forgefield.data.reader import Frames, Reader, ReaderSettings
from forgefield.data.store.frames import StoreFrames, is_store
from forgefield.data.store.renamed import RenamedFrames


class StoreSettings(ReaderSettings):
    """ForgeField's own store; everything in it is in eV and Å."""


class StoreReader(Reader):
    """Decodes records as they are; where keys or units are given, their labels are read anew by these."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is a folder with the header of a store."""
        return is_store(path)

    def open(self, path: Path) -> Frames:
        """Return the structures of a store.

        Raises:
            DataError: it is damaged, being written, of another version, or a key is not in it.
        """
        settings, skip = self.settings, self.settings.on_error == "skip"
        frames = StoreFrames(path, skip=skip)
        if settings.keys == LabelKeys() and settings.units == LabelUnits():
            return frames
        return RenamedFrames(frames, settings.keys, settings.units, skip=skip)


ENTRY = Entry(StoreSettings, StoreReader, "ForgeField's own store, a folder")
