"""What a room should be at any instant, and when that changes next.

Instants are aware and in UTC; the seller's times are local to the room's zone. One rule turns a
local time into an instant, RFC 5545's (section 3.3.5): a time that a clock change skips is read
with the offset before the change (02:30 becomes 03:30 where the clock goes from 02:00 to 03:00);
a time that it repeats is the first of the two. Durations are elapsed time: an hour is 60 minutes
in every night of the year.

Intervals are half open: what begins at an instant holds at it, what ends at it does not.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Protocol
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulestr

from worker.policy.settings import (
    Settings,
    WhoCanPost,
    WhoCanReact,
    managed,
    over,
    tighten,
)

DAY = timedelta(days=1)

LOOKAHEAD = (8 * DAY, 60 * DAY, 400 * DAY, 1600 * DAY)
"""How far a next change is sought, in growing steps: a leap day's yearly event is still found."""

SLACK = 3 * DAY
"""More than any clock change moves a local time (Samoa left out a whole day in 2011)."""


class Weekday(StrEnum):
    """The days of a weekly window, in the order of the calendar."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


WEEK = tuple(Weekday)


class Phase(StrEnum):
    """Where an event room stands. A room without occurrences is always open."""

    BEFORE = "before"
    OPEN = "open"
    LOCKED = "locked"
    ARCHIVED = "archived"


QUIET = Settings(who_can_post=WhoCanPost.ADMINS)
SILENT = Settings(who_can_post=WhoCanPost.ADMINS, who_can_react=WhoCanReact.NO_ONE)
PHASES = {
    Phase.BEFORE: QUIET,
    Phase.OPEN: Settings(),
    Phase.LOCKED: QUIET,
    Phase.ARCHIVED: SILENT,
}
"""What a phase sets where the rules say nothing about it."""


@dataclass(frozen=True, slots=True)
class Occurrences:
    """One date of an event room, or a recurrence of it.

    `starts` is local to the room's zone and has no offset; `repeats` is an RRULE (RFC 5545),
    reckoned in local time, so that 18:00 stays 18:00 over a clock change.
    """

    starts: datetime
    lasts: timedelta
    repeats: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of the week that tighten the room: a window belongs to the day on which it begins.

    `until` at or before `start` is on the next day, so 22:00 to 07:00 runs over midnight. A window
    whose end a clock change puts at or before its start does not hold that day.
    """

    start: time
    until: time
    days: frozenset[Weekday] = frozenset(Weekday)
    settings: Settings = field(default_factory=Settings)


class Dates(Protocol):
    """Local starts in order, as dateutil's rules give them."""

    def __iter__(self) -> Iterator[datetime]:
        """Go through the starts from the first on."""

    def between(self, after: datetime, before: datetime, inc: bool) -> list[datetime]:  # noqa: FBT001 - dateutil has it so
        """Return the starts between two local times, with the ends themselves if `inc`."""


@dataclass(frozen=True)
class Schedule:
    """Everything that decides a room's settings over time.

    `opens` is before a start and `locks` after an end; `archives` is after the last lock, or None
    for never. `phases` is the seller's word on what a phase sets.
    """

    zone: ZoneInfo
    base: Settings = field(default_factory=Settings)
    windows: tuple[Window, ...] = ()
    occurrences: tuple[Occurrences, ...] = ()
    opens: timedelta = timedelta(0)
    locks: timedelta = timedelta(0)
    archives: timedelta | None = None
    phases: Mapping[Phase, Settings] = field(default_factory=dict)

    @cached_property
    def ground(self) -> Settings:
        """The base over Whop's defaults, for every field that some layer of the room mentions."""
        phases = [self.phase_settings(phase) for phase in Phase] if self.occurrences else []
        layers = [self.base, *(window.settings for window in self.windows), *phases]
        return over(managed(layers), self.base)

    def phase_settings(self, phase: Phase) -> Settings:
        """What a phase sets: the seller's word over what Usher does by itself."""
        return over(PHASES[phase], self.phases.get(phase, Settings()))

    @cached_property
    def dates(self) -> tuple[tuple[Occurrences, Dates], ...]:
        """Each line of occurrences with its dates; parsed once."""
        return tuple((line, dates(line, self.zone)) for line in self.occurrences)

    @cached_property
    def first_opening(self) -> datetime | None:
        """The instant at which the room opens for the first time."""
        firsts = [start - self.opens for line, when in self.dates for start in self._starts(when)]
        return min(firsts, default=None)

    @cached_property
    def last_lock(self) -> datetime | None:
        """The instant of the last lock of all; None while the room goes on for ever."""
        if any(_endless(line) for line in self.occurrences):
            return None
        ends = [self.span(line, start)[1] for line, when in self.dates for start in when]
        return max(ends, default=None)

    def _starts(self, when: Dates) -> list[datetime]:
        return [instant(start, self.zone) for start in [next(iter(when), None)] if start]

    def span(self, line: Occurrences, start: datetime) -> tuple[datetime, datetime]:
        """Return the instants at which the room opens and locks for one local start."""
        begins = instant(start, self.zone)
        return begins - self.opens, begins + line.lasts + self.locks


@dataclass(frozen=True, slots=True)
class Change:
    """An instant at which a room's settings become something else."""

    at: datetime
    phase: Phase
    settings: Settings


def instant(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant, in UTC, that a local time without an offset names in a zone."""
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC)


def dates(line: Occurrences, zone: ZoneInfo) -> Dates:
    """Return the local starts of a line of occurrences.

    Raises:
        ValueError: the recurrence is not an RRULE.
    """
    if line.repeats is None:
        return rrulestr("FREQ=DAILY;COUNT=1", dtstart=line.starts)
    return rrulestr(_local_until(line.repeats, zone), dtstart=line.starts, cache=True)


def _local_until(rule: str, zone: ZoneInfo) -> str:
    """Turn an UNTIL in UTC, as RFC 5545 wants it, into the local time that we reckon in."""

    def localize(match: re.Match[str]) -> str:
        until = datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        return f"UNTIL={until.astimezone(zone):%Y%m%dT%H%M%S}"

    return re.sub(r"UNTIL=(\d{8}T\d{6})Z", localize, rule, flags=re.IGNORECASE)


def _endless(line: Occurrences) -> bool:
    return line.repeats is not None and not re.search("COUNT=|UNTIL=", line.repeats, re.IGNORECASE)


def openings(
    schedule: Schedule, since: datetime, until: datetime
) -> list[tuple[datetime, datetime]]:
    """Return when the room opens and locks, for each occurrence that touches [since, until]."""
    found = []
    for line, when in schedule.dates:
        reach = SLACK + line.lasts + schedule.locks
        begin = since.astimezone(schedule.zone).replace(tzinfo=None) - reach
        end = until.astimezone(schedule.zone).replace(tzinfo=None) + SLACK + schedule.opens
        spans = (schedule.span(line, start) for start in when.between(begin, end, inc=True))
        found += [(opens, locks) for opens, locks in spans if opens <= until and locks >= since]
    return sorted(found)


def phase_at(schedule: Schedule, t: datetime) -> Phase:
    """Return the phase at an instant: open while any occurrence is, else by what lies around.

    Between two occurrences of one room the phase is `locked`; `before` is only ahead of the first.
    """
    if schedule.first_opening is None:
        return Phase.OPEN
    if t < schedule.first_opening:
        return Phase.BEFORE
    if any(opens <= t < locks for opens, locks in openings(schedule, t, t)):
        return Phase.OPEN
    archived = _archived_from(schedule)
    return Phase.ARCHIVED if archived is not None and t >= archived else Phase.LOCKED


def _archived_from(schedule: Schedule) -> datetime | None:
    if schedule.archives is None or schedule.last_lock is None:
        return None
    return schedule.last_lock + schedule.archives


def settings_at(schedule: Schedule, t: datetime) -> Settings:
    """Return what the channel should be at an instant: base, then phase, then what tightens."""
    settings = schedule.ground
    if schedule.occurrences:
        settings = over(settings, schedule.phase_settings(phase_at(schedule, t)))
    for window in schedule.windows:
        days = [t.astimezone(schedule.zone).date() - n * DAY for n in range(SLACK.days + 1)]
        if any(begin <= t < end for begin, end in _hours(window, schedule.zone, days)):
            settings = tighten(settings, window.settings)
    return settings


def _hours(
    window: Window, zone: ZoneInfo, days: Iterable[date]
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the interval of a window for each of these days on which it begins."""
    later = DAY if window.until <= window.start else timedelta(0)
    for day in days:
        if WEEK[day.weekday()] in window.days:
            begin = instant(datetime.combine(day, window.start), zone)
            end = instant(datetime.combine(day + later, window.until), zone)
            if begin < end:
                yield begin, end


def edges(schedule: Schedule, since: datetime, until: datetime) -> list[datetime]:
    """Return every instant in (since, until] at which a layer of the room begins or ends."""
    found = {t for span in openings(schedule, since, until) for t in span}
    first = since.astimezone(schedule.zone).date() - SLACK
    days = [first + n * DAY for n in range((until - since + 2 * SLACK) // DAY + 1)]
    for window in schedule.windows:
        found.update(t for span in _hours(window, schedule.zone, days) for t in span)
    archived = _archived_from(schedule)
    if archived is not None:
        found.add(archived)
    return sorted(t for t in found if since < t <= until)


def next_change(schedule: Schedule, t: datetime) -> Change | None:
    """Return the next instant after `t` at which the settings differ from those at `t`, if any."""
    now, since = settings_at(schedule, t), t
    for reach in LOOKAHEAD:
        for edge in edges(schedule, since, t + reach):
            settings = settings_at(schedule, edge)
            if settings != now:
                return Change(edge, phase_at(schedule, edge), settings)
        since = t + reach
    return None


def changes_after(schedule: Schedule, t: datetime) -> Iterator[Change]:
    """Yield the changes after an instant, one after the other."""
    change = next_change(schedule, t)
    while change is not None:
        yield change
        change = next_change(schedule, change.at)
