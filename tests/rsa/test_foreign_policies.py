"""Policies of other packages that do what no policy should: one line that names the package, and a run folder that can
be gone on with when the package is mended."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa import ConfigError, MarkovianRSA, RunResult
from rsa.policies import registry
from rsa.policies.parents import ParentsPolicy
from rsa.policies.selecting import Played, SelectPolicy
from rsa.policies.stopping import Stop, StopPolicy
from rsa.policies.words import chosen
from rsa.results import Candidate

PROBLEM = "What is 3 + 4?"
SAID: dict[str, Any] = {}
"""What the policies below say, by the method: a value, or an error that is raised."""


def said(method: str, otherwise: Any) -> Any:
    value = SAID.get(method, otherwise)
    if isinstance(value, BaseException):
        raise value
    return value


class Stops(StopPolicy):
    every_round = True

    def within(self, standing: Any) -> Any:
        return said("within", None)

    def after(self, rounds: Any) -> Any:
        return said("after", None)


class Selects(SelectPolicy):
    compares = True

    def choose(self, played: Played) -> Any:
        given = said("choose", None)
        return super().choose(played) if given is None else given(played)

    def meeting(self, last: Any, matches: Any) -> Any:
        return said("meeting", ())

    def why(self, played: Any) -> Any:
        return said("why", "")


class Draws(ParentsPolicy):
    def draw(self, before: Any, size: int, seed: int) -> Any:
        return said("draw", before.parents[:size])


class Fails(StopPolicy):
    def __init__(self) -> None:
        raise RuntimeError("no\nlicence")


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made = {
        "stop": {"stops": "Stops", "fails": "Fails", "draws": "Draws", "problem": "PROBLEM"},
        "select": {"selects": "Selects"},
        "parents": {"draws": "Draws"},
    }
    points = [
        EntryPoint(name, f"{__name__}:{what}", f"rsa.{kind}")
        for kind, policies in made.items()
        for name, what in policies.items()
    ]
    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group, name=None: [each for each in points if each.group == group and name in (None, each.name)],
    )
    SAID.clear()
    registry._policy.cache_clear()
    yield
    registry._policy.cache_clear()


def written(request: GenerationRequest) -> Script:
    """Each is longer than the one before it; the third gives no answer."""
    number = int(request.id.partition("-c")[2])
    return Script("so " * (number + 1), "" if number == 2 else rf"\boxed{{{7 + number % 2}}}")


def run(**changes: Any) -> MarkovianRSA:
    policies = {"stop": "stops", "select": "selects", "parents": "draws"}
    settings = {"n": 6, "c": 2, "t": 1, "beta": 600, "tau": 16, "answer_budget": 32, "answers": "every"}
    return MarkovianRSA(ScriptedEngine(written), **{**settings, **policies, **changes})


def outcome(result: RunResult) -> Any:
    """What a run came to, without its times."""
    return [
        result.answer,
        result.decisions,
        [(each.parents, each.answer, each.completion and each.completion.token_ids) for each in _candidates(result)],
    ]


def _candidates(result: RunResult) -> list[Candidate]:
    return [candidate for played in (*result.rounds, *result.matches) for candidate in played.candidates]


def unanswered(played: Played) -> Any:
    return next(each for each in played.rounds[0].candidates if each.answer is None)


FAULTS: list[tuple[str, Any, str]] = [
    ("within", KeyError("a\nb"), "within raised KeyError"),
    ("within", "cut", "within said 'cut': should be a Stop, or None"),
    ("within", Stop("end"), "within said 'end': should be cut or conclude"),
    ("within", Stop("cut", {"p": math.nan}), "within said 'p' is nan: should be a finite number"),
    ("within", Stop("cut", {1: 1}), "within said 1 is 1.0: should be a finite number by its name"),  # type: ignore[dict-item]
    ("after", ZeroDivisionError("two\nlines"), "after raised ZeroDivisionError: two lines"),
    ("after", Stop("cut"), "after said 'cut': should be end"),
    ("after", Stop("end", None), "numbers of after raised AttributeError"),  # type: ignore[arg-type]
    ("after", Stop("end", {"p": "much"}), "numbers of after raised ValueError"),  # type: ignore[dict-item]
    ("choose", lambda played: 1 / 0, "choose raised ZeroDivisionError"),
    ("choose", lambda played: "7", "choose said '7': should be a candidate of a round"),
    ("choose", lambda played: played.rounds[0].candidates[0].model_copy(), "should be a candidate of a round"),
    ("choose", unanswered, "should be one with an answer"),
    ("meeting", LookupError(), "meeting raised LookupError"),
    ("meeting", None, "meeting raised TypeError"),
    ("meeting", ((0, 0),), "meeting said (0, 0): should be different ones of"),
    ("meeting", ((0,),), "meeting said ((0,),): should be pairs"),
    ("meeting", ((0, 99),), "meeting said (0, 99): should be different ones of"),
    ("draw", OSError("gone"), "draw raised OSError: gone"),
    ("draw", (0, 0), "draw said (0, 0): should be different ones of"),
    ("draw", (0, -1), "draw said (0, -1): should be different ones of"),
    ("draw", (0, 1.0), "draw said (0, 1.0): should be different ones of"),
    ("draw", (0,), "draw said (0,): should be 2 parents"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "value", "why"), FAULTS)
async def test_a_fault_of_a_package_is_a_line_and_the_run_goes_on_when_it_is_mended(
    method: str, value: Any, why: str, tmp_path: Path
) -> None:
    unbroken = await run().solve(PROBLEM)
    SAID[method] = value
    with pytest.raises(ConfigError, match=re.escape(why)) as caught:
        await run().solve(PROBLEM, out=tmp_path / "run")
    assert re.match(rf"(stop|select|parents) = \w+: the policy of {__name__}:\w+ is broken: ", str(caught.value))
    assert "\n" not in str(caught.value)
    SAID.clear()
    assert outcome(await run().solve(PROBLEM, out=tmp_path / "run", resume=True)) == outcome(unbroken)


@pytest.mark.anyio
async def test_matches_without_end_are_a_fault() -> None:
    SAID["meeting"] = ((0, 1),)
    with pytest.raises(ConfigError, match="meeting wants 31 matches: 30 are the most of such a round"):
        await run().solve(PROBLEM)


@pytest.mark.anyio
async def test_who_cannot_say_why_has_an_answer_all_the_same() -> None:
    SAID["why"] = ValueError("no\nidea")
    result = await run().solve(PROBLEM)
    assert chosen(result) == "chosen by selects: cannot say why: ValueError: no idea"


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("fails", rf"stop = 'fails': the policy of {__name__}:Fails cannot be made: RuntimeError: no licence"),
        ("draws", rf"stop = draws: the policy of {__name__}:Draws is broken: .* is no StopPolicy"),
        ("problem", rf"stop = problem: what {__name__}:PROBLEM brings makes no policy: TypeError: "),
    ],
)
def test_what_is_no_policy_is_refused_before_anything_runs(policy: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        run(stop=policy)


def test_ours_are_held_to_nothing() -> None:
    assert type(registry.stop_policy("decided")).__module__ == "rsa.policies.stopping"
