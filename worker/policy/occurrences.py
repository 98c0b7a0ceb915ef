"""The dates of an event room: from the rules file's lines, or one by one from a calendar.

The seller's times are local to the room's zone. One rule turns a local time into an instant, RFC
5545's (section 3.3.5): a time that a clock change skips is read with the offset before the change
(02:30 becomes 03:30 where the clock goes from 02:00 to 03:00); a time that it repeats is the first
of the two. Durations are elapsed time: an hour is 60 minutes in every night of the year.
"""

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from dateutil.rrule import rrule, rruleset, rrulestr

SLACK: Final = timedelta(days=3)
"""More than any clock change moves a local time (Samoa left out a whole day in 2011)."""

MOST: Final = 1000
"""The longest interval of a recurrence that is begun anew; longer ones have few dates anyway."""

STEP: Final = 16
"""How many periods of an endless recurrence lie between the dates from which it is begun anew."""

REFUSED: Final = {
    "DTSTART": "`starts` is its first date",
    "FREQ=(?:SECONDLY|MINUTELY|HOURLY)": "the times of a day are FREQ=DAILY;BYHOUR=9,18",
    r"INTERVAL=0+(?!\d)": "an INTERVAL is 1 or more",
    r"UNTIL=(?!\d{8}(?:T\d{6}Z?)?(?:;|$))": "an UNTIL is a time such as 20261231T235959",
    "COUNT=.*UNTIL=|UNTIL=.*COUNT=": "COUNT and UNTIL exclude each other",
}
"""What dateutil takes and we cannot: it would not end, or would depend on today's date."""

UNTIL: Final = re.compile(r"UNTIL=(\d{8})(?:T(\d{6})(Z?))?", re.IGNORECASE)

ID: Final = "%Y-%m-%dT%H%M%S"
LONG: Final = len("2026-12-03T180000")


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One date of an event room. Its id stays when it is moved; instants are in UTC."""

    id: str
    starts: datetime
    ends: datetime


@dataclass(frozen=True, slots=True)
class Occurrences:
    """One date of an event room, or a recurrence of it, as the rules file has it.

    `starts` is local to the room's zone and has no offset; `repeats` is an RRULE, `exdate` and
    `rdate` are starts left out and added (RFC 5545). All are reckoned in local time, so that
    18:00 stays 18:00 over a clock change.
    """

    starts: datetime
    lasts: timedelta
    repeats: str | None = None
    exdate: tuple[datetime, ...] = ()
    rdate: tuple[datetime, ...] = ()

    @property
    def endless(self) -> bool:
        """Say whether it goes on for ever."""
        rule = self.repeats
        return rule is not None and not re.search("COUNT=|UNTIL=", rule, re.IGNORECASE)

    @property
    def period(self) -> timedelta | None:
        """By how much a daily or weekly recurrence without an end may be moved; None for others.

        BYSETPOS counts within a week, of which the first is not a whole one.
        """
        rule = (self.repeats or "").upper()
        found = re.search("FREQ=(DAILY|WEEKLY)", rule)
        if not (found and self.endless) or "BYSETPOS" in rule:
            return None
        interval = re.search(r"INTERVAL=(\d+)", rule)
        times = int(interval[1]) if interval else 1
        days = 7 if found[1] == "WEEKLY" else 1
        return timedelta(days=times * days) if 0 < times <= MOST else None

    def at(self, local: datetime, zone: ZoneInfo) -> Occurrence:
        """Return the occurrence that starts at a local time."""
        begins = instant(local, zone)
        return Occurrence(local.strftime(ID).removesuffix("00"), begins, begins + self.lasts)


def started(id_: str) -> datetime | None:
    """Return the local start that an id of the rules file's occurrences names; None for others."""
    try:
        return datetime.strptime(id_ if len(id_) == LONG else f"{id_}00", ID)  # noqa: DTZ007 - it is local
    except ValueError:
        return None


def label(one: Occurrence, zone: ZoneInfo) -> str:
    """Return how an occurrence is called for people: a calendar's ids tell nobody anything."""
    return one.id if started(one.id) else f"{one.starts.astimezone(zone):%Y-%m-%dT%H%M}"


class Dates(Protocol):
    """Local starts in order, as dateutil's rules give them."""

    def __iter__(self) -> Iterator[datetime]:
        """Go through the starts from the first on."""

    def between(self, after: datetime, before: datetime, inc: bool) -> list[datetime]:  # noqa: FBT001 - dateutil has it so
        """Return the starts between two local times, with the ends themselves if `inc`."""


def instant(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant, in UTC, that a local time without an offset names in a zone."""
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC)


@lru_cache(maxsize=8192)
def dates(line: Occurrences, zone: ZoneInfo) -> Dates:
    """Return the local starts of a line of occurrences; each that was worked out is remembered.

    Raises:
        ValueError: the recurrence is not an RRULE.
    """
    for refused, why in REFUSED.items():
        if re.search(refused, line.repeats or "", re.IGNORECASE):
            raise ValueError(why)
    alone = not (line.exdate or line.rdate)
    period = line.period if alone else None
    text, last = _bounded("FREQ=DAILY;COUNT=1" if line.repeats is None else line.repeats, zone)
    rule = rrulestr(text, dtstart=line.starts, cache=period is None)
    if isinstance(rule, rruleset):
        raise ValueError("one rule a line; exdate and rdate are keys of their own")  # noqa: TRY004 - the text is wrong, not its type
    if period:
        return _Endless(rule, line.starts, period)
    found = rule if alone else _with_exceptions(rule, line)
    return _Until(found, last, zone, line.rdate) if last else found


def _with_exceptions(rule: rrule, line: Occurrences) -> rruleset:
    starts = rruleset(cache=True)
    starts.rrule(rule)
    for added in line.rdate:
        starts.rdate(added)
    for left_out in line.exdate:
        starts.exdate(left_out)
    return starts


class _Endless:
    """A rule that goes on for ever, begun anew a little before the time that is asked for.

    A series of years would otherwise be gone through from its first date each time anew.
    """

    def __init__(self, rule: rrule, starts: datetime, period: timedelta) -> None:
        self._rule = rule
        self._starts = starts
        self._step = STEP * period
        self._near: tuple[int, rrule] = (0, rule.replace(cache=True))

    def __iter__(self) -> Iterator[datetime]:
        return iter(self._rule)

    def between(self, after: datetime, before: datetime, inc: bool) -> list[datetime]:  # noqa: FBT001 - dateutil has it so
        steps = max(0, (after - self._starts) // self._step)
        near = self._near
        if near[0] != steps:
            starts = self._starts + steps * self._step
            near = self._near = (steps, self._rule.replace(dtstart=starts, cache=True))
        return near[1].between(after, before, inc)


class _Until:
    """Dates up to an instant, and those that were added, however late.

    Around a clock change local times do not come in the order of their instants.
    """

    def __init__(
        self, starts: Dates, last: datetime, zone: ZoneInfo, added: Container[datetime]
    ) -> None:
        self._starts = starts
        self._last = last
        self._zone = zone
        self._added = added

    def _fits(self, start: datetime) -> bool:
        return start in self._added or instant(start, self._zone) <= self._last

    def __iter__(self) -> Iterator[datetime]:
        return (start for start in self._starts if self._fits(start))

    def between(self, after: datetime, before: datetime, inc: bool) -> list[datetime]:  # noqa: FBT001 - dateutil has it so
        return [start for start in self._starts.between(after, before, inc) if self._fits(start)]


def _bounded(rule: str, zone: ZoneInfo) -> tuple[str, datetime | None]:
    """Return a rule whose UNTIL is local and late enough, and the instant of the one it had.

    RFC 5545 wants UTC here (section 3.3.10); a time without a Z is the room's. A date alone, of
    which it says nothing beside a start that has a time, is its whole day.
    """
    found = UNTIL.search(rule)
    if found is None:
        return rule, None
    day, time, utc = found.groups()
    said = datetime.fromisoformat(f"{day}T{time or '235959'}")
    last = None
    if time and said.year < MAXYEAR:  # whoever writes that year means for ever
        last = said.replace(tzinfo=UTC) if utc else instant(said, zone)
        said += SLACK
    return UNTIL.sub(f"UNTIL={said:%Y%m%dT%H%M%S}", rule), last
