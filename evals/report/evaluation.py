"""The report of an evaluation: figures and pictures first, then every problem, as many in detail as fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import JsonValue

from evals.errors import ResultsError
from evals.folder import SCORES
from evals.replay.table import notes
from evals.report import plots
from evals.report.calibrating import calibrated
from evals.report.calibration_words import calibration_view
from evals.report.pictures import Picture, picture
from evals.report.reading import EvalReader
from evals.report.svg import Plot
from evals.report.text import Clip, environment, first_of, in_a_line
from evals.report.transcripts import Transcript, read_transcript
from evals.report.views import Badge, RoundView, scored_rounds, worth
from evals.report.words import at_a_glance, changes, facts, gains, headline, statuses
from evals.results import EvalResults, ProblemStats
from evals.stats import Estimate
from rsa.digests import TAKEN
from rsa.errors import RSAError
from rsa.runlog import EVENTS, RUN

PROBLEM_CHARACTERS = 8_000
TAIL_CHARACTERS = (240, 4_000)
"""Characters of a tail that a page shows, fewest and most: the more candidates share it, the fewer."""
_MARKUP_BYTES = 600
"""Bytes of markup around a candidate's tail, about."""
_NOTES_BYTES = 1_000
"""The most bytes of the note above the list of problems and of those within it."""
_NAME_CHARACTERS = 80


def evaluation_page(folder: Path, max_bytes: int, *, trust: bool) -> Iterator[str]:
    """The page in pieces; see `evals.report.write_report`."""
    reader = EvalReader(folder, trust=trust)
    template = environment().get_template("evaluation.html.j2")
    context = _context(reader)
    frame = sum(len(piece.encode()) for piece in template.generate(**context, problems=()))
    problems = _Problems(reader, max_bytes - frame - _NOTES_BYTES)
    return template.generate(**{**context, "problems_note": problems.note}, problems=problems.blocks())


def _context(reader: EvalReader) -> dict[str, Any]:
    results = reader.results
    changed = any(played.became_right or played.became_wrong for played in results.rounds)
    calibration = calibration_view(calibrated(reader))
    return {
        "results": results,
        "headline": headline(results),
        "scale": _scale(results.mean),
        "warnings": results.warned(reader.trust.notes).warnings,
        "glance": at_a_glance(results, reader.timings),
        "gains": gains(results),
        "ks": sorted({k for played in results.rounds for k in played.best_of if k > 1}),
        "statuses": statuses(results),
        "plots": _plots(reader),
        "unchanged": len(results.rounds) > 1 and not changed,
        "changes": changes(results, anchors(results)),
        "facts": facts(results, reader.timings),
        "calibration": calibration,
        "replay": reader.replay,
        "replay_notes": list(notes(reader.replay)) if reader.replay is not None else [],
        "problems_note": "",
    }


def _scale(mean: Estimate) -> dict[str, float]:
    """The headline and its interval on a line of 400 points."""
    ends = {"low": mean.low, "value": mean.value, "high": mean.high}
    return {name: 400 * (value or 0.0) for name, value in ends.items()}


def _plots(reader: EvalReader) -> list[Plot]:
    rounds = reader.results.rounds
    drawn = []
    if len(rounds) > 1:
        drawn += [plots.accuracy_by_round(rounds), plots.accuracy_by_tokens(rounds)]
    elif rounds and len(rounds[0].best_of) > 1:
        drawn.append(plots.best_of_k(rounds[0]))
    if any(played.became_right or played.became_wrong for played in rounds):
        drawn.append(plots.changes(rounds))
    if reader.survey.lengths:
        betas = reader.survey.betas or {reader.results.config.beta}
        drawn.append(plots.reasoning_lengths(reader.survey.lengths, max(betas)))
    return drawn


def anchors(results: EvalResults) -> dict[str, str]:
    """Where in the page each problem is."""
    return {problem.id: f"p{number}" for number, problem in enumerate(results.problems, 1)}


@dataclass(frozen=True, slots=True)
class _Row:
    """A problem in a line. `votes`: by round, with the mean of the candidates."""

    anchor: str
    name: str
    stats: ProblemStats
    votes: tuple[tuple[Badge, float | None], ...]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class _Epoch:
    epoch: int
    rounds: tuple[RoundView, ...]
    note: str


@dataclass(frozen=True, slots=True)
class _Detail:
    """What opens below a problem's line. `text`: None if the run folder is gone."""

    text: Clip | None
    pictures: tuple[Picture, ...]
    gold: str | None
    epochs: tuple[_Epoch, ...]


class _Problems:
    """The list of problems, in at most `room` bytes: lines first, then details, first problems first."""

    def __init__(self, reader: EvalReader, room: int) -> None:
        self._reader = reader
        self._room = room
        self._template = environment().get_template("problem.html.j2")
        self._anchors = anchors(reader.results)
        self._seconds = reader.seconds()
        sizes = (len(self._block(problem).encode()) for problem in reader.results.problems)
        self._listed, self._rows_bytes = _fitting(sizes, room)
        share = (room - self._rows_bytes) // max(1, reader.survey.candidates) - _MARKUP_BYTES
        self._tail_characters = max(TAIL_CHARACTERS[0], min(TAIL_CHARACTERS[1], share))

    @property
    def note(self) -> str:
        """How to read the list."""
        return (
            "Open a problem to see its text and its candidates. The sign is the vote's, the number beside it the mean "
            "of the candidates in percent. A candidate's tokens are of reasoning + answer; β marks a reasoning that "
            f"was closed at its budget. Tails are cut to their last {self._tail_characters:,} characters."
        )

    def blocks(self) -> Iterator[Markup]:
        """The problems one after the other; a line where details end, or the list."""
        problems = self._reader.results.problems
        left = self._room - self._rows_bytes
        in_detail = True
        for number, problem in enumerate(problems[: self._listed]):
            row = self._block(problem)
            if in_detail:
                block = self._block(problem, self._detail(problem))
                extra = len(block.encode()) - len(row.encode())
                in_detail = extra <= left
                if in_detail:
                    left -= extra
                    yield block
                    continue
                yield _note(
                    f"From here on only the figures, {number:,} of {len(problems):,} problems are in detail: the page "
                    "would grow too large. Everything is in candidates.jsonl and runs/."
                )
            yield row
        if self._listed < len(problems):
            yield _note(f"{len(problems) - self._listed:,} more problems are not listed; results.json has them.")

    def _block(self, problem: ProblemStats, detail: _Detail | None = None) -> Markup:
        row = _Row(
            anchor=self._anchors[problem.id],
            name=in_a_line(problem.id, _NAME_CHARACTERS),
            stats=problem,
            votes=tuple((worth(vote), mean) for vote, mean in zip(problem.votes, problem.means, strict=True)),
            seconds=self._seconds.get(problem.id),
        )
        return Markup(self._template.render(problem=row, detail=detail))

    def _detail(self, problem: ProblemStats) -> _Detail:
        records = self._reader.records(problem.id)
        transcript: Transcript | None = None
        gold: str | None = None
        epochs = []
        for epoch in range(self._reader.results.epochs):
            found, note = self._transcript(problem.id, epoch)
            transcript = transcript or found
            scores = self._reader.scores(problem.id, epoch)
            if scores is not None:
                gold = _gold(scores.gold)
                note = " ".join(filter(None, [f"The run failed: {scores.error}" if scores.error else "", note]))
            elif not note:
                note = f"Its run folder cannot be read: it has no {SCORES}"
            texts = {
                (candidate.round, candidate.index): candidate
                for played in (found.rounds if found else ())
                if played.kind == "population"
                for candidate in played.candidates
            }
            mine = [record for record in records if record.epoch == epoch]
            anchor = f"{self._anchors[problem.id]}-{epoch}"
            epochs.append(_Epoch(epoch, scored_rounds(mine, texts, anchor, self._tail_characters), note))
        return _Detail(
            text=first_of(transcript.record.problem, PROBLEM_CHARACTERS) if transcript else None,
            pictures=tuple(picture(path) for path in transcript.images[-1]) if transcript else (),
            gold=gold,
            epochs=tuple(epochs),
        )

    def _transcript(self, problem_id: str, epoch: int) -> tuple[Transcript | None, str]:
        folder = self._reader.run_folder(problem_id, epoch)
        if not folder.is_dir():
            return None, "Its run folder is gone, so its texts are not here."
        if not (folder / RUN).exists():
            ran = (folder / EVENTS).exists()  # else it failed before anything did
            return None, f"Its run folder cannot be read: it has no {RUN}" if ran else ""
        try:
            found = read_transcript(folder, trust=self._reader.trust.given)
            return found, "; ".join(each for each in found.warnings if each.startswith(TAKEN))
        except (ResultsError, RSAError) as error:
            return None, f"Its run folder cannot be read: {error}"


def _fitting(sizes: Iterable[int], room: int) -> tuple[int, int]:
    """How many of these go into the room, from the first on, and what they take together."""
    number = taken = 0
    for size in sizes:
        if taken + size > room:
            break
        number, taken = number + 1, taken + size
    return number, taken


def _gold(gold: JsonValue) -> str | None:
    if gold is None or isinstance(gold, str):
        return gold
    return json.dumps(gold, ensure_ascii=False)


def _note(text: str) -> Markup:
    return Markup('<li class="aside note">{}</li>\n').format(text)
