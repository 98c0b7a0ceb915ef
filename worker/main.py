"""The worker as a process: arq's loop, its lanes, and a supervisor round them.

`usher work` runs `work`; `arq worker.main.WorkerSettings` runs the same jobs without the
supervisor, so that it ends when Redis is away.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
import zoneinfo
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import msgspec
import structlog
from arq import cron, func
from arq.connections import ArqRedis
from arq.worker import Worker
from redis.exceptions import RedisError

from webhooks import log as logs
from webhooks.durability import WANTED, Unknowable, shortcomings
from webhooks.inbox import JOB_LIFE, Inbox, InboxUnavailable, connect
from worker import jobs
from worker.assembly import assemble, clock
from worker.breaker import asking
from worker.catchup import Found
from worker.health import Health, Pulse, serving
from worker.leases import RENEW_EVERY, Leases
from worker.meters import Meters
from worker.proof.inspection import nightly
from worker.proof.recall import recall
from worker.settings import Settings, SettingsError
from worker.tools import Tools
from worker.whop.client import NEEDS
from worker.whop.errors import WhopError

__all__ = ["Settings", "SettingsError", "assemble", "catch_up", "clock", "options", "work"]

MAX_JOBS: Final = 20
ROOM_JOBS: Final = 100
"""Rooms at once: many may change in the same second, each with a call or two."""

QUEUE_READ_LIMIT: Final = 500
"""Ids that arq reads at a time: more than all workers run at once, or they hide what waits."""

POLL: Final = 0.05
HOUSE_POLL: Final = 0.5
HOUSE_JOBS: Final = 10
FINISH: Final = 8
"""Seconds that running jobs have after SIGTERM; then they are given back."""

Hook = Callable[[dict[str, Any]], Awaitable[None]]

log = structlog.get_logger()


async def converge(ctx: dict[str, Any], subject: str) -> None:
    """Arq's job: bring a subject up to date."""
    with structlog.contextvars.bound_contextvars(job=ctx["job_id"]):
        await jobs.run(ctx["tools"], subject)


async def sweep(ctx: dict[str, Any]) -> None:
    """Arq's cron job: mend what was lost."""
    await jobs.sweep(ctx["tools"])


async def watch(ctx: dict[str, Any]) -> None:
    """Arq's cron job: look for channels that somebody changed by hand."""
    await jobs.watch(ctx["tools"])


async def read_calendars(ctx: dict[str, Any]) -> None:
    """Arq's cron job: read the rooms' calendars."""
    await jobs.read_calendars(ctx["tools"])


async def inspect(ctx: dict[str, Any]) -> None:
    """Arq's cron job: prove that access equals purchases; of the hours, only one at night does."""
    await nightly(ctx["tools"])


async def refresh_team(ctx: dict[str, Any]) -> None:
    """Arq's cron job: ask who the admins are."""
    await jobs.look_back(ctx["tools"])
    await jobs.refresh_team(ctx["tools"])


async def take_in(ctx: dict[str, Any]) -> None:
    """Arq's cron job: take in what Whop could not deliver."""
    await jobs.catch_up(ctx["tools"])


async def catch_up(settings: Settings, since: datetime | None = None) -> Found | None:
    """Catch up once, from a command; None where it could not be done, which the log explains."""
    redis = connect(settings.redis_url)
    try:
        async with _client(settings) as http:
            tools = assemble(settings, redis, http, clock)
            renewing = asyncio.create_task(_renew(tools.leases))
            try:
                return await jobs.catch_up(tools, since)
            finally:
                await _end([renewing])
    finally:
        await redis.aclose()


def options(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = clock,
    health: Health | None = None,
) -> dict[str, Any]:
    """Return arq's settings for a whole worker, whose start brings the other lanes with it."""
    lane = _lane(settings, "queue", MAX_JOBS)
    start, stop = _hooks(settings, lane["redis_pool"], clock, health or _health())
    return lane | {"on_startup": start, "on_shutdown": stop}


def _health() -> Health:
    return Health(Meters(), Pulse(time.monotonic))


def _house(settings: Settings) -> dict[str, Any]:
    """Return arq's settings for what keeps house: no crowd of buyers, and no Whop that is down and
    makes them wait, keeps it from its work.
    """
    every_five, every_ten = set(range(0, 60, 5)), set(range(0, 60, 10))
    return _lane(settings, "queue:house", HOUSE_JOBS) | {
        "poll_delay": HOUSE_POLL,
        "cron_jobs": [
            cron(sweep, second=every_ten, run_at_startup=True, keep_result=0),
            cron(watch, second=30, keep_result=0),
            cron(read_calendars, minute=every_ten, run_at_startup=True, keep_result=0),
            cron(inspect, minute=23, keep_result=0),
            cron(refresh_team, minute=every_ten, keep_result=0),
            cron(take_in, minute=every_five, run_at_startup=True, keep_result=0),
        ],
    }


def _lane(settings: Settings, queue: str, jobs: int) -> dict[str, Any]:
    """Return arq's settings for a queue: JSON and no pickle, no results, no giving up but ours."""
    redis = connect(settings.redis_url)
    prefix = Inbox(redis, settings.rules.account).prefix
    encode, decode = msgspec.json.Encoder(enc_hook=repr).encode, msgspec.json.decode
    return {
        "functions": [func(converge, name="converge")],
        "redis_pool": ArqRedis(
            redis.connection_pool,
            job_serializer=encode,
            job_deserializer=decode,
            default_queue_name=f"{prefix}{queue}",
            expires_extra_ms=JOB_LIFE,
        ),
        "queue_name": f"{prefix}{queue}",
        "job_serializer": encode,
        "job_deserializer": decode,
        "keep_result": 0,
        "max_tries": 1_000_000,
        "job_timeout": timedelta(hours=1),
        "job_completion_wait": FINISH,
        "max_jobs": jobs,
        "poll_delay": POLL,
        "queue_read_limit": QUEUE_READ_LIMIT,
        "expires_extra_ms": JOB_LIFE,
        "log_results": False,
        "timezone": UTC,
    }


def _client(settings: Settings) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=settings.api_url,
        headers={"Authorization": f"Bearer {settings.api_key}", "User-Agent": "usher"},
        limits=httpx.Limits(max_connections=2 * MAX_JOBS + ROOM_JOBS),
    )


def _hooks(
    settings: Settings, redis: Any, clock: Callable[[], datetime], health: Health
) -> tuple[Hook, Hook]:
    """Return what arq runs at a worker's start and at its end."""

    async def start(ctx: dict[str, Any]) -> None:
        ctx["http"] = http = _client(settings)
        ctx["tools"] = tools = assemble(settings, redis, http, clock, health.meters)
        ctx["beside"] = [
            asyncio.create_task(_renew(tools.leases)),
            asyncio.create_task(tools.breaker.keep(asking(tools.whop))),
        ]
        await tools.breaker.learn()
        await _look_round(tools, redis)
        await jobs.refresh_team(tools)
        await _recall(tools)
        await jobs.open_up(tools)
        health.tools = tools
        ctx["stopping"] = asyncio.Event()
        ctx["lanes"] = asyncio.gather(
            _aside(ctx, "rooms", _lane(settings, "queue:rooms", ROOM_JOBS), health.pulse),
            _aside(ctx, "house", _house(settings), health.pulse),
        )

    return start, _close


async def _recall(tools: Tools) -> None:
    """Learn from Whop what is ours, if Redis is new or was emptied; or the first buyer asks."""
    try:
        await recall(tools)
    except (WhopError, LookupError, TypeError, ValueError) as error:
        log.warning(
            "mirror.unknown", why=str(error), next="it is asked again before anybody is let in"
        )


async def _close(ctx: dict[str, Any]) -> None:
    """End what a worker's start began; twice is once."""
    if "lanes" in ctx:
        ctx["stopping"].set()
        await ctx.pop("lanes")
    if "beside" in ctx:
        await _end(ctx.pop("beside"))
        await ctx["http"].aclose()


async def _aside(main: dict[str, Any], name: str, options: dict[str, Any], pulse: Pulse) -> None:
    """Run a lane beside the main one, with the same tools, until that one ends."""

    async def start(ctx: dict[str, Any]) -> None:
        ctx["tools"] = main["tools"]

    def lane() -> Worker:
        return _Lane(name, pulse, on_startup=start, handle_signals=False, **options)

    while not main["stopping"].is_set():
        try:
            await _keep_running(main["stopping"], lane)
        except Exception:  # nobody would see that rooms are not locked any more
            log.exception("lane.broke", lane=name, next="it begins anew")
            await _a_second(main["stopping"])
    pulse.forget(name)


class _Lane(Worker):
    """One of arq's loops, which says that it goes round."""

    def __init__(self, name: str, pulse: Pulse, **options: Any) -> None:
        super().__init__(**options)
        self._name = name
        self._pulse = pulse
        self._beating = asyncio.Lock()

    async def heart_beat(self) -> None:
        """Be heard, as arq has it after each poll, and leave the jobs whose time has come."""
        async with self._beating:
            self._pulse.beat(self._name)
            await super().heart_beat()

    async def rest(self) -> None:
        """End a beat and begin no other: one that is cut off keeps a connection open."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._beating.acquire(), 1)


async def _renew(leases: Leases) -> None:
    while True:
        await asyncio.sleep(RENEW_EVERY)
        with contextlib.suppress(RedisError, OSError):  # the next round may do; a lease bears two
            await leases.renew()


async def _look_round(tools: Tools, redis: Any) -> None:
    """Say, before anybody is served, what Redis or the key is short of."""
    try:
        found = await shortcomings(redis)
    except Unknowable as why:
        log.warning("redis.unchecked", why=str(why), wanted=WANTED)
    else:
        if found:
            log.warning("redis.doubted", found=found, wanted=WANTED)
    wanted = sorted({action for needs in NEEDS.values() for action in needs.split(", ")})
    try:
        lacking = sorted(set(wanted) - await tools.whop.permitted(wanted))
    except (WhopError, LookupError, TypeError) as error:  # it is a look, and ends nobody
        log.warning("permissions.unknown", why=str(error))
    else:
        if lacking:
            log.warning("permissions.lacking", lacking=lacking, next="give them to the API key")


def work(settings: Settings) -> None:
    """Run a worker until SIGTERM or Ctrl-C; while Redis is away, wait for it."""
    logs.configure(settings.log)
    logging.getLogger("arq").setLevel(logging.ERROR)  # our own lines say what the jobs did
    import uvloop  # noqa: PLC0415 - not on every platform, and slow to import

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_supervise(settings))


async def _supervise(settings: Settings) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)

    health = _health()

    def worker() -> Worker:
        log.info("worker.started", account=settings.rules.account, api=settings.api_url)
        health.tools = None  # until it has started
        health.pulse.forget()
        return _Lane(
            "members", health.pulse, handle_signals=False, **options(settings, health=health)
        )

    async with serving(health, settings.host, settings.port):
        await _keep_running(stopping, worker)
    log.info("worker.stopped")


async def _keep_running(stopping: asyncio.Event, worker: Callable[[], Worker]) -> None:
    """Run a worker, and another one where Redis went away, until it is to stop."""
    while not stopping.is_set():
        try:
            await run_until(stopping, worker())
        except (RedisError, OSError, InboxUnavailable) as error:
            log.warning("redis.away", why=str(error), next="the worker waits for it")
            await _a_second(stopping)


async def _a_second(stopping: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), 1)


async def run_until(stopping: asyncio.Event, worker: Worker) -> None:
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
    if isinstance(worker, _Lane) and not running.done():
        await worker.rest()
    await _end([running])
    await _end([*worker.tasks.values()])  # `running` may have begun one more meanwhile
    worker.tasks.clear()  # or arq's close would stumble over those that were cancelled
    try:
        with contextlib.suppress(RedisError, OSError, asyncio.CancelledError):
            await worker.close()
    finally:
        await _close(worker.ctx)  # arq's close skips our shutdown where Redis is away
    if not running.cancelled():
        running.result()


async def _end(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    """Cancel tasks until they are done: one cancel can be lost in the Redis client's timeouts."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=0.5)


async def _nothing() -> None:
    """Give `asyncio.wait` something to wait for where nothing runs."""


def __getattr__(name: str) -> Any:
    """Build `WorkerSettings` for arq's own command when it is asked for, and not at import."""
    if name != "WorkerSettings":
        raise AttributeError(name)
    zoneinfo.reset_tzpath(())  # as the command line does
    settings = Settings.from_env(os.environ)  # noqa: TID251 - the process's edge
    logs.configure(settings.log)
    return type("WorkerSettings", (), options(settings))
