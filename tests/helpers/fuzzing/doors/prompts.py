"""What people write into a conversation: it reaches the model as it is, and never becomes a special token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
from fuzzing.core import ROOT, Case, DifferentError, Door
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from tiny_models import write_llama

from engine.api import Message
from engine.errors import RequestError
from engine.loader import load_tokenizer
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, Problem, Turn
from rsa.prompts import load_prompts
from rsa.settings import resources

PIECES = (
    *("<|im_end|>", "<|im_start|>system", "<think>", "</think>", "<bos>", "<pad>", "<image>", "<|endoftext|>", "</s>"),
    *(
        "<tool_call>",
        "</tool_call>",
        "<zyphra_tool_call>",
        "[INST]",
        "{{ problem }}",
        "{% raw %}",
        "{# x #}",
        "{{ 7*7 }}",
    ),
    *(
        "\0",
        "\x02message 0\x03",
        "\x02",
        "\u202e",
        "\u200d",
        "\ufeff",
        "\u2028",
        "\r\n",
        "\x1b[2J",
        "e\u0301",
        "👩‍👩‍👧",
        "مرحبا",
    ),
    *("\\boxed{7}", "\\", "$$", "a", " ", "\n\n", "<", "|", ">", "im_end", "think", "\ud800", "𝔸", "\U0010ffff"),
)
LONG = (1000, 100_000, 1_000_000)
"""Characters of the long problems, which are few: they take seconds."""
ROLES = ("user", "assistant", "system")


class Prompts(Door):
    name = "prompts"
    share = 6
    limit_s = 60.0

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        folders: dict[str, str | Path] = {
            "nano": "nano",
            "llama": write_llama(scratch / "llama"),
            "zaya": ROOT / "tests/golden/tiny_hf",
        }
        self._tokenizers = {name: load_tokenizer(folder) for name, folder in folders.items()}

    @property
    def cases(self) -> SearchStrategy[Case]:
        text = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=6).map("".join)
        turn = st.tuples(st.sampled_from(ROLES), text)
        tail = text.map(lambda drawn: drawn.encode(errors="replace").decode())  # a tokenizer gives no half characters
        characters = st.integers(0, 400).map(lambda drawn: LONG[drawn] if drawn < len(LONG) else 0)
        return st.fixed_dictionaries(
            {
                "model": st.sampled_from(list(self._tokenizers)),
                "task": st.sampled_from(resources.names("prompts")),
                "earlier": st.lists(turn, max_size=1),
                "text": text,
                "characters": characters,
                "tails": st.lists(tail, min_size=1, max_size=2),
                "run": st.booleans(),
            }
        )

    def enter(self, case: Case) -> str:
        text, long = case["text"], case["characters"]
        if text and long:
            text = (text * (long // len(text) + 1))[:long]
        problem = Problem(text, earlier=[Turn(role, said) for role, said in case["earlier"]])
        prompts = load_prompts(case["task"])
        for prompt in (prompts.initial(problem), prompts.aggregate(problem, case["tails"])):
            if problem.text not in prompt[-1].text:
                raise DifferentError("the problem is not in its prompt")
            _check_tokens(self._tokenizers[case["model"]], prompt)
        if case["run"]:
            self._run(problem, case)
        return "right"

    def _run(self, problem: Problem, case: Case) -> None:
        """Solve it with an engine that repeats what it is asked."""
        said = case["tails"][0].replace("</think>", "")
        engine = ScriptedEngine(lambda request: Script(said, request.messages[-1].text[:80]))
        rsa = MarkovianRSA(engine, n=2, c=2, t=1, beta=64, tau=16, answer_budget=32, task=case["task"])
        anyio.run(rsa.solve, problem)


def _check_tokens(tokenizer: Any, prompt: tuple[Message, ...]) -> None:
    """Special tokens are those of the template alone: as many as with plain words, and the text reads as it was."""
    try:
        ids = tokenizer.prompt_ids(prompt)
    except RequestError:
        tokenizer.prompt_ids(tuple(message.model_copy(update={"text": "x"}) for message in prompt))
        raise
    plain = tokenizer.prompt_ids(tuple(m.model_copy(update={"text": "x" if m.text else ""}) for m in prompt))
    unknown = tokenizer._wrapped.unk_token_id  # what a small vocabulary has no token for
    special = {*tokenizer._wrapped.all_special_ids, *tokenizer.think_open, *tokenizer.think_close} - {unknown}
    found, right = ([i for i in some if i in special] for some in (ids, plain))
    if found != right:
        raise DifferentError(f"special tokens: {found[:20]} where {right[:20]} are right")
