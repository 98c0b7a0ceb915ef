"""The brake: who would be put out without an explanation, counted by all workers together.

Its law is in `worker.policy.brake`. Redis has, under `usher:{account}:`:

    takes:{room}        sorted set: user -> when a look first wanted to take their seat (ms), for an
                        hour; who was taken stays in it, so that they count
    brake:{room}        hash: user -> Held: who waits for a second look or a person's word
    brakes              hash: room -> Engaged: the rooms whose brake is on
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import msgspec
import structlog
from redis.asyncio import Redis

from worker.policy import brake as law
from worker.policy.brake import GO, Verdict, Word

log = structlog.get_logger()

_WANT: Final = """
local takes, held, brakes = KEYS[1], KEYS[2], KEYS[3]
local user, now, life, record, room = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
redis.call('ZREMRANGEBYSCORE', takes, '-inf', '(' .. string.format('%.0f', now - life))
redis.call('ZADD', takes, 'NX', now, user)
redis.call('PEXPIRE', takes, life)
redis.call('HSETNX', held, user, record)
return {redis.call('ZCARD', takes), redis.call('ZSCORE', takes, user),
  redis.call('HGET', held, user), redis.call('HEXISTS', brakes, room)}
"""
"""Lua: count a take, once for each user, and say how many there are, since when, and the words."""

_SAY: Final = """
local held, takes, brakes = KEYS[1], KEYS[2], KEYS[3]
local meant = {}
for i = 2, #ARGV, 2 do
  if redis.call('HEXISTS', held, ARGV[i]) == 1 then
    redis.call('HSET', held, ARGV[i], ARGV[i + 1])
    redis.call('ZREM', takes, ARGV[i])
    meant[#meant + 1] = ARGV[i]
  end
end
redis.call('HDEL', brakes, ARGV[1])
return meant
"""
"""Lua: a person's word on those who still wait, and the brake goes; returns whom it is about."""


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """A take that is not done: since when it is wanted, why, and what a person said of it."""

    since: datetime
    why: str
    word: Word | None = None
    by: str | None = None
    reason: str | None = None


class Engaged(msgspec.Struct, frozen=True):
    """A room's brake that is on: since when, for how many takes, of how many members."""

    since: datetime
    takes: int
    members: int


class Brake:
    """One account's brakes."""

    def __init__(self, redis: Redis, prefix: str, clock: Callable[[], datetime]) -> None:
        self._redis = redis
        self._prefix = prefix
        self._clock = clock
        self._want = redis.register_script(_WANT)
        self._say = redis.register_script(_SAY)

    async def may_take(
        self,
        room: str,
        user: str,
        *,
        why: str,
        explained: bool,
        members: int,
        agreed: bool = False,
    ) -> Verdict:
        """Say whether a member's seat in a room may be ended now.

        Args:
            room: the room's key in the rules.
            user: whose seat.
            why: what a person who must decide is told.
            explained: whether a delivery or a date explains it; then it goes at once.
            members: how many are in the room by a grant.
            agreed: whether a second look has agreed already.
        """
        if explained:
            return GO
        now = self._clock()
        record = msgspec.json.encode(Held(now, why))
        answer = await self._want(
            keys=self._keys(f"takes:{room}", f"brake:{room}", "brakes"),
            args=[user, _ms(now), law.WINDOW // timedelta(milliseconds=1), record, room],
        )
        takes, first, held, engaged = answer
        verdict = law.judge(
            takes=takes,
            members=members,
            first=datetime.fromtimestamp(float(first) / 1000, UTC),
            now=now,
            word=msgspec.json.decode(held, type=Held).word,
            engaged=bool(engaged),
            agreed=agreed,
        )
        if verdict.brakes and not engaged:
            await self._engage(room, Engaged(now, takes, members))
        return verdict

    def _keys(self, *names: str) -> list[str]:
        return [self._prefix + name for name in names]

    async def _engage(self, room: str, engaged: Engaged) -> None:
        name, record = f"{self._prefix}brakes", msgspec.json.encode(engaged)
        if await cast("Awaitable[int]", self._redis.hsetnx(name, room, record.decode())):
            log.error(
                "brake.engaged",
                room=room,
                takes=engaged.takes,
                members=engaged.members,
                why="so many at once, and no delivery and no date explains each: it may be a lie",
                next=f"see `usher brake show {room}`, then `usher brake release {room} --why ...` "
                f"or `usher brake refuse {room} --why ...`",
            )

    async def hold_all(self, room: str, wanted: Mapping[str, str], members: int) -> None:
        """Put a room's brake on for takes that somebody wants all at once, by user, with why."""
        now = self._clock()
        await self._note(room, {user: Held(now, why) for user, why in wanted.items()})
        await self._engage(room, Engaged(now, len(wanted), members))

    async def allow(self, room: str, wanted: Mapping[str, str], *, by: str, why: str) -> None:
        """Release takes that a person has seen before they were wanted, by user, with why."""
        now = self._clock()
        await self._note(
            room,
            {user: Held(now, reason, Word.RELEASED, by, why) for user, reason in wanted.items()},
        )
        await cast("Awaitable[int]", self._redis.hdel(f"{self._prefix}brakes", room))

    async def _note(self, room: str, held: Mapping[str, Held]) -> None:
        rows = {user: msgspec.json.encode(one).decode() for user, one in held.items()}
        name = f"{self._prefix}brake:{room}"
        await cast("Awaitable[int]", self._redis.hset(name, mapping=rows))

    async def settled(self, room: str, user: str) -> None:
        """Forget that a member's seat was wanted: it was taken, and still counts for the hour, or
        is explained by now.
        """
        await cast("Awaitable[int]", self._redis.hdel(f"{self._prefix}brake:{room}", user))

    async def withdrawn(self, room: str, user: str) -> None:
        """Forget that a member's seat was wanted: they are to stay after all."""
        async with self._redis.pipeline() as pipe:
            pipe.hdel(f"{self._prefix}brake:{room}", user)
            pipe.zrem(f"{self._prefix}takes:{room}", user)
            await pipe.execute()

    async def engaged(self) -> dict[str, Engaged]:
        """Return the rooms whose brake is on."""
        rows: dict[bytes, bytes] = await cast(
            "Awaitable[Any]", self._redis.hgetall(f"{self._prefix}brakes")
        )
        return {room.decode(): msgspec.json.decode(row, type=Engaged) for room, row in rows.items()}

    async def held(self, room: str) -> dict[str, Held]:
        """Return whose seats in a room are wanted and not taken, by user."""
        rows: dict[bytes, bytes] = await cast(
            "Awaitable[Any]", self._redis.hgetall(f"{self._prefix}brake:{room}")
        )
        return {user.decode(): msgspec.json.decode(row, type=Held) for user, row in rows.items()}

    async def say(self, room: str, word: Word, users: list[str], *, by: str, why: str) -> list[str]:
        """Write down a person's word on those of some users who wait, and let the brake go.

        Returns the users it is about. Their members must be made due by the caller.
        """
        waiting = await self.held(room)
        said: list[Any] = [room]
        for user in (user for user in users if user in waiting):
            one = msgspec.structs.replace(waiting[user], word=word, by=by, reason=why)
            said += [user, msgspec.json.encode(one)]
        keys = self._keys(f"brake:{room}", f"takes:{room}", "brakes")
        meant = [user.decode() for user in await self._say(keys=keys, args=said)]
        what = "brake.released" if word is Word.RELEASED else "brake.refused"
        log.warning(what, room=room, users=len(meant), by=by, why=why)
        return sorted(meant)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
