"""`rsa bench`: what is measured with real requests, what is told of it, and mistakes in one line."""

from __future__ import annotations

import json
import math

import anyio
import pytest
from command_line import Ended, rsa

from engine.api import GenerationRequest
from engine.errors import EngineClosedError
from engine.scripted import Script, ScriptedEngine
from rsa.command.bench import Report, bench
from rsa.command.speeds import prompt_with, read
from rsa.errors import ConfigError
from rsa.settings.profiles import profile_names

LONG = "so it goes on and on " * 60


def run(*words: object) -> Ended:
    return rsa("bench", *words)


def measure(engine: ScriptedEngine, lines: list[str]) -> Report:
    return bench(engine, rows=[1, 3], contexts=[100, 200], tokens=8, brought={}, tell=lines.append)


def test_of_an_engine_that_cannot_speak_of_memory_only_speeds_are_told() -> None:
    lines: list[str] = []
    report = measure(ScriptedEngine(lambda request: Script(LONG)), lines)
    assert [(w.rows, w.tokens >= 8 * w.rows) for w in report.writings] == [(1, True), (3, True)] * 2
    short, long = (reading.prompt_tokens for reading in report.readings)
    assert 97 <= short <= 100
    assert 197 <= long <= 200
    assert report.room is None
    assert not report.profiles
    assert not report.betas
    assert "only speeds" in lines[0]
    assert not any("computed" in line for line in lines)
    assert all(report.roofline(writing) is None for writing in report.writings)


def test_rows_that_end_early_are_started_anew_until_enough_is_counted() -> None:
    engine = ScriptedEngine(lambda request: Script("abcdef"))
    report = measure(engine, [])
    assert all(w.tokens >= 8 * w.rows for w in report.writings)
    seeds = [request.sampling.seed for request in engine.requests if request.id == "row-0"]
    assert max(seeds) > 0  # each time with other draws


def test_rows_that_end_at_once_are_left_out_and_the_others_measured() -> None:
    def script(request: GenerationRequest) -> Script:
        return Script("", "a") if request.id == "row-2" else Script(LONG)

    lines: list[str] = []
    report = measure(ScriptedEngine(script), lines)
    assert [w.rows for w in report.writings] == [1, 1]
    assert sum("end too soon" in line for line in lines) == 2


@pytest.mark.parametrize("tokens", [64, 100, 1000])
def test_a_prompt_has_the_tokens_asked_for_or_hardly_less(tokens: int) -> None:
    tokenizer = ScriptedEngine(lambda request: Script("x")).tokenizer
    first, second = prompt_with(tokenizer, tokens), prompt_with(tokenizer, tokens)
    assert tokens - 4 <= tokenizer.prompt_tokens([first]) <= tokens
    assert first != second


def test_the_engine_is_closed_when_it_is_asked_for_what_it_cannot() -> None:
    engine = ScriptedEngine(lambda request: Script(LONG), context_tokens=512)
    with pytest.raises(ConfigError, match="`context`"):
        bench(engine, rows=None, contexts=[512], tokens=8, brought={}, tell=print)
    with pytest.raises(EngineClosedError):
        anyio.run(read, engine, prompt_with(engine.tokenizer, 100))


MISTAKES = (
    (["nope"], 2, "no model is called 'nope'"),
    (["openai2:x"], 2, "no kind of engine is called 'openai2'"),
    (["--rows", "0"], 2, "--rows: 0 is too few"),
    (["--rows", "1,many"], 2, "--rows: 'many' is no size"),
    (["--context", ""], 2, "--context: '' is no size"),
    (["--tokens", "0"], 2, "--tokens: 0 is too few"),
)


@pytest.mark.parametrize(("words", "code", "said"), MISTAKES)
def test_a_mistake_is_one_line(words: list[str], code: int, said: str) -> None:
    done = run(*words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert said in done.err
    assert done.err.count("\n") == 1


@pytest.mark.thorough
def test_nano_is_measured_and_what_follows_is_told() -> None:
    done = run("nano", "--rows", "1,2", "--context", "64,128", "--tokens", "4", "--json")
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    report = json.loads(line)
    assert [(w["rows"], w["tokens"] >= 4 * w["rows"]) for w in report["writing"]] == [(1, True), (2, True)] * 2
    assert all(0 < w["roofline_share"] < math.inf and w["tokens_per_s"] > 0 for w in report["writing"])
    assert {*report["profiles"]} == {*profile_names(), "its own settings"}
    assert report["profiles"]["its own settings"]["seconds"] > 0
    assert "4,096" in report["profiles"]["paper-16k"]["obstacle"]
    assert 0 < report["largest_beta_of_n"]["8"] <= 4096
    assert "of the byte roofline" in done.err
    assert "computed" in done.err


@pytest.mark.thorough
def test_more_rows_than_nano_decodes_are_refused_in_a_line() -> None:
    done = run("nano", "--rows", "50000")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: --rows: nano decodes at most 64 at once")
    assert done.err.count("\n") == 1
