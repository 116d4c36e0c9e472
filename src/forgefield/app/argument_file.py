"""A file that holds the arguments of a command line: one per line, or a whole shell command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

from forgefield.app.yaml_source import Node, Place, merge, read_yaml
from forgefield.core.errors import ConfigError


def is_arguments(path: Path) -> bool:
    """Say whether a file holds arguments: some line has a word that begins with two hyphens, as YAML keys do not."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False  # the reader of YAML says what is wrong
    return any(re.match(r"^\s*([\w./\\$-]+\s+)*--[A-Za-z_]", line) for line in text.splitlines())


def read_arguments(path: Path, flags: Collection[str], aliases: Mapping[str, str]) -> Node:
    """Read `--key value`, `--key=value` and `--flag` of a file; a `--config FILE` among them is read below the others.

    Args:
        path: the file; comments and line ends with a backslash are those of a shell.
        flags: keys that take no value.
        aliases: second names of keys.

    Raises:
        ConfigError: a word belongs to no key, or a key stands twice.
    """
    items: dict[str, list[tuple[str, Place]]] = {}
    key: str | None = None
    for word, line in _words(path):
        place = Place(str(path), line, 1)
        if re.match(r"^--[A-Za-z_]", word):
            key, equals, value = word[2:].partition("=")
            name = aliases.get(key, key)
            if name in items:
                raise ConfigError(f"--{key} stands twice", str(place), "keep one of the two")
            items[name] = [(value, place)] if equals else [("", place)]
            key = None if equals or name in flags else name
        elif key is not None:
            before = [] if items[key][0][0] == "" else items[key]
            items[key] = [*before, (word, place)]
        elif items:
            raise ConfigError(f"{word!r} belongs to no argument", str(place), "put it behind its --key")
    tree = Node({name: _node(name, words, flags) for name, words in items.items()}, Place(str(path)))
    below = tree.child("config")
    if below is None:
        return tree
    return merge(read_yaml(path.parent / str(below.value)), tree.with_child("config", None))


def _node(name: str, words: list[tuple[str, Place]], flags: Collection[str]) -> Node:
    place = words[0][1]
    if name in flags and words[0][0] == "":
        return Node(True, place)
    if len(words) > 1:
        return Node([Node(text, where) for text, where in words], place)
    return Node(words[0][0], place)


def _words(path: Path) -> list[tuple[str, int]]:
    """Split the file as a shell would, each word with its line.

    Raises:
        ConfigError: a quotation mark is not closed.
    """
    text = path.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    reader = shlex.shlex(text, posix=True, punctuation_chars="")
    reader.whitespace_split, reader.commenters = True, "#"
    found: list[tuple[str, int]] = []
    try:
        for word in reader:
            found.append((word.strip(), reader.lineno))
    except ValueError as error:
        raise ConfigError(f"cannot be read as arguments: {error}", f"{path}:{reader.lineno}") from None
    return [(word, line) for word, line in found if word]
