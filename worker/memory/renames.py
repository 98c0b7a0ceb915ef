"""Renames: all that is kept of a room goes from one key to another, in one step."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from worker.memory.members import Member
from worker.memory.places import PLACE, Place
from worker.memory.shelf import Shelf
from worker.policy.rooms import split

OF_ROOM: Final = ("seats", "filled", "sold", "stock", "takes", "brake", "fed")
OF_INSTANCE: Final = ("room", "granted", "offered", "kept", "holds", "posted")
OF_SUBJECT: Final = ("trail", "looks")

BATCH: Final = 500

_MOVE: Final = """
local prefix, old, new, n = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
for i = 1, #KEYS, 2 do
  if redis.call('EXISTS', KEYS[i]) == 1 then redis.call('RENAME', KEYS[i], KEYS[i + 1]) end
end
for i = 5, 4 + 2 * n, 2 do
  redis.call('SREM', prefix .. 'rooms', ARGV[i])
  redis.call('SADD', prefix .. 'rooms', ARGV[i + 1])
end
for i = 5 + 2 * n, #ARGV, 2 do redis.call('HSET', prefix .. 'hidden', ARGV[i], ARGV[i + 1]) end
if redis.call('SREM', prefix .. 'recalled', old) == 1 then
  redis.call('SADD', prefix .. 'recalled', new)
end
local on = redis.call('HGET', prefix .. 'brakes', old)
if on then
  redis.call('HSET', prefix .. 'brakes', new, on)
  redis.call('HDEL', prefix .. 'brakes', old)
end
"""
"""Lua: everything of a room under another key. Jobs are not passed on: a start looks at all."""

_SWAP: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) return 1 end
return 0
"""
"""Lua: another record in the stead of one that nobody has changed meanwhile."""


class Renaming(Shelf):
    """Rooms whose key becomes another."""

    async def all_places(self) -> dict[str, Place]:
        """Return all rooms that exist, by their keys, in order."""
        rows: Any = await self._redis.smembers(f"{self._prefix}rooms")  # type: ignore[misc]  # redis-py types sync and async as one
        keys = sorted(row.decode() for row in rows)
        values = await self._redis.mget([f"{self._prefix}room:{k}" for k in keys]) if keys else []
        found = zip(keys, values, strict=True)
        return {key: PLACE.decode(value) for key, value in found if value is not None}

    async def counted(self, rooms: list[str]) -> frozenset[str]:
        """Return which of some rooms have seats or tickets."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for room in rooms:
                pipe.exists(*(f"{self._prefix}{kind}:{room}" for kind in ("seats", "sold")))
            return frozenset(r for r, n in zip(rooms, await pipe.execute(), strict=True) if n)

    async def take_over(self, old: str, new: str) -> int:
        """Have all that is kept of a room under another key; returns how many members it concerns.

        First the members, then all else at once: who begins anew after a crash goes on from there.
        """
        moved = await self._members(old, new)
        await self._marks(old, new)
        mine = {k: place for k, place in (await self.all_places()).items() if split(k)[0] == old}
        renamed = {key: new + key[len(old) :] for key in mine}
        pairs = [(f"{kind}:{old}", f"{kind}:{new}") for kind in OF_ROOM]
        for key, other in renamed.items():
            pairs += [(f"{kind}:{key}", f"{kind}:{other}") for kind in OF_INSTANCE]
            pairs += [
                (f"{kind}:{of}:{key}", f"{kind}:{of}:{other}")
                for kind in OF_SUBJECT
                for of in ("room", "channel")
            ]
        hidden = {p.product: renamed[k] for k, p in mine.items() if p.product}
        move = self._redis.register_script(_MOVE)
        await move(
            keys=[self._prefix + name for pair in pairs for name in pair],
            args=[self._prefix, old, new, len(renamed), *_flat(renamed), *_flat(hidden)],
        )
        return moved

    async def _members(self, old: str, new: str) -> int:
        """Have the members' grants be the other's; a record that changes is read anew."""
        left, total = {key async for key in self._redis.scan_iter(f"{self._prefix}member:*")}, 0
        swap = self._redis.register_script(_SWAP)
        while left:
            some = [left.pop() for _ in range(min(BATCH, len(left)))]
            wanted = []
            for key, row in zip(some, await self._redis.mget(some), strict=True):
                other = None if row is None else _renamed(row, old, new)
                if other is not None:
                    wanted.append((key, row, other))
            async with self._redis.pipeline(transaction=False) as pipe:
                for key, row, other in wanted:
                    await swap(keys=[key], args=[row, other], client=pipe)
                done = await pipe.execute()
            left |= {key for (key, _, _), swapped in zip(wanted, done, strict=True) if not swapped}
            total += sum(done)
        return total

    async def _marks(self, old: str, new: str) -> None:
        name = f"{self._prefix}unmarked"
        rows: Any = await self._redis.hgetall(name)  # type: ignore[misc]  # as above
        kept = {id_: msgspec.json.decode(row, type=tuple[str, str]) for id_, row in rows.items()}
        mine = {id_: (new, cohort) for id_, (room, cohort) in kept.items() if room == old}
        if mine:
            encoded = {id_: msgspec.json.encode(where) for id_, where in mine.items()}
            await self._redis.hset(name, mapping=encoded)  # type: ignore[misc]  # as above


def _flat(pairs: Mapping[str, str]) -> list[str]:
    return [word for pair in pairs.items() for word in pair]


_MEMBER: Final = msgspec.json.Decoder(Member)


def _renamed(row: bytes, old: str, new: str) -> bytes | None:
    """Return a member's record with another key for a room; None where it has not this one."""
    member = _MEMBER.decode(row)
    if old not in member.grants and old not in member.braked:
        return None
    grants = {new if key == old else key: grant for key, grant in member.grants.items()}
    braked = [new if key == old else key for key in member.braked]
    return msgspec.json.encode(msgspec.structs.replace(member, grants=grants, braked=braked))
