"""Leases: who works on what, held in Redis for a few seconds and renewed while the work goes on.

A lease of a process that was killed ends by itself; whoever loses one is cancelled.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from worker import fence
from worker.fence import Lost

log = structlog.get_logger()

LEASE: Final = 15_000
"""Milliseconds for which a lease holds without renewal: how long a killed worker's work waits."""

RENEW_EVERY: Final = 4.0
"""Seconds between renewals."""

POLL: Final = 0.05
PROMPT: Final = 1.0
"""Seconds within which Redis says that a lease is ours, where the answer is worth anything."""

AT_MOST: Final = 3
"""So often a slow Redis is asked before its answer is taken: a lease lasts far longer."""

_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_TAKE: Final = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
"""
"""Lua: take a lease, or find it ours already: an answer may be lost and the call repeated."""

_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Leases:
    """The leases of one process."""

    def __init__(self, redis: Redis, prefix: str, process: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}lock:"
        self._process = process
        self._count = 0
        self._held: dict[str, tuple[str, asyncio.Task[Any] | None]] = {}
        self._take = redis.register_script(_TAKE)
        self._renew = redis.register_script(_RENEW)
        self._release = redis.register_script(_RELEASE)

    def token(self) -> str:
        """Return a value that nobody else uses for a lease."""
        self._count += 1
        return f"{self._process}:{self._count}"

    def hold(self, name: str, token: str) -> None:
        """Renew a lease that the running task has taken by a script of its own.

        What the task writes bears its token until it is given back.
        """
        self._held[name] = (token, asyncio.current_task())
        fence.hold(self._prefix + name, token)

    async def release(self, name: str) -> None:
        """Give a lease back; nothing happens where it was lost."""
        held = self._held.pop(name, None)
        fence.let_go(self._prefix + name)
        if held:
            await self._release(keys=[self._prefix + name], args=[held[0]])

    def forget(self, name: str) -> None:
        """Stop renewing a lease that a script has given back, or that is lost."""
        self._held.pop(name, None)
        fence.let_go(self._prefix + name)

    async def check(self) -> None:
        """Go on only where the running task still has all that it holds, as Redis says now.

        For what cannot be undone and does not bear a token: a call that changes something at Whop.

        Raises:
            Lost: somebody else has, or had, one of the leases.
        """
        held, loop = fence.held(), asyncio.get_running_loop()
        for _ in range(AT_MOST if held else 0):
            began = loop.time()
            tokens = await self._redis.mget([lease for lease, _ in held])
            for (lease, token), now in zip(held, tokens, strict=True):
                if now is None or now.decode() != token:
                    raise Lost(lease)
            if loop.time() - began < PROMPT:  # or we stood still while the answer waited for us
                return

    @contextlib.asynccontextmanager
    async def holding(self, name: str) -> AsyncIterator[None]:
        """Wait for a lease, hold it for the length of the block, give it back."""
        token = self.token()
        while not await self._take(keys=[self._prefix + name], args=[token, LEASE]):  # noqa: ASYNC110 - another process gives it back
            await asyncio.sleep(POLL)
        self.hold(name, token)
        try:
            yield
        finally:
            await self.release(name)

    @contextlib.asynccontextmanager
    async def trying(self, name: str) -> AsyncIterator[bool]:
        """Hold a lease for the length of the block if nobody has it; yields whether it was free.

        Asking and taking are one step: of two who try at once, one has it.
        """
        token = self.token()
        free = bool(await self._take(keys=[self._prefix + name], args=[token, LEASE]))
        if free:
            self.hold(name, token)
        try:
            yield free
        finally:
            if free:
                await self.release(name)

    async def keep(self) -> None:
        """Renew what is held for as long as the process runs; nothing but a cancel ends it.

        A round that fails is no harm: a lease bears two.
        """
        while True:
            await asyncio.sleep(RENEW_EVERY)
            try:
                await self.renew()
            except (RedisError, OSError):
                pass  # its holders find that out by themselves
            except Exception:  # or all that is held would be lost, and nobody would see why
                log.exception("leases.broke", next="it goes on with the next round")

    async def renew(self) -> None:
        """Renew all that is held, once; cancel the work whose lease somebody else has by now.

        It is cancelled each time until it gives up: one cancel can be lost in the Redis client's
        timeouts.
        """
        for name, (token, task) in list(self._held.items()):
            kept = await self._renew(keys=[self._prefix + name], args=[token, LEASE])
            if not kept and self._held.get(name) == (token, task):
                if task is None or task.done():
                    self.forget(name)
                else:
                    task.cancel()
