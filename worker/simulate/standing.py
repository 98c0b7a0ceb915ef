"""The rooms as they stand on the local Whop, beside what the rules want of each at any instant."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from worker.memory.places import Place
from worker.policy.phases import Phase
from worker.policy.rooms import Room, instance, split
from worker.policy.schedule import Timeline, next_change
from worker.policy.settings import Settings, changes
from worker.rules import Rules
from worker.sandbox.records import Channel, Experience, Membership
from worker.sandbox.state import LocalWhop
from worker.simulate.troubles import Excuses
from worker.store import Store

DAY: Final = timedelta(days=1)
MOMENT: Final = timedelta(microseconds=1)
SEEN: Final = timedelta(minutes=2)
"""How long after an edit by hand Usher has looked at every channel."""

CALMED: Final = timedelta(hours=2)
"""How long after the last message a chat may still be slower than planned."""


@dataclass(slots=True)
class Standing:
    """One room that exists: a room of the rules, or a part of it."""

    key: str
    room: Room
    place: Place
    experience: Experience
    channel: Channel
    timeline: Timeline
    seen: datetime | None = None

    def touched(self) -> bool:
        """Say whether anybody has set the channel since this was asked last."""
        before, self.seen = self.seen, self.channel.updated_at
        return before != self.seen

    def edges(self) -> list[datetime]:
        """Return the instants of the day at which a layer of the room begins or ends."""
        return self.timeline.edges()

    def turn(self, t: datetime) -> str | None:
        """Return `opening` or `lock` where an instant is one."""
        if not self.room.schedule.eventful:
            return None
        was = self.timeline.phase(t - MOMENT) is Phase.OPEN
        is_ = self.timeline.phase(t) is Phase.OPEN
        return None if was == is_ else "opening" if is_ else "lock"

    def archived(self, t: datetime) -> bool:
        """Say whether the room is closed for good."""
        return self.timeline.phase(t) is Phase.ARCHIVED


class Standings:
    """All rooms that exist, found anew when one has come into being."""

    def __init__(self, rules: Rules, whop: LocalWhop, store: Store, excuses: Excuses) -> None:
        self._rules = rules
        self._whop = whop
        self._store = store
        self._excuses = excuses
        self._seen: tuple[int, int] | None = None
        self.by_key: dict[str, Standing] = {}

    async def look(self, now: datetime, until: datetime) -> list[Standing]:
        """Find rooms that have come into being; returns these."""
        tables = self._whop.tables
        seen = (len(tables.experiences), len(tables.products))
        if seen == self._seen:
            return []
        keys = [key for key in await self._store.instances() if key not in self.by_key]
        found = [one for key in keys if (one := await self._read(key, now, until))]
        if len(found) == len(keys):
            self._seen = seen  # else one of them is still being made
        self.by_key |= {one.key: one for one in found}
        return found

    async def _read(self, key: str, now: datetime, until: datetime) -> Standing | None:
        name, part = split(key)
        room, place = self._rules.room(name), await self._store.place(key)
        if room is None or place is None or not place.ready:
            return None
        return Standing(
            key=key,
            room=room,
            place=place,
            experience=self._whop.rooms.experience(place.experience or ""),
            channel=self._whop.rooms.channel(place.channel or ""),
            timeline=Timeline(room.schedule_of(part), now, until),
        )

    def begin_day(self, now: datetime, until: datetime) -> None:
        """Lay out the coming day of every room."""
        for one in self.by_key.values():
            schedule = one.room.schedule_of(split(one.key)[1])
            one.timeline = Timeline(schedule, now, until)

    def of(self, room: Room) -> Iterator[Standing]:
        """Yield the rooms that exist of one room of the rules."""
        return (one for one in self.by_key.values() if one.room.key == room.key)

    def missing(self, room: Room, now: datetime) -> list[str]:
        """Return the keys of rooms that should exist by now, whoever bought what, and do not."""
        if room.cohort or room.provision == "on_purchase":
            return []
        if room.one_room_per == "occurrence":
            wanted = [instance(room, one.id) for one in room.to_make(now)[0]]
        else:
            due = room.due_from(None, now)
            wanted = [room.key] if due and due <= now else []
        return [key for key in wanted if key not in self.by_key]

    def differences(self, one: Standing, now: datetime) -> dict[str, object]:
        """Return what a room's channel should be set to and is not, but for what is excused."""
        different = changes(one.timeline.settings(now), _settings(one.channel))
        edited = self._excuses.edits.get(one.channel.id)
        if different and edited and self._respected(one, edited, now):
            return {}
        chatted = self._excuses.chats.get(one.channel.id)
        if one.room.schedule.paced and chatted and now - chatted < CALMED:
            planned = different.get("user_posts_cooldown_seconds", 0)
            if planned < (one.channel.user_posts_cooldown_seconds or 0):
                different.pop("user_posts_cooldown_seconds", None)
        return different

    def _respected(self, one: Standing, edited: datetime, now: datetime) -> bool:
        """Say whether an edit by hand stands: until the next planned change, or till it is seen."""
        if one.room.manual_edits == "revert":
            return now < edited + SEEN
        coming = next_change(one.room.schedule_of(split(one.key)[1]), edited)
        return coming is None or coming.at > now

    def sold(self, one: Standing) -> list[Membership]:
        """Return the memberships on a cohort's own product."""
        return self._whop.index.by_product[one.place.product or ""]

    def inside(self, user: str, one: Standing) -> bool:
        """Ask the local Whop whether a user may come into a room."""
        return self._whop.rooms.may_enter(user, one.experience) != "no_access"


def _settings(channel: Channel) -> Settings:
    """Read a channel as it is on the local Whop."""
    return Settings(
        who_can_post=channel.who_can_post,  # type: ignore[arg-type]  # Whop's words, which policy compares as text
        who_can_react=channel.who_can_react,  # type: ignore[arg-type]  # as above
        user_posts_cooldown_seconds=channel.user_posts_cooldown_seconds or 0,
        ban_media=channel.ban_media,
        ban_urls=channel.ban_urls,
        banned_words=tuple(channel.banned_words),
    )
