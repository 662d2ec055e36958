"""Families of models: how each is loaded, described and converted.

A family is a folder here, whose module `family` has a `FAMILY`, and a line in `FAMILIES`. What no family claims is left
to mlx-lm, through `engine.families.mlx_lm`.
"""

from __future__ import annotations

from engine.backend import import_on_lasting_thread, load_mlx
from engine.errors import ModelError
from engine.families.family import Family
from engine.files.folder import ModelFolder

FAMILIES = {
    "zaya": "engine.families.zaya.family",
}
"""Beginning of a `model_type` in config.json -> the module whose `FAMILY` has such models."""
_OTHERS = "engine.families.mlx_lm.family"


def slow_here() -> tuple[str, ...]:
    """What keeps kernels of any family from running on this machine: `Family.slow_here`. Raises BackendError."""
    load_mlx()
    families: list[Family] = [import_on_lasting_thread(module).FAMILY for module in FAMILIES.values()]
    return tuple(sentence for family in families for sentence in family.slow_here())


def family_of(folder: ModelFolder) -> Family:
    """The family of a model; that of mlx-lm's models where `config.json` cannot be read.

    Raises BackendError for a family of this engine's own without a working MLX.
    """
    try:
        model_type = folder.model_type
    except ModelError:
        model_type = ""
    module = next((name for start, name in FAMILIES.items() if model_type.startswith(start)), None)
    if module is not None:
        load_mlx()
    family: Family = import_on_lasting_thread(module or _OTHERS).FAMILY
    return family
