"""The proof of nano's README in small: eight problems of each task, through `rsa eval` and `rsa compare`. Minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from evals import compare, read_results
from examples.nano import figures

LIMIT = 8
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("task", figures.TASKS, ids=[task.name for task in figures.TASKS])
def test_markovian_rsa_beats_single_rollouts_and_one_parent(task: figures.Task, tmp_path: Path) -> None:
    wanted = ("single", "markovian", "rsa")
    rows = [row for row in figures.table_rows(task, LIMIT) if row.label in wanted]
    figures.run(rows, tmp_path, jobs=1, dry=False)
    folders = {row.label: tmp_path / row.folder for row in rows}

    gain = compare(folders["single"], folders["rsa"]).final_mean.difference
    assert gain.value is not None
    assert gain.low is not None
    assert gain.value > 0.25
    assert gain.low > 0
    against_one_parent = compare(folders["markovian"], folders["rsa"]).final_mean.difference
    assert against_one_parent.value is not None
    assert against_one_parent.value > 0

    prompts = [played.longest_prompt for played in read_results(folders["rsa"]).rounds]
    bound = prompts[0] + figures.C * (figures.TAU + 32)  # 32: a tail's marker, and its share of the instructions
    assert max(prompts) <= bound

    if task.name != "countdown":  # where attempts check themselves, votes do as well
        vote = figures.equal_vote(task, LIMIT, tmp_path)
        figures.run([vote], tmp_path, jobs=1, dry=False)
        against_vote = compare(tmp_path / vote.folder, folders["rsa"]).headline.difference
        assert against_vote.low is not None
        assert against_vote.low > 0
