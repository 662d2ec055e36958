"""Seeing: the image encoder of Qwen2.5-VL, which models of several families have before their language part."""

import engine.mlx  # noqa: F401  a BLAS must be loaded before any module here imports MLX
