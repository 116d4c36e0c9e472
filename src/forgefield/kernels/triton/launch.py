"""How kernels are launched."""

from __future__ import annotations

from typing import Any

import triton

FUSED: dict[str, Any] = {"enable_fp_fusion": True}
"""Options of every launch: multiply and add in one step. Said aloud because Triton's default is about to change."""

ONE_WARP: dict[str, Any] = {"num_warps": 1, **FUSED}


def block(channels: int, most: int) -> int:
    """Channels that one program handles: a power of two from 32 to `most`."""
    return min(most, max(32, triton.next_power_of_2(channels)))
