"""Whether to aggregate at all: what `auto` is for which model, and what it does where nobody answers."""

from __future__ import annotations

import random
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import GenerationRequest, ModelInfo
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, RSAConfig, RunResult, read_run
from rsa.command.display import note_lines
from rsa.policies.registry import select_policy, stop_policy
from rsa.policies.selecting import Played, choose
from rsa.policies.words import chosen
from rsa.results import Candidate, Round, Vote
from rsa.settings.methods import RULE, is_ruled, load_method, with_method
from rsa.settings.suitability import auto_note, suited

pytestmark = pytest.mark.anyio
_RESUMING = runpy.run_path(str(Path(__file__).with_name("test_resuming.py")))
cut, outcome = _RESUMING["cut"], _RESUMING["outcome"]
SMALL: dict[str, Any] = {"n": 6, "c": 2, "beta": 400, "tau": 16, "answer_budget": 32}
COUNTS = st.lists(st.integers(0, 3), max_size=3)
"""Of a round: how many candidates gave each of its answers."""


def told(number: int, counts: list[int]) -> Round:
    """A round of which so many candidates gave each answer; one more gave none."""
    answers = [None, *(f"{number}.{place}" for place, count in enumerate(counts) for _ in range(count))]
    candidates = tuple(
        Candidate(round=number, index=index, seed=0, status="ok", answer=answer) for index, answer in enumerate(answers)
    )
    members = {answer: tuple(at for at, each in enumerate(answers) if each == answer) for answer in answers if answer}
    votes = [Vote(answer=answer, candidates=those, of=len(answers)) for answer, those in members.items()]
    votes.sort(key=lambda vote: (-vote.count, vote.candidates[0]))
    return Round(round=number, candidates=candidates, votes=tuple(votes))


@given(st.lists(COUNTS, min_size=1, max_size=4))
def test_the_answer_is_the_vote_of_the_first_round_that_has_one(counts: list[list[int]]) -> None:
    rounds = [told(number, each) for number, each in enumerate(counts)]
    stop = stop_policy("answered")
    ends = next((end for end in range(len(rounds)) if stop.after(rounds[: end + 1]) is not None), None)
    first = next((each for each in rounds if each.votes), None)
    assert ends == (None if first is None else first.round)
    choice = choose(Played(tuple(rounds[: None if ends is None else ends + 1])), select_policy("vote"))
    assert (choice and choice.candidate.answer) == (first and first.votes[0].answer)


def test_it_says_how_many_answered() -> None:
    stop = stop_policy("answered").after([told(0, []), told(1, [2, 3])])
    assert stop is not None
    assert (stop.action, stop.numbers) == ("end", {"candidates": 5})


# ---- what it is for which model

RULED, PLAIN = (2, ("answered",), "vote"), (2, (), "vote")


@pytest.mark.parametrize(
    ("asked", "vouched", "comes_to"),
    [
        ({}, None, RULED),
        ({}, True, PLAIN),
        ({}, False, (0, (), "vote")),
        ({"method": "auto"}, None, RULED),
        ({"method": "auto"}, True, PLAIN),
        ({"method": "auto"}, False, (0, (), "vote")),
        ({"method": "auto", "t": 1}, None, (1, ("answered",), "vote")),
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
        ({"stop": "answered"}, True, RULED),
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
    assert bool(auto_note(config, model)) == (vouched is not None and not ruled and (config.t > 0 or not vouched))


NOTES = {
    True: "note: auto: rounds are known to help this model, so all 2 rounds are played, as by --method rsa",
    False: "note: auto: rounds are known not to help this model, so none follows round 0, as by --method vote",
    None: None,
}


@pytest.mark.parametrize("vouched", NOTES)
def test_who_names_auto_is_told_what_it_comes_to(vouched: bool | None) -> None:
    """Who did not name it wants no line about it at each run, and for whom nobody vouches the result has one."""
    model = ModelInfo(name="m", details={} if vouched is None else {"aggregates": vouched})
    config = suited(load_method("auto", None, {"t": 1}), model)
    told = NOTES[vouched]
    assert note_lines(config, model, "auto") == ([] if told is None else [told])
    assert note_lines(config, model) == []


def test_who_asks_for_rounds_of_one_run_has_chosen() -> None:
    ruled = load_method(None, None, {"n": 4})
    assert is_ruled(ruled)
    assert is_ruled(with_method(ruled, None, {"seed": 3}))
    for changes in ({"t": 1}, {"select": "pooled"}, {"stop": "bayes:.9"}):
        plain = with_method(ruled, None, changes)
        assert not is_ruled(plain)
        assert all(getattr(plain, key) in (changes.get(key), (), "vote", ("bayes:.9",)) for key in RULE)


# ---- runs


def script(answering: int | None) -> Any:
    """A model of which some candidates answer, from this round on; None: never."""

    def play(request: GenerationRequest) -> Script:
        rng = random.Random(request.sampling.seed)
        answers = answering is not None and int(request.id[1]) >= answering and rng.random() < 0.7
        return Script("so " * rng.randint(5, 9), rf"\boxed{{{rng.choice('1112')}}}" if answers else "")

    return play


async def solved(
    answering: int | None, folder: Path | None = None, *, resume: bool = False, **settings: Any
) -> RunResult:
    engine = ScriptedEngine(script(answering), aggregates=None)
    return await MarkovianRSA(engine, **{**SMALL, **settings}).solve("why?", out=folder, resume=resume)


@pytest.mark.parametrize("settings", [{}, {"method": "auto", "t": 1}])
async def test_where_round_0_answers_no_round_follows(settings: dict[str, Any]) -> None:
    result = await solved(0, **settings)
    vote = await solved(0, t=0)
    assert (result.answer, result.answered_from_round, result.votes) == (vote.answer, 0, vote.votes)
    assert (result.usage, result.stopped_because) == (vote.usage, "policy")
    answered = sum(each.count for each in result.votes)
    assert 0 < answered < SMALL["n"]
    assert chosen(result) == (
        f"auto: {answered} of {SMALL['n']} candidates of round 0 answered, so no round followed: "
        "the answer is their vote"
    )


@pytest.mark.parametrize("answering", [1, 2])
async def test_where_nobody_answers_rounds_are_played(answering: int) -> None:
    result = await solved(answering)
    plain = await solved(answering, method="rsa", answers="every")
    assert len(result.rounds) == answering + 1
    for played, same in zip(result.rounds, plain.rounds, strict=False):
        assert (played.votes, played.usage) == (same.votes, same.usage)
    assert result.answered_from_round == answering
    assert result.answer == result.rounds[-1].votes[0].answer
    said = f"auto: nobody answered before round {answering}: the answer is the vote of round {answering}"
    assert (chosen(result), chosen(plain)) == (said, "")


async def test_where_nobody_ever_answers_there_is_nothing_to_say() -> None:
    result = await solved(None)
    assert (result.answer, len(result.rounds), chosen(result)) == (None, 3, "")


@pytest.mark.parametrize("answering", [0, 1, 2])
async def test_a_run_goes_on_to_the_same_wherever_it_was_cut(tmp_path: Path, answering: int) -> None:
    whole = await solved(answering, tmp_path / "run")
    record, _ = read_run(tmp_path / "run")
    assert is_ruled(record.config)
    assert await solved(answering, tmp_path / "run", resume=True) == whole
    length = (tmp_path / "run" / "events.jsonl").stat().st_size
    for part in (0.2, 0.5, 0.8, 1.0):
        folder = cut(tmp_path / "run", tmp_path / f"cut-{part}", int(length * part))
        assert outcome(await solved(answering, folder, resume=True)) == outcome(whole)
