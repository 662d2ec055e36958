"""What a family of models provides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ModelError
from engine.files.checkpoint import OnProgress, TensorInfo
from engine.files.folder import ModelFolder
from engine.files.inspection import Layout

if TYPE_CHECKING:
    from engine.files.conversion import Conversion
    from engine.mlx.features import ImageStore
    from engine.mlx.model import TextModel


class Family(ABC):
    """Models that are loaded alike. `load` is all that a new family needs; the rest has answers for most."""

    @abstractmethod
    def load(self, folder: ModelFolder, *, kv_bits: int | None = None) -> TextModel:
        """The model in a folder, ready to run; on the thread that will run it.

        kv_bits  8: its caches are to keep keys and values in as many bits; None: as it computes them.

        Raises ModelError for what is missing or cannot be read, CheckpointError for tensors that do not fit,
        RequestError if its caches cannot have so few bits.
        """

    def slow_here(self) -> tuple[str, ...]:
        """What keeps kernels of the family's own from running on this machine, a sentence each; none where they run, or
        are not wanted. It takes as long as compiling them."""
        return ()

    def image_store(self, folder: ModelFolder) -> ImageStore | None:
        """What prepares images for the model; None if it reads text only. Raises ModelError."""
        return None

    def layers(self, folder: ModelFolder) -> int | None:
        """Layers of the model, as people count them; None: its configuration does not tell."""
        text = folder.config.get("text_config")
        sizes = {**(text if isinstance(text, dict) else {}), **folder.config}
        count = sizes.get("num_hidden_layers")
        return count if isinstance(count, int) and not isinstance(count, bool) else None

    def layout(self, folder: ModelFolder, tensors: Mapping[str, TensorInfo]) -> Layout | None:
        """Where the files come from; None: they do not tell. `tensors` are those found."""
        if isinstance(folder.config.get("quantization"), dict):
            return Layout("mlx-lm", "converted by mlx-lm")
        return Layout("hub", "hub checkpoint of another model")

    def problems(self, folder: ModelFolder, files: list[Path]) -> list[str]:
        """What keeps the model from being loaded, a sentence each, beyond what files and headers tell of any model.
        `files` are the weights that can be read. Nothing large is read."""
        return []

    def convert(
        self,
        folder: ModelFolder,
        target: Path,
        *,
        bits: int,
        mode: str,
        group_size: int | None,
        dtype: str | None,
        on_progress: OnProgress,
    ) -> Conversion:
        """Quantise the model into a folder, or go on with that: see `engine.loader.convert_model`."""
        raise ModelError(
            f"{folder.path} is a {folder.model_type} model; such models are converted by `mlx_lm.convert`, not here"
        )
