"""Score files: answers that a model wrote, one of their lines harmed. The others keep their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
from fuzzing.core import Case, DifferentError, Door
from fuzzing.edits import apply, edits, wild, written
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from evals.errors import DataError
from evals.score_file import score_file

LETTERS = {"question_type": "multi-choice", "options": ["root", "leaf", "stem"]}
LINES: dict[str, list[dict[str, Any]]] = {
    "choice": [
        {"gold": "B", "candidate": "\\boxed{B}"},
        {"gold": 2, "candidate": "<think>hm</think>(C)"},
        {"gold": "A", "candidate": "stem", **LETTERS},
    ],
    "integer": [{"gold": "025", "candidate": "\\boxed{25}"}, {"gold": 204, "candidate": "it is 204"}],
    "anls": [{"gold": ["a tree", "trees"], "candidate": "a tre"}, {"gold": "x", "candidate": "<think> y"}],
    "vqa": [{"gold": ["two", {"answer": "2"}, "2"], "candidate": "\\boxed{2}"}],
    "mmmu": [{"gold": "B", "candidate": "Answer: B", **LETTERS}, {"gold": ["3.5"], "candidate": "3.50"}],
    "mathvista": [
        {
            "gold": "4",
            "candidate": "\\boxed{4}",
            "question_type": "free_form",
            "answer_type": "integer",
            "precision": 1,
        },
        {
            "gold": "leaf",
            "candidate": "B",
            "question_type": "multi_choice",
            "answer_type": "text",
            "choices": ["a", "b"],
        },
    ],
    "countdown": [{"gold": {"numbers": [7, 5, 9, 2], "target": 24}, "candidate": "\\boxed{7+5+9+2+1}"}],
    "chain": [{"gold": {"start": 43, "ops": [["+", 5], ["*", 3]]}, "candidate": "\\boxed{47}"}],
    "sums": [{"gold": {"terms": [4821, 93, -120]}, "candidate": "\\boxed{4794}"}],
}
NASTY = (
    *(
        "\\boxed{" * 3000,
        "\\boxed{" + "{" * 500 + "}" * 501,
        "\\frac{" * 300 + "}" * 300,
        "9^{9^{9}}",
        "\\boxed{9^9^9}",
    ),
    *("\ud800", "\0", "x" * 100_000, "<think>" * 1000, "</think>" * 1000, "\\boxed{\\sqrt{-1}}", "\\boxed{1/0}"),
    *(
        "\\boxed{1e999999999}",
        "\\boxed{" + "9" * 5000 + "}",
        "\\boxed{٣}",
        "\\boxed{\u202e52}",
        "((((" * 500,
        "1+" * 500,
    ),
    *("\\boxed{10**10**10}", "\\boxed{(" + "1+" * 200 + "1)}", "= " * 1000, "- " * 2000 + "1", "A" * 3000 + "B"),
)


class Scores(Door):
    name = "scores"
    share = 24

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._texts = {
            metric: [written({"id": f"q{number}", **line}) for number, line in enumerate(3 * lines)]
            for metric, lines in LINES.items()
        }
        self._right = {metric: self._scored(metric, texts)[0] for metric, texts in self._texts.items()}

    @property
    def cases(self) -> SearchStrategy[Case]:
        anything = st.one_of(st.sampled_from(NASTY), st.text(max_size=40), wild())
        change = st.fixed_dictionaries(
            {"key": st.sampled_from(("candidate", "gold", "id", "options", "question_type", "x")), "value": anything}
        )
        harm = st.one_of(
            st.fixed_dictionaries({"edits": edits(["line.json"])}), st.fixed_dictionaries({"change": change})
        )
        return st.fixed_dictionaries({"metric": st.sampled_from(list(LINES)), "at": st.integers(0, 5), "harm": harm})

    def enter(self, case: Case) -> str:
        metric, texts = case["metric"], self._texts[case["metric"]]
        at = case["at"] % len(texts)
        harmed = self._harmed(texts[at], case["harm"])
        if harmed is None:
            return "refused"  # the file itself is gone
        lines, error = self._scored(metric, [*texts[:at], harmed, *texts[at + 1 :]])
        right = self._right[metric]
        if lines[:at] != right[:at]:
            raise DifferentError("lines before the harmed one")
        if error is not None:
            raise error
        rest = len(texts) - at - 1
        if rest and lines[-rest:] != right[-rest:]:
            raise DifferentError("lines after the harmed one")
        return "right"

    def _harmed(self, text: str, harm: dict[str, Any]) -> str | bytes | None:
        if "change" in harm:
            return written({**json.loads(text), harm["change"]["key"]: harm["change"]["value"]})
        path = self.scratch / "line.json"
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_text(text)
        apply(self.scratch, harm["edits"])
        return path.read_bytes() if path.is_file() else None

    def _scored(self, metric: str, texts: list[Any]) -> tuple[list[str], DataError | None]:
        """The lines that were written, and what ended it early."""
        path = self.scratch / "answers.jsonl"
        path.write_bytes(b"\n".join(text if isinstance(text, bytes) else text.encode() for text in texts))
        written: list[str] = []
        try:
            anyio.run(score_file, path, metric, written.append)
        except DataError as error:
            return written, error
        return written, None
