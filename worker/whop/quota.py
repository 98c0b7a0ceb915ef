"""Whop's quota, shared by all workers: so many calls per operation and key in a moving window.

The window is counted in Redis by the library `limits`, and a part of the quota is left unused:
calls reach Whop a little later than they are counted here, and some later than others, so that
one of Whop's windows can hold a few more than any of ours. The rest also leaves room for whatever
else the seller runs with the same key.
"""

import asyncio
import time
from collections import defaultdict
from typing import Any

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

DEFAULT = (600, 60)
"""Calls and seconds, per operation and key (Whop: Troubleshooting, rate limits)."""

USED = 0.95
"""The part of the quota that Usher uses."""


class Quota:
    """Lets calls go as fast as the quota allows, in the order in which they ask."""

    def __init__(
        self, pool: Any, *, prefix: str, who: str, quota: tuple[int, int] = DEFAULT
    ) -> None:
        """Count in a pool's Redis, under a prefix, for `who`: a name of the key, not the key."""
        amount, seconds = quota
        self._item: RateLimitItem = RateLimitItemPerSecond(max(1, int(amount * USED)), seconds)
        self._who = who
        self._window = MovingWindowRateLimiter(
            RedisStorage(
                "redis://", implementation="redispy", key_prefix=prefix, connection_pool=pool
            )
        )
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def wait(self, operation: str) -> None:
        """Return when one call of the operation may go. One caller of a process asks at a time."""
        async with self._turns[operation]:
            while not await self._window.hit(self._item, operation, self._who):
                stats = await self._window.get_window_stats(self._item, operation, self._who)
                await asyncio.sleep(max(0.005, stats.reset_time - time.time()))  # noqa: TID251 - the library counts in the clock's time
