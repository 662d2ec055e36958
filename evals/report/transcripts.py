"""Reading a run folder for a reader: what was asked, what each candidate wrote, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from evals.folder import FAILED, read_json
from rsa.digests import Trust
from rsa.events import BudgetsLowered, CandidateFinished, Event, RoundFinished, Warned
from rsa.results import Candidate, Round, RoundKind, RunResult, Vote
from rsa.run_record import IMAGES, RunRecord
from rsa.runlog import RESULT, read_events, read_result, read_run_record


@dataclass(frozen=True, slots=True)
class Transcript:
    """A run as its folder tells it.

    images    files of the images of each turn of the conversation, the problem itself last; one may be missing.
    rounds    that ended or were at work: populations, and what followed the last one.
    result    None if the run has not ended.
    warnings  of the run.
    """

    record: RunRecord
    images: tuple[tuple[Path, ...], ...]
    rounds: tuple[Round, ...]
    result: RunResult | None
    warnings: tuple[str, ...]


def read_transcript(folder: Path, *, trust: bool = False) -> Transcript:
    """Everything in a run folder. Raises ResultsError or RunFolderError if it is broken, or was changed and is not
    taken on `trust`."""
    doubts = Trust(folder, given=trust)
    record = read_run_record(folder, doubts)
    images = tuple(tuple(folder / IMAGES / Path(name).name for name in turn.images) for turn in record.conversation)
    result = _ended(folder, doubts)
    if result is not None:
        return Transcript(record, images, result.played, result, _once(doubts.notes, result.warnings))
    events = read_events(folder, trust=trust)
    said = [event.message for event in events if isinstance(event, BudgetsLowered | Warned)]
    return Transcript(record, images, _rounds_so_far(events), None, _once(doubts.notes, said))


def _ended(folder: Path, trust: Trust) -> RunResult | None:
    """What there is of a run that has ended."""
    if (folder / RESULT).exists():
        return read_result(folder, trust=trust.given)
    return read_json(folder / FAILED, RunResult, trust) if (folder / FAILED).exists() else None


def _once(*messages: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain(*messages)))


def _rounds_so_far(events: list[Event]) -> tuple[Round, ...]:
    """Rounds from the log of a run that has not ended; a candidate that was tried again counts as it ended last."""
    candidates: dict[tuple[RoundKind, int], dict[int, Candidate]] = {}
    votes: dict[tuple[RoundKind, int], tuple[Vote, ...]] = {}
    for event in events:
        if isinstance(event, CandidateFinished):
            candidates.setdefault((event.kind, event.candidate.round), {})[event.candidate.index] = event.candidate
        elif isinstance(event, RoundFinished):
            votes[event.kind, event.round] = event.votes
    return tuple(
        Round(
            round=number,
            kind=kind,
            candidates=tuple(ended[index] for index in sorted(ended)),
            votes=votes.get((kind, number), ()),
            started_s=min(candidate.started_s for candidate in ended.values()),
            finished_s=max(candidate.finished_s for candidate in ended.values()),
        )
        for (kind, number), ended in candidates.items()
    )
