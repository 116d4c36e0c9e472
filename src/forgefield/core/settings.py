"""The base of every settings class: frozen, and strict about unknown keys."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Matmul = Literal["float32", "tf32", "bf16"]
"""How exactly products of float32 matrices are computed."""


class Settings(BaseModel):
    """Validated, immutable settings; each field carries its own description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, populate_by_name=True, protected_namespaces=()
    )
