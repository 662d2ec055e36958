"""Settings of servers, and what an answer that is none means."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from engine.errors import ContextError, ModelError, RequestError
from engine.openai.asking import Asker
from engine.openai.connection import (
    LONGEST_BACKOFF_S,
    LONGEST_RETRY_AFTER_S,
    BrokenError,
    Settings,
    refused_by,
    retry_after,
    settings_of,
)


def settings(base_url: Any = "http://a", **changes: Any) -> Settings:
    given = {"api_key_env": "KEY", "max_rows": 4, "timeout_s": 5.0, "max_retries": 2, "backoff_s": 0.5, **changes}
    return settings_of(base_url, **given)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("http://a:1", ("http://a:1/v1",)),
        ("http://a:1/", ("http://a:1/v1",)),
        ("https://a/openai/v1/", ("https://a/openai/v1",)),
        ("http://a, http://b http://a", ("http://a/v1", "http://b/v1")),
        (["http://[::1]:8000", "http://b/api"], ("http://[::1]:8000/v1", "http://b/api")),
    ],
)
def test_urls_are_those_of_the_api(given: Any, read: tuple[str, ...]) -> None:
    assert settings(given).base_urls == read


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"base_url": ""}, "no server given: set `base_url`"),
        ({"base_url": "localhost:8000"}, "`base_url` = localhost:8000: should be a URL such as"),
        ({"base_url": "ftp://a"}, "should be a URL"),
        ({"base_url": "http://a:99999"}, "should be a URL"),
        ({"base_url": "http://me:secret@a"}, "holds a user or a password"),
        ({"base_url": "http://a/v1?key=x"}, "should end before the ?"),
        ({"max_rows": 0}, "`max_rows` = 0: should be at least 1"),
        ({"max_retries": -1}, "`max_retries` = -1: should be at least 0"),
        ({"base_url": 5}, "`base_url` = 5: should be a URL, or a list of them"),
        ({"base_url": "http://a\0"}, "`base_url` = 'http://a.x00': should be a URL"),
        ({"api_key_env": 5}, "`api_key_env` = 5: should be the name of an environment variable"),
        ({"timeout_s": "5"}, "timeout_s should be more than 0"),
        ({"timeout_s": math.nan}, "timeout_s should be more than 0"),
        ({"backoff_s": "5"}, "backoff_s not less"),
        ({"max_rows": "5"}, "`max_rows` = '5': should be at least 1"),
        ({"timeout_s": 0.0}, "timeout_s should be more than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        settings(**changes)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-\nsecret", "sk-s\u00e9cret"])
def test_a_key_that_is_none_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", key)
    with pytest.raises(RequestError, match="the key in KEY") as caught:
        settings()
    assert "sk-" not in str(caught.value)
    monkeypatch.setenv("KEY", " sk-fine\n")
    assert settings().api_key == "sk-fine"


def test_a_proxy_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "gopher://there")
    with pytest.raises(RequestError, match="no proxy can be made of HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"):
        Asker(settings())


def test_certificates_that_cannot_be_read_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(RequestError, match=r"cannot be read from SSL_CERT_FILE = /nowhere/ca.pem .No such file"):
        settings()


def test_the_environment_may_name_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://there:1")
    assert settings(None).base_urls == ("http://there:1/v1",)
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(RequestError, match="no server given"):
        settings(None)


REFUSALS = [
    (401, "nope", "", ModelError, "http://a refuses the key in KEY .401: nope."),
    (403, "nope", "", ModelError, "refuses the key in KEY"),
    (429, "slow down", "", BrokenError, "http://a answered 429: slow down"),
    (429, "pay", "insufficient_quota", ModelError, "quota is used up"),
    (500, "oh", "", BrokenError, "answered 500: oh"),
    (502, "", "", BrokenError, "answered 502"),
    (503, "", "", BrokenError, "answered 503"),
    (504, "", "", BrokenError, "answered 504"),
    (400, "This model's maximum context length is 8", "", ContextError, "does not fit the context at http://a"),
    (400, "request (9 tokens) exceeds the available context size (8 tokens)", "", ContextError, "lower the budgets"),
    (400, "bad temperature", "", RequestError, "refuses the request .400: bad temperature"),
    (422, "bad", "", RequestError, "refuses the request"),
    (501, "not implemented", "", RequestError, "refuses the request"),
    (307, "", "", ModelError, "has moved to an unknown place .307.: use that URL"),
    (404, "no such thing", "", ModelError, "does not know what it was asked for .404: no such thing"),
]


@pytest.mark.parametrize(("status", "message", "code", "kind", "says"), REFUSALS)
def test_only_what_may_go_better_is_tried_again(
    status: int, message: str, code: str, kind: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "sk-secret")
    body = f'{{"error": {{"message": "{message} sk-secret", "code": "{code}"}}}}'.encode()
    error = refused_by(status, body, {}, "http://a", settings())
    assert type(error) is kind
    with pytest.raises(kind, match=says) as caught:
        raise error
    assert "sk-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_missing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEY", raising=False)
    error = refused_by(401, b"", {}, "http://a", settings())
    assert "wants a key (401): put it into the environment variable KEY" in str(error)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0", 0.0), ("-4", 0.0), ("1e9", LONGEST_RETRY_AFTER_S), ("nan", 0.0), ("soon", None), ("", None)],
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds


def test_retry_after_as_a_date() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < (retry_after({"retry-after": at}) or 0) <= 60
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({}) is None


def test_pauses_double_and_are_drawn() -> None:
    given = settings()
    drawn = [[given.backoff(attempt) for _ in range(200)] for attempt in range(9)]
    for attempt, pauses in enumerate(drawn):
        longest = min(LONGEST_BACKOFF_S, 0.5 * 2**attempt)
        assert 0 <= min(pauses) < longest / 4 < longest * 3 / 4 < max(pauses) <= longest
    assert given.backoff(10**6) <= LONGEST_BACKOFF_S
