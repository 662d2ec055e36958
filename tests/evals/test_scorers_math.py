"""The math and integer metrics, with real processes. The cases are in tests/data; each bug adds a row."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.scorers import make, names
from rsa.answers.equivalence import quick_equivalence
from rsa.answers.math_pool import SAME, MathWorkers

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]
DATA = Path(__file__).parent.parent / "data"
FIELDS: dict[str, dict[str, Any]] = {
    "mathvista": {"question_type": "free_form", "answer_type": "integer"},
    "mmmu": {"question_type": "open"},
}
GOLDS: dict[str, Any] = {
    "math": "\\cos(x)^{200}+7",
    "choice": "B",
    "vqa": ["204"] * 10,
    "countdown": {"numbers": [7, 5, 9, 2], "target": 24},
    "chain": {"start": 43, "ops": [["+", 5], ["*", 3]]},
    "sums": {"terms": [4821, -93]},
}


@pytest.fixture
def anyio_backend() -> str:
    """One is enough: the pool's own tests run on both."""
    return "asyncio"


def load(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((DATA / name).read_text())
    return loaded


def written(case: dict[str, Any]) -> str:
    """What the candidate wrote: long ones are expressions, with the repository's own data as the only source."""
    return str(eval(case["candidate_expr"]) if "candidate_expr" in case else case["candidate"])


async def test_math_cases() -> None:
    """`null` is a matter of policy, which `rsa.answers.equivalence` states: those rows only must come to an end."""
    wrong = {}
    async with make("math") as scorer:
        for case in load("math_cases.json"):
            score = await scorer.score(written(case), case["gold"], {})
            assert score.status in ("scored", "no_answer", "too_hard")
            if case["expected"] is not None and case["expected"] != (score.value == 1.0):
                wrong[case["name"]] = score
            if case["hang_in_plain_math_verify"]:
                assert score.status == "too_hard", case["name"]
    assert wrong == {}


async def test_math_policies() -> None:
    async with make("math") as scorer:
        for name, value in POLICIES.items():
            case = next(case for case in load("math_cases.json") if case["name"] == name)
            assert (await scorer.score(written(case), case["gold"], {})).value == value, name


POLICIES = {
    "no box, mid reasoning number last": 0.0,
    "boxed no braces \\boxed 204": 0.0,
    "int mod phrase": 1.0,
    "decimal approx 6 digits": 0.0,
    "interval vs inequality": 0.0,
    "nested braces x5000": None,
    "nested parens x500": None,
    "20000 dollar signs": 1.0,
    "null bytes": 1.0,
}


async def test_integer_cases() -> None:
    async with make("integer") as scorer:
        for case in load("integer_cases.json"):
            score = await scorer.score(case["answer"], case["gold"], {})
            assert (score.status, score.value) == (case.get("status", "scored"), case["value"]), case["name"]
            assert score.extracted == case.get("extracted", score.extracted)


async def test_math_cases_of_integers_are_integer_cases() -> None:
    async with make("integer") as scorer:
        for case in load("math_cases.json"):
            if case["gold"].lstrip("-").isdecimal() and case["expected"] is not None:
                score = await scorer.score(written(case), case["gold"], {})
                assert (score.value == 1.0) == case["expected"], case["name"]


async def test_equivalent_answers_are_one_group() -> None:
    async with make("math") as scorer:
        answers = ["\\sqrt{8}", None, "\\frac12", "2\\sqrt{2}", "0.5", "3", "2^{1.5}", "9^{9^9}"]
        assert await scorer.group(answers) == [(0, 3, 6), (2, 4), (5,), (7,)]


async def test_a_process_that_hangs_makes_it_too_hard() -> None:
    hangs = "import sys\nprint('{\"ready\": true}', flush=True)\nfor line in sys.stdin:\n    while True: pass"
    async with MathWorkers(2, timeout_s=0.2, command=[sys.executable, "-c", hangs]) as workers:
        async with make("math", math=workers) as scorer:
            score = await scorer.score("\\boxed{x+1}", "y+1", {})
            assert (score.status, score.value, score.extracted) == ("too_hard", None, "x+1")
            assert "too long" in score.reason
            assert (await scorer.score("\\boxed{x + 1}", "x+1", {})).value == 1.0, "equal texts need no process"
        assert (await workers.compare(("a",), ("b",))).cause == "hung", "the pool is not the scorer's to close"


HOSTILE = {
    "a tower": "\\boxed{9^{9^9}}",
    "a tower without a box": "the answer is $9^{9^{9}}$",
    "a tower of dots": "\\boxed{9^{9^{\\cdot^{\\cdot^{9}}}}}",
    "a factorial": "\\boxed{(99999!)!}",
    "a digit run": "\\boxed{" + "1" * 300_000 + "}",
    "digits": "7" * 300_000,
    "nested braces": "\\boxed{" + "{" * 100_000 + "1" + "}" * 100_000 + "}",
    "nested parentheses": "\\boxed{" + "(" * 1000 + "1" + ")" * 1000 + "}",
    "boxes that never close": "\\boxed{" * 100_000,
    "boxes without braces": ("\\boxed" + " " * 100) * 10_000,
    "braces that never open": "}" * 300_000,
    "backslashes": "\\" * 300_001,
    "a box full of spaces": "\\boxed{A" + " " * 300_000 + "x}",
    "answers": "the answer is " * 100_000,
    "an answer far away": "answer" + " " * 300_000 + "x",
    "dollars": "answer: " + "$" * 300_000,
    "fences": "```py\n" * 100_000,
    "thoughts": "<think>" * 100_000 + "</think>" * 100_000,
    "a thought that never ends": "<think>" + "hm " * 300_000,
    "wrappers": "\\boxed{" + "\\text{" * 100_000 + "}" * 100_001,
    "fractions": "\\boxed{" + "\\frac{1}{" * 100_000 + "1" + "}" * 100_001,
    "signs": "\\boxed{" + "-" * 2000 + "1}",
    "commas": "\\boxed{" + "1," * 1000 + "1}",
    "groups": "\\boxed{1" + "{,}000" * 300 + "}",
    "powers": "\\boxed{" + "2^" * 500 + "2}",
    "bangs": "\\boxed{9" + "!" * 1000 + "}",
    "spaces and carets": "\\boxed{^" + " " * 1900 + "x}",
    "plus-minus": "\\boxed{" + "\\pm 1" * 300 + "}",
    "NUL": "\\boxed{204\x00\x01\x1b[2J}\x00",
    "lone surrogates": "\\boxed{\ud800204\udfff}\ud800",
    "right to left": "\\boxed{\u202e204\u2066}",
    "another alphabet's digits": "\\boxed{٢٠٤}",
    "code": "\\boxed{__import__('os').system('exit')}",
    "braces of formatting": "{0.__class__} %s %n \\boxed{{0}}",
    "JSON": '\\boxed{"}\\n{\\"same\\": true}\n',
    "a big polynomial": "\\boxed{(x+y+z)^{99999}}",
    "trigonometry": "\\boxed{\\sin(x)^{200}}",
    "nothing": "",
}


@pytest.mark.parametrize("metric", names())
async def test_no_text_stops_a_metric_or_is_worth_anything(metric: str) -> None:
    """The pool's limit is short here. A text may be too hard, but raises nothing and passes no check."""
    gold = GOLDS.get(metric, "-204")
    async with MathWorkers(2, timeout_s=0.3) as workers, make(metric, math=workers) as scorer:
        for name, text in HOSTILE.items():
            with anyio.fail_after(60):
                score = await scorer.score(text, gold, FIELDS.get(metric, {}))
            allowed = ("scored", "no_answer", "truncated", "too_hard")
            assert score.status in allowed, name
            if name not in ("NUL", "lone surrogates", "right to left", "another alphabet's digits"):
                assert not score.value, name
            assert len(score.extracted or "") <= 2049
            score.model_dump_json()


INTEGERS = st.integers(-(10**12), 10**12)
ATOMS = st.one_of(
    st.integers(-99, 99).map(str),
    st.builds(r"\frac{{{}}}{{{}}}".format, st.integers(1, 99), st.integers(1, 99)),
    st.builds(r"{}\sqrt{{{}}}".format, st.integers(2, 9), st.sampled_from([2, 3, 5, 7])),
    st.builds(r"\frac{{{}\pi}}{{{}}}".format, st.integers(1, 9), st.integers(2, 9)),
    st.sampled_from(["x^2-1", "2^{10}", r"\text{No}", r"\infty", "50\\%", "3.14"]),
)
GOLD_TEXTS = st.one_of(
    ATOMS,
    st.builds("({}, {})".format, ATOMS, ATOMS),
    st.builds(r"\{{{}, {}\}}".format, ATOMS, ATOMS),
    st.builds("[{}, {})".format, ATOMS, ATOMS),
    st.builds("{}+{}".format, ATOMS, ATOMS),
)


@given(gold=GOLD_TEXTS, before=st.text("ab{}$ \\", max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_gold_is_its_own_answer(gold: str, before: str) -> None:
    """At once, without any process: whatever stands before the box."""

    async def value() -> float | None:
        async with make("math") as scorer:
            return (await scorer.score(f"{before} \\boxed{{{gold}}}", gold, {})).value

    assert anyio.run(value) == 1.0
    assert quick_equivalence(gold, gold) == SAME


@given(gold=INTEGERS, other=INTEGERS)
@settings(max_examples=60, deadline=None)
def test_integers_are_compared_exactly(gold: int, other: int) -> None:
    async def value(answer: str) -> float | None:
        async with make("integer") as scorer:
            return (await scorer.score(f"\\boxed{{{answer}}}", gold, {})).value

    assert anyio.run(value, str(gold)) == 1.0
    assert anyio.run(value, f"{gold:,}") == 1.0
    assert anyio.run(value, str(other)) == float(gold == other)
