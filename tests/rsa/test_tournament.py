"""Tournaments: who meets whom, what a judge's words mean, and runs that end in one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealed import forged

from engine.api import Completion, GenerationRequest
from engine.byte_tokenizer import ByteTokenizer
from engine.errors import OutOfMemoryError
from engine.scripted import Script, ScriptedEngine
from evals.report import write_report
from rsa import MarkovianRSA, Problem, PromptError, RSAConfig, RunFolderError, RunResult, Tool
from rsa.answers.verdicts import preferred
from rsa.command.display import describe, result_lines
from rsa.policies import tournament
from rsa.policies.registry import select_policy
from rsa.policies.selecting import Played, choose
from rsa.prompts import load_prompts
from rsa.requests import MATCH_BETA
from rsa.results import Candidate, Round, Tail, Vote
from rsa.serve.feed import Feed
from rsa.serve.progress import ProgressLines
from rsa.settings import resources
from rsa.tails import match_prompt, shown_answer

TOKENIZER = ByteTokenizer()
Judge = Callable[[int, int], int | None]
"""Says which of two contenders wins, the first in the prompt before the other; None: nothing that can be read."""


# ---- told tournaments


def last_round(counts: Sequence[int]) -> Round:
    """A round whose answers "a0", "a1", ... have so many votes each, the largest first."""
    answers = [f"a{place}" for place, count in enumerate(counts) for _ in range(count)]
    candidates = [Candidate(round=0, index=index, seed=0, status="ok", answer=a) for index, a in enumerate(answers)]
    votes = [
        Vote(answer=answer, candidates=tuple(i for i, each in enumerate(answers) if each == answer), of=len(answers))
        for answer in dict.fromkeys(answers)
    ]
    return Round(round=0, candidates=tuple(candidates), votes=tuple(votes))


def played_out(last: Round, judge: Judge, rounds: int | None = None) -> list[Round]:
    """A whole tournament."""
    place = {candidate.index: at for at, candidate in enumerate(tournament.contenders(last))}
    matches: list[Round] = []
    while pairs := tournament.meeting(last, matches, rounds):
        candidates = []
        for index, (one, other) in enumerate(pairs):
            winner = judge(place[one], place[other])
            answer = None if winner is None else f"a{winner}"
            parents = {"parents": (one, other), "answer": answer}
            candidates.append(Candidate(round=1 + len(matches), index=index, seed=0, status="ok", **parents))
        matches.append(Round(round=1 + len(matches), kind="match", candidates=tuple(candidates)))
    return matches


def winner(last: Round, matches: Sequence[Round]) -> str | None:
    found = choose(Played((last,), matches=tuple(matches)), select_policy("tournament"))
    return found.candidate.answer if found else None


COUNTS = st.lists(st.integers(1, 4), min_size=1, max_size=10).map(lambda counts: sorted(counts, reverse=True))


@pytest.mark.parametrize(("contending", "rounds"), [(0, 0), (1, 0), (2, 2), (3, 3), (4, 3), (5, 4), (8, 4)])
def test_a_tournament_has_a_round_more_than_a_cup(contending: int, rounds: int) -> None:
    assert tournament.rounds_for(contending) == rounds


@given(COUNTS, st.randoms())
def test_nobody_meets_twice_and_points_add_up(counts: list[int], random: Any) -> None:
    last = last_round(counts)
    matches = played_out(last, lambda one, other: random.choice([one, other, None]))
    contending = min(len(counts), tournament.MOST_CONTENDERS)
    met = []
    for played in matches:
        pairs = [match.parents for match in played.candidates]
        assert all(pairs[at + 1] == pairs[at][::-1] for at in range(0, len(pairs), 2)), "each pair in both orders"
        here = [parent for pair in pairs[::2] for parent in pair]
        assert len(here) == len(set(here)), "nobody has two matches in a round"
        met += [frozenset(pair) for pair in pairs[::2]]
    assert len(met) == len(set(met)) <= contending * (contending - 1) / 2
    assert 2 * len(met) <= tournament.most_matches(len(last.candidates))
    points = tournament.points(last, matches)
    assert sum(points) == len(matches) * contending / 2
    assert all(0 <= each <= len(matches) for each in points)
    assert len(matches) <= tournament.rounds_for(contending)
    assert winner(last, matches) == f"a{points.index(max(points))}"


@given(COUNTS, st.randoms())
def test_a_right_judge_finds_the_right_answer(counts: list[int], random: Any) -> None:
    """However few have it; judges of the others are as they please."""
    contending = min(len(counts), tournament.MOST_CONTENDERS)
    right = random.randrange(contending)
    matches = played_out(last_round(counts), lambda *pair: right if right in pair else random.choice([*pair, None]))
    points = tournament.points(last_round(counts), matches)
    ahead = [place for place, each in enumerate(points) if each == max(points)]
    assert right in ahead
    if contending in (2, 3, 4):  # all have met
        assert ahead == [right]


@given(COUNTS)
def test_a_judge_that_prefers_a_place_or_says_nothing_leaves_it_to_the_vote(counts: list[int]) -> None:
    judges: list[Judge] = [lambda one, _: one, lambda _, other: other, lambda *_: None]
    for judge in judges:
        matches = played_out(last_round(counts), judge)
        assert set(tournament.points(last_round(counts), matches)) <= {len(matches) / 2}
        assert winner(last_round(counts), matches) == "a0"


def test_who_wins_meets_who_wins_and_who_sat_out_plays() -> None:
    better: Judge = lambda *pair: max(pair)  # noqa: E731
    last = last_round([5, 4, 3, 2, 1])
    places = {candidate.index: place for place, candidate in enumerate(tournament.contenders(last))}
    met = [
        [tuple(places[parent] for parent in match.parents) for match in played.candidates[::2]]
        for played in played_out(last, better)
    ]
    assert met == [[(0, 1), (2, 3)], [(1, 3), (4, 0)], [(3, 4), (1, 2)], [(4, 2), (3, 0)]]
    assert tournament.points(last, played_out(last, better)) == [0.5, 1.5, 1.5, 3.0, 3.5]


def test_rounds_can_be_told() -> None:
    assert [len(played_out(last_round([1] * 8), max, rounds)) for rounds in (1, 2, 7, 9)] == [1, 2, 7, 7]
    assert all(
        {frozenset(match.parents) for played in played_out(last_round([1] * k), max, 9) for match in played.candidates}
        == {frozenset(pair) for pair in combinations(range(k), 2)}
        for k in range(2, 9)
    ), "enough rounds let everybody meet everybody"


# ---- what a judge says


@pytest.mark.parametrize(
    ("text", "answers", "rule", "found"),
    [
        (r"\boxed{X}", ("3", "4"), "boxed", 0),
        (r"\boxed{Y}", ("3", "4"), "boxed", 1),
        (r"so \boxed{\text{Y}}.", ("3", "4"), "boxed", 1),
        (r"\boxed{Attempt X}", ("3", "4"), "boxed", 0),
        (r"\boxed{\text{attempt Y}}", ("3", "4"), "boxed", 1),
        (r"First \boxed{X}, no: \boxed{y}", ("3", "4"), "boxed", 1),
        ("The answer is X.", ("3", "4"), "boxed", 0),
        ("The better one is right. Answer: Attempt Y.", ("3", "4"), "boxed", 1),
        (r"\boxed{4}", ("3", "4"), "boxed", 1),
        (r"\boxed{\frac{1}{2}}", ("0.5", "4"), "boxed", 0),
        (r"\boxed{5}", ("3", "4"), "boxed", None),
        (r"\boxed{B}", ("A", "B"), "choice", 1),
        (r"\boxed{C}", ("A", "B"), "choice", None),
        (r"\boxed{X}", ("print(1)", "print(2)"), "code", 0),
        (r"\boxed{X}", ("3", "3"), "boxed", None),
        (r"\boxed{X or Y}", ("3", "4"), "boxed", None),
        ("X is better than Y", ("3", "4"), "boxed", None),
        (r"\boxed{X", ("3", "4"), "boxed", None),
        ("", ("3", "4"), "boxed", None),
    ],
)
def test_verdicts(text: str, answers: tuple[str, str], rule: Any, found: int | None) -> None:
    said = Completion(request_id="m", token_ids=(1,), reasoning="", text=text, finish_reason="stop", closed=True)
    assert preferred(said, answers, rule, thinks=True) == (None if found is None else answers[found])
    open_ = said.model_copy(update={"closed": False})
    assert preferred(open_, answers, rule, thinks=True) is None
    assert preferred(open_, answers, rule, thinks=False) == preferred(said, answers, rule, thinks=True)


@given(st.text())
def test_no_words_of_a_judge_break_it(text: str) -> None:
    said = Completion(request_id="m", token_ids=(1,), reasoning="", text=text, finish_reason="stop")
    assert preferred(said, ("3", "4"), "boxed", thinks=False) in ("3", "4", None)


# ---- prompts


@pytest.mark.parametrize("task", resources.names("prompts"))
def test_built_in_prompts_compare(task: str) -> None:
    (message,) = load_prompts(task).match(Problem("why {{ 1 }}?"), ["one\n\ntail", "{% raw"], ["answer-a", "answer-b"])
    parts = ["why {{ 1 }}?", "X]\none\n\ntail", "answer-a", "Y]\n{% raw", "answer-b", "X or Y, within \\boxed{}"]
    places = [message.text.index(part) for part in parts]
    assert places == sorted(places)


@given(st.lists(st.binary(max_size=60), min_size=2, max_size=2), st.lists(st.text(max_size=40), min_size=2, max_size=2))
def test_a_match_keeps_to_the_bound_and_to_the_ends_of_tails(written: list[bytes], answers: list[str]) -> None:
    tau, prompts, problem = 16, load_prompts("math"), Problem("why?")
    tails = [Tail(ids=tuple(each[-tau:]), text=TOKENIZER.decode(each[-tau:])) for each in written]
    shown = [shown_answer(answer, tau, TOKENIZER) for answer in answers]
    bound = TOKENIZER.prompt_tokens(prompts.match(problem, ["", ""], ["", ""])) + 2 * (tau + 4)
    prompt, length = match_prompt(prompts, problem, tails, shown, tokenizer=TOKENIZER, bound=bound)
    assert TOKENIZER.prompt_tokens(prompt) == length <= bound
    for answer, cut in zip(answers, shown, strict=True):
        assert cut in prompt[-1].text
        assert cut == answer or answer.startswith(cut.removesuffix("…").rstrip("�"))
        assert len(TOKENIZER.encode(cut)) <= tau


# ---- runs


def script(request: GenerationRequest) -> Script:
    """Answers 0 to 4, the greater the fewer; a judge holds the greatest for right."""
    if not request.id.startswith("m"):
        return Script(f"in {request.id}", rf"\boxed{{{(0, 0, 0, 1, 1, 2, 3, 4)[request.sampling.seed % 8]}}}")
    one, other = shown_answers(request)
    return Script("hm", rf"\boxed{{{'X' if one > other else 'Y'}}}")


def shown_answers(request: GenerationRequest) -> list[str]:
    return re.findall(r"Its answer:\n(.+)", request.messages[-1].text)


SMALL: dict[str, Any] = {"n": 8, "c": 2, "t": 1, "beta": 128, "tau": 32, "answer_budget": 64, "select": "tournament"}


def solve(engine: ScriptedEngine, problem: str | Problem = "why?", **settings: Any) -> RunResult:
    out, resume = settings.pop("out", None), settings.pop("resume", False)
    rsa = MarkovianRSA(engine, config=RSAConfig(**{**SMALL, **settings}))
    return rsa.solve_sync(problem, out=out, resume=resume)


def asked(engine: ScriptedEngine) -> list[GenerationRequest]:
    return [request for request in engine.requests if request.id.startswith("m")]


@pytest.mark.parametrize("t", [0, 1])
def test_the_right_answer_wins_though_few_have_it(t: int) -> None:
    engine = ScriptedEngine(script)
    result = solve(engine, t=t, seed=1)
    answers = {vote.answer: vote.count for vote in result.rounds[-1].votes}
    assert result.answer == max(answers)
    assert answers[str(result.answer)] < max(answers.values()), "else the seed shows nothing"
    assert result.agreeing is not None
    assert result.agreeing.count == answers[str(result.answer)]
    told = [match for played in result.matches for match in played.candidates]
    assert len(told) == len(asked(engine)) == sum(len(played.candidates) for played in result.matches)
    for match, request in zip(told, asked(engine), strict=True):
        leaders = [result.rounds[-1].candidates[parent] for parent in match.parents]
        assert shown_answers(request) == [leader.answer for leader in leaders]
        assert all(leader.tail is not None and leader.tail.text in request.messages[-1].text for leader in leaders)
        assert match.answer == max(shown_answers(request))
    assert [played.round for played in result.matches] == list(range(t + 1, t + 1 + len(result.matches)))
    tokens = sum(played.usage.completion_tokens for played in (*result.rounds, *result.matches))
    assert result.usage.completion_tokens == tokens
    assert result_lines(result)[1].startswith(f"chosen by tournament: of the points of {len(told) // 2} matches, ")


def test_a_match_is_short_and_its_prompt_within_the_bound() -> None:
    engine = ScriptedEngine(script)
    result = solve(engine, beta=8192, tau=64, answer_budget=4096)
    for request in asked(engine):
        sampling = request.sampling
        assert (sampling.reasoning_budget, sampling.answer_budget) == (MATCH_BETA, 512)
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.95, 40)
        assert engine.tokenizer.prompt_tokens(request.messages) <= result.budgets.prompt_bound


def judged_by(text: str) -> Callable[[GenerationRequest], Script]:
    return lambda request: Script("hm", text) if request.id.startswith("m") else script(request)


@pytest.mark.parametrize("says", [r"\boxed{X}", r"\boxed{Y}", "Both are fine."])
def test_a_judge_that_is_no_judge_leaves_it_to_the_vote(says: str) -> None:
    result = solve(ScriptedEngine(judged_by(says)))
    assert result.matches
    assert result.answer == result.rounds[-1].votes[0].answer
    nothing = "no match said which answer is better: the answer is that of the vote"
    assert result.warnings == ((nothing,) if "Both" in says else ())


def test_where_all_agree_nothing_is_compared() -> None:
    engine = ScriptedEngine(lambda _: Script("hm", r"\boxed{7}"))
    result = solve(engine)
    assert (result.answer, result.matches, asked(engine)) == ("7", (), [])


def test_a_match_that_fails_counts_half_to_both() -> None:
    def failing(request: GenerationRequest) -> Script:
        error = OutOfMemoryError("lower n") if request.id == "m1-c01" else None
        return Script("hm", script(request).answer, error=error)

    result = solve(ScriptedEngine(failing), t=0, select="tournament:1")
    first, second, *_ = result.matches[0].candidates
    assert (first.status, second.status, second.answer) == ("ok", "failed", None)
    points = tournament.points(result.rounds[-1], result.matches)
    assert sorted(points[:2]) == [0.25, 0.75]


def test_a_limit_ends_a_tournament_with_what_it_has() -> None:
    def endless(request: GenerationRequest) -> Script:
        return Script("one two three", never_ends=True) if request.id.startswith("m") else script(request)

    result = solve(ScriptedEngine(endless), limits={"total_tokens": 400})
    assert (result.stopped_because, len(result.matches)) == ("total_tokens", 1)
    assert result.answer == result.rounds[-1].votes[0].answer


def test_answers_that_are_calls_are_compared_in_words() -> None:
    def calling(request: GenerationRequest) -> Script:
        days = request.sampling.seed % 3
        call = f'<tool_call>\n{{"name": "wait", "arguments": {{"days": {days}}}}}\n</tool_call>'
        if not request.id.startswith("m"):
            return Script("hm", call)
        drafts = re.findall(r"Its response:\n(.+)", request.messages[-1].text)
        return Script("hm", rf"\boxed{{{'XY'[drafts.index(max(drafts))]}}}")

    result = solve(
        ScriptedEngine(calling),
        Problem("When?", tools=[Tool(name="wait", parameters={"type": "object"})]),
        task="general",
    )
    assert result.answer == "wait(days=2)"
    assert result.calls[0].values == {"days": 2}


def test_a_prompts_file_without_matches_is_refused_before_anything_is_generated(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    shows = "{{ problem }}{{ tails }}"
    path.write_text(f'initial = "{shows}"\naggregate = "{shows}"\nrefine = "{shows}"')
    engine = ScriptedEngine(script)
    with pytest.raises(PromptError, match="'match' is missing, and select = tournament needs it"):
        solve(engine, task=str(path))
    assert not engine.requests
    path.write_text(path.read_text() + '\nmatch = "{{ problem }}{{ attempts[0].tail }}{{ attempts[1] }}"')
    with pytest.raises(PromptError, match=r"'match' does not show \{\{ attempt.answer \}\}"):
        solve(engine, task=str(path))


# ---- records


def other_answer(result: Any) -> None:
    match = result["matches"][0]["candidates"][0]
    match["answer"] = str(min(vote["answer"] for vote in result["votes"]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_answer, "answer of candidate 0 of round 2"),
        (lambda result: result["matches"].pop(), "a round of matches is missing"),
        (
            lambda result: result["matches"][0]["candidates"][0].update(parents=[5, 6]),
            "the parents of candidate 0 of round",
        ),
        (lambda result: result["matches"][0]["candidates"].pop(), "round 2 has votes of candidates without an answer"),
        (lambda result: result["matches"][0].update(kind="population"), "round 2, of matches, is not whole"),
        (lambda result: result.update(answer="0"), "its answer"),
    ],
)
def test_a_tournament_that_does_not_follow_is_refused(tmp_path: Path, change: Any, says: str) -> None:
    whole = solve(ScriptedEngine(script), out=tmp_path / "run")
    assert whole.answer == "4"
    assert solve(ScriptedEngine(script), out=tmp_path / "run", resume=True) == whole
    with pytest.raises(RunFolderError, match=re.escape(says)):
        solve(ScriptedEngine(script), out=forged(tmp_path / "run", change), resume=True)


WORDS = [
    (
        "round_started",
        "2 matches between answers of the last round, each judged in both orders",
        "Answers of the last round are compared in pairs: 4 judgements.\n",
    ),
    (
        "candidate_finished",
        "  candidates 7 and 3: 13 tokens, prefers 3",
        "Judgement 4: 13 tokens, prefers 3.\n",
    ),
    (
        "round_finished",
        "matches done: preferred 4 (2 times), 3 (2 times)",
        "Preferred: 4 (2 times); 3 (2 times).\n",
    ),
]


@pytest.mark.anyio
async def test_matches_in_words() -> None:
    """A line of `rsa solve`, and one of what streams of the server carry, of events of the first round of matches."""
    lines, feed, shown = ProgressLines(), Feed(), []
    async with MarkovianRSA(ScriptedEngine(script), config=RSAConfig(**{**SMALL, "t": 0})).stream("why?") as events:
        async for event in events:
            told, small = (event.type, describe(event) or "", lines.feed(event)), feed.take(event)
            if getattr(event, "kind", "") == "match" and event.type in {kind for kind, *_ in WORDS}:
                shown.append(told)
                assert small[0]["kind"] == "match"
            if event.type == "run_finished":
                assert small[0]["chosen"].startswith("chosen by tournament: of the points of ")
    assert set(WORDS) <= set(shown)


def test_a_report_shows_the_matches(tmp_path: Path) -> None:
    result = solve(ScriptedEngine(script), out=tmp_path / "run")
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "Chosen by tournament: of the points of" in page
    assert all(f"Matches {played.round}" in page for played in result.matches)
    assert page.count("Compares the attempts of") == sum(len(played.candidates) for played in result.matches)
