"""Whether to aggregate at all: what `auto` is for which model, and what it does where rounds copy."""

from __future__ import annotations

import random
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Completion, GenerationRequest, ModelInfo, Usage
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, RSAConfig, RunResult, read_run
from rsa.command.display import note_lines
from rsa.policies.registry import select_policy, stop_policy
from rsa.policies.selecting import Played, choose
from rsa.policies.words import chosen
from rsa.results import Candidate, Round, Vote
from rsa.settings.methods import RULE, is_ruled, load_method, with_method
from rsa.settings.suitability import suited

pytestmark = pytest.mark.anyio
_RESUMING = runpy.run_path(str(Path(__file__).with_name("test_resuming.py")))
cut, outcome = _RESUMING["cut"], _RESUMING["outcome"]
SMALL: dict[str, Any] = {"n": 6, "c": 2, "beta": 400, "tau": 16, "answer_budget": 32}
LENGTHS = st.lists(st.one_of(st.none(), st.integers(0, 40)), min_size=1, max_size=6)
"""Of a round: the reasoning tokens of each candidate; None: it did not run its course."""


def told(number: int, lengths: list[int | None]) -> Round:
    """A round whose candidates reasoned so long; those that ran their course answered with their round."""
    candidates = []
    for index, length in enumerate(lengths):
        usage = Usage(completion_tokens=99, reasoning_tokens=3 if length is None else length)
        completion = Completion(request_id="x", token_ids=(), reasoning="", text="", finish_reason="stop", usage=usage)
        status: Any = "degenerate" if length is None else "ok"
        answer = None if length is None else str(number)
        candidates.append(
            Candidate(round=number, index=index, seed=0, status=status, completion=completion, answer=answer)
        )
    members = tuple(index for index, length in enumerate(lengths) if length is not None)
    votes = (Vote(answer=str(number), candidates=members, of=len(lengths)),) if members else ()
    return Round(round=number, candidates=tuple(candidates), votes=votes)


@pytest.mark.parametrize(
    ("ratio", "rounds", "answered_from", "ends_after"),
    [
        ("", [[280, 280], [100, 100], [90]], 0, 1),
        ("", [[280, 280], [140, 140], [139]], 1, 2),
        (":.3", [[280, 280], [100, 100], [90]], 2, None),
        (":1", [[280, 280], [279, 280]], 0, 1),
        ("", [[280, None], [300, None, None], [None, 100]], 1, 2),  # those that were cut off say nothing
        ("", [[280], [None, None]], 0, None),  # nobody can say, and nobody answered
        ("", [[0, 0], [0, 5]], 1, None),  # it does not reason at all
        ("", [[None], [200]], 1, None),
        ("", [[280], [100], [280]], 2, 1),
    ],
)
def test_a_round_copies_that_thinks_far_less_than_the_first(
    ratio: str, rounds: list[list[int | None]], answered_from: int, ends_after: int | None
) -> None:
    played = [told(number, lengths) for number, lengths in enumerate(rounds)]
    choice = choose(Played(tuple(played)), select_policy(f"sound{ratio}"))
    assert choice is not None
    assert choice.round.round == answered_from
    stops = [stop_policy(f"copying{ratio}").after(played[: end + 1]) for end in range(len(played))]
    assert next((end for end, stop in enumerate(stops) if stop is not None), None) == ends_after


@given(st.lists(LENGTHS, min_size=1, max_size=4), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_who_ends_at_a_copy_answers_from_before_it(lengths: list[list[int | None]], ratio: float) -> None:
    """With both policies a run that ends early answers from a round before that one, if one has an answer."""
    rounds = [told(number, each) for number, each in enumerate(lengths)]
    stop, select = stop_policy(f"copying:{ratio}"), select_policy(f"sound:{ratio}")
    ends = next((end for end in range(len(rounds)) if stop.after(rounds[: end + 1]) is not None), None)
    played = rounds[: None if ends is None else ends + 1]
    choice = choose(Played(tuple(played)), select)
    if ends is not None and any(each.votes for each in played[:-1]):
        assert choice is not None
        assert choice.round.round < ends
    if len(rounds) == 1 and rounds[0].votes:
        assert choice is not None
        assert select.why(Played(tuple(rounds))) == ""


# ---- what it is for which model

RULED, PLAIN = (2, ("copying",), "sound"), (2, (), "vote")


@pytest.mark.parametrize(
    ("asked", "vouched", "comes_to"),
    [
        ({}, None, RULED),
        ({}, True, PLAIN),
        ({}, False, (0, (), "vote")),
        ({"method": "auto"}, None, RULED),
        ({"method": "auto"}, True, PLAIN),
        ({"method": "auto"}, False, (0, (), "vote")),
        ({"method": "auto", "t": 1}, None, (1, ("copying",), "sound")),
        ({"method": "auto", "t": 1}, True, (1, (), "vote")),
        ({"method": "auto", "profile": "light"}, None, RULED),
        ({"method": "rsa"}, None, PLAIN),
        ({"method": "rsa"}, False, PLAIN),
        ({"method": "vote"}, None, (0, (), "vote")),
        ({"t": 1}, None, (1, (), "vote")),
        ({"t": 1}, False, (1, (), "vote")),
        ({"t": 0}, None, (0, (), "vote")),
        ({"select": "pooled"}, None, (2, (), "pooled")),
        ({"stop": "bayes:.9"}, False, (2, ("bayes:.9",), "vote")),
        ({"stop": "copying", "select": "sound"}, True, RULED),
        ({"profile": "paper-16k"}, None, PLAIN),
        ({"profile": "light"}, False, PLAIN),
        ({"n": 3, "beta": "2k"}, None, RULED),
    ],
)
def test_what_auto_comes_to(asked: dict[str, Any], vouched: bool | None, comes_to: tuple[Any, ...]) -> None:
    settings = dict(asked)
    method, profile = settings.pop("method", None), settings.pop("profile", None)
    model = ModelInfo(name="m", details={} if vouched is None else {"aggregates": vouched})
    config = suited(load_method(method, profile, settings), model)
    assert (config.t, config.stop, config.select) == comes_to
    assert suited(config, model) == config
    assert RSAConfig.model_validate_json(config.model_dump_json()) == config
    ruled = comes_to[1:] == RULED[1:] and "stop" not in asked
    assert is_ruled(config) == ruled
    assert bool(note_lines(config, model)) == (config.t > 0 and not ruled and not vouched)


def test_who_asks_for_rounds_of_one_run_has_chosen() -> None:
    ruled = load_method(None, None, {"n": 4})
    assert is_ruled(ruled)
    assert is_ruled(with_method(ruled, None, {"seed": 3}))
    for changes in ({"t": 1}, {"select": "pooled"}, {"stop": "bayes:.9"}):
        plain = with_method(ruled, None, changes)
        assert not is_ruled(plain)
        assert all(getattr(plain, key) in (changes.get(key), (), "vote", ("bayes:.9",)) for key in RULE)


# ---- runs


def script(copies: bool) -> Any:
    """A model that thinks about a problem, and may copy what it reads, which is wrong more often."""

    def play(request: GenerationRequest) -> Script:
        rng = random.Random(request.sampling.seed)
        first = request.id.startswith("r0")
        words = rng.randint(40, 60) if first or not copies else rng.randint(2, 9)
        answer = rng.choice("1112" if first else "2223")
        return Script(" ".join(["so"] * words), rf"\boxed{{{answer}}}")

    return play


async def solved(copies: bool, folder: Path | None = None, *, resume: bool = False, **settings: Any) -> RunResult:
    engine = ScriptedEngine(script(copies), aggregates=None)
    return await MarkovianRSA(engine, **{**SMALL, **settings}).solve("why?", out=folder, resume=resume)


@pytest.mark.parametrize("settings", [{}, {"method": "auto", "t": 1}])
async def test_where_rounds_copy_the_answer_is_that_of_round_0(settings: dict[str, Any]) -> None:
    result = await solved(True, **settings)
    vote = await solved(True, t=0)
    assert (result.answer, result.answered_from_round, result.votes) == (vote.answer, 0, vote.votes)
    assert len(result.rounds) == 2
    assert result.stopped_because == ("finished" if settings else "policy")
    said = chosen(result)
    assert said.startswith("auto: round 1 wrote ")
    assert said.endswith(", so it copies: the answer is the vote of round 0")


async def test_where_rounds_think_they_count() -> None:
    result = await solved(False)
    plain = await solved(False, method="rsa", answers="every")
    assert (result.answer, result.answered_from_round, result.votes) == (plain.answer, 2, plain.votes)
    assert result.usage == plain.usage
    assert result.decisions == ()
    assert chosen(result).startswith("auto: rounds kept thinking (")
    assert chosen(result).endswith(" tokens): the answer is the vote of round 2")
    assert chosen(plain) == ""


@pytest.mark.parametrize("copies", [True, False])
async def test_a_run_goes_on_to_the_same_wherever_it_was_cut(tmp_path: Path, copies: bool) -> None:
    whole = await solved(copies, tmp_path / "run")
    record, _ = read_run(tmp_path / "run")
    assert is_ruled(record.config)
    assert await solved(copies, tmp_path / "run", resume=True) == whole
    length = (tmp_path / "run" / "events.jsonl").stat().st_size
    for part in (0.2, 0.5, 0.8, 1.0):
        folder = cut(tmp_path / "run", tmp_path / f"cut-{part}", int(length * part))
        assert outcome(await solved(copies, folder, resume=True)) == outcome(whole)
