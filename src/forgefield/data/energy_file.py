"""Files of reference energies: YAML or JSON, `element: eV`, also by head or fidelity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from forgefield.core.disk import write_atomic
from forgefield.core.errors import DataError

ENDINGS = (".json", ".yaml", ".yml")


def is_energy_file(path: Path) -> bool:
    """Return whether a file holds values, not structures, by its ending."""
    return path.suffix.lower() in ENDINGS


def read_energies(path: Path) -> dict[str, Any]:
    """Read `element: eV`, or such tables by name; elements are symbols or atomic numbers.

    Raises:
        DataError: the file cannot be read or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix.lower() == ".json" else _from_yaml(text)
    except (OSError, ValueError) as error:
        fix = "write JSON: {'H': -13.6} with double quotes" if path.suffix.lower() == ".json" else "write H: -13.6"
        raise DataError(f"cannot be read ({_first(error)})", str(path), fix) from None
    if not isinstance(found, dict):
        raise DataError("holds no mapping of elements to energies", str(path), 'write {"H": -13.6}')
    return {str(k): {str(z): e for z, e in v.items()} if isinstance(v, dict) else v for k, v in found.items()}


def write_energies(path: Path, tables: Mapping[str, Mapping[int, float]], remarks: list[str]) -> None:
    """Write `Z: eV` as YAML with all digits, by name where there are several tables.

    Args:
        path: the file.
        tables: name -> atomic number -> eV.
        remarks: comment lines above.
    """
    lines = [f"# {remark}" for remark in remarks]
    for name, table in tables.items():
        indent = ""
        if len(tables) > 1:
            lines.append(f"{json.dumps(name)}:")
            indent = "  "
        lines += [f"{indent}{z}: {float(energy)!r}" for z, energy in sorted(table.items())]
    write_atomic(path, "\n".join(lines) + "\n")


def _from_yaml(text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(StringIO(text))
    except YAMLError as error:
        raise ValueError(str(error)) from None


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
