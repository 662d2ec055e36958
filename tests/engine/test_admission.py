"""What an engine says it lacks, and refuses for that."""

from __future__ import annotations

import pytest

from engine.admission import check_requests, check_room
from engine.api import AnswerCue, GenerationRequest, ImagePart, Message, ModelInfo, SamplingParams
from engine.errors import ContextError, RequestError

ABLE = ModelInfo(name="m", images=True, logprobs=True)
UNABLE = ModelInfo(name="m", conclude=False, seeds=False, exact_tokens=False)
SEEING = GenerationRequest(id="a", messages=(Message(role="user", text="?", images=(ImagePart(data=b"x"),) * 2),))
CURIOUS = GenerationRequest(id="a", messages=(Message(role="user", text="?"),), likelihoods=True)
CUED = GenerationRequest(
    id="a", messages=(Message(role="user", text="?"),), sampling=SamplingParams(cue=AnswerCue(text="="))
)


@pytest.mark.parametrize(
    ("capability", "says"),
    [
        ("images", "m reads text only: use a model that sees"),
        (
            "conclude",
            "m cannot be made to answer in the midst of its reasoning: use a model of the mlx engine, or a server that "
            "can go on with an assistant's turn",
        ),
        ("seeds", "m draws without seeds: use a model of the mlx engine"),
        ("exact_tokens", "m counts tokens roughly: use a model of the mlx engine, or name a `tokenizer`"),
        (
            "logprobs",
            "m does not say how likely its tokens were: use a model of the mlx engine, or a server that gives "
            "log-probabilities",
        ),
    ],
)
def test_who_lacks_something_says_who_can(capability: str, says: str) -> None:
    assert ABLE.lacks(capability) is None  # type: ignore[arg-type]
    assert UNABLE.lacks(capability) == says  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (SEEING, "request 'a' has images, but m reads text only: use a model that sees"),
        (CUED, "request 'a' has a cue, but m cannot be made to answer in the midst of its reasoning"),
        (
            CURIOUS,
            "request 'a' wants likelihoods, but m does not say how likely its tokens were: use a model of the mlx",
        ),
    ],
)
def test_it_is_refused_by_name(request_: GenerationRequest, says: str) -> None:
    check_requests([request_], ABLE)
    with pytest.raises(RequestError, match=says):
        check_requests([request_], UNABLE)


def test_a_prompt_leaves_room_for_a_token_or_is_refused() -> None:
    tight = ModelInfo(name="m", context_tokens=100, images=True)
    check_room(CUED, 10**9, ABLE)
    check_room(CUED, 99, tight)
    with pytest.raises(ContextError, match="'a': its prompt has 100 tokens and m reads 100 at most: shorten its texts"):
        check_room(CUED, 100, tight)
    with pytest.raises(ContextError, match="900 of them for 2 images, and m reads 100 at most: use fewer or smaller"):
        check_room(SEEING, 1100, tight, image_tokens=900)
