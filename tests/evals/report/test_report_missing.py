"""Reports of little and of much: what is missing, what is left out for its size, and when none can be written."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from processes import run
from typer.testing import CliRunner

from engine.errors import OutOfMemoryError
from engine.scripted import Script
from evals.cli import report
from evals.errors import ResultsError
from evals.folder import read_results
from evals.report import write_report
from rsa.errors import RSAError
from rsa.folders import written_aside

from .pages import copy_of, page_of

pytestmark = pytest.mark.thorough


# ---- what is missing


def test_one_problem_has_no_interval_and_one_candidate_no_vote(tmp_path: Path, make: Any) -> None:
    page = page_of(make.evaluate(tmp_path, make.sums(1), method="single", n=1, t=0, c=1))
    assert "One problem is too few to say how far to trust it." in page.text
    assert "majority vote" not in page.text.split("Round by round")[0]
    assert len([svg for svg in page.all("svg") if svg.get("class") == "scale"]) == 0


def test_an_interval_that_is_cut_off_says_so(tmp_path: Path, make: Any) -> None:
    folder = make.evaluate(tmp_path, make.sums(3), make.reasoner(skill=0.6), method="single", t=0, c=1)
    mean, page = read_results(folder).mean, page_of(folder)
    assert mean.se, "the problems differ"
    assert (mean.low, mean.high) == (0.0, 1.0)
    assert "The 95% interval for problems like these is 0.0 to 100.0%." in page.text
    assert "It is cut off at 0.0% and 100.0%, where scores end: there are too few problems" in page.text


def test_single_rollouts_show_the_best_of_k(tmp_path: Path, make: Any) -> None:
    page = page_of(make.evaluate(tmp_path, make.sums(3), method="vote", t=0, c=1))
    assert "Best of k candidates" in page.text
    assert "the majority vote scores" in page.text
    assert "Where the vote changed" not in page.text


def test_an_evaluation_in_which_everything_failed(tmp_path: Path, make: Any) -> None:
    def play(request: Any) -> Script:
        return Script(error=OutOfMemoryError("lower --n"), fail_after=1)

    page = page_of(make.evaluate(tmp_path, make.sums(2), play))
    assert "No problem has a candidate that could be scored, so there is no number." in page.text
    assert "The run failed: all 4 candidates of round 0 failed: OutOfMemoryError: lower --n" in page.text
    assert page.text.count("! failed") >= 8


def test_an_evaluation_in_which_nothing_ran(tmp_path: Path, make: Any) -> None:
    questions = [question.model_copy(update={"problem": " "}) for question in make.sums(2)]
    page = page_of(make.evaluate(tmp_path, questions))
    assert "No problem has a candidate that could be scored" in page.text
    assert "The run failed: the problem is empty" in page.text
    assert page.figures == []


def test_an_evaluation_in_which_nobody_answered(tmp_path: Path, make: Any) -> None:
    page = page_of(make.evaluate(tmp_path, make.sums(2), lambda request: Script(reasoning="hm", answer="no idea")))
    assert "No vote went from right to wrong" in page.text
    assert page.text.count("∅ no answer") == 2 * 3 * 4
    assert "∅ 4 no answer" in page.text


def test_epochs_are_told_apart(tmp_path: Path, make: Any) -> None:
    page = page_of(make.evaluate(tmp_path, make.sums(2), epochs=2, t=1))
    assert page.text.count("Epoch 1") == 2
    assert "2 epochs" in page.text
    assert len(page.values("id")) == len(set(page.values("id")))


def test_undecided_and_cut_off_candidates_are_not_wrong(tmp_path: Path, make: Any) -> None:
    def play(request: Any) -> Script:
        endless = request.sampling.seed % 2 == 0
        return Script(reasoning=f"{request.sampling.seed} ", never_ends=endless, answer="\\boxed{?}")

    page = page_of(make.evaluate(tmp_path, make.sums(2), play, n=8, t=0, c=1, method="single", force_answer=False))
    assert "? undecided" in page.text
    assert "repeats itself" in page.text or "truncated" in page.text
    assert "wrong" not in page.text


def test_what_is_gone_is_said(tmp_path: Path, evaluation: Path) -> None:
    folder = copy_of(evaluation, tmp_path)
    (folder / "timings.json").unlink()
    runs = sorted((folder / "runs").iterdir())
    shutil.rmtree(runs[0])
    (runs[1] / "result.json").write_text("{")
    page = page_of(folder)
    assert "Its run folder is gone, so its texts are not here." in page.text
    assert "Its run folder cannot be read:" in page.text
    assert "started" not in page.text
    assert len(page.figures) == len(page_of(evaluation).figures)


def test_a_broken_picture_is_a_note(tmp_path: Path, evaluation: Path) -> None:
    folder = copy_of(evaluation, tmp_path)
    pictures = sorted(folder.glob("runs/*/images/*"))
    data = pictures[0].read_bytes()
    pictures[0].write_bytes(data[: len(data) // 2])
    pictures[1].unlink()
    page = page_of(folder)
    assert "Image 1 of the problem: the image cannot be read: " in page.text
    assert "Image 1 of the problem: the file cannot be read: No such file" in page.text
    assert len(page.all("img")) == 1


def test_a_large_picture_is_made_smaller(tmp_path: Path, make: Any) -> None:
    page = page_of(make.evaluate(tmp_path, make.sums(1, [make.diagram(4000)]), n=2, t=0, c=1, method="single"))
    (image,) = page.all("img")
    assert str(image["src"]).startswith("data:image/jpeg;base64,")
    assert (image["width"], image["height"]) == ("900", "450")


# ---- how large it gets


def test_a_small_page_leaves_out_details_then_problems(tmp_path: Path, make: Any) -> None:
    folder = make.evaluate(tmp_path / "eval", make.sums(30), make.reasoner(words=80), n=2, t=1)
    whole = write_report(folder).stat().st_size
    figures = page_of(folder).figures
    for share, words in ((0.8, r"From here on only the figures, (\d+) of 30"), (0.54, r"(\d+) more problems are not")):
        page = page_of(folder, max_bytes=int(share * whole))
        assert len(page.source.encode()) <= share * whole
        assert (found := re.search(words, page.text))
        assert 0 < int(found[1]) < 30
        if share == 0.8:
            assert page.figures == figures
            assert set(page.values("id")) >= {f"p{number}" for number in range(1, 31)}


def test_tails_share_the_room(tmp_path: Path, make: Any) -> None:
    long = make.evaluate(tmp_path, make.sums(3), make.reasoner(words=900, cut=0), n=2, t=1, beta=9000, tau=8000)
    size = write_report(long).stat().st_size
    page = page_of(long, max_bytes=size - 20_000)
    cut = int(re.search(r"Tails are cut to their last ([\d,]+)", page.text)[1].replace(",", ""))
    assert 240 < cut < 4000
    assert max(len(words) for words in page.words) <= cut
    assert "characters before this are not shown" in page.text


# ---- when it cannot be written


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"neither results\.json \(of an evaluation\) nor run\.json"):
        write_report(tmp_path)
    with pytest.raises(ResultsError, match="there is no folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "eval.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"has not ended: .*rsa eval --resume"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("results.json", '{"format": 99, "more": 1}', "newer version"),
        ("results.json", '{"schema_version": 1, "more": 1}', "older version"),
        ("results.json", "{}", "cannot be understood"),
        ("candidates.jsonl", "{}\n", "line 1, is no candidate"),
        ("candidates.jsonl", None, "cannot read"),
        ("timings.json", "[", "cannot be understood"),
        (
            "timings.json",
            '{"started_at": "", "wall_s": 1e400, "tokens_per_s": 1, "problems": [], "machine": {}}',
            "cannot be understood",
        ),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, evaluation: Path, file: str, text: str | None, said: str) -> None:
    folder = copy_of(evaluation, tmp_path)
    (folder / "report.html").write_text("the one before")
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    with pytest.raises(RSAError, match=said) as caught:
        write_report(folder)
    assert file in str(caught.value) or said.endswith(" version")
    assert (folder / "report.html").read_text() == "the one before"


def test_a_page_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("the one before")

    def pieces() -> Any:
        yield b"half"
        raise ResultsError("it broke")

    with pytest.raises(ResultsError), written_aside(page) as file:
        file.writelines(pieces())
    assert page.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [page]


def test_the_command_prints_the_path(solved: Path) -> None:
    app = typer.Typer()
    app.command()(report)
    done = CliRunner().invoke(app, [str(solved)])
    assert done.exit_code == 0
    assert done.stdout.strip() == str(solved / "report.html")


def test_the_command_loads_nothing_heavy() -> None:
    code = "import sys, evals.cli; print({'matplotlib', 'numpy', 'PIL', 'jinja2'} & set(sys.modules))"
    done = run([sys.executable, "-c", code], check=True)
    assert done.stdout.strip() == "set()"
