"""Reports: what they say is what the files say, whatever a model wrote, and whatever is missing."""

from __future__ import annotations

import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from processes import run
from typer.testing import CliRunner

from engine.api import GenerationRequest, Tool, ToolCall
from engine.errors import OutOfMemoryError
from engine.scripted import Script, ScriptedEngine
from evals.cli import report
from evals.errors import ResultsError
from evals.folder import read_json, read_results, run_name
from evals.report import write_report
from evals.report.text import duration, first_of, last_of, percent, points, short, visible
from evals.results import CandidateRecord, EvalResults
from evals.run_scores import RunScores
from evals.stats import Estimate
from rsa import read_result
from rsa.controller import MarkovianRSA
from rsa.digests import unseal
from rsa.errors import RSAError, RunFolderError
from rsa.folders import written_aside
from rsa.problem import Problem, Turn
from rsa.runlog import read_run
from rsa.settings.config import Limits, RSAConfig

pytestmark = pytest.mark.thorough

VOID = {"meta", "link", "img", "br", "hr", "input"}
VERDICTS = {
    ("scored", 1.0): ("right", "✓", "right"),
    ("scored", 0.0): ("wrong", "✗", "wrong"),
    ("no_answer", 0.0): ("none", "∅", "no answer"),
    ("truncated", 0.0): ("none", "✂", "truncated"),
    ("degenerate", 0.0): ("none", "↻", "repeats itself"),
}
TEMPLATES = Path(sys.modules["evals.report"].__path__[0]) / "templates"


class Page(HTMLParser):
    """A page as read by a parser: its text, figures, ids, links, and every tag with its attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[float] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self._open == [], "tags that are never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        if tag == "data":
            self.figures.append(float(dict(attrs)["value"] or "nan"))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def values(self, attribute: str) -> list[str]:
        return [str(attributes[attribute]) for _, attributes in self.tags if attribute in attributes]


def page_of(folder: Path, **more: Any) -> Page:
    return Page(write_report(folder, **more))


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def results_of(folder: Path) -> EvalResults:
    return read_results(folder)


# ---- what it says


def test_the_figures_are_those_of_the_results(evaluation: Path) -> None:
    results, page = results_of(evaluation), page_of(evaluation)
    ks = sorted({k for played in results.rounds for k in played.best_of if k > 1})

    def numbers(estimate: Estimate | None) -> list[float | None]:
        if estimate is None:
            return []
        has_width = estimate.low != estimate.high
        return [estimate.value, *([estimate.low, estimate.high] if has_width else [])]

    scores = [
        number
        for played in results.rounds
        for estimate in (played.mean, played.vote, *(played.best_of.get(k) for k in ks))
        for number in numbers(estimate)
    ]
    statuses = list(dict.fromkeys(status for played in results.rounds for status in played.statuses))
    costs = [
        number
        for played in results.rounds
        for number in (
            played.present,
            *([played.asked] if played.asked != played.present else []),
            *(played.statuses.get(status, 0) for status in statuses),
            played.reasoning_tokens, played.answer_tokens, played.tokens, played.longest_prompt,
        )
    ]  # fmt: skip
    problems = [problem.value for problem in results.problems]
    expected = [results.mean.value, *scores, *costs, *problems]
    assert page.figures == [number for number in expected if number is not None]
    assert results.mean.value is not None
    assert percent(results.mean.value) in page.text
    assert f"95% interval for problems like these is {percent(results.mean.low)[:-1]} to" in page.text


def test_it_says_what_was_run(evaluation: Path) -> None:
    results, page = results_of(evaluation), page_of(evaluation)
    for words in (
        results.protocol,
        *results.warnings,
        results.model.name,
        *results.versions,
        "4 March 2026, 05:06 UTC",
    ):
        assert " ".join(words.split()) in page.text
    assert [row["scope"] for row in page.all("th")], "tables have headers"
    assert len(page.all("h1")) == 1


def test_every_problem_opens_to_its_text_gold_picture_and_candidates(evaluation: Path) -> None:
    page = page_of(evaluation)
    for problem in results_of(evaluation).problems:
        run = evaluation / "runs" / run_name(problem.id, 0)
        result = read_result(run)
        assert read_run(run)[1].text in page.text
        assert f"Gold answer: {read_json(run / 'scores.json', RunScores).gold}" in page.text
        for played in result.rounds:
            for candidate in played.candidates:
                if candidate.tail and candidate.tail.text:
                    assert " ".join(candidate.tail.text.split()) in page.text
    assert len(page.all("img")) == 3
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.all("img"))


def test_every_candidate_has_its_badge(evaluation: Path) -> None:
    page = page_of(evaluation)
    drawn = re.findall(
        r'<li id="(p\d+-\d+-\d+-\d+)">\s*<details>\s*<summary>.*?'
        r'class="badge (\w+)">.*?aria-hidden="true">(.)</span> ([\w ]+)</span>',
        page.source,
    )
    badges = {anchor: (tone, sign, word) for anchor, tone, sign, word in drawn}
    places = {problem.id: number for number, problem in enumerate(results_of(evaluation).problems, 1)}
    records = [
        CandidateRecord.model_validate_json(unseal(line).content)
        for line in (evaluation / "candidates.jsonl").read_bytes().splitlines()
    ]
    expected = {
        f"p{places[each.problem_id]}-{each.epoch}-{each.round}-{each.index}": VERDICTS[
            each.score.status, each.score.value
        ]
        for each in records
    }
    assert badges == expected
    assert len(set(expected.values())) >= 3


def test_every_vote_has_its_sign(evaluation: Path) -> None:
    page = page_of(evaluation)
    signs = {0.0: "✗", 1.0: "✓", None: "?"}
    for number, problem in enumerate(results_of(evaluation).problems, 1):
        row = page.source[: page.source.index(f'id="p{number}"')].rpartition("<summary>")[2]
        shown = re.findall(r'class="sign">(.)</span><span class="unseen">[^<]+</span> (\d+|–)', row)
        assert shown == [
            (signs.get(vote, "◐"), "–" if mean is None else f"{100 * mean:.0f}")
            for vote, mean in zip(problem.votes, problem.means, strict=True)
        ]


def test_who_read_whom_can_be_followed(evaluation: Path, solved: Path) -> None:
    for folder in (evaluation, solved):
        page = page_of(folder)
        ids, targets = page.values("id"), page.values("href")
        assert len(ids) == len(set(ids)), "each id once"
        links = [target[1:] for target in targets if target.startswith("#")]
        assert set(links) <= set(ids)
        assert len(links) >= 40


@pytest.mark.parametrize("name", ["evaluation", "solved"])
def test_nothing_is_fetched_and_nothing_runs(name: str, request: pytest.FixtureRequest) -> None:
    page = page_of(request.getfixturevalue(name))
    assert not {"script", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.tags}
    assert all(value.startswith(("#", "data:")) for value in page.values("href") + page.values("src"))
    assert "url(" not in re.sub(r"url\(#", "", page.source)
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
    assert str(policy).startswith("default-src 'none'")


def test_the_same_folder_gives_the_same_bytes(evaluation: Path, solved: Path) -> None:
    first = [write_report(folder).read_bytes() for folder in (evaluation, solved)]
    assert [write_report(folder).read_bytes() for folder in (evaluation, solved)] == first
    code = "import sys; from evals.report import write_report; [write_report(folder) for folder in sys.argv[1:]]"
    again = [sys.executable, "-c", code, str(evaluation), str(solved)]
    run(again, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True)
    assert [(folder / "report.html").read_bytes() for folder in (evaluation, solved)] == first


def test_pictures_have_words(evaluation: Path) -> None:
    page = page_of(evaluation)
    plots = [svg for svg in page.all("svg") if svg.get("class") == "plot"]
    assert [str(svg["aria-labelledby"]).split("-")[0] for svg in plots] == ["accuracy", "tokens", "changes", "lengths"]
    assert not re.search(r"#0[0-9]0[0-9]0[0-9]\b", page.source), "placeholders became variables"
    assert "DejaVu Sans'" not in page.source, "the page's own type"
    for played in results_of(evaluation).rounds[1:]:
        words = f"to round {played.round}: {played.became_right} became right, {played.became_wrong} became wrong"
        assert words in page.text.lower()


# ---- what is hostile

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)></pre></details>"
    "<!-- ]]> &amp; {{ 7 * 7 }} {% raw %} \x00\x1b[31mred\x1b[0m \u202egnp.exe\u202c\u2066\u200b\ufeff\U000e0041 "
    "javascript:alert(3) \r\rover \x9b2J " + "z\u0336" * 20 + " '\"` onload=x"
)
SHOWN = "␀␛[31mred␛[0m ⟨U+202E⟩gnp.exe⟨U+202C⟩⟨U+2066⟩⟨U+200B⟩⟨U+FEFF⟩⟨U+E0041⟩"


def test_hostile_text_stays_text(tmp_path: Path, evaluation: Path, make: Any) -> None:
    def play(request: Any) -> Script:
        return Script(reasoning=HOSTILE, answer=f"\\boxed{{{HOSTILE}}}")

    (question,) = make.sums(1)
    nasty = question.model_copy(update={"id": HOSTILE, "problem": HOSTILE, "gold": HOSTILE})
    plain, page = page_of(evaluation), page_of(make.evaluate(tmp_path, [nasty], play, tau=400, benchmark=HOSTILE))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert {name for _, attributes in page.tags for name in attributes} <= {
        name for _, attributes in plain.tags for name in attributes
    }
    assert page.text.count("</script><script>alert(1)</script>") > 12
    assert page.text.count(SHOWN) > 12
    assert "{{ 7 * 7 }} {% raw %}" in page.text
    assert visible(page.source) == page.source


def test_hostile_text_stays_text_in_a_solved_problem(tmp_path: Path, solved: Path) -> None:
    engine = ScriptedEngine(lambda _: Script(reasoning=HOSTILE, answer=f"\\boxed{{{HOSTILE}}}"))
    config = RSAConfig(n=2, c=1, t=1, beta=600, tau=600)
    problem = Problem(HOSTILE, problem_id=HOSTILE, system=HOSTILE, earlier=[Turn("assistant", HOSTILE)])
    MarkovianRSA(engine, config=config).solve_sync(problem, out=tmp_path / "run")
    plain, page = page_of(solved), page_of(tmp_path / "run")
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert page.text.count(SHOWN) > 6
    assert visible(page.source) == page.source


@given(st.text(max_size=200))
def test_visible_text_draws_every_character(text: str) -> None:
    seen = visible(text)
    assert visible(seen) == seen
    assert not [char for char in seen if ord(char) < 32 and char not in "\t\n"]
    if text.isprintable():
        # What Unicode calls printable is left alone: letters of every script, marks, symbols.
        assert seen == text


# ---- what is missing


def test_one_problem_has_no_interval_and_one_candidate_no_vote(tmp_path: Path, make: Any) -> None:
    page = page_of(make.evaluate(tmp_path, make.sums(1), method="single", n=1, t=0, c=1))
    assert "One problem is too few to say how far to trust it." in page.text
    assert "majority vote" not in page.text.split("Round by round")[0]
    assert len([svg for svg in page.all("svg") if svg.get("class") == "scale"]) == 0


def test_an_interval_that_is_cut_off_says_so(tmp_path: Path, make: Any) -> None:
    folder = make.evaluate(tmp_path, make.sums(3), make.reasoner(skill=0.6), method="single", t=0, c=1)
    mean, page = results_of(folder).mean, page_of(folder)
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


# ---- a solved problem


def test_a_solved_problem_is_told_whole(solved: Path) -> None:
    result = read_result(solved)
    page = page_of(solved)
    assert result.answer is not None
    assert page.text.count(f" {result.answer} ") > result.votes[0].count
    assert f"{result.votes[0].count} of 6 candidates of round 2 gave this answer." in page.text
    assert f"{result.usage.completion_tokens:,} tokens" in page.text
    assert "Who read whom" in page.text
    for played in result.rounds:
        assert f"{played.usage.completion_tokens:,}" in page.text
        for candidate in played.candidates:
            assert candidate.tail is not None
            assert " ".join(candidate.tail.text.split()) in page.text
            if candidate.parents:
                assert f"Went on from the tails of {' , '.join(map(str, candidate.parents))}" in page.text
    agreeing = sum(vote.count for played in result.rounds for vote in played.votes if vote.answer == result.answer)
    assert page.text.count("● agrees") == agreeing


def test_the_turns_before_a_problem_are_shown_in_order_with_their_pictures(tmp_path: Path) -> None:
    turns = [Turn("user", "What is a rhombus?", [b"\x89PNG of nothing"]), Turn("assistant", "A parallelogram.")]
    problem = Problem("And a square?", system="Answer in one line.", earlier=turns)
    MarkovianRSA(ScriptedEngine(Script("so", r"\boxed{1}")), n=1, c=1, t=0).solve_sync(problem, out=tmp_path / "run")
    text = page_of(tmp_path / "run").text
    said = ["Earlier in the conversation", "System", "Answer in one line.", "User", "What is a rhombus?"]
    said += ["Image 1 of turn 2: ", "Assistant", "A parallelogram.", "The problem itself", "And a square?"]
    places = [text.index(words, text.index(said[0])) for words in said]
    assert places == sorted(places)


def test_tools_calls_and_results_are_shown_and_the_vote_on_calls(tmp_path: Path) -> None:
    call = ToolCall(id="c1", name="weather", arguments='{"city": "Paris"}')
    later = [Turn("assistant", "I look.", calls=[call]), Turn("tool", "21 degrees", answers="c1")]
    tools = [Tool(name="weather"), Tool(name="now")]
    problem = Problem(
        "Is it warm?", images=[b"\x89PNG of nothing"], earlier=[Turn("user", "Hi.")], later=later, tools=tools
    )
    spelled = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
    rsa = MarkovianRSA(ScriptedEngine(Script("so", spelled)), n=2, c=1, t=0)
    rsa.solve_sync(problem, out=tmp_path / "run")
    text = page_of(tmp_path / "run").text
    said = ["Earlier in the conversation", "Hi.", "The problem itself", "Is it warm?", "Image 1 of the problem: "]
    said += ["Tools that could be called: weather, now", "Calls of tools, and their results", "I look."]
    said += ['Calls weather(city="Paris")', "21 degrees", "Answers by round", 'weather(city="Rome")']
    places = [text.index(words, text.index(said[0])) for words in said]
    assert places == sorted(places)


def test_a_run_of_an_older_version_has_no_report_but_a_line(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 2, "problem": "why?"}')
    with pytest.raises(RunFolderError, match=r"by an older version \(format 2\), which this one cannot read"):
        write_report(tmp_path)


def test_a_run_that_has_not_ended_is_told_so_far(tmp_path: Path, solved: Path) -> None:
    folder = copy_of(solved, tmp_path)
    (folder / "result.json").unlink()
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    middle = next(i for i, line in enumerate(lines) if b'"round_started"' in line and b'"round":2' in line)
    (folder / "events.jsonl").write_bytes(b"".join(lines[:middle]) + lines[middle][:20])
    page = page_of(folder)
    assert "This run has not ended" in page.text
    assert "Round 1" in page.text
    assert "Round 2" not in page.text
    (folder / "events.jsonl").unlink()
    assert "This run has not ended" in page_of(folder).text


def test_who_was_not_asked_handed_on_and_who_was_says_why_there_is_no_answer(tmp_path: Path) -> None:
    def refuses(request: GenerationRequest) -> Script:
        return Script("It is not a puzzle.", "I only know <number> puzzles." if "c00" in request.id else "No.")

    solver = MarkovianRSA(ScriptedEngine(refuses), n=4, c=2, t=2, beta=64, tau=16, answer_budget=64)
    solver.solve_sync("What?", out=tmp_path / "run")
    text = page_of(tmp_path / "run").text
    assert text.count("→ handed on") == 2 * 4
    assert text.count("→ 4 handed on") == 2
    assert text.count("∅ no answer") == 4
    assert r"No answer: 4 of 4 final candidates ended without an answer in \boxed{...}." in text
    assert "3 wrote at the end “No.”; 1 wrote at the end “I only know <number> puzzles.”." in text


def test_limits_and_warnings_come_first(tmp_path: Path, make: Any) -> None:
    engine = ScriptedEngine(make.reasoner(), context_tokens=900, tokens_per_step=16)
    config = RSAConfig(n=3, c=2, t=2, beta=2000, tau=100, answer_budget=60, limits=Limits(total_tokens=700))
    result = MarkovianRSA(engine, config=config).solve_sync("What is 2 + 40? (gold 42. )", out=tmp_path / "run")
    assert result.warnings
    assert result.limits_hit
    text = page_of(tmp_path / "run").text
    warned = text[text.index("Read this first") : text.index("Round by round")]
    assert "Limit total_tokens:" in warned
    assert all(" ".join(warning.split()) in warned for warning in result.warnings)
    assert "It stopped early: the limit on tokens was reached." in text
    assert "β as used" in text


def test_what_policies_decided_is_told_and_is_no_warning(tmp_path: Path, make: Any) -> None:
    config = RSAConfig(n=3, c=2, t=2, beta=400, tau=60, answer_budget=60, stop=("consensus:.1",))
    engine = ScriptedEngine(make.reasoner(skill=0.9, cut=0.0), tokens_per_step=16)
    result = MarkovianRSA(engine, config=config).solve_sync("What is 2 + 40? (gold 42. )", out=tmp_path / "run")
    assert result.decisions
    text = page_of(tmp_path / "run").text
    assert "Decided: the run ends after round 0 by consensus:.1" in text
    assert "Read this first" not in text


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


# ---- how it looks


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb, as WCAG 2 defines it."""
    digits = colour.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_is_readable_in_light_in_dark_and_on_paper() -> None:
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    assert len(schemes) == 3
    for scheme in schemes:
        for text in ("ink", "muted", "first", "second", "third"):
            for ground in ("page", "card", *(("alert",) if text in ("ink", "second") else ())):
                light, dark = sorted((luminance(scheme[text]), luminance(scheme[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground} in {scheme}"
        light, dark = sorted((luminance(scheme["ink"]), luminance(scheme["band"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (percent(0.0), "0.0%"), (percent(1.0), "100.0%"), (percent(-0.0004), "0.0%"), (percent(-0.081), "−8.1%"),
        (percent(None), "–"), (points(0.125), "+12.5"), (points(-0.3), "−30.0"), (points(-0.0001), "+0.0"),
        (short(999), "999"), (short(999.7), "1k"), (short(12_345), "12.3k"), (short(99_999), "100k"),
        (short(1_250_000), "1.2M"), (duration(0.194), "0.19\xa0s"), (duration(9.94), "9.9\xa0s"),
        (duration(59.6), "1\xa0min 0\xa0s"), (duration(4320), "1\xa0h 12\xa0min"), (duration(None), "–"),
    ],
)  # fmt: skip
def test_figures_in_words(words: str, said: str) -> None:
    assert words == said


@given(st.text(max_size=40), st.integers(0, 50))
def test_what_is_cut_is_counted(text: str, limit: int) -> None:
    first, last = first_of(text, limit), last_of(text, limit)
    assert first.text + text[len(text) - first.after :] == text
    assert text[: last.before] + last.text == text
    assert max(len(first.text), len(last.text)) <= limit
