"""What `usher plan` shows: everything that will happen, as text, as JSON and as a drawing."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from worker.policy import refunds
from worker.policy.calls import Load
from worker.policy.clocks import ClockChange
from worker.policy.conflicts import Conflict
from worker.policy.occurrences import Occurrence
from worker.policy.overrides import Overrides
from worker.policy.plan import Entry, Kind, Plan, plan
from worker.policy.rooms import Room, split
from worker.rules import Rules
from worker.words import counted, local, words

SHOWN: Final = 60
"""Characters of a message that are shown."""


class UnknownRoom(Exception):
    """The rules have no room of this key; the message names those that they have."""


class Unwritable(Exception):
    """The drawing cannot be written where it should; the message says why."""


def show(
    rules: Rules,
    *,
    since: datetime,
    days: int,
    room: str | None,
    as_json: bool,
    svg: Path | None,
    overrides: Mapping[str, Overrides],
    exist: Mapping[str, Occurrence | None] | None = None,
    said: Mapping[str, str] | None = None,
    printed: datetime | None = None,
) -> None:
    """Print what happens in so many days from `since` on, and draw it where `svg` says.

    `room` is a key of the rules, or of one of its rooms as they exist (`ama/2026-12-03T1800`);
    `exist` are those that do, where that is known, each with the date that it was made for.
    `said` is what is to be said of rooms whose key became another. `printed` is the date of
    printing that stands on the drawing: `since`, unless it is said.

    Raises:
        UnknownRoom: the rules have no room of that key.
        Unwritable: the drawing cannot be written.
    """
    exist = exist or {}
    rooms = _chosen(rules, room, exist)
    until, only = since + timedelta(days=days), room if room and split(room)[1] else None
    found = plan(rooms, since, until, only=only, overrides=overrides, exist=exist)
    if as_json:
        sys.stdout.buffer.write(
            msgspec.json.format(msgspec.json.encode(document(found, rooms, said))) + b"\n"
        )
    else:
        notes = [f"{key}: {why}" for key, why in (said or {}).items()]
        sys.stdout.write("".join(f"{line}\n" for line in (*notes, *lines(rooms, found))))
    if svg:
        _draw(svg, rules, rooms, found, printed or since)


def _chosen(
    rules: Rules, key: str | None, exist: Mapping[str, Occurrence | None]
) -> Sequence[Room]:
    if key is None:
        return rules.rooms
    name, part = split(key)
    room = rules.room(name)
    planned = room and part and room.one_room_per == "occurrence" and room.schedule.find(part)
    if room and part and not planned and key not in exist:
        why = f"the plan knows {name!r}, but nothing of {part!r} by itself; ask for --room {name}"
        raise UnknownRoom(why)
    if room is None:
        known = ", ".join(room.key for room in rules.rooms[:SHOWN])
        more = f" and {len(rules.rooms) - SHOWN} more" if len(rules.rooms) > SHOWN else ""
        raise UnknownRoom(f"the rules have no room {key!r}; they have {known}{more}")
    return [room]


def _draw(path: Path, rules: Rules, rooms: Sequence[Room], found: Plan, printed: datetime) -> None:
    from worker.commands import timeline_svg  # noqa: PLC0415 - only who asks for a drawing pays for XML

    text = timeline_svg.drawing(rules.account, rooms, found, page_zone(rooms), printed)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unwritable(f"{path} cannot be written: {error.strerror}") from error


def page_zone(rooms: Iterable[Room]) -> ZoneInfo:
    """Return the zone of most rooms: the days of a plan are its days."""
    return Counter(room.schedule.zone for room in rooms).most_common(1)[0][0]


# --- as text


def lines(rooms: Sequence[Room], found: Plan) -> Iterator[str]:
    """Yield a plan line by line: its days, what is wrong with it, and what it asks of Whop."""
    zone = page_zone(rooms)
    yield f"From {local(found.since, zone)} to {local(found.until, zone)}"
    if len({room.schedule.zone for room in rooms}) > 1:
        yield f"Each line has the room's own time; the days are those of {zone}."
    yield ""
    yield from _days(found, zone)
    if found.conflicts:
        yield f"{counted(len(found.conflicts), 'conflict')}:"
        yield from (f"  {conflict.room}: {conflict.text}" for conflict in found.conflicts)
        yield ""
    ends = [room for room in rooms if refunds.cancels(room)]
    if ends:
        yield "Besides, whenever it happens, buyers:"
        yield from (f"  {room.key}: {refunds.in_words(room)}" for room in ends)
        yield ""
    yield from _calls(found, zone)


def _days(found: Plan, zone: ZoneInfo) -> Iterator[str]:
    """Yield what happens, day by day: clock changes before all else of their instant."""
    rows: Sequence[ClockChange | Entry] = found.entries
    if found.clock_changes:
        rows = sorted([*found.clock_changes, *found.entries], key=attrgetter("at"))
    if not rows:
        yield from ("Nothing happens by itself.", "")
    width = max((len(entry.room) for entry in found.entries), default=0)
    for day, of_day in groupby(rows, key=lambda row: row.at.astimezone(zone).date()):
        yield f"{day:%A %-d %B %Y}"
        for row in of_day:
            times = f"  {_time(row.at.astimezone(row.zone), day):15} {_time(row.at, day):13}"
            yield f"{times} {_happens(row, width)}"
        yield ""


def _time(t: datetime, day: date) -> str:
    """Write a time, with the weekday where it is another day than the page's."""
    seconds = f":{t.second:02}" if t.second else ""
    text = f"{t.hour:02}:{t.minute:02}{seconds} {t.tzname()}"
    return text if t.date() == day else f"{t:%a} {text}"


def _happens(row: ClockChange | Entry, width: int) -> str:
    if isinstance(row, ClockChange):
        return f"{row.zone}: {row.words}"
    text = f"{row.room:{width}}  {_NAMES[row.kind]}  {_about(row)}"
    if row.changes:
        text += f"  {words(row.changes)}"
    return text + "".join(f"  [{flag}]" for flag in row.flags)


_NAMES: Final = {kind: f"{kind.replace('_', ' '):13}" for kind in Kind}


def _about(entry: Entry) -> str:
    if entry.kind is not Kind.MESSAGE:
        return entry.about
    text = " ".join(entry.about.split())
    short = text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
    return f'{"pinned: " if entry.pinned else ""}"{short}"'


def _calls(found: Plan, zone: ZoneInfo) -> Iterator[str]:
    total, quota = sum(load.total for load in found.calls), found.quota
    yield f"{counted(total, 'call')} to Whop; of each operation Whop takes {quota.calls} a minute."
    if not found.calls:
        return
    worst = found.calls[0]
    yield (
        f"The worst minute begins {local(worst.at, zone)} ({worst.at:%H:%M:%S} UTC): "
        f"{worst.most} x {worst.operation}, {worst.share:.1%} of the quota."
    )
    width = max(len(load.operation) for load in found.calls)
    yield from (f"  {_load(load, width)}" for load in found.calls)
    for load in found.calls:
        if load.late > 0:
            yield (
                f"It does not fit: of {load.operation}, asked for {local(load.late_at, zone)}, "
                f"the last call goes {load.late:.0f} s late. Locks go first."
            )


def _load(load: Load, width: int) -> str:
    return f"{load.operation:{width}}  {load.total:6} in all, at most {load.most} in a minute"


# --- as JSON


def document(
    found: Plan, rooms: Iterable[Room], said: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a plan as other programs read it; instants are in UTC, `local` in the room's zone."""
    return {
        "from": found.since,
        "until": found.until,
        "entries": [_entry(entry) for entry in found.entries],
        "conflicts": [_conflict(conflict) for conflict in found.conflicts],
        "clock_changes": [
            {
                "at": jump.at,
                "zone": str(jump.zone),
                "before": jump.before,
                "after": jump.after,
                "text": jump.words,
            }
            for jump in found.clock_changes
        ],
        "calls": {
            "total": sum(load.total for load in found.calls),
            "quota": found.quota,
            "operations": found.calls,
        },
        "money_back": [
            {"room": room.key, "on_refund": room.on_refund, "on_dispute": room.on_dispute}
            for room in rooms
            if refunds.cancels(room)
        ],
        "keys": dict(said or {}),
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "at": entry.at,
        "local": entry.at.astimezone(entry.zone),
        "zone": str(entry.zone),
        "room": entry.room,
        "kind": entry.kind,
        "about": entry.about,
        "pinned": entry.pinned,
        "changes": entry.changes,
        "flags": entry.flags,
        "calls": entry.calls,
    }


def _conflict(conflict: Conflict) -> dict[str, Any]:
    return {
        "room": conflict.room,
        "kind": conflict.kind,
        "at": conflict.at,
        "text": conflict.text,
    }
