"""Triton's kernels are tested wherever Triton is. Without a GPU, Triton's kernels run in its interpreter. It must be chosen before anything imports Triton."""

import os

import torch

os.environ.setdefault("FORGEFIELD_TRITON", "1")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
