"""The calendar beside an implementation that is not ours, in every zone that there is.

The expected instants come from `whenever`, which reads the zones by itself, in Rust; the expected
days are counted on the calendar. Neither `dateutil` nor `zoneinfo` has a part in them. Both sides
read the zones of the package `tzdata`: those of the machine may be of another year, and then two
right answers differ. Nothing here may depend on where the machine stands.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import tzdata
import whenever

from worker.policy.occurrences import Occurrences, instant
from worker.policy.phases import Phase
from worker.policy.schedule import (
    Schedule,
    Weekday,
    Window,
    edges,
    next_change,
    openings,
    phase_at,
    settings_at,
)
from worker.policy.settings import Settings

ZONES = Path(tzdata.__file__).parent / "zoneinfo"
NAMES = (ZONES.parent / "zones").read_text().split()
REGIONS = sorted({name.partition("/")[0] if "/" in name else "of no region" for name in NAMES})

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
OPENS, LOCKS, ARCHIVES = timedelta(minutes=15), timedelta(minutes=30), timedelta(days=7)
BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
SLOW = Settings(user_posts_cooldown_seconds=60)
FAST = Settings(user_posts_cooldown_seconds=0)
WEEK = tuple(Weekday)


def names_in(region: str) -> list[str]:
    inside = region + "/"
    return [n for n in NAMES if n.startswith(inside) or (region == "of no region" and "/" not in n)]


@cache
def distinct(region: str) -> list[str]:
    """Leave out the zones that are another's, byte for byte."""
    seen: dict[bytes, str] = {}
    for name in names_in(region):
        seen.setdefault((ZONES / name).read_bytes(), name)
    return list(seen.values())


@cache
def ours(name: str) -> ZoneInfo:
    with (ZONES / name).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@cache
def theirs(local: datetime, name: str) -> datetime:
    """Return the instant of a local time, by the rule of RFC 5545: compatible is its other name."""
    plain = whenever.PlainDateTime(local)
    return plain.assume_tz(name, disambiguation="compatible").to_instant().to_stdlib()


@pytest.fixture(autouse=True, scope="module", params=["UTC", "America/New_York"])
def where_the_machine_stands(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run everything twice: where the clock never changes, and where it does."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TZ", request.param)
        time.tzset()
        ours.cache_clear()  # what was worked out for a zone elsewhere shall not answer here
        yield
    time.tzset()


@pytest.fixture(autouse=True, scope="module")
def zones_of_the_package() -> Iterator[None]:
    whenever.reset_tzpath([str(ZONES)])
    whenever.clear_tzcache()
    yield
    whenever.reset_tzpath()
    whenever.clear_tzcache()


@dataclass(frozen=True)
class Turn:
    """One change of a zone's clock, or, where it has none, some moment without one."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def first(self) -> datetime:
        """The local time at which the gap or the fold begins."""
        return self.at.replace(tzinfo=None) + min(self.before, self.after)

    @property
    def last(self) -> datetime:
        """The local time at which it ends."""
        return self.at.replace(tzinfo=None) + max(self.before, self.after)

    @property
    def middle(self) -> datetime:
        """A local time that does not exist, or exists twice."""
        return self.first + (self.last - self.first) / 2

    @property
    def around(self) -> list[datetime]:
        """The local times where a mistake would show."""
        inside = (self.first, self.middle, self.last - SECOND, self.last)
        return [self.first - SECOND, *inside, self.last + MINUTE]


@cache
def turns(name: str, begin: datetime = BEGIN, end: datetime = END) -> list[Turn]:
    """Return all changes of the clock, of 2026 and 2027 unless told, as whenever knows them."""
    found = []
    now = whenever.Instant(begin).to_tz(name)
    while (then := now.next_transition()) and then.to_instant().to_stdlib() < end:
        now, before = then, then.subtract(seconds=1).offset.to_stdlib()
        found.append(Turn(then.to_instant().to_stdlib(), before, then.offset.to_stdlib()))
    return [turn for turn in found if turn.before != turn.after]


def probes(name: str) -> list[Turn]:
    """Return where to look: at each change, or where there is none, somewhere."""
    if name == "Pacific/Apia":  # which has no changes now, but once left out a whole day
        return turns(name, datetime(2011, 12, 1, tzinfo=UTC), datetime(2012, 1, 9, tzinfo=UTC))
    offset = whenever.Instant(BEGIN).to_tz(name).offset.to_stdlib()
    return turns(name) or [Turn(datetime(2026, 3, 29, 1, tzinfo=UTC), offset, offset)]


every_region = pytest.mark.parametrize("region", REGIONS)


def test_the_zones_are_those_that_make_trouble() -> None:
    """Both clock changes of both years, half an hour, two hours, a zone that stopped, none."""
    sizes = {
        name: [(turn.after - turn.before) / MINUTE for turn in turns(name)]
        for name in ("Australia/Lord_Howe", "Antarctica/Troll", "Asia/Gaza", "Asia/Tokyo")
    }
    assert sizes == {
        "Australia/Lord_Howe": [-30, 30, -30, 30],
        "Antarctica/Troll": [120, -120, 120, -120],
        "Asia/Gaza": [60, -60, 60, -60],
        "Asia/Tokyo": [],
    }
    assert [turn.after - turn.before for turn in probes("Pacific/Apia")] == [DAY]
    ramadan = turns("Africa/Casablanca")[0]
    assert ramadan.at.date() == date(2026, 2, 15)
    assert ramadan.after < ramadan.before
    assert sum(len(turns(name)) == 4 for name in NAMES) > 150
    assert sum(not turns(name) for name in NAMES) > 300
    assert sum(len(names_in(region)) for region in REGIONS) == len(NAMES) > 590


@every_region
def test_a_local_time_is_the_same_instant_in_every_zone(region: str) -> None:
    for name in names_in(region):
        quiet = [datetime(2026, month, 1, 12) for month in range(1, 13)]
        changing = [local for turn in probes(name) for local in turn.around]
        for local in quiet + changing:
            assert instant(local, ours(name)) == theirs(local, name), (name, local)


def event(name: str, line: Occurrences) -> Schedule:
    around = {"opens": OPENS, "locks": LOCKS, "archives": ARCHIVES}
    return Schedule(ours(name), occurrences=(line,), **around)


def span(local: datetime, lasts: timedelta, name: str) -> tuple[datetime, datetime]:
    """Return when the room opens and locks: what lasts an hour lasts 60 minutes, every night."""
    starts = theirs(local, name)
    return starts - OPENS, starts + lasts + LOCKS


@every_region
def test_a_single_date_opens_locks_and_archives(region: str) -> None:
    for name in distinct(region):
        locals_ = [local for turn in probes(name) for local in turn.around]
        lengths = itertools.cycle([timedelta(minutes=45), timedelta(hours=26)])
        for local, lasts in zip(locals_, lengths, strict=False):
            schedule = event(name, Occurrences(local, lasts))
            opens, locks = span(local, lasts, name)
            why = (name, local, lasts)
            assert openings(schedule, opens - DAY, locks + DAY) == [(opens, locks)], why
            ends = locks + ARCHIVES
            assert edges(schedule, opens - DAY, ends) == [opens, locks, ends], why
            phases = {
                opens - SECOND: Phase.BEFORE,
                opens: Phase.OPEN,
                locks - SECOND: Phase.OPEN,
                locks: Phase.LOCKED,
                ends - SECOND: Phase.LOCKED,
                ends: Phase.ARCHIVED,
            }
            assert {t: phase_at(schedule, t) for t in phases} == phases, why
            change = next_change(schedule, opens - DAY)
            assert change, why
            assert (change.at, change.phase) == (opens, Phase.OPEN), why


# --- recurrences, with their days counted on the calendar


def months(first: date) -> Iterator[date]:
    """Yield the first days of a month and of all that follow."""
    year, month = first.year, first.month
    while True:
        yield date(year, month, 1)
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)


def days_of(month: date) -> list[date]:
    days = (month + n * DAY for n in range(31))
    return [day for day in days if day.month == month.month]


Pick = Callable[[list[date]], list[date]]


def monthly(pick: Pick, near: date, count: int) -> list[date]:
    """Return the picked days of the months around a day, from two months before it."""
    begin = next(itertools.islice(months(date(near.year - 1, near.month, 1)), 10, None))
    picked = (day for month in months(begin) for day in pick(days_of(month)))
    return list(itertools.islice(picked, count))


def on_weekday(weekday: int, place: int) -> Pick:
    """Pick the first (0), second (1), ... or last (-1) such weekday of a month, if it has one."""

    def pick(days: list[date]) -> list[date]:
        fitting = [day for day in days if day.weekday() == weekday]
        return fitting[place:][:1] if place < len(fitting) else []

    return pick


def on_day(number: int) -> Pick:
    return lambda days: [days[-1]] if number == -1 else [d for d in days if d.day == number]


def rules(day: date) -> dict[str, list[date]]:
    """Return recurrences that meet a day, or come near, with the days that they have."""
    weekday, nth = day.weekday(), (day.day - 1) // 7
    name = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")[weekday]
    monday = day - (day.weekday() + 14) * DAY
    return {
        "FREQ=DAILY": [day + n * DAY for n in range(-3, 4)],
        "FREQ=WEEKLY": [day + n * 7 * DAY for n in range(-3, 4)],
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=SA,SU": [
            monday + (14 * n + weekend) * DAY for n in range(3) for weekend in (5, 6)
        ],
        f"FREQ=MONTHLY;BYDAY={nth + 1}{name}": monthly(on_weekday(weekday, nth), day, 5),
        f"FREQ=MONTHLY;BYDAY=-1{name}": monthly(on_weekday(weekday, -1), day, 5),
        f"FREQ=MONTHLY;BYMONTHDAY={day.day}": monthly(on_day(day.day), day, 5),
        "FREQ=MONTHLY;BYMONTHDAY=31": monthly(on_day(31), day, 4),
        "FREQ=MONTHLY;BYMONTHDAY=-1": monthly(on_day(-1), day, 5),
    }


def planned(schedule: Schedule, days: list[datetime]) -> list[tuple[datetime, datetime]]:
    """Return all openings of a schedule, and of half a year on both sides of the days, too."""
    since, until = (day.replace(tzinfo=UTC) for day in (min(days), max(days)))
    return openings(schedule, since - 180 * DAY, until + 180 * DAY)


@every_region
def test_a_recurrence_keeps_its_local_time_over_every_clock_change(region: str) -> None:
    lasts = timedelta(minutes=90)
    for name in distinct(region):
        for turn in probes(name):
            at = turn.middle.time()
            for rule, days in rules(turn.middle.date()).items():
                starts = [datetime.combine(day, at) for day in days]
                line = Occurrences(starts[0], lasts, f"{rule};COUNT={len(days)}")
                expected = [span(start, lasts, name) for start in starts]
                assert planned(event(name, line), starts) == expected, (name, rule)


@every_region
def test_starts_are_left_out_and_added_by_their_local_time(region: str) -> None:
    lasts = timedelta(hours=2)
    for name in distinct(region):
        for turn in probes(name):
            weekly = [turn.middle + n * 7 * DAY for n in range(-2, 3)]
            line = Occurrences(weekly[0], lasts, "FREQ=WEEKLY;COUNT=5", exdate=(turn.middle,))
            kept = [start for start in weekly if start != turn.middle]
            expected = [span(start, lasts, name) for start in kept]
            assert planned(event(name, line), weekly) == expected, name
            elsewhere = [start + 3 * DAY for start in weekly]
            first, *rest = elsewhere
            added = Occurrences(first, lasts, "FREQ=DAILY;COUNT=1", rdate=(turn.middle, *rest))
            expected = [span(start, lasts, name) for start in sorted([turn.middle, *elsewhere])]
            assert planned(event(name, added), weekly) == expected, name


@every_region
def test_an_until_is_an_instant_and_takes_in_what_starts_at_it(region: str) -> None:
    lasts = timedelta(minutes=10)
    for name in distinct(region):
        for turn in probes(name):
            starts = [turn.middle + n * DAY for n in range(-2, 3)]
            jump = abs(turn.after - turn.before)
            for later in (timedelta(0), -SECOND, jump / 4, -jump / 4, jump, -jump):
                until = theirs(turn.middle, name) + later
                line = Occurrences(starts[0], lasts, f"FREQ=DAILY;UNTIL={until:%Y%m%dT%H%M%SZ}")
                expected = [
                    span(start, lasts, name) for start in starts if theirs(start, name) <= until
                ]
                assert planned(event(name, line), starts) == expected, (name, later)


@every_region
def test_a_recurrence_without_an_end_goes_on_over_the_clock_change(region: str) -> None:
    lasts = timedelta(hours=30)  # from one evening over the night and the next day
    for name in distinct(region):
        for turn in probes(name):
            evening = turn.middle.replace(hour=20, minute=0, second=0) - 2 * DAY
            line = Occurrences(evening, lasts, "FREQ=WEEKLY")
            starts = [evening + n * 7 * DAY for n in range(5)]
            spans = [span(start, lasts, name) for start in starts]
            schedule = event(name, line)
            assert openings(schedule, spans[0][0], spans[4][1]) == spans, name
            moments = [t for opens, locks in spans for t in (opens, locks)]
            assert edges(schedule, spans[0][0] - SECOND, spans[4][1]) == moments, name


# --- windows


def hours_of(window: Window, days: list[date], name: str) -> list[tuple[datetime, datetime]]:
    """Return when a window holds, for the days on which it begins."""
    later = window.until <= window.start
    spans = [
        (
            theirs(datetime.combine(day, window.start), name),
            theirs(datetime.combine(day + later * DAY, window.until), name),
        )
        for day in days
        if WEEK[day.weekday()] in window.days
    ]
    return [(begin, end) for begin, end in spans if begin < end]


def windows(turn: Turn) -> list[Window]:
    """Return windows that a clock change falls into, begins or ends in, or turns about."""
    first, middle, last = (t.time() for t in (turn.first, turn.middle, turn.last))
    before, after = ((turn.middle + n * timedelta(hours=5)).time() for n in (-1, 1))
    that_day = frozenset({WEEK[turn.middle.weekday()]})
    eve = frozenset({WEEK[(turn.middle - DAY).weekday()]})
    return [
        Window(datetime.min.time().replace(22), datetime.min.time().replace(7), settings=SLOW),
        Window(before, middle, settings=SLOW),
        Window(middle, after, settings=SLOW),
        Window(middle, last, that_day, SLOW),
        Window(first, middle, that_day, SLOW),
        Window(middle, first, eve, SLOW),
        Window(middle, middle, eve, SLOW),
    ]


@every_region
def test_a_window_holds_from_its_start_until_its_end_on_the_clock(region: str) -> None:
    for name in distinct(region):
        for turn in probes(name):
            days = [turn.middle.date() + n * DAY for n in range(-12, 13)]
            since, until = turn.at - 3 * DAY, turn.at + 3 * DAY
            for window in windows(turn):
                schedule = Schedule(ours(name), windows=(window,))
                hours = hours_of(window, days, name)
                moments = sorted({t for span_ in hours for t in span_})
                near = [t for t in moments if since < t <= until]
                why = (name, turn, window)
                assert edges(schedule, since, until) == near, why
                for t in near:
                    for moment in (t - SECOND, t):
                        inside = any(begin <= moment < end for begin, end in hours)
                        wanted = SLOW if inside else FAST
                        assert settings_at(schedule, moment) == wanted, (why, moment)
