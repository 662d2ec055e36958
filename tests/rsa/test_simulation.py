"""Stories of the controller under a scheduler that decides what happens next: see tests/helpers/simulation.

`make simulate RUNS=100000` tells many more of them.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from simulation import choices as choosing
from simulation.choices import Choices, shortest
from simulation.clock import Backend
from simulation.searching import complaint, in_words, judged

from engine.api import Completion
from engine.scripted import ScriptedStream
from rsa import candidates, requests, rollouts, seeds
from rsa import votes as selection
from rsa.limits import Meter
from rsa.policies import ends, tournament
from rsa.results import Candidate, Round, RoundKind, Tail
from rsa.run import Run
from rsa.runlog import RunLog
from rsa.tails import cut_tail
from rsa.telling import Teller

STORIES = 200
PROGRAM = Path(__file__).parents[2] / "benchmarks" / "simulate.py"
KNOWN = json.loads((Path(__file__).parents[1] / "data" / "simulated_stories.json").read_text(encoding="utf-8"))


def told(backend: Backend, stories: int) -> Iterator[tuple[Choices, Any]]:
    """The first stories of the seed that stands for this file, and what is wrong with each."""
    for number in range(stories):
        choices = Choices(seed=f"test {number}")
        yield choices, judged(choices, backend)[1]


@pytest.mark.parametrize(("backend", "stories"), [("asyncio", STORIES), ("trio", 40)])
def test_whatever_happens_the_invariants_hold(backend: Backend, stories: int) -> None:
    for choices, broken in told(backend, stories):
        assert broken is None, complaint(broken, choices.made, backend)


@pytest.mark.parametrize("row", KNOWN, ids=[row["wrong"] for row in KNOWN])
def test_stories_that_once_broke_an_invariant(row: dict[str, Any]) -> None:
    story, broken = judged(Choices(row["numbers"]))
    assert broken is None, broken
    assert story is not None
    assert in_words(story)[2:] == row["tells"], "the numbers tell another story now: find it again"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_story_is_the_same_every_time(backend: Backend) -> None:
    for number in range(8):
        first, second = (judged(Choices(seed=number), backend)[0] for _ in range(2))
        assert first is not None
        assert second is not None
        assert first.stage.told == second.stage.told
        events = [[event.key for event in telling.last.events] for telling in first.tellings]
        assert events == [[event.key for event in telling.last.events] for telling in second.tellings]


# ---- it can fail: each of these makes the product wrong in one point


def failed_become_parents(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Round, "parents", property(lambda self: tuple(range(len(self.candidates)))))
    patch.setattr(requests, "tails_of", lambda read: [Tail(ids=(), text="") for _ in read])


def failed_vote(patch: pytest.MonkeyPatch) -> None:
    original = selection.count_votes

    async def counting(candidates: Sequence[Candidate], *rest: Any) -> Any:
        votes = await original(candidates, *rest)
        failed = tuple(each.index for each in candidates if each.status == "failed")
        return tuple(vote.model_copy(update={"candidates": vote.candidates + failed}) for vote in votes)

    patch.setattr(selection, "count_votes", counting)


def who_is_first_is_read_first(patch: pytest.MonkeyPatch) -> None:
    original: Any = Run._play

    async def play(self: Run, number: int, kind: RoundKind, subsets: tuple[tuple[int, ...], ...]) -> Round:
        if number and kind == "population":
            order = [at for kind, played, at in self._ended if (kind, played) == ("population", number - 1)]
            first = tuple(at for at in order if at in self.rounds[-1].parents)[: self.config.c]
            subsets = (first,) * len(subsets)
        played: Round = await original(self, number, kind, subsets)
        return played

    patch.setattr(Run, "_play", play)


def noise_follows_the_order(patch: pytest.MonkeyPatch) -> None:
    original, count = seeds.derive, iter(range(10**9))
    patch.setattr(seeds, "derive", lambda *name: original(*name) ^ (next(count) if name[-1] == "sample" else 0))


def resume_forgets_a_candidate(patch: pytest.MonkeyPatch) -> None:
    original: Any = RunLog._note

    def note(self: RunLog, *event: Any) -> None:
        original(self, *event)
        self.finished.pop(("population", 0, 0), None)

    patch.setattr(RunLog, "_note", note)


def a_limit_is_not_logged(patch: pytest.MonkeyPatch) -> None:
    original = RunLog.append
    patch.setattr(RunLog, "append", lambda self, event: None if event.type == "limit_hit" else original(self, event))


def tokens_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Meter, "spend", lambda self, tokens: None)


def tails_are_longer(patch: pytest.MonkeyPatch) -> None:
    original = cut_tail

    def cut(completion: Completion, **options: Any) -> Tail:
        return original(completion, **{**options, "tail_tokens": options["tail_tokens"] + 1})

    patch.setattr(candidates, "cut_tail", cut)


def rows_stay_on_the_engine(patch: pytest.MonkeyPatch) -> None:
    async def leave(self: ScriptedStream, *exc: object) -> None: ...

    patch.setattr(ScriptedStream, "__aexit__", leave)


def one_failure_is_everybodys(patch: pytest.MonkeyPatch) -> None:
    original = rollouts._Stage._end

    async def end(self: Any, rollout: Any, status: Any, **more: Any) -> None:
        await original(self, rollout, status, **more)
        for other in self._unfinished() if status == "failed" else ():
            await original(self, other, "failed", error="in company")

    patch.setattr(rollouts._Stage, "_end", end)


def rounds_do_not_end(patch: pytest.MonkeyPatch) -> None:
    original = Teller.emit

    async def emit(self: Teller, event: Any) -> None:
        if event.type != "round_finished":
            await original(self, event)

    patch.setattr(Teller, "emit", emit)


def who_loses_a_match_wins(patch: pytest.MonkeyPatch) -> None:
    original = tournament.points
    patch.setattr(tournament, "points", lambda *played: [-each for each in original(*played)])


def the_earliest_stands_for_a_vote(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ends, "_place", lambda candidate: candidate.index)


WRONG: dict[Callable[[pytest.MonkeyPatch], None], str] = {
    failed_become_parents: "failed_candidates_are_neither_parents_nor_answers",
    failed_vote: "failed_candidates_are_neither_parents_nor_answers",
    who_is_first_is_read_first: "broken_and_unbroken_are_the_same",
    noise_follows_the_order: "the_same_candidate_is_the_same_request",
    resume_forgets_a_candidate: "what_was_finished_is_not_generated_again",
    a_limit_is_not_logged: "limits_hold",
    tokens_are_not_counted: "limits_hold",
    tails_are_longer: "records_say_what_happened",
    rows_stay_on_the_engine: "rows_are_free_after_a_run",
    one_failure_is_everybodys: "events_are_in_order",
    rounds_do_not_end: "events_are_in_order",
    who_loses_a_match_wins: "votes_add_up",
    the_earliest_stands_for_a_vote: "votes_add_up",
}
"""What is wrong, and a rule that says so."""


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_what_is_wrong_is_found(wrong: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch)
    found = (broken.rule for _, broken in told("asyncio", STORIES) if broken is not None)
    assert WRONG[wrong] in found


# ---- stories are made short


def test_the_shortest_story_is_told_with_the_command_that_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    who_is_first_is_read_first(monkeypatch)
    monkeypatch.setattr(choosing, "MOST_TRIES", 60)
    rule = WRONG[who_is_first_is_read_first]
    stories = told("asyncio", STORIES)
    choices, broken = next((choices, broken) for choices, broken in stories if broken and broken.rule == rule)
    words = complaint(broken, choices.made).splitlines()
    numbers = words[-1].partition("--story ")[2]
    again = judged(Choices([int(number) for number in numbers.split(",") if number]))[1]
    assert str(again) == words[0]
    assert len(numbers.split(",")) < len(choices.made)


def test_the_program_counts_stories_and_tells_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = runpy.run_path(str(PROGRAM))
    assert program["search"](5, 0, "asyncio")
    found = json.loads(capsys.readouterr().out)
    assert (found["stories"], found["broken"]) == (5, {})
    assert program["tell"](KNOWN[0]["numbers"], "trio")
    assert capsys.readouterr().out.splitlines()[2:] == [*KNOWN[0]["tells"], "all is well"]
    monkeypatch.setattr(choosing, "MOST_TRIES", 20)
    rows_stay_on_the_engine(monkeypatch)
    assert not program["search"](9, 0, "asyncio")
    assert "rows are free after a run" in capsys.readouterr().out


def test_shrinking_leaves_out_and_lowers() -> None:
    tale = [9, 0, 4, 7, 7, 1, 0, 3]
    assert shortest(tale, lambda numbers: sum(numbers) >= 5 and 7 in numbers) == [7]
    assert shortest(tale, lambda numbers: len(numbers) > 2 and numbers[2] > 1) == [0, 0, 2]
