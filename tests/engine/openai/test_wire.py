"""What servers send is read with care: what is there is found, and nothing that they send is a bug of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.openai.wire import (
    Delta,
    ServerError,
    WireError,
    message_of,
    read_answer,
    read_detokenized,
    read_json,
    read_models,
    read_tokens,
)

CASES = json.loads((Path(__file__).parents[2] / "data" / "wire_cases.json").read_text(encoding="utf-8"))
FIELDS = st.sampled_from(
    ("choices", "delta", "message", "content", "text", "reasoning", "reasoning_content", "index", "finish_reason",
     "usage", "prompt_tokens", "prompt_tokens_details", "cached_tokens", "token_ids", "prompt_token_ids", "error",
     "code", "data", "logprobs", "id", "tokens", "prompt")
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("case", CASES["read"], ids=lambda case: case["what"])
def test_what_is_there_is_found(case: dict[str, Any]) -> None:
    found = read_answer(case["sent"])
    assert found == Delta(**{name: as_tuples(value) for name, value in case["found"].items()})


def as_tuples(value: Any) -> Any:
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: case["what"])
def test_what_is_none_is_said_in_a_line(case: dict[str, Any]) -> None:
    with pytest.raises(WireError, match=case["says"]) as caught:
        read_answer(read_json(case["sent"]))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("code", "status"),
    [(400, 400), ("429", 429), (None, 500), ("odd", 500), (7, 500), ("²", 500), ("1" * 5000, 500)],
)
def test_an_error_in_the_midst_is_the_servers(code: object, status: int) -> None:
    with pytest.raises(ServerError, match="too hot") as caught:
        read_answer({"error": {"message": "too hot", "code": code}})
    assert caught.value.status == status


def lines(read: Callable[[Any], object], value: Any) -> str:
    """What is said of a value that is refused; nothing of one that is taken."""
    try:
        read(value)
    except (WireError, ServerError) as error:
        return str(error)
    return ""


@given(value=st.dictionaries(FIELDS, json_values, max_size=5))
def test_nothing_that_is_sent_is_a_bug_of_ours(value: dict[str, Any]) -> None:
    for read in (read_answer, read_models, read_tokens, read_detokenized):
        assert "\n" not in lines(read, value)
    message_of(json.dumps(value).encode())


@given(data=st.binary(max_size=40))
def test_no_bytes_are_a_bug_of_ours(data: bytes) -> None:
    assert "\n" not in lines(read_json, data)
    message, code = message_of(data)
    assert "\n" not in message + code
