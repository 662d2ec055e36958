"""What holds in every story of what is decided: votes, matches, the answer, and where policies cut a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from simulation.play import Story, Telling, loops_within, not_begun, results_of, rounds_of, tokens_of

from rsa import Candidate, Round, RSAConfig, RunResult
from rsa.events import LimitHit
from rsa.policies.posterior import leads_one
from rsa.results import Decision

# ---- votes


def votes_add_up(story: Story, telling: Telling) -> None:
    for result in results_of(telling):
        for played in rounds_of(result):
            counted = [(vote.answer, vote.candidates, vote.of) for vote in played.votes]
            assert counted == _votes(played), f"{counted} of {_votes(played)}"
        _check_choice(result)


def _votes(played: Round) -> list[tuple[str, tuple[int, ...], int]]:
    """Counted anew: texts of answers that differ mean different numbers in every story."""
    said = {each.index: each.answer for each in played.candidates if each.status in ("ok", "cancelled")}
    return [(answer, members, len(played.candidates)) for answer, members in _ranked(said)]


def _ranked(said: Mapping[int, str | None]) -> list[tuple[str, tuple[int, ...]]]:
    """Who gave which answer, by what each said; the leader first."""
    groups: dict[str, list[int]] = {}
    for index, answer in sorted(said.items()):
        if answer is not None:
            groups.setdefault(answer, []).append(index)
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[1][0]))
    return [(answer, tuple(members)) for answer, members in ranked]


def _check_choice(result: RunResult) -> None:
    """The answer is of the latest round that has one, as the settings choose it."""
    rounds = rounds_of(result)
    latest = next((played for played in reversed(rounds) if _votes(played)), None)
    if latest is None:
        assert (result.answer, result.answered_from_round, result.votes) == (None, None, ()), "an answer from nowhere"
        return
    if latest.kind == "match":
        latest, wanted = result.rounds[-1], _ahead(result)
    elif result.config.select == "pooled":
        latest, wanted = _pooled(result)
    else:
        leading = _votes(latest)[0][0]
        answers = [each.answer for each in latest.candidates if each.answer is not None]
        wanted = answers[0] if result.config.select == "first" else leading
    assert result.answer == wanted, f"the answer is {result.answer}, not {wanted}"
    if latest.kind == "population" and result.config.select != "first":
        told, spoken = result.text, _spokesman(latest, wanted)
        assert spoken.completion is not None
        assert told == spoken.completion.text, f"the text is {told!r}, not that of candidate {spoken.index}"
    assert result.answered_from_round == latest.round, "of another round"
    assert result.votes == latest.votes, "votes of another round"


def _spokesman(played: Round, answer: str) -> Candidate:
    """Of those that gave an answer, the one that ran its course in the fewest tokens, or else the earliest."""
    gave = [each for each in played.candidates if each.answer == answer]
    whole = [each for each in gave if each.status == "ok"]
    return min(whole, key=lambda each: (tokens_of([each]), each.index)) if whole else gave[0]


def matches_are_between_answers(story: Story, telling: Telling) -> None:
    for result in results_of(telling):
        last = result.rounds[-1]
        leaders = {_spokesman(last, answer).index: answer for answer, _, _ in _votes(last)}
        met: set[frozenset[int]] = set()
        for played in result.matches:
            pairs = [match.parents for match in played.candidates]
            assert pairs[::2] == [pair[::-1] for pair in pairs[1::2]], f"{pairs}: not in both orders"
            assert not met & set(map(frozenset, pairs)), f"{pairs} meet again"
            met |= set(map(frozenset, pairs))
            for match in played.candidates:
                answers = [leaders[parent] for parent in match.parents]
                assert match.answer in (*answers, None), f"{match.answer} is not one of {answers}"
        if result.stopped_because == "finished" and result.config.select == "tournament":
            assert bool(met) == (len(leaders) > 1), "answers that did not meet"


def _ahead(result: RunResult) -> str:
    """The answer with most points: those of matches that were won, halves of those that nobody could judge."""
    last = result.rounds[-1]
    answers = [answer for answer, _, _ in _votes(last)]
    contending = {_spokesman(last, answer).index: answer for answer in answers}
    points = dict.fromkeys(answers, 0.0)
    for played in result.matches:
        playing = set()
        for match in played.candidates:
            pair = [contending[each] for each in match.parents]
            playing |= set(pair)
            for answer in pair if match.answer is None else [match.answer] * 2:
                points[answer] += 0.25
        for answer in set(answers) - playing:
            points[answer] += 0.5
    return max(answers, key=lambda answer: (points[answer], -answers.index(answer)))


def _pooled(result: RunResult) -> tuple[Round, str]:
    """The answer with most votes of all rounds, and the latest round that has it; of equals the one with more in the
    latest round, in the one before it, and so on, then the earliest there."""
    latest_first = [
        (played, {answer: members for answer, members, _ in _votes(played)}) for played in result.rounds[::-1]
    ]

    def standing(answer: str) -> tuple[int, ...]:
        counts = [len(members.get(answer, ())) for _, members in latest_first]
        earliest = next(members[answer][0] for _, members in latest_first if answer in members)
        return (sum(counts), *counts, -earliest)

    ahead = max({answer for _, members in latest_first for answer in members}, key=standing)
    return next(played for played, members in latest_first if ahead in members), ahead


# ---- policies


def what_is_decided_follows_from_tokens(story: Story, telling: Telling) -> None:
    config = story.world.config
    for process in telling.processes:
        result = process.result
        if result is None or process.ended != "finished":
            continue
        events = [*process.logged, *process.events]
        limited = {event.round for event in events if isinstance(event, LimitHit) and event.action != "no_new_round"}
        for played in result.rounds:
            found = [each for each in result.decisions if (each.round, each.action) == (played.round, "cut")]
            cut = [each for each in played.candidates if each.status == "cut"]
            assert not cut or found, f"round {played.round} is cut, and nobody says so"
            for each in cut:
                first, end = found[0].wave or (0, 0)
                assert first <= each.index, f"candidate {each.index} had ended"
                assert (each.completion is None) == (each.index >= end), f"candidate {each.index} was cut elsewhere"
                assert not_begun(each) or tokens_of([each]) == found[0].at, f"candidate {each.index} was cut elsewhere"
            if played.round not in limited:
                answers_now = played.round == config.t or config.answers_every_round
                _check_decision(played, story.world.cuts if answers_now else (), found, config)


def _check_decision(played: Round, policies: Sequence[str], found: Sequence[Decision], config: RSAConfig) -> None:
    """It is the first that any policy has to take, in the order of tokens."""
    first = 0
    for size in config.waves or (config.n,):
        at_work, end = played.candidates[first : first + size], first + size
        before = {each.index: each.answer for each in played.candidates[:first] if each.status == "ok"}
        ends = {each.index: tokens_of([each]) for each in at_work if each.status == "ok"}
        for level in sorted(set(ends.values())):
            said = {each.index: each.answer for each in at_work if ends.get(each.index, level + 1) <= level}
            due = [policy for policy in policies if _stops(policy, played, before | said, config)]
            if due and (found or end < config.n or not all(_is_over(each, level) for each in at_work)):
                decided = [(each.policy, each.at, each.wave) for each in found]
                assert decided == [(due[0], level, (first, end))], f"{due} at {level}, not {found}"
                return
        first = end
    assert not found, f"{found} does not follow"


def _stops(policy: str, played: Round, said: Mapping[int, str | None], config: RSAConfig) -> bool:
    running = [each.index for each in played.candidates if each.index not in said]
    ranked = _ranked(said)
    if not running or not ranked:
        return False
    if policy == "decided":
        ends = product([*dict(ranked), "new", None], repeat=len(running))
        leaders = {_ranked({**said, **dict(zip(running, end, strict=True))})[0][0] for end in ends}
        return len(leaders) == 1 and played.round == config.t and config.select == "vote"
    counts = [len(members) for _, members in ranked]
    return leads_one(counts[0], counts[1] if len(counts) > 1 else 0) >= float(policy.partition(":")[2])


def _is_over(candidate: Candidate, level: int) -> bool:
    completion = candidate.completion
    if completion is None:
        return True
    if candidate.status == "degenerate":
        return loops_within(completion.token_ids, level)
    return candidate.status == "ok" and completion.usage.completion_tokens <= level
