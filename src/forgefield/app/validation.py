"""Every validation error as one message: where it stands, which key, what was given, what is expected."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from forgefield.app.settings_help import (
    block_of,
    expects,
    field_at,
    first_sentence,
    item_block,
    nearest,
    spellings,
    visible,
    yaml_text,
)
from forgefield.app.yaml_source import Node, locate
from forgefield.core.catalog import Catalog
from forgefield.core.errors import ConfigError, ForgeError
from forgefield.core.settings import Settings

Block = TypeVar("Block", bound=BaseModel)


def problem(root: Node, path: tuple[Any, ...], text: str) -> str:
    """Return one line: place, dotted key as written, text."""
    place, words = locate(root, path)
    return f"{place}: {words}: {text}" if words else f"{place}: {text}"


def validate(block: type[Block], root: Node, path: tuple[Any, ...], problems: list[str]) -> Block | None:
    """Validate the node at `path` by a Settings class; append one line per error.

    Args:
        block: the class.
        root: the whole tree, for places.
        path: where the block stands in the tree.
        problems: collects the messages.
    """
    node = root.find(*path)
    values = {} if node is None or node.value is None else node.plain()
    found = list(_wrong_kinds(block, root, path))
    try:
        result = block.model_validate(_without_empty_blocks(block, values))
    except ValidationError as error:
        found = [*found, *messages(block, root, path, error)]
    except ForgeError as error:
        found.append(problem(root, path, str(error)))
    else:
        if not found:
            return result
    problems += [line for line in dict.fromkeys(found) if line not in problems]
    return None


def messages(block: type[BaseModel], root: Node, prefix: tuple[Any, ...], error: ValidationError) -> list[str]:
    """Return one line per key that is wrong, in the order of the errors."""
    by_path: dict[tuple[Any, ...], Any] = {}
    for item in error.errors(include_url=False):
        by_path.setdefault(_real_path(block, root, prefix, item), item)
    # A union reports each branch it tried: the deepest report says most.
    deepest = {p: i for p, i in by_path.items() if not any(q != p and q[: len(p)] == p for q in by_path)}
    lines = []
    for path, item in deepest.items():
        text = _explain(block, prefix, path, item, root)
        key, colon, rest = text.partition(": ")
        # A rule of a whole block names the key it is about: report it there.
        if item["type"] == "value_error" and colon and root.find(*path, key) is not None:
            path, text = (*path, key), rest
        lines.append(problem(root, path, text))
    return lines


def unknown_key(block: type[BaseModel], key: Any) -> str:
    """Say that a key is unknown, which was probably meant, and what that one expects."""
    names = spellings(block)
    near = nearest(key, names)
    if near is None:
        return f"unknown key. Known here: {', '.join(sorted(visible(block), key=str.lower))}"
    field = block.model_fields[names[near]]
    return f"unknown key. Did you mean {near!r}? It expects {expects(field)}{_short(field)}"


def validate_model_block(
    root: Node, reserved: type[BaseModel], architectures: str, problems: list[str]
) -> tuple[Node, Settings | None]:
    """Validate the free keys of `model` by the settings of the architecture that `backend` names.

    Args:
        root: the run's tree.
        reserved: the class of the keys that belong to ForgeField.
        architectures: the catalog.
        problems: collects the messages.

    Returns:
        The tree without the free keys, and the settings; None when the model comes from a bundle and no key is given.
    """
    model, backend = root.child("model"), root.child("backend")
    items = model.value if model is not None and model.is_mapping else {}
    own = spellings(reserved).keys()
    free = {key: node for key, node in items.items() if key not in own}
    rest = root
    if model is not None and free:
        rest = root.with_child("model", Node({k: n for k, n in items.items() if k in own}, model.place, model.key))
    name = backend.value if backend is not None else None
    task, start = root.child("task"), root.child("model_in") or root.find("model", "manifest")
    trains = task is not None and task.value == "train"
    # A run continued from its own checkpoint says what it said when it began.
    continues = task is not None and task.value == "resume" and start is not None and start.key == "run_dir"
    if name is None:
        if free:
            first = next(iter(free))
            problems.append(problem(root, ("model", first), "belongs to an architecture; name it with `backend:`"))
        elif trains and start is None:
            problems.append(problem(root, ("backend",), f"required to train. There are: {_listed(architectures)}"))
        return rest, None
    settings = _entry_settings(name, architectures, root, problems)
    if settings is None or not (free or continues or (trains and start is None)):
        return rest, None
    place = model.place if model is not None else root.place
    holder = rest.with_child("model", Node(free, place, model.key if model is not None else None))
    return rest, _with_reserved_names(settings, reserved, holder, problems)


def _with_reserved_names(
    settings: type[Settings], reserved: type[BaseModel], root: Node, problems: list[str]
) -> Settings | None:
    """Validate architecture settings; a misspelt reserved key is recognised too."""
    free = root.find("model")
    known = spellings(settings)
    for key in list(free.value) if free is not None else []:
        near = nearest(key, [*known, *spellings(reserved)]) if key not in known else None
        if near is not None and near not in known:
            problems.append(problem(root, ("model", key), unknown_key(reserved, key)))
            root = root.with_child("model", root.find("model").with_child(key, None))  # type: ignore[union-attr]
    return validate(settings, root, ("model",), problems)


def _entry_settings(name: Any, architectures: str, root: Node, problems: list[str]) -> type[Settings] | None:
    try:
        return Catalog(architectures).entry(str(name)).settings
    except ConfigError as error:
        text = f"no {str(name)!r} in {architectures.rsplit('.', 1)[-1]}"
        near = nearest(name, Catalog(architectures).names())
        hint = f" Did you mean {near!r}?" if near else ""
        if error.what != text:
            text = str(error)
        problems.append(problem(root, ("backend",), f"{text}.{hint} There are: {_listed(architectures)}"))
        return None


def _listed(architectures: str) -> str:
    return ", ".join(Catalog(architectures).names())


def _real_path(block: type[BaseModel], root: Node, prefix: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
    """Return the path in the tree that pydantic's location means; names of union branches are left out."""
    path, node = list(prefix), root.find(*prefix)
    current: type[BaseModel] | None = block
    items: type[BaseModel] | None = None
    last = len(item["loc"]) - 1
    for index, part in enumerate(item["loc"]):
        child = node.child(part) if node is not None else None
        names = spellings(current) if current is not None else {}
        field = current.model_fields[names[part]] if current is not None and part in names else None
        missing = item["type"] == "missing" and index == last and isinstance(part, str)
        if child is None and field is None and not missing:
            continue
        path.append(part)
        node = child
        if field is not None:
            current, items = block_of(field.annotation), item_block(field.annotation)
        else:
            current = items if isinstance(part, int) else None
    return tuple(path)


def _explain(block: type[BaseModel], prefix: tuple[Any, ...], path: tuple[Any, ...], item: Any, root: Node) -> str:
    """Say what is wrong with one key."""
    inner = path[len(prefix) :]
    field = field_at(block, inner)
    if item["type"] == "extra_forbidden":
        owner = field_at(block, inner[:-1]) if len(inner) > 1 else None
        inside = owner.annotation if owner is not None else None
        return unknown_key(block_of(inside) or item_block(inside) or block, path[-1])
    if item["type"] == "missing" and root.find(*path) is None:
        return f"this key is required. It expects {expects(field)}{_short(field)}" if field else "this key is required"
    if item["type"] in ("value_error", "assertion_error"):
        return str(item["ctx"]["error"])
    node = root.find(*path)
    given = f"got {_given(node)}" if node is not None else "is not valid"
    if field is None:
        return f"{given}: {item['msg']}"
    near = _meant(node, field)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"{given}, expected {expects(field)}{_short(field)}.{hint}"


def _given(node: Node) -> str:
    """Return what the user wrote, with its kind where that is not plain to see."""
    value = node.value
    if isinstance(value, dict):
        return "a block of keys"
    if isinstance(value, list):
        return f"the list {yaml_text(node.plain())}"
    if isinstance(value, str):
        return f"the text {value!r}"
    return "nothing (null)" if value is None else yaml_text(value)


def _meant(node: Node | None, field: FieldInfo) -> str | None:
    """Return the allowed word nearest to a misspelt one."""
    if node is None or not isinstance(node.value, str):
        return None
    text = expects(field)
    words = text.partition("one of ")[2].split(", or ")[0].split(", ") if "one of " in text else []
    return nearest(node.value, words)


def _short(field: FieldInfo) -> str:
    """Return the first sentence of a description, in brackets."""
    text = first_sentence(field.description or "")
    small = text[1:2].islower() or text[1:2] == " "
    return f" ({text[0].lower() if small else text[0]}{text[1:]})" if text else ""


def _wrong_kinds(block: type[BaseModel], root: Node, path: tuple[Any, ...]) -> list[str]:
    """Refuse true and false where a number is meant: Python would read them as 1 and 0."""
    node, found = root.find(*path), []
    if node is None or not node.is_mapping:
        return found
    names = spellings(block)
    for key, child in node.value.items():
        field = block.model_fields.get(names.get(key, ""))
        if field is None:
            continue
        inner = block_of(field.annotation)
        if inner is not None and child.is_mapping:
            found += _wrong_kinds(inner, root, (*path, key))
        elif isinstance(child.value, bool) and "true" not in expects(field) and "number" in expects(field):
            text = f"got {yaml_text(child.value)}, expected {expects(field)}{_short(field)}."
            found.append(problem(root, (*path, key), text))
    return found


def _without_empty_blocks(block: type[BaseModel], values: Any) -> Any:
    """Drop `train:` with nothing under it: an empty block means its defaults."""
    if not isinstance(values, dict):
        return values
    names = spellings(block)
    kept = {}
    for key, value in values.items():
        field = block.model_fields.get(names.get(key, "")) if isinstance(key, str) else None
        inner = field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        if not (inner and value is None):
            kept[key] = value
    return kept
