"""A worker's loop from start to end: run until it is to stop, and anew after Redis was away.

What a loop's jobs work with is in its `ctx`; whoever starts a loop puts there what `close` ends.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import structlog
from redis.exceptions import RedisError

from webhooks.inbox import InboxUnavailable

FINISH: Final = 8
"""Seconds that running jobs have after SIGTERM; then they are given back."""

log = structlog.get_logger()


class Loop(Protocol):
    """What takes jobs and runs them, as far as it is supervised."""

    allow_pick_jobs: bool
    ctx: dict[Any, Any]
    tasks: dict[str, "asyncio.Task[Any]"]

    async def async_run(self) -> None:
        """Take jobs, and run them."""

    async def close(self) -> None:
        """Let go of Redis."""


@runtime_checkable
class Resting(Protocol):
    """A loop of steps, which must not be cut off in one."""

    async def rest(self) -> None:
        """End a step and begin no other."""


async def keep_running(stopping: asyncio.Event, run: Callable[[], Awaitable[None]]) -> None:
    """Run a loop, and another one where Redis went away, until it is to stop."""
    while not stopping.is_set():
        try:
            await run()
        except (RedisError, OSError, InboxUnavailable) as error:
            log.warning("redis.away", why=str(error), next="the worker waits for it")
            await a_second(stopping)


async def run_until(stopping: asyncio.Event, worker: Loop) -> None:
    """Run a worker until it is to stop; then let its jobs finish, or give them back, and close it.

    Raises:
        RedisError, OSError, InboxUnavailable: Redis went away; the worker is closed.
    """
    running = asyncio.create_task(worker.async_run())
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not running.done():
        log.info("worker.stopping", jobs=len(worker.tasks))
        worker.allow_pick_jobs = False
        if "tools" in worker.ctx:
            worker.ctx["tools"].breaker.dismiss()
        if "stopping" in worker.ctx:
            worker.ctx["stopping"].set()
        await asyncio.wait(
            [*worker.tasks.values(), asyncio.create_task(_nothing())], timeout=FINISH
        )
    if isinstance(worker, Resting) and not running.done():
        await worker.rest()
    await end([running])
    await end([*worker.tasks.values()])  # `running` may have begun one more meanwhile
    worker.tasks.clear()  # or its close would stumble over those that were cancelled
    try:
        with contextlib.suppress(RedisError, OSError, asyncio.CancelledError):
            await worker.close()
    finally:
        await close(worker.ctx)  # its own close skips our shutdown where Redis is away
    if not running.cancelled():
        running.result()


async def close(ctx: dict[str, Any]) -> None:
    """End what a worker's start began; twice is once."""
    if "lanes" in ctx:
        ctx["stopping"].set()
        await ctx.pop("lanes")
    if "beside" in ctx:
        await end(ctx.pop("beside"))
        with contextlib.suppress(RedisError, OSError):
            await ctx["tools"].roster.leave()
        await ctx["http"].aclose()


async def end(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    """Cancel tasks until they are done: one cancel can be lost in the Redis client's timeouts."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=0.5)


async def a_second(stopping: asyncio.Event) -> None:
    """Wait for a second, or less where it is to stop."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), 1)


async def _nothing() -> None:
    """Give `asyncio.wait` something to wait for where nothing runs."""
