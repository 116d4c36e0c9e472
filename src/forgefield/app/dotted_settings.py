"""Settings of another program that stand in blocks, read as dotted keys: one file, and key=value words over it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from forgefield.app.settings_help import nearest
from forgefield.app.translation import Given, Key
from forgefield.app.yaml_source import Node, Place, merge, parse_yaml, read_yaml
from forgefield.core.errors import ConfigError


def read_dotted(program: str, words: Sequence[str], keys: Mapping[str, Key], aliases: Mapping[str, str]) -> Given:
    """Read a YAML or JSON file and the words over it.

    Args:
        program: whose settings they are.
        words: the file, and words such as trainer.max_epochs=10; a word is also read below no block.
        keys: all keys, dotted; one whose value is a block is read whole.
        aliases: second names of keys.

    Raises:
        ConfigError: there is not exactly one file, it cannot be read, or it has a key that the program does not know.
    """
    files = [word for word in words if "=" not in word or Path(word).exists()]
    if len(files) != 1:
        where = files[1] if files else "arguments"
        raise ConfigError(f"{program} has one settings file", where, "give it, and key=value words beside it")
    tree = read_yaml(files[0])
    if not tree.is_mapping or not tree.value:
        raise ConfigError(f"holds no settings of {program}", files[0], "give its settings file")
    for word in words:
        if word not in files:
            tree = merge(tree, override(word))
    nodes: dict[str, Node] = {}
    for written, node in _flat(tree, keys, aliases):
        name = aliases.get(written, written)
        if name not in keys:
            near = nearest(written, [*keys, *aliases])
            hint = f" Did you mean {near!r}?" if near else ""
            raise ConfigError(f"{written}: {program} has no such key.{hint}", str(node.place))
        if name in nodes:
            raise ConfigError(f"{written}: the same as {name}, which stands there too", str(node.place), "keep one")
        nodes[name] = node
    return Given(keys, nodes, Path(files[0]))


def _flat(
    node: Node, keys: Mapping[str, Key], aliases: Mapping[str, str], start: str = ""
) -> Iterator[tuple[str, Node]]:
    for key, child in node.value.items():
        name = f"{start}{key}"
        if child.is_mapping and child.value and name not in keys and name not in aliases:
            yield from _flat(child, keys, aliases, f"{name}.")
        elif not (child.is_mapping and not child.value and name not in keys):
            yield name, child


def override(word: str, example: str = "epochs=10") -> Node:
    """Return the tree that a word `key=value` of the command line means.

    Raises:
        ConfigError: its key has an empty part.
    """
    key, _, value = word.partition("=")
    place = Place(word)
    node = parse_yaml(value, place, positions=False) if value else Node(None, place)
    if not all(key.split(".")):
        raise ConfigError("expected key=value with a dotted key", word, f"for example {example}")
    for part in reversed(key.split(".")):
        node = Node({part: node}, place)
    return node
