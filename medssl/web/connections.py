"""The server's side of HTTP, by uvicorn: what it does with clients that never finish a request or never read, and how it ends.

SIGTERM or Ctrl-C: nothing new is taken, what is under way is finished and can be fetched, for at most DRAIN_S seconds; then
what still runs is told so and the process ends. A second signal ends it at once.
"""

import asyncio
import json
import logging
import socket
import time
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from medssl.problems import InputError, Problem
from medssl.web.limits import Limits
from medssl.web.queue import Queue
from medssl.web.results import Results

DRAIN_S = 6.0
FETCH_S = 2.0  # that a result waits for its client once everything has ended
HEADERS = 16 * 1024  # bytes


def protocol(limits: Limits) -> type[H11Protocol]:
    """HTTP whose clients send their headers in time, read their answers, are not too many, and hear of their faults in JSON."""

    class Protocol(H11Protocol):
        late: asyncio.TimerHandle | None = None
        next_look: asyncio.TimerHandle
        unread = 0  # bytes that waited for the client at the last look

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.look()
            if len(self.connections) > limits.connections:
                self.say(503, f"server: found {limits.connections} connections, which is all it takes")
                return
            self.expect()

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop_timer()
            self.next_look.cancel()
            super().connection_lost(exc)

        def resume_writing(self) -> None:
            super().resume_writing()
            self.unread = 0  # what waits next is something else

        def look(self) -> None:
            """End a connection whose client has taken nothing of what waits for it since the last look."""
            only_read = self.flow.write_paused or self.transport.is_closing()  # else more is written meanwhile
            before, self.unread = self.unread, self.transport.get_write_buffer_size() if only_read else 0
            if self.unread >= before > 0:
                self.transport.abort()
            else:
                self.next_look = self.loop.call_later(limits.unread_s, self.look)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.expect()

        def expect(self) -> None:
            """Wait for a request, which has to be there in time."""
            self.stop_timer()
            if not self.transport.is_closing():
                self.late = self.loop.call_later(limits.headers_s, self.too_late)

        def stop_timer(self) -> None:
            if self.late is not None:
                self.late.cancel()

        def too_late(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.say(408, f"request: found no whole headers after {limits.headers_s:g} s")

        def send_400_response(self, msg: str) -> None:
            self.say(400, "request: found no valid HTTP/1.1")

        def say(self, status: int, line: str) -> None:
            """Answer what never became a request, and close."""
            body = json.dumps({"error": line}).encode()
            kind = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
            if status == 503:
                kind.append(("Retry-After", "5"))
            if not self.transport.is_closing() and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                events = (h11.Response(status_code=status, headers=kind), h11.Data(data=body), h11.EndOfMessage())
                for event in events:
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Protocol


class Server(uvicorn.Server):
    """uvicorn, which on a signal first lets the queue run empty."""

    def __init__(self, config: uvicorn.Config, queue: Queue, results: Results) -> None:
        super().__init__(config)
        self.queue, self.results = queue, results
        self.stopped_by = 0  # the signal that asked for the end
        self.draining_since: float | None = None
        self.idle_since: float | None = None

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self.draining_since is not None:
            super().handle_exit(sig, frame)
            return
        self.stopped_by = sig
        self.draining_since = time.monotonic()
        self.queue.drain()

    async def on_tick(self, counter: int) -> bool:
        if self.draining_since is not None:
            self.should_exit = self.should_exit or self.drained(time.monotonic())
        return await super().on_tick(counter)

    def drained(self, now: float) -> bool:
        """Whether all has ended and been fetched, or there is no time left, so that what runs is stopped."""
        assert self.draining_since is not None
        if now - self.draining_since > DRAIN_S:
            self.queue.stop()
            return self.queue.idle or now - self.draining_since > DRAIN_S + 1
        if not self.queue.idle:
            self.idle_since = None
            return False
        self.idle_since = self.idle_since or now
        unread = any(job.state == "done" and not job.read for job in list(self.results.jobs.values()))
        return not unread or now - self.idle_since > FETCH_S


def server(app: Any, limits: Limits, queue: Queue, results: Results) -> Server:
    """The server of an application, not yet started."""
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)  # not a line for each broken request
    config = uvicorn.Config(
        app, loop="asyncio", http=protocol(limits), ws="none", lifespan="on", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=1, h11_max_incomplete_event_size=HEADERS,
    )  # fmt: skip
    return Server(config, queue, results)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; raises InputError where it can't."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(256)  # so that who reads the address can connect at once
    except (OSError, OverflowError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise InputError([Problem("serve", "host and port", f"{host}:{port} ({words})", "an address that is free")]) from None
    return found
