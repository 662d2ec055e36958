"""A question: what a benchmark asks, and what would be right."""

from __future__ import annotations

import hashlib
import json

from pydantic import Field, JsonValue

from engine.api import ImagePart
from evals.data.declared import Declared


class Question(Declared):
    """A problem of a benchmark, with its gold answer.

    id       unique within the benchmark, and the same whatever part of it is loaded.
    problem  the text put to the model, before the prompts file of the benchmark's task frames it.
    images   of the problem, in order, as the bytes of their files.
    gold     what the metric compares with; what it may be depends on the metric.
    cluster  questions of one cluster are not independent (they are about one image or document); None: its own.
    fields   what the metric needs besides: options, precision, question type.

    Raises BenchmarkError for what is none of these.
    """

    id: str = Field(min_length=1)
    problem: str
    images: tuple[ImagePart, ...] = Field((), repr=False)
    gold: JsonValue
    cluster: str | None = None
    fields: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Changes with everything but the id that its scores depend on."""
        images = [image.sha256 for image in self.images]
        content = json.dumps([self.problem, images, self.gold, self.cluster, self.fields], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()
