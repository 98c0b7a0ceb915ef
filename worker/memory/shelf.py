"""Where the parts of the memory lie: one Redis, under one prefix."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from redis.asyncio import Redis

from worker.fence import Script, Writer

T = TypeVar("T")

PAGE: Final = 500
"""Commands that share a round trip: nobody else waits for longer than Redis takes for so many."""


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

    async def _ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the answers to commands that only read, in as few round trips as pages need."""
        answers: list[Any] = []
        for n in range(0, len(commands), PAGE):
            async with self._redis.pipeline(transaction=False) as pipe:
                for command in commands[n : n + PAGE]:
                    pipe.execute_command(*command)
                answers += await pipe.execute()
        return answers

    def _script(self, lua: str) -> Script:
        return Script(self._redis, lua)
