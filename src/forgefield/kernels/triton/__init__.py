"""The operators for CUDA devices, written in Triton. Loaded by `load`, never imported without Triton."""
