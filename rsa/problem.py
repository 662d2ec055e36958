"""The problem of a run: a conversation that ends with a user's turn, and the id that its randomness depends on.

    Problem("What is 17 * 23?")
    Problem(
        "And of 18?",
        system="Answer in one line.",
        earlier=[Turn("user", "Which numbers divide 12?"), Turn("assistant", "1, 2, 3, 4, 6 and 12.")],
    )

Images, of the problem or of a turn, are paths or the bytes of files: `images=[Path("chart.png")]`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar, get_args

from engine.api import ImagePart, Message, Role
from rsa.errors import ProblemError
from rsa.words import shortened

ImageLike = ImagePart | bytes | Path
"""An image as the bytes of its file, or the path of one. A text is never taken for a path: it may be a stranger's."""
IMAGE_KINDS = "PNG, JPEG, GIF, WebP, BMP or TIFF"
"""The kinds of image files that are taken, as messages name them."""
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")
_SHOWN_CHARACTERS = 60
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation, as people give it. `images` come before `text`, as chat templates put them."""

    role: Role
    text: str
    images: Sequence[ImageLike] = ()


@dataclass(frozen=True, slots=True, init=False)
class Problem:
    """What is to be solved. Its last turn, a user's, is the problem itself, which every round's prompt puts in its own
    words; the turns before it stand before each prompt as they are.

    messages  the whole conversation.
    id        names it in run logs and seeds all draws.
    """

    messages: tuple[Message, ...]
    id: str

    def __init__(
        self,
        text: str,
        *,
        images: Sequence[ImageLike] = (),
        system: str | None = None,
        earlier: Iterable[Turn | Message] = (),
        problem_id: str | None = None,
    ) -> None:
        """Check a problem and load its images.

        images      of the problem itself; those of earlier turns are in `earlier`.
        system      what the model is told before the conversation.
        earlier     the turns before the problem, the first one first.
        problem_id  the id; without one it is made from the content.

        Raises ProblemError for a text that is blank or no Unicode, for an image that is missing, unreadable or no
        image, and for turns that make no conversation.
        """
        if not isinstance(text, str):
            raise ProblemError(f"the problem is {_shown(text)}: should be a text or a Problem")
        if not text.strip():
            raise ProblemError("the problem is empty: give it as text, a file, or on standard input")
        turns: list[Turn | Message] = [] if system is None else [Turn("system", system)]
        turns += _listed(earlier, "earlier", "turns")
        messages = [_message(turn, number) for number, turn in enumerate(turns, 1)]
        if any(message.role == "system" for message in messages[1:]):
            raise ProblemError("a system message can only come first: the conversation has one after another turn")
        messages.append(_message(Turn("user", text, images), None))
        object.__setattr__(self, "messages", tuple(messages))
        object.__setattr__(self, "id", _content_id(messages) if problem_id is None else _checked(problem_id))

    @classmethod
    def conversation(cls, turns: Iterable[Turn | Message], *, problem_id: str | None = None) -> Self:
        """The problem that a whole conversation ends with. Raises ProblemError as the class does, and for a
        conversation whose last turn is not a user's."""
        given = _listed(turns, "a conversation", "turns")
        if not given:
            raise ProblemError("the conversation is empty: its last turn, a user's, is the problem")
        last = _message(given[-1], len(given))
        if last.role != "user":
            raise ProblemError(
                f"the conversation ends with a turn of the {last.role}: its last turn should be a user's, the problem"
            )
        return cls(last.text, images=last.images, earlier=given[:-1], problem_id=problem_id)

    @property
    def text(self) -> str:
        """Of the problem itself."""
        return self.messages[-1].text

    @property
    def earlier(self) -> tuple[Message, ...]:
        """What stands before the problem: the system message, if there is one, and earlier turns."""
        return self.messages[:-1]

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """Of all turns, in order."""
        return tuple(image for message in self.messages for image in message.images)


def _message(turn: Turn | Message, number: int | None) -> Message:
    """A turn as the engine takes it, its images loaded. `number` counts earlier turns; None: the problem itself."""
    where = "the problem" if number is None else f"turn {number} of the conversation"
    if not isinstance(turn, Turn | Message):
        raise ProblemError(f"{where} is {_shown(turn)}: should be a Turn(role, text)")
    if turn.role not in get_args(Role):
        raise ProblemError(f"{where} has the role {_shown(turn.role)}: should be one of {', '.join(get_args(Role))}")
    if not isinstance(turn.text, str):
        raise ProblemError(f"the text of {where} is {_shown(turn.text)}: should be a text")
    images = tuple(_image(image) for image in _listed(turn.images, "images", "images"))
    if not turn.text.strip() and not images:
        raise ProblemError(f"{where} is empty: leave it out")
    if not _is_unicode(turn.text):
        raise ProblemError(f"{where} is not valid Unicode: save it as UTF-8")
    return Message(role=turn.role, text=turn.text, images=images)


def _listed(given: Iterable[T], name: str, what: str) -> list[T]:
    """The items of what should be a list; a text or the bytes of one image are none, though Python would iterate."""
    if isinstance(given, str | bytes | bytearray) or not isinstance(given, Iterable):
        raise ProblemError(f"{name} is {_shown(given)}: should be a list of {what}")
    return list(given)


def _image(image: ImageLike) -> ImagePart:
    if isinstance(image, ImagePart):
        return image
    if isinstance(image, str):
        raise ProblemError(f"image {_shown(image)} is a text: give a file as Path({_shown(image)})")
    if not isinstance(image, bytes | Path):
        raise ProblemError(f"image {_shown(image)} is no image: give the bytes of a file, or a Path")
    name, data = ("an image", image) if isinstance(image, bytes) else (f"image {image}", _bytes_of(image))
    if not is_image(data):
        raise ProblemError(f"{name} is empty or no {IMAGE_KINDS} file")
    return ImagePart(data=data)


def is_image(data: bytes) -> bool:
    """Whether a file begins as one of IMAGE_KINDS does; whether it is whole, the engine finds out."""
    return data.startswith(_SIGNATURES)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise ProblemError(f"cannot read image {path}: {error.strerror}") from None
    except (RuntimeError, ValueError) as error:  # no such user's home; a NUL in the name
        raise ProblemError(f"cannot read image {_shown(str(path))}: {error}") from None


def _checked(problem_id: object) -> str:
    if not isinstance(problem_id, str) or not problem_id or not _is_unicode(problem_id):
        raise ProblemError(f"problem_id is {_shown(problem_id)}: should be a text that is not empty")
    return problem_id


def _content_id(messages: Sequence[Message]) -> str:
    """A conversation and a problem that spells it out have different ids: they are digests of two kinds."""
    if len(messages) > 1:
        turns = [[turn.role, turn.text, [image.sha256 for image in turn.images]] for turn in messages]
        return hashlib.blake2b(json.dumps(turns, ensure_ascii=True).encode(), digest_size=8).hexdigest()
    digest = hashlib.sha256(messages[0].text.encode())
    for image in messages[0].images:
        digest.update(bytes.fromhex(image.sha256))
    return digest.hexdigest()[:16]


def _is_unicode(text: str) -> bool:
    """Whether it is free of lone surrogates, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    return shortened(" ".join(repr(value).split()), _SHOWN_CHARACTERS)
