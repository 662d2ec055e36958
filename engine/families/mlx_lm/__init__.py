"""Any text model that mlx-lm has, run by its code and made to fit the engine."""

import engine.mlx  # noqa: F401  a BLAS must be loaded before any module here imports MLX
