"""Keys of the `train` block: how exactly and by which code it is computed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from forgefield.core.settings import Matmul, Settings


class PrecisionKeys(Settings):
    """How exactly and by which code it is computed."""

    amp: bool | Literal["float16", "bfloat16"] = Field(
        False,
        description="Mixed precision: float16 (or true; with gradient scaling, CUDA only) or bfloat16 (CUDA, CPU); off "
        "where the device has it not, and a line says so.",
    )
    matmul: Matmul = Field(
        "float32",
        description="Products of float32 matrices while fitting: float32 (strict), tf32 (newer NVIDIA GPUs) or bf16 "
        "(processors with AMX), faster and less exact; where the machine cannot do it, float32, and a line says so.",
    )
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="Train through torch.compile. auto = fits of 5,000 updates and more (unless max_minutes or "
        "max_cpu_minutes is below 20) whose hot sums have no kernels here, eagerly where it fails; true = always, an "
        "error where it fails; "
        "false = never. What is compiled is first compared with the eager model, every gradient included; "
        "kept between runs in TORCHINDUCTOR_CACHE_DIR.",
    )

    constant_physics: Literal["once", "every_step"] = Field(
        "once",
        description="Physics terms that depend on the structure alone (d3, d4, coulomb with charges that are given; "
        "zbl beside one of these): once = computed when a structure is first met, and kept in memory; every_step = "
        "with every prediction.",
    )

    @field_validator("compile")
    @classmethod
    def _not_with_amp(cls, value: bool | str, info: ValidationInfo) -> bool | str:
        if value is True and info.data.get("amp"):
            raise ValueError("true cannot be had with amp, whose rounding hides a wrong result; drop one of them")
        return value

    @field_validator("matmul")
    @classmethod
    def _float32_products(cls, value: str, info: ValidationInfo) -> str:
        if value != "float32" and info.data.get("amp"):
            raise ValueError("has no effect with amp, which multiplies in half precision; keep one of the two")
        return value
