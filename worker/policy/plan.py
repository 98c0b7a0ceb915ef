"""What happens in a stretch of time: every opening, lock, window, message and archive, in order.

It is worked out from the same timelines by which the worker goes, so that it cannot say anything
else.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from enum import StrEnum
from functools import lru_cache
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from worker.policy.calls import CHANGE, PIN, WRITE, Load, Quota, archiving, loads, making
from worker.policy.clocks import ClockChange, clock_changes, odd_time
from worker.policy.conflicts import Conflict, of_part, of_rules
from worker.policy.messages import messages_between
from worker.policy.occurrences import Occurrence, instant, label, started
from worker.policy.overrides import NOTHING, Hold, Overrides
from worker.policy.parts import AROUND, TICK, Part, parts
from worker.policy.rooms import Room, split
from worker.policy.schedule import DAY, Timeline
from worker.policy.settings import DEFAULTS, changes

_changes = lru_cache(maxsize=4096)(changes)


class Kind(StrEnum):
    """What an entry is; of one instant, in this order."""

    MADE = "made"
    ARCHIVED = "archived"
    LOCKS = "locks"
    OPENS = "opens"
    WINDOW_ENDS = "window_ends"
    WINDOW_BEGINS = "window_begins"
    HOLD_ENDS = "hold_ends"
    HOLD_BEGINS = "hold_begins"
    EDIT_ENDS = "edit_ends"
    MESSAGE = "message"


RANK: Final = {kind: n for n, kind in enumerate(Kind)}


class Entry(NamedTuple):
    """One thing that happens; `about` says which occurrence, hours, text or person.

    `room` is the key of the room as it exists on Whop, `at` in UTC. `changes` are the settings
    that become others, with Whop's names; of what happens at one instant the first entry has them
    all. `calls` are the operations that Whop is asked for.
    """

    at: datetime
    room: str
    kind: Kind
    zone: ZoneInfo
    about: str = ""
    changes: Mapping[str, Any] = {}
    flags: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """All that happens in [since, until), what is wrong with it, and what it asks of Whop."""

    since: datetime
    until: datetime
    entries: tuple[Entry, ...]
    conflicts: tuple[Conflict, ...]
    clock_changes: tuple[ClockChange, ...]
    calls: tuple[Load, ...]
    quota: Quota = field(default_factory=Quota)


def plan(
    rooms: Iterable[Room],
    since: datetime,
    until: datetime,
    *,
    only: str | None = None,
    overrides: Mapping[str, Overrides] | None = None,
    exist: Mapping[str, Occurrence | None] | None = None,
    standing: Mapping[str, int] | None = None,
    quota: Quota | None = None,
) -> Plan:
    """Return what happens in [since, until).

    `only` is the key of one room as it exists on Whop, and `overrides` are by such keys; `exist`
    are all that do, each with the date that it was made for, if that is how rooms come. `standing`
    says in how many cohorts of a room everything happens, where that is not one.
    """
    rooms, quota = tuple(rooms), quota or Quota()
    entries: list[Entry] = []
    conflicts = [
        conflict
        for room in rooms
        for conflict in of_rules(room, since, clock_changes(room.schedule.zone, since, until))
    ]
    for part in (*parts(rooms, since, until), *_besides(rooms, exist or {}, since, until, only)):
        if only not in {None, part.key}:
            continue
        lies = (overrides or {}).get(part.key, NOTHING)
        timeline = Timeline(part.schedule, part.since - TICK, part.until, lies)
        entries += entries_of(part, timeline, lies)
        conflicts += of_part(part.room, part.key, timeline, lies)
    entries.sort(key=itemgetter(0))
    zones = sorted({room.schedule.zone for room in rooms}, key=str)
    jumps = [jump for zone in zones for jump in clock_changes(zone, since, until)]
    copies = standing or {}
    asked = ((entry.at, entry.calls * copies.get(entry.room, 1)) for entry in entries)
    return Plan(
        since=since,
        until=until,
        entries=tuple(entries),
        conflicts=tuple(conflicts),
        clock_changes=tuple(sorted(jumps, key=attrgetter("at"))),
        calls=tuple(loads(asked, quota)),
        quota=quota,
    )


def _besides(
    rooms: Iterable[Room],
    exist: Mapping[str, Occurrence | None],
    since: datetime,
    until: datetime,
    only: str | None,
) -> Iterator[Part]:
    """Yield the rooms that exist and that the rules do not lead to.

    Those are the rooms of dates that were taken away, and a cohort that is asked for by itself:
    all else that is planned of a cohort room stands for each of them.
    """
    for room in rooms:
        for key, date in exist.items():
            name, part = split(key)
            if name != room.key or part is None:
                continue
            dated = room.one_room_per == "occurrence" and date is not None
            cancelled = dated and room.schedule.find(part) is None
            if cancelled or (room.cohort and key == only):
                schedule = room.schedule_of(part, date)
                archived = schedule.archived_from
                end = until if archived is None else min(until, archived + TICK)
                jumps = clock_changes(schedule.zone, since - AROUND, until + AROUND)
                yield Part(room, key, schedule, since, end, None, jumps)


class _Moment(NamedTuple):
    """Something at an instant, before it is known what it changes."""

    at: datetime
    rank: int
    kind: Kind
    about: str
    flags: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    pinned: bool = False


def entries_of(part: Part, timeline: Timeline, overrides: Overrides) -> Iterator[Entry]:
    """Yield what happens in a room within its stretch, in order."""
    moments = [one for one in _moments(part, timeline, overrides) if _within(part, one.at)]
    moments.sort()
    before = timeline.settings(timeline.since) if part.made != part.since else DEFAULTS
    zone = part.schedule.zone
    for at, together in groupby(moments, key=attrgetter("at")):
        now = timeline.settings(at)
        different = _changes(now, before) if now != before else {}
        before = now
        calls = CHANGE if different else ()
        held = _held(overrides, at) if overrides.holds else ()
        for one in together:
            asks = one.calls if one.kind is Kind.MADE else calls + one.calls
            flags = one.flags + (held if one.kind in _PLANNED else ())
            yield Entry(at, part.key, one.kind, zone, one.about, different, flags, asks, one.pinned)
            different, calls = {}, ()


_PLANNED: Final = {Kind.OPENS, Kind.LOCKS, Kind.WINDOW_BEGINS, Kind.WINDOW_ENDS}


def _within(part: Part, at: datetime) -> bool:
    return part.since <= at < part.until


def _held(overrides: Overrides, at: datetime) -> tuple[str, ...]:
    return tuple(f"{hold.who} holds the room: that is stronger" for hold in overrides.holds_at(at))


def _moments(part: Part, timeline: Timeline, overrides: Overrides) -> Iterator[_Moment]:
    room, schedule = part.room, part.schedule
    if part.made is not None:
        calls = making(len(room.products), welcome=room.welcome is not None)
        why = ("earlier, if a ticket is sold before",)
        yield _Moment(part.made, RANK[Kind.MADE], Kind.MADE, "", why, calls)
    for one, (opens, locks) in zip(timeline.occurrences, timeline.openings, strict=True):
        flags = _odd_start(one, schedule.zone) if part.near_jump(one.starts) else ()
        name = label(one, schedule.zone)
        yield _Moment(opens, RANK[Kind.OPENS], Kind.OPENS, name, flags)
        yield _Moment(locks, RANK[Kind.LOCKS], Kind.LOCKS, name)
    for begin, end, window in timeline.hours:
        hours = f"{_clock(window.start)}-{_clock(window.until)}"
        odd = _odd_time(begin, window.start, schedule.zone) if part.near_jump(begin) else ()
        yield _Moment(begin, RANK[Kind.WINDOW_BEGINS], Kind.WINDOW_BEGINS, hours, odd)
        odd = _odd_time(end, window.until, schedule.zone) if part.near_jump(end) else ()
        yield _Moment(end, RANK[Kind.WINDOW_ENDS], Kind.WINDOW_ENDS, hours, odd)
    for due in messages_between(schedule, room.messages, part.since, part.until):
        calls = WRITE + (PIN if due.pin else ())
        yield _Moment(due.at, RANK[Kind.MESSAGE], Kind.MESSAGE, due.text, (), calls, due.pin)
    if schedule.archived_from is not None:
        calls = archiving(len(room.products))
        yield _Moment(schedule.archived_from, RANK[Kind.ARCHIVED], Kind.ARCHIVED, "", (), calls)
    for hold in overrides.holds:
        yield _Moment(hold.since, RANK[Kind.HOLD_BEGINS], Kind.HOLD_BEGINS, _word(hold))
        yield _Moment(hold.until, RANK[Kind.HOLD_ENDS], Kind.HOLD_ENDS, _word(hold))
    until = overrides.edit.until if overrides.edit else None
    if until is not None:
        yield _Moment(until, RANK[Kind.EDIT_ENDS], Kind.EDIT_ENDS, "made by hand on Whop")


def _clock(t: time) -> str:
    return f"{t.hour:02}:{t.minute:02}"


def _word(hold: Hold) -> str:
    return f"by {hold.who}: {hold.why}" if hold.why else f"by {hold.who}"


def _odd_start(one: Occurrence, zone: ZoneInfo) -> tuple[str, ...]:
    """Flag an occurrence of the rules file whose local start is skipped or comes twice."""
    local = started(one.id)
    odd = odd_time(local, zone) if local else None
    return (odd,) if odd else ()


def _odd_time(at: datetime, said: time, zone: ZoneInfo) -> tuple[str, ...]:
    """Flag an instant whose local time of day, as the rules say it, is skipped or comes twice."""
    today = at.astimezone(zone).date()
    locals_ = [datetime.combine(day, said) for day in (today, today - DAY)]
    odd = [odd_time(local, zone) for local in locals_ if instant(local, zone) == at]
    return tuple(words for words in odd if words)
