"""What the receiver's tests share: signed requests, a server in this loop, and a plain socket."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import uvicorn

from webhooks.app import create_app
from webhooks.connections import Crowd, Guarded
from webhooks.inbox import Inbox, connect
from webhooks.signature import Secrets, sign

ACCOUNT = "biz_tests"
SECRET = "ws_" + "0123456789abcdef" * 4
PATH = "/webhooks/whop"
PREFIX = f"usher:{ACCOUNT}:"

Pairs = Iterable[tuple[str | bytes, str | bytes]]


@dataclass(frozen=True)
class Answer:
    """What came back over the socket."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def status(self) -> str:
        status: str = self.json["status"]
        return status


def envelope(id_: str = "msg_1", **changes: Any) -> dict[str, Any]:
    """Build a delivery of the shape that is pinned to an API version: flat ids."""
    return {
        "id": id_,
        "api_version": "v1",
        "type": "membership.activated",
        "account_id": ACCOUNT,
        "data": {"id": "mem_1", "status": "active", "user_id": "user_1", "product_id": "prod_1"},
        **changes,
    }


def nested(id_: str = "msg_1") -> dict[str, Any]:
    """Build a delivery of the shape without a pin: nested objects."""
    data = {
        "id": "mem_1",
        "status": "active",
        "user": {"id": "user_1", "email": "buyer@example.com"},
        "product": {"id": "prod_1"},
        "company": {"id": ACCOUNT},
    }
    return {"id": id_, "type": "membership.activated", "company_id": ACCOUNT, "data": data}


def signed(
    body: bytes, *, id_: str = "msg_1", secret: str = SECRET, timestamp: int | None = None
) -> list[tuple[str | bytes, str | bytes]]:
    """Return the three headers that vouch for a body."""
    moment = int(time.time()) if timestamp is None else timestamp
    signature = sign(body, id=id_, timestamp=moment, secret=secret)
    return [
        ("webhook-id", id_),
        ("webhook-timestamp", str(moment)),
        ("webhook-signature", signature),
    ]


def request(body: bytes, pairs: Pairs, *, length: int | None = None) -> bytes:
    """Build the bytes of a POST to the door; `length` is what it announces, true or not."""
    size = len(body) if length is None else length
    return head([*pairs, ("content-length", str(size))]) + body


def chunked(chunks: Iterable[bytes], pairs: Pairs) -> bytes:
    """Build the bytes of a POST that announces no length."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return head([*pairs, ("transfer-encoding", "chunked")]) + body + b"0\r\n\r\n"


def head(pairs: Pairs, *, first: str = f"POST {PATH} HTTP/1.1") -> bytes:
    """Build the head of a request."""
    lines = [first.encode(), b"host: usher.example", b"content-type: application/json"]
    lines += [_bytes(name) + b": " + _bytes(value) for name, value in pairs]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def delivery(id_: str = "msg_1", **changes: Any) -> bytes:
    """Build the bytes of a signed POST of an envelope."""
    body = json.dumps(envelope(id_, **changes)).encode()
    return request(body, signed(body, id_=id_))


async def ask(port: int, raw: bytes) -> Answer:
    """Send bytes on a connection of their own and read the answer; the rest may be refused.

    A server that has answered may hang up on what it has not read. A stream that cannot write on
    forgets the answer, too, so what is sent goes past the stream that reads.
    """
    loop = asyncio.get_running_loop()
    with socket.socket() as door:
        door.settimeout(0)
        await loop.sock_connect(door, ("127.0.0.1", port))
        sending = asyncio.create_task(loop.sock_sendall(door, raw))
        reader, writer = await asyncio.open_connection(sock=door.dup())
        try:
            return await answer(reader)
        finally:
            writer.close()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def get(port: int, path: str) -> Answer:
    return await ask(port, head([], first=f"GET {path} HTTP/1.1"))


async def answer(reader: asyncio.StreamReader) -> Answer:
    """Read one answer."""
    async with asyncio.timeout(60):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(": ") for line in lines[1:] if line)
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
    return Answer(int(lines[0].split()[1]), headers, body)


@contextlib.asynccontextmanager
async def serving(
    redis_url: str,
    *,
    clock: Callable[[], float] = time.time,
    secrets: str = SECRET,
    crowd: Crowd | None = None,
) -> AsyncIterator[int]:
    """Run the receiver in this loop, on a real socket with uvicorn; yields its port."""
    inbox = Inbox(connect(redis_url, timeout=None), ACCOUNT)
    app = create_app(inbox=inbox, account=ACCOUNT, secrets=Secrets.parse(secrets), clock=clock)
    guarded = type("Guarded", (Guarded,), {"crowd": Crowd() if crowd is None else crowd})
    config = uvicorn.Config(
        app, http=guarded, ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task
            await inbox.close()


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
