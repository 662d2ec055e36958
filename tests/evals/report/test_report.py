"""Reports: what they say is what the files say, whatever a model wrote, and it can be read."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import run

from engine.scripted import Script, ScriptedEngine
from evals.folder import read_json, read_results, run_name
from evals.report import write_report
from evals.report.text import duration, first_of, last_of, percent, points, short, visible
from evals.results import CandidateRecord
from evals.run_scores import RunScores
from evals.stats import Estimate
from rsa import read_result
from rsa.controller import MarkovianRSA
from rsa.digests import unseal
from rsa.problem import Problem, Turn
from rsa.runlog import read_run
from rsa.settings.config import RSAConfig

from .pages import page_of

pytestmark = pytest.mark.thorough

VERDICTS = {
    ("scored", 1.0): ("right", "✓", "right"),
    ("scored", 0.0): ("wrong", "✗", "wrong"),
    ("no_answer", 0.0): ("none", "∅", "no answer"),
    ("truncated", 0.0): ("none", "✂", "truncated"),
    ("degenerate", 0.0): ("none", "↻", "repeats itself"),
}
TEMPLATES = Path(sys.modules["evals.report"].__path__[0]) / "templates"


# ---- what it says


def test_the_figures_are_those_of_the_results(evaluation: Path) -> None:
    results, page = read_results(evaluation), page_of(evaluation)
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
    results, page = read_results(evaluation), page_of(evaluation)
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
    for problem in read_results(evaluation).problems:
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
    places = {problem.id: number for number, problem in enumerate(read_results(evaluation).problems, 1)}
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
    for number, problem in enumerate(read_results(evaluation).problems, 1):
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
    for played in read_results(evaluation).rounds[1:]:
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
