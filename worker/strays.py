"""Subjects that nobody would look at again: something waits for them, and they are not due.

No script of ours leaves one so. A key that somebody deleted does, or a Redis that came back without
its last second. The sweep looks for them by walking all keys, so much at a time that it is round
once a minute.
"""

from typing import Any, Final

from redis.asyncio import Redis

from webhooks.inbox import WAKE, job

COUNT: Final = 1000
"""Keys that Redis looks at in one step of a walk: less than a millisecond."""

ROUNDS: Final = 4
"""Sweeps, ten seconds apart, in which a walk is to come round."""

MOST: Final = 1000
"""Steps of one sweep, however large Redis is: a million keys."""

_MEND: Final = f"""{WAKE}
local now, mended = ARGV[2], {{}}
for i = 4, #ARGV do
  local subject = ARGV[i]
  if not redis.call('ZSCORE', prefix .. 'due', subject)
    and redis.call('HEXISTS', prefix .. 'dead', subject) == 0
    and redis.call('EXISTS', prefix .. 'pending:' .. subject) == 1 then
    wake(subject, now, (string.gsub(ARGV[3], 'SUBJECT', function() return subject end)))
    mended[#mended + 1] = subject
  end
end
return mended
"""
"""Lua: make those due that wait and are not. What failed for good waits too, and for a person."""


class Strays:
    """The walk over all keys; each worker that sweeps walks its own."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._pending = f"{prefix}pending:"
        self._cursor = 0
        self._mend = redis.register_script(_MEND)

    async def mend(self, now: int) -> list[str]:
        """Go on with the walk; return the subjects that were made due at an instant (ms)."""
        mended: list[str] = []
        for _ in range(min(MOST, await self._redis.dbsize() // COUNT // ROUNDS + 1)):
            self._cursor, keys = await self._redis.scan(
                self._cursor, match=f"{self._pending}*", count=COUNT
            )
            if keys:
                mended += await self._made_due(keys, now)
            if self._cursor == 0:
                break
        return mended

    async def _made_due(self, keys: list[bytes], now: int) -> list[str]:
        subjects = [key[len(self._pending.encode()) :] for key in keys]
        arguments: list[Any] = [self._prefix, now, job("SUBJECT", now), *subjects]
        return [subject.decode() for subject in await self._mend(args=arguments)]
