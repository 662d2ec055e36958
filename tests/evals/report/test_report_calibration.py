"""The section about calibration: its numbers are those of the run folders, by brute force and by `rsa replay`."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import combinations, pairwise
from math import fsum
from pathlib import Path
from statistics import fmean
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealed import content

from engine.scripted import Script
from evals.folder import RUNS, read_json, read_results, run_name
from evals.replay.replaying import replay_folders
from evals.replay.variants import Variant
from evals.report import write_report
from evals.report.calibrating import MEASURES, Calibration, calibrated, sample
from evals.report.calibration_words import calibration_view
from evals.report.reading import EvalReader
from evals.run_scores import RunScores
from rsa import read_result
from rsa.policies.ends import standing
from rsa.results import Round

pytestmark = pytest.mark.thorough


def found_in(folder: Path, *, trust: bool = False) -> Calibration:
    found = calibrated(EvalReader(folder, trust=trust))
    assert found is not None
    return found


def rounds_of(folder: Path, place: int) -> Iterator[tuple[str, Round, dict[int, float]]]:
    """The first or last round of each run, by problem, with what its candidates that answered were worth."""
    results = read_results(folder)
    for problem in results.problems:
        for epoch in range(results.epochs):
            run = folder / RUNS / run_name(problem.id, epoch)
            played = read_result(run).rounds[place]
            scores = read_json(run / "scores.json", RunScores).candidates
            mine = [each for each in scores if each.round == played.round and each.score.status == "scored"]
            yield problem.id, played, {each.index: each.score.value or 0.0 for each in mine}


@pytest.mark.parametrize(("which", "place"), [("first", 0), ("final", -1)])
def test_shares_are_those_of_the_votes(calibrated: Path, which: str, place: int) -> None:
    (found,) = (each for each in found_in(calibrated).rounds if each.which == which)
    clusters = {problem.id: problem.cluster or problem.id for problem in read_results(calibrated).problems}
    steps: dict[int, list[tuple[float, float]]] = defaultdict(list)
    groups: dict[int, set[str]] = defaultdict(set)
    for problem_id, played, worths in rounds_of(calibrated, place):
        leader = played.votes[0]
        steps[-(-5 * leader.count // 8)].append((leader.count / 8, worths[standing(leader.candidates, played).index]))
        groups[-(-5 * leader.count // 8)].add(clusters[problem_id])
    assert [(each.low, each.high) for each in found.shares] == [((end - 1) / 5, end / 5) for end in sorted(steps)]
    for each, end in zip(found.shares, sorted(steps), strict=True):
        assert each.claims == len(steps[end])
        assert each.sure == pytest.approx(fmean(share for share, _ in steps[end]))
        assert each.worth == fmean(worth for _, worth in steps[end])
        assert each.groups == len(groups[end]), "epochs of a problem do not stand apart, nor do problems of a cluster"
        assert each.least <= each.worth <= each.most
    off = fsum(abs(sum(share - worth for share, worth in pairs)) for pairs in steps.values())
    assert found.error == pytest.approx(off / 24)
    assert found.silent == 0


@pytest.mark.parametrize(("which", "place"), [("first", 0), ("final", -1)])
def test_ranks_and_bins_of_candidates_are_those_of_their_confidence(calibrated: Path, which: str, place: int) -> None:
    (found,) = (each for each in found_in(calibrated).rounds if each.which == which)
    by_problem: dict[str, list[float]] = defaultdict(list)
    everyone: list[tuple[float, float]] = []
    for problem_id, played, worths in rounds_of(calibrated, place):
        sures = {each.index: each.confidence.tail for each in played.candidates if each.index in worths}
        everyone += [(sures[index], worths[index]) for index in sures]
        pairs = [pair for pair in combinations(sures, 2) if worths[pair[0]] != worths[pair[1]]]
        if pairs:
            won = [
                0.5 if sures[one] == sures[other] else (sures[one] > sures[other]) == (worths[one] > worths[other])
                for one, other in pairs
            ]
            by_problem[problem_id].append(fmean(won))
    tail = found.ranks["tail"]
    assert tail.value == pytest.approx(fmean(fmean(epochs) for epochs in by_problem.values()))
    assert tail.problems == len(by_problem) > 8
    assert tail.value > 0.6, "it knows a little"
    assert list(found.ranks) == list(MEASURES)
    assert sum(each.claims for each in found.tenths) == len(everyone)
    everyone.sort()
    tenth = found.tenths[0]
    assert tenth.worth == fmean(worth for _, worth in everyone[: tenth.claims])
    assert found.quarters[-1].worth > found.quarters[0].worth
    assert {each.low for each in found.quarters} == {0, 0.25, 0.5, 0.75}


def test_rules_of_stop_come_to_what_a_replay_comes_to(calibrated: Path) -> None:
    ran, decided, beta, consensus, bayes = found_in(calibrated).rules
    variants = [Variant(stop=(rule,)) for rule in ("decided", "consensus:.9", "bayes:.95")]
    (replayed,) = anyio.run(partial(replay_folders, [calibrated], variants)).replays
    assert [each.figures for each in (decided, consensus, bayes)] == list(replayed.variants)
    assert ran.figures == replayed.recorded
    assert ran.figures.answer == read_results(calibrated).answer
    assert decided.figures.tokens_ratio < 1
    assert beta.figures is None
    assert re.fullmatch(
        r"\d+ of 24 runs do not say; the first of them: beta:.95 ends round 0 at \d+ tokens: what the next one would "
        r"have read then was never generated",
        beta.why,
    )


def test_of_one_round_a_rule_within_it_is_told_and_one_between_rounds_is_not(tmp_path: Path, make: Any) -> None:
    folder = make.evaluate(tmp_path, make.sums(8), make.knowing(), method="vote", n=8, t=0, c=1)
    found = found_in(folder)
    assert [each.which for each in found.rounds] == ["first"]
    assert [each.rule for each in found.rules if each.figures] == ["", "decided", "beta:.95"]
    assert {each.why for each in found.rules if not each.figures} == {
        "it ends runs between rounds, and there is only one"
    }
    (replayed,) = anyio.run(partial(replay_folders, [folder], [Variant(stop=("beta:.95",))])).replays
    assert found.rules[2].figures == replayed.variants[0]
    page = write_report(folder).read_text()
    assert "in round 0" in page
    assert "It ends runs between rounds, and there is only one." in page


def test_a_rule_that_does_not_fit_or_was_cut_short_says_why(tmp_path: Path, make: Any) -> None:
    first = make.evaluate(tmp_path / "first", make.sums(8), make.knowing(), n=8, t=1, select="first")
    assert "stop = decided is for select = vote" in found_in(first).rules[1].why
    ended = make.evaluate(tmp_path / "ended", make.sums(8), make.knowing(skill=0.8), n=8, t=1, stop="consensus:.5")
    whys = {each.rule: each.why for each in found_in(ended).rules if not each.figures}
    assert "by consensus:.5: what came after was never generated" in whys["bayes:.95"]
    assert str(tmp_path) not in write_report(ended).read_text(), "a report does not depend on where it is"


def test_the_page_says_what_was_found(calibrated: Path) -> None:
    page = write_report(calibrated).read_text()
    section = page[page.index('id="calibration"') : page.index('id="protocol"')]
    found = found_in(calibrated)
    told = [float(value) for value in re.findall(r'<data value="([^"]*)">', section)]
    for each in found.rounds:
        for bin_ in each.shares:
            assert {bin_.worth, bin_.least, bin_.most, bin_.claims} <= set(told)
        for rank in each.ranks.values():
            assert {rank.value, rank.low, rank.high, rank.problems} <= set(told)
    plots = re.findall(r'<svg class="plot" role="img" [^>]*aria-labelledby="(\w+)-title', section)
    assert plots == ["shares", "quarters", "tenths"]
    assert "expected calibration error" in section
    assert "nan" not in section
    saved = 1 - found.rules[1].figures.tokens_ratio
    assert f"<td>{100 * saved:.1f}%</td>" in section
    assert "all alike" in section, "what is decided changes no answer, and no interval of nothing feigns to be sharp"


def test_few_problems_are_a_sentence_and_their_runs_are_not_read(evaluation: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(evaluation, tmp_path / "copy"))
    assert calibrated(EvalReader(folder)) is None
    assert "This takes 8 problems at least." in write_report(folder).read_text()
    shutil.rmtree(folder / RUNS)
    assert "This takes 8 problems at least." in write_report(folder).read_text()


def test_runs_that_cannot_be_read_are_counted(calibrated: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(calibrated, tmp_path / "copy"))
    gone, broken = sorted((folder / RUNS).iterdir())[:2]
    shutil.rmtree(gone)
    (broken / "result.json").write_text("{")
    found = found_in(folder)
    assert (found.problems, found.runs, found.unread) == (12, 22, 2)
    assert sum(each.claims for each in found.rounds[1].shares) == 22
    assert "Left out here: 2 runs that cannot be read." in write_report(folder).read_text()
    shutil.rmtree(folder / RUNS)
    assert "There is no run with candidates that can be read" in write_report(folder).read_text()


def test_runs_that_decide_otherwise_today_have_no_rules(calibrated: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(calibrated, tmp_path / "copy"))
    path = next((folder / RUNS).glob("*/result.json"))
    path.write_text(json.dumps({**json.loads(content(path)), "answer": "none of these"}))
    found = found_in(folder, trust=True)
    assert [each.rule for each in found.rules] == [""]
    page = write_report(folder, trust=True).read_text()
    assert "What rules of stop would have saved cannot be said: 1 of 24 runs do not say" in page
    assert "Rule of stop" not in page


def test_where_confidence_was_not_recorded_it_is_said(tmp_path: Path, make: Any) -> None:
    folder = make.evaluate(tmp_path, make.sums(8), n=4, t=0, c=1, method="vote", confidence="none")
    view = calibration_view(found_in(folder))
    assert [plot.name for plot in view.plots] == ["shares"]
    assert view.ranks == ()
    assert "How sure the model was of each candidate was not recorded, or nobody answered." in view.sentences


def test_where_nobody_answered_there_is_nothing_to_draw(tmp_path: Path, make: Any) -> None:
    folder = make.evaluate(tmp_path, make.sums(8), lambda _: Script(reasoning="hm", answer="no idea"), n=4, t=1)
    view = calibration_view(found_in(folder))
    assert (view.plots, view.shares, view.ranks) == ((), (), ())
    assert [line for line in view.sentences if line.startswith("Left out here")] == [
        "Left out here: runs without a leading answer that could be scored, 8 in the final round and 8 in round 0."
    ]
    assert write_report(folder).exists()


def test_a_report_can_be_written_within_an_event_loop(calibrated: Path) -> None:
    async def main() -> bytes:
        return write_report(calibrated).read_bytes()

    before = write_report(calibrated).read_bytes()
    for backend in ("asyncio", "trio"):
        assert anyio.run(main, backend=backend) == before


@given(st.integers(0, 5000), st.integers(1, 2000))
def test_problems_are_all_read_or_spread_evenly(total: int, each: int) -> None:
    problems: Any = range(total)
    chosen = list(sample(problems, total * each))
    assert len(chosen) == min(total, 1000, max(100, 50_000 // each))
    assert len(set(chosen)) == len(chosen)
    gaps = {later - earlier for earlier, later in pairwise(chosen)}
    assert not gaps or max(gaps) - min(gaps) <= 1
