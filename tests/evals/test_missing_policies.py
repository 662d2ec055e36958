"""Folders that ran with a policy of a package that is gone: each command says which policy is wanted, in a line."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from command_line import rsa

from rsa.policies import registry

MODEL = f"scripted:{Path(__file__).with_name('answers_by_seed.py')}"
SIZES = ["--n", "2", "--c", "1", "--t", "1", "--beta", "16", "--tau", "8", "--answer-budget", "16"]
OURS = {"stop": "rsa.policies.stopping:Consensus", "select": "rsa.policies.selecting:Pooled"}


@pytest.mark.parametrize(("kind", "spec"), [("stop", "absent:.9"), ("select", "absent")])
def test_who_lost_a_package_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, spec: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("problem.txt").write_text("what is one?")
    rows = [{"problem": f"what is number {i}?", "answer": str(i % 3), "problem_idx": i + 1} for i in range(2)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", MODEL, *SIZES, f"--{kind}", spec]
    with monkeypatch.context() as brought:
        point = EntryPoint("absent", OURS[kind], f"rsa.{kind}")
        brought.setattr(
            registry,
            "entry_points",
            lambda group, name=None: [point] if group == point.group and name in (None, point.name) else [],
        )
        assert rsa("eval", "aime25", "--data", "rows.jsonl", *words, "--out", "out", "--no-report").code == 0
        assert rsa("solve", "problem.txt", *words, "--out", "run").code == 0
    registry._policy.cache_clear()
    wanted = (
        f"has {kind} = absent, and no policy that is installed here is called so: install the package that brings it"
    )
    for command, file in (
        (["report", "out"], "out/results.json"),
        (["compare", "out", "out"], "out/results.json"),
        (["replay", "out"], "out/eval.json"),
        (["eval", "--resume", "out"], "out/eval.json"),
        (["eval", "--rescore", "out"], "out/eval.json"),
        (["report", "run"], "run/run.json"),
        (["solve", "--resume", "run"], "run/run.json"),
    ):
        done = rsa(*command)
        assert (done.code, done.out, done.err) == (2, "", f"error: {file} {wanted}\n")
