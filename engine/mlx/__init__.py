"""The MLX engine: many requests decode in one batch, on one thread."""

from engine.backend import load_mlx

load_mlx()  # before any module here imports MLX itself: the BLAS must be loaded first
