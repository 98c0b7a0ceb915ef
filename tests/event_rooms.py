"""What tests of event rooms and of busy chats tell of: rules, dates, calendars, a person's word."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import community
from community import Clock
from local_whop import PATIENCE

from worker import jobs
from worker.commands import holds
from worker.policy.overrides import Hold
from worker.policy.phases import Phase

OPENING = datetime(2024, 12, 5, 22, 45, tzinfo=UTC)  # 17:45 in New York
LOCK = datetime(2024, 12, 6, 1, 0, tzinfo=UTC)
WEEK = timedelta(days=7)

TALKS = """
[rooms.talks]
name = "Talk of {date}"
products = ["prod_ticket"]
one_room_per = "occurrence"
lead = "3d"
opens = "15m"
locks = "30m"
archives = "2d"
occurrences = [{ starts = 2024-12-05T18:00:00, lasts = "90m", repeats = "FREQ=WEEKLY;COUNT=3" }]
"""
SERIES = """
[rooms.ama]
name = "Live AMA"
products = ["prod_ticket"]
opens = "15m"
locks = "30m"
archives = "2d"
occurrences = [{ starts = 2024-12-05T18:00:00, lasts = "90m" }]
"""
WEEKLY = SERIES.replace('"90m" }', '"90m", repeats = "FREQ=WEEKLY;COUNT=3" }')
MESSAGES = (
    SERIES
    + """
[[rooms.ama.messages]]
when = "before"
ahead = "2h"
text = "We start {starts}."
pin = true

[[rooms.ama.messages]]
when = "opening"
text = "We are live!"
pin = true

[[rooms.ama.messages]]
when = "lock"
text = "Thank you all."
"""
)
CALENDAR = """
[rooms.ama]
name = "Live AMA {date}"
products = ["prod_ticket"]
one_room_per = "occurrence"
lead = "30d"
archives = "2d"
calendar = { file = "FILE", word = "AMA" }
"""
ENTRY = """BEGIN:VEVENT
UID:one@example.com
DTSTAMP:20241101T000000Z
DTSTART;TZID=America/New_York:{start}
DURATION:PT1H
SUMMARY:Big AMA with Ada
END:VEVENT
"""
NOON = datetime(2024, 12, 4, 17, 0, tzinfo=UTC)  # a Wednesday; in New York it is noon
LOUNGE = """
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]
user_posts_cooldown_seconds = 5
banned_words = ["telegram"]

[[rooms.lounge.windows]]
from = 22:00:00
to = 07:00:00
user_posts_cooldown_seconds = 60
"""
SLOW = (
    LOUNGE
    + """
[rooms.lounge.slow]
busy = 20
quiet = 8
steps = [15, 30, 60]
say = "It is busy here: {seconds} seconds between two messages."
"""
)


def feed(*starts: str) -> str:
    """Return a calendar with an entry for each local start; the first is always the same entry."""
    entries = "".join(
        ENTRY.replace("one@", f"{n}@").format(start=start) for n, start in enumerate(starts)
    )
    text = f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:test\n{entries}END:VCALENDAR\n"
    return text.replace("\n", "\r\n")


def hold(clock: Clock, *words: str, phase: str | None = None, length: str = "2h") -> Hold:
    """Return a hold of ada's that begins now, by the words that one types."""
    wish = holds.parse(words) if words else holds.Wish()
    return Hold(
        since=clock.at,
        until=holds.until(clock.at, length),
        who="ada",
        why="a test",
        phase=Phase(phase) if phase else None,
        settings=wish.settings,
        add_words=wish.add_words,
        remove_words=wish.remove_words,
    )


async def say(seller: community.Community, clock: Clock, laid: Hold | None) -> list[str]:
    """Lay a hold on the lounge, or release it, and return what the person is told."""
    lines: list[str] = []
    told = holds.say(
        seller.settings.rules,
        seller.settings.redis_url,
        "lounge",
        hold=laid,
        now=clock.at,
        echo=lines.append,
    )
    telling = asyncio.create_task(told)
    while not telling.done():  # it waits for a worker
        await seller.settled()
        await asyncio.sleep(0.01)
    await telling
    await seller.settled()
    return lines


async def members(seller: community.Community, count: int) -> list[str]:
    """Let so many people into the lounge, and return their ids."""
    for n in range(count):
        seller.whop.memberships.buy("prod_basic", f"member{n}")
    await seller.settled()
    return [seller.whop.people.user(f"member{n}").id for n in range(count)]


async def read_calendars(seller: community.Community) -> None:
    """Read the calendars, as a worker does every ten minutes, and see to what is new in them.

    A worker reads them at its start, too. It is waited for: whoever writes last is believed.
    """
    async with asyncio.timeout(PATIENCE):
        while not await _looked_at(seller):  # noqa: ASYNC110 - a worker looks
            await asyncio.sleep(0.02)
    await jobs.read_calendars(seller.tools())
    await seller.settled()


async def _looked_at(seller: community.Community) -> bool:
    """Say whether somebody has looked at every calendar of the rules, in vain or not."""
    tools = seller.tools()
    states = await tools.calendars.states(tools.rules.calendars)
    return all(state.good_at or state.failing_since for state in states)


async def until_read(seller: community.Community, t: datetime) -> None:
    """Wait for a worker to have read a calendar since an instant, and planned what changed."""
    async with asyncio.timeout(60):
        while not await _read_since(seller, t):  # noqa: ASYNC110 - a worker reads
            await asyncio.sleep(0.02)


async def _read_since(seller: community.Community, t: datetime) -> bool:
    for key in await seller.redis.keys(f"{seller.prefix}feed:*"):
        feed = json.loads(await seller.redis.get(key))
        good = feed.get("good_at")
        if good and datetime.fromisoformat(good) >= t and not feed.get("unplanned"):
            return True
    return False
