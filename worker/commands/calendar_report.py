"""`usher calendar`: how rooms stand with their calendars, and the yes to an empty one."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
from rich.console import Console
from rich.markup import escape

from webhooks.inbox import Inbox, connect
from worker.calendars.feed import State
from worker.calendars.planning import replan
from worker.calendars.refresh import Calendars
from worker.commands.holds import HoldError
from worker.rules import Rules
from worker.store import Store
from worker.words import counted, local


async def show(rules: Rules, redis_url: str, now: datetime, *, as_json: bool) -> None:
    """Print how each room stands with its calendar.

    Raises:
        RedisError, OSError: Redis does not answer.
    """
    redis = connect(redis_url)
    try:
        prefix = Inbox(redis, rules.account).prefix
        states = await Calendars(redis, prefix, clock=lambda: now).states(rules.calendars)
    finally:
        await redis.aclose()
    if as_json:
        rows = [asdict(state) for state in states]
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
        return
    console = Console(highlight=False, soft_wrap=True)
    if not states:
        console.print(
            'No room has a calendar. One has with: calendar = { url = "...", word = "..." }'
        )
        return
    for one in states:
        zone = rules.calendars[one.room][1]
        console.print(f"[bold]{one.room}[/]")
        for name, value in _facts(one, zone):
            console.print(f"  [dim]{name:<13}[/]{escape(value)}")
        console.print()


def _facts(one: State, zone: ZoneInfo) -> list[tuple[str, str]]:
    coming = f"; the next is {local(one.next.starts, zone)}" if one.next else ""
    state = "in order" if one.good_at else "not read yet; is `usher work` running?"
    if one.failing_since:
        kept = one.good_at or one.upcoming  # of a calendar never read, that of the one before it
        left = "the plan is kept" if kept else "it was never read and gives no dates yet"
        state = f"fails since {local(one.failing_since, zone)}: {one.error}; {left}"
    if one.held is not None:
        state = f"suddenly has {counted(one.held, 'date')} ahead; the plan is kept until you say "
        state += f"`usher calendar accept {one.room}`"
    return [
        ("calendar", f"{one.source}, entries with {one.word!r}"),
        ("read", local(one.good_at, zone) if one.good_at else "never"),
        ("dates ahead", f"{one.upcoming}{coming}"),
        ("state", state),
    ]


async def accept(
    rules: Rules,
    redis_url: str,
    room: str | None,
    *,
    now: datetime,
    echo: Callable[[str], None],
) -> None:
    """Take for good what waits for the seller, and have the rooms planned anew.

    Raises:
        HoldError: the room has no calendar.
        RedisError, OSError: Redis does not answer.
    """
    asked = {key: of for key, of in rules.calendars.items() if room in (None, key)}
    if not asked:
        known = ", ".join(rules.calendars)
        none = "no room has a calendar, so there is nothing to accept"
        raise HoldError(f"room {room!r} has no calendar; these have: {known}" if known else none)
    redis = connect(redis_url)
    try:
        inbox = Inbox(redis, rules.account)
        calendars = Calendars(redis, inbox.prefix, clock=lambda: now)
        changed = await calendars.accept(asked)
        await replan(
            {key: asked[key] for key in changed},
            calendars=calendars,
            inbox=inbox,
            store=Store(redis, inbox.prefix),
            now=now,
        )
        for key in sorted(changed):
            echo(f"{key}: its calendar is taken at its word.")
    finally:
        await redis.aclose()
    if not changed:
        echo("Nothing waits to be accepted.")
