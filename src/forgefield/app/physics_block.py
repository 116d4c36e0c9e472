"""`model.physics`: terms by name, each with the settings of its own."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from forgefield.core.catalog import Catalog
from forgefield.core.errors import ForgeError
from forgefield.core.settings import Settings

PHYSICS = "forgefield.models.physics"


def physics_settings(value: Any) -> Any:
    """Return the settings of each term, checked by the term's own class.

    Raises:
        ValueError: there is no such term, or one of its settings is wrong.
    """
    if not isinstance(value, dict):
        raise ValueError("expected terms by name: {zbl: {}}")
    return {name: _settings(str(name), given) for name, given in value.items()}


def _settings(name: str, given: Any) -> Settings:
    try:
        settings = Catalog(PHYSICS).entry(name).settings
    except ForgeError as error:
        raise ValueError(str(error)) from None
    if isinstance(given, settings):
        return given
    try:
        return settings.model_validate({} if given is None else given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in (name, *first["loc"]))
        known = f"; its settings are {', '.join(settings.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise ValueError(f"{key}: {first['msg'].removeprefix('Value error, ')}{known}") from None
