"""Images of messages: what is taken, what is refused, and servers that mean no good."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from PIL import Image

from rsa.serve.pictures import PictureError, PictureLimits, Pictures, is_public

CASES = json.loads((Path(__file__).parents[2] / "data" / "picture_urls.json").read_text(encoding="utf-8"))
pytestmark = pytest.mark.anyio


def png(side: int = 8) -> bytes:
    file = BytesIO()
    Image.new("RGB", (side, side), "red").save(file, "PNG")
    return file.getvalue()


PNG = png()
FEW = PictureLimits(images=3, bytes=5_000, seconds=5.0, redirects=2)
Answer = Callable[[anyio.abc.SocketStream], Any]


def page(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def moved(to: str) -> bytes:
    return page(b"", f"Location: {to}", status="302 Found")


async def endless(stream: anyio.abc.SocketStream) -> None:
    await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await stream.send(b"3e8\r\n" + PNG.ljust(1000, b"x") + b"\r\n")


async def silent(stream: anyio.abc.SocketStream) -> None:
    await anyio.sleep_forever()


async def dripping(stream: anyio.abc.SocketStream) -> None:
    """Never silent for long, and never done."""
    await stream.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await stream.send(b"X-Drip: 1\r\n")
        await anyio.sleep(0.02)


ANSWERS: dict[str, bytes | Answer] = {
    "/good.png": page(PNG, "Content-Type: text/plain"),
    "/once": moved("/good.png"),
    "/twice": moved("once"),
    "/thrice": moved("/twice"),
    "/loop": moved("/loop"),
    "/to-file": moved("file:///etc/passwd"),
    "/to-nowhere": moved("https:///x.png"),
    "/to-metadata": moved("http://169.254.169.254/latest/meta-data/"),
    "/gone": page(b"nobody's business", status="404 Not Found"),
    "/lies": page(PNG, length=10**9),
    "/cut": page(PNG, length=len(PNG) + 100),
    "/text": page(b"<html>secret</html>", "Content-Type: image/png"),
    "/empty": page(b""),
    "/packed": page(PNG, "Content-Encoding: gzip"),
    "/garbage": b"\0\1\2 nothing of HTTP\r\n\r\n",
    "/nothing": b"",
    "/endless": endless,
    "/silent": silent,
    "/dripping": dripping,
}


@asynccontextmanager
async def server() -> AsyncIterator[tuple[str, list[str]]]:
    """A server on loopback that answers as ANSWERS says; its URL, and the paths that were asked for."""
    asked: list[str] = []

    async def answer(stream: anyio.abc.SocketStream) -> None:
        try:
            async with stream:
                head = await stream.receive()
                path = head.split()[1].decode()
                asked.append(path)
                told = ANSWERS[path]
                await (stream.send(told) if isinstance(told, bytes) else told(stream))
        except (anyio.BrokenResourceError, anyio.EndOfStream):
            pass  # the other side has seen enough

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}", asked
        group.cancel_scope.cancel()


def at_loopback(limits: PictureLimits = FEW) -> Pictures:
    return Pictures(limits, may_reach=lambda address: address.is_loopback)


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: case["url"][:40])
async def test_what_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(PictureError) as refused:
        await Pictures(FEW).take(case["url"])
    assert case["why"] in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250
    if "hides" in case:
        assert case["hides"] not in str(refused.value)


@pytest.mark.parametrize("address", CASES["public"])
def test_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", CASES["not_public"])
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("head", ["data:image/png;base64,", "DATA:image/PNG;charset=x;BASE64,", "data:;base64,"])
async def test_the_bytes_of_a_data_url(head: str) -> None:
    assert (await Pictures(FEW).take(head + base64.b64encode(PNG).decode())).data == PNG


async def test_base64_as_people_wrap_it() -> None:
    lines = base64.encodebytes(PNG).decode()
    for body in (lines, lines.replace("\n", "%0A"), lines.replace("+", "%2B")):
        assert (await Pictures(FEW).take("data:image/png;base64," + body)).data == PNG


async def test_a_data_url_without_base64() -> None:
    body = "".join(f"%{byte:02x}" for byte in PNG)
    assert (await Pictures(FEW).take("data:image/png," + body)).data == PNG


@pytest.mark.parametrize("spare", [0, 1])
async def test_a_data_url_may_be_as_large_as_the_limit(spare: int) -> None:
    limits = PictureLimits(bytes=len(PNG) - 1 + spare)
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    if spare:
        assert (await Pictures(limits).take(url)).data == PNG
    else:
        with pytest.raises(PictureError, match="is larger than"):
            await Pictures(limits).take(url)


async def test_images_are_counted() -> None:
    pictures = Pictures(FEW)
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    for _ in range(3):
        await pictures.take(url)
    with pytest.raises(PictureError, match="more than 3 images"):
        await pictures.take(url)


@pytest.mark.parametrize("path", ["/good.png", "/once", "/twice"])
async def test_an_image_is_fetched(path: str) -> None:
    """Also through redirects; what a server says that it is does not matter."""
    async with server() as (url, asked):
        assert (await at_loopback().take(url + path)).data == PNG
    assert asked[-1] == "/good.png"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/thrice", "redirects more than 2 times"),
        ("/loop", "redirects more than 2 times"),
        ("/to-file", "is no URL of http or https"),
        ("/to-nowhere", "is no URL of http or https"),
        ("/to-metadata", "169.254.169.254 is not on the open internet"),
        ("/gone", "answers 404"),
        ("/lies", "is larger than 0.005 MB"),
        ("/endless", "is larger than 0.005 MB"),
        ("/cut", "cannot be fetched"),
        ("/text", "is empty or no image"),
        ("/empty", "is empty or no image"),
        ("/packed", "comes packed"),
        ("/garbage", "cannot be fetched"),
        ("/nothing", "cannot be fetched"),
    ],
)
async def test_servers_that_mean_no_good(path: str, why: str) -> None:
    async with server() as (url, _):
        with pytest.raises(PictureError) as refused:
            await at_loopback().take(url + path)
    assert why in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "business" not in str(refused.value)


@pytest.mark.parametrize("path", ["/silent", "/dripping"])
async def test_no_server_is_waited_for_longer_than_the_limit(path: str) -> None:
    async with server() as (url, _):
        pictures = at_loopback(PictureLimits(seconds=0.3))
        for _ in range(2):  # the second has no time left: it is for all of them together
            with pytest.raises(PictureError, match=r"was not there within 0\.3 s"):
                await pictures.take(url + path)


async def test_a_server_of_this_machine_is_not_even_asked() -> None:
    async with server() as (url, asked):
        with pytest.raises(PictureError, match="is not on the open internet"):
            await Pictures(FEW).take(f"{url}/good.png")
    assert asked == []


async def test_a_name_is_looked_up_once_and_that_address_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a host that is public when it is looked at, and this machine when it is connected to."""
    answers = iter(["127.0.0.1", "169.254.169.254"])

    async def look_up(*_: object, **__: object) -> list[Any]:
        return [(0, 0, 0, "", (next(answers), 0))]

    async with server() as (url, _):
        monkeypatch.setattr("rsa.serve.pictures.anyio.getaddrinfo", look_up)
        named = url.replace("127.0.0.1", "rebinding.test")
        assert (await at_loopback().take(f"{named}/good.png")).data == PNG
        with pytest.raises(PictureError, match="is not on the open internet"):
            await at_loopback().take(f"{named}/good.png")


async def test_one_private_address_of_a_host_is_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(*_: object, **__: object) -> list[Any]:
        return [(0, 0, 0, "", (address, 0)) for address in ("1.1.1.1", "10.0.0.1")]

    monkeypatch.setattr("rsa.serve.pictures.anyio.getaddrinfo", look_up)
    with pytest.raises(PictureError, match="is not on the open internet"):
        await Pictures(FEW).take("http://mixed.test/good.png")


async def test_nothing_is_fetched_where_that_is_off() -> None:
    with pytest.raises(PictureError, match="are not fetched by this server"):
        await Pictures(PictureLimits(fetch=False)).take("https://example.com/x.png")
