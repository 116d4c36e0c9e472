"""The JSON schema of run.yaml, from the Settings classes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from forgefield.app.reference import architectures, physics_terms
from forgefield.app.run import RunConfig
from forgefield.app.settings_help import aliases, block_of, describe, visible

# What validators accept beyond the declared type.
_ALSO = {
    "train.log_every": [{"enum": [False, "off", "none"]}],
    "model_in": [
        {
            "type": "object",
            "properties": {key: {"type": "string"} for key in ("manifest", "path", "source", "weights")},
            "additionalProperties": False,
        }
    ],
}


def run_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of one run, or of a list of runs with shared keys."""
    full = RunConfig.model_json_schema(mode="validation")
    definitions: dict[str, Any] = full.pop("$defs", {})
    run = _finish(RunConfig, full, "")
    inner = {block.__name__: (block, path) for block, path in _blocks(RunConfig, "")}
    for name, schema in definitions.items():
        if name in inner:
            definitions[name] = _finish(inner[name][0], schema, inner[name][1])
    model = definitions["ModelBlock"]
    for backend, settings in architectures().items():
        free = settings.model_json_schema(mode="validation")
        definitions |= free.pop("$defs", {})
        for key, schema in _finish(settings, free, "")["properties"].items():
            note = f"{schema.get('description', '')} (backend {backend})"
            _add_property(model["properties"], key, schema | {"description": note})
    model["properties"]["physics"] = _terms(model["properties"]["physics"], definitions)
    single = run["properties"]
    runs = {
        "type": "array",
        "minItems": 1,
        "items": {"$ref": "#/$defs/Run"},
        "description": "Several runs in one file.",
    }
    definitions["Run"] = {"type": "object", "properties": single, "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ForgeField run.yaml",
        "type": "object",
        "properties": {**single, "runs": runs},
        "additionalProperties": False,
        "$defs": {name: definitions[name] for name in sorted(definitions) if name not in ("ModelJson", "Settings")},
    }


def _terms(entry: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the physics terms by name."""
    found = {}
    for name, settings in physics_terms().items():
        schema = settings.model_json_schema(mode="validation")
        definitions |= schema.pop("$defs", {})
        found[name] = {"anyOf": [_finish(settings, schema, ""), {"type": "null"}]}
    text = {key: entry[key] for key in ("description", "default") if key in entry}
    return {"type": "object", "properties": found, "additionalProperties": False, **text}


def _blocks(block: type[BaseModel], prefix: str) -> list[tuple[type[BaseModel], str]]:
    """Return the classes of all inner blocks with their dotted paths."""
    found = []
    for name, field in visible(block).items():
        inner = block_of(field.annotation)
        if inner is not None:
            found += [(inner, f"{prefix}{name}."), *_blocks(inner, f"{prefix}{name}.")]
    return found


def _finish(block: type[BaseModel], schema: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Leave out internal fields, add aliases, and accept what validators accept."""
    properties: dict[str, Any] = {}
    shown = visible(block)
    for name, entry in schema.get("properties", {}).items():
        if name not in shown:
            continue
        field = shown[name]
        if describe(field.annotation, field.metadata) == "a path or a list of paths":
            text = {key: entry[key] for key in ("description", "default") if key in entry}
            entry = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], **text}
        for also in _ALSO.get(f"{prefix}{name}", []):
            entry = _either(entry, also)
        properties[name] = entry
        for alias in aliases(name, field):
            properties[alias] = {**entry, "description": f"Another name of {name}. {entry.get('description', '')}"}
    kept = {key: value for key, value in schema.items() if key not in ("properties", "title", "required")}
    return {**kept, "properties": properties, "additionalProperties": False}


def _either(entry: dict[str, Any], also: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that accepts both."""
    text = {key: entry[key] for key in ("description", "default", "title") if key in entry}
    rest = {key: value for key, value in entry.items() if key not in text}
    options = rest["anyOf"] if set(rest) == {"anyOf"} else [rest]
    return {**text, "anyOf": [*options, also]}


def _add_property(properties: dict[str, Any], key: str, schema: dict[str, Any]) -> None:
    """Add an architecture's key; two architectures may share one name."""
    properties[key] = _either(properties[key], schema) if key in properties else schema
