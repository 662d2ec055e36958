"""What the tool `solve` gives back: the answer, and what stands behind it."""

from __future__ import annotations

from mcp_types import CallToolResult, TextContent
from pydantic import Field

from engine.api import Usage
from rsa.answers.checking import mark_of
from rsa.results import Check, LimitName, Record, RunResult, StopReason


class VoteShown(Record):
    """Candidates whose answers are the same: how many of the round's gave it."""

    answer: str
    count: int
    of: int
    check: Check | None = None


class Solved(Record):
    """What a run came to; the tool's structured output.

    answer       None: no candidate gave one; `warnings` and `stopped_because` say more.
    check        what the model's own checker says of the answer: a label, no proof; None where it has no checker.
    text         what the candidate of that answer wrote after its reasoning.
    rounds       that were played.
    usage        tokens of all candidates together.
    settings     of the run, those that say what it cost.
    run_folder   where all of it is kept, on the machine of the server.
    """

    answer: str | None
    check: Check | None = None
    text: str
    votes: tuple[VoteShown, ...]
    rounds: int
    stopped_because: StopReason
    limits_hit: tuple[LimitName, ...] = ()
    warnings: tuple[str, ...] = ()
    usage: Usage
    seconds: float
    model: str
    settings: dict[str, int] = Field(default_factory=dict)
    run_id: str
    run_folder: str

    @classmethod
    def of(cls, result: RunResult, run_id: str, folder: str) -> Solved:
        """Of a run that ended."""
        return cls(
            answer=result.answer,
            check=result.check,
            text=result.text.strip(),
            votes=tuple(
                VoteShown(answer=vote.answer, count=vote.count, of=vote.of, check=vote.check) for vote in result.votes
            ),
            rounds=len(result.rounds),
            stopped_because=result.stopped_because,
            limits_hit=result.limits_hit,
            warnings=result.warnings,
            usage=result.usage,
            seconds=round(result.timings.wall_s, 3),
            model=result.model.name,
            settings={name: result.config.values()[name] for name in ("n", "c", "t", "beta", "tau", "seed")},
            run_id=run_id,
            run_folder=folder,
        )

    def as_result(self) -> CallToolResult:
        """The result of the tool: a few words for the model that reads them, and all of this."""
        content = [TextContent(type="text", text=text) for text in (self.text, self._summary()) if text]
        return CallToolResult(content=content, structured_content=self.model_dump(mode="json"))

    def _summary(self) -> str:
        if self.answer is None:
            return f"No answer after {self.rounds} rounds ({self.stopped_because}). {' '.join(self.warnings)}".strip()
        mark = f", {mark_of(self.check)}" if self.check is not None else ""
        votes = "; ".join(f"{vote.answer}: {vote.count} of {vote.of}" for vote in self.votes)
        return f"Answer: {self.answer}{mark}. Votes: {votes}."
