"""What Usher remembers, as one: every key of ours that is about members and rooms.

All of it is JSON under `usher:{account}:`. The parts, each with its keys, types and scripts:

    worker.memory.members   members, and who is in by a grant
    worker.memory.seats     seats of cohorts, tickets of events
    worker.memory.watermark how far it has come, so that an older copy is known for one
    worker.memory.ways      how seats can be given, and who was offered one
    worker.memory.places    the rooms as they exist on Whop
    worker.memory.renames   what becomes of all of it where a room's key becomes another
    worker.memory.channels  their settings, holds and messages
    worker.memory.trail     what was done, and why

and, of the whole account:

    team                    JSON list: user ids of the account's admins
    verified                when everything was last inspected by itself

The keys of deliveries and jobs are described in `webhooks.inbox` and `worker.subjects`.
"""

from datetime import datetime

import msgspec

from worker.memory.channels import Channels
from worker.memory.members import Members
from worker.memory.places import Places
from worker.memory.renames import Renaming
from worker.memory.seats import Seats
from worker.memory.trail import Trail
from worker.memory.ways import Ways
from worker.policy.rooms import split


class Store(Members, Seats, Ways, Channels, Places, Renaming, Trail):
    """Typed access to what is remembered."""

    async def verified(self) -> datetime | None:
        """Return when everything was last inspected by itself."""
        return await self._read("verified", datetime)

    async def save_verified(self, at: datetime) -> None:
        """Remember when everything was inspected."""
        await self._redis.set(f"{self._prefix}verified", msgspec.json.encode(at))

    async def count_members(self, room: str) -> int:
        """Return how many members are in a room by a grant, all its cohorts together."""
        keys = [key for key in await self.instances() if split(key)[0] == room]
        return sum((await self.count_granted(keys)).values())

    async def team(self) -> frozenset[str] | None:
        """Return the account's admins; None while nobody has asked Whop yet."""
        team = await self._read("team", list[str])
        return None if team is None else frozenset(team)

    async def save_team(self, team: frozenset[str]) -> None:
        """Remember the account's admins."""
        await self._redis.set(f"{self._prefix}team", msgspec.json.encode(sorted(team)))
