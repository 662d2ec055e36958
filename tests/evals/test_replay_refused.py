"""What a replay cannot say: what was never generated, what was not recorded, records that are not whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from sealed import content, copy_of

from engine.scripted import ScriptedEngine
from evals.errors import ReplayError
from evals.folder import RUNS, read_results
from evals.replay.deciding import Remembering, replay
from evals.replay.recording import RecordedEval, RecordedRun
from evals.replay.variants import Variant
from rsa import MarkovianRSA, RSAError
from rsa.answers.math_pool import MathWorkers
from rsa.runlog import read_result

from .recorded import SETTINGS, evaluated, figures, replayed, results_of, script


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation by the plain method, in two epochs."""
    return evaluated(tmp_path_factory.mktemp("evals") / "plain", epochs=2)


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
