"""Keys of the `train` block: what is shown and written on the way."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from forgefield.core.settings import Settings


class RecordKeys(Settings):
    """What is shown and written on the way."""

    log_every: int | Literal["auto"] | None = Field(
        "auto", description="Updates between log lines; auto = 20 lines in all; false, none or off = no lines."
    )
    progress_bar: bool | Literal["auto"] = Field(
        "auto", description="auto = on a terminal; a progress bar replaces the log lines between validations."
    )
    progress_mininterval: float = Field(0.5, gt=0, description="Seconds between redraws of the progress bar.")

    @field_validator("log_every", mode="before")
    @classmethod
    def _off_is_none(cls, value: Any) -> Any:
        return None if value is False or value in ("off", "none", "false") else value

    @field_validator("log_every")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1; write false for no log lines")
        return value
