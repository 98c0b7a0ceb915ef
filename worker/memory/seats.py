"""Seats: who has one in which cohort, and who has a ticket for an event.

seats:{room}        hash: user -> cohort; a seat that was taken is not given twice
filled:{room}       hash: cohort -> seats given in it, and `last`: the cohort that fills now
sold:{room}         sorted set: user -> when they bought a ticket (ms), where seats are counted
stock:{room}        Stock: what is known of the stock of the room's plan
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from redis.asyncio import Redis

from worker.memory.shelf import Shelf
from worker.policy.stock import Stock

_SEAT: Final = """
local cohort = redis.call('HGET', KEYS[1], ARGV[1])
if cohort then return cohort end
cohort = ARGV[2]
if cohort == '' then
  cohort = redis.call('HGET', KEYS[2], 'last') or '1'
  while tonumber(redis.call('HGET', KEYS[2], cohort) or '0') >= tonumber(ARGV[3]) do
    cohort = string.format('%d', cohort + 1)
  end
  redis.call('HSET', KEYS[2], 'last', cohort)
end
redis.call('HSET', KEYS[1], ARGV[1], cohort)
redis.call('HINCRBY', KEYS[2], cohort, 1)
redis.call('INCR', KEYS[3])
return cohort
"""
"""Lua: a member's cohort, once and for all. In one script, so that no two take the last seat."""

_FREE: Final = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HINCRBY', KEYS[2], ARGV[2], -1)
local last, cohort = tonumber(redis.call('HGET', KEYS[2], 'last')), tonumber(ARGV[2])
if last and cohort and cohort < last then redis.call('HSET', KEYS[2], 'last', ARGV[2]) end
return 1
"""
"""Lua: a seat that was offered and not taken is free: its cohort fills again from there."""

_FILL: Final = """
local last = redis.call('HGET', KEYS[1], 'last')
if not last or tonumber(last) < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'last', ARGV[1])
end
"""
"""Lua: the cohort that fills now is this one, or a later one."""

_RECOUNT: Final = """
local given = {}
for _, cohort in ipairs(redis.call('HVALS', KEYS[1])) do
  given[cohort] = (given[cohort] or 0) + 1
end
for cohort, n in pairs(given) do
  if n > tonumber(redis.call('HGET', KEYS[2], cohort) or '0') then
    redis.call('HSET', KEYS[2], cohort, n)
  end
end
"""
"""Lua: no cohort counts fewer seats than were given in it."""


_MOVE: Final = """
local cohort = redis.call('HGET', KEYS[1], ARGV[1])
if not cohort or redis.call('HEXISTS', KEYS[1], ARGV[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], cohort)
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
"""Lua: a seat goes from one user to another who has none; its cohort counts no seat more."""


_STOCK: Final[msgspec.json.Decoder[int | Stock]] = msgspec.json.Decoder(int | Stock)
"""It was only the number of seats once."""


class Seats(Shelf):
    """The seats of cohorts, and those of event rooms."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        super().__init__(redis, prefix)
        self._seat = self._script(_SEAT)
        self._free = self._script(_FREE)
        self._fill = self._script(_FILL)
        self._recount = self._script(_RECOUNT)
        self._move = self._script(_MOVE)

    async def seat(self, room: str, user: str, *, cohort: str | None, seats: int) -> str:
        """Return a member's cohort: the one they have, or else `cohort`, or the next seat's."""
        keys = [f"{self._prefix}{name}" for name in (f"seats:{room}", f"filled:{room}", "written")]
        answer: bytes = await self._seat(keys=keys, args=[user, cohort or "", seats])
        return answer.decode()

    async def free_seat(self, room: str, user: str, cohort: str) -> bool:
        """Give a seat back that its member was offered and never took; says whether they had it."""
        keys = [f"{self._prefix}seats:{room}", f"{self._prefix}filled:{room}"]
        return bool(await self._free(keys=keys, args=[user, cohort]))

    async def move_seat(self, room: str, before: str, after: str) -> bool:
        """Pass a seat on to another user who has none; says whether there was one to pass on."""
        return bool(await self._move(keys=[f"{self._prefix}seats:{room}"], args=[before, after]))

    async def seats(self, rooms: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return, by room, who has a seat in which of its cohorts."""
        rows = await self._ask([("HGETALL", f"{self._prefix}seats:{room}") for room in rooms])
        return {
            room: {user.decode(): cohort.decode() for user, cohort in seats.items()}
            for room, seats in zip(rooms, rows, strict=True)
        }

    async def filled(self, rooms: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return, by room, how many seats were given in each of its cohorts."""
        rows = await self._ask([("HGETALL", f"{self._prefix}filled:{room}") for room in rooms])
        return {
            room: {key.decode(): int(n) for key, n in given.items() if key != b"last"}
            for room, given in zip(rooms, rows, strict=True)
        }

    async def fill(self, room: str, cohort: str) -> None:
        """Have a room by seats go on filling with a cohort, or a later one."""
        await self._fill(keys=[f"{self._prefix}filled:{room}"], args=[cohort])

    async def recount(self, room: str) -> None:
        """Count a room's seats anew; a count never goes down, or a seat would be given twice."""
        keys = [f"{self._prefix}seats:{room}", f"{self._prefix}filled:{room}"]
        await self._recount(keys=keys, args=[])

    async def sold(self, room: str, user: str, at: datetime | None) -> int:
        """Remember when somebody bought a ticket for a room, or that they have none any more.

        Returns how many have one, if this is a new one, or else 0.
        """
        name = f"{self._prefix}sold:{room}"
        has = ("ZREM", name, user) if at is None else ("ZADD", name, at.timestamp() * 1000, user)
        changed, count = await self._write(has, ("ZCARD", name))
        return count if changed and at else 0

    async def buyers(self, rooms: Sequence[str]) -> dict[str, list[str]]:
        """Return, by room, who has a ticket for it, in the order in which they bought."""
        rows = await self._ask([("ZRANGE", f"{self._prefix}sold:{room}", 0, -1) for room in rooms])
        return {
            room: [user.decode() for user in users] for room, users in zip(rooms, rows, strict=True)
        }

    async def stocks(self, rooms: Sequence[str]) -> dict[str, Stock]:
        """Return what is known of the stock of rooms' plans, all dates of each together."""
        rows = await self._ask([("GET", f"{self._prefix}stock:{room}") for room in rooms])
        known = {r: _STOCK.decode(row) for r, row in zip(rooms, rows, strict=True) if row}
        return {r: Stock(one) if isinstance(one, int) else one for r, one in known.items()}

    async def save_stock(self, room: str, stock: Stock) -> None:
        """Remember what is known of the stock of a room's plan."""
        await self._write(("SET", f"{self._prefix}stock:{room}", msgspec.json.encode(stock)))
