"""However a server cuts and labels its text, a sequence is fed the same."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.api import Completion, GenerationRequest, Message, SamplingParams
from engine.byte_tokenizer import THINK_CLOSE, THINK_OPEN, ByteTokenizer
from engine.openai.reading import Reader
from engine.openai.tokens import Kind, Piece, RemoteTokenizer
from engine.openai.wire import Delta, Told
from engine.sequence import Sequence

reasoned = st.text(st.sampled_from("ab cé\n<t"), min_size=1, max_size=30).filter(
    lambda text: text.strip() and "<t" not in text
)
answered = st.text(st.sampled_from("ab cé\n</"), max_size=30)
cuts = st.lists(st.integers(0, 70), max_size=8)


def tokenizer(kind: Kind) -> RemoteTokenizer:
    return RemoteTokenizer(kind, ByteTokenizer(), lambda messages, thinking, tools: 1)  # type: ignore[arg-type]


def read(kind: Kind, deltas: list[Delta], *, fielded: bool) -> Completion:
    """What a sequence makes of them, that takes all."""
    request = GenerationRequest(
        id="r", messages=(Message(role="user", text="?"),), sampling=SamplingParams(), likelihoods=True
    )
    tokens = tokenizer(kind)
    sequence = Sequence(request, tokens, prompt_tokens=1, opened=True)

    async def run() -> list[Piece]:
        reader = Reader(tokens, section="reasoning", thinks=True, fielded=fielded)
        pieces = [piece for delta in deltas for piece in await reader.read(delta)]
        return [*pieces, *await reader.finish()]

    for piece in anyio.run(run):
        for number, token in enumerate(piece.ids):
            shown = "" if piece.text is not None and number < len(piece.ids) - 1 else piece.text
            sequence.accept(token, shown, piece.likelihood(number))
    sequence.finish("stop")
    return sequence.completion()


def parts(text: str, at: list[int]) -> list[str]:
    places = sorted({0, len(text), *(place for place in at if place < len(text))})
    return [text[a:b] for a, b in pairwise(places)]


@pytest.mark.parametrize("kind", ["local", "server"])
@given(reasoning=reasoned, answer=answered, at=cuts, opened=st.booleans())
def test_tags_in_the_text_part_it(kind: Kind, reasoning: str, answer: str, at: list[int], opened: bool) -> None:
    text = f"{'<think>' if opened else ''}{reasoning}</think>{answer}"
    done = read(kind, [Delta(text=part) for part in parts(text, at)], fielded=False)
    assert (done.reasoning, done.text, done.closed) == (reasoning, answer, True)
    data = [*reasoning.encode(), THINK_CLOSE, *answer.encode()]
    assert list(done.token_ids) == ([THINK_OPEN] if opened else []) + data


@pytest.mark.parametrize("kind", ["local", "server"])
@given(reasoning=reasoned, answer=answered.filter(bool), at=cuts, more=cuts)
def test_a_field_of_its_own_parts_it(kind: Kind, reasoning: str, answer: str, at: list[int], more: list[int]) -> None:
    deltas = [Delta(reasoning=part, field="reasoning") for part in parts(reasoning, at)]
    deltas += [Delta(text=part) for part in parts(answer, more)]
    done = read(kind, deltas, fielded=True)
    assert (done.reasoning, done.text, done.closed) == (reasoning, answer, True)
    assert list(done.token_ids) == [*reasoning.encode(), THINK_CLOSE, *answer.encode()]


@given(reasoning=reasoned, answer=answered, at=cuts, shown=st.booleans(), fielded=st.booleans())
def test_ids_are_taken_as_they_are(reasoning: str, answer: str, at: list[int], shown: bool, fielded: bool) -> None:
    """Whether their text is in fields, with its tags, or without."""
    text = [*reasoning, "</think>", *answer]
    deltas = []
    for place, end in zip([0, *sorted(at)], [*sorted(at), len(text)], strict=True):
        group = text[place:end]
        cut = group.index("</think>") if "</think>" in group else None
        closed = cut is not None or place > len(reasoning)
        before, after = (group[:cut], group[cut + 1 :]) if cut is not None else ([], group) if closed else (group, [])
        ids = tuple(token for word in group for token in ([THINK_CLOSE] if word == "</think>" else word.encode()))
        if not ids:
            continue
        if fielded:
            deltas.append(Delta(reasoning="".join(before), text="".join(after), field="reasoning", token_ids=ids))
        else:
            written = "".join(word for word in group if shown or word != "</think>")
            deltas.append(Delta(text=written, token_ids=ids))
    for kind in ("local", "server"):
        done = read(kind, deltas, fielded=fielded)
        assert (done.reasoning, done.text) == (reasoning, answer)
        assert list(done.token_ids) == [*reasoning.encode(), THINK_CLOSE, *answer.encode()]


def test_a_chunk_without_ids_among_others_that_have_them_is_encoded() -> None:
    deltas = [Delta(text="ab", token_ids=(97, 98)), Delta(text="c d"), Delta(text="e", token_ids=(101,))]
    for kind in ("local", "server"):
        assert read(kind, deltas, fielded=False).reasoning == "abc de"


def test_what_is_estimated_needs_no_ids() -> None:
    deltas = [Delta(reasoning="a b", field="reasoning", token_ids=(1, 2)), Delta(text="c", token_ids=(3,))]
    assert list(read("estimated", deltas, fielded=True).token_ids) == [*b"a b", THINK_CLOSE, *b"c"]


def test_a_model_without_tags_may_write_what_looks_like_one() -> None:
    async def run() -> list[Piece]:
        reader = Reader(tokenizer("local"), section="reasoning", thinks=False, fielded=False)
        return [*await reader.read(Delta(text="a </think> b")), *await reader.finish()]

    assert bytes(token for piece in anyio.run(run) for token in piece.ids) == b"a </think> b"


# ---- how likely they were


def told(*tokens: int, ids: bool = False) -> tuple[Told, ...]:
    """What a server says of letters and the closing tag: a number that shows which token it is of."""
    texts = {THINK_CLOSE: "</think>"}
    return tuple(Told(-float(token), texts.get(token) or chr(token), token if ids else None) for token in tokens)


def numbers(done: Completion) -> list[float | None]:
    assert done.likelihoods is not None
    return list(done.likelihoods.log_probabilities)


@pytest.mark.parametrize("kind", ["local", "server"])
@example(reasoning=" a", answer="", at=[1], known="same ids")
@given(
    reasoning=st.text("ab c\n<t", min_size=1).filter(str.strip),
    answer=st.text("ab c\n</"),
    at=cuts,
    known=st.sampled_from(["ids", "same ids", "same texts"]),
)
def test_likelihoods_come_with_the_tokens_that_they_are_of(
    kind: Kind, reasoning: str, answer: str, at: list[int], known: str
) -> None:
    """However many come at once; only where a tag may have begun in the text are they lost."""
    tokens = [*reasoning.encode(), THINK_CLOSE, *answer.encode()]
    deltas = []
    for place, end in pairwise(sorted({0, len(tokens), *(place for place in at if place < len(tokens))})):
        group = tokens[place:end]
        logprobs = told(*group, ids=known == "same ids")
        text = "".join(each.text or "" for each in logprobs)
        deltas.append(Delta(text=text, token_ids=tuple(group) if known == "ids" else None, logprobs=logprobs))
    done = read(kind, deltas, fielded=False)
    assert list(done.token_ids) == tokens
    found = numbers(done)
    assert all(number in (None, -token) for number, token in zip(found, tokens, strict=True))
    assert None not in found or (known != "ids" and "<" in reasoning)


@pytest.mark.parametrize(
    ("delta", "found"),
    [
        (Delta(reasoning="ab", field="reasoning", logprobs=told(*b"ab")), [-97.0, -98.0]),
        (Delta(reasoning="a", text="b", field="reasoning", logprobs=told(*b"ab")), [-97.0, None, -98.0]),
        (Delta(reasoning="ab", field="reasoning"), [None, None]),
        (Delta(reasoning="ab", field="reasoning", logprobs=told(*b"a")), [None, None]),
        (Delta(reasoning="ab", field="reasoning", logprobs=told(*b"abc")), [None, None]),
        (Delta(reasoning="ab", field="reasoning", logprobs=told(*b"xy")), [None, None]),
        (Delta(reasoning="ab", field="reasoning", logprobs=told(*b"xy", ids=True)), [None, None]),
        (Delta(reasoning="é", field="reasoning", logprobs=(Told(-1.0, "é"),)), [None, None]),
        (Delta(reasoning="ab", field="reasoning", logprobs=(Told(None, "a"), Told(-1.0, "b"))), [None, -1.0]),
        (Delta(text="ab", token_ids=(97, 98), logprobs=(Told(-1.0), Told(-2.0))), [-1.0, -2.0]),
        (Delta(text="ab", token_ids=(97, 98), logprobs=(Told(-1.0),)), [None, None]),
    ],
)
def test_a_number_that_may_be_of_another_token_is_none(delta: Delta, found: list[float | None]) -> None:
    assert numbers(read("local", [delta], fielded=True)) == found
