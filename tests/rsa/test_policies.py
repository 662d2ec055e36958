"""Policies on told rounds: what they decide, and why it is right."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsa.errors import ConfigError
from rsa.policies import registry
from rsa.policies.posterior import leads_one, leads_two
from rsa.policies.stopping import Standing, Stop, StopPolicy
from rsa.results import Candidate, Round, Vote
from rsa.settings.config import RSAConfig

ANSWERS = st.lists(st.sampled_from(["7", "8", "9", None]), min_size=1, max_size=9)


def votes_of(answers: list[str | None]) -> tuple[Vote, ...]:
    """Votes of a round by what its candidates answered; None: nothing."""
    groups: dict[str, list[int]] = {}
    for index, answer in enumerate(answers):
        if answer is not None:
            groups.setdefault(answer, []).append(index)
    votes = [Vote(answer=answer, candidates=tuple(group), of=len(answers)) for answer, group in groups.items()]
    return tuple(sorted(votes, key=lambda vote: (-vote.count, vote.candidates[0])))


def standing(answers: list[str | None], running: set[int], *, last: bool = True) -> Standing:
    """A round whose candidates of `running` have not ended."""
    ended = [None if index in running else answer for index, answer in enumerate(answers)]
    return Standing(n=len(answers), at=100, votes=votes_of(ended), running=tuple(sorted(running)), last=last)


def played(*answers: str | None) -> Round:
    candidates = tuple(Candidate(round=0, index=i, seed=0, status="ok", answer=a) for i, a in enumerate(answers))
    return Round(round=0, candidates=candidates, votes=votes_of(list(answers)))


@pytest.mark.parametrize(
    ("leader", "runner_up", "probability"), [(0, 0, 0.5), (1, 0, 0.75), (2, 0, 0.875), (4, 0, 0.96875), (5, 5, 0.5)]
)
def test_beta_stopping_keeps_the_published_arithmetic(leader: int, runner_up: int, probability: float) -> None:
    assert leads_one(leader, runner_up) == Fraction(probability)


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_further_vote_makes_a_leader_surer(leader: int, other: int) -> None:
    assert leads_one(leader, other) < leads_one(leader + 1, other) < 1
    assert leads_one(leader, other) > leads_one(leader, other + 1) > 0
    assert leads_one(leader, other) + leads_one(other, leader) == 1


@given(st.tuples(*[st.integers(0, 9)] * 3))
def test_one_of_three_answers_is_the_likeliest(counts: tuple[int, int, int]) -> None:
    a, b, c = counts
    assert leads_two(a, b, c) + leads_two(b, a, c) + leads_two(c, a, b) == 1
    assert leads_two(a, b, c) == leads_two(a, c, b) < leads_one(a, b)


def test_four_fast_candidates_that_agree_end_a_round_of_eight() -> None:
    answers: list[str | None] = ["7"] * 8
    beta = registry.stop_policy("beta:.95")
    stops = [beta.within(standing(answers, set(range(ended, 8)))) for ended in range(9)]
    assert [stop is not None for stop in stops] == [False] * 4 + [True] * 4 + [False]  # whole, there is nothing to end
    assert stops[4] == Stop("cut", {"leader": 4, "second": 0, "probability": 0.96875})


@given(ANSWERS)
def test_no_posterior_reaches_one(answers: list[str | None]) -> None:
    assert registry.stop_policy("beta:1").within(standing([*answers, "7"], {len(answers)})) is None
    assert registry.stop_policy("bayes:1").after([played(*answers)]) is None


@given(ANSWERS, st.data())
def test_decided_is_when_nothing_that_runs_can_change_the_vote(answers: list[str | None], data: st.DataObject) -> None:
    running = data.draw(st.sets(st.sampled_from(range(len(answers))), min_size=1, max_size=3))
    now = standing(answers, running)
    leaders = set()
    for ends in itertools.product(["7", "8", "9", "new", None], repeat=len(running)):
        whole = list(answers)
        for index, answer in zip(sorted(running), ends, strict=True):
            whole[index] = answer
        votes = votes_of(whole)
        leaders.add(votes[0].answer if votes else None)
    stop = registry.stop_policy("decided").within(now)
    assert (stop is not None) == (len(leaders) == 1)
    assert registry.stop_policy("decided").within(standing(answers, running, last=False)) is None


@pytest.mark.parametrize(("ended", "stops"), [(2, False), (3, True), (5, True), (6, False)])
def test_a_quorum_asks_the_others(ended: int, stops: bool) -> None:
    stop = registry.stop_policy("quorum:3").within(standing([None] * 6, set(range(ended, 6))))
    assert stop == (Stop("conclude", {"ended": ended}) if stops else None)


@given(ANSWERS)
def test_consensus_counts_all_candidates(answers: list[str | None]) -> None:
    counts = Counter(answer for answer in answers if answer is not None)
    most = max(counts.values(), default=0)
    for agreeing in range(1, len(answers) + 1):
        stop = registry.stop_policy(f"consensus:{agreeing / len(answers)}").after([played(*answers)])
        assert (stop is not None) == (most >= agreeing)


def test_settings_take_a_list_or_a_text() -> None:
    config = RSAConfig(stop="decided, beta:.95")
    assert config.stop == ("decided", "beta:.95") == RSAConfig(stop=["decided", "beta:.95"]).stop
    assert RSAConfig.model_validate_json(config.model_dump_json()) == config
    assert not config.answers_every_round
    assert RSAConfig(stop="bayes:.9").answers_every_round


class Patient(StopPolicy):
    """A policy of another package."""

    def __init__(self, rounds: float = 2) -> None:
        if rounds < 1:
            raise ValueError(f"{rounds:g} is no number of rounds")
        self.rounds = rounds

    def after(self, rounds: Any) -> Stop | None:
        return Stop("end") if len(rounds) >= self.rounds else None


def test_packages_bring_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("patient", f"{__name__}:Patient", "rsa.stop"), EntryPoint("gone", "no_such:X", "rsa.stop")]
    monkeypatch.setattr(
        registry, "entry_points", lambda group, name=None: [p for p in points if name in (None, p.name)]
    )
    assert registry.names("stop")[-2:] == ["gone", "patient"]
    policy = registry.stop_policy("patient:3")
    assert not policy.inside
    assert policy.after([played("7")] * 3) == Stop("end")
    assert RSAConfig(stop="patient").stop == ("patient",)
    with pytest.raises(ConfigError, match="stop = 'patient:0': 0 is no number of rounds"):
        registry.stop_policy("patient:0")
    with pytest.raises(ConfigError, match=r"patient takes 1 number: rounds .2 unless given., not 2"):
        registry.stop_policy("patient:1:2")
    with pytest.raises(ConfigError, match="stop = gone: no_such:X cannot be loaded"):
        registry.stop_policy("gone")
