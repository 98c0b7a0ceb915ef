"""A small HTTP/1.1 client that only POSTs, for the sender.

A benchmark pushes 15,000 deliveries through one process beside the API that it measures. Through
a general client (httpx) each costs over a millisecond of it; through this one, a tenth.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec


class Broken(Exception):
    """The connection ended, or what came over it was no HTTP, before the answer was whole."""


class Origin(msgspec.Struct, frozen=True):
    """Where connections go."""

    host: str
    port: int
    tls: bool


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """One kept-open connection, with one request on it at a time."""

    def __init__(self) -> None:
        self.reusable = True
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._body = b""

    async def exchange(self, request: bytes) -> Response:
        """Send a request and return its answer.

        Raises:
            Broken: the answer did not come whole.
        """
        if self._transport is None:
            raise Broken("not connected")
        self._answer = asyncio.get_running_loop().create_future()
        self._parser, self._body = httptools.HttpResponseParser(self), b""
        self._transport.write(request)
        try:
            return await self._answer
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up."""
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by behaviour only

    def data_received(self, data: bytes) -> None:
        """Read a part of the answer."""
        if self._parser is None:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as wrong:
            self._fail(Broken(f"no HTTP: {wrong}"))

    def on_body(self, part: bytes) -> None:
        """Keep a part of the body."""
        self._body += part

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        parser, answer = self._parser, self._answer
        if parser is None or answer is None or answer.done():
            return
        self.reusable = self.reusable and parser.should_keep_alive()
        answer.set_result(Response(parser.get_status_code(), self._body))

    def connection_lost(self, _reason: Exception | None) -> None:
        """Tell whoever waits that nothing more will come."""
        self.reusable = False
        self._fail(Broken("the connection was closed before an answer"))

    def _fail(self, reason: Broken) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(reason)


class Wire:
    """Connections by origin; the one that was used last is used next."""

    def __init__(self) -> None:
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, timeout_seconds: float
    ) -> Response:
        """POST a body and return the answer; a kept connection that had gone stale is replaced.

        Raises:
            OSError: nobody listens there, or a `TimeoutError`: no answer came in time.
            Broken: the answer did not come whole.
        """
        origin, head = _target(url)
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        length = f"content-length: {len(body)}\r\n\r\n"
        request = b"".join([head, *(line.encode() for line in lines), length.encode(), body])
        async with asyncio.timeout(timeout_seconds):
            kept = self._kept(origin)
            if kept is not None:
                try:
                    return await self._exchange(origin, kept, request)
                except Broken:
                    pass  # it was closed while nobody used it
            return await self._exchange(origin, await _connect(origin), request)

    async def _exchange(self, origin: Origin, connection: Connection, request: bytes) -> Response:
        response = await connection.exchange(request)
        if connection.reusable:
            self._idle[origin].append(connection)
        else:
            connection.close()
        return response

    def _kept(self, origin: Origin) -> Connection | None:
        idle = self._idle[origin]
        while idle:
            connection = idle.pop()
            if connection.reusable:
                return connection
        return None

    def close(self) -> None:
        """Close every connection that is not in use."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()


async def _connect(origin: Origin) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        Connection, origin.host, origin.port, ssl=origin.tls or None
    )
    return connection


@lru_cache(maxsize=64)
def _target(url: str) -> tuple[Origin, bytes]:
    """Return where a URL leads, and the request's first lines."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    origin = Origin(parts.hostname or "", parts.port or (443 if tls else 80), tls)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return origin, f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\n".encode()
