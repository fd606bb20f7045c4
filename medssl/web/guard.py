"""Who may ask, before anything else is looked at, and the headers that every answer has.

A web page from elsewhere must not reach a server on this machine through the visitor's browser: neither by posting a
form (its Origin is another one), nor by a name of its own that suddenly means 127.0.0.1 (DNS rebinding: the Host is another
one), nor by showing the page in a frame. Scripts, styles and connections are this server's own ones or none.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medssl.web.limits import Refusal

log = logging.getLogger("medssl.web")
LOCAL = ("localhost", "127.0.0.1", "[::1]")
OPEN = "/api/health"  # to anyone, also without the token
SEND = "/api/predict"
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
REST, REST_S, PAUSE_S = 4 * 2**20, 1.0, 0.2  # bytes and seconds that are still read of a refused body


class Guard:
    """Wraps the application; `hosts` are the names it is called by (None: any), `token` what a client must know.

    `full` raises Refusal where no image is taken now: who has to come again hears it before any work is done for it.
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str] | None, token: str | None, full: Callable[[], None] = lambda: None
    ) -> None:
        self.app, self.hosts, self.token, self.full = app, hosts, token, full

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            self.refuse(scope, Headers(scope=scope))
            await self.app(scope, exchange.receive, exchange.send)
        except Refusal as refusal:
            await exchange.answer(refusal)
        except Exception:
            log.exception("a request failed")
            if exchange.begun:
                raise
            await exchange.answer(Refusal(500, "server: found a fault of its own, which its log tells"))

    def refuse(self, scope: Scope, headers: Headers) -> None:
        """Raise Refusal for a request that this server does not serve."""
        host = headers.get("host", "")
        if self.hosts is not None and bare(host) not in self.hosts:
            raise Refusal(421, "Host: found another name, expected one that this server goes by")
        if scope["method"] not in ("GET", "HEAD"):
            site, origin = headers.get("sec-fetch-site", "same-origin"), headers.get("origin")
            if site not in ("same-origin", "none") or (origin is not None and origin.partition("://")[2] != host):
                raise Refusal(403, "Origin: found another site, expected this server's own page or a program")
        if self.token is not None and scope["path"].startswith("/api/") and scope["path"] != OPEN:
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                raise Refusal(401, "Authorization: found no token or another one, expected: Bearer TOKEN")
        if scope["path"] == SEND and scope["method"] == "POST":
            self.full()


def bare(host: str) -> str:
    """A Host header without its port, in lower case."""
    name = host.lower()
    return name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]


class _Exchange:
    """One request and its answer: knows whether the body has been read, and adds the headers."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self.scope, self._receive, self._send = scope, receive, send
        self.unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self.last = headers.get("connection", "").lower() == "close"
        self.begun = False

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self.unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self.unread and self.last:
                await self.rest()
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self.scope["path"].startswith("/api/"):
                headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    async def rest(self) -> None:
        """Read some more of a body that nobody wants, as a connection that is closed on a client who sends loses the answer.

        On one that stays open the answer goes first, and what still comes is thrown away until the next request is due.
        """
        left, end = REST, time.monotonic() + REST_S
        try:
            while self.unread and left > 0 and time.monotonic() < end:
                async with asyncio.timeout(PAUSE_S):
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass

    async def answer(self, refusal: Refusal) -> None:
        body = json.dumps({"error": refusal.line}).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refusal.headers}
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": body})
