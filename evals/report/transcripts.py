"""Reading a run folder for a reader: what was asked, what each candidate wrote, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evals.folder import FAILED, read_json
from rsa.events import BudgetsLowered, CandidateFinished, Event, RoundFinished, Warned
from rsa.results import Candidate, Round, RoundKind, RunResult, Vote
from rsa.runlog import IMAGES, RESULT, RunRecord, read_events, read_run_record


@dataclass(frozen=True, slots=True)
class Transcript:
    """A run as its folder tells it.

    images    files of the images of each turn of the conversation, the problem itself last; one may be missing.
    rounds    populations that ended or were at work, and last the selection, if there was one.
    result    None if the run has not ended.
    warnings  of the run.
    """

    record: RunRecord
    images: tuple[tuple[Path, ...], ...]
    rounds: tuple[Round, ...]
    result: RunResult | None
    warnings: tuple[str, ...]


def read_transcript(folder: Path) -> Transcript:
    """Everything in a run folder. Raises ResultsError or RunFolderError if it is broken."""
    record = read_run_record(folder)
    images = tuple(tuple(folder / IMAGES / Path(name).name for name in turn.images) for turn in record.conversation)
    ended = next((folder / name for name in (RESULT, FAILED) if (folder / name).exists()), None)
    if ended is not None:
        result = read_json(ended, RunResult)
        rounds = result.rounds if result.selection is None else (*result.rounds, result.selection)
        return Transcript(record, images, rounds, result, result.warnings)
    events = read_events(folder)
    warnings = tuple(event.message for event in events if isinstance(event, BudgetsLowered | Warned))
    return Transcript(record, images, _rounds_so_far(events), None, warnings)


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
