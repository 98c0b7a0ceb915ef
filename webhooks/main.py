"""The receiver as a process, from its start to SIGTERM.

`uvicorn --factory webhooks.main:create` and `usher receive` (`serve`) run the same application.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError
from starlette.applications import Starlette

from webhooks import log
from webhooks.app import Store, create_app
from webhooks.connections import Guarded, make_room
from webhooks.durability import WANTED, Unknowable, shortcomings
from webhooks.inbox import Inbox, connect
from webhooks.meters import Connections
from webhooks.settings import Settings, SettingsError

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["PortTaken", "Settings", "SettingsError", "build", "create", "serve"]

_GRACE: Final = 20
"""Seconds that held requests have after SIGTERM; one that waits for Redis needs fewer."""

_KEEP_ALIVE: Final = 75
"""Seconds that an idle connection stays open: longer than the proxies in front keep theirs, or
they would send a delivery into a connection that we are just closing."""

_UNTIL_ASKED_AGAIN: Final = 5.0

logger = structlog.get_logger()


class PortTaken(Exception):
    """The receiver cannot listen where it was told to; the message is the line for the person."""


def create() -> Starlette:
    """Build the application from the environment; this is what uvicorn's `--factory` calls.

    Raises:
        SettingsError: one line with everything that is missing, empty or wrong.
    """
    settings = Settings.from_env(os.environ)  # noqa: TID251 - the process's edge
    log.configure(settings.log)
    return build(settings)


def build(settings: Settings, store: Store | None = None) -> Starlette:
    """Put the application together; nothing is opened before it serves.

    Args:
        settings: what the environment says.
        store: takes the deliveries instead of Redis, so that a benchmark can tell what that costs.
    """
    redis = connect(settings.redis_url, timeout=None)  # the inbox bounds its calls itself
    failing_over = settings.redis_url.startswith("redis+sentinel://")
    inbox = Inbox(redis, settings.account, kept=settings.kept, replicas=int(failing_over))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        _spare_the_collector()
        check = asyncio.create_task(_check_durability(redis))
        yield
        check.cancel()
        await asyncio.wait([check])
        await inbox.close()

    registry = CollectorRegistry()
    registry.register(Connections(Guarded.crowd))
    return create_app(
        inbox=store or inbox,
        account=settings.account,
        secrets=settings.secrets,
        clock=time.time,  # noqa: TID251 - the process's edge
        registry=registry,
        lifespan=lifespan,
    )


def serve(settings: Settings) -> None:
    """Listen and answer until SIGTERM or Ctrl-C, then finish what is held.

    Raises:
        PortTaken: somebody else listens there, or we may not.
    """
    # uvicorn raises the signal anew when it has finished: an orderly end is exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), _listen(settings.host, settings.port) as listener:
        log.configure(settings.log)
        Guarded.crowd.bounds = make_room(Guarded.crowd.bounds)
        host, port = listener.getsockname()[:2]
        logger.info("receiver.started", host=host, port=port, account=settings.account)
        try:
            uvicorn.Server(_config(settings)).run(sockets=[listener])
        finally:
            logger.info("receiver.stopped")


def _config(settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        build(settings),
        http=Guarded,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",  # our own lines tell of start and end
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as trouble:
        why = str(trouble.strerror).partition(" (while")[0]  # Python repeats the address there
        raise PortTaken(
            f"cannot listen on {host}:{port}: {why}; set USHER_HOST or USHER_PORT"
        ) from trouble


def _spare_the_collector() -> None:
    """Keep the garbage collector off what lives as long as the process: a tenth of the receiver's
    time, and its longest pauses. What a request leaves behind is freed by counting.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def _check_durability(redis: "Redis") -> None:
    """Say once how far Redis is from what production wants; wait for it if it is away."""
    while True:
        try:
            async with asyncio.timeout(_UNTIL_ASKED_AGAIN):
                found = await shortcomings(redis)
                await redis.connection_pool.disconnect(inuse_connections=False)  # used once
        except Unknowable as unknowable:
            logger.warning("redis.unchecked", reason=str(unknowable), wanted=WANTED)
            return
        except (RedisError, OSError) as trouble:
            logger.warning("redis.missed", reason=str(trouble))
            await asyncio.sleep(_UNTIL_ASKED_AGAIN)
        else:
            break
    if found:
        logger.warning("redis.doubted", found=found, wanted={name: WANTED[name] for name in found})
