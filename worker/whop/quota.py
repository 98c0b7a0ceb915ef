"""Whop's quota, shared by all workers: so many calls per operation and key in a moving window.

The window is counted in Redis by the library `limits`, and a part of the quota is left unused:
calls reach Whop a little later than they are counted here, and some later than others, so that
one of Whop's windows can hold a few more than any of ours. The rest also leaves room for whatever
else the seller runs with the same key.
"""

import asyncio
import contextlib
import heapq
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from enum import IntEnum
from typing import Any

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

DEFAULT = (600, 60)
"""Calls and seconds, per operation and key (Whop: Troubleshooting, rate limits)."""

USED = 0.95
"""The part of the quota that Usher uses."""


RESERVED = 0.2
"""The part of that which what nobody waits for leaves to buyers, locks and openings."""


class Rank(IntEnum):
    """Who goes first where calls wait: a room that must close, then one that opens.

    What nobody waits for (a start's looks, a verification) is in the background: it does not stand
    in line, and goes only while more than a fifth of the window is left.
    """

    LOCK = 0
    OPENING = 1
    OTHER = 2
    BACKGROUND = 3


class _Share(RateLimitItemPerSecond):
    """A part of a window that others fill to the brim: counted with them, and under their name."""

    __slots__ = ("_whole",)

    def __init__(self, whole: RateLimitItem, part: float) -> None:
        super().__init__(max(1, int(whole.amount * part)), whole.multiples)
        self._whole = whole

    def key_for(self, *identifiers: bytes | str | float) -> str:
        """Return where the whole window is counted."""
        return self._whole.key_for(*identifiers)


class Quota:
    """Lets calls go as fast as the quota allows, by rank and then in the order of asking."""

    def __init__(
        self, pool: Any, *, prefix: str, who: str, quota: tuple[int, int] = DEFAULT
    ) -> None:
        """Count in a pool's Redis, under a prefix, for `who`: a name of the key, not the key."""
        amount, seconds = quota
        self._item: RateLimitItem = RateLimitItemPerSecond(max(1, int(amount * USED)), seconds)
        self._rest: RateLimitItem = _Share(self._item, 1 - RESERVED)
        self._who = who
        self._window = MovingWindowRateLimiter(
            RedisStorage(
                "redis://", implementation="redispy", key_prefix=prefix, connection_pool=pool
            )
        )
        self._lines: defaultdict[tuple[str, bool], _Line] = defaultdict(_Line)

    async def wait(self, operation: str, rank: Rank = Rank.OTHER) -> None:
        """Return when one call of the operation may go. One caller of a process asks at a time."""
        aside = rank is Rank.BACKGROUND
        item = self._rest if aside else self._item
        async with self._lines[operation, aside].turn(rank):
            while not await self._window.hit(item, operation, self._who):
                stats = await self._window.get_window_stats(item, operation, self._who)
                await asyncio.sleep(max(0.005, stats.reset_time - time.time()))  # noqa: TID251 - the library counts in the clock's time


class _Line:
    """Those who wait for one operation."""

    def __init__(self) -> None:
        self._busy = False
        self._count = 0
        self._waiting: list[tuple[Rank, int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def turn(self, rank: Rank) -> AsyncIterator[None]:
        """Wait for the turn, and pass it on at the end of the block."""
        if self._busy:
            mine = asyncio.get_running_loop().create_future()
            self._count += 1
            heapq.heappush(self._waiting, (rank, self._count, mine))
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():  # it was our turn already
                    self._pass_on()
                raise
        self._busy = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        self._busy = False
        while self._waiting and not self._busy:
            _, _, next_ = heapq.heappop(self._waiting)
            if not next_.done():
                next_.set_result(None)
                self._busy = True
