"""What holds in every story, whatever happens: rules over all that was seen, each named by what it says.

They work everything out anew from what the engine was asked for and what the candidates wrote; of the product they use
records alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeGuard

from simulation.deciding import matches_are_between_answers, votes_add_up, what_is_decided_follows_from_tokens
from simulation.engine import STEPS
from simulation.grammar import check_events
from simulation.play import (
    Process,
    Story,
    Telling,
    candidates_in,
    cut_short,
    name_of,
    not_begun,
    results_of,
    rounds_of,
    tokens_of,
)
from simulation.world import SLOW_S

from engine.api import GenerationRequest
from rsa import Candidate, read_run
from rsa.events import (
    CandidateFinished,
    CandidateProgress,
    CandidateStarted,
    Event,
    LimitHit,
    PolicyDecided,
    RunFinished,
    RunStarted,
)
from rsa.limits import CANCEL_GRACE_S
from rsa.prompts import prompt_sha256

FORCED_TOKENS = 80
"""What a row may write beyond a step once it is to conclude: a closing tag, or a cue."""


class BrokenError(AssertionError):
    """A rule that does not hold; `rule` is its name."""

    def __init__(self, rule: str, why: str) -> None:
        super().__init__(f"{rule.replace('_', ' ')}: {why}")
        self.rule = rule


def check(story: Story) -> None:
    """Raises BrokenError for the first rule that does not hold."""
    for rule in RULES:
        for telling in story.tellings:
            try:
                rule(story, telling)
            except (AssertionError, LookupError) as error:
                raise BrokenError(
                    rule.__name__, f"{type(error).__name__}: {error}" if str(error) else repr(error)
                ) from error


# ---- the engine and what it is asked for


def prompts_are_bounded(story: Story, telling: Telling) -> None:
    for process in telling.processes:
        told = {name_of(event.kind, event): event for event in process.events if isinstance(event, CandidateStarted)}
        for request in process.requests:
            started = process.events[0]
            assert isinstance(started, RunStarted), "asked before the run started"
            bound = min(started.budgets.prompt_bound, story.world.config.limits.prompt_tokens or 10**9)
            length = story.tokenizer.prompt_tokens(request.messages)
            assert length <= bound, f"{request.id} has {length} tokens, {bound} are allowed"
            if request.id in told:
                was = told[request.id].prompt_tokens
                assert was == length, f"{request.id} has {length} tokens, {was} were told"


def the_same_candidate_is_the_same_request(story: Story, telling: Telling) -> None:
    first = {request.id: request for process in telling.processes for request in reversed(process.requests)}
    for process in telling.processes:
        for request in process.requests:
            same = first[request.id]
            ours, first_asked = _unbounded(request, story), _unbounded(same, story)
            assert ours.sampling == first_asked.sampling, f"{request.id} draws otherwise"
            assert ours == first_asked or story.world.limited or story.stage.faults, f"{request.id} is asked otherwise"


def what_was_finished_is_not_generated_again(story: Story, telling: Telling) -> None:
    for process in telling.processes:
        asked = Counter(request.id for request in process.requests)
        assert all(times == 1 for times in asked.values()), f"asked for twice: {asked}"
        done = candidates_in(process.logged) if not _has_result(process) else {}
        for name, candidate in done.items():
            retried = candidate.status == "failed" and _failed_as_a_whole(process.logged, candidate)
            assert name not in asked or retried, f"{name} had finished before"


def rows_are_free_after_a_run(story: Story, telling: Telling) -> None:
    for process in telling.processes:
        assert process.rows == 0, f"{process.rows} rows are left after it {process.ended}"


# ---- events


def events_are_in_order(story: Story, telling: Telling) -> None:
    for process in telling.processes:
        assert process.ended != "refused" or not process.events, "what does not fit was begun"
        if process.events:
            check_events(process, story.world.config.n)
        else:
            assert process.ended in ("left", "refused"), f"it ended {process.ended} without an event"


# ---- candidates and rounds


def failed_candidates_are_neither_parents_nor_answers(story: Story, telling: Telling) -> None:
    for result in results_of(telling):
        rounds = rounds_of(result)
        for before, played in pairwise([each for each in rounds if each.kind != "match"]):
            well = [each.index for each in before.candidates if each.status in ("ok", "cut") and not not_begun(each)]
            allowed = set(well or [each.index for each in before.candidates if each.status == "degenerate"])
            for candidate in played.candidates:
                assert set(candidate.parents) <= allowed, f"{name_of(played.kind, candidate)} reads {candidate.parents}"
                size = min(story.world.config.c, len(allowed))
                assert len(set(candidate.parents)) == len(candidate.parents) == size, "not C different parents"
        for played in rounds:
            for candidate in played.candidates:
                if candidate.status in ("failed", "degenerate", "cut"):
                    assert candidate.answer is None, f"{name_of(played.kind, candidate)} answers"
                    assert not any(candidate.index in vote.candidates for vote in played.votes), "and votes"


def a_failure_fails_no_round(story: Story, telling: Telling) -> None:
    config = story.world.config
    for process in telling.processes:
        result = process.result
        if result is None:
            continue
        for number, played in enumerate(result.rounds):
            assert played.round == number
            assert [each.index for each in played.candidates] == list(range(config.n)), "not all candidates are there"
        last = result.rounds[-1]
        if process.ended == "no candidates":
            assert not any(each.status in ("ok", "degenerate", "cut") for each in last.candidates), "somebody was well"
        elif result.stopped_because == "finished":
            assert len(result.rounds) == config.t + 1, "rounds are missing"


def only_a_dead_engine_ends_a_run(story: Story, telling: Telling) -> None:
    for process in telling.processes:
        assert process.ended != "broken" or not process.alive, "an error of an engine that is well"


def records_say_what_happened(story: Story, telling: Telling) -> None:
    asked: dict[str, GenerationRequest] = {}
    for process in telling.processes:
        asked |= {request.id: request for request in process.requests}
        result = process.result
        if result is None:
            continue
        rounds = rounds_of(result)
        total = sum(tokens_of(played.candidates) for played in rounds)
        assert result.usage.completion_tokens == total, f"{result.usage.completion_tokens} tokens of {total}"
        for played in rounds:
            for each in played.candidates:
                name = name_of(played.kind, each)
                assert name in asked or not_begun(each), f"{name} was never asked for"
                if name not in asked:
                    continue
                request = asked[name]
                assert _same_sampling(each, _unbounded(request, story)), f"{name} was drawn otherwise"
                assert each.prompt_sha256 == prompt_sha256(request.messages) or story.world.limited, f"{name}'s prompt"
                assert (each.error is not None) == (each.status == "failed") or _hung(each), f"{name}: {each.error}"
                assert (each.completion is None) == (each.status == "failed") or _hung(each), f"{name}'s completion"
                if each.completion is not None and each.tail is not None:
                    assert len(each.tail.ids) <= result.budgets.tau, f"{name} hands on {len(each.tail.ids)} tokens"


def _hung(candidate: Candidate) -> bool:
    """Cut off by a limit, and the engine did not even say so; or ended in another process before it began."""
    return not_begun(candidate)


# ---- limits


def limits_hold(story: Story, telling: Telling) -> None:
    limits = story.world.config.limits
    for process in telling.processes:
        hits = {event.limit for event in (*process.logged, *process.events) if isinstance(event, LimitHit)}
        result = process.result
        if result is None or process.ended != "finished":
            continue
        assert set(result.limits_hit) == hits, f"{result.limits_hit} of {hits}"
        assert (result.stopped_because in hits) == bool(hits), f"{result.stopped_because} with {hits}"
        if limits.total_tokens is not None:
            in_flight = story.world.config.n * (max(STEPS) + FORCED_TOKENS)
            used = result.usage.completion_tokens
            assert used <= limits.total_tokens + in_flight, f"{used} tokens of {limits.total_tokens}"
            if used >= limits.total_tokens and len(result.rounds) <= story.world.config.t:
                assert hits or result.stopped_because == "policy", "no limit was hit"
        if limits.deadline_s is not None:
            before = max((event.at_s for event in process.logged), default=0.0)
            latest = max(before, limits.deadline_s) + CANCEL_GRACE_S + SLOW_S
            assert result.timings.wall_s <= latest, f"it ended after {result.timings.wall_s} s"


# ---- run folders


def the_log_is_whole_at_any_moment(story: Story, telling: Telling) -> None:
    for process in telling.processes:
        for seen, log in process.looks:
            keys = {event.key for event in log}
            for event in process.events[:seen]:
                if not isinstance(event, CandidateProgress | RunFinished):
                    assert event.key in keys, f"{event.key} was told and not logged"
    if telling.folder is None:
        return
    if telling.last.ended == "refused":
        assert not telling.folder.exists(), "what cannot be run leaves a folder behind"
        return
    record, problem = read_run(telling.folder)
    assert (problem.text, record.config.n) == (telling.problem.text, story.world.config.n)
    _check_log(telling.log(), telling.last)


def _check_log(log: list[Event], last: Process) -> None:
    finished = [event for event in log if isinstance(event, CandidateFinished)]
    twice = [key for key, times in Counter(event.key for event in log).items() if times > 1]
    for key in twice:
        assert key[0] in ("candidate_finished", "round_finished"), f"{key} is logged twice"
        again = [event.candidate for event in finished if event.key[1:3] == key[1:3]]
        assert any(each.status == "failed" for each in again), f"{key} is logged twice"
    if last.result is not None and last.ended == "finished":
        known = candidates_in(log)
        cuts = {event.decision.round: event.decision for event in log if _is_cut(event)}
        known = {name: cut_short(one, cuts.get(one.round)) for name, one in known.items()}
        told = {name_of(each.kind, one): one for each in rounds_of(last.result) for one in each.candidates}
        differ = [name for name in known | told if _counted(known.get(name)) != _counted(told.get(name))]
        assert not differ, f"the log and the result differ in {differ}"


def _is_cut(event: Event) -> TypeGuard[PolicyDecided]:
    return isinstance(event, PolicyDecided) and event.decision.action == "cut"


def a_result_stays(story: Story, telling: Telling) -> None:
    results = [process.result for process in telling.processes if process.ended == "finished"]
    assert all(result == results[0] for result in results), "the result changed when it was asked for again"


def broken_and_unbroken_are_the_same(story: Story, telling: Telling) -> None:
    result, unbroken = telling.last.result, telling.unbroken
    if result is None or unbroken is None:
        return
    for name in ("answer", "text", "stopped_because", "answered_from_round", "votes", "warnings", "budgets", "config"):
        assert getattr(result, name) == getattr(unbroken, name), (
            f"{name}: {getattr(result, name)}, unbroken {getattr(unbroken, name)}"
        )
    assert len(rounds_of(result)) == len(rounds_of(unbroken)), "another number of rounds"
    for played, other in zip(rounds_of(result), rounds_of(unbroken), strict=True):
        assert played.votes == other.votes, f"votes of round {played.round}"
        for one, two in zip(played.candidates, other.candidates, strict=True):
            differ = [name for name in _compared(one) if getattr(one, name) != getattr(two, name)]
            assert not differ, f"{name_of(played.kind, one)}: {differ}"


def a_round_that_is_decided_gives_the_answer_of_the_whole(story: Story, telling: Telling) -> None:
    result, whole = telling.last.result, telling.whole
    if result is None or whole is None:
        return
    for name in ("answer", "text", "check", "calls", "answered_from_round"):
        assert getattr(result, name) == getattr(whole, name), (
            f"{name}: {getattr(result, name)!r}, of the whole round {getattr(whole, name)!r}"
        )


def _compared(candidate: Candidate) -> list[str]:
    # One that repeats itself is cut off a step later or earlier: only what it hands on must be the same.
    free = {"started_s", "finished_s"} | ({"completion"} if candidate.status == "degenerate" else set())
    return [name for name in Candidate.model_fields if name not in free]


RULES: tuple[Callable[[Story, Telling], None], ...] = (
    events_are_in_order,
    rows_are_free_after_a_run,
    prompts_are_bounded,
    the_same_candidate_is_the_same_request,
    failed_candidates_are_neither_parents_nor_answers,
    a_failure_fails_no_round,
    only_a_dead_engine_ends_a_run,
    a_round_that_is_decided_gives_the_answer_of_the_whole,
    votes_add_up,
    matches_are_between_answers,
    records_say_what_happened,
    what_is_decided_follows_from_tokens,
    limits_hold,
    the_log_is_whole_at_any_moment,
    what_was_finished_is_not_generated_again,
    a_result_stays,
    broken_and_unbroken_are_the_same,
)


# ---- what rules look things up with


def _unbounded(request: GenerationRequest, story: Story) -> GenerationRequest:
    """As it was before it was known where its round was cut, or its candidates were to answer."""
    more = {"reasoning_budget": None} if story.world.concludes else {}
    sampling = request.sampling.model_copy(update={"max_tokens": None, **more})
    return request.model_copy(update={"sampling": sampling})


def _same_sampling(candidate: Candidate, request: GenerationRequest) -> bool:
    drawn = candidate.sampling
    if drawn is not None and request.sampling.reasoning_budget is None:
        drawn = drawn.model_copy(update={"reasoning_budget": None})
    return drawn == request.sampling


def _counted(candidate: Candidate | None) -> Any:
    """All of it, or of one that was cut what is counted anew."""
    if candidate is None or candidate.status != "cut" or candidate.completion is None:
        return candidate
    return candidate.index, candidate.answer, candidate.completion.token_ids, candidate.parents, candidate.seed


def _failed_as_a_whole(events: list[Event], candidate: Candidate) -> bool:
    same = [each for each in candidates_in(events).values() if each.round == candidate.round]
    return all(each.status == "failed" for each in same)


def _has_result(process: Process) -> bool:
    return len(process.events) > 1 and isinstance(process.events[1], RunFinished)
