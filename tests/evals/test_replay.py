"""Evaluations decided again: as they were, as live ones with other settings were, and not what was never generated."""

from __future__ import annotations

import dataclasses
import json
import random
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from sealed import content, copy_of

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from evals.errors import ReplayError
from evals.folder import RUNS, read_results, run_name
from evals.replay.deciding import Course, Remembering, replay
from evals.replay.drawing import subsets
from evals.replay.figures import Figures, Replayed, Replays
from evals.replay.keeping import REPLAY, keep
from evals.replay.recording import RecordedEval, RecordedRun
from evals.replay.replaying import replay_folders
from evals.replay.table import replay_lines
from evals.replay.variants import Variant, grid, policies_of
from evals.report import REPORT, write_report
from rsa import MarkovianRSA, RSAError
from rsa.answers.math_pool import MathWorkers
from rsa.results import RunResult
from rsa.runlog import read_result

_CHILD = runpy.run_path(str(Path(__file__).with_name("eval_child.py")))
run, script_of_all, benchmark = (_CHILD[name] for name in ("run", "script", "benchmark"))
FAILING = _CHILD["FAILING"]
SETTINGS: dict[str, Any] = {"n": 8, "c": 2, "t": 2, "answer_budget": 32, "confidence": "summary"}


def script(request: GenerationRequest) -> Script:
    """Candidates of all lengths, which agree more from round to round; some give no answer."""
    rng = random.Random(request.sampling.seed)
    agreed = rng.random() < {"r0": 0.5, "r1": 0.7}.get(request.id[:2], 0.9)
    answer = "1" if agreed else str(rng.randrange(4))
    text = "who knows" if rng.random() < 0.1 else rf"\boxed{{{answer}}}"
    return Script(" ".join(["so"] * rng.randint(1, 60)), text)


def evaluated(folder: Path, **settings: Any) -> Path:
    """By a model that nobody has vouched for, so that `auto` decides."""
    run(folder, ScriptedEngine(script, aggregates=None), of=benchmark(6), **{**SETTINGS, **settings})
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation by the plain method, in two epochs."""
    return evaluated(tmp_path_factory.mktemp("evals") / "plain", epochs=2)


def replayed(folder: Path, *variants: Variant, **more: Any) -> Replayed:
    found: Replays = anyio.run(partial(replay_folders, [folder], variants, **more))
    (only,) = found.replays
    return only


def figures(folder: Path, variant: Variant, **more: Any) -> Figures:
    (only,) = replayed(folder, variant, **more).variants
    return only


def courses(folder: Path, variant: Variant) -> list[Course]:
    async def main() -> list[Course]:
        async with MathWorkers() as math:
            runs = [run for runs in RecordedEval(folder).problems() for run in runs]
            return [await replay(run, variant, Remembering(run.result.config.task, math)) for run in runs]

    return anyio.run(main)


def results_of(folder: Path) -> list[RunResult]:
    """What the runs of an evaluation came to, in order."""
    results = read_results(folder)
    return [
        read_result(folder / RUNS / run_name(problem.id, epoch))
        for problem in results.problems
        for epoch in range(results.epochs)
    ]


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


# ---- what cannot be said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"t": 3}, "t = 3 is more than was generated, which is t = 2"),
        ({"n": 9, "t": 0}, "n = 9 is more than was generated, which is n = 8"),
        ({"n": 4}, "n = 4 of 8 is for round 0 alone"),
        ({"n": 0, "t": 0}, "n = 0: should be greater than or equal to 1"),
        ({"select": "aggregate"}, "select = aggregate needs the model: select = vote was recorded"),
        ({"select": "tournament"}, "select = tournament needs the model: select = vote was recorded"),
        ({"stop": ("often",)}, "stop = 'often': no policy is called so"),
        ({"stop": ("decided",), "select": "first"}, "stop = decided is for select = vote"),
        ({"method": "markovian"}, "method = markovian has c = 1, and c = 2 was recorded"),
        ({"method": "full-rsa"}, "method = full-rsa has carry = full, and carry = reasoning was recorded"),
        ({"method": "vote", "t": 1}, "t = 1 contradicts method = vote"),
        ({"stop": ("beta:.6",)}, ": beta:.6 ends round 0 at "),
    ],
)
def test_what_was_never_generated_is_refused_in_a_line(plain: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RSAError) as caught:
        replayed(plain, Variant(**changes))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_confidence_that_was_not_recorded_is_said_in_a_line(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "out", confidence="none")
    with pytest.raises(RSAError, match="select = weighted needs the candidates' confidence, which was not recorded"):
        replayed(folder, Variant(select="weighted"))


def test_what_came_after_the_end_of_a_run_was_never_generated(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "out", stop="consensus:.5")
    assert any(result.decisions for result in results_of(folder))
    assert replayed(folder, Variant(stop=("consensus:.25",))).recorded.answer == read_results(folder).answer
    with pytest.raises(ReplayError, match=r"ended after round \d by consensus:.5: what came after was never generated"):
        replayed(folder, Variant(stop=()))


def test_what_came_after_a_cut_was_never_generated(plain: Path, tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "out", t=0, stop="beta:.9", epochs=2)
    assert replayed(folder).recorded.stopped >= 0.5
    sooner = Variant(stop=("beta:.7",))
    assert figures(folder, sooner).answer == figures(plain, sooner.model_copy(update={"t": 0})).answer
    for variant in (Variant(stop=()), Variant(stop=("decided",))):
        with pytest.raises(ReplayError, match=r"round 0 was cut at \d+ tokens by beta:.9: what came after was never"):
            replayed(folder, variant)
    with pytest.raises(ReplayError, match=r"n = 4: round 0 was ended early by beta:.9, for all 8 candidates"):
        replayed(folder, Variant(n=4))


def test_waves_begin_one_after_the_other(plain: Path) -> None:
    """An engine takes longer for them; policies may spare the later ones."""
    whole, waves = Variant(t=0, stop=("beta:.8",)), Variant(t=0, stop=("beta:.8",), waves=(2, 3, 3))
    at_once, after_each_other = figures(plain, whole), figures(plain, waves)
    assert after_each_other.tokens < at_once.tokens
    assert figures(plain, Variant(t=0, waves=(2, 3, 3))).steps > figures(plain, Variant(t=0)).steps
    assert figures(plain, Variant(t=0, waves=(8,))).steps == figures(plain, Variant(t=0)).steps
    with pytest.raises(RSAError, match="waves = 4,5 are 9 candidates, not n = 8"):
        replayed(plain, Variant(waves=(4, 5)))


def test_other_waves_of_a_round_that_was_cut_were_never_generated(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "out", t=0, stop="beta:.8", waves="2,3,3")
    assert any(
        candidate.completion is None for result in results_of(folder) for candidate in result.rounds[0].candidates
    )
    assert replayed(folder).reproduced == 6
    with pytest.raises(ReplayError, match="round 0 was ended early, and not all of it was generated for other waves"):
        replayed(folder, Variant(waves=(4, 4)))


def test_after_a_wave_that_was_made_to_answer_nothing_is_decided_otherwise(tmp_path: Path) -> None:
    """Later waves count its answers, which are not those that it would have given by itself."""
    folder = evaluated(tmp_path / "out", t=0, stop="quorum:1", waves="4,4")

    async def refused(run: RecordedRun) -> bool:
        async with MathWorkers() as math:
            try:
                await replay(run, Variant(stop=("decided",)), Remembering(run.result.config.task, math))
            except ReplayError:
                return True
        return False

    def made_to_answer(run: RecordedRun) -> bool:
        (decision,) = run.result.decisions
        assert (decision.wave, decision.action) == ((0, 4), "conclude")
        completions = [each.completion for each in run.result.rounds[0].candidates[:4]]
        return any(each.usage.completion_tokens > (decision.at or 0) for each in completions if each)

    runs = [run for runs in RecordedEval(folder).problems() for run in runs]
    assert {(made_to_answer(run), anyio.run(refused, run)) for run in runs} == {(False, False), (True, True)}


def test_rounds_that_were_cut_before_others_decide_again_as_they_did(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "out", stop="beta:.9", select="pooled")
    assert {decision.round for result in results_of(folder) for decision in result.decisions} == {0, 1, 2}
    assert replayed(folder).recorded.answer == read_results(folder).answer
    assert figures(folder, Variant(select="vote")).tokens_ratio == 1


def test_how_sure_candidates_were_must_have_been_recorded(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "out", t=0, confidence="none")
    with pytest.raises(ReplayError, match="select = weighted needs the candidates' confidence, which was not recorded"):
        replayed(folder, Variant(select="weighted"))


def test_rounds_that_wrote_no_answers_cannot_be_asked_for_them(tmp_path: Path) -> None:
    """A run of `rsa solve` has answers of its last round alone."""

    async def main() -> None:
        await MarkovianRSA(ScriptedEngine(script), **SETTINGS).solve("why?", out=tmp_path / "run")

    anyio.run(main)
    found = replayed(tmp_path / "run", Variant(stop=("decided",)), Variant(select="first"))
    assert (found.kind, found.problems, found.reproduced) == ("runs", 1, 1)
    assert (found.recorded.answer, found.recorded.answers) == (None, (read_result(tmp_path / "run").answer,))
    assert found.variants[0].answers == found.recorded.answers
    for variant, says in [
        (Variant(t=1), "t = 1 needs answers of round 1, which wrote none"),
        (Variant(stop=("bayes:.9",)), "stop = bayes:.9 needs answers of round 0, which wrote none"),
    ]:
        with pytest.raises(ReplayError, match=says):
            replayed(tmp_path / "run", variant)


def _without(name: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        next(folder.glob(f"{RUNS}/p-0-*/{name}")).unlink()

    return harm


def _reworded(folder: Path) -> None:
    path = next(folder.glob(f"{RUNS}/p-0-*/result.json"))
    result = json.loads(content(path))
    path.write_text(json.dumps({**result, "answer": "7"}))


@pytest.mark.parametrize(
    ("harm", "trust", "says"),
    [
        (_without("scores.json"), False, "has no scores.json: what each run generated must still be there"),
        (_without("result.json"), False, "has no result.json: what each run generated must still be there"),
        (_reworded, False, "result.json has no digest"),
        (_reworded, True, "does not reproduce itself: its answer: '7' is recorded, '1' follows"),
        (lambda folder: (folder / "results.json").unlink(), False, "holds no finished evaluation"),
    ],
)
def test_a_record_that_is_not_whole(plain: Path, harm: Callable[[Path], None], trust: bool, says: str) -> None:
    folder = copy_of(plain)
    harm(folder)
    with pytest.raises(RSAError) as caught:
        replayed(folder, trust=trust)
    assert says in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(("name", "says"), [("nowhere", "there is no folder"), (".", "nothing to replay in")])
def test_a_folder_that_holds_nothing(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(RSAError, match=says):
        replayed(tmp_path / name)


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
