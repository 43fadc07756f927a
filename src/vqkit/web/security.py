"""What stands in front of every request: where a server may bind, and who may ask it for what.

Only those on this machine reach a server that binds to a loopback address. Pages of other origins,
which the browser of a user may have open, are kept out by Host (a name that was rebound to this
machine is none of ours) and Origin. Any other address needs a token.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from ..errors import VqkitError
from ..printable import one_line
from .limits import Limits, Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

COOKIE = "vqkit_token"
# Shorter tokens can be guessed.
MIN_TOKEN = 16
# Nothing inline and nothing from elsewhere. Results come as blobs of the page's own.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; font-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
SAFE = ("GET", "HEAD")
# What is said of a mistake of ours.
FAILURE = "something went wrong; the terminal of the server says what"


@dataclass(frozen=True)
class Access:
    """Address and port of a server, the token that clients must have, None on loopback, and names
    under which clients know it beside those of this machine.
    """

    address: str
    port: int
    token: str | None = None
    names: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        return is_loopback(self.address)

    def check(self) -> None:
        """VqkitError for an address that others reach, without a token that keeps them out."""
        if self.token is not None and len(self.token) < MIN_TOKEN:
            raise VqkitError(
                f"a token needs {MIN_TOKEN} characters or more, so that none guesses it"
            )
        if self.token is not None and not (self.token.isascii() and self.token.isalnum()):
            raise VqkitError("a token is of letters and digits alone")
        if not self.is_local and self.token is None:
            raise VqkitError(
                f"{self.address} can be reached from other machines: give --token WORD, which "
                "whoever opens the page needs, or leave --address out"
            )

    def knows(self, host: str) -> bool:
        """Whether a Host header can be of this server: an address, which no one can rebind, or a
        name of this machine.
        """
        name = host_name(host)
        if name in self.names:
            return True
        if self.is_local:
            return is_loopback(name)
        return _is_address(name) or is_loopback(name) or name == socket.gethostname().lower()

    def accepts(self, given: str | None) -> bool:
        """Whether a token is the right one; how long it takes tells nothing of it."""
        if self.token is None:
            return True
        return hmac.compare_digest((given or "").encode(), self.token.encode())


def host_name(host: str) -> str:
    """The name of `name`, `name:port`, `[v6]` or `[v6]:port`, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Gate:
    """An ASGI application around another one; see the module."""

    def __init__(self, app: App, access: Access, limits: Limits) -> None:
        self.app = app
        self.access = access
        self.limits = limits

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # There are no web sockets here.
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(send)
        try:
            headers = _headers_of(scope)
            self._check_sender(scope, headers)
            if self.access.token is not None and await self._asks_for_cookie(scope, answer):
                return
            self._check_token(headers)
            self._check_length(headers)
            await self.app(scope, _Bounded(receive, self.limits), answer)
        except VqkitError as error:
            await answer.fail(getattr(error, "status", 400), one_line(error))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            await answer.fail(500, FAILURE)

    def _check_sender(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if not self.access.knows(host):
            raise Refused(421, "this server is not known under that name")
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise Refused(403, "requests of other pages are refused")
        # Of a link or an image on another page; opening the page itself from one is fine.
        is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if is_foreign and (scope["method"] not in SAFE or scope["path"] != "/"):
            raise Refused(403, "requests of other pages are refused")

    async def _asks_for_cookie(self, scope: MutableMapping[str, Any], answer: _Answer) -> bool:
        """Whether the page was opened with ?token=, which becomes a cookie that scripts cannot
        read, so that it does not stay in the address.
        """
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if scope["path"] != "/" or scope["method"] != "GET" or not given:
            return False
        if not self.access.accepts(given[0]):
            raise Refused(401, "that is not the token")
        cookie = f"{COOKIE}={given[0]}; HttpOnly; SameSite=Strict; Path=/"
        await answer.plain(303, [(b"location", b"/"), (b"set-cookie", cookie.encode())])
        return True

    def _check_token(self, headers: dict[str, str]) -> None:
        if self.access.token is None:
            return
        kind, _, word = headers.get("authorization", "").partition(" ")
        given = word if kind.lower() == "bearer" else _cookie(headers.get("cookie", ""))
        if not self.access.accepts(given):
            raise Refused(401, "a token is needed: open the address that the terminal shows")

    def _check_length(self, headers: dict[str, str]) -> None:
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 18:
            raise Refused(400, "that is no length of a request")
        if int(length) > self.limits.file_bytes:
            raise Refused(413, f"more than {self.limits.file_bytes >> 20} MiB in one request")


def _headers_of(scope: MutableMapping[str, Any]) -> dict[str, str]:
    """Headers by name. Refused where one that decides anything comes twice."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "origin", "content-length", "authorization"):
            raise Refused(400, f"the header {key} comes twice")
        found[key] = value.decode("latin-1")
    return found


def _cookie(text: str) -> str | None:
    try:
        morsel = SimpleCookie(text).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


class _Bounded:
    """The body of a request: no longer than it may be, and not slower."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self.receive = receive
        self.limits = limits
        self.seen = 0
        self.is_whole = False

    async def __call__(self) -> Message:
        if self.is_whole:
            # What comes now is that the client has gone, for which nothing is late.
            return await self.receive()
        try:
            async with asyncio.timeout(self.limits.idle_seconds):
                message = await self.receive()
        except TimeoutError as error:
            raise Refused(408, "the request came too slowly") from error
        if message["type"] == "http.request":
            self.seen += len(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)
        if self.seen > self.limits.file_bytes:
            raise Refused(413, f"more than {self.limits.file_bytes >> 20} MiB in one request")
        return message


class _Answer:
    """What goes back, with the headers of `HEADERS`."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            given = {name.lower() for name, _ in message["headers"]}
            more = {**HEADERS, "cache-control": "no-store"}
            extra = [(name.encode(), text.encode()) for name, text in more.items()]
            kept = [pair for pair in extra if pair[0] not in given]
            message = {**message, "headers": [*message["headers"], *kept]}
        await self.send(message)

    async def plain(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await self({"type": "http.response.body", "body": body})

    async def fail(self, status: int, sentence: str) -> None:
        if self.has_begun:
            return
        body = json.dumps({"error": sentence}).encode()
        # What is left of the request is not read.
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await self.plain(status, headers, body)
