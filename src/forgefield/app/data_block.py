"""The `data` block of commands that need no run.yaml: from paths, flags and --set data.x=... to its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forgefield.app import run_rules
from forgefield.app.run import RunConfig, parse_override
from forgefield.app.validation import validate
from forgefield.app.yaml_source import Node, Place, merge, node_of
from forgefield.core.errors import ConfigError
from forgefield.data.settings import DataSettings


def data_block(paths: Sequence[Path], flags: dict[str, Any], overrides: Sequence[str] = ()) -> DataSettings:
    """Return the settings of the `data` block; the paths are its `lmdb`, data of any format.

    Args:
        paths: files and folders, from the command line.
        flags: further keys of the block; those that are None are left out.
        overrides: `data.key=value` texts.

    Raises:
        ConfigError: one line per mistake.
    """
    block = {name: value for name, value in flags.items() if value is not None}
    if paths:
        block["lmdb"] = [str(path) for path in paths]
    tree = node_of({"data": block}, Place("command line"))
    problems: list[str] = []
    for text in overrides:
        override = parse_override(text)
        if set(override.plain()) != {"data"}:
            raise ConfigError("only keys of the data block matter here", f"--set {text}", "--set data.energy_key=E")
        tree = merge(tree, run_rules.prepare(override, RunConfig, problems))
    tree = run_rules.resolve_paths(tree, Path.cwd())
    settings = None if problems else validate(DataSettings, tree, ("data",), problems)
    if settings is None:
        raise ConfigError("\n".join(problems))
    return settings


def writer_settings(name: str, options: Sequence[str]) -> Any:
    """Return the settings of a format that is written.

    Args:
        name: of the format.
        options: `key=value` texts.

    Raises:
        ConfigError: no such format, key or value.
    """
    from forgefield.core.catalog import Catalog
    from forgefield.data.writer import WRITERS

    block = Catalog(WRITERS).entry(name).settings
    tree = Node({}, Place("--with"))
    problems: list[str] = []
    for text in options:
        tree = merge(tree, parse_override(text))
    settings = validate(block, tree, (), problems)
    if settings is None:
        raise ConfigError("\n".join(problems))
    return settings
