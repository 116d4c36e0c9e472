"""How a data set is divided into training and validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from forgefield.core.settings import Settings

METHODS = ("auto", "random", "blocks", "groups")
Method = Literal["auto", "random", "blocks", "groups"]
Part = (
    Annotated[float, Field(ge=0.0, lt=1.0, strict=True)]
    | Annotated[int, Field(ge=1, strict=True)]
    | tuple[Annotated[int, Field(ge=0, strict=True)], ...]
)


class SplitSettings(Settings):
    """Which structures are kept for validation and test."""

    method: Method = Field(
        default="auto",
        description="auto: as the data's own split.json says (XequiNet), else trajectories are divided by whole "
        "trajectories or in contiguous blocks, all else at random. random: each structure is drawn by itself. blocks: "
        "the whole set is one trajectory. groups: what agrees in `by` stays together.",
    )
    by: Annotated[str, StringConstraints(min_length=1)] = Field(
        default="trajectory",
        description="What groups have in common: trajectory, composition, config_type, fidelity, head, source, or the "
        "name of an entry in the frames' header; with method groups.",
    )
    val: Part | None = Field(
        default=None,
        description="Validation structures: a part of all (0.1), a number (200), or their indices from 0 ([3, 17]). "
        "null: data.val_fraction.",
    )
    test: Part = Field(
        default=0.0,
        description="Structures that are left out of training and validation and evaluated after training, as "
        "`data.test` is: a part, a number or indices. Their indices stand in split.json.",
    )
    gap: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        default="auto",
        description="Frames left out on either side of a block. auto: as many as the atoms need to move on, at most "
        "5 % of the trajectory.",
    )

    @field_validator("val", "test")
    @classmethod
    def _once(cls, value: Any) -> Any:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("an index stands there more than once")
        return value


def as_split(value: Any) -> Any:
    """Turn a word into settings; a text with a dot or slash is a file."""
    if isinstance(value, str) and value in METHODS:
        return {"method": value}
    if isinstance(value, str) and not Path(value).suffix:
        raise ValueError(f"{value!r} is not one of {', '.join(METHODS)}, nor a file (split.json), nor a block")
    return value
