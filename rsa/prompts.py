"""Prompt files: one TOML file a task, with the Jinja2 templates `initial`, `aggregate` and `refine`, and `match` for
tournaments.

`problem` is the text of the problem, `tails` the list of decoded tails, and `attempts` two of them, each with its
`tail`, its `answer` and its `label`. `answer` says where a candidate's answer is found
(`rsa.answers.extract.AnswerRule`; `boxed` if it is missing). The built-in files are in configs/prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from engine.api import Message, Tool
from engine.documents import MAX_TOML_BYTES, DocumentError, contents, toml_table
from rsa.answers.extract import AnswerRule
from rsa.answers.verdicts import LABELS
from rsa.errors import PromptError, did_you_mean
from rsa.problem import Problem, prompt_json
from rsa.settings import resources

if TYPE_CHECKING:
    from jinja2 import Template

Prompt = tuple[Message, ...]
"""What one candidate is given: the conversation until it is the model's turn."""
TEMPLATES = ("initial", "aggregate", "refine")
MATCH = "match"
"""The template of those that a file may leave out: then its task has no tournaments."""
_KEYS = (*TEMPLATES, MATCH, "answer")
_PROBLEM_MARK, _TAIL_MARKS = "problem-goes-here", ("first-tail-goes-here", "second-tail-goes-here")
_ANSWER_MARKS = ("first-answer-goes-here", "second-answer-goes-here")


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one task. `sha256` is of the file's bytes."""

    name: str
    sha256: str
    answer: AnswerRule
    sources: dict[str, str]

    def initial(self, problem: Problem) -> Prompt:
        """The prompt of round 0: the conversation, the problem in the words of its template."""
        return (*problem.earlier, self._asked("initial", problem), *problem.later)

    def aggregate(self, problem: Problem, tails: Sequence[str]) -> Prompt:
        """The prompt of a later round; a single tail gets the `refine` wording.

        Tails of a problem after which tools were called know of the results: they come after these, in a turn of their
        own at the end of the prompt of round 0.
        """
        asked = self._asked("refine" if len(tails) == 1 else "aggregate", problem, tails=list(tails))
        return self._at_the_end(problem, asked)

    def match(self, problem: Problem, tails: Sequence[str], answers: Sequence[str]) -> Prompt:
        """The prompt that compares two attempts, at the place of that of a later round. The file has the template."""
        return self._at_the_end(problem, self._asked(MATCH, problem, attempts=_attempts(tails, answers)))

    @property
    def compares(self) -> bool:
        """Whether two attempts can be compared."""
        return MATCH in self.sources

    def _at_the_end(self, problem: Problem, asked: Message) -> Prompt:
        if problem.later:
            return (*self.initial(problem), asked.model_copy(update={"images": ()}))
        return (*problem.earlier, asked)

    def _asked(self, template: str, problem: Problem, **shown: Any) -> Message:
        """The problem in the words of a template."""
        return problem.itself.model_copy(update={"text": self._render(template, problem.text, **shown)})

    def _render(self, template: str, problem: str, **shown: Any) -> str:
        return self._compiled[template].render(problem=problem, **shown)

    @cached_property
    def _compiled(self) -> dict[str, Template]:
        from jinja2 import StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        # Sandboxed: prompt files are passed around, and one should not be able to run code.
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
        return {name: environment.from_string(source) for name, source in self.sources.items()}

    def check(self) -> None:
        """Render everything once. Raises PromptError if a template is broken or leaves out the problem, a tail or an
        answer: better before round 0 than after it."""
        from jinja2 import TemplateError

        shown: dict[str, dict[str, Any]] = {
            "initial": {"tails": []},
            "aggregate": {"tails": list(_TAIL_MARKS)},
            "refine": {"tails": list(_TAIL_MARKS[:1])},
            MATCH: {"attempts": _attempts(_TAIL_MARKS, _ANSWER_MARKS)},
        }
        for template in self.sources:
            try:
                text = self._render(template, _PROBLEM_MARK, **shown[template])
            except TemplateError as error:
                number = getattr(error, "lineno", None)
                line = f" (line {number})" if number else ""
                raise PromptError(f"prompts {self.name}: template {template!r}{line}: {error}") from None
            except Exception as error:
                # A template is a program of the user's: whatever it raises is a fault of the file.
                raise PromptError(f"prompts {self.name}: template {template!r} fails: {error}") from None
            for mark, variable in _marks(**shown[template]):
                if mark not in text:
                    raise PromptError(f"prompts {self.name}: template {template!r} does not show {{{{ {variable} }}}}")


def _attempts(tails: Sequence[str], answers: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"label": label, "tail": tail, "answer": answer}
        for label, tail, answer in zip(LABELS, tails, answers, strict=True)
    ]


def _marks(tails: Sequence[str] = (), attempts: Sequence[dict[str, str]] = ()) -> Iterator[tuple[str, str]]:
    """What a template has to show, each with the name of its variable."""
    yield _PROBLEM_MARK, "problem"
    yield from ((tail, "tails") for tail in tails)
    for attempt in attempts:
        yield attempt["tail"], "attempt.tail"
        yield attempt["answer"], "attempt.answer"


def prompt_sha256(prompt: Prompt, tools: Sequence[Tool] = ()) -> str:
    """What a log calls a whole prompt."""
    return hashlib.sha256(prompt_json(prompt, tools).encode()).hexdigest()


def load_prompts(task: str) -> PromptSet:
    """The prompts of a task: the name of a built-in file, or the path of one's own.

    Raises ConfigError for an unknown name, PromptError for a file that is unreadable or incomplete.
    """
    path = resources.find("prompts", task)
    return _checked(task, path, contents(path, MAX_TOML_BYTES, PromptError))


@lru_cache(maxsize=32)
def _checked(task: str, path: Path, data: bytes) -> PromptSet:
    """The prompts in the bytes of a file: checking compiles them, which takes milliseconds, and a server's runs ask
    for the same ones again and again."""
    table = _table(path, data)
    for key in table:
        if key not in _KEYS:
            raise PromptError(f"prompts {task}: unknown key {key!r}{did_you_mean(key, _KEYS)}")
    for key in TEMPLATES:
        if not isinstance(table.get(key), str):
            raise PromptError(f"prompts {task}: template {key!r} is missing; a prompts file has {', '.join(TEMPLATES)}")
    rule = table.get("answer", "boxed")
    if rule not in get_args(AnswerRule):
        raise PromptError(f"prompts {task}: answer = {rule!r}: should be one of {', '.join(get_args(AnswerRule))}")
    if not isinstance(table.get(MATCH, ""), str):
        raise PromptError(f"prompts {task}: template {MATCH!r} should be a text")
    sources = {key: table[key] for key in (*TEMPLATES, MATCH) if key in table}
    prompts = PromptSet(task, hashlib.sha256(data).hexdigest(), rule, sources)
    prompts.check()
    return prompts


def _table(path: Path, data: bytes) -> dict[str, Any]:
    try:
        return toml_table(data)
    except DocumentError as error:
        raise PromptError(f"{path} cannot be read: {error}") from None
