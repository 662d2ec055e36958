"""Sections, budgets and stop strings of one sequence, fed token by token."""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import AnswerCue, Completion, GenerationRequest, Likelihoods, Message, SamplingParams, TokenChunk
from engine.likelihoods import Likelihood
from engine.sequence import Sequence

END, OPEN, CLOSE, CLOSE_1, CLOSE_2 = 0, 1, 2, 3, 4


class LetterTokenizer:
    """Token ids are code points; a few small ones are the special tokens. `tags` as a model may have them."""

    def __init__(self, tags: str = "single") -> None:
        self.end_ids = frozenset([END])
        self.think_open: tuple[int, ...] = () if tags == "none" else (OPEN,)
        self.think_close: tuple[int, ...] = {"none": (), "single": (CLOSE,), "double": (CLOSE_1, CLOSE_2)}[tags]
        self.forced_close = self.think_close

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def decode_exactly(self, token_ids: abc.Sequence[int]) -> str:
        return "".join(chr(i) for i in token_ids if i > CLOSE_2)


def feed(
    tokens: list[int],
    sampling: SamplingParams,
    *,
    tags: str = "single",
    opened: bool = True,
    thinking: bool = True,
    told: bool = False,
) -> tuple[Completion, list[TokenChunk]]:
    """Feed tokens, forced ones first, until it ends; a sequence that does not is cancelled. told: with their text."""
    chunks: list[TokenChunk] = []
    request = GenerationRequest(
        id="r", messages=(Message(role="user", text="?"),), sampling=sampling, thinking=thinking
    )
    tokenizer = LetterTokenizer(tags)
    sequence = Sequence(request, tokenizer, prompt_tokens=2, opened=opened and tags != "none")
    rest = list(tokens)
    while sequence.finish_reason is None and (sequence.forced or rest):
        token = sequence.forced[0] if sequence.forced else rest.pop(0)
        sequence.accept(token, tokenizer.decode_exactly([token]) if told else None)
        chunks += sequence.chunks()
    sequence.finish("cancelled")
    return sequence.completion(), [*chunks, *sequence.chunks()]


def ids(text: str) -> list[int]:
    """Code points, with `<`, `>`, `.` for the opening tag, the closing tag and the end."""
    return [{"<": OPEN, ">": CLOSE, ".": END}.get(c, ord(c)) for c in text]


@dataclass(frozen=True)
class Case:
    name: str
    tokens: str
    reasoning: str
    answer: str
    finish: str
    reasoning_tokens: int
    generated: int
    sampling: SamplingParams = SamplingParams()
    opened: bool = True
    thinking: bool = True
    tags: str = "single"


def budgets(beta: int | None = None, answer: int | None = None, **more: object) -> SamplingParams:
    return SamplingParams(reasoning_budget=beta, answer_budget=answer, **more)


CASES = [
    Case("both sections", "abc>xy.", "abc", "xy", "stop", 3, 7),
    Case("ends inside the reasoning", "abc.", "abc", "", "stop", 3, 4),
    Case("beta: the tag is forced after exactly beta tokens", "abcdxy.", "abc", "dxy", "stop", 3, 8, budgets(3, 5)),
    Case("beta, no answer wanted", "abcdef", "abc", "", "budget", 3, 3, budgets(3, 0)),
    Case("beta, forcing switched off", "abcdef", "abc", "", "budget", 3, 3, budgets(3, 5, force_answer=False)),
    Case("closes in time, no answer wanted", "ab>xy.", "ab", "", "stop", 2, 3, budgets(3, 0)),
    Case("closes with its last token of beta", "ab>xy.", "ab", "xy", "stop", 2, 6, budgets(3, 9)),
    Case("the answer's budget", "ab>xyz.", "ab", "xy", "length", 2, 5, budgets(9, 2)),
    Case("forced, then the answer's budget", "abcdef", "ab", "cde", "length", 2, 6, budgets(2, 3)),
    Case("max_tokens cuts the reasoning", "abcdef", "abc", "", "length", 3, 3, SamplingParams(max_tokens=3)),
    Case("max_tokens cuts the answer", "a>xyz", "a", "xy", "length", 1, 4, SamplingParams(max_tokens=4)),
    Case("a second closing tag is answer", "a>x>y.", "a", "xy", "stop", 1, 6),
    Case("the model opens by itself", "<ab>xy.", "ab", "xy", "stop", 3, 7, opened=False),
    Case("never opened, never closed: all is the answer", "abc.", "abc", "abc", "stop", 3, 4, opened=False),
    Case("not opened cannot be forced", "abcd", "ab", "ab", "budget", 2, 2, budgets(2, 5), opened=False),
    Case("thinking off", "xyz.", "", "xyz", "stop", 0, 4, opened=False, thinking=False),
    Case("thinking off, it thinks all the same", "<a>xy.", "a", "xy", "stop", 2, 6, opened=False, thinking=False),
    Case("no tags: reasoning is the answer", "abc.", "abc", "abc", "stop", 3, 4, tags="none"),
    Case("no tags: beta ends it", "abcdef", "abc", "abc", "budget", 3, 3, budgets(3, 5), tags="none"),
    Case("stop string over three tokens", "a>xENDy", "a", "x", "stop", 1, 6, SamplingParams(stop=("END",))),
    Case("stop string in the reasoning", "aENDb", "a", "", "stop", 4, 4, SamplingParams(stop=("END",))),
    Case("the beginning of a stop string is text", "a>xEN.", "a", "xEN", "stop", 1, 6, SamplingParams(stop=("END",))),
    Case("the earliest of two stops", "a>pqrs", "a", "p", "stop", 1, 5, SamplingParams(stop=("rs", "qr"))),
    Case("cancelled half-way", "abc", "abc", "", "cancelled", 3, 3),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sections_and_budgets(case: Case) -> None:
    completion, _ = feed(ids(case.tokens), case.sampling, tags=case.tags, opened=case.opened, thinking=case.thinking)
    assert completion.reasoning == case.reasoning
    assert completion.text == case.answer
    assert completion.finish_reason == case.finish
    assert completion.usage.reasoning_tokens == case.reasoning_tokens
    assert completion.usage.completion_tokens == len(completion.token_ids) == case.generated


@given(tokens=st.lists(st.sampled_from(ids("abE N<>.")), max_size=40), beta=st.integers(1, 12),
       answer=st.integers(0, 12), stop=st.sampled_from([(), ("E",), ("EN", "Na")]))  # fmt: skip
def test_streamed_chunks_add_up_to_the_completion(
    tokens: list[int], beta: int, answer: int, stop: tuple[str, ...]
) -> None:
    completion, chunks = feed(tokens, budgets(beta, answer, stop=stop))
    assert tuple(i for chunk in chunks for i in chunk.token_ids) == completion.token_ids
    assert "".join(chunk.text for chunk in chunks if chunk.section == "reasoning") == completion.reasoning
    assert "".join(chunk.text for chunk in chunks if chunk.section == "answer") == completion.text
    assert completion.usage.reasoning_tokens <= beta
    assert completion.usage.completion_tokens <= beta + 1 + answer


def test_a_closing_tag_of_two_tokens() -> None:
    half_then_whole = [ord("a"), CLOSE_1, ord("b"), CLOSE_1, CLOSE_2, ord("x"), END]
    completion, _ = feed(half_then_whole, SamplingParams(), tags="double")
    assert (completion.reasoning, completion.text, completion.usage.reasoning_tokens) == ("ab", "x", 3)
    forced, _ = feed(ids("abcxy."), budgets(3, 5), tags="double")
    assert forced.token_ids[3:5] == (CLOSE_1, CLOSE_2)
    assert (forced.reasoning, forced.text, forced.forced) == ("abc", "xy", True)


def test_conclude_ends_the_reasoning_at_the_next_token() -> None:
    request = GenerationRequest(id="r", messages=(Message(role="user", text="?"),), sampling=budgets(100, 5))
    sequence = Sequence(request, LetterTokenizer(), prompt_tokens=1, opened=True)
    sequence.accept(ord("a"))
    sequence.conclude()
    sequence.accept(ord("b"))
    assert list(sequence.forced) == [CLOSE]


@pytest.mark.parametrize(("places", "thought"), [((3,), 3), ((5, 3), 3), ((3, 5), 3), ((1,), 2), ((200,), 100)])
def test_concluded_at_a_place_it_answers_there_or_at_the_next_token(places: tuple[int, ...], thought: int) -> None:
    request = GenerationRequest(id="r", messages=(Message(role="user", text="?"),), sampling=budgets(100, 5))
    sequence = Sequence(request, LetterTokenizer(), prompt_tokens=1, opened=True)
    sequence.accept(ord("a"))
    for place in places:
        sequence.conclude(place)
    while not sequence.forced:
        sequence.accept(ord("b"))
    assert len(sequence.token_ids) == thought


def test_a_forced_close_may_be_more_than_the_tag() -> None:
    """The blank line after the tag is the answer's, and its budget's."""
    tokenizer = LetterTokenizer()
    tokenizer.forced_close = (CLOSE, ord("\n"), ord("\n"))
    request = GenerationRequest(id="r", messages=(Message(role="user", text="?"),), sampling=budgets(2, 5))
    sequence = Sequence(request, tokenizer, prompt_tokens=1, opened=True)
    rest = ids("abxyz")
    while sequence.finish_reason is None:
        sequence.accept(sequence.forced[0] if sequence.forced else rest.pop(0))
    completion = sequence.completion()
    assert (completion.reasoning, completion.text, completion.finish_reason) == ("ab", "\n\nxyz", "length")


@given(
    tokens=st.lists(st.sampled_from(ids("ab <>.")), max_size=24),
    tags=st.sampled_from(["single", "double", "none"]),
    budget=st.integers(1, 9),
    answer=st.integers(0, 6),
    stop=st.sampled_from([(), ("b",), ("aba", " a")]),
)
def test_tokens_that_come_with_their_text_give_what_they_give_alone(
    tokens: list[int], tags: str, budget: int, answer: int, stop: tuple[str, ...]
) -> None:
    sampling = SamplingParams(reasoning_budget=budget, answer_budget=answer, stop=stop)
    alone, _ = feed(tokens, sampling, tags=tags)
    told, chunks = feed(tokens, sampling, tags=tags, told=True)
    assert told == alone
    assert "".join(chunk.text for chunk in chunks if chunk.section == "answer") == (told.text if told.closed else "")


@pytest.mark.parametrize("tags", ["single", "double", "none"])
@pytest.mark.parametrize("entropies", [True, False])
def test_likelihoods_are_of_drawn_tokens_and_stand_at_their_places(tags: str, entropies: bool) -> None:
    sampling = SamplingParams(reasoning_budget=2, answer_budget=9, cue=AnswerCue(text="=["))
    asked = GenerationRequest(id="r", messages=(Message(role="user", text="?"),), sampling=sampling, likelihoods=True)
    tokenizer = LetterTokenizer(tags)
    done = []
    for request in (asked, asked.model_copy(update={"likelihoods": False})):
        sequence = Sequence(request, tokenizer, prompt_tokens=1, opened=tags != "none")
        rest = ids("abxy.")
        while sequence.finish_reason is None:
            token = sequence.forced[0] if sequence.forced else rest.pop(0)
            # Rounding may leave a token that is certain a little beyond 0.
            sequence.accept(token, likelihood=Likelihood(token / 1000 - 0.1, -1e-9 if entropies else None))
        done.append(sequence.completion())
    forced = 1 if tags == "single" else 2
    numbers = (
        *(ord(c) / 1000 - 0.1 for c in "ab"),
        *[None] * forced,
        *(min(ord(c) / 1000 - 0.1, 0) for c in "xy"),
        -0.1,
    )
    assert done[0].likelihoods == Likelihoods(
        log_probabilities=numbers,
        entropies=tuple(None if n is None else 0.0 for n in numbers) if entropies else None,
    )
    assert done[1] == done[0].model_copy(update={"likelihoods": None})
    assert "likelihoods" not in repr(done[0])


@given(tokens=st.lists(st.sampled_from(ids("ab >")), min_size=30), budget=st.integers(1, 9), answer=st.integers(1, 6))
def test_nothing_happens_before_no_token_is_left(tokens: list[int], budget: int, answer: int) -> None:
    request = GenerationRequest(id="r", messages=(Message(role="user", text="?"),), sampling=budgets(budget, answer))
    sequence = Sequence(request, LetterTokenizer("double"), prompt_tokens=1, opened=True)
    rest = list(tokens)
    while sequence.finish_reason is None and rest:
        left = sequence.tokens_left
        assert left is not None
        assert left > 0
        sequence.accept(sequence.forced[0] if sequence.forced else rest.pop(0))
        assert left == 1 or not (sequence.finish_reason or (sequence.forced and sequence.section == "reasoning"))
        if sequence.forced:
            break


def test_the_reasoning_may_be_ended_between_two_tokens() -> None:
    request = GenerationRequest(id="r", messages=(Message(role="user", text="?"),), sampling=budgets(100, 5))
    sequence = Sequence(request, LetterTokenizer(), prompt_tokens=1, opened=True)
    sequence.accept(ord("a"))
    sequence.end_reasoning()
    assert (list(sequence.forced), sequence.finish_reason) == ([CLOSE], None)
    sequence.accept(CLOSE)
    sequence.end_reasoning()
    assert (list(sequence.forced), sequence.finish_reason) == ([], None)
    unforced = request.model_copy(update={"sampling": budgets(100, 0)})
    sequence = Sequence(unforced, LetterTokenizer(), prompt_tokens=1, opened=True)
    sequence.end_reasoning()
    assert sequence.finish_reason == "budget"


def test_all_that_is_written_is_known_though_a_stop_string_may_swallow_it() -> None:
    sampling = SamplingParams(reasoning_budget=100, answer_budget=9, stop=("xyz",))
    request = GenerationRequest(id="r", messages=(Message(role="user", text="?"),), sampling=sampling)
    sequence = Sequence(request, LetterTokenizer(), prompt_tokens=1, opened=True)
    for token in ids("ab>cx"):
        sequence.accept(token)
    assert "".join(chunk.text for chunk in sequence.chunks()) == "abc"
    assert sequence.written() == ("ab", "cx")
