"""The text of a translated run.yaml."""

from __future__ import annotations

import io
import json
from typing import Any

from ruamel.yaml import YAML

from forgefield.app.settings_help import yaml_text
from forgefield.app.translation import Dialect, Given, Line, Remark, Sheet, own_default

_WIDTH = 118
_PLACE_OF_COMMENT = 40
_BLOCKS = ("data", "model", "train", "eval", "export", "output")


def render(dialect: Dialect, given: Given, sheet: Sheet) -> str:
    """Return the run.yaml of a sheet: what was given, and what is not our default."""
    backend = sheet.lines["backend"].value if "backend" in sheet.lines else "mace"
    shown = {
        path: line for path, line in sheet.lines.items() if line.comment or not _is_own_default(path, line, backend)
    }
    lines = [
        f"# Translated from {given.title}, settings of {dialect.program}.",
        f"# Where {dialect.program} has other defaults than ForgeField, they are written out.",
        "",
    ]
    block: str | None = None
    for path, line in sorted(shown.items(), key=lambda item: _order(item[0], list(shown))):
        parts = path.split(".")
        top, name = (None, parts[0]) if len(parts) == 1 else (parts[0], ".".join(parts[1:]))
        if top != block:
            lines += ["", f"{top}:"]
            block = top
        lines += _key_lines(name, line, "  " if top else "")
    for title, remarks in (
        (f"Keys of {dialect.program} that need nothing here:", sheet.needless),
        (f"Keys of {dialect.program} that HAVE NO COUNTERPART and were left out (--force):", sheet.lost),
    ):
        lines += (
            ["", f"# {title}", *(text for group in _by_reason(remarks) for text in _remark_lines(group))]
            if remarks
            else []
        )
    return "\n".join(lines) + "\n"


def _order(path: str, paths: list[str]) -> tuple[int, int]:
    """Keys of the top level first, then the blocks, each in the order its keys came."""
    return (_BLOCKS.index(path.split(".")[0]) if "." in path else -1, paths.index(path))


def _is_own_default(path: str, line: Line, backend: str) -> bool:
    default = own_default(path, backend)
    value = list(line.value) if isinstance(line.value, tuple) else line.value
    return value == (list(default) if isinstance(default, tuple) else default) and path not in _ALWAYS


_ALWAYS = ("name", "backend", "task", "run_dir", "device", "dtype")


def _key_lines(name: str, line: Line, indent: str) -> list[str]:
    if _is_table(line.value):
        said = [f"{indent}# {part}" for part in _wrapped(line.comment, _WIDTH - len(indent) - 2) if part]
        return [*said, f"{indent}{name}:", *(f"{indent}  {row}" for row in _rows(line.value))]
    text = f"{indent}{name}: {_flow(line.value)}"
    if not line.comment:
        return [text]
    beside = f"{text.ljust(_PLACE_OF_COMMENT)}  # {line.comment}"
    if len(beside) <= _WIDTH:
        return [beside]
    return [*(f"{indent}# {part}" for part in _wrapped(line.comment, _WIDTH - len(indent) - 2)), text]


def _is_table(value: Any) -> bool:
    """Say whether a value is a list or block of blocks, which get a line each."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return bool(items) and all(isinstance(item, dict) and item for item in items)


def _rows(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{_flow(key)}: {_flow(item)}" for key, item in value.items()]
    return [f"- {_flow(item)}" for item in value]


def _by_reason(remarks: list[Remark]) -> list[list[Remark]]:
    """Put remarks of one reason together, in the order of the first of each."""
    groups: dict[str, list[Remark]] = {}
    for remark in remarks:
        groups.setdefault(remark.why, []).append(remark)
    return list(groups.values())


def _remark_lines(group: list[Remark]) -> list[str]:
    keys = "; ".join(f"{remark.key}: {yaml_text(remark.value)}" for remark in group)
    first, *rest = _wrapped(f"{keys}  ({group[0].why})".replace("\n", " "), _WIDTH - 6)
    return [f"#   {first}", *(f"#     {part}" for part in rest)]


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, float):
        return json.dumps(value) if "e" not in repr(value) or "." in repr(value) else repr(value).replace("e", ".0e")
    writer, text = YAML(typ="safe", pure=True), io.StringIO()
    writer.default_flow_style, writer.width = True, 10_000
    writer.sort_base_mapping_type_on_output = False  # type: ignore[attr-defined]
    writer.dump(list(value) if isinstance(value, tuple) else value, text)
    return text.getvalue().removesuffix("\n...\n").strip()
