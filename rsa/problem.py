"""The problem of a run: a conversation that ends with a user's turn, and the id that its randomness depends on.

    Problem("What is 17 * 23?")
    Problem(
        "And of 18?",
        system="Answer in one line.",
        earlier=[Turn("user", "Which numbers divide 12?"), Turn("assistant", "1, 2, 3, 4, 6 and 12.")],
    )

Images, of the problem or of a turn, are paths or the bytes of files: `images=[Path("chart.png")]`. `tools` are what the
model may call; a conversation may go on after the problem with calls and their results, the last of which it ends with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar, get_args

from engine.api import ImagePart, Message, Role, Tool, ToolCall
from engine.documents import DocumentError, read_all
from engine.paths import path_named
from rsa.errors import ProblemError
from rsa.words import shown

ImageLike = ImagePart | bytes | Path
"""An image as the bytes of its file, or the path of one. A text is never taken for a path: it may be a stranger's."""
IMAGE_KINDS = "PNG, JPEG, GIF, WebP, BMP or TIFF"
"""The kinds of image files that are taken, as messages name them."""
MAX_IMAGE_BYTES = 100_000_000
"""The largest file of an image that is read."""
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation, as people give it. `images` come before `text`, as chat templates put them.

    calls    of tools, with which an assistant's turn ended.
    answers  the id of the call whose result a tool's turn is.
    """

    role: Role
    text: str
    images: Sequence[ImageLike] = ()
    calls: Sequence[ToolCall] = ()
    answers: str | None = None


@dataclass(frozen=True, slots=True, init=False)
class Problem:
    """What is to be solved. Its last turn of a user is the problem itself, which every round's prompt puts in its own
    words; the turns before it and after it stand in each prompt as they are.

    messages  the whole conversation.
    id        names it in run logs and seeds all draws.
    tools     that the model may call.
    """

    messages: tuple[Message, ...]
    id: str
    tools: tuple[Tool, ...]

    def __init__(
        self,
        text: str,
        *,
        images: Sequence[ImageLike] = (),
        system: str | None = None,
        earlier: Iterable[Turn | Message] = (),
        later: Iterable[Turn | Message] = (),
        tools: Iterable[Tool] = (),
        problem_id: str | None = None,
    ) -> None:
        """Check a problem and load its images.

        images      of the problem itself; those of earlier turns are in `earlier`.
        system      what the model is told before the conversation.
        earlier     the turns before the problem, the first one first.
        later       what came after it: turns of the assistant that call tools, and the results, which it ends with.
        tools       that the model may call.
        problem_id  the id; without one it is made from the content.

        Raises ProblemError for a text that is blank or no Unicode, for an image that is missing, unreadable or no
        image, for turns that make no conversation, and for tools that are none.
        """
        if not isinstance(text, str):
            raise ProblemError(f"the problem is {shown(text)}: should be a text or a Problem")
        if not text.strip():
            raise ProblemError("the problem is empty: give it as text, a file, or on standard input")
        turns: list[Turn | Message] = [] if system is None else [Turn("system", system)]
        turns += _listed(earlier, "earlier", "turns")
        messages = [_message(turn, number) for number, turn in enumerate(turns, 1)]
        if any(message.role == "system" for message in messages[1:]):
            raise ProblemError("a system message can only come first: the conversation has one after another turn")
        messages.append(_message(Turn("user", text, images), None))
        messages += [
            _message(turn, number) for number, turn in enumerate(_listed(later, "later", "turns"), len(messages) + 1)
        ]
        _check_calls(messages)
        offered = _tools(tools)
        object.__setattr__(self, "messages", tuple(messages))
        object.__setattr__(self, "tools", offered)
        object.__setattr__(self, "id", _content_id(messages, offered) if problem_id is None else _checked(problem_id))

    @classmethod
    def conversation(
        cls, turns: Iterable[Turn | Message], *, tools: Iterable[Tool] = (), problem_id: str | None = None
    ) -> Self:
        """The problem that a whole conversation ends with: its last turn of a user, or that with calls and results
        after it. Raises ProblemError as the class does, and for a conversation that ends otherwise."""
        given = _listed(turns, "a conversation", "turns")
        if not given:
            raise ProblemError("the conversation is empty: its last turn, a user's, is the problem")
        messages = [_message(turn, number) for number, turn in enumerate(given, 1)]
        at = _last_of_user(messages)
        if messages[-1].role not in ("user", "tool"):
            raise ProblemError(
                f"the conversation ends with a turn of the {messages[-1].role}: its last turn should be a user's, the "
                "problem"
            )
        if at is None:
            raise ProblemError("the conversation has no turn of a user: its last one is the problem")
        asked, before, after = messages[at], messages[:at], messages[at + 1 :]
        return cls(asked.text, images=asked.images, earlier=before, later=after, tools=tools, problem_id=problem_id)

    @property
    def text(self) -> str:
        """Of the problem itself."""
        return self.itself.text

    @property
    def itself(self) -> Message:
        """The turn that is the problem."""
        return self.messages[self._at]

    @property
    def earlier(self) -> tuple[Message, ...]:
        """What stands before the problem: the system message, if there is one, and earlier turns."""
        return self.messages[: self._at]

    @property
    def later(self) -> tuple[Message, ...]:
        """What came after the problem: calls of tools and their results."""
        return self.messages[self._at + 1 :]

    @property
    def takes_tools(self) -> bool:
        """Whether its model has to read of tools."""
        return bool(self.tools) or any(message.calls or message.role == "tool" for message in self.messages)

    @property
    def _at(self) -> int:
        at = _last_of_user(self.messages)
        assert at is not None, "the problem is a turn of a user"
        return at

    @property
    def characters(self) -> int:
        """Of the texts of all turns."""
        return sum(len(message.text) for message in self.messages)

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """Of all turns, in order."""
        return tuple(image for message in self.messages for image in message.images)


def _message(turn: Turn | Message, number: int | None) -> Message:
    """A turn as the engine takes it, its images loaded. `number` counts earlier turns; None: the problem itself."""
    where = "the problem" if number is None else f"turn {number} of the conversation"
    if not isinstance(turn, Turn | Message):
        raise ProblemError(f"{where} is {shown(turn)}: should be a Turn(role, text)")
    if turn.role not in get_args(Role):
        raise ProblemError(f"{where} has the role {shown(turn.role)}: should be one of {', '.join(get_args(Role))}")
    if not isinstance(turn.text, str):
        raise ProblemError(f"the text of {where} is {shown(turn.text)}: should be a text")
    images = tuple(_image(image) for image in _listed(turn.images, "images", "images"))
    calls = tuple(_call(call, where) for call in _listed(turn.calls, f"the calls of {where}", "calls"))
    if calls and turn.role != "assistant":
        raise ProblemError(f"{where} calls tools: only an assistant's turn can")
    if not turn.text.strip() and not images and not calls and turn.role != "tool":
        raise ProblemError(f"{where} is empty: leave it out")
    if not _is_unicode(turn.text):
        raise ProblemError(f"{where} is not valid Unicode: save it as UTF-8")
    if not isinstance(turn.answers, str | None):
        raise ProblemError(f"{where} answers {shown(turn.answers)}: should be the id of a call")
    if (turn.role == "tool") != isinstance(turn.answers, str):
        told = "names no call that it answers" if turn.role == "tool" else "answers a call: only a tool's turn can"
        raise ProblemError(f"{where} {told}")
    return Message(role=turn.role, text=turn.text, images=images, calls=calls, answers=turn.answers)


def _call(call: ToolCall, where: str) -> ToolCall:
    if not isinstance(call, ToolCall):
        raise ProblemError(f"a call in {where} is {shown(call)}: should be a ToolCall(id=..., name=..., arguments=...)")
    if call.values is None:
        raise ProblemError(f"the arguments of the call {shown(call.id)} in {where} are no JSON object")
    if not _is_unicode(call.model_dump_json()):
        raise ProblemError(f"the call {shown(call.id)} in {where} is not valid Unicode")
    return call


def _check_calls(messages: Sequence[Message]) -> None:
    """Raises ProblemError for the result of a call that nobody made before it."""
    made: set[str] = set()
    for number, message in enumerate(messages, 1):
        if message.answers is not None and message.answers not in made:
            raise ProblemError(
                f"turn {number} of the conversation answers the call {shown(message.answers)}, which no turn before "
                "it makes"
            )
        made.update(call.id for call in message.calls)


def _tools(given: Iterable[Tool]) -> tuple[Tool, ...]:
    tools = tuple(_listed(given, "tools", "tools"))
    if not tools:
        return tools
    from rsa.tools.schemas import check_tool  # takes a while to import, and few problems have tools

    names: set[str] = set()
    for tool in tools:
        if not isinstance(tool, Tool):
            raise ProblemError(f"a tool is {shown(tool)}: should be a Tool(name=..., description=..., parameters=...)")
        check_tool(tool)
        if tool.name in names:
            raise ProblemError(f"two tools have the name {shown(tool.name)}: give each its own")
        names.add(tool.name)
    return tools


def _last_of_user(messages: Sequence[Message]) -> int | None:
    return next((at for at in range(len(messages) - 1, -1, -1) if messages[at].role == "user"), None)


def _listed(given: Iterable[T], name: str, what: str) -> list[T]:
    """The items of what should be a list; a text or the bytes of one image are none, though Python would iterate."""
    if isinstance(given, str | bytes | bytearray) or not isinstance(given, Iterable):
        raise ProblemError(f"{name} is {shown(given)}: should be a list of {what}")
    return list(given)


def _image(image: ImageLike) -> ImagePart:
    if isinstance(image, ImagePart):
        return image
    if isinstance(image, str):
        raise ProblemError(f"image {shown(image)} is a text: give a file as Path({shown(image)})")
    if not isinstance(image, bytes | Path):
        raise ProblemError(f"image {shown(image)} is no image: give the bytes of a file, or a Path")
    name, data = ("an image", image) if isinstance(image, bytes) else (f"image {image}", _bytes_of(image))
    if not is_image(data):
        raise ProblemError(f"{name} is empty or no {IMAGE_KINDS} file")
    return ImagePart(data=data)


def is_image(data: bytes) -> bool:
    """Whether a file begins as one of IMAGE_KINDS does; whether it is whole, the engine finds out."""
    return data.startswith(_SIGNATURES)


def _bytes_of(path: Path) -> bytes:
    try:
        with path_named(path, ProblemError, "an image").open("rb") as file:
            return read_all(file, MAX_IMAGE_BYTES)
    except (OSError, DocumentError) as error:
        raise ProblemError(f"cannot read image {path}: {getattr(error, 'strerror', error)}") from None


def _checked(problem_id: object) -> str:
    if not isinstance(problem_id, str) or not problem_id or not _is_unicode(problem_id):
        raise ProblemError(f"problem_id is {shown(problem_id)}: should be a text that is not empty")
    return problem_id


def _content_id(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    """A conversation and a problem that spells it out have different ids: they are digests of two kinds."""
    if len(messages) > 1 or tools:
        return hashlib.blake2b(prompt_json(messages, tools).encode(), digest_size=8).hexdigest()
    digest = hashlib.sha256(messages[0].text.encode())
    for image in messages[0].images:
        digest.update(bytes.fromhex(image.sha256))
    return digest.hexdigest()[:16]


def prompt_json(messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
    """All that a prompt is made from, as one text; images as their digests."""
    turns = [[turn.role, turn.text, [image.sha256 for image in turn.images], *_of_tools(turn)] for turn in messages]
    told = [tool.model_dump() for tool in tools]
    return json.dumps([*turns, {"tools": told}] if told else turns, ensure_ascii=True)


def _of_tools(turn: Message) -> list[object]:
    calls = [[call.id, call.name, call.arguments] for call in turn.calls]
    return [calls, turn.answers] if calls or turn.answers is not None else []


def _is_unicode(text: str) -> bool:
    """Whether it is free of lone surrogates, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
