"""`rsa eval` and `rsa compare`: what goes where, exit codes, and what a mistake is told."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from command_line import Ended, rsa
from processes import started

from evals import display
from evals.budget import SetBudget
from evals.comparison import Comparison
from evals.folder import read_eval, read_results
from evals.results import EvalResults
from rsa import compose
from rsa.settings.config import Limits

MODEL = f"scripted:{Path(__file__).with_name('answers_by_seed.py')}"
ROOT = Path(__file__).resolve().parents[2]
SIZES = ["--n", "4", "--c", "2", "--t", "1", "--beta", "64", "--tau", "16", "--answer-budget", "32"]
GOLDS = {0: "0", 1: "1", 2: "2", 3: "0", 4: "1"}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a data set of five problems, and the scripted engine in place of every model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSA_MODEL", MODEL)
    monkeypatch.setattr(display, "QUIET_S", 3600.0)  # a slow machine has nothing to say between the lines
    rows = [{"problem": f"what is number {i}?", "answer": gold, "problem_idx": i + 1} for i, gold in GOLDS.items()]
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def evaluated(*words: object, out: str = "out") -> Ended:
    return rsa("eval", "aime25", "--data", "data.jsonl", *SIZES, "--out", out, "--no-report", *words)


# ---- what goes where


def test_the_number_alone_on_standard_output() -> None:
    done = evaluated("--model", f"{MODEL}:unvouched")
    assert done.code == 0, done.err
    results = read_results("out")
    assert results.mean.value is not None
    assert done.out == f"{results.mean.value:.4f}\n"
    lines = done.err.splitlines()
    drawn = "temperature=0.7 top_p=0.95 seed=0"
    assert lines[0] == f"aime25: 5 problems, method rsa with scripted: n=4 c=2 t=1 beta=64 tau=16 {drawn}, 32 at once"
    assert lines[1].startswith("note: rounds of aggregation")
    assert lines[2].startswith("  1 of 5 · ")
    assert f"aime25, rsa: {results.mean.value:.3f} [" in done.err
    assert lines[-1] == "results folder: out"


def test_what_counts_of_auto_is_the_one_answer_of_a_run() -> None:
    done = evaluated("--model", f"{MODEL}:unvouched", "--method", "auto")
    assert done.code == 0, done.err
    results = read_results("out")
    assert (results.method, results.headline, results.mean) == ("auto", "answer", results.answer)
    assert [problem.value for problem in results.problems] == [problem.answer for problem in results.problems]
    assert (results.config.stop, results.config.select) == (("answered",), "vote")
    assert f"aime25, auto: {results.mean.value:.3f} [" in done.err
    assert "(the runs' answers, 95% interval)" in done.err
    assert "note:" not in done.err
    assert "the one answer that each run gave" in results.protocol


def test_json_is_the_results_and_quiet_is_silent() -> None:
    done = evaluated("--json", "--quiet")
    assert done.err == ""
    assert EvalResults.model_validate_json(done.out) == read_results("out")


def test_the_help_is_in_whole_paragraphs() -> None:
    said = " ".join(rsa("eval", "--help").out.split())
    assert "Everything is kept in the results folder: after Ctrl-C or a crash, --resume goes on where it was." in said


@pytest.mark.thorough
def test_a_folder_of_its_own_and_the_report() -> None:
    done = rsa("eval", "aime25", "--data", "data.jsonl", *SIZES, "--limit", "1")
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"aime25-rsa-\d{8}-\d{6}", folder.name)
    assert done.err.splitlines()[-2:] == [f"report: {folder}/report.html", f"results folder: {folder}"]
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert done.err.startswith("aime25: 1 problem, method rsa")


def test_flags_reach_the_record() -> None:
    words = [
        "--ids",
        "aime25-I-01, aime25-I-03",
        *["--method", "vote", "--epochs", "2", "--seed", "9", "--data-seed", "4"],
    ]
    more = ["--temperature", "0.5", "--tokens-per-problem", "100k", "--in-flight", "3"]
    done = rsa("eval", "aime25", "--data", "data.jsonl", "--out", "out", "--no-report", *words, *more)
    assert done.code == 0, done.err
    record = read_eval("out")
    assert (record.method, record.epochs, record.source.data_seed) == ("vote", 2, 4)
    assert record.source.ids == ("aime25-I-01", "aime25-I-03")
    config = record.config
    assert (config.seed, config.temperature, config.limits.total_tokens, config.t) == (9, 0.5, 102_400, 0)
    assert config.task == "aime"
    assert ", 3 at once" in done.err
    assert read_results("out").headline == "vote"


def test_a_budget_of_all_problems_is_told_and_kept() -> None:
    budget = ["--total-tokens", "3k", "--deadline", "600", "--t", "2"]
    done = evaluated(*budget)
    assert done.code == 0, done.err
    record, results = read_eval("out"), read_results("out")
    assert record.budget == SetBudget(total_tokens=3072, deadline_s=600)
    assert (record.config.limits, record.config.stop) == (Limits(), ("consensus:1",))
    assert results.budget is not None
    assert f"{results.budget.ends}\n" in done.err
    assert "\nround 0 of 5 runs; 3,072 tokens are left\n" in done.err
    assert rsa("report", "out").code == 0
    assert results.budget.ends in Path("out/report.html").read_text()
    assert rsa("eval", "--resume", "out", *budget, "--no-report").out == done.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tokens-per-problem", "0"], "--tokens-per-problem = '0': should be greater than or equal to 1"),
        (["--seconds-per-problem", "-1"], "--seconds-per-problem = -1.0: should be greater than 0"),
        (["--total-tokens", "0"], "--total-tokens = '0': should be greater than or equal to 1"),
        (["--total-tokens", "10"], "--total-tokens = 10 of the whole evaluation is less than a round of one problem"),
        (["--total-tokens", "1M", "--method", "vote"], "limit each problem with --tokens-per-problem"),
        (["--deadline", "9", "--shard", "1/2"], "with --tokens-per-problem or --seconds-per-problem"),
    ],
)
def test_a_budget_that_cannot_be_shared_out_is_refused_in_a_line(words: list[str], says: str) -> None:
    done = rsa("eval", "aime25", "--data", "data.jsonl", "--n", "4", "--out", "out", *words)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert says in done.err
    assert not Path("out").exists()


# ---- going on


def test_resumed_it_says_the_same_and_takes_everything_from_its_folder() -> None:
    first = evaluated()
    before = Path("out/results.json").read_bytes()
    again = rsa("eval", "--resume", "out", "--no-report")
    assert (again.code, again.out) == (0, first.out)
    assert Path("out/results.json").read_bytes() == before
    agreeing = rsa("eval", "aime25", "--resume", "out", "--n", "4", "--method", "rsa", "--no-report")
    assert agreeing.code == 0, agreeing.err


@pytest.mark.parametrize("number", ["0", "-1", "99999"])
def test_no_number_of_problems_at_once_is_taken_that_makes_no_sense(number: str) -> None:
    says = f"error: --in-flight = {number}: should be 1 to 65536\n"
    assert evaluated("--in-flight", number).err == says
    assert not Path("out").exists()
    evaluated()
    done = rsa("eval", "--resume", "out", "--in-flight", number)
    assert (done.code, done.out, done.err) == (2, "", says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--n", "5"], "n is 4, not 5"),
        (["--method", "vote"], "method is rsa, not vote"),
        (["--epochs", "2"], "epochs is 1, not 2"),
        (["--limit", "2"], "limit is None, not 2"),
        (["--data-seed", "2"], "data_seed is 0, not 2"),
        (["--total-tokens", "5k"], "total_tokens of the whole evaluation is None, not 5120"),
        (["--tokens-per-problem", "5k"], "total_tokens is None, not 5120"),
        (["countdown"], "benchmark is aime25, not countdown"),
        (["--profile", "paper-8k"], "beta is 64, not 8192"),
        (["--out", "other"], "--resume does not go with --out"),
        (["--metric", "math"], "--metric goes with --rescore only"),
    ],
)
def test_a_flag_that_differs_is_named(words: list[str], says: str) -> None:
    evaluated()
    done = rsa("eval", *words, "--resume", "out")
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err


def test_a_folder_that_holds_one_already() -> None:
    evaluated()
    same = evaluated()
    assert (same.code, same.err) == (2, "error: out already holds this evaluation; go on with: rsa eval --resume out\n")
    other = evaluated("--seed", "5")
    assert other.code == 2
    assert "out holds another evaluation. Different: config.seed: 0, now 5" in other.err


def test_it_goes_on_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = rsa("eval", "--resume", "../out", "--data", "../data.jsonl", "--no-report")
    assert done.code == 0, done.err


def test_data_that_changed_are_noticed() -> None:
    evaluated()
    Path("data.jsonl").write_text(Path("data.jsonl").read_text().replace('"1"', '"2"'))
    for words in (["--resume", "out"], ["--rescore", "out"]):
        done = rsa("eval", *words)
        assert done.code == 2
        assert "data.revision" in done.err


def test_what_is_wrong_with_the_data_is_said_before_a_model_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "fetch_if_missing", lambda model, show: pytest.fail("it was fetched"))
    assert "has no problem aime25-I-99" in evaluated("--ids", "aime25-I-99").err


def test_scored_again() -> None:
    first = evaluated()
    before = Path("out/results.json").read_bytes()
    again = rsa("eval", "--rescore", "out", "--no-report")
    assert (again.code, again.out) == (0, first.out), again.err
    assert Path("out/results.json").read_bytes() == before
    other = rsa("eval", "--rescore", "out", "--metric", "anls", "--no-report")
    assert other.code == 0, other.err
    assert read_results("out").metric == "anls"


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--n", "3"], "--n"),
        (["aime25"], "BENCHMARK"),
        (["--data-seed", "1"], "--data-seed"),
        (["--deadline", "3"], "--deadline"),
        (["--seconds-per-problem", "3"], "--seconds-per-problem"),
        (["--in-flight", "3"], "--in-flight"),
        (["--model", "nano"], "--model"),
    ],
)
def test_scored_again_takes_no_settings(words: list[str], flag: str) -> None:
    wrong = rsa("eval", *words, "--rescore", "out")
    assert (wrong.code, wrong.err) == (2, f"error: --rescore does not go with {flag}: leave it out\n")


# ---- shards


def test_shards_are_merged_and_taken_like_any_other() -> None:
    whole = evaluated(out="whole")
    for index in (1, 2):
        assert evaluated("--shard", f"{index}/2", out=f"shard-{index}").code == 0
    resumed = rsa("eval", "--resume", "shard-2", "--no-report")
    assert resumed.code == 0, resumed.err
    merged = rsa("merge", "shard-2", "shard-1", "--out", "merged")
    assert (merged.code, merged.out) == (0, whole.out), merged.err
    assert merged.err.splitlines()[-2:] == ["report: merged/report.html", "results folder: merged"]
    for name in ("results.json", "candidates.jsonl"):
        assert Path("merged", name).read_bytes() == Path("whole", name).read_bytes()
    assert "5 problems in both" in rsa("compare", "whole", "merged").out
    assert rsa("eval", "--rescore", "merged", "--no-report").out == whole.out
    assert rsa("merge", "shard-1", "shard-2", "--out", "again", "--json", "--quiet", "--no-report").err == ""


def test_folders_of_shards_and_of_what_is_merged_have_telling_names() -> None:
    for index in (1, 2):
        words = ["--data", "data.jsonl", *SIZES, "--shard", f"{index}/2", "--no-report"]
        assert rsa("eval", "aime25", *words).code == 0
    shards = sorted(Path("runs").iterdir())
    assert [re.fullmatch(r"aime25-rsa-(\dof2)-\d{8}-\d{6}", path.name)[1] for path in shards] == ["1of2", "2of2"]
    assert rsa("merge", *shards, "--no-report").code == 0
    (merged,) = [path for path in Path("runs").iterdir() if path not in shards]
    assert re.fullmatch(r"aime25-rsa-\d{8}-\d{6}", merged.name)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["eval", "countdown", "--shard", "5/4"], "error: --shard 5/4: should be like 2/4, the second of four"),
        (["eval", "countdown", "--limit", "3", "--shard", "2/4"], "error: --shard 2/4: there are only 3 problems"),
        (["eval", "--resume", "part", "--shard", "2/2"], "shard is 1/2, not 2/2"),
        (["merge", "part"], "error: 1 shard missing: 2/2"),
        (["merge", "part", "nowhere"], "error: there is no folder nowhere"),
    ],
)
def test_shards_that_cannot_be(words: list[str], says: str) -> None:
    evaluated("--shard", "1/2", out="part")
    done = rsa(*words)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert done.err.count("\n") == 1
    assert not Path("runs").exists()


# ---- comparing


def test_comparing() -> None:
    evaluated("--method", "rsa", out="a")
    rsa("eval", "aime25", "--data", "data.jsonl", "--method", "vote", "--n", "4", "--out", "b", "--no-report")
    done = rsa("compare", "a", "b")
    assert done.code == 0, done.err
    assert done.out.startswith("aime25, scored by integer: 5 problems in both; 95% intervals, by problem\n")
    comparison = Comparison.model_validate_json(rsa("compare", "a", "b", "--json").out)
    first, second = read_results("a"), read_results("b")
    assert (comparison.headline.first, comparison.headline.second) == pytest.approx(
        (first.mean.value, second.mean.value)
    )
    assert comparison.methods == ("rsa", "vote")


def test_what_cannot_be_compared() -> None:
    evaluated(out="a")
    assert rsa("compare", "a", "nowhere").err == "error: there is no folder nowhere\n"
    other = [{"problem": "what is number 9?", "answer": "1", "problem_idx": 1}]
    Path("data.jsonl").write_text(json.dumps(other[0]) + "\n")
    evaluated(out="b")
    done = rsa("compare", "a", "b")
    assert done.code == 2
    assert "these cannot be compared: data revision is" in done.err


# ---- mistakes and trouble


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no benchmark given: rsa eval BENCHMARK. There are ai2d, aime24"),
        (["countdwn"], "no benchmark is called 'countdwn'; did you mean 'countdown'?"),
        (["countdown", "--method", "vite"], "no method is called 'vite'; did you mean 'vote'? There are auto, single,"),
        (["countdown", "--method", "x"], "no method is called 'x'. There are auto, single,"),
        (["countdown", "--method", "single", "--t", "2"], "t = 2 contradicts method = single"),
        (["countdown", "--epochs", "0"], "epochs = 0: should be 1 to 10000"),
        (["countdown", "--limit", "0"], "--limit 0 leaves no problem"),
        (["countdown", "--ids", ","], "--ids leaves no problem"),
        (["countdown", "--ids", "countdown-0-x"], "has no problem countdown-0-x"),
        (["countdown", "--data", "data.jsonl"], "it has no use for a data file"),
        (["aime25", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["countdown", "--n", "2", "--c", "4"], "c = 4 is more than n = 2"),
        (["countdown", "--beta", "4q"], "no size"),
        (["--resume", "nowhere"], "there is no folder nowhere"),
        (["--rescore", "nowhere"], "there is no folder nowhere"),
        (["--rescore", "."], ". holds no evaluation: it has no eval.json"),
    ],
)
def test_mistakes(words: list[str], says: str) -> None:
    done = rsa("eval", *words)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert says in done.err
    assert done.out == ""
    assert not Path("runs").exists()


def test_nothing_that_could_be_scored() -> None:
    Path("data.jsonl").write_text(json.dumps({"problem": "x" * 300, "answer": "1", "problem_idx": 1}) + "\n")
    done = evaluated("--model", f"{MODEL}:tiny")
    assert (done.code, done.out) == (4, "")
    assert "failed: aime25-I-01: the problem does not fit" in done.err
    assert done.err.endswith("error: no problem could be scored; out/results.json says why, under warnings\n")


def test_an_engine_that_breaks_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSA_TEST_BREAK", "1")
    done = evaluated("--in-flight", "1")
    assert done.code == 4
    assert done.err.splitlines()[-2:] == [
        "error: the engine's worker died",
        "what was done until then is kept; go on with: rsa eval --resume out",
    ]
    monkeypatch.delenv("RSA_TEST_BREAK")
    assert rsa("eval", "--resume", "out", "--no-report").code == 0


def test_interrupted_it_can_go_on(tmp_path: Path) -> None:
    words = ["eval", "aime25", "--data", "data.jsonl", *SIZES, "--out", "an out", "--no-report"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RSA_TEST_HOLD": "1"}
    with started([sys.executable, "-m", "rsa", *words], env=environment) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("  4 of 5 "):  # the fifth never ends
                break
        child.send_signal(signal.SIGINT)
        rest = child.stderr.readlines()
        child.wait()
    assert child.returncode == 130
    assert rest == ["interrupted; go on with: rsa eval --resume 'an out'\n"]
    assert rsa("eval", "--resume", "an out", "--no-report").code == 0
    evaluated(out="whole")
    assert Path("an out/results.json").read_bytes() == Path("whole/results.json").read_bytes()
    assert Path("an out/candidates.jsonl").read_bytes() == Path("whole/candidates.jsonl").read_bytes()
