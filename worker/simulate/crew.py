"""The worker of a simulation: the real jobs, in turn, with its absences and its deaths."""

import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx

from worker import jobs, main
from worker.opening import open_up
from worker.rules import Rules
from worker.simulate.agenda import Clock
from worker.simulate.wire import CountedQuota, Killed, Line
from worker.subjects import milliseconds
from worker.tools import Tools
from worker.whop.client import Whop
from worker.whop.errors import WhopError
from worker.whop.quota import Quota

API_KEY: Final = "apik_simulated"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Furnish = Callable[[Tools], Tools]


async def at_once(_: float) -> None:
    """Stand for a pause: the clock does not move while a job runs."""


def equip(
    settings: main.Settings,
    redis: Any,
    http: httpx.AsyncClient,
    clock: Callable[[], datetime],
    *,
    quota: Quota,
    rng: random.Random,
) -> Tools:
    """Return what the jobs work with: nothing is otherwise but that no call waits."""
    tools = main.assemble(settings, redis, http, clock)
    account = settings.rules.account
    whop = Whop(http, account=account, quota=quota, rng=rng, sleep=at_once)
    return replace(tools, whop=whop, rng=rng)


class Crew:
    """One worker process and whoever starts it again."""

    def __init__(
        self, rules: Rules, redis: Any, line: Line, clock: Clock, rng: random.Random
    ) -> None:
        self._settings = main.Settings(rules=rules, api_key=API_KEY, redis_url="redis://simulated")
        self._redis = redis
        self._clock = clock
        self._rng = rng
        self._due = f"usher:{rules.account}:due"
        self._http = httpx.AsyncClient(
            transport=line,
            base_url="http://whop.simulated/api/v1",
            headers={"Authorization": f"Bearer {API_KEY}"},
        )
        self.quota = CountedQuota(clock)
        self.furnish: Furnish = lambda tools: tools
        self.tools: Tools | None = None
        self.away_until: datetime | None = None
        self._looks_round = False
        self.starts = self.deaths = self.jobs = 0

    async def start(self) -> None:
        """Start the worker anew, as `usher work` does: what it knew by heart is gone."""
        self.starts += 1
        self.away_until = None
        self.tools = self.furnish(
            equip(
                self._settings,
                self._redis,
                self._http,
                self._clock,
                quota=self.quota,
                rng=self._rng,
            )
        )
        try:
            await jobs.refresh_team(self.tools)
            with contextlib.suppress(WhopError):  # a worker would look again
                await open_up(self.tools)
        except Killed:
            self.leave(self._clock())

    def leave(self, until: datetime) -> None:
        """Stop the worker; it is started again at an instant."""
        self.tools, self.away_until = None, until

    async def next(self) -> datetime | None:
        """Return when the worker next has something to do."""
        if self.tools is None:
            return self.away_until
        first = await self._redis.zrange(self._due, 0, 0, withscores=True)
        return EPOCH + timedelta(milliseconds=int(first[0][1])) if first else None

    async def work(self) -> list[str]:
        """Do every job that is due now; returns their subjects."""
        if self.tools is None:
            if self.away_until is None or self.away_until > self._clock():
                return []
            await self.start()
        if self._looks_round:
            await self._chore(jobs.watch)
        now = milliseconds(self._clock())
        due = [s.decode() for s in await self._redis.zrangebyscore(self._due, "-inf", now)]
        for n, subject in enumerate(due):
            if self.tools is None:
                return due[:n]
            await self._job(self.tools, subject)
        return due

    def look_round(self) -> None:
        """Have the worker look for edits by hand, as arq's cron has it do each minute."""
        self._looks_round = True

    async def _job(self, tools: Tools, subject: str) -> None:
        self.jobs += 1
        try:
            await jobs.run(tools, subject)
        except Killed:
            self.deaths += 1
            self.leave(self._clock())

    async def housekeeping(self) -> None:
        """Do what arq's cron does every few minutes: here once a day, or nothing else would run."""
        for chore in (jobs.refresh_team, jobs.watch, jobs.sweep):
            await self._chore(chore)

    async def _chore(self, chore: Callable[[Tools], Awaitable[None]]) -> None:
        self._looks_round = False
        if self.tools is not None:
            try:
                await chore(self.tools)
            except Killed:
                self.leave(self._clock())

    async def dead(self) -> dict[str, str]:
        """Return what was given up for good, by subject, with the reason."""
        if self.tools is None:
            return {}
        return {s: death.reason for s, death in (await self.tools.subjects.deaths()).items()}

    async def close(self) -> None:
        """Close the client."""
        await self._http.aclose()
