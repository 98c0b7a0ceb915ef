"""What a worker says of itself over HTTP: GET /healthz, /readyz and /metrics.

The server belongs to the process and not to one of arq's loops: it goes on answering while Redis
is away and the loop is built anew.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import uvicorn
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from worker.meters import Meters
from worker.policy.webhook import nears_its_end, turned_off
from worker.sight import MEMBERS
from worker.tools import Tools

STALE: Final = 60.0
"""Seconds after which a loop that has not polled is taken for dead."""

READY_WITHIN: Final = 3.0


class PortTaken(Exception):
    """The worker cannot listen where it was told to; the message is the line for the person."""


@dataclass(slots=True)
class Pulse:
    """When each loop of the process polled last, by a clock that never goes back (seconds)."""

    now: Callable[[], float]
    beats: dict[str, float] = field(default_factory=dict)

    def beat(self, loop: str) -> None:
        """Note that a loop is alive."""
        self.beats[loop] = self.now()

    def forget(self, loop: str | None = None) -> None:
        """Expect nothing of a loop that has ended, or of any."""
        for one in [loop] if loop else list(self.beats):
            self.beats.pop(one, None)

    def stale(self) -> list[str]:
        """Return the loops that have not been heard of for too long."""
        late = self.now() - STALE
        return sorted(loop for loop, at in self.beats.items() if at < late)


class Health:
    """What the pages are made from; `tools` are those of the loop that runs now, if one does."""

    def __init__(self, meters: Meters, pulse: Pulse) -> None:
        self.meters = meters
        self.pulse = pulse
        self.tools: Tools | None = None

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """Say whether work gets done, and how each thing stands that it takes."""
        tools = self.tools
        if tools is None:
            return False, {"worker": "it has not started; is Redis away?"}
        try:
            async with asyncio.timeout(READY_WITHIN):
                await tools.inbox.redis.ping()
                webhook = await self._webhook(tools)
                lacking, brakes = await tools.sight.lacking(), await tools.brake.engaged()
        except (RedisError, OSError) as error:
            return False, {"redis": f"away: {str(error) or type(error).__name__}"}
        breaker = tools.breaker.phase
        told = {"redis": "answers", "breaker": breaker.value, "webhook": webhook}
        told |= {"lacking": ", ".join(lacking)} if lacking else {}
        told |= {"brake": f"on: {', '.join(sorted(brakes))}"} if brakes else {}
        works = not tools.breaker.open and webhook != "disabled" and MEMBERS not in lacking
        return works, told

    async def _webhook(self, tools: Tools) -> str:
        health = await tools.catch_up.webhook.health()
        if health is None:
            return "unknown"
        if not health.enabled:
            return "disabled"
        now = tools.clock()
        if end := nears_its_end(health.failing_since, now):
            return f"failing; Whop turns it off {turned_off(end, health.failures, now)}"
        return "failing" if health.failures else "enabled"

    async def measure(self) -> None:
        """Bring up to date what is not counted as it happens; what Redis cannot tell stays."""
        if (tools := self.tools) is None:
            return
        self.meters.breaker(tools.breaker.phase)
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(READY_WITHIN):
                now = tools.clock()
                due, first = await tools.subjects.backlog(now)
                self.meters.backlog(due, first, await tools.subjects.count_dead(), now)
                self.meters.brakes(len(await tools.brake.engaged()), await tools.sight.waiting())
                self.meters.permissions(await tools.sight.lacking())
                if health := await tools.catch_up.webhook.health():
                    self.meters.webhook(health.failures, enabled=health.enabled)


def create_app(health: Health) -> Starlette:
    """Build the pages."""

    async def healthz(_: Request) -> Response:
        stale = health.pulse.stale()
        if stale:
            return _page(503, {"status": "stuck", "loops": stale})
        return _page(200, {"status": "alive"})

    async def readyz(_: Request) -> Response:
        ready, told = await health.ready()
        status = "ready" if ready else "unavailable"
        return _page(200 if ready else 503, {"status": status, **told})

    async def metrics(_: Request) -> Response:
        await health.measure()
        body = generate_latest(health.meters.registry)
        return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})

    pages = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
    return Starlette(routes=[Route(path, page) for path, page in pages.items()])


def _page(code: int, content: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), code, media_type="application/json")


class _Quiet(uvicorn.Server):
    """A server that leaves the signals to the worker."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def serving(health: Health, host: str, port: int | None) -> AsyncIterator[None]:
    """Serve the pages for the length of a block; without a port nothing is served.

    Raises:
        PortTaken: somebody else listens there, or we may not.
    """
    if port is None:
        yield
        return
    with _listening(host, port) as listener:
        config = uvicorn.Config(
            create_app(health), log_config=None, log_level="warning", access_log=False, ws="none"
        )
        server = _Quiet(config)
        task = asyncio.create_task(server.serve([listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await task


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as trouble:
        why = str(trouble.strerror).partition(" (while")[0]  # Python repeats the address there
        raise PortTaken(
            f"cannot listen on {host}:{port}: {why}; set USHER_WORK_PORT or USHER_HOST"
        ) from trouble
