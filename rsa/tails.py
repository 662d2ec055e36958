"""Tails: what a candidate hands on to the next round, and prompts that hold C of them within their bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.api import Completion, Tokenizer
from rsa.errors import ProblemError
from rsa.problem import Problem
from rsa.prompts import Prompt, PromptSet
from rsa.results import Tail
from rsa.settings.config import Carry


def cut_tail(
    completion: Completion, *, carry: Carry, tail_tokens: int, tokenizer: Tokenizer, loops_after: int | None = None
) -> Tail:
    """The last `tail_tokens` token ids of what a candidate carries on, and their text, line breaks kept.

    That is its reasoning, finished or not; with `answer_or_reasoning` the answer section of a candidate that
    closed its reasoning and ended by itself. The text starts at a token boundary and holds no broken character.

    loops_after  of a candidate that repeats itself, how many tokens it had written when that was found: the tail is of
                 these, since how many more there are depends on who was quick.
    """
    if loops_after is None and carry == "answer_or_reasoning" and _finished(completion):
        ids = tuple(tokenizer.encode(completion.text)[-tail_tokens:])
    else:
        ids = completion.reasoning_ids[:loops_after][-tail_tokens:]
    return Tail(ids=ids, text=tokenizer.decode(ids), approximate=completion.approximate)


def _finished(completion: Completion) -> bool:
    by_itself = completion.closed and not completion.forced and completion.finish_reason == "stop"
    return by_itself and bool(completion.text.strip())


def aggregation_prompt(
    prompts: PromptSet, problem: Problem, tails: Sequence[Tail], *, tokenizer: Tokenizer, bound: int
) -> tuple[Prompt, int]:
    """The prompt that holds these tails, and its length in tokens: at most `bound`, measured as encoded.

    Text that was decoded may encode to more tokens than it came from; tails then lose tokens at their front,
    all alike. Raises ProblemError if the prompt exceeds the bound even with empty tails.
    """

    def write(texts: Sequence[str]) -> Prompt:
        return prompts.aggregate(problem, texts)

    return _within(bound, write, tails, problem, tokenizer)


def match_prompt(
    prompts: PromptSet,
    problem: Problem,
    tails: Sequence[Tail],
    answers: Sequence[str],
    *,
    tokenizer: Tokenizer,
    bound: int,
) -> tuple[Prompt, int]:
    """The prompt that compares two attempts by these tails and answers (`shown_answer`), and its length, as of
    `aggregation_prompt`."""

    def write(texts: Sequence[str]) -> Prompt:
        return prompts.match(problem, texts, answers)

    return _within(bound, write, tails, problem, tokenizer)


def shown_answer(answer: str, tau: int, tokenizer: Tokenizer) -> str:
    """An answer as a match shows it: of one that is longer than a tail may be, the beginning."""
    if len(answer.encode()) <= tau:  # no token is shorter than a byte
        return answer
    ids = tokenizer.encode(answer)
    text, keep = answer, len(ids)
    while keep and (over := len(tokenizer.encode(text)) - tau) > 0:
        keep = max(keep - over, 0)
        text = f"{tokenizer.decode(ids[:keep])}…" if keep else ""
    return text


def _within(
    bound: int, write: Callable[[Sequence[str]], Prompt], tails: Sequence[Tail], problem: Problem, tokenizer: Tokenizer
) -> tuple[Prompt, int]:
    drop = 0
    longest = max((len(tail.ids) for tail in tails), default=0)
    while True:
        texts = [tokenizer.decode(tail.ids[drop:]) if drop else tail.text for tail in tails]
        prompt = write(texts)
        length = tokenizer.prompt_tokens(prompt, tools=problem.tools)
        if length <= bound:
            return prompt, length
        if drop >= longest:
            raise ProblemError(f"a prompt that holds tails has {length} tokens even without them; {bound} are allowed")
        # Each token dropped takes about one off the prompt; at least one, so that this ends.
        drop = min(longest, drop + max(1, (length - bound) // max(1, len(tails))))
