"""Places: the rooms as they exist on Whop.

room:{instance}     Place: the ids of a room on Whop, step by step as it comes into being
rooms               set: the instances that exist
places              how often any of them changed: what is kept of them elsewhere is as old
hidden              hash: a cohort's hidden product -> the instance that it is for
recalled            set: rooms of which all that Whop has of ours is known here
"""

from collections.abc import Awaitable, Sequence
from typing import Final, cast

import msgspec

from worker.memory.shelf import Shelf
from worker.policy.access import Hidden
from worker.policy.occurrences import Occurrence
from worker.policy.rooms import split


class Place(msgspec.Struct):
    """One room as it exists on Whop.

    `name` is what it is called there, `attached` are the products that Usher attached it to;
    `making` says that it set out to make the chat, `found` that the chat was there already. `rules`
    is the mark of the room's own rules when it was last brought up to date. Of its channel's
    settings `Kept` tells.
    """

    name: str
    product: str | None = None
    plan: str | None = None
    experience: str | None = None
    channel: str | None = None
    attached: list[str] = msgspec.field(default_factory=list)
    welcomed: bool = False
    making: bool = False
    ready: bool = False
    archived: bool = False
    occurrence: Occurrence | None = None
    counted: bool = False
    found: bool = False
    rules: str = ""
    salt: int = 0


PLACE: Final = msgspec.json.Decoder(Place)


class Places(Shelf):
    """Which rooms there are, and what each is on Whop."""

    async def place(self, instance: str) -> Place | None:
        """Return a room as it exists on Whop, if Usher knows it."""
        return await self._read(f"room:{instance}", Place)

    async def places(self, instances: Sequence[str] | None = None) -> dict[str, Place]:
        """Return those of some rooms, or of all, that Usher knows, as they exist on Whop."""
        keys = await self.instances() if instances is None else instances
        rows = await self._ask([("GET", f"{self._prefix}room:{key}") for key in keys])
        return {key: PLACE.decode(row) for key, row in zip(keys, rows, strict=True) if row}

    async def save_place(self, instance: str, place: Place) -> None:
        """Remember a room, after each step of its making."""
        hidden = ("HSET", f"{self._prefix}hidden", place.product, instance)
        await self._write(
            ("SET", f"{self._prefix}room:{instance}", msgspec.json.encode(place)),
            ("SADD", f"{self._prefix}rooms", instance),
            *([hidden] if place.product else []),
            ("INCR", f"{self._prefix}places"),
        )

    async def gone(self, instance: str) -> None:
        """Forget a room whose chat is no longer on Whop."""
        kinds = ("room", "kept", "holds", "posted")
        await self._write(
            ("SREM", f"{self._prefix}rooms", instance),
            ("DEL", *(f"{self._prefix}{kind}:{instance}" for kind in kinds)),
            ("INCR", f"{self._prefix}places"),
        )

    async def instances(self) -> list[str]:
        """Return the keys of all rooms that exist, in order."""
        members = await cast("Awaitable[set[bytes]]", self._redis.smembers(f"{self._prefix}rooms"))
        return sorted(member.decode() for member in members)

    async def experiences(self, *, but: str) -> frozenset[str]:
        """Return the chats of all rooms but one."""
        places = await self.places()
        return frozenset(p.experience for key, p in places.items() if key != but and p.experience)

    async def hidden(self, products: Sequence[str]) -> dict[str, Hidden]:
        """Return which of these products were made for cohorts of ours, and for which."""
        if not products:
            return {}
        name = f"{self._prefix}hidden"
        rows = await cast("Awaitable[list[bytes | None]]", self._redis.hmget(name, list(products)))
        keys = {p: row.decode() for p, row in zip(products, rows, strict=True) if row}
        places = await self.places(list(keys.values()))
        found: dict[str, Hidden] = {}
        for product, key in keys.items():
            (room, cohort), place = split(key), places.get(key)
            if cohort and place and place.product == product:
                found[product] = Hidden(room, cohort, product, place.plan)
        return found

    async def recalled(self) -> frozenset[str]:
        """Return the rooms of which all that Whop has of ours is known here."""
        rows = await cast("Awaitable[set[bytes]]", self._redis.smembers(f"{self._prefix}recalled"))
        return frozenset(row.decode() for row in rows)

    async def save_recalled(self, rooms: Sequence[str]) -> None:
        """Remember that all that Whop has of some rooms is known here."""
        await self._write(("SADD", f"{self._prefix}recalled", *rooms))

    async def doubt(self, rooms: Sequence[str]) -> None:
        """Remember that something of what Whop has of these rooms may be unknown here."""
        await cast("Awaitable[int]", self._redis.srem(f"{self._prefix}recalled", *rooms))
