"""Results folders, harmed, then gone on with, scored again, reported, compared, replayed, merged, exported."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from fuzzing.core import Case, DifferentError, Door
from fuzzing.doors.runs import PLAY, SIZES
from fuzzing.edits import apply, edits
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from evals import compare, evaluate, merge, rescore, write_report
from evals.export.writing import export
from evals.folder import CANDIDATES, RESULTS, read_eval
from evals.job import EvalJob
from evals.replay.replaying import replay_folders
from evals.replay.variants import Variant
from rsa.compose import model_to_open

BENCHMARK = """
metric = "choice"
data = "rows.jsonl"
columns = { problem = "problem", gold = "gold", id = "id", cluster = "from" }
task = "general"
"""
PROBLEMS = 3
UNREAD = b"Its run folder cannot be read: "
"""What a report says of a problem; its figures are those of the evaluation all the same."""
CLOCKS = re.compile(rb'"(?:retrieved_timestamp|evaluation_timestamp|evaluation_id)":\s*"[^"]*"')


class Results(Door):
    name = "results"
    share = 4

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        play = 'return Script(f"in {request.id}", "\\\\\\\\boxed{" + "ABC"[digit] + "}")'
        (scratch / "play.py").write_text(re.sub(r"return Script\(f.*", play, PLAY))
        (scratch / "thirds.toml").write_text(BENCHMARK)
        rows = [
            {"id": f"p{i}", "problem": f"Which is {i}?", "gold": "ABC"[i % 3], "from": f"c{i // 2}"}
            for i in range(PROBLEMS)
        ]
        (scratch / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._whole = scratch / "whole"
        for name, shard in (("all", None), ("one", "1/2"), ("two", "2/2")):
            self._evaluate(self._whole / name, shard)
        broken = self._whole / "broken"
        shutil.copytree(self._whole / "all", broken)
        for name in (RESULTS, CANDIDATES, "timings.json"):
            (broken / name).unlink()
        next(broken.glob("runs/*/scores.json")).unlink()
        self._readers: dict[str, Callable[[Path, bool], Any]] = {
            "resume": self._gone_on_with,
            "rescore": self._scored_again,
            "report": lambda folder, trust: write_report(folder, trust=trust).read_bytes(),
            "compare": lambda folder, trust: compare(folder, self._whole / "all", trust=trust).model_dump(mode="json"),
            "replay": self._replayed,
            "merge": self._merged,
            "export": self._exported,
        }
        self._right = {
            (name, reader): self._readers[reader](self._copy(name), False)
            for name, reader in {*self._pairs()}
            if name != "broken"
        }
        self._right["broken", "resume"] = self._right["all", "resume"]

    @staticmethod
    def _pairs() -> list[tuple[str, str]]:
        readers = ("resume", "rescore", "compare", "replay", "export")
        cheap = [*(("all", reader) for reader in readers), ("broken", "resume"), ("one", "merge"), ("one", "resume")]
        return [*cheap, *cheap, ("all", "report")]  # whose plots take longer than all others together

    def _evaluate(self, folder: Path, shard: str | None) -> None:
        async def main() -> None:
            model = f"scripted:{self.scratch / 'play.py'}"
            sizes: dict[str, Any] = {**SIZES, "n": 3, "t": 1}
            await evaluate(self.scratch / "thirds.toml", model, out=folder, shard=shard, **sizes)

        anyio.run(main)

    def _copy(self, name: str) -> Path:
        here = self.scratch / "here"
        for path in (here, self.scratch / "merged"):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self._whole / name, here)
        return here

    def _gone_on_with(self, folder: Path, trust: bool) -> Any:
        """As `rsa eval --resume` goes on."""
        job = EvalJob.resumed(folder, {}, {}, trust=trust)
        anyio.run(job.run, model_to_open(read_eval(folder, trust=trust).model))
        return _figures(folder)

    def _scored_again(self, folder: Path, trust: bool) -> Any:
        anyio.run(lambda: rescore(folder, trust=trust))
        return _figures(folder)

    def _merged(self, folder: Path, trust: bool) -> Any:
        merge([folder, self._whole / "two"], self.scratch / "merged", trust=trust)
        return _figures(self.scratch / "merged")

    def _replayed(self, folder: Path, trust: bool) -> Any:
        variants = [Variant(stop=("decided",)), Variant(t=0, n=2)]
        found = anyio.run(lambda: replay_folders([folder], variants, trust=trust))
        return found.model_dump(mode="json", exclude={"replays": {"__all__": {"folders"}}})

    def _exported(self, folder: Path, trust: bool) -> Any:
        return CLOCKS.sub(b"", export(folder, by="us", trust=trust).read_bytes())

    @property
    def cases(self) -> SearchStrategy[Case]:
        def of(pair: tuple[str, str]) -> SearchStrategy[Case]:
            folder = self._whole / pair[0]
            files = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
            tops = [name for name in files if "/" not in name and name.endswith((".json", ".jsonl"))]
            return st.fixed_dictionaries(
                {
                    "folder": st.just(pair[0]),
                    "then": st.just(pair[1]),
                    "trust": st.sampled_from((False, False, False, True)),
                    "edits": edits([*3 * tops, *files], most=2),
                }
            )

        return st.one_of([of(pair) for pair in self._pairs()])

    def enter(self, case: Case) -> str:
        folder = self._copy(case["folder"])
        apply(folder, case["edits"])
        found = self._readers[case["then"]](folder, case["trust"])
        if found == self._right[case["folder"], case["then"]]:
            return "right"
        if case["trust"]:
            return "taken on trust"
        if case["then"] == "report" and UNREAD in found:
            return "told on the page"
        raise DifferentError(f"{case['then']} of a harmed results folder")


def _figures(folder: Path) -> list[bytes]:
    """What depends on no clock."""
    return [(folder / name).read_bytes() for name in (RESULTS, CANDIDATES)]
