"""Docstrings of constants can be read alone, as an editor shows them: each names its thing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("rsa", "engine", "evals", "benchmarks", "examples")
# fmt: off
HANGING = frozenset({
    "After", "Also", "As", "At", "Before", "Begins", "Below", "Beside", "Beyond", "Ends", "For", "From", "In",
    "Kept", "Less", "Like", "More", "Of", "On", "Per", "Said", "So", "Such", "Than", "Those", "To", "Under",
    "Until", "Upon", "When", "Where", "With", "Within", "Without",
})
# fmt: on
"""The first words of a phrase that hangs on the name above it: "Of one inside the other."."""


def documented_constants(source: str) -> Iterator[tuple[int, str]]:
    """The line and the docstring of each constant of a module or a class that has one."""
    tree = ast.parse(source)
    for holder in ast.walk(tree):
        if isinstance(holder, ast.Module | ast.ClassDef):
            for before, node in pairwise(holder.body):
                if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(node, ast.Expr):
                    value = node.value
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        yield node.lineno, value.value


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_of_constants_stand_alone(folder: str) -> None:
    hanging = [
        f"{path.relative_to(ROOT)}:{line}: {text.split(chr(10))[0]}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in documented_constants(path.read_text(encoding="utf-8"))
        if text.split()[0].rstrip(",:;") in HANGING
    ]
    assert not hanging, hanging


def test_a_docstring_that_hangs_is_found() -> None:
    (found,) = documented_constants('MAX_WRAPPERS = 8\n"""Of one inside the other."""\n')
    assert found == (2, "Of one inside the other.")
    assert found[1].split()[0] in HANGING
