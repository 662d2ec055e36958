"""Prompt files, tails, and prompts that hold tails within their bound."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Completion, Message, Tool, Usage
from engine.scripted import ByteTokenizer
from rsa.errors import ConfigError, ProblemError, PromptError
from rsa.problem import Problem
from rsa.prompts import load_prompts
from rsa.results import Tail
from rsa.settings import resources
from rsa.tails import aggregation_prompt, cut_tail

TOKENIZER = ByteTokenizer()
PNG = b"\x89PNG\r\n\x1a\n"


def completion(reasoning: bytes, answer: str = "", **fields: object) -> Completion:
    return Completion(
        request_id="a",
        token_ids=(*reasoning, *answer.encode()),
        reasoning=reasoning.decode(errors="ignore"),
        text=answer,
        finish_reason="stop",
        usage=Usage(reasoning_tokens=len(reasoning)),
    ).model_copy(update=fields)


# ---- prompt files


@pytest.mark.parametrize("task", resources.names("prompts"))
def test_built_in_prompts_show_everything(task: str) -> None:
    prompts = load_prompts(task)
    problem = Problem("What is {{ 1 + 1 }} in \\boxed{}?", images=[PNG])
    messages = [
        *prompts.initial(problem),
        *prompts.aggregate(problem, ["{% raw tail", "second\n\ntail"]),
        *prompts.aggregate(problem, ["alone"]),
    ]
    assert len(messages) == 3
    for message in messages:
        assert problem.text in message.text
        assert message.role == "user"
        assert message.images == problem.images
    assert "{% raw tail" in messages[1].text
    assert "second\n\ntail" in messages[1].text
    assert "[" not in messages[2].text.replace("\\boxed{}", ""), "refine shows no numbered block"
    data = (resources.configs_folder() / "prompts" / f"{task}.toml").read_bytes()
    assert prompts.sha256 == hashlib.sha256(data).hexdigest()


def test_a_prompts_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'initial = "{{ problem }}!"\naggregate = "{{ problem }}{{ tails }}"\nrefine = "{{ problem }}{{ tails[0] }}"'
    )
    prompts = load_prompts(str(path))
    assert prompts.initial(Problem("go"))[-1].text == "go!"
    assert (prompts.name, prompts.answer) == (str(path), "boxed")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("initial = 3", "'initial' is missing"),
        ('initial = "{{ problem }}"', "'aggregate' is missing"),
        ('initial = "{{ problm }}"', "'problm' is undefined"),
        ('initial = "no problem here"', "does not show {{ problem }}"),
        ('initial = "{{ problem "', "template 'initial'"),
        ('initial = "{{ problem + 1 }}"', "template 'initial'"),
        ('initial = "{{ problem.__class__.__mro__ }}"', "template 'initial'"),
        ('intial = "{{ problem }}"', "unknown key 'intial'; did you mean 'initial'"),
        ('answer = "box"', "answer = 'box'"),
        ('aggregate = "{{ problem }}{{ tails[0] }}"', "'aggregate' does not show {{ tails }}"),
        ("initial = ", "no valid TOML"),
    ],
)
def test_mistakes_in_prompt_files_are_named(tmp_path: Path, text: str, words: str) -> None:
    good = {
        "initial": 'initial = "{{ problem }}"',
        "aggregate": 'aggregate = "{{ problem }}{{ tails }}"',
        "refine": 'refine = "{{ problem }}{{ tails }}"',
    }
    if "missing" not in words:
        good.pop(text.split(" ", maxsplit=1)[0], None)
        text = "\n".join([text, *good.values()])
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(PromptError) as caught:
        load_prompts(str(path))
    assert words in str(caught.value)


def test_unknown_tasks_get_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'math'"):
        load_prompts("maths")


# ---- tails


@given(text=st.text(max_size=60), tau=st.integers(1, 80))
def test_a_tail_is_the_end_of_the_reasoning(text: str, tau: int) -> None:
    tail = cut_tail(completion(text.encode(), "unused"), carry="reasoning", tail_tokens=tau, tokenizer=TOKENIZER)
    assert tail.ids == tuple(text.encode())[-tau:]
    assert text.endswith(tail.text)
    assert len(text.encode()) - len(tail.text.encode()) < max(1, len(text.encode()) - tau + 4)
    tail.text.encode()


def test_a_tail_keeps_line_breaks_and_is_kept_unfinished() -> None:
    unfinished = completion(b"a\n\n b\n", finish_reason="budget", closed=False)
    tail = cut_tail(unfinished, carry="reasoning", tail_tokens=5, tokenizer=TOKENIZER)
    assert tail.text == "\n\n b\n"


@pytest.mark.parametrize(
    ("fields", "carried"),
    [
        ({"closed": True}, "answer"),
        ({"closed": True, "forced": True}, "soning"),
        ({"closed": True, "finish_reason": "length"}, "soning"),
        ({"closed": False, "finish_reason": "budget"}, "soning"),
        ({"closed": True, "text": " "}, "soning"),
    ],
)
def test_answer_or_reasoning(fields: dict[str, object], carried: str) -> None:
    tail = cut_tail(
        completion(b"reasoning", "the answer", **fields),
        carry="answer_or_reasoning",
        tail_tokens=6,
        tokenizer=TOKENIZER,
    )
    assert tail.text == carried


# ---- prompts with tails


class GrowingTokenizer(ByteTokenizer):
    """Text encodes to more tokens than it was decoded from, as real tokenizers may do."""

    def prompt_tokens(self, messages: Sequence[Message], *, thinking: bool = True, tools: Sequence[Tool] = ()) -> int:
        return sum(len(message.text.encode()) + message.text.count("x") for message in messages)


@given(
    texts=st.lists(st.text("ax\né", max_size=40), min_size=1, max_size=4),
    room=st.integers(0, 120),
    growing=st.booleans(),
)
def test_prompts_keep_their_bound(texts: list[str], room: int, growing: bool) -> None:
    tokenizer = GrowingTokenizer() if growing else TOKENIZER
    prompts, problem = load_prompts("math"), Problem("why?")
    tails = [Tail(ids=tuple(text.encode()), text=text) for text in texts]
    empty = tokenizer.prompt_tokens(prompts.aggregate(problem, [""] * len(texts)))
    prompt, length = aggregation_prompt(prompts, problem, tails, tokenizer=tokenizer, bound=empty + room)
    assert length == tokenizer.prompt_tokens(prompt) <= empty + room
    whole = prompts.aggregate(problem, texts)
    if tokenizer.prompt_tokens(whole) <= empty + room:
        assert prompt == whole


def test_a_bound_below_the_wording_is_an_error() -> None:
    with pytest.raises(ProblemError, match="10 are allowed"):
        aggregation_prompt(
            load_prompts("math"), Problem("x"), [Tail(ids=(65,), text="A")], tokenizer=TOKENIZER, bound=10
        )
