"""What run.json holds: everything that makes a run this one, and what it takes to resume it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from engine.api import ImagePart, Message, ModelInfo, Role, Tool, ToolCall
from rsa.errors import ProblemError, RunFolderError
from rsa.folders import this_machine, versions_of, write_atomically
from rsa.problem import Problem, Turn
from rsa.prompts import PromptSet
from rsa.results import Record
from rsa.settings.config import RSAConfig

FORMAT = 8
"""The number of the format of run folders: raised when an older reader could not understand one."""
IMAGES = "images"


class LoggedTurn(Record):
    """A turn of the conversation. `images` are the names of files in images/: their SHA-256; `calls` and `answers` as
    of `rsa.Turn`."""

    role: Role
    text: str
    images: tuple[str, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    answers: str | None = None

    @classmethod
    def of(cls, message: Message) -> LoggedTurn:
        images = tuple(image.sha256 for image in message.images)
        return cls(role=message.role, text=message.text, images=images, calls=message.calls, answers=message.answers)

    def as_turn(self, folder: Path) -> Turn:
        """The turn, its images read from a folder. Raises OSError."""
        images = [ImagePart(data=(folder / name).read_bytes()) for name in self.images]
        return Turn(self.role, self.text, images, self.calls, self.answers)


class RunRecord(Record):
    """The content of run.json. The last turn of a user in `conversation` is the problem itself; `tools` are those that
    it offers."""

    format: int = FORMAT
    created_at: str
    problem_id: str
    conversation: tuple[LoggedTurn, ...] = Field(min_length=1)
    tools: tuple[Tool, ...] = ()
    config: RSAConfig
    model: ModelInfo
    task: str
    prompt_sha256: str
    versions: dict[str, str]
    machine: dict[str, str | int | None]

    @classmethod
    def of(cls, problem: Problem, config: RSAConfig, model: ModelInfo, prompts: PromptSet) -> RunRecord:
        """The record of a run that starts now, on this machine."""
        return cls(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            problem_id=problem.id,
            conversation=tuple(LoggedTurn.of(message) for message in problem.messages),
            tools=problem.tools,
            config=config,
            model=model,
            task=prompts.name,
            prompt_sha256=prompts.sha256,
            versions=versions_of("markovian-rsa", "anyio", "pydantic", "jinja2"),
            machine=this_machine(),
        )

    @property
    def problem(self) -> str:
        """The text of the problem itself."""
        return self.conversation[self.at].text

    @property
    def earlier(self) -> tuple[LoggedTurn, ...]:
        """What stands before it."""
        return self.conversation[: self.at]

    @property
    def later(self) -> tuple[LoggedTurn, ...]:
        """What stands after it: calls of tools and their results."""
        return self.conversation[self.at + 1 :]

    @property
    def at(self) -> int:
        """The place of the problem itself in the conversation."""
        places = [at for at, turn in enumerate(self.conversation) if turn.role == "user"]
        return places[-1] if places else len(self.conversation) - 1

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images of all turns, in order."""
        return tuple(name for turn in self.conversation for name in turn.images)

    def identity(self) -> dict[str, object]:
        """What must be the same for a run to be resumed."""
        config = {f"config.{key}": value for key, value in self.config.values().items()}
        model = {"model fingerprint": self.model.fingerprint or self.model.name}
        return {
            "problem": self.problem,
            "earlier turns": [_said(turn) for turn in self.earlier],
            "later turns": [_said(turn) for turn in self.later],
            "tools": [tool.model_dump() for tool in self.tools],
            "images": [turn.images for turn in self.conversation],
            "problem_id": self.problem_id,
            "prompts": self.prompt_sha256,
            **config,
            **model,
        }


def _said(turn: LoggedTurn) -> tuple[object, ...]:
    return turn.role, turn.text, [(call.name, call.arguments) for call in turn.calls], turn.answers


def keep_images(folder: Path, problem: Problem) -> None:
    """Write the images of a problem into a run folder, each once. Raises OSError."""
    for image in problem.images:
        (folder / IMAGES).mkdir(exist_ok=True)
        write_atomically(folder / IMAGES / image.sha256, image.data)


def logged_problem(path: Path, conversation: Sequence[LoggedTurn], tools: Sequence[Tool], problem_id: str) -> Problem:
    """The problem that the record at `path` tells of; its images are in the same run folder. Raises RunFolderError."""
    try:
        turns = [turn.as_turn(path.parent / IMAGES) for turn in conversation]
    except OSError as error:
        raise RunFolderError(f"cannot read an image of the run: {error.filename}: {error.strerror}") from None
    try:
        return Problem.conversation(turns, tools=tools, problem_id=problem_id)
    except ProblemError as error:
        raise RunFolderError(f"{path} cannot be understood: {error}") from None
