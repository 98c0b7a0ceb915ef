"""The rooms that a plan is of: as they exist on Whop, each with its stretch of the plan's time.

A room that has each occurrence to itself comes as several: each is planned from the instant at
which it is made. After its archive nothing is planned of a room.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from worker.policy.clocks import ClockChange, clock_changes
from worker.policy.rooms import LEAD, Room, instance
from worker.policy.schedule import DAY, Schedule

TICK: Final = timedelta.resolution
EVER: Final = timedelta(days=3_650)
"""How far back the rooms of occurrences are sought that are never archived."""

AROUND: Final = timedelta(days=60)
"""How far beyond the stretch clock changes are sought: openings may be long before starts."""


@dataclass(frozen=True, slots=True)
class Part:
    """A room as it exists on Whop, with the stretch in which there is something to plan of it."""

    room: Room
    key: str
    schedule: Schedule
    since: datetime
    until: datetime
    made: datetime | None = None
    jumps: tuple[ClockChange, ...] = ()

    def near_jump(self, t: datetime) -> bool:
        """Say whether the room's clock is changed within two days of an instant."""
        return any(abs(jump.at - t) < 2 * DAY for jump in self.jumps)


def parts(rooms: Iterable[Room], since: datetime, until: datetime) -> Iterator[Part]:
    """Yield the rooms as they exist on Whop, each with its share of [since, until)."""
    for room in rooms:
        schedule, lead = room.schedule, LEAD if room.lead is None else room.lead
        jumps = clock_changes(schedule.zone, since - AROUND, until + AROUND)
        if room.one_room_per == "series":
            yield Part(room, room.key, schedule, since, _end(schedule, until), None, jumps)
            continue
        for one in schedule.between(since - (schedule.archives or EVER), until + lead):
            own, made = schedule.only(one, cancelled=False), schedule.span(one)[0] - lead
            end = _end(own, until)
            if made < until and end > since:
                yield Part(room, instance(room, one.id), own, max(since, made), end, made, jumps)


def _end(schedule: Schedule, until: datetime) -> datetime:
    archived = schedule.archived_from
    return until if archived is None else min(until, archived + TICK)
