"""Clock changes of a zone, and the local times that they skip or repeat."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from worker.policy.occurrences import instant

SECOND: Final = timedelta(seconds=1)
STEP: Final = timedelta(hours=12)
"""How far apart the offsets are compared: no zone changes its clock twice in half a day."""


@dataclass(frozen=True, slots=True)
class ClockChange:
    """The instant at which a zone's clock jumps, and what it shows: `before` becomes `after`."""

    at: datetime
    zone: ZoneInfo
    before: datetime
    after: datetime

    @property
    def jump(self) -> timedelta:
        """How far the clock goes forward; negative where it goes back."""
        return self.after - self.before

    @property
    def words(self) -> str:
        """Say what the clocks do, as `clocks go forward an hour: 02:00 -> 03:00`."""
        way = "forward" if self.jump > timedelta(0) else "back"
        far = " ".join([way, *spoken(abs(self.jump))])
        return f"clocks go {far}: {_beside(self.before, self.after)}"


def spoken(length: timedelta) -> list[str]:
    """Return a length in words: an hour, half an hour, 24 hours, 20 minutes."""
    minutes = length // timedelta(minutes=1)
    if minutes in {60, 30}:
        return ["an hour" if minutes == 60 else "half an hour"]  # noqa: PLR2004 - minutes of an hour
    hours, rest = divmod(minutes, 60)
    return [f"{hours} hours"] * bool(hours) + [f"{rest} minutes"] * bool(rest)


def _beside(one: datetime, other: datetime) -> str:
    days = "%a " if one.date() != other.date() else ""
    return f"{one:{days}%H:%M} -> {other:{days}%H:%M}"


@lru_cache(maxsize=1024)
def clock_changes(zone: ZoneInfo, since: datetime, until: datetime) -> tuple[ClockChange, ...]:
    """Return the clock changes of a zone in [since, until), in order."""
    found = []
    early = since.replace(microsecond=0) - SECOND
    while early < until:
        late = early + STEP
        if _offset(early, zone) != _offset(late, zone):
            at = _first_after(early, late, zone)
            if since <= at < until:
                before, after = (at + _offset(t, zone) for t in (at - SECOND, at))
                found.append(
                    ClockChange(at, zone, before.replace(tzinfo=None), after.replace(tzinfo=None))
                )
        early = late
    return tuple(found)


def _first_after(early: datetime, late: datetime, zone: ZoneInfo) -> datetime:
    """Return the first second at which the offset is no longer that of `early`."""
    old = _offset(early, zone)
    while late - early > SECOND:
        middle = early + (late - early) // SECOND // 2 * SECOND
        early, late = (middle, late) if _offset(middle, zone) == old else (early, middle)
    return late


def _offset(t: datetime, zone: ZoneInfo) -> timedelta:
    return t.astimezone(zone).utcoffset() or timedelta(0)


def odd_time(local: datetime, zone: ZoneInfo) -> str | None:
    """Say what becomes of a local time that a clock change skips or repeats; None for all others.

    The rule is that of `worker.policy.occurrences`.
    """
    first, second = (local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    if first is None or second is None or first == second:
        return None
    if first > second:
        return f"{local:%H:%M} comes twice that night; the first is meant"
    real = instant(local, zone).astimezone(zone)
    day = "%H:%M" if real.date() == local.date() else "%H:%M on %a %-d %b"
    return f"{local:%H:%M} is skipped that night; it happens at {real:{day}}"
