"""What a setting means and accepts, read from the Settings classes: for messages, `explain` and the reference page."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import AliasChoices, BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

# Words of other programs for one thing. A key that is not ours is looked up here, so that a migrant finds its name.
SAME_THING = (
    ("lr", "learning_rate", "max_lr", "start_lr", "init_lr"),
    ("epochs", "max_epochs", "num_epochs", "n_epochs", "max_num_epochs"),
    ("batch_size", "batchsize", "batch"),
    ("energy_weight", "e_weight", "energy_coefficient"),
    ("force_weight", "forces_weight", "f_weight", "force_coefficient"),
    ("stress_weight", "virial_weight", "virials_weight"),
    ("max_grad_norm", "clip_grad", "grad_clip", "gradient_clip", "clip_grad_norm"),
    ("ema_decay", "ema"),
    ("run_dir", "output_dir", "save_dir", "work_dir"),
    ("model_in", "checkpoint", "ckpt_file", "restart", "foundation_model"),
    ("train", "train_file", "training"), ("val", "valid", "valid_file", "validation"), ("test", "test_file", "testing"),
    ("val_fraction", "valid_fraction", "validation_fraction"),
    ("e0", "E0s", "reference_energies", "isolated_energies"),
    ("r_max", "cutoff", "rcut", "radius", "max_radius", "cutoff_radius"),
    ("num_radial_basis", "num_bessel", "n_bessel"),
    ("hidden_irreps", "channels", "num_channels"),
    ("seed", "random_seed"), ("dtype", "default_dtype", "precision"), ("scheduler", "lr_scheduler"),
    ("num_workers", "workers"), ("backend", "model_type", "architecture"), ("task", "job"), ("cutoff", "r_max"),
    ("z_table", "atomic_numbers"), ("e0_values", "atomic_energies"),
)  # fmt: skip


@dataclass(frozen=True)
class FieldHelp:
    """Everything known about one setting."""

    path: str
    description: str
    expects: str
    default: str
    aliases: tuple[str, ...]
    block: type[BaseModel] | None


def nearest(word: Any, names: Iterable[str]) -> str | None:
    """Return the name that was probably meant, or None."""
    names, word = list(names), str(word)
    lower = {name.lower(): name for name in names}
    plain = word.lower().replace("-", "_")
    if plain in lower:
        return lower[plain]
    swapped = [name for name in lower if sorted(name) == sorted(plain)]
    if swapped:
        return lower[swapped[0]]
    others = {w.lower(): name for group in SAME_THING for name in group[:1] if name in names for w in group[1:]}
    # Close real names come first; then the words of other programs.
    for pool, cutoff in ((lower, 0.75), (others, 0.75), (lower, 0.55)):
        found = difflib.get_close_matches(plain, list(pool), n=1, cutoff=cutoff)
        if found:
            return pool[found[0]]
    return next((lower[name] for name in sorted(lower) if len(plain) > 2 and plain in name), None)


def aliases(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Return the other spellings that a field accepts."""
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return tuple(choice for choice in choices if isinstance(choice, str) and choice != name)


def spellings(block: type[BaseModel]) -> dict[str, str]:
    """Return every accepted spelling of a block's keys with the real name."""
    table = {name: name for name in visible(block)}
    for name, field in visible(block).items():
        table |= dict.fromkeys(aliases(name, field), name)
    return table


def visible(block: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields that a user writes; those that ForgeField fills in are left out."""
    return {
        name: field
        for name, field in block.model_fields.items()
        if not (isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("internal"))
    }


def block_of(annotation: Any) -> type[BaseModel] | None:
    """Return the Settings class inside an annotation, if there is exactly one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        found = [block for part in get_args(annotation) if (block := block_of(part)) is not None]
        return found[0] if len(found) == 1 else None
    return None


def item_block(annotation: Any) -> type[BaseModel] | None:
    """Return the Settings class of the items of a list, if they have one."""
    items = [part for part in get_args(annotation) if part is not Ellipsis]
    return block_of(items[0]) if get_origin(annotation) in (list, tuple) and len(items) == 1 else None


def field_at(block: type[BaseModel], path: tuple[Any, ...]) -> FieldInfo | None:
    """Return the field at a path of keys below a block; for a position inside a value, the field that owns it."""
    field: FieldInfo | None = None
    current: type[BaseModel] | None = block
    for part in path:
        if isinstance(part, int) and field is not None and (item := item_block(field.annotation)) is not None:
            current = item
            continue
        if current is None:
            return field
        field = current.model_fields.get(spellings(current).get(part, "")) if isinstance(part, str) else None
        if field is None:
            return None
        current = block_of(field.annotation)
    return field


def expects(field: FieldInfo) -> str:
    """Say in words what a field accepts."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and isinstance(extra.get("enum"), list):
        return _one_of(extra["enum"])  # type: ignore[arg-type]
    return describe(field.annotation, field.metadata)


def describe(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Say in words what a type with its limits accepts, e.g. `a number > 0`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe(args[0], [*args[1:], *metadata])
    if isinstance(annotation, types.GenericAlias | type) or origin is not None:
        text = _describe_known(annotation, origin, args, metadata)
        if text is not None:
            return text
    return "a value"


def _describe_known(annotation: Any, origin: Any, args: tuple[Any, ...], metadata: Iterable[Any]) -> str | None:
    limits = _limits(metadata)
    if origin is Literal:
        return _one_of(args)
    if origin in (Union, types.UnionType):
        return _describe_union(args, metadata)
    if annotation in _WORDS:
        return _WORDS[annotation] + limits
    if origin in (list, tuple, set, frozenset) or annotation in (list, tuple):
        if any(isinstance(item, BeforeValidator) for item in metadata) and Path in get_args(args[0]):
            return "a path, a block with a path, or a list of such"
        return _describe_list(args, limits)
    if origin is dict or annotation is dict:
        return f"a block like {_braces(annotation)}{limits}" if args else f"a block of keys{limits}"
    block = block_of(annotation)
    return f"a block of keys ({', '.join(visible(block)) or 'none'})" if block is not None else None


_WORDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path",
    type(None): "null", Any: "a value",
}  # fmt: skip


def _braces(annotation: Any) -> str:
    """Return the form of a mapping, such as {KEY: a number}."""
    inside = get_args(annotation)[1]
    return f"{{KEY: {_braces(inside) if get_origin(inside) is dict else describe(inside)}}}"


def _one_of(values: Iterable[Any]) -> str:
    words = [yaml_text(value) for value in values]
    return words[0] if len(words) == 1 else "one of " + ", ".join(words)


def _describe_union(args: tuple[Any, ...], metadata: Iterable[Any]) -> str:
    words = [describe(part, metadata if part in (int, float) else ()) for part in args if part is not type(None)]
    words = [word for index, word in enumerate(words) if word not in words[:index]]
    if "a number" in words and "a whole number" in words:
        words.remove("a whole number")
    return ", or ".join(words + ["null"] * (type(None) in args))


def _describe_list(args: tuple[Any, ...], limits: str) -> str:
    kinds = [part for part in args if part is not Ellipsis]
    if len(kinds) > 1:
        return "a list of " + " and ".join(describe(kind) for kind in kinds)
    inside = describe(kinds[0]) if kinds else "values"
    several = {"a number": "numbers", "a whole number": "whole numbers", "text": "texts", "a path": "paths"}
    return f"a list of {several.get(inside, inside)}{limits}"


def _limits(metadata: Iterable[Any]) -> str:
    """Say the limits of a number or the length of a text."""
    words = []
    for item in metadata:
        for kind, attribute, sign in (
            (annotated_types.Gt, "gt", ">"), (annotated_types.Ge, "ge", ">="),
            (annotated_types.Lt, "lt", "<"), (annotated_types.Le, "le", "<="),
        ):  # fmt: skip
            if isinstance(item, kind):
                words.append(f"{sign} {yaml_text(getattr(item, attribute))}")
        if isinstance(item, annotated_types.MinLen) and item.min_length > 0:
            words.append("that is not empty" if item.min_length == 1 else f"with at least {item.min_length} entries")
        if isinstance(item, annotated_types.MaxLen):
            words.append(f"with at most {item.max_length} entries")
        pattern = getattr(item, "pattern", None)
        if pattern is not None:
            words.append(f"such as {_readable(str(getattr(pattern, 'pattern', pattern)))}")
    return " " + " and ".join(words) if words else ""


def _readable(pattern: str) -> str:
    """Return a regular expression without its anchors; alternatives read as a list."""
    text = pattern.removeprefix("^").removesuffix("$")
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    return text.replace(r"(:\d+)?", "[:N]").replace("|", ", ")


def yaml_text(value: Any) -> str:
    """Return a value as it would stand in YAML, in one short line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{yaml_text(k)}: {yaml_text(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, list | tuple | set | frozenset):
        text = "[" + ", ".join(yaml_text(item) for item in value) + "]"
    else:
        text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def first_sentence(text: str) -> str:
    """Return the first sentence or part before a semicolon, without its full stop."""
    return re.split(r"(?<!et al)(?<!e\.g)\. |; ", text.strip())[0].rstrip(".")


def default_text(field: FieldInfo) -> str:
    """Return a field's default as YAML text; a block's own keys carry their defaults."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return "its own keys' defaults" if isinstance(value, BaseModel) else yaml_text(value)


def field_help(name: str, field: FieldInfo, prefix: str = "") -> FieldHelp:
    """Return the help of one field."""
    return FieldHelp(
        path=f"{prefix}{name}",
        description=field.description or "",
        expects=expects(field),
        default=default_text(field),
        aliases=aliases(name, field),
        block=block_of(field.annotation),
    )


def walk(block: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel], FieldInfo]]:
    """Yield the dotted path, owning class and field of every setting below a block, blocks before their keys."""
    for name, field in visible(block).items():
        yield f"{prefix}{name}", block, field
        inner = block_of(field.annotation)
        if inner is not None:
            yield from walk(inner, f"{prefix}{name}.")
