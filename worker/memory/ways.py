"""Ways: what Whop refuses this account, and who was offered a seat and has not taken it.

grant_ways          hash: a way of giving a seat -> Refused: since when, and Whop's words
offered:{instance}  set: users who have a link, or an invitation, and have not come
unmarked            hash: a grant that bears no mark of ours on Whop -> its room and cohort
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, cast

import msgspec

from worker.memory.shelf import Shelf
from worker.policy.ways import Refused, Way


class Ways(Shelf):
    """How seats can be given to the account's members."""

    async def refusals(self) -> dict[Way, Refused]:
        """Return what Whop refused the account when it was last asked."""
        rows: dict[bytes, bytes] = await cast(
            "Awaitable[Any]", self._redis.hgetall(f"{self._prefix}grant_ways")
        )
        return {Way(way.decode()): msgspec.json.decode(r, type=Refused) for way, r in rows.items()}

    async def refused(self, way: Way, refusal: Refused) -> bool:
        """Remember that Whop refuses a way; says whether it is new."""
        record = msgspec.json.encode(refusal).decode()
        added = self._redis.hset(f"{self._prefix}grant_ways", way, record)
        return bool(await cast("Awaitable[int]", added))

    async def allowed(self, *ways: Way) -> int:
        """Forget that Whop refused some ways; returns how many it did."""
        return await cast("Awaitable[int]", self._redis.hdel(f"{self._prefix}grant_ways", *ways))

    async def unmarked(self, grants: Mapping[str, tuple[str, str]]) -> None:
        """Remember grants that are to be marked, by membership, with the room and the cohort."""
        rows = {id_: msgspec.json.encode(where).decode() for id_, where in grants.items()}
        name = f"{self._prefix}unmarked"
        await cast("Awaitable[int]", self._redis.hset(name, mapping=rows))

    async def to_mark(self) -> dict[str, tuple[str, str]]:
        """Return the grants that are to be marked."""
        rows: dict[bytes, bytes] = await cast(
            "Awaitable[Any]", self._redis.hgetall(f"{self._prefix}unmarked")
        )
        return {
            id_.decode(): msgspec.json.decode(row, type=tuple[str, str])
            for id_, row in rows.items()
        }

    async def marked(self, membership: str) -> None:
        """Forget that a grant is to be marked: it is, or is no more."""
        await cast("Awaitable[int]", self._redis.hdel(f"{self._prefix}unmarked", membership))

    async def offered_in(self, instances: Sequence[str]) -> dict[str, list[str]]:
        """Return, by room, who was offered a seat and has not taken it."""
        rows = await self._ask([("SMEMBERS", f"{self._prefix}offered:{key}") for key in instances])
        return {
            instance: sorted(user.decode() for user in users)
            for instance, users in zip(instances, rows, strict=True)
            if users
        }
