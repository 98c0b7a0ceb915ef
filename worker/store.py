"""What Usher remembers of members and rooms. All of it is JSON under `usher:{account}:`.

    member:{user}       Member: what was given, and what Whop showed when we last looked
    room:{instance}     Place: the ids of a room on Whop, step by step as it comes into being
    rooms               set: the instances that exist
    seats:{room}        hash: user -> cohort, for ever: a seat is not given twice
    filled:{room}       hash: cohort -> seats given in it, and `last`: the cohort that fills now
    granted:{instance}  set: users who are in by a grant
    kept:{instance}     Kept: how the room's channel was left, and what somebody did to it
    holds:{instance}    list of Hold: what a person said of the room, and until when
    posted:{instance}   hash: key of a message at a phase -> Posted; gone 90 days after the last
    stock:{room}        the seats for which the stock of the room's plan was set
    sold:{room}         sorted set: user -> when they bought a ticket (ms), where seats are counted
    hidden              hash: a cohort's hidden product -> the instance that it is for
    recalled            set: rooms of which all that Whop has of ours is known here
    team                JSON list: user ids of the account's admins
    trail:{subject}     list of JSON: what was done and why, the newest last, the last 200

The keys of deliveries and jobs are described in `webhooks.inbox` and `worker.subjects`.
"""

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, cast

import msgspec
from redis.asyncio import Redis

from worker.policy.access import Facts, Grant
from worker.policy.differences import Hidden
from worker.policy.news import Seen
from worker.policy.occurrences import Occurrence
from worker.policy.overrides import Edit, Hold
from worker.policy.rooms import split
from worker.policy.settings import Settings

TRAIL_LENGTH: Final = 200
TRAIL_LIFE: Final = timedelta(days=400)
LONGEST_HOLD: Final = timedelta(days=90)
HOLDS: Final = 50
"""Holds that are kept of a room."""

POSTED_LIFE: Final = timedelta(days=90)

_SEAT: Final = """
local cohort = redis.call('HGET', KEYS[1], ARGV[1])
if cohort then return cohort end
cohort = ARGV[2]
if cohort == '' then
  cohort = redis.call('HGET', KEYS[2], 'last') or '1'
  local taken = tonumber(redis.call('HGET', KEYS[2], cohort) or '0')
  if taken >= tonumber(ARGV[3]) then cohort = string.format('%d', cohort + 1) end
  redis.call('HSET', KEYS[2], 'last', cohort)
end
redis.call('HSET', KEYS[1], ARGV[1], cohort)
redis.call('HINCRBY', KEYS[2], cohort, 1)
return cohort
"""
"""Lua: a member's cohort, once and for all. In one script, so that no two take the last seat."""

_REMEMBER: Final = """
local member, user, record, whole = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('EXISTS', member) == 1
if whole ~= '1' or not known then redis.call('SET', member, record) end
for i = 1, (#ARGV - 3) / 2 do
  local seats, filled, granted = KEYS[3 * i - 1], KEYS[3 * i], KEYS[3 * i + 1]
  local cohort, live = ARGV[2 * i + 2], ARGV[2 * i + 3]
  if live == '1' and (whole ~= '1' or not known) then redis.call('SADD', granted, user) end
  if redis.call('HSETNX', seats, user, cohort) == 1 then
    redis.call('HINCRBY', filled, cohort, 1)
  end
end
"""
"""Lua: a member with grants of which the record was lost, and their seats. `whole` says that the
record is all that is known of the member: then one that is there is newer, and stays."""

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

T = TypeVar("T")


class Member(msgspec.Struct):
    """One member.

    `refunded` and `disputed` are, by membership, the payments in doubt and when they were made.
    `looked` is when Whop was last asked about them, and `rules` the mark of the rules by which.
    `unfinished` says that a step failed then, so that the next delivery is news, whatever it says.
    `salt` goes into idempotency keys: Whop remembers a refusal for a day.
    """

    grants: dict[str, Grant] = msgspec.field(default_factory=dict)
    seen: dict[str, Seen] = msgspec.field(default_factory=dict)
    refunded: dict[str, dict[str, datetime]] = msgspec.field(default_factory=dict)
    disputed: dict[str, dict[str, datetime]] = msgspec.field(default_factory=dict)
    past_due: dict[str, datetime] = msgspec.field(default_factory=dict)
    look_again: datetime | None = None
    looked: datetime | None = None
    rules: str = ""
    unfinished: bool = False
    salt: int = 0

    def facts(self, *, team: bool) -> Facts:
        """Return what policy needs to know besides the memberships."""
        return Facts(
            grants=self.grants,
            refunded=frozenset(self.refunded),
            disputed=frozenset(self.disputed),
            past_due=self.past_due,
            team=team,
        )


class Place(msgspec.Struct):
    """One room as it exists on Whop.

    `name` is what it is called there, `attached` are the products that Usher attached it to;
    `making` says that it set out to make the chat, `found` that the chat was there already. Of its
    channel's settings `Kept` tells.
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
    salt: int = 0


class Kept(msgspec.Struct):
    """What Usher remembers of a channel's settings; `id` is the channel's.

    `left` is how Usher left it, `aimed` what was wanted then and `planned` what of that was the
    plan's; `own` are the seller's values of settings that only a hold touches. `look` is when it
    is to be looked at again, `pinned` the message that Usher pinned; `hidden` says that the key may
    not see its banned words.
    """

    id: str
    left: Settings | None = None
    aimed: Settings | None = None
    planned: Settings | None = None
    seen: datetime | None = None
    own: Settings = Settings()
    edit: Edit | None = None
    look: datetime | None = None
    pinned: str | None = None
    hidden: bool = False
    armed: bool = False


class Posted(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message at a phase: when we set out to write it, and Whop's id once it stands there.

    `done` says that there is nothing left to do: it stands, pinned if wanted, or was refused.
    """

    began: datetime
    id: str | None = None
    done: bool = False


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a subject's trail.

    `id` is the object of Whop's that the step made or ended, `call` what Whop answered to it, and
    `deliveries` what the job was for.
    """

    at: datetime
    what: str
    why: str | None = None
    room: str | None = None
    id: str | None = None
    deliveries: tuple[str, ...] = ()
    call: str | None = None


_KEPT: Final = msgspec.json.Decoder(Kept)
_MEMBER: Final = msgspec.json.Decoder(Member)


class Store:
    """Typed access to what is remembered."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._seat = redis.register_script(_SEAT)
        self._remember = redis.register_script(_REMEMBER)
        self._fill = redis.register_script(_FILL)
        self._recount = redis.register_script(_RECOUNT)

    async def member(self, user: str) -> Member:
        """Return what is known of a member; a new one where nothing is."""
        return await self._read(f"member:{user}", Member) or Member()

    async def members(self, users: Sequence[str]) -> dict[str, Member]:
        """Return what is known of some members; those of whom nothing is are left out."""
        names = [f"{self._prefix}member:{user}" for user in users]
        rows = await self._redis.mget(names) if names else []
        known = zip(users, rows, strict=True)
        return {user: _MEMBER.decode(row) for user, row in known if row is not None}

    async def save_member(self, user: str, member: Member) -> None:
        """Remember a member."""
        await self._redis.set(f"{self._prefix}member:{user}", msgspec.json.encode(member))

    async def granted(self, user: str, member: Member, instance: str) -> None:
        """Remember a member together with their place in a room."""
        async with self._redis.pipeline() as pipe:
            pipe.set(f"{self._prefix}member:{user}", msgspec.json.encode(member))
            pipe.sadd(f"{self._prefix}granted:{instance}", user)
            await pipe.execute()

    async def taken(self, user: str, member: Member, instance: str) -> None:
        """Remember a member together with the end of their place in a room."""
        async with self._redis.pipeline() as pipe:
            pipe.set(f"{self._prefix}member:{user}", msgspec.json.encode(member))
            pipe.srem(f"{self._prefix}granted:{instance}", user)
            await pipe.execute()

    async def count_granted(self, instance: str) -> int:
        """Return how many members are in a room by a grant."""
        return await cast("Awaitable[int]", self._redis.scard(f"{self._prefix}granted:{instance}"))

    async def seat(self, room: str, user: str, *, cohort: str | None, seats: int) -> str:
        """Return a member's cohort: the one they have, or else `cohort`, or the next seat's."""
        keys = [f"{self._prefix}seats:{room}", f"{self._prefix}filled:{room}"]
        answer: bytes = await self._seat(keys=keys, args=[user, cohort or "", seats])
        return answer.decode()

    async def seats(self, room: str) -> dict[str, str]:
        """Return who has a seat in which cohort of a room."""
        rows = await cast(
            "Awaitable[dict[bytes, bytes]]", self._redis.hgetall(f"{self._prefix}seats:{room}")
        )
        return {user.decode(): cohort.decode() for user, cohort in rows.items()}

    async def filled(self, room: str) -> dict[str, int]:
        """Return how many seats were given in each cohort of a room."""
        rows = await cast(
            "Awaitable[dict[bytes, bytes]]", self._redis.hgetall(f"{self._prefix}filled:{room}")
        )
        return {key.decode(): int(n) for key, n in rows.items() if key != b"last"}

    async def remember_grant(self, user: str, member: Member, room: str, grant: Grant) -> None:
        """Remember a member with a grant of which the record was lost, and its seat."""
        keys, arguments = self._lost(user, member, {room: grant}, whole=False)
        await self._remember(keys=keys, args=arguments)

    async def remember_members(self, lost: Mapping[str, Member]) -> None:
        """Remember members of whom nothing was known, with their grants and seats.

        Who is known by now stays as they are; a seat that somebody has stays, too.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            for user, member in lost.items():
                keys, arguments = self._lost(user, member, member.grants, whole=True)
                await self._remember(keys=keys, args=arguments, client=pipe)
            await pipe.execute()

    def _lost(
        self, user: str, member: Member, grants: Mapping[str, Grant], *, whole: bool
    ) -> tuple[list[str], list[Any]]:
        names, arguments = [f"member:{user}"], [user, msgspec.json.encode(member), int(whole)]
        for room, grant in grants.items():
            names += [f"seats:{room}", f"filled:{room}", f"granted:{room}/{grant.cohort}"]
            arguments += [grant.cohort, int(not grant.taken)]
        return [self._prefix + name for name in names], arguments

    async def fill(self, room: str, cohort: str) -> None:
        """Have a room by seats go on filling with a cohort, or a later one."""
        await self._fill(keys=[f"{self._prefix}filled:{room}"], args=[cohort])

    async def recount(self, room: str) -> None:
        """Count a room's seats anew; a count never goes down, or a seat would be given twice."""
        await self._recount(keys=[f"{self._prefix}seats:{room}", f"{self._prefix}filled:{room}"])

    async def hidden(self, products: Sequence[str]) -> dict[str, Hidden]:
        """Return which of these products were made for cohorts of ours, and for which."""
        if not products:
            return {}
        name = f"{self._prefix}hidden"
        rows = await cast("Awaitable[list[bytes | None]]", self._redis.hmget(name, list(products)))
        found: dict[str, Hidden] = {}
        for product, row in zip(products, rows, strict=True):
            room, cohort = split(row.decode()) if row else ("", None)
            place = await self.place(row.decode()) if row else None
            if cohort and place and place.product == product:
                found[product] = Hidden(room, cohort, product, place.plan)
        return found

    async def recalled(self) -> frozenset[str]:
        """Return the rooms of which all that Whop has of ours is known here."""
        rows = await cast("Awaitable[set[bytes]]", self._redis.smembers(f"{self._prefix}recalled"))
        return frozenset(row.decode() for row in rows)

    async def save_recalled(self, rooms: Sequence[str]) -> None:
        """Remember that all that Whop has of some rooms is known here."""
        await cast("Awaitable[int]", self._redis.sadd(f"{self._prefix}recalled", *rooms))

    async def doubt(self, rooms: Sequence[str]) -> None:
        """Remember that something of what Whop has of these rooms may be unknown here."""
        await cast("Awaitable[int]", self._redis.srem(f"{self._prefix}recalled", *rooms))

    async def place(self, instance: str) -> Place | None:
        """Return a room as it exists on Whop, if Usher knows it."""
        return await self._read(f"room:{instance}", Place)

    async def save_place(self, instance: str, place: Place) -> None:
        """Remember a room, after each step of its making."""
        async with self._redis.pipeline() as pipe:
            pipe.set(f"{self._prefix}room:{instance}", msgspec.json.encode(place))
            pipe.sadd(f"{self._prefix}rooms", instance)
            if place.product:
                pipe.hset(f"{self._prefix}hidden", place.product, instance)
            await pipe.execute()

    async def kept(self, instance: str) -> Kept | None:
        """Return what is known of the settings of a room's channel."""
        return await self._read(f"kept:{instance}", Kept)

    async def save_kept(self, instance: str, kept: Kept) -> None:
        """Remember the settings of a room's channel."""
        await self._redis.set(f"{self._prefix}kept:{instance}", msgspec.json.encode(kept))

    async def all_kept(self) -> dict[str, Kept]:
        """Return what is known of all channels, by their rooms' keys."""
        keys = await self.instances()
        names = [f"{self._prefix}kept:{key}" for key in keys]
        values = await self._redis.mget(names) if names else []
        return {k: _KEPT.decode(v) for k, v in zip(keys, values, strict=True) if v is not None}

    async def holds(self, instance: str) -> tuple[Hold, ...]:
        """Return what people said of a room, what is over by now too."""
        key = f"{self._prefix}holds:{instance}"
        rows = await cast("Awaitable[list[bytes]]", self._redis.lrange(key, 0, -1))
        return tuple(msgspec.json.decode(row, type=Hold) for row in rows)

    async def hold(self, instance: str, hold: Hold) -> None:
        """Remember what a person says of a room."""
        key = f"{self._prefix}holds:{instance}"
        async with self._redis.pipeline() as pipe:
            pipe.rpush(key, msgspec.json.encode(hold))
            pipe.ltrim(key, -HOLDS, -1)
            pipe.expire(key, LONGEST_HOLD + timedelta(days=1))
            await pipe.execute()

    async def release(self, instance: str) -> None:
        """Forget what people said of a room."""
        await self._redis.delete(f"{self._prefix}holds:{instance}")

    async def posted(self, instance: str, keys: Sequence[str]) -> dict[str, Posted]:
        """Return what is known of a room's messages, by their keys."""
        name = f"{self._prefix}posted:{instance}"
        rows = await cast("Awaitable[list[bytes | None]]", self._redis.hmget(name, list(keys)))
        known = zip(keys, rows, strict=True)
        return {k: msgspec.json.decode(row, type=Posted) for k, row in known if row is not None}

    async def save_posted(self, instance: str, key: str, posted: Posted) -> None:
        """Remember how far a message of a room is."""
        name = f"{self._prefix}posted:{instance}"
        async with self._redis.pipeline() as pipe:
            pipe.hset(name, key, msgspec.json.encode(posted).decode())
            pipe.expire(name, POSTED_LIFE)
            await pipe.execute()

    async def forget_posted(self, instance: str, key: str) -> None:
        """Forget a message that nobody will ask for again."""
        removed = self._redis.hdel(f"{self._prefix}posted:{instance}", key)
        await cast("Awaitable[int]", removed)

    async def gone(self, instance: str) -> None:
        """Forget a room whose chat is no longer on Whop."""
        async with self._redis.pipeline() as pipe:
            pipe.srem(f"{self._prefix}rooms", instance)
            for kind in ("room", "kept", "holds", "posted"):
                pipe.delete(f"{self._prefix}{kind}:{instance}")
            await pipe.execute()

    async def sold(self, room: str, user: str, at: datetime | None) -> int:
        """Remember when somebody bought a ticket for a room, or that they have none any more.

        Returns how many have one, if this is a new one, or else 0.
        """
        name = f"{self._prefix}sold:{room}"
        async with self._redis.pipeline() as pipe:
            if at is None:
                pipe.zrem(name, user)
            else:
                pipe.zadd(name, {user: at.timestamp() * 1000})
            pipe.zcard(name)
            changed, count = await pipe.execute()
        return count if changed and at else 0

    async def stock(self, room: str) -> int | None:
        """Return the seats for which the stock of a room's plan was set, all its dates together."""
        return await self._read(f"stock:{room}", int)

    async def save_stock(self, room: str, seats: int) -> None:
        """Remember for how many seats the stock of a room's plan was set."""
        await self._redis.set(f"{self._prefix}stock:{room}", seats)

    async def experiences(self, *, but: str) -> frozenset[str]:
        """Return the chats of all rooms but one."""
        names = [f"{self._prefix}room:{key}" for key in await self.instances() if key != but]
        values: list[Any] = await self._redis.mget(names) if names else []
        places = [msgspec.json.decode(value, type=Place) for value in values if value]
        return frozenset(place.experience for place in places if place.experience)

    async def buyers(self, room: str) -> list[str]:
        """Return who has a ticket for a room, in the order in which they bought."""
        users: list[bytes] = await self._redis.zrange(f"{self._prefix}sold:{room}", 0, -1)
        return [user.decode() for user in users]

    async def instances(self) -> list[str]:
        """Return the keys of all rooms that exist, in order."""
        members = await cast("Awaitable[set[bytes]]", self._redis.smembers(f"{self._prefix}rooms"))
        return sorted(member.decode() for member in members)

    async def verified(self) -> datetime | None:
        """Return when everything was last inspected by itself."""
        return await self._read("verified", datetime)

    async def save_verified(self, at: datetime) -> None:
        """Remember when everything was inspected."""
        await self._redis.set(f"{self._prefix}verified", msgspec.json.encode(at))

    async def team(self) -> frozenset[str] | None:
        """Return the account's admins; None while nobody has asked Whop yet."""
        team = await self._read("team", list[str])
        return None if team is None else frozenset(team)

    async def save_team(self, team: frozenset[str]) -> None:
        """Remember the account's admins."""
        await self._redis.set(f"{self._prefix}team", msgspec.json.encode(sorted(team)))

    async def trail(self, subject: str, steps: Sequence[Step]) -> None:
        """Write down what was done for a subject, and why."""
        if not steps:
            return
        key = f"{self._prefix}trail:{subject}"
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.rpush(key, *(msgspec.json.encode(step) for step in steps))
            pipe.ltrim(key, -TRAIL_LENGTH, -1)
            pipe.expire(key, TRAIL_LIFE)
            await pipe.execute()

    async def steps(self, subject: str) -> list[Step]:
        """Return what was done for a subject, the newest last."""
        key = f"{self._prefix}trail:{subject}"
        rows = await cast("Awaitable[list[bytes]]", self._redis.lrange(key, 0, -1))
        return [msgspec.json.decode(row, type=Step) for row in rows]

    async def _read(self, key: str, kind: type[T]) -> T | None:
        value: Any = await self._redis.get(self._prefix + key)
        return None if value is None else msgspec.json.decode(value, type=kind)
