"""The JSON schema agrees with what load_run accepts."""

import json

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner
from water import GOOD

from forgefield.app.cli import app
from forgefield.app.schema import run_schema


@pytest.fixture(scope="module")
def schema():
    return run_schema()


def accepts(schema, value, root=None):
    """Say whether a value fits, for the part of JSON schema that is used here."""
    root = root or schema
    if "$ref" in schema:
        node = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            node = node[part]
        return accepts(node, value, root)
    if "anyOf" in schema:
        return any(accepts(option, value, root) for option in schema["anyOf"])
    if "const" in schema:
        return value == schema["const"]
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema.get("type")
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if kind in ("integer", "number"):
        fits = isinstance(value, int if kind == "integer" else (int, float)) and not isinstance(value, bool)
        return fits and value > schema.get("exclusiveMinimum", -1e99) and value >= schema.get("minimum", -1e99)
    if kind in kinds and not isinstance(value, kinds[kind]):
        return False
    if kind == "array":
        return all(accepts(schema.get("items", {}), item, root) for item in value)
    if kind == "object":
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        for key, item in value.items():
            if key in known:
                if not accepts(known[key], item, root):
                    return False
            elif others is False or (isinstance(others, dict) and not accepts(others, item, root)):
                return False
    return True


def values(text):
    return YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "runs: [{name: a, task: train}, {id: b, mode: evaluate}]\nbackend: mace\n",
        "data: {train: a, val: [a, b], path: x, e0: {H: -1}}\ntrain: {patience: 3, log_every: false, scheduler: null}",
        "model_in: {manifest: m, weights: w}\nmodel: {source: x, r_max: 4, export: {dir: d}}",
    ],
)
def test_what_is_right_fits(schema, text):
    assert accepts(schema, values(text))


@pytest.mark.parametrize(
    "text",
    [
        "modle: {}", "train: {lrr: 1}", "train: {lr: fast}", "train: {lr: -1}", "model: {r_maxx: 1}",
        "model: {settings: {}}",
        "runs: [{nmae: a}]", "task: trian", "model_json: {}", "train: {optimizer: adamm}", "model_in: {pat: x}",
    ],
)  # fmt: skip
def test_what_is_wrong_does_not(schema, text):
    assert not accepts(schema, values(text))


def test_every_reference_leads_somewhere_and_descriptions_are_there(schema):
    text = json.dumps(schema)
    for part in text.split('"#/$defs/')[1:]:
        assert part.split('"')[0] in schema["$defs"]
    assert "initial learning rate" in text.lower()


def test_the_command_prints_or_writes_it(tmp_path, schema):
    runner = CliRunner()
    assert json.loads(runner.invoke(app, ["schema"]).stdout) == json.loads(json.dumps(schema))
    path = tmp_path / "run.schema.json"
    result = runner.invoke(app, ["schema", "--out", str(path)])
    assert json.loads(path.read_text())["title"] == "ForgeField run.yaml"
    assert "yaml-language-server" in result.stdout
