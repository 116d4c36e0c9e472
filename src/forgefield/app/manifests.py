"""The manifest of a model, looked at before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest that a path means, if it is there and readable; loading reports the rest.

    Args:
        path: a manifest, the folder of one, or a run folder, which stands for its best model.
    """
    if path.is_dir():
        places = (path / inside / "manifest.json" for inside in ("", "artifacts", "checkpoints/best"))
        path = next((place for place in places if place.is_file()), path)
    if path.name != "manifest.json" or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
