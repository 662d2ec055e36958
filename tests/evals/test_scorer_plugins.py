"""Metrics of other packages: found by their entry points wherever a metric is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evals.data.benchmarks import Benchmark, load_benchmark
from evals.errors import BenchmarkError
from evals.scorers import GROUP, make, names
from rsa.command.cli import app

MODULE = '''
from evals.scorers.base import BaseScorer, gold_text, scored

class Vowels(BaseScorer[int]):
    """As many vowels as the gold answer has, or `fewest` at least."""

    def __init__(self, fewest: int = 0) -> None:
        self.fewest = fewest

    def read_gold(self, gold, fields):
        return max(self.fewest, vowels(gold_text(gold)))

    async def mark(self, section, gold):
        return scored(float(vowels(section) == gold), section)

def vowels(text):
    return sum(map(text.count, "aeiou"))

class Broken:
    def __init__(self) -> None:
        raise RuntimeError("no licence")

class Silent:
    """It has nothing of a scorer."""
'''

pytestmark = pytest.mark.anyio


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`installed(metric="module:attribute")` leaves what pip leaves of a package with these entry points."""
    packages = tmp_path / "packages"

    def put(package: str = "more-metrics", **entries: str) -> None:
        info = packages / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}\n" for name, value in entries.items()]
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{''.join(lines)}")
        (packages / "more_metrics.py").write_text(MODULE)
        monkeypatch.syspath_prepend(packages)

    monkeypatch.chdir(tmp_path)
    return put


def test_a_metric_of_another_package_scores_a_file_on_the_command_line(installed: Callable[..., None]) -> None:
    installed(vowels="more_metrics:Vowels")
    Path("answers.jsonl").write_text(json.dumps({"id": 1, "gold": "aeon", "candidate": "a e o"}) + "\n")
    done = CliRunner().invoke(app, ["score", "answers.jsonl", "--metric", "vowels"])
    assert (done.exit_code, json.loads(done.stdout)["value"]) == (0, 1.0), done.stderr
    assert "vowels: 1 answers, mean 1.0000" in done.stderr


async def test_its_settings_come_from_a_benchmarks_file(installed: Callable[..., None], tmp_path: Path) -> None:
    installed(vowels="more_metrics:Vowels")
    (tmp_path / "mine.toml").write_text(
        'metric = "vowels"\ndata = "mine.jsonl"\n[settings]\nfewest = 3\n[columns]\nproblem = "q"\ngold = "a"\n'
    )
    benchmark = load_benchmark(tmp_path / "mine.toml")
    assert isinstance(benchmark, Benchmark)
    async with make(str(benchmark.metric), settings=benchmark.settings) as scorer:
        scores = [(await scorer.score(answer, "a", {})).value for answer in ("a", "aie")]
    assert scores == [0.0, 1.0]


def test_ours_come_first_and_are_not_replaced(installed: Callable[..., None]) -> None:
    installed(math="more_metrics:Silent", vowels="more_metrics:Vowels")
    assert names()[0] == "math"
    assert names()[-1] == "vowels"
    assert type(make("math")).__module__ == "evals.scorers.symbolic"


@pytest.mark.parametrize(
    ("value", "settings", "said"),
    [
        ("nowhere_at_all:Vowels", {}, r"\(ModuleNotFoundError: .*\): install the package more-metrics again"),
        ("more_metrics:Broken", {}, r"from more_metrics:Broken \(RuntimeError: no licence\): install the package"),
        ("more_metrics:Silent", {}, "gives no scorer: it has no check, score, group"),
        ("more_metrics:Vowels", {"least": 3}, "metric odd: no setting is called 'least'.* It has fewest"),
    ],
)
def test_what_is_wrong_with_one_is_said_in_a_line(
    installed: Callable[..., None], value: str, settings: dict[str, int], said: str
) -> None:
    installed(odd=value)
    with pytest.raises(BenchmarkError, match=said) as caught:
        make("odd", settings=dict(settings))
    assert "\n" not in str(caught.value)


def test_a_metric_that_two_packages_bring_is_nobodys(installed: Callable[..., None]) -> None:
    installed("one-package", odd="more_metrics:Vowels")
    installed("two-package", odd="more_metrics:Silent")
    with pytest.raises(BenchmarkError, match="is brought by one-package and two-package: remove one of them"):
        make("odd")
