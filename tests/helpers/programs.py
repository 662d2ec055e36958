"""Programs that people are shown: of a README, and indented in docstrings; and running them as they stand."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

import anyio


def of_markdown(path: Path) -> list[str]:
    """What stands between ```python and ```."""
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def of_docstrings(path: Path) -> Iterator[str]:
    """Blocks of docstrings that are indented by four and do something: an import, or a call."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = inspect.cleandoc(ast.get_docstring(node) or "")
            for block in re.findall(r"(?:(?<=\n\n)|^)((?: {4}.*\n?|\n(?= {4}))+)", text):
                program = textwrap.dedent(block).strip() + "\n"
                if _does_something(program):
                    yield program


def run(program: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """Run it where these names are known; the names there are then. `await` may stand at its top."""
    names = {**names, "__name__": "__main__"}
    code = compile(program, "<program>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        anyio.run(_awaited, code, names)
    else:
        exec(code, names)
    return names


async def _awaited(code: CodeType, names: dict[str, Any]) -> None:
    await eval(code, names)


def _does_something(program: str) -> bool:
    try:
        tree = compile(program, "<program>", "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Call | ast.Import | ast.ImportFrom) for node in ast.walk(tree))
