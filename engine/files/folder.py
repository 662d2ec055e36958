"""A model folder, each of its files read once: what loads, describes or converts a model is handed this."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ModelError
from engine.files import checkpoint
from engine.files.checkpoint import TensorInfo

if TYPE_CHECKING:
    from engine.api import RecommendedSampling

GENERATION_CONFIG = "generation_config.json"
_TEMPLATE_FILES = ("chat_template.json", "processor_config.json")
"""Files that may hold the chat template of a model that sees: beside its processor, which tokenizers do not read."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder in the hub's layout. What is asked for is read then, and kept; whatever cannot be read raises ModelError
    each time."""

    path: Path

    @cached_property
    def _read(self) -> dict[str, dict[str, Any] | None]:
        return {}

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON file by its name; None if there is none."""
        if name not in self._read:
            file = self.path / name
            self._read[name] = checkpoint.read_json(file) if file.is_file() else None
        return self._read[name]

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`."""
        return checkpoint.read_config(self.path)

    @property
    def model_type(self) -> str:
        """What `config.json` calls the kind of model; empty if it does not say."""
        return str(self.config.get("model_type") or "")

    @property
    def generation_config(self) -> dict[str, Any]:
        """`generation_config.json`; empty if there is none."""
        return self.json(GENERATION_CONFIG) or {}

    @cached_property
    def weight_files(self) -> list[Path]:
        """All safetensors files of the model."""
        return checkpoint.weight_files(self.path)

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """What the headers of these files say, by the tensor's name."""
        return checkpoint.read_headers(self.weight_files)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with anything that loading reads."""
        return checkpoint.fingerprint(self.path)

    @property
    def context_tokens(self) -> int | None:
        """Positions of the model; those that also see keep their language part's settings apart."""
        text = self.config.get("text_config")
        tables = [self.config, text if isinstance(text, dict) else {}]
        found = next(filter(None, (table.get("max_position_embeddings") for table in tables)), None)
        if found is not None and not _is_whole(found):
            raise ModelError(f"{self.path / checkpoint.CONFIG}: max_position_embeddings is {found!r}, not a number")
        return found

    @property
    def end_ids(self) -> list[int]:
        """Token ids that end a completion: the generation config's, else the model config's."""
        ids = self.generation_config.get("eos_token_id")
        if ids is None:
            ids = (self.json(checkpoint.CONFIG) or {}).get("eos_token_id")
        listed = ids if isinstance(ids, list) else [] if ids is None else [ids]
        if not all(map(_is_whole, listed)):
            raise ModelError(f"{self.path}: eos_token_id is {ids!r}, not a token id or a list of them")
        return listed

    @property
    def processors_template(self) -> str | None:
        """The chat template that lies beside a processor, if one does."""
        for name in _TEMPLATE_FILES:
            template = (self.json(name) or {}).get("chat_template")
            if isinstance(template, str):
                return template
        return None

    @property
    def recommended_sampling(self) -> RecommendedSampling | None:
        """How the makers of a model would have it sampled: what the generation config names, the rest switched off.

        None if they do not say: it names no sampling, or a value in it is no such value. Neither do `do_sample: false`
        and temperature 0: greedy is meant for a single answer, and N candidates of it would be one.
        """
        from pydantic import ValidationError

        from engine.api import RecommendedSampling

        table = self.generation_config
        named = {key: table[key] for key in RecommendedSampling.model_fields if table.get(key) is not None}
        samples = table.get("do_sample")
        if samples is False or (samples is not True and not named):
            return None
        try:
            return RecommendedSampling.model_validate(named)
        except ValidationError:
            return None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
