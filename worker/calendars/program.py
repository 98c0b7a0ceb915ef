"""Reading a calendar in a process of its own.

Whoever writes a calendar decides how long that takes: a rule of thirty characters keeps dateutil
busy for ever. A thread cannot be stopped, so this is a program, run for one calendar and killed
when it takes too long (`worker.calendars.reading`):

    python -m worker.calendars.program < an Ask in JSON, a newline, the calendar > a Found in JSON

It knows no secret, has a memory of its own, and leaves the processor to those who open rooms.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import recurring_ical_events  # type: ignore[import-untyped] # it has hints, but no py.typed
from icalendar import Calendar, Event
from icalendar.timezone import tzp

from worker.calendars import Broken
from worker.calendars.entries import Entry, entries, fits, series
from worker.calendars.question import Ask, Found
from worker.policy.occurrences import Occurrence

MOST: Final = 5_000
"""Dates of a room. Two each day, over the whole reach, are 1,600."""

MEMORY: Final = 768 * 2**20
"""Bytes of address space that reading may take."""

MARK: Final = "X-USHER-ENTRY"
"""Tells, of what recurring-ical-events gives back, from which entry it came."""


def find(feed: bytes, ask: Ask) -> Found:
    """Find the dates of some rooms in a calendar.

    Raises:
        Broken: it is no calendar, or what it says of these rooms cannot be.
        Exception: the libraries met what they did not expect.
    """
    count = 0
    dates: dict[str, dict[str, Occurrence]] = {room: {} for room in ask.rooms}
    for calendar in _calendars(feed):
        events = [event for event in calendar.walk("VEVENT") if isinstance(event, Event)]
        count += len(events)
        for room, one in _occurrences(calendar, events, ask):
            if one.ends >= ask.since and one.starts <= ask.until:
                dates[room][one.id] = one
            if len(dates[room]) > MOST:
                raise Broken(f"it has more than {MOST:,} dates for the room {room}")
    return Found(count, {room: _sorted(found) for room, found in dates.items()})


def _sorted(found: Mapping[str, Occurrence]) -> tuple[Occurrence, ...]:
    return tuple(sorted(found.values(), key=lambda one: (one.starts, one.id)))


def _calendars(feed: bytes) -> list[Calendar]:
    try:
        found = Calendar.from_ical(feed, multiple=True)
    except ValueError as error:
        raise Broken("it is not an iCalendar file (.ics)") from error
    calendars = [one for one in found if one.name == "VCALENDAR"]
    if not calendars:
        raise Broken("it is not an iCalendar file (.ics), or not a whole one")
    return calendars


def _occurrences(
    calendar: Calendar, events: list[Event], ask: Ask
) -> Iterator[tuple[str, Occurrence]]:
    """Yield each date of each room; what belongs to no room is not even looked at."""
    home = _own_zone(calendar)
    chosen: list[Entry] = []
    for one_series in series(events):
        if any(fits(event, word) for event in one_series for word, _ in ask.rooms.values()):
            chosen += entries(one_series, home)
    for n, entry in enumerate(chosen):
        entry.event[MARK] = str(n)
    rooms = [_rooms(entry, ask) for entry in chosen]
    for n, start, end in _expanded(calendar, chosen, ask):
        for room, zone in rooms[n]:
            yield room, chosen[n].occurrence(start, end, zone)


def _expanded(
    calendar: Calendar, chosen: list[Entry], ask: Ask
) -> Iterator[tuple[int, datetime, datetime]]:
    """Yield the number of an entry, with a start and an end as the wall clock has them."""
    alone = calendar.copy()
    for entry in chosen:
        alone.add_component(entry.event)
    try:
        query = recurring_ical_events.of(alone)
    except recurring_ical_events.BadRuleStringFormat as error:
        raise Broken(f"it has a rule of repetition that cannot be read: {error.rule}") from error
    for one_series in query.series:
        for one in one_series.between(ask.since, ask.until):
            found = one.as_component(keep_recurrence_attributes=False)
            yield int(found[MARK]), one.start, one.end


def _own_zone(calendar: Calendar) -> tzinfo | None:
    """Return the zone of a calendar's floating times, if it names one that exists."""
    name = str(calendar.pop("X-WR-TIMEZONE", ""))
    zone = tzp.timezone(name) if name else None
    if not isinstance(zone, ZoneInfo):
        return None
    calendar["X-WR-TIMEZONE"] = zone.key
    return zone


def _rooms(entry: Entry, ask: Ask) -> list[tuple[str, ZoneInfo]]:
    if entry.cancelled:
        return []
    rooms = ask.rooms.items()
    return [(room, ZoneInfo(zone)) for room, (word, zone) in rooms if fits(entry.event, word)]


def main() -> None:
    """Read one calendar from the standard input, and say on the standard output what it has."""
    _confine()
    head, _, feed = sys.stdin.buffer.read().partition(b"\n")
    try:
        found = find(feed, msgspec.json.decode(head, type=Ask))
    except Broken as error:
        found = Found(error=str(error))
    except MemoryError:
        found = Found(error="it takes more memory to read than Usher gives it")
    except Exception as error:  # noqa: BLE001 - the outermost frame; a feed may hold anything
        found = Found(error=f"it has entries that cannot be read ({type(error).__name__})")
    sys.stdout.buffer.write(msgspec.json.encode(found))


def _confine() -> None:
    """Take little memory, and only what processor nobody else wants."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - Windows has none

        with contextlib.suppress(OSError):  # a service may be forbidden to, and reads all the same
            os.nice(10)
        with contextlib.suppress(ValueError, OSError):  # macOS knows the limit, but not to set it
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    main()
