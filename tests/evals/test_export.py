"""`rsa eval export`: records that others can read, whose figures are those of results.json, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command_line import rsa
from huggingface_hub import parse_eval_result_entries
from sealed import rewrite
from yaml import safe_load

from evals import display
from evals.folder import read_eval, read_results

DATA = Path(__file__).resolve().parents[1] / "data"
SCHEMA = json.loads((DATA / "every_eval_ever.json").read_text())
MODEL = f"scripted:{Path(__file__).with_name('answers_by_seed.py')}"
SIZES = ["--n", "4", "--c", "2", "--t", "1", "--beta", "64", "--tau", "16", "--answer-budget", "32"]
GOLDS = {0: "0", 1: "1", 2: "2", 3: "0", 4: "1"}
ON_THE_HUB = {"kind": "hub", "name": "MathArena/aime_2025", "split": "train", "revision": "c94da77e", "rows": 5}
Change = Callable[..., None]


@pytest.fixture(autouse=True)
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished evaluation of five problems, in `out`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(display, "QUIET_S", 3600.0)
    rows = [{"problem": f"what is number {i}?", "answer": gold, "problem_idx": i + 1} for i, gold in GOLDS.items()]
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--data", "data.jsonl", "--model", MODEL, *SIZES, "--out", "out", "--no-report", "--quiet"]
    assert rsa("eval", "aime25", *words)[0] == 0


def changed(**parts: Any) -> None:
    """The evaluation as if it had been of other data, or of another model."""
    for name in ("eval.json", "results.json"):
        rewrite(Path("out", name), lambda was: was | {key: was[key] | values for key, values in parts.items()})


def exported(*words: object) -> tuple[Path, dict[str, Any]]:
    code, out, err = rsa("eval", "export", "out", "--by", "A lab", *words)
    assert code == 0, err
    path = Path(out.strip())
    return path, json.loads(path.read_text())


def by_name(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {result["evaluation_result_id"].partition("/")[2]: result for result in record["evaluation_results"]}


# ---- Every Eval Ever


@pytest.mark.parametrize("data", [{}, ON_THE_HUB], ids=["file", "hub"])
def test_a_record_is_as_every_eval_ever_wants_it(data: dict[str, Any]) -> None:
    changed(data=data)
    _, record = exported()
    jsonschema.Draft7Validator(SCHEMA).validate(record)


def test_its_figures_are_those_of_the_results() -> None:
    _, record = exported()
    results = read_results("out")
    found = by_name(record)
    assert record["evaluation_results"][0] is found["candidates"]  # the headline comes first
    pairs = [("candidates", results.mean), ("answer", results.answer)]
    for stats in results.rounds:
        pairs += [(f"candidates-round{stats.round}-n4", stats.mean), (f"vote-round{stats.round}-n4", stats.vote)]
    pairs += [(f"best_of-round1-k{k}", best) for k, best in results.rounds[-1].best_of.items() if k > 1]
    assert [name for name, _ in pairs] == [*found]
    for name, estimate in pairs:
        details = found[name]["score_details"]
        assert details["score"] == estimate.value
        assert details["uncertainty"]["num_samples"] == 5
        assert details["uncertainty"]["standard_error"]["value"] == estimate.se
        interval = details["uncertainty"]["confidence_interval"]
        assert (interval["lower"], interval["upper"]) == (estimate.low, estimate.high)


def test_it_says_with_what_on_what_and_by_whom_it_was_measured() -> None:
    changed(data=ON_THE_HUB, model={"fingerprint": "abc", "details": {"source": "Zyphra/ZAYA1-8B"}})
    path, record = exported("--relation", "third_party")
    assert record["source_metadata"]["source_organization_name"] == "A lab"
    assert record["source_metadata"]["evaluator_relationship"] == "third_party"
    model = record["model_info"]
    assert (model["id"], model["developer"]) == ("Zyphra/ZAYA1-8B", "Zyphra")
    assert model["additional_details"]["fingerprint"] == "abc"
    assert model["additional_details"]["model_availability"] == "open_weights"
    data = record["evaluation_results"][0]["source_data"]
    assert (data["hf_repo"], data["additional_details"]["revision"]) == ("MathArena/aime_2025", "c94da77e")
    assert data["sample_ids"] == [problem.id for problem in read_results("out").problems]
    settings = record["evaluation_results"][0]["generation_config"]["additional_details"]
    assert {key: settings[key] for key in ("n", "c", "t", "beta", "tau", "seed", "method", "epochs")} == {
        **{"n": "4", "c": "2", "t": "1", "beta": "64", "tau": "16", "seed": "0"},
        **{"method": "rsa", "epochs": "1"},
    }
    assert path.parent == Path("out/export/data/aime25/Zyphra/ZAYA1-8B")


def test_a_record_written_again_takes_the_place_of_the_first() -> None:
    first, record = exported()
    second, again = exported()
    assert first == second
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.json", first.name)
    for made in (record, again):
        made.pop("retrieved_timestamp")
    assert record == again


def test_nothing_of_this_machine_is_told() -> None:
    changed(model={"details": {"source": "/home/me/models/mine"}}, config={"task": "/home/me/prompts/mine.toml"})
    _, record = exported()
    assert "/home/me" not in json.dumps(record)
    assert record["model_info"]["additional_details"]["model_availability"] == "unknown"


# ---- the Hub


def test_an_entry_of_the_hub_is_read_back_by_its_own_library() -> None:
    changed(data=ON_THE_HUB)
    code, out, err = rsa("eval", "export", "out", "--format", "eval-results", "--url", "https://example.org/runs")
    assert (code, out.strip()) == (0, "out/export/.eval_results/aime25-rsa.yaml"), err
    (entry,) = parse_eval_result_entries(safe_load(Path(out.strip()).read_text()))
    results = read_results("out")
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == ("MathArena/aime_2025", "default", "c94da77e")
    assert results.mean.value is not None
    assert entry.value == round(100 * results.mean.value, 2)
    assert entry.date == read_eval("out").created_at
    assert entry.source_url == "https://example.org/runs"
    assert entry.notes is not None
    assert f"[{results.mean.low:.4f}, {results.mean.high:.4f}], 5 problems" in entry.notes
    assert "4 candidates a round" in entry.notes


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "has no leaderboard: an entry is of one data set of the Hub"),
        ({**ON_THE_HUB, "name": "a/b + c/d"}, "has no leaderboard: an entry is of one data set of the Hub"),
        ({**ON_THE_HUB, "rows": 30}, "has 5 of the 30 problems of MathArena/aime_2025: a leaderboard compares whole"),
        ({**ON_THE_HUB, "rows": 6, "selected": 6}, "has no value for 1 of its 6 problems"),
    ],
    ids=["file", "two-data-sets", "part", "unscored"],
)
def test_what_a_leaderboard_cannot_compare_is_refused(data: dict[str, Any], why: str) -> None:
    changed(data=data)
    code, out, err = rsa("eval", "export", "out", "--format", "eval-results")
    assert (code, out) == (2, "")
    assert why in err
    assert not Path("out/export").exists()


# ---- mistakes


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "error: an Every Eval Ever record says who measured: give --by, a name"),
        (["--by", " "], "error: --by is empty: give the name of who measured"),
        (
            ["--by", "me", "--relation", "mine"],
            "error: --relation = 'mine': should be one of first_party, third_party, collaborative, other",
        ),
        (["--by", "me", "--url", "u"], "error: --url has no place in an Every Eval Ever record: leave it out"),
        (
            ["--format", "eval-result"],
            "error: no format is called 'eval-result'; did you mean 'eval-results'? There are every-eval-ever and "
            "eval-results",
        ),
        (
            ["--format", "eval-results", "--by", "me"],
            "error: --by and --relation have no place in an entry of the Hub: leave them out, or give --url",
        ),
    ],
)
def test_mistakes_are_told_in_a_line(words: list[str], why: str) -> None:
    assert rsa("eval", "export", "out", *words) == (2, "", f"{why}\n")


def test_an_evaluation_that_is_not_finished_is_not_exported() -> None:
    Path("out/results.json").unlink()
    code, _, err = rsa("eval", "export", "out", "--by", "me")
    assert code == 2
    assert err == "error: out holds no finished evaluation: it has no results.json; go on with: rsa eval --resume out\n"


def test_a_benchmark_may_still_be_called_export() -> None:
    Path("export").write_text("")
    code, _, err = rsa("eval", "./export")
    assert code == 2
    assert "export" in err
