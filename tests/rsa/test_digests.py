"""Digests: what was sealed is found again, and whatever else stands there is told from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsa import RunFolderError
from rsa.digests import BARE, CHANGED, Trust, seal, unseal, unseal_lines

WORDS = st.text(max_size=8)
JSON = st.dictionaries(WORDS, st.none() | st.integers() | st.lists(WORDS, max_size=2), min_size=1, max_size=3)


@settings(max_examples=50)
@given(value=JSON, indent=st.sampled_from([None, 1]), before=st.sampled_from(["", "0123456789abcdef"]))
def test_what_is_sealed_is_found_as_it_was_and_is_json_still(value: object, indent: int | None, before: str) -> None:
    content = json.dumps(value, indent=indent).encode()
    data, digest = seal(content, before)
    assert unseal(data, before) == (content, digest, "")
    assert json.loads(data) == {**json.loads(content), "digest": digest}
    assert unseal(data, before + "x").fault == CHANGED
    assert unseal(content, before) == (content, digest, BARE)


@given(value=JSON, data=st.data())
def test_a_changed_byte_is_told_or_says_the_same(value: object, data: st.DataObject) -> None:
    content = json.dumps(value).encode()
    sealed = seal(content).data
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + bytes([data.draw(st.integers(0, 255))]) + sealed[at + 1 :]
    found = unseal(changed)
    assert found.fault or found.content == content


@settings(max_examples=50)
@given(lines=st.lists(JSON, min_size=2, max_size=4), data=st.data())
def test_a_line_that_is_moved_taken_out_or_doubled_is_told(lines: list[object], data: st.DataObject) -> None:
    digest, chain = "start", []
    for line in lines:
        sealed, digest = seal(json.dumps(line).encode(), digest)
        chain.append(sealed)
    assert not any(found.fault for _, found in unseal_lines(chain, "start"))
    at = data.draw(st.integers(0, len(chain) - 2))
    for other in (
        [*chain[:at], *chain[at + 1 :]],
        [*chain[:at], chain[at + 1], chain[at], *chain[at + 2 :]],
        [*chain[: at + 1], chain[at], *chain[at + 1 :]],
    ):
        assert CHANGED in [found.fault for _, found in unseal_lines(other, "start")]


def test_of_lines_without_digests_the_first_is_told_alone() -> None:
    faults = [found.fault for _, found in unseal_lines([b'{"a":1}', b'{"a":2}', b'{"a":3}'])]
    assert faults == [BARE, "", ""]


def test_doubts_are_refused_or_noted_once() -> None:
    path = Path("folder", "a.jsonl")
    with pytest.raises(RunFolderError, match=r"^folder/a\.jsonl, line 3, has no digest: put it back .*`trust`$"):
        Trust(path.parent).doubt(path, BARE, RunFolderError, line=3)
    given = Trust(path.parent, given=True)
    for _ in range(2):
        given.doubt(path, CHANGED, RunFolderError)
    assert given.notes == ["taken on trust: a.jsonl is not what was written there"]
