"""The ZAYA1 models on MLX, those that see included: configuration, network, cache and checkpoint loading."""

import engine.mlx  # noqa: F401  a BLAS must be loaded before any module here imports MLX
from engine.families.zaya.cache import CCACache
from engine.families.zaya.config import ModelArgs
from engine.families.zaya.model import Model
from engine.families.zaya.weights import get_model_classes, load

__all__ = ["CCACache", "Model", "ModelArgs", "get_model_classes", "load"]
