"""What a simulation came to: figures that are the same for the same seed."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from worker.policy.rooms import Room
from worker.sandbox.state import LocalWhop
from worker.simulate.laws import Breach
from worker.simulate.turns import Count
from worker.simulate.wire import Worst
from worker.simulate.world import Setting, World

DAY: Final = timedelta(days=1)
TURN: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Seats:
    """Who sits where: of a cohort room, or of an event room that says how many may be sold.

    `rooms` counts the cohorts, `most` is the fullest of them; `seats` are those of one.
    """

    room: str
    seats: int | None
    rooms: int
    members: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything that is reported of a simulation. Counters name what they count in words."""

    setting: Setting
    bought: Counter[str]
    troubles: Counter[str]
    outages: tuple[tuple[datetime, timedelta], ...]
    clock_changes: tuple[tuple[str, datetime], ...]
    turns: dict[str, Count]
    seats: tuple[Seats, ...]
    granted: int
    revoked: int
    calls: Counter[str]
    worst: Worst | None
    deliveries: int
    jobs: int
    starts: int
    killed: int
    given_up: dict[str, str]
    warnings: Counter[str]
    breaches: tuple[Breach, ...]


async def figures(world: World, warnings: Counter[str]) -> Figures:
    """Read the figures of a world that has lived."""
    crew, troubles, whop = world.crew, world.troubles, world.whop
    ours = [one for one in whop.tables.products.values() if one.visibility == "hidden"]
    grants = [held for one in ours for held in whop.index.by_product[one.id]]
    return Figures(
        setting=world.setting,
        bought=world.buyers.counts,
        troubles=troubles.counts,
        outages=tuple(troubles.outages),
        clock_changes=tuple(clock_changes(world.setting)),
        turns=world.judge.turns.counts,
        seats=tuple(_seats(world)),
        granted=len(grants),
        revoked=sum(held.ended for held in grants),
        calls=crew.quota.calls,
        worst=crew.quota.worst,
        deliveries=world.courier.answers.total(),
        jobs=crew.jobs,
        starts=crew.starts,
        killed=crew.deaths,
        given_up=await crew.dead(),
        warnings=warnings,
        breaches=tuple(world.judge.breaches),
    )


def clock_changes(setting: Setting) -> Iterator[tuple[str, datetime]]:
    """Yield the instants, in UTC, at which the clocks of the rooms' zones change."""
    for zone in sorted({room.schedule.zone for room in setting.rules.rooms}, key=str):
        for n in range(setting.days):
            day = setting.start + n * DAY
            if _offset(day, zone) != _offset(day + DAY, zone):
                yield str(zone), _change(day, zone)


def _offset(t: datetime, zone: ZoneInfo) -> timedelta | None:
    return t.astimezone(zone).utcoffset()


def _change(day: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant, to the second, within a day at which the clock changes."""
    early, late = day, day + DAY
    while late - early > TURN:
        middle = early + (late - early) / 2
        same = _offset(middle, zone) == _offset(day, zone)
        early, late = (middle, late) if same else (early, middle)
    return late.replace(microsecond=0)


def _seats(world: World) -> Iterator[Seats]:
    for room in world.setting.rules.rooms:
        if room.cohort:
            rooms = list(world.judge.standings.of(room))
            users = [{held.user_id for held in world.judge.standings.sold(one)} for one in rooms]
            sizes = [len(one) for one in users]
            seats = room.cohort.seats or None
            yield Seats(room.key, seats, len(rooms), sum(sizes), max(sizes, default=0))
        elif room.seats is not None:
            sold = _sold(world.whop, room)
            yield Seats(room.key, room.seats, 1, sold, sold)


def _sold(whop: LocalWhop, room: Room) -> int:
    """Return how many members hold an event room's plan, or any of its products."""
    if room.plan:
        held = whop.index.by_plan[room.plan]
    else:
        held = [one for product in room.products for one in whop.index.by_product[product]]
    return len({one.user_id for one in held if one.entitled})
