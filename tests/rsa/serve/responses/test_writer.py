"""The events of a response: whatever is thought, answered and called in whatever order, a client can follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_responses import added_up, check_stream, text_of

from rsa.serve.responses.recall import recalled, replayed
from rsa.serve.responses.response import Response, ResponseUsage
from rsa.serve.responses.writer import ResponseWriter


@dataclass(frozen=True)
class Call:
    id: str
    name: str
    arguments: str


TEXTS = st.text(max_size=5)
CALLS = st.lists(st.builds(Call, TEXTS, TEXTS, TEXTS), max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reasoning"), TEXTS),
        st.tuples(st.just("answer"), TEXTS),
        st.tuples(st.just("tool_calls"), CALLS),
    ),
    max_size=12,
)
USAGE = ResponseUsage(input_tokens=3, output_tokens=4, total_tokens=7)
ENDINGS = {
    "whole": lambda writer: writer.finish(at=9, usage=USAGE, rsa={"run": "run_1"}),
    "cut": lambda writer: writer.finish(at=9, usage=USAGE, incomplete="max_output_tokens"),
    "failed": lambda writer: writer.fail("server_error", "the engine died"),
    "cancelled": lambda writer: writer.cancel(),
}


def queued(**more: Any) -> Response:
    return Response(id="resp_1", created_at=5, model="nano", status="in_progress", **more)


def as_json(events: list[Any]) -> list[dict[str, Any]]:
    return [event.model_dump(mode="json") for event in events]


def written(steps: list[tuple[str, Any]], ending: str) -> tuple[ResponseWriter, list[Any]]:
    writer = ResponseWriter(queued())
    events = writer.begin()
    for step, value in steps:
        events += getattr(writer, step)(value)
    return writer, [*events, *ENDINGS[ending](writer)]


@given(STEPS, st.sampled_from(sorted(ENDINGS)))
def test_a_stream_adds_up_to_the_response_it_ends_with(steps: list[tuple[str, Any]], ending: str) -> None:
    writer, events = written(steps, ending)

    last = check_stream(as_json(events))

    assert last == writer.response.model_dump(mode="json")
    told = {"reasoning": "", "answer": "", "tool_calls": ""}
    for step, value in steps:
        told[step] += "".join(call.arguments for call in value) if step == "tool_calls" else value
    kinds = {"reasoning": "reasoning", "answer": "message", "tool_calls": "function_call"}
    for step, text in told.items():
        assert "".join(text_of(item) for item in last["output"] if item["type"] == kinds[step]) == text


@given(STEPS, st.sampled_from(sorted(ENDINGS)))
def test_ids_of_items_are_their_own(steps: list[tuple[str, Any]], ending: str) -> None:
    writer, _ = written(steps, ending)
    ids = [item.id for item in writer.response.output]

    assert len({*ids}) == len(ids)


@given(STEPS, st.sampled_from(sorted(ENDINGS)))
def test_a_response_that_ended_is_told_again_with_the_same_ids(steps: list[tuple[str, Any]], ending: str) -> None:
    writer, _ = written(steps, ending)

    events = as_json(replayed(writer.response))

    assert check_stream(events) == writer.response.model_dump(mode="json")


@given(STEPS, STEPS)
def test_taken_up_again_the_numbers_go_on_and_the_begun_answer_is_void(before: Any, after: Any) -> None:
    writer = ResponseWriter(queued())
    events = writer.begin()
    for step, value in before:
        events += getattr(writer, step)(value)

    told = len(events)

    again = recalled(queued(), events)
    events += again.void() + again.start()
    for step, value in after:
        events += getattr(again, step)(value)
    events += again.finish(at=9, usage=USAGE)

    last = as_json(events)[-1]["response"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    items = added_up(as_json(events))
    old = len(added_up(as_json(events[:told] + recalled(queued(), events[:told]).void())))
    assert last["output"] == [item for item in items[:old] if item["type"] == "reasoning"] + items[old:]
    assert "".join(text_of(item) for item in last["output"] if item["type"] == "message") == "".join(
        value for step, value in after if step == "answer"
    )


def test_a_whole_answer_without_a_word_is_an_empty_message() -> None:
    writer, events = written([("reasoning", "hm")], "whole")

    assert [item.type for item in writer.response.output] == ["reasoning", "message"]
    assert check_stream(as_json(events))["status"] == "completed"


@pytest.mark.parametrize(
    ("ending", "status"), [("cut", "incomplete"), ("failed", "failed"), ("cancelled", "cancelled")]
)
def test_an_answer_that_was_cut_off_is_incomplete(ending: str, status: str) -> None:
    writer, events = written([("answer", "so")], ending)

    assert check_stream(as_json(events))["status"] == status
    assert writer.response.output[0].status == "incomplete"


def test_a_queued_response_says_so_until_it_starts() -> None:
    writer = ResponseWriter(queued().model_copy(update={"status": "queued"}))

    assert [event.type for event in writer.begin()] == ["response.created", "response.queued"]
    assert writer.response.status == "queued"
    assert [event.type for event in writer.start()] == ["response.in_progress"]
    assert writer.response.status == "in_progress"
