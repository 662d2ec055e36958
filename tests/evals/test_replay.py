"""Evaluations decided again: as they were, and as live ones with other settings were."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from sealed import copy_of

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from evals.errors import ReplayError
from evals.folder import RUNS, read_results
from evals.replay.drawing import subsets
from evals.replay.figures import Replays
from evals.replay.keeping import REPLAY, keep
from evals.replay.replaying import replay_folders
from evals.replay.table import replay_lines
from evals.replay.variants import Variant, grid, policies_of
from evals.report import REPORT, write_report
from rsa import RSAError

from .recorded import FAILING, SETTINGS, courses, evaluated, figures, replayed, results_of, run, script_of_all


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation by the plain method, in two epochs."""
    return evaluated(tmp_path_factory.mktemp("evals") / "plain", epochs=2)


# ---- what ran


def test_what_ran_decides_again_as_it_did_whatever_happened_to_it(tmp_path: Path) -> None:
    """Among others to a run that failed, one that loops, one in which nobody answers."""
    run(tmp_path / "out", epochs=2)
    results = read_results(tmp_path / "out")
    found = replayed(tmp_path / "out")
    assert (found.kind, found.problems, found.reproduced, found.variants) == ("evaluation", 8, 16, ())
    assert found.recorded.answer == results.answer
    assert found.recorded.tokens == sum(problem.tokens or 0 for problem in results.problems) / 8
    assert (found.recorded.same, found.recorded.tokens_ratio, found.recorded.steps_ratio) == (1, 1, 1)
    assert results.problems[FAILING].answer is None
    assert replay_lines(Replays(replays=(found,)))[1] == "as recorded: reproduced 16 of 16"


LIVE: list[dict[str, Any]] = [
    {"stop": ("consensus:.6",)},
    {"stop": ("bayes:.95",)},
    {"stop": ("bayes:1",)},
    {"select": "first"},
    {"select": "pooled"},
    {"select": "weighted:.5"},
    {"select": "pooled", "t": 1},
    {"select": "weighted"},
    {"select": "weighted:.5", "t": 0},
    {"select": "first", "stop": ("consensus:.7", "bayes:.9")},
    {"t": 1},
    {"t": 0},
    {"t": 1, "stop": ("bayes:.8",)},
    {"stop": ("decided",)},
    {"stop": ("bayes:.9", "decided")},
    {"t": 0, "stop": ("decided",)},
    {"t": 0, "stop": ("beta:.8",)},
    {"t": 0, "stop": ("decided", "beta:.95")},
    {"t": 0, "stop": ("beta:.9",), "select": "first"},
    {"waves": (2, 2, 4), "stop": ("decided",)},
    {"waves": (3, 5), "t": 0, "stop": ("beta:.8",)},
    {"waves": (1, 1, 1, 5), "t": 1},
    {"method": "auto"},
    {"stop": ("answered",)},
    {"select": "weighted", "stop": ("answered",)},
]


@pytest.mark.parametrize("changes", LIVE, ids=lambda changes: Variant(**changes).name)
def test_a_replay_is_what_a_live_evaluation_comes_to(plain: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    live = evaluated(tmp_path / "live", epochs=2, **changes)
    for course, result in zip(courses(plain, Variant(**changes)), results_of(live), strict=True):
        assert course.answer == result.answer
        assert course.decisions == result.decisions
        assert course.tokens == result.usage.completion_tokens
        for again, played in zip(course.rounds, result.rounds, strict=True):
            assert again.votes == played.votes
            assert again.statuses == played.statuses
    found = figures(plain, Variant(**changes))
    assert found.answer == read_results(live).answer
    assert replayed(live).recorded.tokens == found.tokens


@pytest.mark.parametrize(("ended", "known"), [(2, 0), (6, 2), (7, 5)])
def test_a_quorum_is_replayed_as_far_as_anybody_knows_what_was_answered(
    plain: Path, tmp_path: Path, ended: int, known: int
) -> None:
    variant = Variant(t=0, stop=(f"quorum:{ended}",))
    live = evaluated(tmp_path / "live", epochs=2, t=0, stop=variant.stop)
    assert replayed(live, variant).variants[0].same == 1
    pairs = list(zip(courses(plain, variant), results_of(live), strict=True))
    assert sum(not course.muted for course, _ in pairs) >= known
    for course, result in pairs:
        assert course.decisions == result.decisions
        if not course.muted:
            assert (course.answer, course.tokens) == (result.answer, result.usage.completion_tokens)
        candidates = list(zip(course.rounds[0].candidates, result.rounds[0].candidates, strict=True))
        for again, was in candidates:
            if again.status == "ok":
                assert (again.answer, again.completion.token_ids) == (was.answer, was.completion.token_ids)
            else:
                assert was.completion.forced
        assert course.muted == sum(again.status == "cut" for again, _ in candidates)
    found = figures(plain, variant)
    assert found.muted == sum(course.muted for course, _ in pairs) / 12
    if found.muted:
        told = replay_lines(anyio.run(partial(replay_folders, [plain], [variant])))
        assert any(line.startswith(f"note: {variant.name}: {found.muted:.1f} candidates a run") for line in told)
    with pytest.raises(ReplayError, match=r"had its candidates answer at \d+ tokens by quorum.*was never generated"):
        replayed(live, Variant(stop=()))


@pytest.mark.parametrize("stop", [("decided",), ("beta:.7",)])
def test_also_of_candidates_that_fail_or_repeat_themselves(tmp_path: Path, stop: tuple[str, ...]) -> None:
    def script(request: GenerationRequest) -> Script:
        told: Script = script_of_all(request)
        return dataclasses.replace(told, reasoning=f"{told.reasoning} {'so ' * (request.sampling.seed % 30)}")

    of: dict[str, Any] = {**SETTINGS, "t": 0}
    run(tmp_path / "plain", ScriptedEngine(script), **of)
    run(tmp_path / "live", ScriptedEngine(script), **of, stop=stop)
    assert replayed(tmp_path / "live").reproduced == 8
    lives = courses(tmp_path / "live", Variant())
    assert sum(bool(live.decisions) for live in lives) > 3
    for course, live in zip(courses(tmp_path / "plain", Variant(stop=stop)), lives, strict=True):
        assert (course.answer, course.decisions) == (live.answer, live.decisions)
        assert (course.tokens, course.failed) == (live.tokens, live.failed)


@pytest.mark.parametrize("select", ["aggregate", "tournament"])
def test_what_was_recorded_after_the_last_round_gives_the_answer(tmp_path: Path, select: str) -> None:
    folder = evaluated(tmp_path / "out", select=select, t=1)
    voted = evaluated(tmp_path / "voted", t=1)
    assert replayed(folder).recorded.answer == read_results(folder).answer
    found = figures(folder, Variant(select="vote"))
    assert found.answer == read_results(voted).answer
    assert found.tokens == replayed(voted).recorded.tokens < replayed(folder).recorded.tokens
    with pytest.raises(ReplayError, match=f"select = {select} needs the model: what was recorded follows round 1"):
        replayed(folder, Variant(t=0))


@pytest.mark.parametrize("tokens", [300, 700, 1100])
def test_a_run_that_met_a_limit_is_followed_as_far_as_that(tmp_path: Path, tokens: int) -> None:
    folder = evaluated(tmp_path / "out", limits={"total_tokens": tokens}, stop="consensus:.9")
    limited = sum(bool(result.limits_hit) for result in results_of(folder))
    assert limited > 2
    found = replayed(folder, Variant(select="first"), Variant(t=0))
    assert (found.reproduced, found.recorded.answer) == (6, read_results(folder).answer)
    assert found.notes[0].startswith(f"{limited} runs met a limit of tokens or time")


def test_rounds_that_were_cut_before_others_decide_again_as_they_did(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "out", stop="beta:.9", select="pooled")
    assert {decision.round for result in results_of(folder) for decision in result.decisions} == {0, 1, 2}
    assert replayed(folder).recorded.answer == read_results(folder).answer
    assert figures(folder, Variant(select="vote")).tokens_ratio == 1


# ---- what ran otherwise


def test_a_round_that_is_decided_gives_the_answer_of_the_whole_for_less(plain: Path) -> None:
    found = figures(plain, Variant(stop=("decided",)))
    assert found.same == 1
    assert found.difference is not None
    assert (found.difference.value, found.difference.se) == (0, 0)
    assert found.tokens_ratio < 1
    assert found.steps_ratio < 1
    assert found.stopped > 0.5
    for course, whole in zip(courses(plain, Variant(stop=("decided",))), courses(plain, Variant(stop=())), strict=True):
        assert course.answer == whole.answer
        assert (course.tokens < whole.tokens) == bool(course.decisions)


def test_sure_of_it_a_round_ends_sooner_and_another_answer_may_come(plain: Path) -> None:
    sure = [figures(plain, Variant(stop=(f"beta:{level}",), t=0)) for level in (1, 0.95, 0.8, 0.6)]
    tokens = [each.tokens or 0.0 for each in sure]
    assert tokens == sorted(tokens, reverse=True)
    assert len(set(tokens)) == 4
    assert sure[0].tokens == figures(plain, Variant(t=0)).tokens


def test_one_of_the_candidates_is_worth_their_mean(plain: Path) -> None:
    """As `single` measures it."""
    first = read_results(plain).rounds[0]
    for variant in (Variant(n=1, t=0), Variant(method="single")):
        found = figures(plain, variant)
        assert found.answer is not None
        assert found.answer.value == pytest.approx(first.mean.value)
        assert found.answer.se == pytest.approx(first.mean.se)
        assert found.tokens == pytest.approx(first.tokens / 8)
    assert figures(plain, Variant(method="vote")).answer == figures(plain, Variant(t=0)).answer


def test_all_of_the_candidates_are_the_round(plain: Path) -> None:
    whole, all_of_them = figures(plain, Variant(t=0)), figures(plain, Variant(t=0, n=8))
    assert all_of_them.model_copy(update={"name": "", "variant": None}) == whole.model_copy(
        update={"name": "", "variant": None}
    )


def test_more_candidates_cost_more_and_draws_are_the_same_whenever_they_are_made(plain: Path) -> None:
    found = [figures(plain, Variant(t=0, n=n), draws=30) for n in (2, 3, 4)]
    tokens = [each.tokens or 0.0 for each in found]
    assert tokens == sorted(tokens)
    assert figures(plain, Variant(t=0, n=3), draws=30) == found[1]
    assert all(each.answers is None for each in found)


def test_draws_are_every_subset_or_so_many() -> None:
    assert list(subsets(2, 4, 6, "p")) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    few = list(subsets(2, 4, 5, "p"))
    assert len(few) == 5
    assert all(first < second for first, second in few)
    assert few == list(subsets(2, 4, 5, "p")) != list(subsets(2, 4, 5, "q"))
    drawn = list(subsets(8, 64, 400, "p"))
    counts = [sum(index in chosen for chosen in drawn) for index in range(64)]
    # Each is in 50 on average, with a deviation of 6.6: 5 of them beyond for any of 64 is one case in 30,000.
    assert all(17 < count < 83 for count in counts)


def test_every_combination_is_a_variant() -> None:
    stops = [policies_of(written) for written in ("none", "decided, beta:.95")]
    assert [variant.name for variant in grid(stop=stops, t=[0, 1])] == [
        "t 0, stop none",
        "t 0, stop decided,beta:.95",
        "t 1, stop none",
        "t 1, stop decided,beta:.95",
    ]
    assert grid() == []
    assert grid(select=["vote", "vote"]) == [Variant(select="vote")]


def test_waves_begin_one_after_the_other(plain: Path) -> None:
    """An engine takes longer for them; policies may spare the later ones."""
    whole, waves = Variant(t=0, stop=("beta:.8",)), Variant(t=0, stop=("beta:.8",), waves=(2, 3, 3))
    at_once, after_each_other = figures(plain, whole), figures(plain, waves)
    assert after_each_other.tokens < at_once.tokens
    assert figures(plain, Variant(t=0, waves=(2, 3, 3))).steps > figures(plain, Variant(t=0)).steps
    assert figures(plain, Variant(t=0, waves=(8,))).steps == figures(plain, Variant(t=0)).steps
    with pytest.raises(RSAError, match="waves = 4,5 are 9 candidates, not n = 8"):
        replayed(plain, Variant(waves=(4, 5)))


# ---- what is told


def test_json_is_the_record(plain: Path) -> None:
    found = replayed(plain, *grid(stop=[("decided",), ()], t=[0, 2]))
    told = Replays(replays=(found,)).model_dump_json()
    assert Replays.model_validate_json(told).replays == (found,)
    assert [each["name"] for each in json.loads(told)["replays"][0]["variants"]] == [
        "t 0, stop decided",
        "t 0, stop none",
        "t 2, stop decided",
        "t 2, stop none",
    ]


def test_evaluations_have_a_table_each_and_runs_one_together(plain: Path) -> None:
    runs = sorted((plain / RUNS).iterdir())[:3]
    found = anyio.run(partial(replay_folders, [runs[0], plain, *runs[1:]], [Variant(t=0)]))
    assert [(each.kind, each.reproduced) for each in found.replays] == [("evaluation", 12), ("runs", 3)]
    lines = replay_lines(found)
    assert lines[0].startswith(f"thirds, rsa, in {plain}: 6 problems; the runs' answers")
    assert lines[3].split()[:2] == ["as", "recorded"]
    assert [line.split()[-1] for line in lines if line.startswith("as recorded ")] == ["1.00", "1.00"]


def test_a_report_has_the_replay_that_is_kept_as_long_as_it_is_of_its_results(plain: Path) -> None:
    folder = copy_of(plain)
    before = write_report(folder).read_bytes()
    found = replayed(folder, Variant(stop=("decided",)))
    assert keep(found) == folder
    page = write_report(folder).read_text()
    assert "Decided otherwise" in page
    assert found.variants[0].tokens_ratio is not None
    assert f"<td>{100 * found.variants[0].tokens_ratio:.1f}%</td>" in page
    (folder / REPLAY).write_bytes((folder / REPLAY).read_bytes().replace(b'"draws": 200', b'"draws": 201'))
    with pytest.raises(RSAError, match=r"replay\.json is not what was written there"):
        write_report(folder)
    keep(found.model_copy(update={"candidates_digest": "of others"}))
    assert write_report(folder).read_bytes() == before == (folder / REPORT).read_bytes()
