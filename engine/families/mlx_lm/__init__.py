"""Any text model that mlx-lm has, run by its code and made to fit the engine."""
