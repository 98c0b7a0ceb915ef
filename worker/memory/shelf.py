"""Where the parts of the memory lie: one Redis, under one prefix."""

from typing import Any, TypeVar

import msgspec
from redis.asyncio import Redis

from worker.fence import Script, Writer

T = TypeVar("T")


class Shelf:
    """A part of the memory: JSON under the prefix of an account.

    What is written under a lease is refused with `worker.fence.Lost` where the lease is lost.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._write = Writer(redis).write

    async def _read(self, key: str, kind: type[T]) -> T | None:
        value: Any = await self._redis.get(self._prefix + key)
        return None if value is None else msgspec.json.decode(value, type=kind)

    def _script(self, lua: str) -> Script:
        return Script(self._redis, lua)
