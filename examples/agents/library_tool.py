"""The library in a tool: an agent may think hard about one thing, sees how it goes, and can stop it."""

import anyio

from rsa import MarkovianRSA, RunResult

PATIENCE_S = 60.0


async def think_hard(rsa: MarkovianRSA, question: str, *, patience_s: float = PATIENCE_S) -> str:
    """A tool for an agent: the answer to a hard question, or why there is none.

    Leaving the stream cancels the run, and its rows in the engine are free at the next step; so does whoever cancels
    this function.
    """
    result: RunResult | None = None
    with anyio.move_on_after(patience_s):
        async with rsa.stream(question) as events:
            async for event in events:
                if event.type == "round_finished":
                    votes = ", ".join(f"{vote.answer}: {vote.count} of {vote.of}" for vote in event.votes)
                    print(f"round {event.round}: {votes or 'no answers yet'}")
                elif event.type == "run_finished":
                    result = event.result
    if result is None:
        return f"no answer within {patience_s:g} s"
    return result.answer or "no candidate answered"


async def main() -> None:
    async with MarkovianRSA("nano", n=4, t=1, beta=128, tau=64, answers="every") as rsa:
        print(await think_hard(rsa, "Use 3, 7, 5 and 2 once each to make 24."))
        print(await think_hard(rsa, "Use 3, 7, 5 and 2 once each to make 24.", patience_s=0.0))


if __name__ == "__main__":
    anyio.run(main)
