"""What stands in the body of a request."""

from __future__ import annotations

import base64

import pytest

from engine.api import ImagePart, Message, SamplingParams
from engine.images import read_image
from engine.openai.bodies import OPTIONAL, Capabilities, chat_body, completion_body, seeded, turns
from engine.openai.probe import white_square


def test_images_stand_before_the_text_as_urls_that_hold_them() -> None:
    data = white_square(8)
    (turn,) = turns([Message(role="user", text="What?", images=(ImagePart(data=data),))])
    image, text = turn["content"]
    kind, _, held = image["image_url"]["url"].partition(",")
    assert (kind, base64.b64decode(held)) == ("data:image/png;base64", data)
    assert text == {"type": "text", "text": "What?"}
    assert read_image(data).size == (8, 8), "the probe's square is an image"


@pytest.mark.parametrize(
    ("begins", "kind"), [(b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"), (b"RIFF....WEBP", "webp")]
)
def test_images_have_their_type(begins: bytes, kind: str) -> None:
    (turn,) = turns([Message(role="user", text="", images=(ImagePart(data=begins),))])
    assert turn["content"][0]["image_url"]["url"].startswith(f"data:image/{kind};base64,")


def test_what_a_server_does_not_take_is_left_out() -> None:
    sampling = SamplingParams(top_k=5, min_p=0.1, stop=tuple("abcdef"), temperature=0.5)
    all_of_it, nothing = Capabilities(fields=frozenset(OPTIONAL), token_ids=True), Capabilities(streaming=False)
    body = chat_body("m", [], sampling, all_of_it)
    assert (body["top_k"], body["min_p"], body["return_token_ids"], body["stream"]) == (5, 0.1, True, True)
    assert body["stop"] == list("abcd"), "no more are taken by all"
    body = completion_body("m", "text", sampling, nothing)
    assert set(body) == {"model", "prompt", "temperature", "top_p", "stream", "stop"}
    assert seeded(7, nothing, temperature=1.0) == {}
    assert seeded(2**63, all_of_it, temperature=1.0)["seed"] < 2**31
    assert seeded(7, all_of_it, temperature=0.0) == {}
