"""What mlx-lm can load as a family: everything that no other claims."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.backend import on_cpu
from engine.errors import CheckpointError, EngineError, ModelError, RequestError
from engine.families.family import Family
from engine.files.checkpoint import listed
from engine.files.folder import ModelFolder

if TYPE_CHECKING:
    from engine.families.mlx_lm.model import AdaptedModel


class MLXLM(Family):
    """Any text model of mlx-lm."""

    def load(self, folder: ModelFolder, *, kv_bits: int | None = None) -> AdaptedModel:
        """On a CPU in float32 and dequantised: MLX is slow there with the rest. Whether its rows are right in a batch
        is tried once; if not, they run one by one, and `notes` say so."""
        if kv_bits is not None:
            raise RequestError(
                f"`kv_bits` = {kv_bits}: {folder.model_type} runs by mlx-lm, whose caches of so few bits hold "
                "one row each: leave it out"
            )
        import mlx.core as mx
        from mlx_lm.utils import dequantize_model, load_model

        from engine.families.mlx_lm.batching import adapted

        _ = folder.config, folder.tensors  # what is wrong with them is better told here
        try:
            module, config = load_model(folder.path)
            if on_cpu():
                if "quantization" in config:
                    module = dequantize_model(module)
                module.set_dtype(mx.float32)
                mx.eval(module.parameters())
        except EngineError:
            raise
        except Exception as error:  # mlx-lm raises what it happens to run into
            raise _explain(folder, error) from error
        return adapted(module, folder.model_type)


def _explain(folder: ModelFolder, error: Exception) -> ModelError:
    """What mlx-lm says of a model that it cannot load, in one line; of tensors the first few."""
    head, *names = str(error).splitlines() or [""]
    tensors = re.match(r"(Missing|Received) (\d+) parameters", head)
    if tensors is not None:
        kind, count = "missing" if tensors[1] == "Missing" else "not part of this model", int(tensors[2])
        tensors_named = listed([name.strip(",.") for name in names], total=count)
        return CheckpointError(f"{folder.path} does not fit its config.json: {count} tensors {kind}: {tensors_named}")
    if head.startswith("Expected shape"):
        return CheckpointError(f"{folder.path} does not fit its config.json: {head[0].lower()}{head[1:]}")
    return ModelError(f"mlx-lm cannot load the model in {folder.path} ({type(error).__name__}: {head})")


FAMILY = MLXLM()
