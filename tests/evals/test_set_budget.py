"""One budget for all problems of an evaluation: who plays on is decided by rounds alone, whatever happens meanwhile."""

from __future__ import annotations

import runpy
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_requests import png

from engine.api import GenerationRequest, ImagePart
from engine.errors import EngineClosedError
from engine.scripted import Script, ScriptedEngine
from evals.budget import most_tokens
from evals.comparison import compare
from evals.data.benchmarks import Benchmark
from evals.data.question import Question
from evals.errors import OtherEvalError
from evals.events import EvalEvent, LapStarted, RunEnded
from evals.rescoring import rescore
from evals.results import EvalResults
from evals.stints import RoundPlayed, ended
from rsa import ConfigError, RSAConfig
from rsa.digests import seal
from rsa.runlog import read_result

_CHILD = runpy.run_path(str(Path(__file__).with_name("eval_child.py")))
run, written, Exactly, Dying = (_CHILD[name] for name in ("run", "written", "Exactly", "Dying"))
PROBLEMS, ROUNDS = 6, 4
SMALL: dict[str, Any] = {"n": 4, "c": 2, "t": ROUNDS - 1, "beta": 60, "tau": 16, "answer_budget": 20, "seed": 3}
MOST = most_tokens(RSAConfig(**SMALL))


def asked(count: int = PROBLEMS, *, images: bool = False) -> list[Question]:
    return [
        Question(
            id=f"q{i}",
            problem=f"what is number {i}?",
            gold="1",
            images=(ImagePart(data=png(i, width=8, height=8)),) if images else (),
        )
        for i in range(count)
    ]


def benchmark(count: int = PROBLEMS, **more: Any) -> Benchmark:
    return Benchmark(name="ones", metric=Exactly(), questions=asked(count, **more))


def script(request: GenerationRequest) -> Script:
    """The more even the number of the problem, the longer it is thought about, and the sooner candidates agree."""
    number = int(request.messages[-1].text.split("number ")[1].split("?")[0])
    answer = 1 if number % 3 == 0 else 1 + request.sampling.seed % (2 + number % 2)
    return Script("x" * (5 + 7 * (number % 4) + request.sampling.seed % 9), rf"\boxed{{{answer}}}")


def measured(folder: Path, engine: Any = None, **more: Any) -> EvalResults:
    results: EvalResults = run(folder, engine or ScriptedEngine(script), **{"of": benchmark(), **SMALL, **more})
    return results


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All rounds of all problems until their candidates agree; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("evals") / "unlimited"
    measured(folder, stop="consensus:1")
    return folder


def played(folder: Path) -> dict[str, tuple[RoundPlayed, ...]]:
    """The rounds of each problem."""
    results = (read_result(path) for path in (folder / "runs").iterdir() if (path / "result.json").exists())
    return {result.problem_id: ended(result).rounds for result in results}


def one_after_the_other(rounds: dict[str, tuple[RoundPlayed, ...]], total: int) -> dict[str, int]:
    """What a budget must give to each: the rule of `evals.allotment`, by somebody who waits for each round."""
    given = dict.fromkeys(sorted(rounds), 0)
    while going := [problem for problem in given if given[problem] < len(rounds[problem])]:
        for problem in sorted(going, key=lambda problem: _agreeing(rounds[problem], given[problem])):
            if total < MOST:
                return given
            total -= rounds[problem][given[problem]].tokens
            given[problem] += 1
    return given


def _agreeing(rounds: tuple[RoundPlayed, ...], given: int) -> int:
    return rounds[given - 1].leader if given else 0


# ---- what is shared out


@pytest.mark.parametrize("total", [MOST, 800, 1100, 1500, 1900, 10**6])
def test_it_goes_to_those_that_agree_least_and_is_never_exceeded(unlimited: Path, tmp_path: Path, total: int) -> None:
    results = measured(tmp_path, total_tokens=total)
    wanted = one_after_the_other(played(unlimited), total)
    assert {problem.id: len(problem.means) for problem in results.problems} == wanted
    assert results.budget is not None
    assert results.budget.tokens == results.usage.completion_tokens <= total
    assert sum(results.budget.ended.values()) == PROBLEMS
    assert results.budget.ended.get("unbegun", 0) == sum(not rounds for rounds in wanted.values())
    if total == 10**6:
        assert results.budget.ended.keys() == {"finished", "policy"}
        assert results.problems == measured(tmp_path / "again", stop="consensus:1").problems
    if results.budget.ended.keys() & {"set_tokens", "unbegun"}:
        assert total - results.usage.completion_tokens < MOST


def test_the_cases_are_what_they_are_meant_to_be(unlimited: Path) -> None:
    """Some agree at once, others later or never: else the tests above would show nothing."""
    rounds = {problem: len(of) for problem, of in played(unlimited).items()}
    assert set(rounds.values()) >= {1, ROUNDS}
    assert len({each[0].leader for each in played(unlimited).values()}) >= 3
    shared = [sum(one_after_the_other(played(unlimited), total).values()) for total in (MOST, 1100, 1500, 1900)]
    assert 0 < shared[0] < shared[1] < shared[2] < shared[3] < sum(rounds.values())


@settings(max_examples=15)
@given(total=st.integers(MOST, 2400), in_flight=st.integers(1, 8), breaks=st.lists(st.integers(1, 40), max_size=3))
def test_neither_what_runs_at_once_nor_where_it_broke_changes_a_byte(
    unlimited: Path, total: int, in_flight: int, breaks: list[int]
) -> None:
    wanted = one_after_the_other(played(unlimited), total)
    with TemporaryDirectory() as folder:
        measured(Path(folder, "alone"), total_tokens=total, in_flight=1)
        for completions in breaks:
            with suppress(EngineClosedError):
                dying = Dying(completions, script)
                measured(Path(folder, "broken"), dying, total_tokens=total, in_flight=3, resume=True)
        results = measured(Path(folder, "broken"), total_tokens=total, in_flight=in_flight, resume=True)
        assert {problem.id: len(problem.means) for problem in results.problems} == wanted
        assert written(Path(folder, "broken")) == written(Path(folder, "alone"))


def test_nothing_is_generated_twice_for_all_the_pauses(tmp_path: Path) -> None:
    engine = ScriptedEngine(script)
    results = measured(tmp_path, engine, total_tokens=1500, epochs=2)
    seeds = [request.sampling.seed for request in engine.requests]
    assert len(set(seeds)) == len(seeds)
    present = sum(stats.present for stats in results.rounds)
    assert len(seeds) == present
    again = ScriptedEngine(script)
    measured(tmp_path, again, total_tokens=1500, epochs=2, resume=True)
    assert again.requests == []


def test_images_are_there_in_every_round(tmp_path: Path) -> None:
    engine = ScriptedEngine(script, images=True)
    measured(tmp_path, engine, of=benchmark(images=True), total_tokens=1500)
    later = [request for request in engine.requests if not request.id.startswith("r0")]
    assert later
    for request in engine.requests:
        (image,) = [image for message in request.messages for image in message.images]
        assert image in {image for question in asked(images=True) for image in question.images}


# ---- an even split


def test_at_equal_tokens_it_solves_more_than_an_even_split(tmp_path: Path) -> None:
    """Two of three problems are decided at once, the third takes three rounds: an even split pays for two of each."""

    def slowly(request: GenerationRequest) -> Script:
        number = int(request.messages[-1].text.split("number ")[1].split("?")[0])
        solved = number % 3 != 0 or request.id >= "r2"
        return Script("x" * 40, rf"\boxed{{{1 if solved else 2 + request.sampling.seed % 5}}}")

    engine, total = ScriptedEngine(slowly), 6 * 2 * 4 * 60
    together = measured(tmp_path / "together", engine, total_tokens=total)
    limits = {"limits": {"total_tokens": total // PROBLEMS}, "stop": "consensus:1"}
    evenly = measured(tmp_path / "evenly", engine, **limits)
    assert together.usage.completion_tokens <= total
    assert evenly.usage.completion_tokens <= total + PROBLEMS * SMALL["n"] * engine.tokens_per_step
    assert (together.mean.value, evenly.mean.value) == (1.0, pytest.approx(4 / 6))
    compared = compare(tmp_path / "evenly", tmp_path / "together")
    assert compared.headline.difference.value == pytest.approx(2 / 6)
    assert any(note.startswith("the second: Budget of all problems together: 2,880 tokens") for note in compared.notes)


# ---- time


def test_at_the_deadline_runs_answer_and_what_was_not_begun_counts_for_nothing(tmp_path: Path) -> None:
    held = ScriptedEngine(lambda request: Script("x", r"\boxed{1}", held=True))
    results = measured(tmp_path, held, deadline_s=0.3, in_flight=2)
    assert results.budget is not None
    assert results.budget.ended == {"set_deadline_s": 2, "unbegun": PROBLEMS - 2}
    assert (results.mean.value, results.mean.problems) == (1.0, 2)
    assert [problem.value for problem in results.problems] == [1.0, 1.0, None, None, None, None]
    assert results.warnings[0] == f"the budget did not reach {PROBLEMS - 2} of {PROBLEMS} runs, which no figure counts"


def test_time_before_a_resume_counts_and_what_had_begun_ends_in_an_answer(unlimited: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineClosedError):
        measured(tmp_path, Dying(6, script), deadline_s=3600, in_flight=3)
    begun = {path.name for path in (tmp_path / "runs").iterdir()}
    assert 0 < len(begun) < PROBLEMS
    (tmp_path / "progress.json").write_bytes(seal(b'{"spent_s":3590.0}').data)
    engine = ScriptedEngine(script)
    results = measured(tmp_path, engine, deadline_s=3600, resume=True)
    assert results.budget is not None
    assert results.budget.ended["unbegun"] == PROBLEMS - len(begun)
    assert sum(problem.answer is not None for problem in results.problems) == len(begun)
    assert {request.id[:2] for request in engine.requests} == {"r0"}, "no round was begun any more"


# ---- what is kept and told


@pytest.mark.parametrize("total", [800, 1500])
def test_scored_again_it_writes_the_same_bytes(tmp_path: Path, total: int) -> None:
    measured(tmp_path, total_tokens=total)
    before = written(tmp_path)

    async def again() -> None:
        await rescore(tmp_path, benchmark=benchmark())

    anyio.run(again)
    assert written(tmp_path) == before


def test_what_is_told_on_the_way(tmp_path: Path) -> None:
    events: list[EvalEvent] = []
    results = measured(tmp_path, total_tokens=1500, on_event=events.append)
    laps = [event for event in events if isinstance(event, LapStarted)]
    assert [lap.round for lap in laps] == list(range(len(laps)))
    assert (laps[0].runs, laps[0].left) == (PROBLEMS, 1500)
    assert [lap.left for lap in laps] == sorted((lap.left or 0 for lap in laps), reverse=True)
    scored = [event.scores.problem_id for event in events if isinstance(event, RunEnded)]
    assert sorted(scored) == [question.id for question in asked()]
    assert results.budget is not None
    assert "Budget of all problems together: 1,500 tokens, shared out round by round." in results.protocol
    assert results.budget.ends.startswith(f"{results.usage.completion_tokens:,} tokens were spent; of 6 runs ")


def test_the_budget_of_a_folder_is_part_of_what_it_is(tmp_path: Path) -> None:
    measured(tmp_path, total_tokens=1500)
    with pytest.raises(OtherEvalError, match=r"Different: budget: \{'total_tokens': 1500"):
        measured(tmp_path, total_tokens=1600, resume=True)


MISTAKES = [
    ({"total_tokens": 0}, "total_tokens = 0: should be greater than or equal to 1"),
    ({"total_tokens": "lots"}, "total_tokens: 'lots' is no size"),
    ({"deadline_s": -1}, "deadline_s = -1: should be greater than 0"),
    ({"deadline_s": float("nan")}, "deadline_s = nan: should be a finite number"),
    ({"total_tokens": MOST - 1}, f"less than a round of one problem may take: {MOST}"),
    ({"total_tokens": 10**6, "method": "vote", "t": 0, "c": 1}, "t = 0 has but one: limit each problem"),
    ({"total_tokens": 10**6, "shard": "1/2"}, "cannot be shared out among shards"),
    ({"total_tokens": 10**6, "answers": "final", "stop": ()}, "answers = final"),
]


@pytest.mark.parametrize(("wrong", "message"), MISTAKES)
def test_what_cannot_be_shared_out_is_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        measured(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
