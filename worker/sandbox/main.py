"""Runs a local Whop: `usher sandbox`, and the one inside `usher up`."""

import asyncio
import contextlib
import random
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from worker.sandbox.app import create_app
from worker.sandbox.keeper import Keeper
from worker.sandbox.state import LATEST, LocalWhop, SeedProduct, seed


class Unsignaled(uvicorn.Server):
    """A server that leaves Ctrl-C to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def utc_now() -> datetime:
    """Return the time; the one place of the local Whop where a clock is read."""
    return datetime.now(UTC)  # noqa: TID251 - a clock has to be read somewhere, and is handed in


async def serve(
    *,
    account: str,
    products: Sequence[SeedProduct],
    api_key: str,
    host: str = "127.0.0.1",
    port: int = 4000,
    data: Path | None = None,
    webhook_url: str | None = None,
    webhook_secret: str | None = None,
    api_version_date: str | None = LATEST,
    retry_clock: float = 1.0,
    clock: Callable[[], datetime] = utc_now,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve a local Whop until Ctrl-C; or, when `stop` is given, until that is set.

    `ready` is called with the root URL as soon as it listens; port 0 takes a free one. With a
    `retry_clock` of 600, a delivery that fails is tried again 600 times sooner than by Whop.

    Raises:
        OSError: the port is taken.
        Unreadable: the file `data` is broken.
    """
    whop = LocalWhop(account, clock=clock, rng=random.Random(secrets.randbits(64)))  # noqa: S311 - ids, no secrets of anybody
    keeper = None if data is None else Keeper(whop, data)
    if keeper is not None:
        keeper.load()
    whop.faults.retry_clock = retry_clock
    whop.outbox.hasten(retry_clock, whop.now())
    seed(
        whop,
        products,
        api_key=api_key,
        webhook_url=webhook_url,
        webhook_secret=webhook_secret,
        api_version_date=api_version_date,
    )
    with _listening(host, port) as listening:
        await _serve(whop, listening, keeper=keeper, ready=ready, stop=stop)


def _listening(host: str, port: int) -> socket.socket:
    """Bind the port; asyncio sets TCP_NODELAY only on sockets that say that they are TCP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening


async def _serve(
    whop: LocalWhop,
    listening: socket.socket,
    *,
    keeper: Keeper | None,
    ready: Callable[[str], None] | None,
    stop: asyncio.Event | None,
) -> None:
    config = uvicorn.Config(create_app(whop), log_level="warning", access_log=False)
    server = uvicorn.Server(config) if stop is None else Unsignaled(config)
    helpers = [asyncio.create_task(_announce(server, listening, ready))]
    if stop is not None:
        helpers.append(asyncio.create_task(_stop_when(stop, server)))
    keeping = None if keeper is None else asyncio.create_task(keeper.run())
    try:
        await server.serve([listening])
    finally:
        await _end(*helpers)
        if keeping is not None:
            await _end(keeping)


async def _announce(
    server: uvicorn.Server, listening: socket.socket, ready: Callable[[str], None] | None
) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag, no event
        await asyncio.sleep(0.01)
    if ready is not None:
        host, port = listening.getsockname()[:2]
        ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


async def _stop_when(stop: asyncio.Event, server: uvicorn.Server) -> None:
    await stop.wait()
    server.should_exit = True


async def _end(*tasks: "asyncio.Task[None]") -> None:
    """Cancel the tasks and wait for them; what went wrong in one is raised."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
