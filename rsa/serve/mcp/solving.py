"""The tool `solve`: its arguments, and the run behind a call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, TextContent
from pydantic import Field

from engine.errors import EngineError
from rsa.errors import ProblemError, RSAError
from rsa.problem import ImageLike, Problem
from rsa.serve.errors import LONGEST_MESSAGE, api_error
from rsa.serve.mcp.records import Solved
from rsa.serve.mcp.steps import Steps
from rsa.serve.models import Route
from rsa.serve.orders import Order
from rsa.serve.runs import RunHandle
from rsa.serve.service import Service
from rsa.serve.wishes import MOST, Wishes, run_config
from rsa.settings.methods import Method
from rsa.words import shortened

_LIMITS = ("total_tokens", "deadline_s")
PROBLEM_CHARACTERS = 1_000_000
"""The longest problem. No model here reads as much: what is longer is a mistake."""
MAX_TOKENS = 2**20
"""The largest budget that means anything: no model here has a longer context."""


def _tokens(what: str) -> Any:
    return Field(ge=1, le=MAX_TOKENS, description=what)


Text = Annotated[str, Field(min_length=1, max_length=PROBLEM_CHARACTERS)]
N = Annotated[int, Field(ge=1, le=MOST["n"], description="Candidates a round.")]
C = Annotated[int, Field(ge=1, le=MOST["n"], description="Earlier attempts that an aggregating candidate reads.")]
T = Annotated[int, Field(ge=0, le=MOST["t"], description="Rounds of aggregation after the first; 0: a vote alone.")]
Beta = Annotated[int, _tokens("Reasoning tokens of a candidate.")]
Tau = Annotated[int, _tokens("Tokens that a candidate hands on to the next round.")]
AnswerBudget = Annotated[int, _tokens("Tokens of an answer after the reasoning.")]
Temperature = Annotated[float, Field(ge=0, le=10)]
Seed = Annotated[int, Field(ge=0, lt=2**63, description="Fixes every draw: the same call gives the same answer.")]
Choice = Annotated[
    str, Field(description="How the answer is chosen: vote, weighted, pooled, tournament, aggregate or first.")
]
Stop = Annotated[
    str,
    Field(description="When to stop, with commas: decided, beta:.95, quorum:12, consensus:.9, bayes:.9, answered."),
]
Parents = Annotated[
    str, Field(description="Which attempts an aggregating candidate reads: uniform, confident or distinct.")
]
Waves = Annotated[str, Field(description="Candidates of a round that begin together, with commas; their sum is n.")]
TotalTokens = Annotated[int, Field(ge=1, description="At most so many tokens, all candidates together.")]
Seconds = Annotated[float, Field(gt=0, description="At most so many seconds; then the best answer so far.")]


class Solving:
    """Runs behind calls of `solve`.

    files  whether a call may name files of this machine, as a client on this machine may.
    """

    def __init__(self, service: Service, *, files: bool) -> None:
        self._service, self._files = service, files

    async def solve(
        self,
        problem: Annotated[
            Text, Field(description="The whole problem, in words: nothing else is known to the solver.")
        ],
        ctx: Context[Any, Any],
        system: Annotated[str | None, Field(description="What the model is told before the problem.")] = None,
        images: Annotated[
            list[str] | None, Field(description="data: or http(s) URLs of images of the problem.")
        ] = None,
        image_files: Annotated[list[str] | None, Field(description="Paths of images on the server's machine.")] = None,
        model: Annotated[str | None, Field(description="A model of this server; by default its first.")] = None,
        method: Method | None = None,
        profile: Annotated[str | None, Field(description="Settings by name, such as light or paper-8k.")] = None,
        n: N | None = None,
        c: C | None = None,
        t: T | None = None,
        beta: Beta | None = None,
        tau: Tau | None = None,
        answer_budget: AnswerBudget | None = None,
        temperature: Temperature | None = None,
        seed: Seed | None = None,
        select: Choice | None = None,
        stop: Stop | None = None,
        parents: Parents | None = None,
        waves: Waves | None = None,
        total_tokens: TotalTokens | None = None,
        deadline_s: Seconds | None = None,
    ) -> Annotated[CallToolResult, Solved]:
        """Solve a hard problem by Markovian RSA: many attempts in parallel, whose ends are read and improved on for
        some rounds, and a vote on the answers. Takes longer than one attempt, and is right more often. For problems
        with an answer that can be told right from wrong: mathematics, puzzles, counting, code.
        """
        given = {name: value for name, value in locals().items() if name not in ("self", "ctx")}
        try:
            handle = self.started(await self.order(given))
            try:
                return await self._followed(handle, ctx)
            finally:
                handle.cancel()  # of a run that ended this means nothing
        except (RSAError, EngineError) as error:
            return fault(error)

    async def order(self, arguments: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None) -> Order:
        """What a call asks for; `metadata`: of a call that goes on when nobody waits for it.

        Raises RSAError and EngineError for what cannot be.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        images = await self._images(given.pop("images", []), given.pop("image_files", []))
        problem = Problem(given.pop("problem"), system=given.pop("system", None), images=images)
        served = self._service.served
        route: Route = served.route(given.pop("model", served.models[0]))
        limits = {name: given.pop(name) for name in _LIMITS if name in given}
        wishes = Wishes(rsa={**given, **({"limits": limits} if limits else {})})
        return Order(
            problem=problem,
            config=run_config(wishes, route, served),
            model=route.model,
            name=route.name,
            background=metadata is not None,
            metadata=metadata or {},
        )

    def started(self, order: Order) -> RunHandle:
        """The run of an order, which is at work from now on. Raises ApiError when the server is about to end, or has
        too much to do."""
        self._service.refuse_if_draining()
        return self._service.runs.start(order, self._service.slots.ticket())

    async def _images(self, urls: list[str], paths: list[str]) -> list[ImageLike]:
        if paths and not self._files:
            raise ProblemError("image_files are files of the server's machine: over HTTP, send images as data: URLs")
        pictures = self._service.pictures()
        found: list[ImageLike] = [await pictures.take(url) for url in urls]
        return found + [Path(path) for path in paths]

    async def _followed(self, handle: RunHandle, ctx: Context[Any, Any]) -> CallToolResult:
        steps = Steps()
        async for numbered in handle.follow():
            if (step := steps.feed(numbered.event)) is not None:
                await ctx.report_progress(step.done, step.total, step.line)
        return await solved(handle)


def fault(error: Exception) -> CallToolResult:
    """What the model that called is told in a line, to mend it."""
    said = api_error(error).message.removeprefix("rsa.")  # settings are the tool's own arguments
    text = shortened(" ".join(said.split()), LONGEST_MESSAGE)
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


async def solved(handle: RunHandle) -> CallToolResult:
    """The result of a call whose run has ended. Raises what ended it, if that was no answer."""
    result = await handle.result()
    return Solved.of(result, handle.id, str(handle.folder.resolve())).as_result()
