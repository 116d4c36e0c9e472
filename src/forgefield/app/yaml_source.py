"""YAML read safely, with the line and column of every key kept for error messages.

A file becomes a tree of `Node`: plain values, each with the place it was written. Defaults, `runs:` entries, `--set`
and command line flags are merged as trees, so that every later message can still name where a value came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forgefield.core.errors import ConfigError

_CORE_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_CORE_TAG + kind for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge")}
_MAX_NODES = 100_000
_MAX_DEPTH = 50


@dataclass(frozen=True)
class Place:
    """Where something was written: a file with line and column, or a command line flag."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Node:
    """One value and its place.

    Args:
        value: a scalar, a dict of nodes, or a list of nodes.
        place: where its key stands, or the value itself where it has no key.
        key: its key as written, when an alias has since been replaced by the real name.
    """

    value: Any
    place: Place
    key: str | None = None

    @property
    def is_mapping(self) -> bool:
        """Say whether this is a block of keys."""
        return isinstance(self.value, dict)

    def child(self, key: Any) -> Node | None:
        """Return the node under `key` or list position, or None."""
        if isinstance(self.value, dict):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]
        return None

    def find(self, *path: Any) -> Node | None:
        """Return the node at `path`, or None."""
        node: Node | None = self
        for key in path:
            node = node.child(key) if node is not None else None
        return node

    def with_child(self, key: Any, child: Node | None) -> Node:
        """Return a copy of this mapping in which `key` is `child`; None removes it."""
        items = {k: v for k, v in self.value.items() if k != key or child is not None}
        if child is not None:
            items[key] = child
        return replace(self, value=items)

    def plain(self) -> Any:
        """Return the values alone."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def locate(root: Node, path: tuple[Any, ...]) -> tuple[Place, str]:
    """Return the place of the deepest node that exists on `path`, and the dotted path as the user wrote it."""
    node, words, known = root, [], True
    for part in path:
        child = node.child(part) if known else None
        known = known and child is not None
        node = child if child is not None else node
        words.append(str(child.key) if child is not None and child.key is not None else str(part))
    return node.place, ".".join(words)


def merge(below: Node, above: Node) -> Node:
    """Return `below` with `above` written over it; blocks are merged key by key, everything else is replaced."""
    if not (below.is_mapping and above.is_mapping):
        return above
    items = dict(below.value)
    for key, node in above.value.items():
        items[key] = merge(items[key], node) if key in items else node
    return replace(above, value=items)


def node_of(value: Any, place: Place) -> Node:
    """Return a tree of plain values that all stand at one place (a flag, a default)."""
    if isinstance(value, dict):
        return Node({key: node_of(item, place) for key, item in value.items()}, place)
    if isinstance(value, list | tuple):
        return Node([node_of(item, place) for item in value], place)
    return Node(str(value) if isinstance(value, Path) else value, place)


def read_yaml(path: str | Path) -> Node:
    """Read one YAML file.

    Raises:
        ConfigError: it is missing, not text, not YAML, or has duplicate keys, custom tags or several documents.
    """
    name = str(path)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("no such file", name, "check the path, or write one with `forgefield init DATA`") from None
    except IsADirectoryError:
        raise ConfigError("this is a folder", name, "give the YAML file itself, e.g. run.yaml") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"not a text file in UTF-8 (byte {error.start})", name, "save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", name) from None
    return parse_yaml(text, Place(name))


def parse_yaml(text: str, source: Place, *, positions: bool = True) -> Node:
    """Parse YAML text into a tree.

    Args:
        text: the YAML.
        source: what to call it in messages.
        positions: give each node its line and column; False for a value on the command line.
    """
    from ruamel.yaml import YAML  # here, so that --help need not wait for it
    from ruamel.yaml.error import YAMLError

    reader = YAML(typ="safe", pure=True)
    try:
        top = reader.compose(text)
    except YAMLError as error:
        raise ConfigError(*_syntax_error(error, source, positions)) from None
    except RecursionError:
        raise ConfigError("nested too deeply", str(source)) from None
    if top is None:
        return Node(None, source)
    return _Builder(reader.constructor, source, positions).build(top)


class _Builder:
    """Turns the parser's nodes into ours, with plain values only."""

    def __init__(self, constructor: Any, source: Place, positions: bool) -> None:
        self._constructor = constructor
        self._source = source
        self._positions = positions
        self._count = 0

    def build(self, node: Any, depth: int = 0) -> Node:
        self._count += 1
        if depth > _MAX_DEPTH or self._count > _MAX_NODES:
            raise self._error(node, "too large or too deep for a configuration (an anchor that contains itself?)")
        place = self._place(node)
        kind = type(node).__name__
        self._refuse_custom_tag(node)
        if kind == "MappingNode":
            return Node(self._mapping(node, depth), place)
        if kind == "SequenceNode":
            return Node([self.build(item, depth + 1) for item in node.value], place)
        return Node(self._scalar(node), place)

    def _mapping(self, node: Any, depth: int) -> dict[Any, Node]:
        own: dict[Any, Node] = {}
        below: dict[Any, Node] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _CORE_TAG + "merge":
                for block in self._merged(value_node, depth):
                    below = {**block, **below}
                continue
            key = self._key(key_node)
            if key in own:
                first = own[key].place
                raise self._error(key_node, f"{key!r} stands twice; first at line {first.line}", "keep one of the two")
            own[key] = replace(self.build(value_node, depth + 1), place=self._place(key_node))
        return {**below, **own}

    def _merged(self, node: Any, depth: int) -> Iterator[dict[Any, Node]]:
        """Yield the blocks that `<<:` brings in; the first one wins."""
        for part in node.value if type(node).__name__ == "SequenceNode" else [node]:
            if type(part).__name__ != "MappingNode":
                raise self._error(part, "`<<` can only bring in a block of keys")
            yield self.build(part, depth + 1).value

    def _key(self, node: Any) -> Any:
        self._refuse_custom_tag(node)
        if type(node).__name__ != "ScalarNode":
            raise self._error(node, "a key must be a word, not a list or block", "quote it if it is text")
        return self._scalar(node)

    def _scalar(self, node: Any) -> Any:
        if node.tag == _CORE_TAG + "timestamp":
            return node.value
        try:
            value = self._constructor.construct_object(node, deep=True)
        except (ValueError, OverflowError):
            raise self._error(node, f"{node.value!r} cannot be read", "quote it if it is text") from None
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise self._error(node, f"{node.value} is not a number a setting can have", "use null to switch off")
        return value

    def _refuse_custom_tag(self, node: Any) -> None:
        tag = str(node.tag)
        if tag not in _PLAIN_TAGS:
            shown = tag.replace(_CORE_TAG, "!!")
            raise self._error(node, f"the tag {shown} is not allowed here", "write plain values only")

    def _place(self, node: Any) -> Place:
        if not self._positions:
            return self._source
        return Place(self._source.source, node.start_mark.line + 1, node.start_mark.column + 1)

    def _error(self, node: Any, what: str, fix: str | None = None) -> ConfigError:
        return ConfigError(what, str(self._place(node)), fix)


def _syntax_error(error: Any, source: Place, positions: bool) -> tuple[str, str, str]:
    """Return what, where and fix of a YAML syntax error."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark is not None and positions else (0, 0)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    fix = "check the indentation, and that each key is followed by ': '"
    if "\\t" in problem:
        fix = "indent with spaces, not tabs"
    elif "another document" in problem:
        fix = "keep one document: remove the line ---; several runs stand in a list under `runs:`"
    elif "quoted scalar" in str(error):
        fix = "close the quotation mark"
    elif "undefined alias" in problem:
        fix = "define it first with &NAME, or quote the text if it is not an anchor"
    return f"not valid YAML: {problem}", str(Place(source.source, line, column)), fix
