"""The MLX engine: many requests decode in one batch, on one thread."""
