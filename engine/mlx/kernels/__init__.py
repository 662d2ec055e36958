"""Kernels of our own for GPUs: what MLX would launch many nodes for, or read memory more than once for."""
