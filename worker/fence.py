"""The fence: who lost a lease to somebody else writes nothing more under it.

A process may stand still for longer than its leases last: stopped, swapped out, asleep with its
laptop. When it goes on, a successor has done its work, or is at it. So each write under a lease
bears the lease's token, and Redis itself compares it, in the script that writes (the fencing token
of Kleppmann's "How to do distributed locking", 2016).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import ResponseError

_HELD: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("held", default=())

_CHECK: Final = """
for _ = 1, tonumber(table.remove(ARGV)) do
  local token, lease = table.remove(ARGV), table.remove(ARGV)
  if redis.call('GET', lease) ~= token then return redis.error_reply('FENCED ' .. lease) end
end
"""
"""Lua: nothing is written where one of these leases is not held by its token. The arguments end
with each lease and its token, and how many there are; what follows does not see them."""

_WRITE: Final = """
local answers, i = {}, 1
while i < #ARGV do
  local n = tonumber(ARGV[i])
  answers[#answers + 1] = redis.call(unpack(ARGV, i + 1, i + n))
  i = i + n + 1
end
return answers
"""
"""Lua: some commands, each with the number of its words before it."""


class Lost(Exception):
    """Somebody else has, or had, the lease under which this was to be done: it is theirs to do."""


def hold(lease: str, token: str) -> None:
    """Have what the running task writes from now on bear a lease's token; `lease` is its key."""
    _HELD.set((*_HELD.get(), (lease, token)))


def let_go(lease: str) -> None:
    """Have what the running task writes bear a lease's token no more."""
    _HELD.set(tuple(one for one in _HELD.get() if one[0] != lease))


def held() -> tuple[tuple[str, str], ...]:
    """Return the leases that the running task holds, with their tokens."""
    return _HELD.get()


class Script:
    """A Lua script that changes nothing where the lease is lost under which it was called."""

    def __init__(self, redis: Redis, lua: str) -> None:
        self._script: AsyncScript = redis.register_script(_CHECK + lua)

    async def __call__(
        self, *, keys: list[str] | None = None, args: list[Any], client: Any = None
    ) -> Any:
        """Run it.

        Raises:
            Lost: a lease is lost.
        """
        leases = [word for one in held() for word in one]
        with translated():
            return await self._script(
                keys=keys or [], args=[*args, *leases, len(leases) // 2], client=client
            )


class Writer(Script):
    """Writes commands in one step, and only under the leases that its caller holds."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, _WRITE)

    async def write(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Run commands, such as `("SET", key, value)`, all or none, and return their answers.

        Raises:
            Lost: a lease is lost.
        """
        words = [word for command in commands for word in (len(command), *command)]
        answers: list[Any] = await self(args=words)
        return answers


@contextmanager
def translated() -> Iterator[None]:
    """Raise Lost for what Redis refused for a lease's sake."""
    try:
        yield
    except ResponseError as error:
        if "FENCED" in str(error):  # a pipeline says more around it
            raise Lost(str(error)) from error
        raise
