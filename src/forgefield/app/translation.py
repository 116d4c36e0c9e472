"""Settings of another program -> run.yaml. Each dialect is one table in `app/translate`; the mechanism stands here.

Every key that the foreign file gives ends in one of three places: a key of run.yaml, a comment that says why it needs
none, or the list of keys without a counterpart, which is an error unless `--force` writes it as a comment too.
"""

from __future__ import annotations

import ast
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from forgefield.app.run import ARCHITECTURES, RunConfig
from forgefield.app.settings_help import field_at, nearest
from forgefield.app.yaml_source import Node, read_yaml
from forgefield.core.catalog import Catalog
from forgefield.core.errors import ConfigError
from forgefield.core.settings import Settings

DIALECTS = "forgefield.app.translate"
Kind = Literal["text", "whole", "number", "number or none", "truth", "flag", "list"]
_TRUE, _FALSE = ("true", "yes", "t", "y", "1", "on"), ("false", "no", "f", "n", "0", "off")


class DialectSettings(Settings):
    """A dialect has no settings of its own."""


@dataclass(frozen=True)
class Key:
    """One key of the other program: what it holds and what it is when it is not given."""

    kind: Kind
    default: Any = None


@dataclass(frozen=True)
class Line:
    """One key of run.yaml: its value and what must be said about it."""

    value: Any
    comment: str = ""


@dataclass(frozen=True)
class Remark:
    """A foreign key that became none of ours, and why."""

    key: str
    value: Any
    why: str


class Given:
    """The foreign settings: those of the file over the program's own defaults. It keeps count of what was read.

    Args:
        keys: all keys of the program.
        nodes: what the file gives, by key.
        source: its path.
    """

    def __init__(self, keys: Mapping[str, Key], nodes: Mapping[str, Node], source: Path) -> None:
        self.source = source
        self.title = source.name
        self.places = {name: str(node.place) for name, node in nodes.items()}
        self.values = {name: key.default for name, key in keys.items()}
        self.values |= {name: _typed(keys[name], node.plain(), name, node) for name, node in nodes.items()}
        self.defaults = {name: key.default for name, key in keys.items()}
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """Return a value; the key counts as dealt with."""
        self.read.add(name)
        return self.values[name]

    def says(self, name: str) -> bool:
        """Say whether the file gives a key."""
        return name in self.places

    def differs(self, name: str) -> bool:
        """Say whether a key is given with another value than the program's default."""
        return self.says(name) and self.values[name] != self.defaults[name]

    def wrong(self, name: str, what: str, fix: str | None = None) -> ConfigError:
        """Return the complaint about a value of the file."""
        return ConfigError(f"{name}: {what}", self.places.get(name, str(self.source)), fix)


@dataclass
class Sheet:
    """What a translation comes to.

    Args:
        folder: of the run.yaml to be written, from which its paths are seen.
        lines: keys of run.yaml by dotted name, in the order they are written.
        needless: foreign keys that need nothing.
        lost: foreign keys without a counterpart.
    """

    folder: Path
    lines: dict[str, Line] = field(default_factory=dict)
    needless: list[Remark] = field(default_factory=list)
    lost: list[Remark] = field(default_factory=list)

    def put(self, path: str, value: Any, comment: str = "") -> None:
        """Set a key of run.yaml."""
        self.lines[path] = Line(value, comment)

    def knows(self, path: str) -> bool:
        """Say whether run.yaml has a key, so that a table may name keys of a later version."""
        return field_at(RunConfig, tuple(path.split("."))) is not None


class Dialect(ABC):
    """The settings of one program.

    `keys` lists them all; `translate` fills a sheet. What it neither reads nor remarks upon is a fault, and the
    mechanism says so.
    """

    program: str
    keys: Mapping[str, Key]
    aliases: Mapping[str, str]

    def read(self, words: Sequence[str]) -> Given:
        """Read what the command line names: one settings file, unless a dialect says otherwise.

        Raises:
            ConfigError: there are several, or the file cannot be read.
        """
        if len(words) != 1:
            raise ConfigError(f"{self.program} has one settings file", words[1], f"keep one of {', '.join(words)}")
        return read_given(self, Path(words[0]))

    @abstractmethod
    def translate(self, given: Given, sheet: Sheet) -> None:
        """Write every key of `given` to the sheet."""


def open_dialect(name: str) -> Dialect:
    """Return the dialect of a program.

    Raises:
        ConfigError: there is no table for it; those that there are are named.
    """
    catalog = Catalog(DIALECTS)
    if name not in catalog.names():
        near = nearest(name, catalog.names())
        hint = f"Did you mean {near!r}? " if near else ""
        raise ConfigError(f"no dialect {name!r}. {hint}There are: {', '.join(catalog.names())}", "--from")
    return catalog.entry(name).build(DialectSettings())


def read_given(dialect: Dialect, path: Path) -> Given:
    """Read the settings file of another program: YAML, or the arguments of a command line.

    Raises:
        ConfigError: it cannot be read, or has a key or value that the program does not know.
    """
    from forgefield.app.argument_file import is_arguments, read_arguments

    flags = {name for name, key in dialect.keys.items() if key.kind == "flag"}
    tree = read_arguments(path, flags, dialect.aliases) if is_arguments(path) else read_yaml(path)
    if not tree.is_mapping or not tree.value:
        raise ConfigError(f"holds no settings of {dialect.program}", str(path), "give its YAML file or its arguments")
    nodes: dict[str, Node] = {}
    for written, node in tree.value.items():
        name = dialect.aliases.get(str(written), str(written))
        if name not in dialect.keys:
            near = nearest(written, [*dialect.keys, *dialect.aliases])
            hint = f" Did you mean {near!r}?" if near else ""
            raise ConfigError(f"{written}: {dialect.program} has no such key.{hint}", str(node.place))
        if name in nodes:
            raise ConfigError(f"{written}: the same as {name}, which stands there too", str(node.place), "keep one")
        nodes[name] = node
    return Given(dialect.keys, nodes, path)


def translate(dialect: Dialect, given: Given, folder: Path) -> Sheet:
    """Fill a sheet; nothing that the file gives may be left over.

    Raises:
        ConfigError: a value cannot be understood.
    """
    sheet = Sheet(folder.absolute())
    dialect.translate(given, sheet)
    told = given.read | {remark.key for remark in [*sheet.needless, *sheet.lost]}
    forgotten = sorted(name for name in given.places if name not in told)
    if forgotten:
        raise AssertionError(f"the table of {dialect.program} says nothing of {', '.join(forgotten)}")
    return sheet


def refuse_lost(sheet: Sheet, given: Given) -> None:
    """Refuse a translation that leaves something out.

    Raises:
        ConfigError: keys have no counterpart; each with its reason.
    """
    if sheet.lost:
        lines = [f"{given.places.get(r.key, given.source)}: {r.key}: {r.why}" for r in sheet.lost]
        lines.append("nothing was written. Fix: take these keys out, or give --force to write them as comments")
        raise ConfigError("\n".join(lines))


def own_default(path: str, backend: str = "mace") -> Any:
    """Return the default of a key of run.yaml; below `model.` stand the keys of the architecture too.

    Raises:
        KeyError: there is no such key.
    """
    parts = tuple(path.split("."))
    field_info = field_at(RunConfig, parts)
    if field_info is None and parts[0] == "model":
        field_info = field_at(Catalog(ARCHITECTURES).entry(backend).settings, parts[1:])
    if field_info is None:
        raise KeyError(path)
    return None if field_info.is_required() else field_info.get_default(call_default_factory=True)


def seen_from(path: str, given: Given, sheet: Sheet) -> tuple[str, str]:
    """Return a path of the foreign file as run.yaml sees it, and a comment if nothing is there.

    Programs take paths from the folder they are started in, which is not known: the file's own folder is tried first,
    then the current one.
    """
    places = [given.source.absolute().parent, Path.cwd()]
    found = next((folder / path for folder in places if (folder / path).exists()), places[0] / path)
    comment = "" if found.exists() else "not found from here: set the path right"
    return str(path) if Path(path).is_absolute() else os.path.relpath(found, sheet.folder), comment


def _typed(key: Key, value: Any, name: str, node: Node) -> Any:
    """Return a value as the program would read it; null is none where that is the default.

    Raises:
        ConfigError: it is not of the kind that the key holds.
    """
    kind = key.kind
    try:
        return None if value is None and key.default is None else _read(kind, value)
    except (ValueError, TypeError):
        what = {"whole": "a whole number", "truth": "true or false", "flag": "true or false"}.get(kind, f"a {kind}")
        raise ConfigError(f"{name}: got {value!r}, expected {what}", str(node.place)) from None


def _read(kind: Kind, value: Any) -> Any:
    if kind in ("truth", "flag"):
        if isinstance(value, bool):
            return value
        if str(value).lower() not in _TRUE + _FALSE:
            raise ValueError
        return str(value).lower() in _TRUE
    if value is None or (kind == "number or none" and str(value).lower() in ("none", "null")):
        return None
    if isinstance(value, bool) and kind in ("whole", "number", "number or none"):
        raise ValueError
    if kind == "whole":
        return int(str(value))
    if kind in ("number", "number or none"):
        return float(value)
    return value if kind == "list" or isinstance(value, dict | list) else str(value)


def literal(given: Given, name: str) -> Any:
    """Return a value that the program writes as Python text, such as '[64, 64, 64]'.

    Raises:
        ConfigError: it is no literal.
    """
    value = given[name]
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        raise given.wrong(name, f"{value!r} is neither a number nor a list nor a mapping") from None
