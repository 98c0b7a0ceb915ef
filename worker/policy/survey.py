"""What `usher survey ROOM` proposes: numbers for a busy chat, from the minutes that were recorded.

The proposal is tried on the same minutes before it is shown. What they cannot show is how members
would have written less, had the room been slower: so a room changes less often than is said here.
"""

import calendar
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from worker.policy.pace import SILENCE, WINDOW, Minute, Pace, Reading, State, step

LEAST: Final = 60
"""Minutes with a message below which nothing is proposed."""

LADDER: Final = (10, 30, 60, 120, 300)
"""The cooldowns to choose steps from, in seconds; at least three of them are proposed."""

SLOWEST_BUSY: Final = 10
"""The least `busy` that is proposed: in a chat with fewer messages nobody loses the thread."""

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Rates:
    """Messages a minute, over the minutes that had any: of half of them, and so on up to all."""

    half: int
    nine_of_ten: int
    ninety_nine_of_hundred: int
    most: int


@dataclass(frozen=True, slots=True)
class Busiest:
    """The hour of the week, in the room's zone, with the most messages a minute on average.

    `weekday` counts from Monday, 0.
    """

    weekday: int
    hour: int
    rate: float


@dataclass(frozen=True, slots=True)
class Taken:
    """How often a step would have been taken, and how long the room would have stayed on it."""

    seconds: int
    times: int
    lasted: timedelta


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was seen, and what follows from it; without a `pace` too little was seen.

    `since` is the first minute with a message, `minutes` the number of such minutes; `changes` are
    the ones that the proposed pace would have made.
    """

    since: datetime | None
    until: datetime
    minutes: int
    rates: Rates | None = None
    busiest: Busiest | None = None
    pace: Pace | None = None
    taken: tuple[Taken, ...] = ()
    changes: int = 0


def propose(history: Mapping[datetime, Minute], zone: ZoneInfo, now: datetime) -> Proposal:
    """Propose a pace from the minutes with a message, by their start."""
    minutes = {at: minute for at, minute in sorted(history.items()) if minute.voices}
    since = next(iter(minutes), None)
    if since is None or len(minutes) < LEAST:
        return Proposal(since, now, len(minutes))
    rates = _rates(minutes)
    pace = _pace(minutes, rates)
    played = replay(pace, minutes)
    return Proposal(
        since=since,
        until=now,
        minutes=len(minutes),
        rates=rates,
        busiest=_busiest(minutes, zone, since, now),
        pace=pace,
        taken=_taken(pace, played, now),
        changes=len(played),
    )


def replay(pace: Pace, history: Mapping[datetime, Minute]) -> list[tuple[datetime, int]]:
    """Return the changes that a pace would have made, each with the level after it."""
    changes: list[tuple[datetime, int]] = []
    state, at, last = State(), min(history), max(history)
    while at <= last or state.level:
        if state.level or at in history:
            reading = Reading(
                tuple(history.get(at - back * WINDOW, Minute()) for back in range(SILENCE))
            )
            before, now = state.level, at + WINDOW
            state, _ = step(pace, state, reading, now)
            if state.level != before:
                changes.append((now, state.level))
        at += WINDOW
    return changes


def render(room: str, proposal: Proposal) -> list[str]:
    """Return a proposal as lines for people, the last of them to be pasted into the rules."""
    head = f"{room}: {_seen(proposal)}"
    if proposal.rates is None or proposal.busiest is None or proposal.pace is None:
        return [head, *_too_little(proposal)]
    rates, busiest, pace = proposal.rates, proposal.busiest, proposal.pace
    hour = f"{calendar.day_name[busiest.weekday]} {busiest.hour:02}:00"
    return [
        head,
        "Messages a minute, of one member's one in ten seconds, where there were any:",
        f"  half of these minutes had up to {rates.half}, 90 % up to {rates.nine_of_ten},",
        f"  99 % up to {rates.ninety_nine_of_hundred}, the busiest {rates.most}",
        f"  the busiest hour of the week: {hour}, {busiest.rate:.1f} on average",
        f"With the numbers below the room would have changed {_times(proposal.changes)}:",
        *(
            f"  {taken.seconds} s between two messages of a member: {_times(taken.times)}, "
            f"{_spoken(taken.lasted)} in all"
            for taken in proposal.taken
        ),
        "Into the rules:",
        f"[rooms.{room}.slow]",
        f"busy = {pace.busy}",
        f"quiet = {pace.quiet}",
        f"steps = [{', '.join(map(str, pace.steps))}]",
    ]


def _rates(minutes: Mapping[datetime, Minute]) -> Rates:
    voices = sorted(minute.voices for minute in minutes.values())

    def of(hundredths: int) -> int:
        return voices[-(-len(voices) * hundredths // 100) - 1]

    return Rates(of(50), of(90), of(99), voices[-1])


def _pace(minutes: Mapping[datetime, Minute], rates: Rates) -> Pace:
    """Return a pace that one minute in a hundred is too busy for, and half of them are quiet for.

    The ceiling is where as many members as ever wrote in so busy a minute, each as often as they
    may, are no longer busy.
    """
    busy = max(SLOWEST_BUSY, rates.ninety_nine_of_hundred, 2 * (rates.half + 1))
    crowd = max((minute.senders for minute in minutes.values() if minute.voices >= busy), default=0)
    short = sum(1 for seconds in LADDER if seconds * busy < 60 * crowd)
    return Pace(busy=busy, quiet=busy // 2, steps=LADDER[: max(3, short + 1)])


def _busiest(
    minutes: Mapping[datetime, Minute], zone: ZoneInfo, since: datetime, now: datetime
) -> Busiest:
    voices: Counter[tuple[int, int]] = Counter()
    hours: Counter[tuple[int, int]] = Counter()
    for at, minute in minutes.items():
        voices[_hour_of_week(at, zone)] += minute.voices
    at = since
    while at <= max(now, since):
        hours[_hour_of_week(at, zone)] += 1
        at += _HOUR
    (weekday, hour), rate = max(
        ((when, total / (60 * max(1, hours[when]))) for when, total in voices.items()),
        key=lambda found: (found[1], found[0]),
    )
    return Busiest(weekday, hour, rate)


def _hour_of_week(at: datetime, zone: ZoneInfo) -> tuple[int, int]:
    local = at.astimezone(zone)
    return local.weekday(), local.hour


def _taken(pace: Pace, played: list[tuple[datetime, int]], now: datetime) -> tuple[Taken, ...]:
    times: Counter[int] = Counter(level for _, level in played)
    lasted: dict[int, timedelta] = {}
    for (at, level), (until, _) in pairwise([*played, (now, 0)]):
        lasted[level] = lasted.get(level, timedelta(0)) + (until - at)
    return tuple(
        Taken(seconds, times[level], lasted.get(level, timedelta(0)))
        for level, seconds in enumerate(pace.steps, start=1)
    )


def _seen(proposal: Proposal) -> str:
    if proposal.since is None:
        return "no message was counted in the last two weeks"
    days = -(-(proposal.until - proposal.since) // _DAY)
    span = "a day" if days <= 1 else f"{days} days"
    minutes = "1 minute" if proposal.minutes == 1 else f"{proposal.minutes} minutes"
    return f"{minutes} with messages in {span}, since {proposal.since:%Y-%m-%d %H:%M} UTC"


def _too_little(proposal: Proposal) -> list[str]:
    if not proposal.minutes:
        return ["Does the webhook send chat.message.created? Is the room's chat in use?"]
    return [f"That is too little to propose numbers from: it takes {LEAST}. Ask again later."]


def _times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")


def _spoken(length: timedelta) -> str:
    minutes = length // WINDOW
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004 - two hours read better as hours
