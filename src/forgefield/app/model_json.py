"""`train.input_json`: a model.json that describes a MACE, read strictly and turned into our settings.

The keys that shape the network become the `model` block. What belongs to the data (elements, reference energies,
neighbours, scale and shift) is kept in `RunConfig.model_json` and takes the place of what would be measured.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from forgefield.app.settings_help import nearest, yaml_text
from forgefield.app.yaml_source import Node, Place, node_of
from forgefield.core.catalog import Catalog
from forgefield.core.errors import ConfigError
from forgefield.core.settings import Settings

BACKEND = "mace"
_KINDS = {
    "RealAgnosticInteractionBlock": "plain",
    "RealAgnosticResidualInteractionBlock": "residual",
    "RealAgnosticDensityInteractionBlock": "density",
    "RealAgnosticDensityResidualInteractionBlock": "density_residual",
}
# Key of model.json -> key of our settings.
_SETTINGS = {
    "cutoff": "r_max", "num_interactions": "num_interactions", "num_radial_basis": "num_radial_basis",
    "radial_type": "radial_type", "num_polynomial_cutoff": "num_polynomial_cutoff", "hidden_irreps": "hidden_irreps",
    "MLP_irreps": "mlp_irreps", "max_ell": "max_ell", "correlation": "correlation", "radial_MLP": "radial_mlp",
    "pair_repulsion": "pair_repulsion", "distance_transform": "distance_transform", "gate": "gate",
    "interaction_cls": "interaction", "interaction_cls_first": "interaction_first", "edge_irreps": "edge_irreps",
    "use_reduced_cg": "use_reduced_cg", "use_agnostic_product": "use_agnostic_product", "use_so3": "use_so3",
    "use_last_readout_only": "use_last_readout_only", "apply_cutoff": "apply_cutoff",
}  # fmt: skip
# The one value accepted for a key that our settings do not have.
_ONLY = {"gate": "silu", "edge_irreps": None, "use_so3": False, "apply_cutoff": True}
_DATA_KEYS = ("model_type", "z_table", "e0_values", "heads", "avg_num_neighbors", "scale_shift", "readout_cls")
_REQUIRED = (
    "model_type", "z_table", "cutoff", "num_interactions", "num_radial_basis", "hidden_irreps", "max_ell", "correlation"
)  # fmt: skip


class ModelJson(Settings):
    """What a model.json said beside the architecture's settings."""

    path: str = Field(description="The file that was read.")
    sha256: str = Field(description="Hash of its canonical text: JSON with sorted keys and no spaces.")
    elements: tuple[int, ...] = Field(description="Atomic numbers that the model knows (z_table), ascending.")
    heads: tuple[str, ...] = Field(default=("default",), min_length=1, description="Names of the heads.")
    reference_energies: dict[str, dict[int, float]] | None = Field(
        default=None, description="Energy of a lone atom by head and atomic number, eV; null means data.e0 decides."
    )
    avg_num_neighbors: float | None = Field(
        default=None, gt=0, description="Mean number of neighbours; null measures it."
    )
    scale: tuple[float, ...] | None = Field(
        default=None, description="Scale of the energies per head; null measures it."
    )
    shift: tuple[float, ...] | None = Field(default=None, description="Shift per atom and head, eV; null means zero.")

    @model_validator(mode="after")
    def _consistent(self) -> ModelJson:
        if not self.elements or list(self.elements) != sorted(set(self.elements)):
            raise ValueError("z_table: give each atomic number once, ascending")
        if self.elements[0] < 1 or self.elements[-1] > 118:
            raise ValueError("z_table: atomic numbers run from 1 to 118")
        for name, values in (("scale", self.scale), ("shift", self.shift)):
            if values is not None and len(values) != len(self.heads):
                raise ValueError(f"scale_shift.{name}: give one number, or one per head ({len(self.heads)})")
        return self


def apply_model_json(tree: Node) -> Node:
    """Read the file that `train.input_json` names and write its contents into the run's tree.

    Raises:
        ConfigError: the file is not a model.json, or the run describes the architecture twice.
    """
    named = tree.find("train", "input_json")
    if named is None or named.value is None:
        return tree
    backend = tree.child("backend")
    if backend is not None and backend.value not in (None, BACKEND):
        raise ConfigError(
            f"train.input_json: model.json describes a {BACKEND}, but backend is {backend.value!r}", str(named.place)
        )
    settings, record = read_model_json(str(named.value), named.place)
    model = tree.child("model") or Node({}, named.place)
    items = dict(model.value or {})
    for key in settings:
        if key in items:
            text = f"model.{key}: train.input_json describes the architecture as well"
            raise ConfigError(text, str(items[key].place), "keep one of the two")
    place = Place(str(named.value))
    items |= {key: node_of(value, place) for key, value in settings.items()}
    train = tree.find("train")
    assert train is not None
    tree = tree.with_child("train", train.with_child("input_json", None))
    tree = tree.with_child("model", Node(items, model.place, model.key))
    tree = tree.with_child("model_json", node_of(record.model_dump(mode="python"), place))
    return tree if backend is not None and backend.value else tree.with_child("backend", Node(BACKEND, place))


def read_model_json(path: str, named: Place) -> tuple[dict[str, Any], ModelJson]:
    """Return the architecture settings that a model.json gives, and the rest of what it says."""
    content = _load(path, named)
    _refuse_unknown(content, path)
    kind = content["model_type"]
    if kind not in ("MACE", "ScaleShiftMACE"):
        raise ConfigError(f"model_type {kind!r} is not known", path, "MACE or ScaleShiftMACE")
    if kind == "MACE" and content.get("scale_shift") is not None:
        raise ConfigError("scale_shift belongs to ScaleShiftMACE, not to MACE", path)
    readout = str(content.get("readout_cls") or "NonLinearReadoutBlock").rsplit(".", 1)[-1]
    if readout != "NonLinearReadoutBlock":
        raise ConfigError(f"readout_cls {readout!r} is not supported", path, "NonLinearReadoutBlock")
    return _settings(content, path), _record(content, path)


def _load(path: str, named: Place) -> dict[str, Any]:
    """Read JSON without duplicate keys."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            keys = [key for key, _ in pairs]
            raise ConfigError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands twice", path)
        return table

    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=once)
    except OSError as error:
        raise ConfigError(
            f"train.input_json: {path}: {(error.strerror or 'cannot be read').lower()}", str(named)
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("not a text file in UTF-8", path) from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"not valid JSON: {error.msg}", f"{path}:{error.lineno}:{error.colno}") from None
    if not isinstance(content, dict):
        raise ConfigError("expected a JSON object", path)
    return content


def _refuse_unknown(content: dict[str, Any], path: str) -> None:
    known = [*_SETTINGS, *_DATA_KEYS]
    problems = []
    for key in content:
        if key not in known:
            near = nearest(key, known)
            problems.append(f"{path}: {key}: unknown key. {f'Did you mean {near!r}?' if near else ''}".rstrip())
    problems += [f"{path}: {key}: this key is required" for key in _REQUIRED if key not in content]
    if problems:
        raise ConfigError("\n".join(problems))


def _settings(content: dict[str, Any], path: str) -> dict[str, Any]:
    fields = Catalog("forgefield.models.architectures").entry(BACKEND).settings.model_fields
    found = {}
    for key, name in _SETTINGS.items():
        if key not in content:
            continue
        value = _translate(key, content[key], path)
        if name in fields:
            found[name] = value
        elif value != _ONLY[key]:
            raise ConfigError(f"{key}: {yaml_text(value)} is not supported", path, f"only {yaml_text(_ONLY[key])}")
    if "interaction_cls" in content and "interaction_cls_first" not in content:
        found["interaction_first"] = found["interaction"]
    return found


def _translate(key: str, value: Any, path: str) -> Any:
    """Return a value of model.json in our words."""
    if key in ("interaction_cls", "interaction_cls_first"):
        name = str(value).rsplit(".", 1)[-1]
        if name not in _KINDS:
            raise ConfigError(f"{key}: {name!r} is not supported", path, f"one of {', '.join(_KINDS)}")
        return _KINDS[name]
    if key == "distance_transform":
        return "none" if value is None else str(value).lower()
    if key == "gate" and isinstance(value, str):
        return value.rsplit(".", 1)[-1].lower()
    return value


def _record(content: dict[str, Any], path: str) -> ModelJson:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    heads = content.get("heads") or ["default"]
    pair = content.get("scale_shift") or {}
    if not isinstance(pair, dict) or set(pair) - {"scale", "shift"}:
        raise ConfigError("scale_shift: expected the keys scale and shift", path)
    try:
        return ModelJson(
            path=path,
            sha256=hashlib.sha256(canonical.encode()).hexdigest(),
            elements=tuple(content["z_table"]),
            heads=tuple(heads),
            reference_energies=_reference_energies(content, heads),
            avg_num_neighbors=content.get("avg_num_neighbors"),
            scale=_per_head(pair.get("scale"), len(heads)),
            shift=_per_head(pair.get("shift"), len(heads)),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(_plain_reason(error), path) from None


def _reference_energies(content: dict[str, Any], heads: list[str]) -> dict[str, dict[int, float]] | None:
    values, elements = content.get("e0_values"), content["z_table"]
    if values is None:
        return None
    rows = values if values and isinstance(values[0], list) else [values]
    rows = rows * len(heads) if len(rows) == 1 else rows
    if len(rows) != len(heads) or any(len(row) != len(elements) for row in rows):
        raise ValueError(f"e0_values: give {len(elements)} numbers (one per z_table entry), for each head or once")
    return {head: dict(zip(elements, row, strict=True)) for head, row in zip(heads, rows, strict=True)}


def _per_head(value: Any, n_heads: int) -> tuple[float, ...] | None:
    if value is None:
        return None
    return tuple(value) if isinstance(value, list) else (value,) * n_heads


def _plain_reason(error: Exception) -> str:
    """Return a validation error in one line."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    first = errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"
