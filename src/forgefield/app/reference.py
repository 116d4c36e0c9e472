"""Every key of run.yaml with its meaning, in one table: for `forgefield explain`, the schema and docs/run-yaml.md."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from forgefield.app.physics_block import PHYSICS
from forgefield.app.run import ARCHITECTURES, RunConfig
from forgefield.app.settings_help import FieldHelp, field_help, nearest, visible, walk
from forgefield.app.training_defaults import training_defaults
from forgefield.core.catalog import Catalog
from forgefield.core.errors import ConfigError
from forgefield.core.settings import Settings

BLOCKS = ("model", "data", "train", "finetune", "eval", "export", "output")

_HEAD = """# run.yaml

<!-- Written by scripts/make_reference from the descriptions in the code. Do not edit; change the Settings classes. -->

One YAML file says what a run does. `forgefield init DATA` writes one that fits your data, `forgefield check run.yaml`
checks it, `forgefield run run.yaml` carries it out, `forgefield explain KEY` shows the lines below in the terminal, and
`forgefield schema --out run.schema.json` writes a JSON schema with which editors complete and check.

```yaml
name: first
task: train
backend: mace
run_dir: runs/first
data:
  train: train.xyz
  test: test.xyz
model:
  r_max: 5.0
train:
  epochs: 100
```

- **Paths** are relative to the file they stand in. `~` is the home folder.
- **Unknown keys** are errors, with file, line, column and the nearest right name.
- **`--set KEY=VALUE`** writes over any key; the value is YAML: `--set train.ema_decay=null`. Only a path is read
  differently there: a relative one means relative to the folder you are in.
- **Several runs**: a list under `runs:`. Keys that stand beside the list hold for all runs; the run's own keys are laid
  over them, block by block, key by key (a list or a number is replaced as a whole). `--run NAME` takes the run of that
  `name` or `id`; without it all runs are carried out in turn.
- **The frozen copy** `run.resolved.yaml` in `run_dir` has every key with the value that was used. It is a run.yaml too.

```yaml
backend: mace
data: {train: train.xyz}
runs:
  - name: small
    task: train
    run_dir: runs/small
  - name: judge
    task: evaluate
    model_in: runs/small/artifacts
    output: {dir: runs/small/evaluation/hot}
    data: {test: hot.xyz}
```

| task | needs | leaves |
|---|---|---|
| `train` | `backend`, `data.train`, `run_dir` | checkpoints, history, artifacts, errors on `data.test`, report.html |
| `finetune` | `model_in`, `data.train`, `run_dir` | the same |
| `resume` | `run_dir` of a stopped run, `data.train` | the same, as if it had never stopped |
| `evaluate` | `model_in`, `data.test` or `data.lmdb`, `run_dir` or `output.dir` | metrics and predictions |
| `infer` | the same; labels are not needed | predictions |
| `export` | `model_in`, `run_dir` | artifacts |

With `model.manifest` (a bundle's manifest.json) in place of `model_in` the same holds. A bundle brings its
architecture; settings that stand beside it must say the same.

`train.input_json` names a model.json that describes a MACE (z_table, cutoff, hidden_irreps, e0_values, ...). It is
read strictly and stands in place of the architecture's keys; its elements, reference energies, neighbours, scale and
shift are used instead of measured ones, and the hash of its canonical text is kept in run.resolved.yaml under
`model_json`.
"""


@functools.cache
def architectures() -> dict[str, type[Settings]]:
    """Return the settings class of every architecture."""
    catalog = Catalog(ARCHITECTURES)
    return {name: catalog.entry(name).settings for name in catalog.names()}


@functools.cache
def physics_terms() -> dict[str, type[Settings]]:
    """Return the settings class of every physics term."""
    catalog = Catalog(PHYSICS)
    return {name: catalog.entry(name).settings for name in catalog.names()}


@functools.cache
def all_keys() -> dict[str, FieldHelp]:
    """Return the help of every key by dotted path; architecture keys stand under model.<name>."""
    table = {
        path: field_help(path.rsplit(".", 1)[-1], field, path.rpartition(".")[0] + "." * ("." in path))
        for path, _, field in walk(RunConfig)
    }
    for name, settings in architectures().items():
        _add_block(table, f"model.{name}", settings, "a block of keys, beside the reserved ones")
    for name, settings in physics_terms().items():
        _add_block(table, f"model.physics.{name}", settings, "a block of keys")
    return table


def _add_block(table: dict[str, FieldHelp], path: str, settings: type[Settings], expected: str) -> None:
    summary = (settings.__doc__ or "").strip().splitlines()[0]
    table[path] = FieldHelp(path, summary, expected, "its own keys' defaults", (), settings)
    for key, field in visible(settings).items():
        table[f"{path}.{key}"] = field_help(key, field, f"{path}.")


def look_up(key: str) -> list[FieldHelp]:
    """Return the help of what a key means: a dotted path, an alias, or a last word that is found anywhere.

    Raises:
        ConfigError: there is no such key; the nearest one is given.
    """
    table = all_keys()
    key = key.strip().strip(".")
    if key in table:
        return [table[key]]
    parts = key.split(".")
    spelled = _by_alias(table)
    if key in spelled:
        return [table[spelled[key]]]
    if parts[0] == "model" and len(parts) == 2:
        found = [table[f"model.{name}.{parts[1]}"] for name in architectures() if f"model.{name}.{parts[1]}" in table]
        if found:
            return found
    if len(parts) == 1:
        paths = [path for path in table if path.rsplit(".", 1)[-1] == key]
        paths += [path for alias, path in spelled.items() if alias.rsplit(".", 1)[-1] == key and path not in paths]
        if paths:
            return [table[path] for path in paths]
    raise ConfigError(f"no key {key!r}. {_suggestion(key, table)}")


def _by_alias(table: dict[str, FieldHelp]) -> dict[str, str]:
    """Return the dotted path of every alias with the path of the real key."""
    return {
        f"{path.rpartition('.')[0]}.{alias}".lstrip("."): path for path, help in table.items() for alias in help.aliases
    }


def _suggestion(key: str, table: dict[str, FieldHelp]) -> str:
    """Say which key was probably meant: in the same block first, then anywhere."""
    block, _, word = key.rpartition(".")
    inside = {path.rsplit(".", 1)[-1]: path for path in table if path.rpartition(".")[0] == block}
    near = nearest(word, inside)
    if near is None:
        # What physics terms call their keys is meant where their block is named.
        paths = [path for path in reversed(table) if not path.startswith("model.physics.") or "physics" in block]
        inside = {path.rsplit(".", 1)[-1]: path for path in paths}
        near = nearest(word, inside)
    if near is None and "." in key:
        near = nearest(key.split(".")[0], [path for path in table if "." not in path])
        inside = {near: near} if near else {}
    return f"Did you mean {inside[near]!r}?" if near else f"Keys: {', '.join(p for p in table if '.' not in p)}"


def keys_of(path: str) -> list[FieldHelp]:
    """Return the help of the keys directly under a block; of the top level for an empty path."""
    table = all_keys()
    return [help for key, help in table.items() if key.rpartition(".")[0] == path]


def render_reference() -> str:
    """Return docs/run-yaml.md."""
    parts = [_HEAD, _section("Top level", [help for help in keys_of("") if help.path not in BLOCKS], "")]
    for block in BLOCKS:
        help = all_keys()[block]
        parts.append(_section(f"`{block}`", list(_leaves(block)), f"{help.description}\n"))
        if block == "model":
            for name, settings in architectures().items():
                summary = " ".join((settings.__doc__ or "").split())
                suited = ", ".join(f"`train.{key}: {value:g}`" for key, value in training_defaults(name).items())
                more = f" Default with it: {suited}." if suited else ""
                text = f"{summary} These keys stand directly under `model:`.{more}\n"
                parts.append(_section(f"`model` with `backend: {name}`", keys_of(f"model.{name}"), text))
            for name, settings in physics_terms().items():
                summary = " ".join((settings.__doc__ or "").split())
                parts.append(_section(f"`model.physics.{name}`", keys_of(f"model.physics.{name}"), f"{summary}\n"))
    return "\n".join(parts)


def _leaves(block: str) -> Iterable[FieldHelp]:
    """Yield the keys below a block, those of inner blocks too; architectures have their own sections."""
    names = architectures()
    for help in keys_of(block):
        if block == "model" and help.path.split(".")[1] in names:
            continue
        yield help
        if help.block is not None:
            yield from _leaves(help.path)


def written(path: str) -> str:
    """Return a key as it stands in run.yaml: the name of an architecture is not part of it."""
    parts = path.split(".")
    return f"model.{parts[2]}" if len(parts) == 3 and parts[0] == "model" and parts[1] in architectures() else path


def _section(title: str, keys: list[FieldHelp], text: str) -> str:
    lines = [f"## {title}", "", *([text] if text else []), "| key | default | accepts | meaning |", "|---|---|---|---|"]
    for help in keys:
        other = f" Also called {', '.join(f'`{name}`' for name in help.aliases)}." if help.aliases else ""
        shown = f"`{help.default}`" if help.default not in ("required", "its own keys' defaults") else help.default
        cells = (f"`{written(help.path)}`", shown, help.expects, f"{help.description}{other}")
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def missing_descriptions() -> list[str]:
    """Return the dotted paths of settings without a description (a test keeps this empty)."""
    blocks = [("", RunConfig), *((f"model.{name}.", settings) for name, settings in architectures().items())]
    blocks += [(f"model.physics.{name}.", settings) for name, settings in physics_terms().items()]
    return [path for prefix, block in blocks for path, _, field in walk(block, prefix) if not field.description]
