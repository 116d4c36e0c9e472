"""Extended XYZ, with all digits of every number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from forgefield.core.catalog import Entry
from forgefield.core.disk import disk_errors
from forgefield.core.structure import Structure
from forgefield.data.extxyz.line import frame_text
from forgefield.data.label_names import TargetKey
from forgefield.data.writer import Writer, WriterSettings

NAMED = {"charges", "spin_charges", "dipole", "quadrupole", "polarizability"}


class ExtxyzFileSettings(WriterSettings):
    """One text file as ASE reads it, in eV and Å."""


class ExtxyzFile(Writer):
    """Written beside and put at its path when it is complete.

    Args:
        path: the file.
        settings: there are none.
    """

    def __init__(self, path: Path, settings: ExtxyzFileSettings) -> None:
        super().__init__(path, settings)
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._stream: IO[str] | None = None
        self._notes: set[str] = set()
        self._keys: set[str] = set()

    def _open(self) -> IO[str]:
        if self._stream is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._beside.open("w", encoding="utf-8", newline="\n")
        return self._stream

    def add(self, structure: Structure) -> None:
        """Append a frame.

        Raises:
            DataError: it is wrong.
        """
        structure.check()
        text = frame_text(structure, self._notes)
        with disk_errors(self.path):
            self._open().write(text)
        self._keys |= {f"data.{n}_key={n}" for n in NAMED & structure.labels.keys()}
        self._keys |= {f"data.base.{n}=base_{n}" for n in structure.base}
        self._keys |= {f"data.features.{n}=feature_{n}" for n in structure.features}
        for name, quantity in structure.declared.items():
            self._keys.add(f'"data.targets.{name}={{{_words(TargetKey.of(quantity))}}}"')
        self._keys |= {"data.force_mask_key=force_mask"} if structure.force_mask is not None else set()

    def finish(self) -> tuple[str, ...]:
        """Put the file at its path."""
        with disk_errors(self.path):
            stream = self._open()
            stream.flush()
            os.fsync(stream.fileno())
            stream.close()
            os.replace(self._beside, self.path)
        keys = " ".join(f"--set {key}" for key in sorted(self._keys))
        named = (f"names that are to be given when it is read: {keys}",) if keys else ()
        return (*sorted(self._notes), *named)

    def abandon(self) -> None:
        """Take away what was written."""
        if self._stream is not None:
            self._stream.close()
        self._beside.unlink(missing_ok=True)


def _words(target: TargetKey) -> str:
    """Return what is to be said of a target when it is read."""
    words = f"key: {target.key}, per: {target.per}, components: {target.components}, unit: '{target.unit}'"
    words += f", rotates: {target.rotates}" if target.rotates != "not" else ""
    words += ", symmetric: false" if not target.symmetric else ""
    return words if target.threshold is None else f"{words}, threshold: {target.threshold:g}"


ENTRY = Entry(ExtxyzFileSettings, ExtxyzFile, "extended XYZ, one text file")
