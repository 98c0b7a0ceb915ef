"""A local Whop for tests: on a real socket, in the running event loop, with everything reachable.

async def main() -> None:
    whop = local_whop.build(products=["prod_basic"])
    async with local_whop.running(whop) as server:
        # server.api_url is for WHOP_API_URL, API_KEY for WHOP_API_KEY
        whop.memberships.buy("prod_basic", "ada")  # in process, or over server.control
        await local_whop.until(lambda: not whop.outbox)
        assert server.journal.counts["memberships.create"] == {200: 1}
"""

import asyncio
import base64
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import uvicorn
from starlette.types import ASGIApp

from worker.sandbox.app import create_app
from worker.sandbox.deliveries import Sender
from worker.sandbox.journal import Journal
from worker.sandbox.main import Unsignaled
from worker.sandbox.outbox import Outcome
from worker.sandbox.state import LATEST, LocalWhop, SeedProduct, seed

ACCOUNT = "biz_Usher000000001"
API_KEY = "apik_local_whop_tests"
SECRET = "ws_" + "5e" * 32
FAILED = Outcome(500, b"{}", 0.0)
"""An attempt that the endpoint did not acknowledge."""

PATIENCE = 120.0
"""Seconds for which a test waits for what is to come. A wait ends when it has come, so that only
what never comes takes so long; a busy machine may be many times slower than a desk."""


def build(
    *,
    products: Sequence[str | SeedProduct] = ("prod_basic",),
    webhook_url: str | None = None,
    api_version_date: str | None = LATEST,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    seed_number: int = 1,
    retry_seconds: Sequence[float] | None = None,
    account: str = ACCOUNT,
) -> LocalWhop:
    """Make a local Whop with the products, the key `API_KEY` and, with a URL, a webhook.

    A product that is only an id gets a monthly plan; use a SeedProduct for another.
    `api_version_date` None gives the webhook the legacy payload shape. `retry_seconds` stands for
    Whop's own pauses between attempts, of 30 seconds to 12 hours.
    """
    whop = LocalWhop(account, clock=clock, rng=random.Random(seed_number))
    wanted = [
        SeedProduct(id=one, title=one.removeprefix("prod_").title())
        if isinstance(one, str)
        else one
        for one in products
    ]
    seed(
        whop,
        wanted,
        api_key=API_KEY,
        webhook_url=webhook_url,
        webhook_secret=SECRET,
        api_version_date=api_version_date,
    )
    if retry_seconds is not None:
        whop.outbox.retry_seconds = retry_seconds
    return whop


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A local Whop that listens; `control` is an HTTP client at its root, for `/sandbox/...`."""

    whop: LocalWhop
    url: str
    journal: Journal
    control: httpx.AsyncClient

    @property
    def api_url(self) -> str:
        """The base URL of the API, with `/api/v1`."""
        return f"{self.url}/api/v1"


@contextlib.asynccontextmanager
async def running(whop: LocalWhop, *, sender: Sender | None = None) -> AsyncIterator[Server]:
    """Serve a local Whop on a free loopback port for the length of a block."""
    journal = Journal()
    app = create_app(whop, sender=sender, journal=journal)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=PATIENCE) as control:
        yield Server(whop=whop, url=url, journal=journal, control=control)


@contextlib.asynccontextmanager
async def in_process(whop: LocalWhop) -> AsyncIterator[Server]:
    """Answer without a socket, and deliver nothing: for tests of the API alone."""
    journal = Journal()
    transport = httpx.ASGITransport(create_app(whop, journal=journal))
    async with httpx.AsyncClient(transport=transport, base_url="http://whop.test") as control:
        yield Server(whop=whop, url="http://whop.test", journal=journal, control=control)


@contextlib.asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serve any application on a free loopback port, in this event loop; yields its URL."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:  # asyncio sets TCP_NODELAY on these
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        config = uvicorn.Config(app, log_level="warning", lifespan="on", access_log=False)
        config.timeout_keep_alive = 60  # longer than a client's, or it hangs up as a call comes in
        server = Unsignaled(config)
        task = asyncio.create_task(server.serve([listening]))
        try:
            await until(lambda: server.started or task.done())
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            await task


@dataclass(slots=True)
class Endpoint:
    """A webhook endpoint that keeps what it hears; `answers` are given first, then 200."""

    answers: list[int] = field(default_factory=list)
    heard: list[httpx.Request] = field(default_factory=list)

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        headers = [(name, value) for name, value in scope["headers"]]
        self.heard.append(httpx.Request("POST", "http://endpoint/", headers=headers, content=body))
        status = self.answers.pop(0) if self.answers else 200
        kind = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": kind})
        await send({"type": "http.response.body", "body": b'{"heard":true}'})


async def _lifespan(receive, send) -> None:
    for word in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{word}.complete"})


def standard_key(secret: str) -> str:
    """Return the key under which Standard Webhooks' own library knows a secret of Whop's."""
    return base64.b64encode(secret.encode()).decode()


async def until(true: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Wait until something is true; fail loudly when it does not come."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for belongs to others
            await asyncio.sleep(0.002)
