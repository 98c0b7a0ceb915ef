"""What is wrong with a room's plan, though every key of it may be right."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from worker.policy.clocks import ClockChange, spoken
from worker.policy.messages import When
from worker.policy.occurrences import label
from worker.policy.overrides import Overrides
from worker.policy.phases import Phase
from worker.policy.rooms import LEAD, Room
from worker.policy.schedule import DAY, WEEK, Schedule, Timeline, Window, hours_of
from worker.policy.settings import Settings, WhoCanPost, over, tighten

NO_TIME: Final = timedelta(0)


class Trouble(StrEnum):
    """The kinds of conflicts."""

    OVERLAP = "overlap"
    WINDOW_NEVER_HOLDS = "window_never_holds"
    WINDOW_SKIPPED = "window_skipped"
    ARCHIVED_TOO_EARLY = "archived_too_early"
    NEVER_ARCHIVED = "never_archived"
    MESSAGE_OUT_OF_PLACE = "message_out_of_place"
    NOTHING_AHEAD = "nothing_ahead"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Something that a seller wants to know of a room; `at` are the instants of it, if any."""

    kind: Trouble
    room: str
    text: str
    at: tuple[datetime, ...] = ()


def of_rules(room: Room, since: datetime, jumps: Iterable[ClockChange]) -> Iterator[Conflict]:
    """Yield what is wrong with a room's rules at an instant, and at the clock changes after it."""
    schedule = room.schedule
    yield from _windows(room.key, schedule)
    yield from _skipped(room.key, schedule, jumps)
    yield from _messages(room)
    if not schedule.eventful:
        return
    endless = any(line.endless for line in schedule.occurrences)
    if endless and schedule.archives is not None and room.one_room_per == "series":
        why = "archives is set, but its occurrences go on for ever: it is never archived"
        yield Conflict(Trouble.NEVER_ARCHIVED, room.key, why)
    last = schedule.last_lock
    if not endless and (last is None or last <= since):
        yield Conflict(Trouble.NOTHING_AHEAD, room.key, _over(schedule), (last,) if last else ())


def of_part(room: Room, key: str, timeline: Timeline, overrides: Overrides) -> Iterator[Conflict]:
    """Yield what is wrong with one room, as it exists on Whop, in a stretch of its time."""
    if timeline.openings:
        yield from _overlaps(key, room.schedule.zone, timeline)
        yield from _early_messages(room, key, timeline)
    yield from _archived_early(room, key, timeline, overrides)


def _over(schedule: Schedule) -> str:
    if schedule.last_lock is None:
        return "has no occurrence at all: its calendar holds none, or was not read yet"
    last = _when(schedule.last_lock, schedule.zone)
    return f"all its occurrences are over: the last one locked {last}"


def _when(t: datetime, zone: ZoneInfo) -> str:
    return f"{t.astimezone(zone):%a %-d %b %Y %H:%M %Z}"


# --- windows


def _windows(key: str, schedule: Schedule) -> Iterator[Conflict]:
    for n, window in enumerate(schedule.windows):
        why = _idle(window, schedule)
        why = why or _hidden(window, schedule.windows[:n], schedule.windows[n + 1 :])
        if why:
            text = f"windows[{n}], {_hours(window)}, {why}"
            yield Conflict(Trouble.WINDOW_NEVER_HOLDS, key, text)


def _idle(window: Window, schedule: Schedule) -> str | None:
    """Say why a window changes nothing whatever the time is, if so."""
    if not window.days:
        return "has no days: it never holds"
    phases = tuple(Phase) if schedule.eventful else ()
    return _vain(
        window.settings, schedule.ground, *(schedule.phase_settings(phase) for phase in phases)
    )


@lru_cache(maxsize=4096)
def _vain(settings: Settings, ground: Settings, *phases: Settings) -> str | None:
    """Say why settings change nothing that anybody feels, in any of the phases, if so."""
    grounds = [over(ground, phase) for phase in phases] or [ground]
    pairs = [(one, tighten(one, settings)) for one in grounds]
    if all(one == tighter for one, tighter in pairs):
        return "tightens nothing: the room is as tight all the time"
    if all(_unseen(one, tighter) for one, tighter in pairs):
        return "is never felt: only the team may write in this room at any time"
    return None


def _unseen(ground: Settings, tighter: Settings) -> bool:
    nobody = ground.who_can_post is WhoCanPost.ADMINS
    return nobody and ground.who_can_react == tighter.who_can_react


def _hidden(window: Window, earlier: Sequence[Window], later: Sequence[Window]) -> str | None:
    """Say which other window has all of the hours and is as tight; of two alike, the earlier."""
    for other in (*earlier, *(one for one in later if not _hides(window, one))):
        if _hides(other, window):
            return f"adds nothing to the window {_hours(other)}"
    return None


def _hides(wide: Window, narrow: Window) -> bool:
    as_tight = tighten(wide.settings, narrow.settings) == wide.settings
    return as_tight and _covers(wide, narrow)


def _covers(wide: Window, narrow: Window) -> bool:
    begins, ends = _minutes(wide)
    first, last = _minutes(narrow)
    return narrow.days <= wide.days and begins <= first and last <= ends


def _minutes(window: Window) -> tuple[float, float]:
    begin, end = (t.hour * 60 + t.minute + t.second / 60 for t in (window.start, window.until))
    return begin, end if end > begin else end + 24 * 60


def _hours(window: Window) -> str:
    return f"{window.start:%H:%M}-{window.until:%H:%M}"


def _skipped(key: str, schedule: Schedule, jumps: Iterable[ClockChange]) -> Iterator[Conflict]:
    for jump in jumps:
        for window in schedule.windows:
            for day in (jump.before.date() - DAY, jump.before.date()):
                begin, end = hours_of(day, window.start, window.until, schedule.zone)
                if begin >= end and WEEK[day.weekday()] in window.days:
                    text = f"the window {_hours(window)} does not hold on {day:%a %-d %b}"
                    why = f"{text}: {jump.words}"
                    yield Conflict(Trouble.WINDOW_SKIPPED, key, why, (jump.at,))


# --- occurrences, messages and the archive


def _overlaps(key: str, zone: ZoneInfo, timeline: Timeline) -> Iterator[Conflict]:
    """Yield each occurrence that opens a room which is still open for one before it."""
    spans = sorted(zip(timeline.openings, timeline.occurrences, strict=True), key=lambda s: s[0][0])
    (_, locks), one = spans[0]
    for (opens, its_locks), other in spans[1:]:
        if opens < locks:
            if other.starts < one.ends:
                what = f"{label(other, zone)} starts {_when(other.starts, zone)}"
                what += f", before {label(one, zone)} ends"
            else:
                stays = f"the room stays open from {label(one, zone)} to {label(other, zone)}"
                what = f"only the time before and after them overlaps: {stays}"
            first = f"the second opens {_when(opens, zone)}"
            text = f"{what}; {first}, the first would lock {_when(locks, zone)}"
            yield Conflict(Trouble.OVERLAP, key, text, (opens, locks))
        if its_locks > locks:
            locks, one = its_locks, other


def _messages(room: Room) -> Iterator[Conflict]:
    kind, lead = Trouble.MESSAGE_OUT_OF_PLACE, LEAD if room.lead is None else room.lead
    if room.messages and not room.schedule.eventful:
        yield Conflict(kind, room.key, "its messages are never written: it has no occurrences")
    for n, message in enumerate(room.messages):
        ahead = room.one_room_per == "occurrence" and message.when is When.BEFORE
        if ahead and message.ahead > lead:
            text = f"messages[{n}] should be written {_long(message.ahead)} before an opening, but"
            why = f"{text} the room is made {_long(lead)} before it: it is written then"
            yield Conflict(kind, room.key, why)
        if message.when is When.LOCK and room.schedule.archives == NO_TIME:
            why = f"messages[{n}] is written at the lock, and the room is archived in that instant"
            yield Conflict(kind, room.key, why)


def _long(length: timedelta) -> str:
    days, rest = divmod(length, DAY)
    said = ([f"{days} days" if days > 1 else "a day"] if days else []) + spoken(rest)
    return " ".join(said) or "nothing"


def _early_messages(room: Room, key: str, timeline: Timeline) -> Iterator[Conflict]:
    """Yield the messages ahead of an opening that come while the room is still open."""
    for n, message in enumerate(room.messages):
        if message.when is not When.BEFORE:
            continue
        for (_, locks), (opens, _) in pairwise(timeline.openings):
            at = opens - message.ahead
            if at < locks <= opens:
                zone = room.schedule.zone
                text = f"messages[{n}], ahead of the opening {_when(opens, zone)}, is written"
                why = f"{text} {_when(at, zone)}, while the room is open for the one before"
                yield Conflict(Trouble.MESSAGE_OUT_OF_PLACE, key, why, (at, locks))


def _archived_early(
    room: Room, key: str, timeline: Timeline, overrides: Overrides
) -> Iterator[Conflict]:
    archived, zone = timeline.archived_from, room.schedule.zone
    if archived is None:
        return
    open_until = [(locks, "the plan") for _, locks in timeline.openings]
    open_until += [
        (hold.until, hold.who)
        for hold in overrides.holds
        if hold.phase is Phase.OPEN and hold.since < archived
    ]
    for locks, who in open_until:
        if locks > archived and timeline.since < archived < timeline.until:
            text = f"it is archived {_when(archived, zone)}, but {who} would have it open"
            why = f"{text} until {_when(locks, zone)}"
            yield Conflict(Trouble.ARCHIVED_TOO_EARLY, key, why, (archived, locks))
