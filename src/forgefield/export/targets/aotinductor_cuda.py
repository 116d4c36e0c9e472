"""AOTInductor for CUDA devices: the same file as `aotinductor`, compiled for a GPU."""

from __future__ import annotations

from typing import Literal

from forgefield.core.catalog import Entry
from forgefield.export.targets.aotinductor import AOTInductorSettings, AOTInductorTarget


class CudaSettings(AOTInductorSettings):
    """Settings of the AOTInductor package for CUDA."""

    device: Literal["cpu", "cuda"] = "cuda"


ENTRY = Entry(settings=CudaSettings, build=AOTInductorTarget, summary="machine code for aoti_load_package, for CUDA")
