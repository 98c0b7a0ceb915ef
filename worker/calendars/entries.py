"""An entry of a calendar and the dates of a room that it stands for.

icalendar has parsed it and recurring-ical-events expanded it; here is what is ours: how its times
become instants, when it ends over a clock change, and by what name it is known when it is moved.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from icalendar import Event

from worker.calendars import Broken
from worker.policy.calendars import belongs
from worker.policy.occurrences import Occurrence, instant

TOO_FINE: Final = re.compile(rb"FREQ=(SECONDLY|MINUTELY|HOURLY)", re.IGNORECASE)
TIMES: Final = ("DTSTART", "DTEND", "RECURRENCE-ID")
ONCE: Final = (*TIMES, "DURATION")
NEEDED: Final = (*ONCE, "RDATE", "EXDATE")
RECURRING: Final = ("RRULE", "RDATE", "RECURRENCE-ID")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a calendar: a date, a series, or the one date of a series that is different.

    `home` is the zone of its series, for times that name none.
    """

    event: Event
    recurring: bool
    home: tzinfo | None

    @property
    def cancelled(self) -> bool:
        """Say whether it stands in the calendar only to tell that it is off."""
        return str(value(self.event, "STATUS")).upper() == "CANCELLED"

    def occurrence(self, start: date, end: date, zone: ZoneInfo) -> Occurrence:
        """Return one date of it, for a room in a zone."""
        starts = _instant(start, self.home or zone, zone)
        ends = self._ends(start, end, starts, zone)
        return Occurrence(self._id(start), starts, max(starts, ends))

    def _ends(self, start: date, end: date, starts: datetime, zone: ZoneInfo) -> datetime:
        """Return when it ends, over a clock change too (RFC 5545, sections 3.3.6 and 3.8.5.3).

        From DTSTART to DTEND is elapsed time; of a DURATION days are days of the calendar, and
        hours elapsed time. `end` is the wall clock's, which is right for whole days, and for a
        date that was given an end of its own.
        """
        if not isinstance(start, datetime) or not isinstance(end, datetime):
            return _instant(end, zone, zone)
        home, first = self.home or zone, value(self.event, "DTSTART").dt
        last, length = value(self.event, "DTEND"), value(self.event, "DURATION")
        if last is not None and end - start == last.dt - first:
            return starts + (_instant(last.dt, home, zone) - _instant(first, home, zone))
        if last is None and length is not None and end - start == length.dt:
            days, rest = timedelta(length.dt.days), timedelta(seconds=length.dt.seconds)
            return _instant(start + days, home, zone) + rest
        return _instant(end, home, zone)

    def _id(self, start: date) -> str:
        """Return an id that stays when the date is moved: of its UID and its original start."""
        name = hashlib.sha256(str(self.event["UID"]).encode()).hexdigest()[:12]
        if not self.recurring:
            return name
        original = self._original(start)
        if not isinstance(original, datetime):
            return f"{name}-{original:%Y%m%d}"
        if original.tzinfo is None and self.home is None:
            return f"{name}-{original:%Y%m%dT%H%M%S}"
        original = original if original.tzinfo else original.replace(tzinfo=self.home)
        return f"{name}-{original.astimezone(UTC):%Y%m%dT%H%M%SZ}"

    def _original(self, start: date) -> date:
        moved = value(self.event, "RECURRENCE-ID")
        if moved is None:
            return start
        planned: date = moved.dt
        if moved.params.get("RANGE") != "THISANDFUTURE":
            return planned
        by: timedelta = value(self.event, "DTSTART").dt - planned
        return start - by


def _instant(t: date, home: tzinfo, zone: ZoneInfo) -> datetime:
    """Return the instant, in UTC, of a calendar's time; a day begins at the room's midnight."""
    if not isinstance(t, datetime):
        return instant(datetime(t.year, t.month, t.day), zone)  # noqa: DTZ001 - local to the zone
    return (t if t.tzinfo else t.replace(tzinfo=home)).astimezone(UTC)


def value(event: Event, name: str) -> Any:
    """Return a property of an entry as icalendar has it, None where there is none."""
    return event.get(name)


def several(event: Event, name: str) -> list[Any]:
    """Return a property that may stand more than once in an entry."""
    found = value(event, name)
    if found is None:
        return []
    return found if isinstance(found, list) else [found]


def fits(event: Event, word: str) -> bool:
    """Say whether an entry has a room's word."""
    categories = [str(one) for some in several(event, "CATEGORIES") for one in some.cats]
    return belongs(word, categories, _summary(event))


def _summary(event: Event) -> str:
    return " ".join(map(str, several(event, "SUMMARY")))


def series(events: Sequence[Event]) -> list[list[Event]]:
    """Put together what has one UID; an entry without any gets one that stays."""
    found = defaultdict(list)
    for event in events:
        if not event.get("UID"):
            event["UID"] = f"{_summary(event)} {[str(t) for t in _times(event)]}"
        found[str(event["UID"])].append(event)
    return list(found.values())


def entries(events: Sequence[Event], home: tzinfo | None) -> list[Entry]:
    """Return the entries of one series, in a calendar whose floating times are in `home`.

    Raises:
        Broken: one of them would be read as something else than the seller sees.
    """
    for event in events:
        _check(event, f'the entry "{_summary(event)[:60]}"')
    zones = [t.tzinfo for event in events for t in _times(event) if isinstance(t, datetime)]
    own = next((zone for zone in zones if zone), home)
    recurring = any(name in event for event in events for name in RECURRING)
    return [Entry(event, recurring, own) for event in events]


def _times(event: Event) -> Iterator[date]:
    for name in TIMES:
        time = getattr(value(event, name), "dt", None)
        if isinstance(time, date):
            yield time


def _check(event: Event, this: str) -> None:
    broken = [str(name) for name, _ in event.errors if name in NEEDED]
    if broken or "DTSTART" not in event:
        raise Broken(f"{this} has no {[*broken, 'DTSTART'][0]} that can be read")
    twice = [name for name in ONCE if isinstance(value(event, name), list)]
    if twice:
        raise Broken(f"{this} has more than one {twice[0]}")
    for name in TIMES:
        zone = value(event, name).params.get("TZID") if name in event else None
        if zone and getattr(value(event, name).dt, "tzinfo", zone) is None:
            raise Broken(f"{this} is in a zone that nobody knows: {zone}")
    start, end = value(event, "DTSTART").dt, value(event, "DTEND")
    if end is not None and _kind(start) != _kind(end.dt):
        raise Broken(f"{this} has a DTSTART and a DTEND of two kinds")
    if any(TOO_FINE.search(rule.to_ical()) for rule in several(event, "RRULE")):
        raise Broken(f"{this} repeats more often than daily")


def _kind(t: date) -> tuple[bool, bool]:
    return isinstance(t, datetime), getattr(t, "tzinfo", None) is None
