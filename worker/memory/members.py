"""Members: what was given to each, and what Whop showed when we last looked.

member:{user}       Member: what was given, and what Whop showed when we last looked
granted:{instance}  set: users who are in by a grant
holders             hash: membership -> the user who has it, as far as it was seen
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from worker.fence import translated
from worker.memory.watermark import Watermark
from worker.policy.access import Facts, Grant
from worker.policy.evidence import Unshown
from worker.policy.news import Seen

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


class Member(msgspec.Struct):
    """One member.

    `refunded` and `disputed` are, by membership, the payments in doubt and when they were made.
    `looked` is when Whop was last asked about them, and `rules` the mark of the rules by which.
    `unfinished` says that a step failed then, so that the next delivery is news, whatever it says.
    `salt` goes into idempotency keys: Whop remembers a refusal for a day. `unshown` is what Whop
    told of, or showed once, and does not show, by its id; `braked` are the rooms whose seat would
    be taken and waits for a second look, or for a person. `told` are the payments of which a
    delivery said that their money goes back, until Whop shows what became of that.
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
    unshown: dict[str, Unshown] = msgspec.field(default_factory=dict)
    braked: list[str] = msgspec.field(default_factory=list)
    told: dict[str, Unshown] = msgspec.field(default_factory=dict)

    @property
    def last_grant(self) -> datetime | None:
        """When the last of the grants was set out to be given."""
        return max((grant.since for grant in self.grants.values()), default=None)

    def facts(self, *, team: bool, open_again: bool = False) -> Facts:
        """Return what policy needs to know besides the memberships."""
        return Facts(
            grants=self.grants,
            refunded=frozenset(self.refunded),
            disputed=frozenset(self.disputed),
            past_due=self.past_due,
            team=team,
            open_again=open_again,
        )


_MEMBER: Final = msgspec.json.Decoder(Member)


class Members(Watermark):
    """Who is known, and who is in which room by a grant."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        super().__init__(redis, prefix)
        self._remember = self._script(_REMEMBER)

    async def member(self, user: str) -> Member:
        """Return what is known of a member; a new one where nothing is."""
        names = (f"member:{user}", "written", "places")
        row, *counts = await self._redis.mget([self._prefix + name for name in names])
        self.saw(*counts)
        return _MEMBER.decode(row) if row else Member()

    async def members(self, users: Sequence[str]) -> dict[str, Member]:
        """Return what is known of some members; those of whom nothing is are left out."""
        names = [f"{self._prefix}member:{user}" for user in users]
        rows = await self._redis.mget(names) if names else []
        known = zip(users, rows, strict=True)
        return {user: _MEMBER.decode(row) for user, row in known if row is not None}

    async def save_member(self, user: str, member: Member) -> None:
        """Remember a member."""
        await self._write(self._member(user, member))

    async def granted(self, user: str, member: Member, instance: str) -> None:
        """Remember a member together with their place in a room."""
        await self._write(
            self._member(user, member),
            ("SADD", f"{self._prefix}granted:{instance}", user),
            ("SREM", f"{self._prefix}offered:{instance}", user),
            *self._advance(member.last_grant),
        )

    async def offered(self, user: str, member: Member, instance: str) -> None:
        """Remember a member who was offered a place in a room, and must take it themselves."""
        await self._write(
            self._member(user, member),
            ("SADD", f"{self._prefix}offered:{instance}", user),
            *self._advance(member.last_grant),
        )

    async def taken(self, user: str, member: Member, instance: str) -> None:
        """Remember a member together with the end of their place in a room."""
        await self._write(
            self._member(user, member),
            ("SREM", f"{self._prefix}granted:{instance}", user),
            ("SREM", f"{self._prefix}offered:{instance}", user),
        )

    def _member(self, user: str, member: Member) -> tuple[Any, ...]:
        return ("SET", f"{self._prefix}member:{user}", msgspec.json.encode(member))

    async def note_holder(self, user: str, memberships: Sequence[str]) -> dict[str, str]:
        """Remember who has some memberships; returns those that were another user's, with whom."""
        if not memberships:
            return {}
        name = f"{self._prefix}holders"
        pairs = [word for id_ in memberships for word in (id_, user)]
        before, _ = await self._write(("HMGET", name, *memberships), ("HSET", name, *pairs))
        had = {id_: row.decode() for id_, row in zip(memberships, before, strict=True) if row}
        return {id_: other for id_, other in had.items() if other != user}

    async def count_granted(self, instances: Sequence[str]) -> dict[str, int]:
        """Return, by room, how many members are in it by a grant."""
        rows = await self._ask([("SCARD", f"{self._prefix}granted:{key}") for key in instances])
        return dict(zip(instances, rows, strict=True))

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
            with translated():
                await pipe.execute()

    def _lost(
        self, user: str, member: Member, grants: Mapping[str, Grant], *, whole: bool
    ) -> tuple[list[str], list[Any]]:
        names, arguments = [f"member:{user}"], [user, msgspec.json.encode(member), int(whole)]
        for room, grant in grants.items():
            names += [f"seats:{room}", f"filled:{room}", f"granted:{room}/{grant.cohort}"]
            arguments += [grant.cohort, int(not grant.taken)]
        return [self._prefix + name for name in names], arguments
