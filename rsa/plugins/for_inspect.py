"""The plugin of inspect_ai (https://inspect.aisi.org.uk).

    inspect eval task.py --model rsa/nano -M n=8 -M t=1
    inspect eval task.py --model rsa/nano --solver rsa/markovian_rsa -S n=8 -S t=1

A model of the provider `rsa` answers each request by a run of Markovian RSA; what stands behind `rsa/` is a model as
`rsa solve --model` takes it, and model args are settings of the runs. The solver does the same for a task whose own
solver asks in another way, and keeps what it learned in the sample's metadata.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from typing import Any

from inspect_ai._util.error import PrerequisiteError  # what inspect_ai tells people in a line, of whoever raises it
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ContentImage,
    ContentText,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    get_model,
    modelapi,
)
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolChoice, ToolInfo

from engine.api import Role
from engine.errors import EngineError
from rsa.controller import MarkovianRSA
from rsa.errors import ConfigError, ProblemError, RSAError
from rsa.plugins.asking import Wanted, differing, facts_of, text_of
from rsa.problem import Problem, Turn
from rsa.results import RunResult

METADATA = "rsa"
"""The key of what is told of a run, in the metadata of outputs and samples; and of the settings of one run, in the
`extra_body` of a request, as for `rsa serve`."""
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


class RunModel(ModelAPI):
    """Markovian RSA on a model. Requests that are made at once share its engine.

    model_args  settings by name, as `rsa.plugins.asking.Wanted` sorts them.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - inspect_ai's own signature
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        try:
            self._given = {"base_url": base_url, **model_args}
            wanted = Wanted.of(model_name, self._given)
            self._rsa = MarkovianRSA(model_name, config=wanted.config, engine_options=wanted.options)
        except (RSAError, EngineError) as error:
            raise PrerequisiteError(f"rsa/{model_name}: {error}") from None
        self._asked: Counter[str] = Counter()

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - inspect_ai's own signature
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """One run. Where the request has no seed, the same conversation asked again (by an epoch) is another run: the
        first has the settings' seed, the next the one after it."""
        if tools and tool_choice != "none":
            raise ConfigError(f"{self.model_name} under rsa/ calls no tools: leave {tools[0].name!r} out")
        settings, problem = _settings_of(config), problem_of(input)
        wanted = Wanted.of(self.model_name, {**self._given, **settings})
        seed = wanted.config.seed
        if settings.get("seed") is None:
            seed = (seed + self._asked[problem.id]) % 2**64
            self._asked[problem.id] += 1
        changes = {**differing(wanted.config, self._rsa.config), "seed": seed}
        out = None if wanted.runs is None else wanted.runs / f"inspect-{problem.id}-{seed}"
        return self._output(await self._rsa.solve(problem, out=out, resume=out is not None, **changes))

    async def aclose(self) -> None:
        """Close the engine; the next request opens it again."""
        await self._rsa.aclose()

    def max_connections(self) -> int:
        """Runs at a time: enough to keep the engine's rows busy while some wait for their last candidate."""
        return max(1, 64 // self._rsa.config.n)

    def _output(self, result: RunResult) -> ModelOutput:
        message = ChatMessageAssistant(content=text_of(result), model=self.model_name, source="generate")
        ended = "stop" if result.answer is not None and not result.limits_hit else "max_tokens"
        usage = result.usage
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=ended)],
            usage=ModelUsage(
                input_tokens=usage.prompt_tokens - usage.cached_tokens,
                input_tokens_cache_read=usage.cached_tokens,
                output_tokens=usage.completion_tokens,
                reasoning_tokens=usage.reasoning_tokens,
                total_tokens=usage.prompt_tokens + usage.completion_tokens,
            ),
            time=result.timings.wall_s,
            metadata={METADATA: facts_of(result)},
        )


@modelapi(name="rsa")
def rsa() -> type[ModelAPI]:
    """The provider: models are `rsa/NAME`."""
    return RunModel


@solver
def markovian_rsa(model: str | None = None, **settings: Any) -> Solver:
    """Answer a sample by a run of Markovian RSA over its messages.

    model     a model of the provider `rsa`, `rsa/nano`; by default the one that is evaluated.
    settings  of the runs, as model args of the provider, and before those. Each epoch has a seed of its own.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        chosen = get_model(model)
        if not isinstance(chosen.api, RunModel):
            raise ConfigError(f"markovian_rsa runs on models of rsa/, not on {chosen}: give model='rsa/NAME'")
        mine = {**settings, "seed": int(settings["seed"]) + state.epoch - 1} if "seed" in settings else settings
        output = await chosen.generate(state.messages, config=GenerateConfig(extra_body={METADATA: mine}))
        state.output = output
        state.messages.append(output.message)
        state.metadata[METADATA] = (output.metadata or {})[METADATA]
        return state

    return solve


def _settings_of(config: GenerateConfig) -> dict[str, Any]:
    """What a request's configuration says of its run. Raises ConfigError for what a run cannot do."""
    if config.num_choices not in (None, 1) or config.stop_seqs:
        raise ConfigError("a run gives one answer to its end: leave num_choices and stop_seqs out")
    asked = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "beta": config.reasoning_tokens,
        "total_tokens": config.max_tokens,
        "seed": config.seed,
    }
    own = (config.extra_body or {}).get(METADATA, {})
    return {**{name: value for name, value in asked.items() if value is not None}, **own}


def problem_of(messages: list[ChatMessage]) -> Problem:
    """The conversation of inspect's messages. Raises ProblemError for what a model cannot be told."""
    return Problem.conversation([_turn(message) for message in messages])


def _turn(message: ChatMessage) -> Turn:
    if message.role not in _ROLES:
        raise ProblemError(f"a message of the role {message.role} cannot be part of a problem: leave tools out")
    images = []
    for part in message.content_list:
        if isinstance(part, ContentImage):
            images.append(_image(part.image))
        elif not isinstance(part, ContentText) and part.type != "reasoning":
            raise ProblemError(f"content of the type {part.type} cannot be part of a problem: give texts and images")
    return Turn(_ROLES[message.role], message.text, images)


def _image(url: str) -> bytes:
    """inspect_ai has made data URLs of files by now."""
    head, _, data = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise ProblemError("an image is no data: URL: give a file, or its bytes in base64")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise ProblemError("an image is not in base64") from None
