"""The worker as a process: what arq runs, in which lanes, and what a worker starts with.

`usher work` runs `work`; `arq worker.main.WorkerSettings` runs the same jobs without the
supervisor, so that it ends when Redis is away.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
import uuid
import zoneinfo
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import msgspec
import structlog
from arq import cron, func
from arq.connections import ArqRedis
from arq.jobs import Job
from arq.worker import Worker

from webhooks import log as logs
from webhooks.inbox import JOB_LIFE, Inbox, connect
from worker import jobs
from worker.assembly import assemble
from worker.breaker import asking
from worker.catchup import Found
from worker.clock import now
from worker.health import Health, Pulse, serving
from worker.marking import mark_grants
from worker.meters import Meters
from worker.opening import look_back, open_up
from worker.proof.inspection import nightly
from worker.renames import as_it_looks, take_over
from worker.settings import Settings, SettingsError
from worker.startup import know_ours, look_round
from worker.subjects import JOB_LIMIT
from worker.supervisor import FINISH, a_second, close, end, keep_running, run_until

__all__ = ["Settings", "SettingsError", "assemble", "catch_up", "options", "work"]

MAX_JOBS: Final = 20
ROOM_JOBS: Final = 100
"""Rooms at once: many may change in the same second, each with a call or two."""

QUEUE_READ_LIMIT: Final = 500
"""Ids that arq reads at a time: more than all workers run at once, or they hide what waits."""

POLL: Final = 0.05
HOUSE_POLL: Final = 0.5
HOUSE_JOBS: Final = 10

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
    await jobs.look_at_permissions(ctx["tools"], only_if_blind=True)
    await jobs.watch(ctx["tools"])
    await mark_grants(ctx["tools"])


async def read_calendars(ctx: dict[str, Any]) -> None:
    """Arq's cron job: read the rooms' calendars."""
    await jobs.read_calendars(ctx["tools"])


async def inspect(ctx: dict[str, Any]) -> None:
    """Arq's cron job: prove that access equals purchases; of the hours, only one at night does."""
    await nightly(ctx["tools"])


async def refresh_team(ctx: dict[str, Any]) -> None:
    """Arq's cron job: ask who the admins are."""
    await jobs.look_at_permissions(ctx["tools"], only_if_blind=False)
    await look_back(ctx["tools"])
    await jobs.refresh_team(ctx["tools"])


async def take_in(ctx: dict[str, Any]) -> None:
    """Arq's cron job: take in what Whop could not deliver."""
    await jobs.catch_up(ctx["tools"])


async def catch_up(settings: Settings, since: datetime | None = None) -> Found | None:
    """Catch up once, from a command; None where it could not be done, which the log explains."""
    redis = connect(settings.redis_url)
    try:
        async with _client(settings) as http:
            tools = await as_it_looks(assemble(settings, redis, http, now))
            renewing = asyncio.create_task(tools.leases.keep())
            try:
                return await jobs.catch_up(tools, since)
            finally:
                await end([renewing])
    finally:
        await redis.aclose()


def options(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = now,
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
        "redis_pool": OfAccount(
            prefix,
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
        "job_timeout": JOB_LIMIT,
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
        tools = assemble(settings, redis, http, clock, health.meters, enrolled=True)
        ctx["tools"] = tools
        await tools.roster.beat()
        ctx["beside"] = [
            asyncio.create_task(tools.roster.keep(lambda: open_up(ctx["tools"]))),
            asyncio.create_task(tools.leases.keep()),
            asyncio.create_task(tools.breaker.keep(asking(tools.whop))),
        ]
        await tools.breaker.learn()
        ctx["tools"] = tools = await take_over(tools)
        if await tools.store.team() is None:
            await jobs.refresh_team(tools)
        await know_ours(tools)
        ctx["looking"] = looking = asyncio.create_task(look_round(tools, redis))
        ctx["beside"].append(looking)
        health.tools = tools
        ctx["stopping"] = asyncio.Event()
        ctx["lanes"] = asyncio.gather(
            _aside(ctx, "rooms", _lane(settings, "queue:rooms", ROOM_JOBS), health.pulse),
            _aside(ctx, "house", _house(settings), health.pulse),
        )

    return start, close


async def _aside(main: dict[str, Any], name: str, options: dict[str, Any], pulse: Pulse) -> None:
    """Run a lane beside the main one, with the same tools, until that one ends."""

    async def start(ctx: dict[str, Any]) -> None:
        ctx["tools"] = main["tools"]

    async def lane() -> None:
        loop = Lane(name, pulse, on_startup=start, handle_signals=False, **options)
        await run_until(main["stopping"], loop)

    while not main["stopping"].is_set():
        try:
            await keep_running(main["stopping"], lane)
        except Exception:  # nobody would see that rooms are not locked any more
            log.exception("lane.broke", lane=name, next="it begins anew")
            await a_second(main["stopping"])
    pulse.forget(name)


class Lane(Worker):
    """One of arq's loops, which says that it goes round, and is not cut off in a step.

    A step that is cut off leaves its connection open: arq has a transaction in each.
    """

    def __init__(self, name: str, pulse: Pulse, **options: Any) -> None:
        super().__init__(**options)
        self._name = name
        self._pulse = pulse
        self._step = asyncio.Lock()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Take jobs, as arq does after each poll, until the lane is to stop."""
        for job_id in job_ids:
            async with self._step:
                if self.allow_pick_jobs and self.ctx["tools"].roster.current:
                    await super().start_jobs([job_id])

    async def heart_beat(self) -> None:
        """Be heard, as arq has it after each poll, and leave the jobs whose time has come."""
        async with self._step:
            self._pulse.beat(self._name)
            await super().heart_beat()

    async def rest(self) -> None:
        """End a step and begin no other."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._step.acquire(), 2)


class OfAccount(ArqRedis):
    """Arq's client, for one account's jobs: arq's keys have no name but the job's id.

    Only the ids of cron jobs are made here; the others' are made where the job is
    (`webhooks.inbox`). The functions keep their names, so that a worker of another version knows
    what was left for it.
    """

    def __init__(self, prefix: str, *pool: Any, **options: Any) -> None:
        super().__init__(*pool, **options)
        self._prefix = prefix

    async def enqueue_job(
        self, function: str, *args: Any, _job_id: str | None = None, **options: Any
    ) -> Job | None:
        """Leave a job, by an id that no other account has."""
        id_ = f"{self._prefix}{_job_id or uuid.uuid4().hex}"
        return await super().enqueue_job(function, *args, _job_id=id_, **options)


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

    async def worker() -> None:
        log.info("worker.started", account=settings.rules.account, api=settings.api_url)
        health.tools = None  # until it has started
        health.pulse.forget()
        lane = options(settings, health=health)
        loop = Lane("members", health.pulse, handle_signals=False, **lane)
        await run_until(stopping, loop)

    async with serving(health, settings.host, settings.port):
        await keep_running(stopping, worker)
    log.info("worker.stopped")


def __getattr__(name: str) -> Any:
    """Build `WorkerSettings` for arq's own command when it is asked for, and not at import."""
    if name != "WorkerSettings":
        raise AttributeError(name)
    zoneinfo.reset_tzpath(())  # as the command line does
    settings = Settings.from_env(os.environ)  # noqa: TID251 - the process's edge
    logs.configure(settings.log)
    return type("WorkerSettings", (), options(settings))
