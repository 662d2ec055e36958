"""Requests that nobody should send: made from right ones by a seed, with what a right server may answer to each."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

Json = dict[str, Any]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
TOOL = {"name": "weather", "description": "Of a city.", "parameters": {"type": "object", "properties": {"city": {}}}}
RUN = {"n": 2, "t": 1, "c": 2, "task": "general"}
ITEMS = [
    {"role": "user", "content": [{"type": "input_text", "text": "?"}, {"type": "input_image", "image_url": PIXEL}]},
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Paris"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "fine"},
]
MESSAGES = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]},
    {
        "role": "assistant",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "fine"},
]
RIGHT: tuple[tuple[str, Json], ...] = (
    ("/v1/responses", {"model": "play", "input": "?", "store": False}),
    ("/v1/responses", {"model": "play", "input": ITEMS, "tools": [{"type": "function", **TOOL}], "store": False}),
    ("/v1/responses", {"model": "play:rsa", "input": "?", "rsa": RUN, "seed": 1, "metadata": {"a": "b"}}),
    ("/v1/responses", {"model": "play", "input": "?", "stream": True, "reasoning": {"effort": "low"}, "store": False}),
    ("/v1/responses", {"model": "play:rsa", "input": "?", "stream": True, "background": True, "rsa": RUN}),
    ("/v1/responses", {"model": "play", "input": "?", "max_output_tokens": 9, "temperature": 1, "top_p": 0.5}),
    ("/v1/chat/completions", {"model": "play", "messages": [{"role": "user", "content": "?"}], "n": 2, "stop": ["x"]}),
    (
        "/v1/chat/completions",
        {"model": "play", "messages": MESSAGES, "tools": [{"type": "function", "function": TOOL}]},
    ),
    (
        "/v1/chat/completions",
        {"model": "play:rsa", "messages": [{"role": "user", "content": "?"}], "rsa": RUN, "stream": True},
    ),
    (
        "/v1/chat/completions",
        {"model": "play", "messages": [{"role": "user", "content": "?"}], "stream": True, "max_completion_tokens": 9},
    ),
    ("/page/runs", {"model": "play:rsa", "problem": "?", "settings": RUN}),
)
JUNK: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        2**64,
        -(2**70),
        1e308,
        -0.5,
        1e-9,
        "",
        " ",
        "x",
        "\0",
        "null",
        "\ud800",
    ),
    *("\u202e", "a" * 5000, "../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/x.png", "data:image/png,%%"),
    *("data:image/png;base64,iVBOR$$", "data:image/png;base64,AAAA", "data:text/html;base64,AAAA", "https://[::1]/x"),
    *("<think>", "</think>", "<|im_end|>", "{{ 7 * 7 }}", "{% for x in y %}", "\\boxed{", "'; DROP TABLE runs; --"),
    *([], [[]], [None], ["x"], [1, "a"], {}, {"": ""}, {"type": "function"}, {"a": {"b": {"c": [1]}}}, {"\0": 1}),
    *({"$ref": "#"}, {"type": "objekt"}, {"role": "user"}, {"type": "input_image"}, {"__class__": "x"}),
)
SETTINGS = (
    "n",
    "t",
    "c",
    "k",
    "tau",
    "beta",
    "limits",
    "method",
    "profile",
    "task",
    "select",
    "carry",
    "seed",
    "answers",
)
METHODS = ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "POST", "FOO")
IDS = (
    "x",
    "run_",
    "resp_" + 32 * "0",
    "..%2f..%2fetc",
    "%00",
    "a" * 3000,
    "%ff",
    "{}",
    "run_20261129000000aaaaaaaaaaaa",
)
ROUTES = (
    *("/v1/models", "/v1/models/{}", "/v1/runs", "/v1/runs/{}", "/v1/runs/{}/events", "/v1/responses/{}"),
    *("/", "/page/assets/{}", "/page/runs", "/page/runs/{}", "/page/runs/{}/events", "/page/reports/{}", "/metrics"),
    *("/page/runs/{}/candidates/population/0/1", "/page/runs/{}/candidates/x/99999999999999999999/-1"),
    *("/v1/responses/{}/input_items", "/v1/responses/{}?stream=true", "/openapi.json", "/health", "/{}", "/v1/{}"),
)
QUERIES = (
    "",
    "?limit=-1",
    "?limit=x",
    "?after=%00",
    "?stream=maybe",
    "?starting_after=1e9",
    "?order=up",
    "?limit=3&limit=4",
)


@dataclass(frozen=True)
class Hostile:
    """A request as bytes.

    how      what was done to a right one.
    json     its body is JSON, whose fields a fault must name: the object, or None.
    leaves   the client goes after sending, and reads at most so many bytes; None: it reads to the end.
    spoken   the bytes are HTTP as it should be, so that the application itself answers. Otherwise nothing follows them,
             which the server is told.
    """

    how: str
    data: bytes
    json: Json | None = None
    leaves: int | None = None
    spoken: bool = True


def hostile(seed: int) -> Iterator[Hostile]:
    """Requests without end; the same ones for the same seed."""
    random = Random(seed)
    ways: tuple[Callable[[Random], Hostile], ...] = (
        *6 * (_wrong_value,),
        *2 * (_missing,),
        *2 * (_unknown,),
        *2 * (_contradiction,),
        *2 * (_schema,),
        *2 * (_turns,),
        *2 * (_broken_json,),
        *2 * (_route,),
        *(_nest, _right, _left, _headers, _half, _noise, _large),
    )
    while True:
        yield random.choice(ways)(random)


def post(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """An HTTP request."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogatepass") + body


def of_json(how: str, path: str, body: Json, **more: Any) -> Hostile:
    """A request whose body is this. Half a character is no JSON, so that no field can be named then."""
    text = json.dumps(body)
    named = None if "\\ud800" in text else body
    return Hostile(how, post(path, text.encode(), "Content-Type: application/json"), json=named, **more)


def _template(random: Random) -> tuple[str, Json]:
    path, body = random.choice(RIGHT)
    return path, copy.deepcopy(body)


def _places(value: Any, owner: Any = None, key: Any = None) -> Iterator[tuple[Any, Any]]:
    """Every container of a JSON value with a key of it."""
    if owner is not None:
        yield owner, key
    if isinstance(value, dict | list):
        for inner, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield from _places(each, value, inner)


def _wrong_value(random: Random) -> Hostile:
    path, body = _template(random)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        owner, key = random.choice([*_places(body)])
        owner[key] = copy.deepcopy(random.choice(JUNK))
    return of_json("wrong value", path, body)


def _missing(random: Random) -> Hostile:
    path, body = _template(random)
    owner, key = random.choice([*_places(body)])
    del owner[key]
    return of_json("missing field", path, body)


def _unknown(random: Random) -> Hostile:
    path, body = _template(random)
    owner = random.choice([owner for owner, _ in _places(body) if isinstance(owner, dict)])
    owner[random.choice(("x", "modle", "extra", "", "\0", "stream ", "N"))] = copy.deepcopy(random.choice(JUNK))
    return of_json("unknown field", path, body)


def _contradiction(random: Random) -> Hostile:
    path, body = _template(random)
    rsa = {random.choice(SETTINGS): copy.deepcopy(random.choice(JUNK)) for _ in range(random.randint(1, 3))}
    body |= {"seed": random.randint(0, 3), "rsa": {"seed": random.randint(0, 3), "n": random.randint(-1, 4), **rsa}}
    body["model"] = random.choice(("play", "play:rsa", "play:rsa-light", "play:rsa-nothing", "play:", ":rsa"))
    return of_json("contradiction", path, body)


def _schema(random: Random) -> Hostile:
    path, body = _template(random)
    schema = {
        random.choice(("type", "properties", "$ref", "items", "enum", "required", "pattern")): random.choice(JUNK)
    }
    tool = {**TOOL, "parameters": random.choice((schema, {"type": "object", "properties": {"a": schema}}, *JUNK))}
    if random.random() < 0.2:
        tool["name"] = random.choice(JUNK)
    flat = path == "/v1/responses"
    body["tools"] = [{"type": "function", **tool} if flat else {"type": "function", "function": tool}]
    body["tool_choice"] = random.choice((None, "auto", "none", "required", *JUNK))
    return of_json("tool", path, body)


def _turns(random: Random) -> Hostile:
    path, body = _template(random)
    roles = ("user", "assistant", "system", "developer", "tool", "robot", None)
    kinds = ("message", "function_call", "function_call_output", "reasoning", "item_reference", None)
    turns: list[Json] = []
    for _ in range(random.randint(0, 5)):
        turn: Json = {"role": random.choice(roles), "content": random.choice(("?", "", None, [], *JUNK))}
        if path == "/v1/responses":
            turn |= {"type": random.choice(kinds), "call_id": "1", "name": "f", "arguments": random.choice(("{}", "["))}
            turn["output"] = random.choice(("x", [], None))
        elif turn["role"] == "tool":
            turn["tool_call_id"] = random.choice(("1", None))
        turns.append({key: value for key, value in turn.items() if value is not None or random.random() < 0.3})
    body["input" if path == "/v1/responses" else "messages"] = turns
    return of_json("conversation", path, body)


def _broken_json(random: Random) -> Hostile:
    path, body = _template(random)
    text = json.dumps(body).encode()
    at = random.randrange(len(text))
    broken = random.choice(
        (
            text[:at],
            text[:at] + bytes([random.randrange(256)]) + text[at + 1 :],
            text + b"}",
            b"\xef\xbb\xbf" + text,
            text.decode().encode("utf-16"),
            text.replace(b'"?"', b"NaN"),
            text.replace(b'"?"', b"1" + 5000 * b"0"),
            text.replace(b'"?"', b'"\xed\xa0\x80"'),
            text.replace(b"{", b'{"model": "play", ', 1),
            b"",
            b"null",
            b"[]",
            b'"x"',
        )
    )
    return Hostile("malformed JSON", post(path, broken, "Content-Type: application/json"))


def _nest(random: Random) -> Hostile:
    path, body = _template(random)
    depth = random.choice((50, 200, 1000, 20_000))
    opened, closed = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    text = json.dumps({**body, "rsa": "NEST"}).encode().replace(b'"NEST"', depth * opened + b"1" + depth * closed)
    return Hostile("deep nest", post(path, text))


def _right(random: Random) -> Hostile:
    return of_json("right", *_template(random))


def _left(random: Random) -> Hostile:
    """A right request whose client leaves."""
    return of_json("left", *_template(random), leaves=random.choice((0, 1, 200, 2000)))


def _route(random: Random) -> Hostile:
    path = random.choice(ROUTES).format(random.choice(IDS)) + random.choice(QUERIES)
    method = random.choice(METHODS)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    return Hostile("route", head.encode(), leaves=3000 if method == "GET" else None)


def _headers(random: Random) -> Hostile:
    path, body = _template(random)
    text = json.dumps(body).encode()
    header = random.choice(
        (
            *("Content-Type: text/plain", "Content-Type: application/json; charset=utf-16", "Content-Encoding: gzip"),
            *(
                "Authorization: Bearer \xff\xfe",
                "Authorization: Basic",
                "Origin: null",
                "Accept: image/png",
                "Cookie: a=b",
            ),
            *("Last-Event-ID: x", "X-Forwarded-For: 1.2.3.4", "Host: evil", "Expect: 100-continue", "Range: bytes=0-1"),
        )
    )
    return Hostile("header", post(path, text, header), spoken="Host" not in header)


def _half(random: Random) -> Hostile:
    """A body that is shorter than it says, or a head that does not end; the client leaves."""
    path, body = _template(random)
    data = post(path, json.dumps(body).encode(), length=random.choice((10**6, 5, None)))
    return Hostile("half", data[: random.randrange(1, len(data))], leaves=0, spoken=False)


def _noise(random: Random) -> Hostile:
    """Bytes that are hardly HTTP."""
    data = random.choice(
        (
            random.randbytes(200),
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
            b"GET /" + 70_000 * b"a" + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + 200 * b"X-A: b\r\n" + b"\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        )
    )
    return Hostile("noise", data, leaves=500, spoken=False)


def _large(random: Random) -> Hostile:
    path, body = _template(random)
    size = random.choice((10**4, 10**5, 10**5, 3 * 10**6))
    body["input" if path == "/v1/responses" else "model"] = size * "x"
    return of_json("large body", path, {**body, "store": False} if path == "/v1/responses" else body)
