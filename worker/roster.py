"""The roster: which workers there are, and by which rules.

While an update rolls, workers of two versions of the rules run side by side. Only those with the
newer rules take jobs then, and once the last older one is gone, all are looked at by the newer
rules. Which rules are newer: those of the worker that started last, of those that are alive.
Redis has, under `usher:{account}:`:

    workers             sorted set: {when it started, ms}:{mark of its rules}:{process} -> alive
                        until (ms), by Redis' own clock
    ruled               the mark of the rules by which all rooms were asked to be looked at last
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

BEAT: Final = 3.0
"""Seconds between two signs of life."""

ALIVE: Final = 15_000
"""Milliseconds for which a worker counts as alive after one."""

KEPT: Final = 60_000

CURRENT: Final = """
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function current(prefix)
  local latest, rules = -1, nil
  for _, one in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'workers', clock(), '+inf')) do
    local start, mark = string.match(one, '^(%d+):([^:]*):')
    if tonumber(start) > latest then latest, rules = tonumber(start), mark end
  end
  return rules
end
"""
"""Lua: the mark of the newest rules by which anybody works; nil where nobody does."""

_BEAT: Final = f"""{CURRENT}
local prefix, start, mark, process = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = clock()
if start == '' then start = string.format('%.0f', now) end
redis.call('ZREMRANGEBYSCORE', prefix .. 'workers', '-inf', now - {KEPT})
redis.call('ZADD', prefix .. 'workers', now + {ALIVE}, start .. ':' .. mark .. ':' .. process)
local newest, ruled = current(prefix), redis.call('GET', prefix .. 'ruled')
if newest == mark then redis.call('SET', prefix .. 'ruled', mark) end
return {{start, newest, ruled or ''}}
"""
"""Lua: a sign of life; returns when the worker started, the newest rules, and those by which all
was asked to be looked at until now."""

log = structlog.get_logger()


class Roster:
    """One worker's place among the others."""

    def __init__(self, redis: Redis, prefix: str, mark: str, process: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._mark = mark
        self._process = process
        self._start = ""
        self._beat = redis.register_script(_BEAT)
        self.current = True
        """Whether nobody works by newer rules, as far as was heard."""

    async def beat(self) -> bool:
        """Give a sign of life; says whether all must be looked at anew, by our rules."""
        args = [self._prefix, self._start, self._mark, self._process]
        start, newest, ruled = await self._beat(args=args)
        before, self._start = self.current, start.decode()
        self.current = newest.decode() == self._mark
        if before and not self.current:
            log.warning(
                "rules.older",
                ours=self._mark,
                newer=newest.decode(),
                next="jobs are left to the workers with newer rules; stop this one, or update it",
            )
        return self.current and ruled.decode() != self._mark

    async def keep(self, took_over: Callable[[], Awaitable[None]]) -> None:
        """Give signs of life for as long as the worker runs, and take over where ours are newest.

        A round that fails is no harm; nothing but a cancel ends it.
        """
        while True:
            await asyncio.sleep(BEAT)
            try:
                if await self.beat():
                    log.info("rules.newest", ours=self._mark)
                    await took_over()
            except (RedisError, OSError):
                pass  # the worker's own matter
            except Exception:  # or it would count as gone, and nobody would see why
                log.exception("roster.broke", next="it goes on with the next round")

    async def leave(self) -> None:
        """Leave: those who stay need not wait until we count as gone."""
        member = f"{self._start}:{self._mark}:{self._process}"
        await self._redis.zrem(f"{self._prefix}workers", member)
