"""Calls in what a model writes: the table of cases, and that a text may come in whatever pieces."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import Tool
from rsa.tools.blocks import Called
from rsa.tools.reading import CallReader, read_calls

DATA = json.loads((Path(__file__).parents[2] / "data" / "tool_call_cases.json").read_text(encoding="utf-8"))
TOOLS = [Tool.model_validate(tool) for tool in DATA["tools"]]
CASES: list[dict[str, Any]] = DATA["cases"]


@pytest.mark.parametrize("case", CASES, ids=[case["says"] for case in CASES])
def test_the_calls_of_a_text(case: dict[str, Any]) -> None:
    written = read_calls(case["text"], TOOLS, whole=case.get("whole", True))
    found = [[call.name, call.values] for call in written.calls]
    assert found == case["calls"]
    assert [[type(value) for value in (each[1] or {}).values()] for each in found] == [
        [type(value) for value in arguments.values()] for _, arguments in case["calls"]
    ], "True is not 1, and 3 not 3.0"
    assert written.text == case["rest"]


def pieces(texts: Sequence[str], *, ended: bool = True) -> tuple[str, list[Called]]:
    """The text and the calls of pieces that come one after the other."""
    reader = CallReader(TOOLS)
    parts = [part for text in texts for part in reader.feed(text)] + reader.finish(whole=ended)
    said = "".join(part for part in parts if isinstance(part, str))
    return said, [part for part in parts if isinstance(part, Called)]


@pytest.mark.parametrize("case", CASES, ids=[case["says"] for case in CASES])
def test_every_cut_of_a_case_gives_the_same(case: dict[str, Any]) -> None:
    text, ended = case["text"], case.get("whole", True)
    whole = pieces([text], ended=ended)
    assert pieces(list(text), ended=ended) == whole
    for cut in range(1, len(text)):
        assert pieces([text[:cut], text[cut:]], ended=ended) == whole


WORDS = [
    *("<tool_call>", "</tool_call>", "<zyphra_tool_call>", "</zyphra_tool_call>", "<function=write>", "<function=now>"),
    *("<function=rm>", "</function>", "<parameter=path>", "<parameter=text>", "</parameter>", "\n", " ", "a", "é"),
    *("{", "}", '"', "\\", '{"name": "now"}', '{"name": "write", "arguments": {"path": "', '"}}', "<", ">", "<param"),
    *("<br>", "  \n" * 90, "<function=" + "x" * 130, "<zyphra", "[", ","),
]  # fmt: skip
texts = st.lists(st.sampled_from(WORDS), max_size=30).map("".join)


@settings(max_examples=400, deadline=None)
@given(text=texts, cuts=st.lists(st.integers(0, 400), max_size=12), ended=st.booleans())
def test_any_cuts_of_any_text_give_the_same(text: str, cuts: list[int], ended: bool) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    whole = pieces([text], ended=ended)
    assert pieces([text[a:b] for a, b in pairwise(places)], ended=ended) == whole
    assert pieces(list(text), ended=ended) == whole


@given(text=texts)
def test_what_is_no_call_is_text_to_the_letter(text: str) -> None:
    said, calls = pieces([text])
    if not calls:
        assert said == text
    assert all(json.loads(call.arguments) is not None and call.name in {"now", "write"} for call in calls)
    assert pieces([text.replace("write", "xwrite").replace("now", "xnow")])[1] == [], "only tools that there are"


@given(text=texts)
def test_without_tools_all_is_text(text: str) -> None:
    written = read_calls(text, [])
    assert (written.text, written.calls) == (text, ())


strings = st.text(st.characters(codec="utf-8"), max_size=40).filter(
    lambda text: not any(tag in text for tag in ("</parameter>", "<parameter=", "</function>", "tool_call>"))
)


@given(path=strings, text=strings)
def test_strings_come_through_verbatim(path: str, text: str) -> None:
    arguments = json.dumps({"path": path, "text": text})
    spelled = {
        "xml": f"<zyphra_tool_call>\n<function=write>\n<parameter=path>\n{path}\n</parameter>\n"
        f"<parameter=text>\n{text}\n</parameter>\n</function>\n</zyphra_tool_call>",
        "json": f'<tool_call>\n{{"name": "write", "arguments": {arguments}}}\n</tool_call>',
    }
    for written in spelled.values():
        (call,) = read_calls(written, TOOLS).calls
        assert call.values == {"path": path, "text": text}


HOSTILE = {
    "opening tags": "<tool_call>" * 40_000,
    "calls in values": "<zyphra_tool_call><function=write><parameter=path>" * 10_000,
    "strings that do not end": '<tool_call>{"' * 40_000,
    "closing tags in strings": '<tool_call>{"</tool_call>' * 20_000,
    "white space": "<function=write><parameter=path>" + ("</parameter>" + " " * 300) * 1500,
    "names": "<function=now>" * 40_000,
    "brackets": "<" * 500_000,
    "nested objects": '<tool_call>{"name": "now", "arguments": '
    + '{"a":' * 60_000
    + "1"
    + "}" * 60_001
    + "</tool_call>",
    "a long number": '<tool_call>{"name": "now", "arguments": {"a": ' + "9" * 400_000 + "}}</tool_call>",
    "many calls": '<tool_call>{"name": "now"}</tool_call>' * 10_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_takes_no_longer_than_its_length(text: str) -> None:
    """Half a megabyte in pieces of 4,000 characters; what is quadratic in it would take minutes."""
    begun = time.process_time()
    said, calls = pieces([text[at : at + 4000] for at in range(0, len(text), 4000)])
    assert time.process_time() - begun < 5
    assert said or calls


def test_ids_follow_from_the_text_they_are_of() -> None:
    text = "<function=now></function><function=now></function>"
    ids = [[call.id for call in read_calls(text, TOOLS, salt=salt).calls] for salt in ("a", "a", "b")]
    assert ids[0] == ids[1]
    assert len({*ids[0], *ids[2]}) == 4
    assert all(each.startswith("call_") for each in ids[0])
