"""The pool of comparing processes: bounded, killed at the limit, shared. Stand-ins play the processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import pytest

from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, RSAConfig
from rsa.answers import math_pool
from rsa.answers.equivalence import AnswerMatcher, compare
from rsa.answers.math_pool import DIFFERENT, SAME, MathWorkers

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]
HANG = "h_{0}"

STAND_IN = """
import json, os, sys
from pathlib import Path
log = Path(sys.argv[1])
def note(word):
    with log.open("a") as file:
        file.write(word + "\\n")
note("started")
print('{"ready": true}', flush=True)
for line in sys.stdin:
    note("asked")
    left = json.loads(line)["left"][0]
    while left == "h_{0}":
        pass
    if left == "die":
        os._exit(1)
    if left == "babble":
        print("what?", flush=True)
    print(json.dumps({"same": left == json.loads(line)["right"][0]}), flush=True)
    if left == "last words":
        os._exit(0)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "log"
    file.touch()
    return file


def pool(log: Path, processes: int = 2, timeout_s: float = 30.0) -> MathWorkers:
    return MathWorkers(processes, timeout_s=timeout_s, command=[sys.executable, "-c", dedent(STAND_IN), str(log)])


def count(log: Path, word: str) -> int:
    return log.read_text().split().count(word)


async def test_never_more_processes_than_given(log: Path) -> None:
    verdicts: dict[str, Any] = {}

    async def ask(name: str) -> None:
        verdicts[name] = await workers.compare((name,), ("b",))

    async with pool(log) as workers:
        async with anyio.create_task_group() as group:
            for name in "abcdefgh":
                group.start_soon(ask, name)
        assert count(log, "started") <= 2
    assert verdicts == {name: SAME if name == "b" else DIFFERENT for name in "abcdefgh"}


async def test_what_interrupts_the_run_does_not_end_its_processes() -> None:
    """A terminal sends Ctrl-C to all its processes: a comparison that broke off would count as a different answer."""
    async with MathWorkers(1) as workers:
        assert await workers.compare(("1",), ("1.0",)) == SAME
        (process,) = [worker._process for worker in workers._idle if worker._process]
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(process.pid, number)
        assert await workers.compare((r"\frac{1}{2}",), ("0.5",)) == SAME
        assert process.returncode is None


async def test_one_after_the_other_needs_one_process(log: Path) -> None:
    async with pool(log) as workers:
        assert count(log, "started") == 0, "nothing starts before it is needed"
        for name in "abc":
            await workers.compare((name,), ("b",))
        assert count(log, "started") == 1


async def test_what_was_compared_is_remembered_hangs_included(log: Path) -> None:
    async with pool(log, timeout_s=0.3) as workers:
        for _ in range(3):
            assert await workers.compare(("a",), ("a",)) == SAME
            hung = await workers.compare((HANG,), ("b",))
        assert (hung.outcome, hung.cause) == ("undecided", "hung")
        assert "too long" in hung.why
        assert await workers.compare(("a",), ("a",), ordered=False) == SAME, "another question"
    assert count(log, "asked") == 3
    assert count(log, "started") == 2, "the one that hung was killed"


async def test_memory_is_bounded(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_pool, "MAX_KNOWN", 2)
    async with pool(log) as workers:
        for name in "abacaba":  # b is forgotten for c, and c for b; a is used in between
            await workers.compare((name,), ("x",))
    assert count(log, "asked") == 4


@pytest.mark.parametrize("text", ["die", "babble"])
async def test_a_breakdown_is_undecided_and_the_next_question_is_answered(log: Path, text: str) -> None:
    async with pool(log, processes=1) as workers:
        broke = await workers.compare((text,), ("b",))
        assert (broke.outcome, broke.cause) == ("undecided", "broke")
        assert await workers.compare(("a",), ("a",)) == SAME


async def test_a_process_that_ended_between_questions_is_replaced(log: Path) -> None:
    async with pool(log, processes=1) as workers:
        assert await workers.compare(("last words",), ("last words",)) == SAME
        process = workers._workers[0]._process
        assert process is not None
        await process.wait()
        assert await workers.compare(("a",), ("a",)) == SAME
    assert count(log, "started") == 2


async def test_a_command_that_does_not_start_is_given_up() -> None:
    async with MathWorkers(command=["/nowhere/to/be/found"]) as workers:
        for name in "abcde":
            verdict = await workers.compare((name,), ("b",))
            assert (verdict.outcome, verdict.cause) == ("undecided", "missing")
            assert "does not start" in verdict.why
        assert workers._failed_starts == math_pool.MAX_FAILED_STARTS


async def test_a_cancelled_question_leaves_nothing_behind(log: Path) -> None:
    async with pool(log, processes=1) as workers:
        await workers.compare(("a",), ("b",))
        with anyio.move_on_after(0.1):
            await workers.compare((HANG,), ("b",))
        assert await workers.compare(("c",), ("c",)) == SAME


async def test_closing_is_not_the_end(log: Path) -> None:
    workers = pool(log)
    assert await workers.compare(("a",), ("a",)) == SAME
    await workers.aclose()
    await workers.aclose()
    assert await workers.compare(("b",), ("b",)) == SAME
    await workers.aclose()


async def test_no_processes_make_no_sense() -> None:
    with pytest.raises(ValueError, match="processes is 0"):
        MathWorkers(0)


async def test_matchers_share_a_pool_and_leave_it_open(log: Path) -> None:
    async with pool(log) as workers:
        for _ in range(2):
            async with AnswerMatcher(workers=workers) as matcher:
                assert await matcher.group(["x", "y", "x+0", None]) == [(0,), (1,), (2,)]
                assert await matcher.same(r"\sqrt{2}", r"\sqrt{ 2 }")
        assert count(log, "started") == 1
        assert count(log, "asked") == 3
        assert await workers.compare(("a",), ("a",)) == SAME


async def test_a_matcher_stops_asking_after_a_few_hangs(log: Path) -> None:
    async with pool(log, timeout_s=0.2) as workers:
        async with AnswerMatcher(workers=workers) as matcher:
            for name in "abcdefg":
                assert not await matcher.same(HANG, f"{name}+{name}")
            assert len(matcher.problems) == 1
        assert count(log, "asked") == 3
        # That is the matcher's: others that share the pool are not held up by its answers.
        assert (await compare(HANG, "z+z", workers)).cause == "hung"


async def test_runs_share_a_pool(log: Path) -> None:
    engine = ScriptedEngine(lambda request: Script(reasoning="hm", answer=rf"\boxed{{x^{request.sampling.seed % 2}y}}"))
    config = RSAConfig(n=4, c=2, t=0, beta=64, tau=16, answer_budget=32)
    async with pool(log) as workers:
        rsa = MarkovianRSA(engine, config=config, math_workers=workers)
        for seed in ("one", "two"):
            result = await rsa.solve(seed)
            assert sum(vote.count for vote in result.votes) == 4
        assert count(log, "started") <= 1
        assert await workers.compare(("a",), ("a",)) == SAME
