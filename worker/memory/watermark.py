"""Watermark: how far the memory has come, so that an older copy of it is known for one.

written             how many grants and seats were ever written down; it only grows
granted_at          when the last grant was set out to be given
"""

from datetime import datetime
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from worker.memory.shelf import Shelf

_RAISE: Final = """
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""
"""Lua: bring the count to where it was; only one of those who miss it does."""


class Watermark(Shelf):
    """How far the memory had come, as far as this process has seen."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        super().__init__(redis, prefix)
        self._raise = self._script(_RAISE)
        self._highest = 0
        self._now = 0
        self.places_version = 0

    def saw(self, written: bytes | None, places: bytes | None) -> None:
        """Take note of the counts, as they were read with something else."""
        self._now = int(written or 0)
        self._highest = max(self._highest, self._now)
        self.places_version = int(places or 0)

    async def put_back(self) -> bool:
        """Say, to one of those who miss it, that the memory knows less than it did.

        An emptied one is not meant: of that, `recalled` tells.
        """
        if not 0 < self._now < self._highest:
            return False
        self._now = self._highest
        return bool(await self._raise(keys=[f"{self._prefix}written"], args=[self._highest]))

    async def granted_at(self) -> datetime | None:
        """Return when the last grant was set out to be given."""
        return await self._read("granted_at", datetime)

    def _advance(self, at: datetime | None) -> list[tuple[Any, ...]]:
        """Return what writes down that a grant was."""
        count = ("INCR", f"{self._prefix}written")
        return (
            [count, ("SET", f"{self._prefix}granted_at", msgspec.json.encode(at))]
            if at
            else [count]
        )
