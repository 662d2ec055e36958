"""Tuning from end to end on the scripted engine: rounds that help and that harm, resumed, with little to spend."""

from __future__ import annotations

import random
import re
import runpy
import shutil
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import anyio
import pytest
from sealed import content

from engine.api import GenerationRequest
from engine.errors import EngineClosedError
from engine.script import Script
from engine.scripted import ScriptedEngine
from evals.errors import DataError, EvalError
from evals.folder import read_eval, read_results
from evals.replay.replaying import replay_folders
from evals.replay.variants import Variant
from evals.tuning.page import write_page
from evals.tuning.profile import write_profile
from evals.tuning.records import PROFILE, RECORDINGS, TUNED, read_asked, read_tuned
from evals.tuning.space import _WITHOUT_ROUNDS
from evals.tuning.table import tuned_lines, unbeaten
from rsa.errors import ConfigError
from rsa.settings.profiles import load_config

from .tunings import HARMS, HELPS, asked, play, rows, tuned

_CHILD = runpy.run_path(str(Path(__file__).with_name("eval_child.py")))
Dying = _CHILD["Dying"]


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuning of a model that rounds help."""
    folder = tmp_path_factory.mktemp("tunings") / "helped"
    tuned(asked(rows(folder.parent)), folder, HELPS)
    return folder


class Balanced(HTMLParser):
    """Reads a page; `open` are the tags that nobody closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """It is closed."""


# ---- what comes out


def test_rounds_are_found_where_they_help(helped: Path) -> None:
    found = read_tuned(helped)
    assert (found.profile["n"], found.profile["t"]) == (4, 1)
    assert found.decided
    assert found.trial("n 4, t 0, beta 64").answer.value == pytest.approx(0.5, abs=0.3)
    assert found.checked is not None
    prediction, check = found.trial(found.chosen), found.checked
    assert check.answer.low is not None
    assert check.answer.high is not None
    assert prediction.answer.value is not None
    assert check.answer.low <= prediction.answer.value <= check.answer.high
    assert check.tokens == pytest.approx(prediction.tokens, rel=0.1)


def test_none_are_where_they_harm(tmp_path: Path) -> None:
    found = tuned(asked(rows(tmp_path)), tmp_path / "out", HARMS)
    assert (found.decided, found.profile["t"]) == (True, 0)
    assert (found.gain.low or 0.0) > 0
    assert found.tokens < 0.7 * found.trial(found.start).tokens


def test_the_check_is_an_evaluation_with_the_profile_on_other_problems(helped: Path) -> None:
    found = read_tuned(helped)
    assert found.checked is not None
    check = read_results(helped / found.checked.folder)
    assert (check.answer, len(check.problems)) == (found.checked.answer, found.checked.problems)
    recorded = {problem.id for each in recordings(helped) for problem in read_results(each).problems}
    checking = {problem.id for problem in check.problems}
    assert checking
    assert not recorded & checking
    assert len(recorded) == found.problems
    profile = load_config(str(helped / PROFILE)) if (helped / PROFILE).exists() else None
    wanted = load_config(None, {**found.profile, "task": "math", "answers": "every"})
    assert not check.config.differences(
        wanted.replace(temperature=0.7, top_p=0.95, top_k=0, min_p=0.0, confidence="summary")
    )
    assert profile is None or not profile.differences(load_config(None, found.profile))


def test_a_profile_is_read_back_as_it_was_chosen(helped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(helped, folder)
    found, wish = read_tuned(folder), read_asked(folder)
    path = write_profile(folder, wish, found)
    assert not load_config(str(path)).differences(load_config(None, found.profile))
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("Expected accuracy" in line for line in comments)
    assert any(f"rsa tune --resume {folder}" in line for line in comments)


def recordings(folder: Path) -> list[Path]:
    return sorted((folder / RECORDINGS).glob("*/*"))


def test_recordings_are_evaluations_like_any_other(helped: Path) -> None:
    """They replay, and their figures are those of the tuning."""
    found = read_tuned(helped)
    (first,) = (helped / RECORDINGS / found.families[0].name).glob("1-8")
    replays = anyio.run(partial(replay_folders, [first], [Variant(t=0)]))
    assert replays.replays[0].reproduced == 8
    assert Path(read_eval(first).source.benchmark or "").is_file()
    tokens = [read_results(folder).usage.completion_tokens for folder in recordings(helped)]
    assert found.checked is not None
    assert found.spent == sum(tokens) + read_results(helped / found.checked.folder).usage.completion_tokens
    assert found.spent <= found.budget


def test_rungs_double_and_halve(helped: Path) -> None:
    found = read_tuned(helped)
    assert [rung.problems for rung in found.rungs] == [8, 16, 32, 40]
    for rung, following in zip(found.rungs, found.rungs[1:], strict=False):
        assert [place.family for place in following.families] == list(rung.kept)
        assert found.families[0].name in rung.kept
    assert {trial.problems for trial in found.trials if trial.stands} == {40}


def test_settings_that_are_the_same_run_are_told_once(helped: Path) -> None:
    names = [trial.name for trial in read_tuned(helped).trials]
    assert len(set(names)) == len(names)
    whole = [name for name in names if name.startswith("n 4, t 0")]  # not once for each c
    assert len(whole) == len(_WITHOUT_ROUNDS)


def test_a_line_joins_what_no_cheaper_settings_beat(helped: Path) -> None:
    front = unbeaten(read_tuned(helped).trials)
    assert len(front) > 1
    values = [trial.answer.value or 0.0 for trial in front]
    tokens = [trial.tokens for trial in front]
    assert values == sorted(set(values))
    assert tokens == sorted(tokens)


def test_the_page_and_the_table_say_what_was_chosen(helped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(helped, folder)
    found = read_tuned(folder)
    write_profile(folder, read_asked(folder), found)
    page = write_page(folder, found).read_text()
    assert page.startswith("<!doctype html>")
    assert all(sentence.split(":")[0] in page for sentence in found.conclusion)
    assert page.count("<tr><th") >= len(found.trials)
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert Balanced(page).open == []
    assert page == write_page(folder, found).read_text()
    lines = tuned_lines(found)
    assert any(line.startswith("chosen") and found.chosen in line for line in lines)
    assert set(found.conclusion) <= set(lines)


# ---- the way there


@pytest.mark.parametrize("completions", [30, 200, 500])
def test_a_tuning_that_broke_off_goes_on_to_the_same(helped: Path, tmp_path: Path, completions: int) -> None:
    wish = read_asked(helped)
    with pytest.raises(EngineClosedError):
        tuned(wish, tmp_path / "out", HELPS, Dying(completions, HELPS))
    assert not (tmp_path / "out" / TUNED).exists()
    tuned(wish, tmp_path / "out", HELPS)
    assert content(tmp_path / "out" / TUNED) == content(helped / TUNED)


def test_a_tuning_that_is_done_generates_nothing_more(helped: Path, tmp_path: Path) -> None:
    shutil.copytree(helped, tmp_path / "out")
    engine = ScriptedEngine(HELPS)
    again = tuned(read_asked(helped), tmp_path / "out", HELPS, engine)
    assert again == read_tuned(helped)
    assert engine.requests == []


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(helped: Path, tmp_path: Path) -> None:
    large = read_asked(helped)
    small = large.model_copy(update={"budget": 12_000})
    first = tuned(small, tmp_path / "out", HELPS)
    assert first.problems < 40
    assert first.spent <= small.budget
    tuned(large, tmp_path / "out", HELPS)
    assert content(tmp_path / "out" / TUNED) == content(helped / TUNED)


def test_what_a_policy_would_have_had_written_counts_as_nothing_and_is_told(tmp_path: Path) -> None:
    def script(request: GenerationRequest) -> Script:
        return Script(" ".join(["so"] * random.Random(request.sampling.seed).randint(1, 150)), r"\boxed{1}")

    axes = {"n": (4,), "c": (2,), "beta": (512,), "tau": (32,)}
    found = tuned(asked(rows(tmp_path, 16), axes=axes, stops=(("quorum:1",),)), tmp_path / "out", script)
    assert any("stop quorum:1" in note and "count as without an answer" in note for note in found.notes)
    assert len(set(found.notes)) == len(found.notes)


def test_a_budget_that_ends_at_once_says_how_much_it_takes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`budget` = 4000 ended before 2 families .* give about [\d,]+, or fewer"):
        tuned(asked(rows(tmp_path), budget=4000), tmp_path / "out", HELPS)


def test_a_sample_that_is_too_small_keeps_what_one_started_from(tmp_path: Path) -> None:
    found = tuned(asked(rows(tmp_path, 16)), tmp_path / "out", play(0.75, 0.8))
    assert not found.decided
    assert found.profile["t"] == 1
    assert "cannot tell them apart" in found.conclusion[0]


def test_another_tuning_does_not_go_on_in_its_folder(helped: Path, tmp_path: Path) -> None:
    shutil.copytree(helped, tmp_path / "out")
    wish = read_asked(helped)
    with pytest.raises(EvalError, match="holds another tuning"):
        tuned(wish.model_copy(update={"settings": {"t": 0}}), tmp_path / "out", HELPS)


# ---- mistakes


@pytest.mark.parametrize(
    ("count", "changes", "says"),
    [
        (3, {}, "3 problems cannot tell settings apart: give 16 at least"),
        (80, {"limit": 12}, "12 problems cannot tell settings apart"),
        (80, {"budget": "0"}, "budget = 0: should be greater"),
        (80, {"budget": "much"}, "'much' is no size"),
        (80, {"axes": {"n": (4,), "c": (8,)}}, "c = 8 is more than n = 4"),
        (80, {"axes": {"temperature": (1,)}}, "axes = temperature"),
        (80, {"settings": {"carry": "full"}}, "carry = full contradicts method = rsa"),
        (80, {"settings": {"limits": {"total_tokens": 500}}}, "would end what is recorded early"),
        (80, {"stops": (("often",),)}, "stop = 'often': no policy is called so"),
        (80, {"selects": ("vot",)}, "select = 'vot': no policy is called so"),
        (80, {"selects": ("aggregate",)}, "select = aggregate cannot be tried"),
        (80, {"tokens_per_problem": "x"}, "'x' is no size"),
        (80, {"metric": "maths"}, "metric"),
        (80, {"benchmark": "chain", "metric": "math"}, "the benchmark says how"),
        (80, {"profile": "papr-8k"}, "papr-8k"),
    ],
)
def test_mistakes_are_told_before_anything_is_generated(
    tmp_path: Path, count: int, changes: dict[str, Any], says: str
) -> None:
    engine = ScriptedEngine(HELPS)
    with pytest.raises((ConfigError, EvalError)) as caught:
        tuned(asked(rows(tmp_path, count), **changes), tmp_path / "out", HELPS, engine)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert engine.requests == []


STARTS: list[tuple[bool | None, str, str]] = [
    (True, "", "n 4, c 2, t 1, beta 64, tau 32"),
    (False, "", "n 4, t 0, beta 64"),
    (None, "", "n 4, c 2, t 1, beta 64, tau 32, stop answered"),
    (None, 'stop = "bayes:.9"', "n 4, c 2, t 1, beta 64, tau 32, stop bayes:.9"),
    (False, 'select = "pooled"', "n 4, c 2, t 1, beta 64, tau 32, select pooled"),
]


@pytest.mark.parametrize(("aggregates", "profile", "start"), STARTS)
def test_where_one_starts_from(tmp_path: Path, aggregates: bool | None, profile: str, start: str) -> None:
    """From what a run comes to unless anybody says how rounds are to be played."""
    engine = ScriptedEngine(HELPS, aggregates=aggregates)
    (tmp_path / "mine.toml").write_text(profile)
    changes = {"profile": str(tmp_path / "mine.toml")} if profile else {}
    wish = asked(rows(tmp_path, 16), axes={"n": (4,), "c": (2,), "beta": (64,), "tau": (32,)}, **changes)
    assert tuned(wish, tmp_path / "out", HELPS, engine).start == start


def test_a_profile_that_needs_the_model_cannot_be_started_from(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('select = "aggregate"')
    wish = asked(rows(tmp_path), profile=str(tmp_path / "mine.toml"))
    with pytest.raises(EvalError, match="select = aggregate needs the model"):
        tuned(wish, tmp_path / "out", HELPS)


def test_a_profile_that_ends_rounds_early_cannot_be_started_from(tmp_path: Path) -> None:
    """What the rounds after them would have read was never generated."""
    (tmp_path / "mine.toml").write_text('stop = "beta:.6"')
    wish = asked(rows(tmp_path), profile=str(tmp_path / "mine.toml"))
    with pytest.raises(EvalError, match="was never generated"):
        tuned(wish, tmp_path / "out", HELPS)


def test_a_profile_says_what_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the tuning goes on."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("n = 2\nc = 1\nt = 0\nbeta = 48\ntau = 32\nanswer_budget = 24\ntemperature = 0.5\n")
    wish = asked(rows(tmp_path), profile="mine.toml", settings={}, axes={})
    monkeypatch.chdir("/")
    found = tuned(wish, tmp_path / "out", HELPS)
    assert [(each.n, each.beta) for each in found.families] == [(2, 48), (2, 24)]
    assert (found.profile["answer_budget"], found.profile["temperature"]) == (24, 0.5)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        tuned(asked(tmp_path / "none.jsonl"), tmp_path / "out", HELPS)
