"""Two evaluations side by side, worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.api import ModelInfo, Usage
from evals.comparison import compare, compare_results
from evals.display import comparison_lines
from evals.errors import ResultsError
from evals.results import DataInfo, EvalResults, ProblemStats
from evals.stats import Estimate
from rsa import RSAConfig
from rsa.folders import write_record

NONE = Estimate(value=None, problems=0, clusters=0)


def problem(name: str, value: float | None, tokens: float | None = 10.0, **more: Any) -> ProblemStats:
    same = {"final_mean": value, "final_vote": value, "answer": value, "means": (value,), "votes": (value,)}
    return ProblemStats(**{"id": name, "value": value, "tokens": tokens, **same, **more})


def results(*problems: ProblemStats, **more: Any) -> EvalResults:
    fields: dict[str, Any] = {
        "benchmark": "made-up",
        "method": "rsa",
        "metric": "exactly",
        "headline": "candidates",
        "mean": NONE,
        "answer": NONE,
        "rounds": (),
        "statuses": {},
        "usage": Usage(),
        "problems": problems,
        "epochs": 1,
        "seed": 0,
        "data": DataInfo(kind="file", name="made-up.jsonl", revision="abc", selected=len(problems)),
        "config": RSAConfig(),
        "model": ModelInfo(name="m", fingerprint="f"),
        "protocol": "",
        "prompt_sha256": "p",
    }
    return EvalResults(**{**fields, **more})


def test_differences_are_taken_problem_by_problem() -> None:
    single = results(problem("p", 0.2, 10), problem("q", 0.4, 20), problem("r", 0.9, 30), method="single")
    rsa = results(problem("r", 0.9, 60), problem("q", 0.6, 60), problem("p", 0.6, 60))
    found = compare_results(single, rsa)
    assert (found.methods, found.problems, found.only_first, found.only_second) == (("single", "rsa"), 3, 0, 0)
    assert (found.headline.first, found.headline.second) == pytest.approx((0.5, 0.7))
    # Differences 0.4, 0.2, 0: mean 0.2, sd 0.2, se 0.2 / sqrt(3); t of two degrees of freedom is 4.303.
    assert found.headline.difference.value == pytest.approx(0.2)
    assert found.headline.difference.se == pytest.approx(0.2 / 3**0.5)
    assert found.headline.difference.low == pytest.approx(0.2 - 4.303 * 0.2 / 3**0.5, abs=1e-3)
    assert found.tokens == (20.0, 60.0)
    assert found.tokens_ratio == pytest.approx(3.0)
    assert found.notes == ()


def test_pairing_cancels_how_hard_problems_are() -> None:
    first = results(*(problem(str(i), i / 10) for i in range(10)))
    second = results(*(problem(str(i), i / 10 + 0.05) for i in range(10)))
    difference = compare_results(first, second).headline.difference
    assert (difference.value, difference.se) == pytest.approx((0.05, 0.0), abs=1e-9)


def test_each_figure_is_of_its_own() -> None:
    one = problem("p", 0.5, final_mean=0.5, final_vote=1.0, answer=0.0)
    other = problem("p", 1.0, final_mean=0.25, final_vote=1.0, answer=1.0)
    found = compare_results(results(one), results(other, method="vote", headline="vote"))
    assert (found.headline.first, found.headline.second) == (0.5, 1.0)
    assert (found.final_mean.difference.value, found.vote.difference.value, found.answer.difference.value) == (
        -0.25,
        0.0,
        1.0,
    )
    assert found.headlines == ("candidates", "vote")
    assert found.notes == ("the headline numbers are of candidates in the first and of the vote in the second",)


def test_problems_in_one_of_them_only_are_counted_and_those_without_a_value_left_out() -> None:
    first = results(problem("p", 0.5), problem("q", None), problem("x", 1.0))
    second = results(problem("p", 0.75), problem("q", 1.0), problem("y", 1.0), problem("z", 1.0))
    found = compare_results(first, second)
    assert (found.problems, found.only_first, found.only_second) == (2, 1, 2)
    assert (found.headline.first, found.headline.second, found.headline.difference.problems) == (0.5, 0.75, 1)


def test_tokens_are_compared_over_problems_that_ran_in_both() -> None:
    first = results(problem("p", 0.5, 100), problem("q", None, None))
    second = results(problem("p", 0.5, 150), problem("q", 1.0, 9000))
    found = compare_results(first, second)
    assert (found.tokens, found.tokens_ratio) == ((100.0, 150.0), 1.5)
    nothing = compare_results(results(problem("p", None, None)), second)
    assert (nothing.tokens, nothing.tokens_ratio) == ((None, None), None)
    assert comparison_lines(nothing)[6].split() == ["tokens", "a", "problem", "-", "-", "-"]


def test_problems_of_a_cluster_count_as_one() -> None:
    first = results(*(problem(f"{i}", 0.0, cluster=f"c{i // 2}") for i in range(4)))
    second = results(*(problem(f"{i}", float(i < 2), cluster=f"c{i // 2}") for i in range(4)))
    difference = compare_results(first, second).headline.difference
    assert (difference.value, difference.clusters, difference.se) == (0.5, 2, pytest.approx(0.5))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"benchmark": "other"}, "benchmark is 'made-up' in the first and 'other' in the second"),
        ({"metric": "roughly"}, "metric is 'exactly' in the first and 'roughly' in the second"),
        ({"data": DataInfo(kind="file", name="made-up.jsonl", revision="xyz", selected=1)}, "data revision is 'abc'"),
        ({"data": DataInfo(kind="hub", name="a/b", selected=1)}, "data kind is 'file'"),
    ],
)
def test_what_cannot_be_compared(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ResultsError, match=says):
        compare_results(results(problem("p", 1.0)), results(problem("p", 1.0), **change))


def test_generated_problems_of_other_options_are_other_problems() -> None:
    def generated(**options: Any) -> EvalResults:
        data = DataInfo(kind="generated", name="countdown", selected=1, options=options)
        return results(problem("p", 1.0), data=data)

    with pytest.raises(ResultsError, match="data option sizes is"):
        compare_results(generated(sizes=[3], limit=4), generated(sizes=[4], limit=4))
    assert compare_results(generated(sizes=[3], limit=4), generated(sizes=[3], limit=9)).problems == 1


def test_nothing_in_common() -> None:
    with pytest.raises(ResultsError, match="have no problem in common"):
        compare_results(results(problem("p", 1.0)), results(problem("q", 1.0)))


def test_what_a_reader_should_know() -> None:
    other = {"model": ModelInfo(name="n", fingerprint="g"), "epochs": 4, "prompt_sha256": "q", "warnings": ("odd",)}
    notes = compare_results(results(problem("p", 1.0)), results(problem("p", 1.0), **other)).notes
    assert notes == ("the models differ: m and n", "epochs differ: 1 and 4", "the prompts differ", "the second: odd")


def test_models_of_one_name_differ_by_how_they_run() -> None:
    eight_bits = ModelInfo(name="m", fingerprint="f-kv8", details={"kv_bits": 8})
    notes = compare_results(results(problem("p", 1.0)), results(problem("p", 1.0), model=eight_bits)).notes
    assert notes == ("the models differ: m and m with 8-bit keys and values",)


def test_as_people_read_it() -> None:
    first = results(problem("p", 0.2, 1000), problem("q", 0.4, 1000), method="single")
    second = results(problem("p", 0.6, 2500), problem("q", 0.6, 2500), problem("r", None))
    assert comparison_lines(compare_results(first, second)) == [
        "made-up, scored by exactly: 2 problems in both, 1 in only one of them; 95% intervals, by problem",
        "                  single    rsa  difference (second - first)",
        "headline           0.300  0.600  +0.300 [-0.971, +1.000]",
        "final mean         0.300  0.600  +0.300 [-0.971, +1.000]",
        "final vote         0.300  0.600  +0.300 [-0.971, +1.000]",
        "answer             0.300  0.600  +0.300 [-0.971, +1.000]",
        "tokens a problem   1,000  2,500  x 2.50",
    ]


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_record(tmp_path / "a" / "results.json", results(problem("p", 1.0)))
    assert compare(tmp_path / "a", tmp_path / "a").headline.difference.value == 0.0
    with pytest.raises(ResultsError, match="holds no finished evaluation"):
        compare(tmp_path / "a", tmp_path)
    (tmp_path / "a" / "results.json").write_text("{}")
    with pytest.raises(ResultsError, match="cannot be understood"):
        compare(tmp_path / "a", tmp_path / "a")
