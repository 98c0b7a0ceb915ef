"""What is known of one calendar, and how that changes with each look at it; nothing here acts."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from worker.calendars.reading import REACH, Rooms
from worker.calendars.web import Body
from worker.policy.calendars import Reading, Source, changed, judge, remind, upcoming
from worker.policy.occurrences import Occurrence

EXPANDED_FOR: Final = timedelta(days=1)
"""After so long a calendar is read anew, changed or not: its reach moves on."""

Dates = dict[str, tuple[Occurrence, ...]]
Asked = dict[str, tuple[str, str]]


class Feed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a calendar; instants are in UTC.

    `rooms` are the dates that hold, by room, and `held` the new ones that wait for the seller.
    `asked` is each room's word and zone by which it was read at `expanded_at`, `digest` the hash of
    what was read. `told_failing` and `told_held` are when the seller was last warned. `unplanned`
    are the rooms whose dates changed and that nobody was set to look at yet.
    """

    rooms: Dates = {}
    held: Dates = {}
    asked: Asked = {}
    etag: str | None = None
    last_modified: str | None = None
    digest: str | None = None
    checked_at: datetime | None = None
    good_at: datetime | None = None
    expanded_at: datetime | None = None
    failing_since: datetime | None = None
    error: str | None = None
    held_since: datetime | None = None
    told_failing: datetime | None = None
    told_held: datetime | None = None
    unplanned: tuple[str, ...] = ()

    def settled(self, asked: Mapping[str, tuple[str, str]], now: datetime) -> bool:
        """Say whether the same calendar would be read as the same dates."""
        read = self.expanded_at
        return read is not None and now - read < EXPANDED_FOR and self.asked == asked

    def failed(self, why: str, now: datetime) -> "Feed":
        """Return what is known after a calendar could not be had or read."""
        told = now if remind(self.told_failing, now) else self.told_failing
        since = self.failing_since or now
        return replace(self, checked_at=now, failing_since=since, error=why, told_failing=told)

    def fine(self, now: datetime) -> "Feed":
        """Return what is known after a calendar was had, and is the one that was read before."""
        told = now if self.held and remind(self.told_held, now) else self.told_held
        return replace(
            self,
            checked_at=now,
            good_at=now,
            failing_since=None,
            error=None,
            told_failing=None,
            told_held=told,
        )

    def taken(self, got: Body, reading: Reading, asked: Asked, now: datetime) -> "Feed":
        """Return what is known after a calendar was read."""
        verdict = judge(self.rooms, reading, now, self.held)
        told = self.told_held if verdict.held and self.held else None
        known = replace(
            self,
            rooms=verdict.rooms,
            held=verdict.held,
            held_since=(self.held_since or now) if verdict.held else None,
            told_held=told,
            asked=asked,
            etag=got.validators.etag,
            last_modified=got.validators.last_modified,
            digest=digest(got),
            expanded_at=now,
        )
        return known.fine(now)

    def accepted(self, rooms: Rooms) -> "Feed":
        """Return what is known after the seller accepted what was held for some rooms."""
        left = {room: dates for room, dates in self.held.items() if room not in rooms}
        taken = {room: dates for room, dates in self.held.items() if room in rooms}
        since, told = (self.held_since, self.told_held) if left else (None, None)
        return replace(
            self, rooms={**self.rooms, **taken}, held=left, held_since=since, told_held=told
        )

    def changed_from(self, before: "Feed", now: datetime) -> "Feed":
        """Return what is known with the rooms noted whose dates are not what they were."""
        return replace(self, unplanned=tuple(sorted({*self.unplanned, *moved(before, self, now)})))

    def planned(self, rooms: Rooms) -> "Feed":
        """Return what is known after these rooms were set to be looked at."""
        return replace(self, unplanned=tuple(one for one in self.unplanned if one not in rooms))


@dataclass(frozen=True, slots=True)
class State:
    """How a room stands with its calendar, for people; instants are in UTC.

    `held` is how many dates would be ahead if the seller accepted what waits, None if nothing does.
    """

    room: str
    source: str
    word: str
    good_at: datetime | None
    failing_since: datetime | None
    error: str | None
    upcoming: int
    next: Occurrence | None
    held: int | None
    held_since: datetime | None


def digest(got: Body) -> str:
    """Return what tells a calendar from another: many servers give no ETag."""
    return hashlib.sha256(got.content).hexdigest()


def moved(before: Feed, after: Feed, now: datetime) -> set[str]:
    """Return the rooms whose dates are not what they were."""
    until = min(before.expanded_at or now, after.expanded_at or now) + REACH
    return {
        room
        for room, dates in after.rooms.items()
        if changed(before.rooms.get(room, ()), dates, now - REACH, until)
    }


def state(room: str, source: Source, known: Feed, now: datetime) -> State:
    """Return how a room stands with its calendar."""
    ahead = upcoming(known.rooms.get(room, ()), now)
    held = known.held.get(room)
    return State(
        room=room,
        source=source.shown,
        word=source.word,
        good_at=known.good_at,
        failing_since=known.failing_since,
        error=known.error,
        upcoming=len(ahead),
        next=ahead[0] if ahead else None,
        held=None if held is None else len(upcoming(held, now)),
        held_since=None if held is None else known.held_since,
    )
