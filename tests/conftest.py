"""Triton's kernels are tested wherever Triton is, without a GPU in its interpreter.

Both must be chosen before anything imports Triton.
"""

import os

import torch

os.environ.setdefault("FORGEFIELD_TRITON", "1")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
