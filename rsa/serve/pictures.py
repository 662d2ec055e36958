"""Images of messages, from the URLs that clients send: `data:` URLs, and http(s) URLs of public addresses.

A URL is a stranger's, and this process may see more of the network than the stranger does. So nothing is opened but
`data:`, `http:` and `https:`; a host is resolved once, each of its addresses must be public, and the connection goes to
the address that was looked at: there is no second look-up that could answer otherwise. Each redirect is a new URL and
goes the same way. Proxies that the environment names are not used, since they would do the looking up.
"""

from __future__ import annotations

import base64
import binascii
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import anyio
import httpcore2
from httpcore2 import AnyIOBackend, AsyncConnectionPool, AsyncNetworkBackend, AsyncNetworkStream

from engine.api import ImagePart
from rsa.errors import ProblemError
from rsa.problem import IMAGE_KINDS, is_image
from rsa.words import shortened

Address = IPv4Address | IPv6Address

_SHOWN_CHARACTERS = 80
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ADDRESSES_TRIED = 4
_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_FOR_GUESTS = (
    IPv4Network("168.63.129.16/32"),  # Azure answers its virtual machines there, though it looks public
    IPv4Network("192.0.0.0/24"),  # of protocols; to some versions of Python a part of it is global
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
)
_HEADERS = (
    ("Accept", "image/*"),
    ("Accept-Encoding", "identity"),  # what unpacks to a thousand times its size is not asked for
    ("User-Agent", "rsa-serve"),
    ("Connection", "close"),
)


class PictureError(ProblemError):
    """An image of a message cannot be had, or may not; the message says which and why."""


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """What the images of one request may take.

    images     how many there may be.
    bytes      the size of one, as a file.
    seconds    for all that are fetched, together, from the first byte asked for to the last one read.
    redirects  that are followed for one image.
    fetch      whether http(s) URLs are followed at all.
    """

    images: int = 16
    bytes: int = 20_000_000
    seconds: float = 20.0
    redirects: int = 3
    fetch: bool = True


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet: not private, not this machine's, not a network's own, no
    multicast, and no other way to write such a one (an IPv4 address within one of IPv6)."""
    if isinstance(address, IPv6Address):
        within = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if within is None and address in _NAT64:
            within = IPv4Address(int(address) & 0xFFFFFFFF)
        if within is not None:
            return is_public(within)
        if address.is_site_local:
            return False
    elif any(address in network for network in _NOT_FOR_GUESTS):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


class Pictures:
    """The images of one request: ask for them one after the other. They are counted, and share their time.

    may_reach  which addresses may be connected to.
    """

    def __init__(
        self, limits: PictureLimits | None = None, *, may_reach: Callable[[Address], bool] = is_public
    ) -> None:
        self.limits = limits or PictureLimits()
        self._backend = _Guarded(may_reach)
        self._taken = 0
        self._ends: float | None = None

    async def take(self, url: str) -> ImagePart:
        """The image that a URL is or leads to. Raises PictureError."""
        self._taken += 1
        if self._taken > self.limits.images:
            raise PictureError(f"there are more than {self.limits.images} images: send fewer")
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            data = _of_data_url(url, self.limits.bytes)
        elif scheme in ("http", "https"):
            data = await self._fetched(url)
        else:
            raise PictureError(
                f"{_shown(url)} is no URL that is opened here: send a data: URL, or one of http or https"
            )
        if not is_image(data):
            raise PictureError(f"{_shown(url)} is empty or no image of a known kind ({IMAGE_KINDS})")
        return ImagePart(data=data)

    async def _fetched(self, url: str) -> bytes:
        if not self.limits.fetch:
            raise PictureError("images are not fetched by this server: send them as data: URLs")
        if self._ends is None:
            self._ends = anyio.current_time() + self.limits.seconds
        try:
            with anyio.fail_after(max(self._ends - anyio.current_time(), 0)):
                return await self._followed(url)
        except TimeoutError:
            raise PictureError(f"{_shown(url)} was not there within {self.limits.seconds:g} s") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            why = str(error) or type(error).__name__
            raise PictureError(f"{_shown(url)} cannot be fetched: {shortened(why, _SHOWN_CHARACTERS)}") from None

    async def _followed(self, url: str) -> bytes:
        at = url
        for _ in range(self.limits.redirects + 1):
            _check_url(at)
            found = await self._got(at, first=url)
            if isinstance(found, bytes):
                return found
            at = urljoin(at, found)
        raise PictureError(f"{_shown(url)} redirects more than {self.limits.redirects} times")

    async def _got(self, url: str, *, first: str) -> bytes | str:
        """What is at a URL, or where that leads."""
        pool = AsyncConnectionPool(
            ssl_context=_certificates(), network_backend=self._backend, max_connections=1, max_keepalive_connections=0
        )
        async with pool, pool.stream("GET", url, headers=_HEADERS) as response:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in _REDIRECTS and "location" in headers:
                return headers["location"]
            if response.status != 200:
                raise PictureError(f"{_shown(first)} cannot be fetched: its server answers {response.status}")
            if headers.get("content-encoding", "identity").lower() != "identity":
                raise PictureError(f"{_shown(first)} comes packed, though that was not asked for")
            length = headers.get("content-length", "")
            if length.isdigit() and int(length) > self.limits.bytes:
                raise _too_large(_shown(first), self.limits.bytes)
            data = bytearray()
            async with aclosing(response.aiter_stream()) as chunks:
                async for chunk in chunks:
                    data += chunk
                    if len(data) > self.limits.bytes:
                        raise _too_large(_shown(first), self.limits.bytes)
            return bytes(data)


class _Guarded(AsyncNetworkBackend):
    """Connects to what it has looked at: names are resolved here, and what is connected to are addresses."""

    def __init__(self, may_reach: Callable[[Address], bool]) -> None:
        self._may_reach = may_reach
        self._backend = AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface is another's
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        addresses = await _addresses(host, port)
        if not all(self._may_reach(address) for address in addresses):
            raise PictureError(
                f"{_shown(host)} is not on the open internet: images are fetched from public addresses only"
            )
        trouble: Exception | None = None
        for address in addresses[:_ADDRESSES_TRIED]:
            try:
                return await self._backend.connect_tcp(
                    str(address), port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except httpcore2.ConnectError as error:
                trouble = error
        raise httpcore2.ConnectError("nobody answers there") from trouble

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        raise PictureError("images are not fetched from sockets of this machine")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


async def _addresses(host: str, port: int) -> list[Address]:
    """Where a host is, each address once."""
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(ip_address(str(where[0])) for *_, where in found))
    except (OSError, UnicodeError, ValueError):
        raise PictureError(f"{_shown(host)} is no host that is known here") from None


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or not url.isascii() or not url.isprintable() or " " in url:
        raise PictureError(f"{_shown(url)} is no URL of http or https")
    if parts.username is not None or parts.password is not None:
        raise PictureError(
            f"a URL of an image at {_shown(parts.hostname or '')} holds a user or a password: leave it out"
        )


def _of_data_url(url: str, most_bytes: int) -> bytes:
    """The bytes in a data: URL. Its media type must be an image's; whether it is one, the bytes tell."""
    head, comma, body = url[len("data:") :].partition(",")
    kind, *parameters = [part.strip().lower() for part in head.split(";")]
    if not comma:
        raise PictureError("a data: URL of an image has no comma: data:image/png;base64,...")
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise PictureError(f"a data: URL is of the kind {_shown(kind)}: images are {IMAGE_KINDS}")
    if "base64" not in parameters:
        data = unquote_to_bytes(body)
    else:
        text = (
            unquote_to_bytes(body).translate(None, b" \t\r\n") if not body.isascii() or "%" in body else body.encode()
        )
        if len(text) // 4 * 3 > most_bytes + 3:
            raise _too_large("an image in a data: URL", most_bytes)
        try:
            data = base64.b64decode(text.translate(None, b" \t\r\n"), validate=True)
        except (binascii.Error, ValueError):
            raise PictureError(
                "a data: URL of an image is not valid base64: encode the whole file, with its padding"
            ) from None
    if len(data) > most_bytes:
        raise _too_large("an image in a data: URL", most_bytes)
    return data


def _too_large(what: str, most_bytes: int) -> PictureError:
    return PictureError(f"{what} is larger than {most_bytes / 1e6:g} MB: send a smaller one")


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust; reading them takes a while."""
    return ssl.create_default_context()


def _shown(url: str) -> str:
    """A URL as a message has it: a data: URL may be megabytes, a query may hold a secret."""
    at = url.partition("?")[0].partition("#")[0]
    return shortened(" ".join(repr(at)[1:-1].split()), _SHOWN_CHARACTERS)
