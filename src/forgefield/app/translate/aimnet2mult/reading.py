"""train.yaml, model.yaml and key=value words, laid over AIMNet2mult's defaults and read as dotted keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from forgefield.app.dotted_settings import override
from forgefield.app.translate.aimnet2mult.defaults import MODEL, TRAIN
from forgefield.app.translate.aimnet2mult.keys import BLOCKS, KEYS, pattern_of
from forgefield.app.translation import Given, Key
from forgefield.app.yaml_source import Node, Place, merge, parse_yaml, read_yaml
from forgefield.core.errors import ConfigError

_PROGRAM = "AIMNet2mult"
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


class Settings(Given):
    """The settings of both files by dotted key; those of the model begin with `model.`.

    Args:
        tree: what the user gives.
        base: AIMNet2mult's defaults.
        sources: the files, in order.
    """

    def __init__(self, tree: Node, base: Node, sources: Sequence[Path]) -> None:
        given, below, merged = dict(_flat(tree)), dict(_flat(base)), dict(_flat(merge(base, tree)))
        given = {name: node for name, node in given.items() if name in merged}
        self.unknown = {name for name in given if pattern_of(name, (*KEYS, *BLOCKS)) is None}
        keys = {name: Key(_kind(name), below[name].plain() if name in below else None) for name in {**below, **given}}
        super().__init__(keys, _resolved(given, merged), sources[0])
        found = Given(
            {name: keys[name] for name in merged if name in keys}, _resolved(merged, merged), sources[0]
        )  # the defaults in the same kinds
        self.values = found.values
        self.title = " and ".join(path.name for path in sources)

    def has(self, name: str) -> bool:
        """Say whether a key has a value, of the files or by default."""
        return self.values.get(name) is not None

    def get(self, name: str, otherwise: Any = None) -> Any:
        """Return a value, or `otherwise` where the key is absent or null; the key counts as dealt with."""
        self.read.add(name)
        value = self.values.get(name)
        return otherwise if value is None else value

    def names(self, block: str) -> list[str]:
        """Return the names below a block, in order: the numbers of fidelity_datasets, the names of components."""
        start = f"{block}."
        return list(dict.fromkeys(n.removeprefix(start).split(".")[0] for n in self.values if n.startswith(start)))

    def below(self, block: str) -> list[str]:
        """Return the keys of a block that the files give."""
        return [name for name in self.places if name == block or name.startswith(f"{block}.")]


def read_settings(words: Sequence[str]) -> Settings:
    """Read files (a file with `class` is the model's, later training files go over earlier ones) and key=value words.

    Raises:
        ConfigError: a file cannot be read, or a word is neither.
    """
    train, model, sources = Node({}, Place("")), None, []
    for word in words:
        if "=" in word and not Path(word).exists():
            train = merge(train, _named(override(word, "trainer.epochs=10")))
            continue
        tree = _named(read_yaml(word))
        if not tree.is_mapping or not tree.value:
            raise ConfigError(f"holds no settings of {_PROGRAM}", word, "give its train.yaml, and its model.yaml")
        sources.append(Path(word))
        if tree.child("class") is None:
            train = merge(train, tree)
        elif model is None:
            model = tree
        else:
            raise ConfigError("is a second file of a model", word, "keep one of the two")
    if not sources:
        raise ConfigError(f"names no file of {_PROGRAM}", "arguments", "give its train.yaml, and its model.yaml")
    base = _named(parse_yaml(TRAIN, Place("default")))
    if model is None:
        base = base.with_child("model", _named(parse_yaml(MODEL, Place("default"))))
    else:
        train = train.with_child("model", model)
    return Settings(train, base, sources)


def _named(node: Node) -> Node:
    """Return the tree with all keys as text: fidelities are numbers in files and text on the command line."""
    if node.is_mapping:
        return Node({str(key): _named(child) for key, child in node.value.items()}, node.place, node.key)
    return node


def _flat(node: Node, start: str = "") -> Iterator[tuple[str, Node]]:
    """Yield the dotted keys of what is no block, or an empty one; `???` counts as absent."""
    if node.is_mapping and node.value:
        for key, child in node.value.items():
            yield from _flat(child, f"{start}{key}.")
    elif start and node.value != "???":
        yield start.removesuffix("."), node


def _kind(name: str) -> Any:
    pattern = pattern_of(name, KEYS)
    return "list" if pattern is None else KEYS[pattern].kind


def _resolved(nodes: dict[str, Node], all_nodes: dict[str, Node]) -> dict[str, Node]:
    """Put values in the place of `${key}`; blocks have no kind and must be empty."""
    found = {}
    for name, node in nodes.items():
        if pattern_of(name, KEYS) is None and pattern_of(name, BLOCKS) is not None and node.value not in (None, {}):
            raise ConfigError(f"{name}: expected a block of keys", str(node.place))
        value = node.value
        if isinstance(value, str):
            for _ in range(5):  # a reference may lead to another
                value = _REFERENCE.sub(lambda m, n=name, p=node.place: _referred(m[1], all_nodes, n, p), value)
            node = Node(value or None, node.place, node.key)
        found[name] = node
    return found


def _referred(name: str, nodes: dict[str, Node], asked: str, place: Place) -> str:
    node = nodes.get(name)
    if node is None:
        if name in ("run_name", "project_name"):
            return ""  # missing; run_name is asked for where it is read
        raise ConfigError(f"{asked}: ${{{name}}} is not given", str(place), f"give {name}")
    return str(node.value)
