"""One exception tree: what is wrong, where, and how to mend it."""

from __future__ import annotations

LONGEST = 1000  # letters shown of what is wrong: damaged files put anything into it


class ForgeError(Exception):
    """Something the user can mend.

    Args:
        what: what is wrong, with the offending value.
        where: file, line, frame or setting where it was found.
        fix: the next step that mends it.
    """

    def __init__(self, what: str, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        what = self.what if len(self.what) <= LONGEST else f"{self.what[:LONGEST]} ..."
        text = f"{self.where}: {what}" if self.where else what
        if self.fix:
            text = f"{text if text.endswith(('.', '?', '!')) else text + '.'} Fix: {self.fix}"
        return text


class ConfigError(ForgeError):
    """A setting or command line that cannot be carried out."""


class DataError(ForgeError):
    """A data set that cannot be read or must not be trained on."""


class ModelError(ForgeError):
    """Weights, bundles or model settings that do not fit."""


class DeviceError(ForgeError):
    """A device or resource that is not there."""
