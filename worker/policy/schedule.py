"""What a room should be at any instant, and when that changes next.

Intervals are half open: what begins at an instant holds at it, what ends at it does not. How local
times become instants is said in `worker.policy.occurrences`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo

from worker.policy.clocks import clock_changes
from worker.policy.occurrences import SLACK, Dates, Occurrence, Occurrences, dates, instant, started
from worker.policy.overrides import NOTHING, Hold, Overrides
from worker.policy.phases import PHASES, Phase
from worker.policy.settings import Settings, WhoCanPost, managed, over, tighten

DAY = timedelta(days=1)

_over = lru_cache(maxsize=4096)(over)
_tighten = lru_cache(maxsize=4096)(tighten)
"""Rooms are alike: with thousands of them the same few layers are laid on one another."""

LOOKAHEAD = (8 * DAY, 60 * DAY, 400 * DAY, 1600 * DAY)
"""How far a next change is sought, in growing steps: a leap day's yearly event is still found."""


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


@dataclass(frozen=True)
class Schedule:
    """Everything that decides a room's settings over time.

    `occurrences` are the rules file's lines, `dated` what a calendar says; None where the room has
    no calendar. `opens` is before a start and `locks` after an end; `archives` is after the last
    lock, or None for never. `phases` is the seller's word on what a phase sets. A `cancelled` room
    does not open any more. `paced` says that a busy chat may slow the room.
    """

    zone: ZoneInfo
    base: Settings = field(default_factory=Settings)
    windows: tuple[Window, ...] = ()
    occurrences: tuple[Occurrences, ...] = ()
    dated: tuple[Occurrence, ...] | None = None
    opens: timedelta = timedelta(0)
    locks: timedelta = timedelta(0)
    archives: timedelta | None = None
    phases: Mapping[Phase, Settings] = field(default_factory=dict)
    cancelled: bool = False
    paced: bool = False

    @property
    def eventful(self) -> bool:
        """Say whether the room opens and locks; one with a calendar does, though it be empty."""
        return bool(self.occurrences) or self.dated is not None

    @cached_property
    def ground(self) -> Settings:
        """The base over Whop's defaults, for every field that some layer of the room mentions."""
        phases = [self.phase_settings(phase) for phase in Phase] if self.eventful else []
        pace = Settings(user_posts_cooldown_seconds=0) if self.paced else Settings()
        return _ground(self.base, *(window.settings for window in self.windows), *phases, pace)

    def phase_settings(self, phase: Phase) -> Settings:
        """What a phase sets: the seller's word over what Usher does by itself."""
        said = self.phases.get(phase)
        return _over(PHASES[phase], said) if said else PHASES[phase]

    @cached_property
    def dates(self) -> tuple[tuple[Occurrences, Dates], ...]:
        """Each line of occurrences with its dates; parsed once."""
        return tuple((line, dates(line, self.zone)) for line in self.occurrences)

    @cached_property
    def first_opening(self) -> datetime | None:
        """The instant at which the room opens for the first time."""
        firsts = [
            line.at(start, self.zone)
            for line, when in self.dates
            for start in [next(iter(when), None)]
            if start
        ]
        starts = [one.starts for one in (*firsts, *(self.dated or ()))]
        return min(starts) - self.opens if starts else None

    @cached_property
    def last_lock(self) -> datetime | None:
        """The instant of the last lock of all; None while the room goes on for ever."""
        if any(line.endless for line in self.occurrences):
            return None
        fixed = [line.at(start, self.zone) for line, when in self.dates for start in when]
        ends = [one.ends for one in (*fixed, *(self.dated or ()))]
        return max(ends) + self.locks if ends else None

    @property
    def archived_from(self) -> datetime | None:
        """The instant from which the room is archived, if it ever is."""
        if self.archives is None or self.last_lock is None:
            return None
        return self.last_lock + self.archives

    def span(self, one: Occurrence) -> tuple[datetime, datetime]:
        """Return the instants at which the room opens and locks for an occurrence."""
        return one.starts - self.opens, one.ends + self.locks

    def between(self, since: datetime, until: datetime) -> list[Occurrence]:
        """Return the occurrences whose span touches [since, until], in order, each id once."""
        found = {one.id: one for one in self.dated or ()}
        for line, when in self.dates:
            begin = _local(since, self.zone) - SLACK - line.lasts - self.locks
            end = _local(until, self.zone) + SLACK + self.opens
            ones = (line.at(start, self.zone) for start in when.between(begin, end, inc=True))
            found |= {one.id: one for one in ones}
        spans = {one: self.span(one) for one in found.values()}
        touching = [
            one for one, (opens, locks) in spans.items() if opens <= until and locks >= since
        ]
        return sorted(touching, key=lambda one: (one.starts, one.ends, one.id))

    def find(self, id_: str) -> Occurrence | None:
        """Return the occurrence of an id, if it is planned."""
        local = started(id_)
        for line, when in reversed(self.dates) if local else ():
            if local and when.between(local, local, inc=True):
                return line.at(local, self.zone)
        return next((one for one in self.dated or () if one.id == id_), None)

    def next_opening(self, t: datetime) -> datetime | None:
        """Return the first opening after an instant, if any."""
        since = t
        for reach in LOOKAHEAD:
            opens = [self.span(one)[0] for one in self.between(since, t + reach)]
            later = [at for at in opens if at > t]
            if later:
                return min(later)
            since = t + reach
        return None

    def lean(self, pace: Settings) -> "Schedule":
        """Return a schedule that changes when this one does, without what makes no difference.

        `pace` lies on both: it may hide what a window or a phase would change.
        """
        if pace not in self._lean:
            self._lean[pace] = self._without_idle(pace)
        return self._lean[pace]

    @cached_property
    def _lean(self) -> dict[Settings, "Schedule"]:
        """Those that were worked out, by pace: there are as many as a busy chat has steps."""
        return {}

    def _without_idle(self, pace: Settings) -> "Schedule":
        plain = {self.ground}
        if self.eventful:
            live = (phase for phase in Phase if phase is not Phase.ARCHIVED)
            plain = {_over(self.ground, self.phase_settings(phase)) for phase in live}
        bare = {_tighten(settings, pace) for settings in plain}
        windows = tuple(
            window
            for window in self.windows
            if any(_tighten(settings, window.settings) != settings for settings in bare)
        )
        if self.eventful and len(bare) == 1 and self.archives is None:
            base = _tighten(plain.pop(), pace)
            return Schedule(self.zone, base, windows, phases=self.phases, paced=self.paced)
        if len(windows) == len(self.windows):
            return self
        return replace(self, base=self.ground, windows=windows)  # what they name stays named

    def only(self, one: Occurrence, *, cancelled: bool) -> "Schedule":
        """Return the schedule of a room that has one of the occurrences to itself."""
        return replace(self, occurrences=(), dated=(one,), cancelled=cancelled)


@dataclass(frozen=True, slots=True)
class Change:
    """An instant at which a room's settings become something else."""

    at: datetime
    phase: Phase
    settings: Settings


def _local(t: datetime, zone: ZoneInfo) -> datetime:
    return t.astimezone(zone).replace(tzinfo=None)


class Timeline:
    """A stretch of a room's time: its layers laid out once, then asked at any instant in it."""

    def __init__(
        self,
        schedule: Schedule,
        since: datetime,
        until: datetime,
        overrides: Overrides = NOTHING,
    ) -> None:
        self._schedule = schedule
        self._overrides = overrides
        self.archived_from = schedule.archived_from
        self.since = since
        self.until = until
        self.occurrences = schedule.between(since, until) if not schedule.cancelled else []
        self.openings = [schedule.span(one) for one in self.occurrences]
        self.hours = [
            (begin, end, window)
            for window in schedule.windows
            for begin, end in _hours(window, schedule.zone, since, until)
        ]

    def phase(self, t: datetime) -> Phase:
        """Return the phase at an instant: a person's word, or what the occurrences say.

        Between two occurrences of one room the phase is `locked`; `before` is only ahead of the
        first.
        """
        holds = self._overrides.holds_at(t) if self._overrides.holds else []
        said = [hold.phase for hold in holds if hold.phase]
        if said:
            return said[-1]
        if not self._schedule.eventful:
            return Phase.OPEN
        if any(opens <= t < locks for opens, locks in self.openings):
            return Phase.OPEN
        archived, first = self.archived_from, self._schedule.first_opening
        if archived is not None and t >= archived:
            return Phase.ARCHIVED
        ahead = first is None or t < first
        return Phase.BEFORE if ahead and not self._schedule.cancelled else Phase.LOCKED

    def settings(self, t: datetime) -> Settings:
        """Return what the channel should be: the plan, what tightens it, what beats it."""
        settings, phase = self._schedule.ground, self.phase(t)
        if self._schedule.eventful:
            settings = _over(settings, self._schedule.phase_settings(phase))
        for begin, end, window in self.hours:
            if begin <= t < end and phase is not Phase.ARCHIVED:
                settings = _tighten(settings, window.settings)
        if self._overrides is NOTHING:
            return settings
        settings = tighten(settings, self._overrides.pace)
        edit = self._overrides.edit
        if edit and edit.holds_at(t):
            settings = over(settings, edit.settings)
        holds = self._overrides.holds_at(t)
        decides = next((hold for hold in reversed(holds) if hold.phase), None)
        for hold in holds:
            rights = self._rights(hold) if hold is decides else Settings()
            settings = hold.laid_on(over(settings, rights))
        return settings

    def _rights(self, hold: Hold) -> Settings:
        """Return who may write, and react, in a room that a person opened or locked."""
        if hold.phase is None:
            return Settings()
        said = self._schedule.phase_settings(hold.phase)
        if hold.phase is not Phase.OPEN:
            return Settings(who_can_post=said.who_can_post, who_can_react=said.who_can_react)
        return Settings(
            who_can_post=said.who_can_post or WhoCanPost.EVERYONE, who_can_react=said.who_can_react
        )

    def edges(self) -> list[datetime]:
        """Return every instant in (since, until] at which a layer of the room begins or ends."""
        found = {t for span in self.openings for t in span}
        found.update(t for begin, end, _ in self.hours for t in (begin, end))
        found.update(self._overrides.edges())
        if self.archived_from is not None:
            found.add(self.archived_from)
        return sorted(t for t in found if self.since < t <= self.until)

    def changes(self) -> Iterator[Change]:
        """Yield each instant in (since, until] at which the settings become other ones."""
        before = self.settings(self.since)
        for edge in self.edges():
            settings = self.settings(edge)
            if settings != before:
                yield Change(edge, self.phase(edge), settings)
                before = settings


def openings(
    schedule: Schedule, since: datetime, until: datetime
) -> list[tuple[datetime, datetime]]:
    """Return when the room opens and locks, for each occurrence that touches [since, until]."""
    return sorted(schedule.span(one) for one in schedule.between(since, until))


def phase_at(schedule: Schedule, t: datetime, overrides: Overrides = NOTHING) -> Phase:
    """Return the phase at an instant."""
    return Timeline(schedule, t, t, overrides).phase(t)


def settings_at(schedule: Schedule, t: datetime, overrides: Overrides = NOTHING) -> Settings:
    """Return what the channel should be at an instant."""
    return Timeline(schedule, t, t, overrides).settings(t)


def edges(schedule: Schedule, since: datetime, until: datetime) -> list[datetime]:
    """Return every instant in (since, until] at which a layer of the room begins or ends."""
    return Timeline(schedule, since, until).edges()


def next_change(schedule: Schedule, t: datetime, overrides: Overrides = NOTHING) -> Change | None:
    """Return the next instant after `t` at which the settings differ from those at `t`, if any."""
    return _first_change(schedule, t, t + LOOKAHEAD[-1], overrides)


def changed(schedule: Schedule, since: datetime, until: datetime) -> bool:
    """Say whether the settings became other ones within (since, until]."""
    return _first_change(schedule, since, until, NOTHING) is not None


def _first_change(
    schedule: Schedule, since: datetime, until: datetime, overrides: Overrides
) -> Change | None:
    lean = schedule.lean(overrides.pace)
    for begin, end in _stretches(lean, since, until, overrides):
        change = next(Timeline(lean, begin, end, overrides).changes(), None)
        if change:
            return replace(change, phase=phase_at(schedule, change.at, overrides))
    return None


def _stretches(
    lean: Schedule, t: datetime, until: datetime, overrides: Overrides
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the stretches of (t, until], in order, in which the settings may change.

    Hours of the week that change nothing in a week change nothing until something else begins or
    ends, or the clocks change: the days in between are not gone through.
    """
    since = t
    for reach in LOOKAHEAD:
        end = min(t + reach, until)
        if since >= end:
            return
        if since == t or not lean.windows:
            yield since, end
        else:
            yield from _lively(lean, since, end, overrides)
        since = end


def _lively(
    lean: Schedule, since: datetime, until: datetime, overrides: Overrides
) -> Iterator[tuple[datetime, datetime]]:
    """Yield what of (since, until] lies about a clock change, or in the week after an edge."""
    early = since - LOOKAHEAD[0]
    edges = Timeline(replace(lean, windows=()), early, until, overrides).edges()
    spans = [(edge - DAY, edge + LOOKAHEAD[0]) for edge in edges]
    for year in range(early.year, until.year + 1):
        begin, end = (datetime(y, 1, 1, tzinfo=UTC) for y in (year, year + 1))
        jumps = clock_changes(lean.zone, begin, end)
        spans += [(jump.at - SLACK, jump.at + SLACK) for jump in jumps]
    reached = since
    for begin, end in sorted(spans):
        if max(begin, reached) < min(end, until):
            yield max(begin, reached), min(end, until)
            reached = min(end, until)


def changes_after(schedule: Schedule, t: datetime) -> Iterator[Change]:
    """Yield the changes after an instant, one after the other."""
    change = next_change(schedule, t)
    while change is not None:
        yield change
        change = next_change(schedule, change.at)


def _hours(
    window: Window, zone: ZoneInfo, since: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the intervals of a window that may touch [since, until]."""
    first = since.astimezone(zone).date() - SLACK
    last = until.astimezone(zone).date() + DAY
    for day in _days(window.days, first, last):
        begin, end = hours_of(day, window.start, window.until, zone)
        if begin < end and begin <= until and end > since:
            yield begin, end


@lru_cache(maxsize=1024)
def _days(weekdays: frozenset[Weekday], first: date, last: date) -> tuple[date, ...]:
    every = (first + n * DAY for n in range((last - first).days + 1))
    return tuple(day for day in every if WEEK[day.weekday()] in weekdays)


@lru_cache(maxsize=4096)
def _ground(base: Settings, *layers: Settings) -> Settings:
    return over(managed((base, *layers)), base)


@lru_cache(maxsize=65_536)
def hours_of(day: date, start: time, until: time, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the interval of a window on a day; rooms share their hours, and so the answer."""
    later = DAY if until <= start else timedelta(0)
    return (
        instant(datetime.combine(day, start), zone),
        instant(datetime.combine(day + later, until), zone),
    )
