"""The report of one solved problem: the answer, how the candidates came to it, and what they wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evals.report.lineage import drawable, lineage
from evals.report.pictures import Picture, picture
from evals.report.text import Clip, count, duration, environment, first_of, moment, percent
from evals.report.transcripts import Transcript, read_transcript
from evals.report.views import Badge, checked, name_of, unscored_rounds
from evals.report.words import Facts, brief, machine_facts, model_facts, settings
from rsa.answers.calls import in_words
from rsa.events import LimitHit
from rsa.policies import words as policy_words
from rsa.results import Round, RunResult, Vote
from rsa.run_record import LoggedTurn
from rsa.runlog import read_events
from rsa.unanswered import unanswered
from rsa.words import plural

PROBLEM_CHARACTERS = 40_000
TAIL_CHARACTERS = (240, 20_000)
"""Characters of a tail that a page shows, fewest and most: the more candidates there are, the fewer."""
_SHOWN_VOTES = 4
_STOPPED = {
    "finished": "",
    "policy": "It stopped early: a policy ended it.",
    "total_tokens": "It stopped early: the limit on tokens was reached.",
    "deadline_s": "It stopped early: the limit on time was reached.",
    "set_tokens": "It stopped early: the tokens of the whole evaluation were spent.",
    "set_deadline_s": "It stopped early: the time of the whole evaluation was over.",
    "no_candidates": "It stopped early: every candidate of a round failed.",
}
_ACTIONS = {
    "conclude": "running candidates were asked for their answers",
    "cancel": "running candidates were cut off",
    "no_new_round": "no further round was begun",
}


def solved_page(folder: Path, max_bytes: int, *, trust: bool) -> Iterator[str]:
    """The page in pieces; see `evals.report.write_report`."""
    run = read_transcript(folder, trust=trust)
    limits = [event for event in read_events(folder, trust=trust) if isinstance(event, LimitHit)]
    template = environment().get_template("solved.html.j2")
    context = _context(run, limits)
    frame = sum(len(piece.encode()) for piece in template.generate(**context, rounds=()))
    return template.generate(**context, rounds=_rounds(run, context["agreeing"], max_bytes - frame))


def _context(run: Transcript, limits: Sequence[LimitHit]) -> dict[str, Any]:
    agreeing = _agreeing(run)
    drawn = [played for played in run.rounds if played.kind != "match"]
    hits = [f"Limit {hit.limit}: {hit.used:,.6g} of {hit.allowed:,.6g} used; {_ACTIONS[hit.action]}." for hit in limits]
    unfinished = () if run.result else ("This run has not ended: what follows is what its log holds so far.",)
    return {
        "record": run.record,
        "result": run.result,
        "check": checked(run.result.check) if run.result else None,
        "sentences": _sentences(run.result) if run.result else (),
        "decisions": [policy_words.in_words(each) for each in run.result.decisions] if run.result else [],
        "warnings": (*unfinished, *run.warnings, *hits),
        "problem": first_of(run.record.problem, PROBLEM_CHARACTERS),
        "earlier": _turns(run.record.earlier, run.images),
        "pictures": tuple(picture(path) for path in run.images[run.record.at]),
        "later": _turns(run.record.later, run.images[run.record.at + 1 :]),
        "tools": [tool.name for tool in run.record.tools],
        "text": first_of(run.result.text, PROBLEM_CHARACTERS) if run.result else None,
        "votes": [(name_of(played), _bars(played.votes)) for played in run.rounds if played.votes],
        "costs": [(name_of(played), _cost(played)) for played in run.rounds],
        "plots": [lineage(drawn, agreeing)] if drawable(drawn) else [],
        "facts": _facts(run),
        "agreeing": agreeing,
    }


def _turns(turns: Sequence[LoggedTurn], images: Sequence[Sequence[Path]]) -> list[tuple[str, Clip, list[Picture]]]:
    """(who speaks, what they say and call, their pictures) of each turn; more images are those of later turns."""
    return [
        (turn.role.capitalize(), first_of(_said(turn), PROBLEM_CHARACTERS), [picture(path) for path in shown])
        for turn, shown in zip(turns, images, strict=False)
    ]


def _said(turn: LoggedTurn) -> str:
    return "\n".join(filter(None, [turn.text, f"Calls {in_words(turn.calls)}" if turn.calls else ""]))


def _rounds(run: Transcript, agreeing: dict[int, set[int]], room: int) -> Any:
    """Tails as long as the room allows."""
    fewest, most = TAIL_CHARACTERS
    candidates = sum(len(played.candidates) for played in run.rounds)
    # Half of it: a character may take several bytes, and answers take room as well.
    return unscored_rounds(run.rounds, agreeing, max(fewest, min(most, room // max(1, 2 * candidates))))


def _agreeing(run: Transcript) -> dict[int, set[int]]:
    """By place in `rounds`: who gave the run's answer, as the run's own votes judge it."""
    if run.result is None or run.result.answer is None:
        return {}
    winner = run.result.agreeing
    written = {run.result.answer}
    groups = [(place, vote, _answers(played, vote)) for place, played in enumerate(run.rounds) for vote in played.votes]
    for _, vote, answers in groups:
        if vote == winner:
            written |= answers
    agreeing: dict[int, set[int]] = {}
    for place, vote, answers in groups:
        if answers & written:
            agreeing.setdefault(place, set()).update(vote.candidates)
    return agreeing


def _answers(played: Round, vote: Vote) -> set[str]:
    members = set(vote.candidates)
    return {c.answer for c in played.candidates if c.index in members and c.answer is not None}


def _sentences(result: RunResult) -> tuple[str, ...]:
    if result.answer is None:
        found = _silence(result)
    elif (winner := result.agreeing) is not None:
        many = f"{winner.count} of {plural(winner.of, 'candidate')}"
        found = f"{many} of round {result.answered_from_round} gave this answer."
    else:
        found = f"It is from round {result.answered_from_round}."
    spent = (
        f"{plural(len(result.rounds), 'round')}, {result.usage.completion_tokens:,} tokens, "
        f"{duration(result.timings.wall_s)}, started {moment(result.timings.started_at)}."
    )
    how = policy_words.chosen(result)
    how = f"{how[0].upper()}{how[1:]}." if how else ""
    return tuple(sentence for sentence in (found, how, _STOPPED[result.stopped_because], spent) if sentence)


def _silence(result: RunResult) -> str:
    why = unanswered(result)
    if why is None:
        return "No candidate gave an answer."
    sentences = [f"No answer: {why.why}."]
    wrote = [f"{many} wrote at the end “{words}”" for words, many in why.wrote]
    wrote += [f"{why.more} more wrote something else"] if why.more else []
    sentences += [f"{'; '.join(wrote)}."] if wrote else []
    sentences += ["A larger beta may help."] if why.beta_short else []
    return " ".join(sentences)


def _bars(votes: Sequence[Vote]) -> list[tuple[str, Badge | None, int, str]]:
    """(answer, what the checker says of it, count, share) of the leading answers; the others in one."""
    bars = [(vote.answer, checked(vote.check), vote.count, percent(vote.share)) for vote in votes[:_SHOWN_VOTES]]
    rest = votes[_SHOWN_VOTES:]
    if rest:
        share = percent(sum(vote.share for vote in rest))
        bars.append((plural(len(rest), "other answer"), None, sum(vote.count for vote in rest), share))
    return bars


def _cost(played: Round) -> dict[str, str]:
    """A row of the table of rounds."""
    usages = [candidate.completion.usage for candidate in played.candidates if candidate.completion]
    reasoning = [usage.reasoning_tokens for usage in usages]
    return {
        "Candidates": count(len(played.candidates)),
        "Ended": ", ".join(f"{many} {status}" for status, many in played.statuses.items()),
        "Forced at β": count(sum(1 for c in played.candidates if c.completion and c.completion.forced)),
        "Reasoning tokens, mean": count(sum(reasoning) / len(reasoning)) if reasoning else count(None),
        "Longest reasoning": count(max(reasoning, default=None)),
        "Tokens": count(played.usage.completion_tokens),
        "Longest prompt": count(max((usage.prompt_tokens for usage in usages), default=None)),
        "Time": duration(played.finished_s - played.started_s),
    }


def _facts(run: Transcript) -> list[tuple[str, Facts]]:
    record, result = run.record, run.result
    used: Facts = []
    budgets = result.budgets if result else None
    if budgets and (budgets.beta, budgets.answer_budget) != (record.config.beta, record.config.answer_budget):
        used = [("β as used", count(budgets.beta)), ("answer tokens as used", count(budgets.answer_budget))]
    prompts = [("prompts", record.task), ("prompts, SHA-256", brief(record.prompt_sha256))]
    where = [("started", moment(record.created_at)), *machine_facts(record.machine), *sorted(record.versions.items())]
    return [
        ("Method", [*settings(record.config), *used]),
        ("Model", [*model_facts(record.model), *prompts]),
        ("Software and machine", where),
    ]
