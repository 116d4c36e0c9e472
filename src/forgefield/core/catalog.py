"""Plug-ins by file name: a folder is its own registry."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from forgefield.core.errors import ConfigError
from forgefield.core.settings import Settings


@functools.cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    """Plug-ins of other packages; looking for them reads every installed package, so it is done once."""
    return tuple(entry_points(group=group))


@dataclass(frozen=True)
class Entry:
    """What a plug-in file offers.

    Args:
        settings: the class that validates its block of the configuration.
        build: the class or function that makes it.
        summary: one line for listings.
        training: of an architecture: keys of the train block and what suits it better than their general defaults.
    """

    settings: type[Settings]
    build: Callable[..., Any]
    summary: str = ""
    training: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Catalog:
    """The plug-ins of one package: its modules, and entry points of a group of the same name.

    Names are listed without importing; only the one asked for is imported.
    """

    def __init__(self, package: str) -> None:
        self.package = package

    @property
    def kind(self) -> str:
        """The folder's name, for messages."""
        return self.package.rsplit(".", 1)[-1]

    def names(self) -> list[str]:
        """Return the sorted names of all plug-ins."""
        folder = importlib.import_module(self.package).__path__
        inside = {m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_")}
        return sorted(inside | {e.name for e in _points(self.package)})

    def entry(self, name: str) -> Entry:
        """Return the entry called `name`.

        Raises:
            ConfigError: there is none; the nearest name is given.
        """
        names = self.names()
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}? There are: " if near else "there are: "
            raise ConfigError(f"no {name!r} in {self.kind}", fix=hint + ", ".join(names))
        for point in _points(self.package):
            if point.name == name:
                return point.load()
        return importlib.import_module(f"{self.package}.{name}").ENTRY
