"""The calendars of the rules: looked at in turn, and what they say kept in Redis for all processes.

    feed:{feed}     Feed: a JSON value under `usher:{account}:`, for each calendar
    fed:{room}      the calendar that a room's dates were last read from: they stand while the
                    rules name another that was never read

A calendar that cannot be had or read changes nothing: the last good reading stands. One that lost
all of a room's dates waits for `usher calendar accept` (`worker.policy.calendars`).
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import WatchError

from worker.calendars import Broken
from worker.calendars.feed import Dates, Feed, State, digest, state
from worker.calendars.reading import Rooms, body, expand
from worker.calendars.web import NEVER_SEEN, Validators, Web
from worker.policy.calendars import Source
from worker.policy.occurrences import Occurrence

log = structlog.get_logger()

LIFE: Final = timedelta(days=60)
"""How long a calendar is remembered that is not in the rules any more."""

AT_ONCE: Final = 3
"""Calendars that are looked at side by side."""


class Calendars:
    """The calendars of the rules; what they say is shared by all processes through Redis."""

    def __init__(
        self, redis: Redis, prefix: str, *, clock: Callable[[], datetime], web: Web | None = None
    ) -> None:
        self._redis = redis
        self._prefix = f"{prefix}feed:"
        self._fed = f"{prefix}fed:"
        self._decoded: dict[str, tuple[bytes, Feed]] = {}
        self._clock = clock
        self._web = web or Web()

    async def refresh(self, rooms: Rooms) -> set[str]:
        """Look at every calendar of these rooms, once each; return the rooms whose dates changed.

        `rooms` are all that have a calendar: what a calendar had for others is forgotten. A
        calendar that fails is logged, and raises nothing. A room is returned again until `planned`
        was said of it: whoever dies in between takes no change of dates with them.
        """
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(feed: str, those: Rooms) -> set[str]:
            async with gate:
                return await self._refresh(feed, those)

        found = await asyncio.gather(*(one(*item) for item in _by_feed(rooms).items()))
        return set[str]().union(*found)

    async def known(self, rooms: Rooms) -> Dates:
        """Return the dates that hold, of every room; none where a calendar was never read."""
        feeds = sorted({source.feed for source, _ in rooms.values()})
        values = await self._redis.mget([self._prefix + feed for feed in feeds]) if feeds else []
        known = dict(zip(feeds, map(_decoded, values), strict=True))
        return {
            room: (await self._read_or_last(room, known[source.feed])).rooms.get(room, ())
            for room, (source, _) in rooms.items()
        }

    async def occurrences(self, room: str, source: Source) -> tuple[Occurrence, ...]:
        """Return a room's dates that hold; none where its calendar was never read."""
        feed = await self._read_or_last(room, await self._load(source.feed))
        return feed.rooms.get(room, ())

    async def _read_or_last(self, room: str, feed: Feed) -> Feed:
        """Return a calendar, or, while it was never read, the one that the room had before."""
        if feed.expanded_at:
            return feed
        last = await self._redis.get(self._fed + room)
        return await self._load(last.decode()) if last else feed

    async def accept(self, rooms: Rooms) -> set[str]:
        """Take for good what waits for the seller; return the rooms whose dates changed."""
        found: set[str] = set()
        for feed, those in _by_feed(rooms).items():
            if (await self._load(feed)).held:
                _, after = await self._update(feed, partial(Feed.accepted, rooms=those))
                found |= rooms.keys() & after.unplanned
        return found

    async def planned(self, rooms: Rooms) -> None:
        """Note that these rooms were set to be looked at."""
        for feed, those in _by_feed(rooms).items():
            if those.keys() & (await self._load(feed)).unplanned:
                await self._update(feed, partial(Feed.planned, rooms=those))

    async def states(self, rooms: Rooms) -> list[State]:
        """Return how each room stands with its calendar, in the order given."""
        now, found = self._clock(), list[State]()
        for room, (source, _) in rooms.items():
            feed = await self._load(source.feed)
            holds = state(room, source, await self._read_or_last(room, feed), now)
            shown = state(room, source, feed, now)
            found.append(replace(shown, upcoming=holds.upcoming, next=holds.next))
        return found

    async def _refresh(self, feed: str, rooms: Rooms) -> set[str]:
        now, known = self._clock(), await self._load(feed)
        source = next(source for source, _ in rooms.values())
        asked = {room: (source.word, zone.key) for room, (source, zone) in rooms.items()}
        settled = known.settled(asked, now)
        conditions = Validators(known.etag, known.last_modified) if settled else NEVER_SEEN
        try:
            got = await body(source, conditions, self._web)
            if got is None or (settled and digest(got) == known.digest):
                change = partial(Feed.fine, now=now)
            else:
                reading = await expand(got.content, rooms, now)
                change = partial(Feed.taken, got=got, reading=reading, asked=asked, now=now)
        except Broken as error:
            change = partial(Feed.failed, why=str(error), now=now)
        before, after = await self._update(feed, partial(_unless_newer, change=change, now=now))
        if after.expanded_at:
            for room in rooms:
                await self._redis.set(self._fed + room, feed, ex=LIFE)
        _tell(source, feed, before, after)
        return rooms.keys() & after.unplanned

    async def _load(self, feed: str) -> Feed:
        raw = await self._redis.get(self._prefix + feed)
        if raw is None:
            return Feed()
        if feed not in self._decoded or self._decoded[feed][0] != raw:  # many rooms share one
            self._decoded[feed] = (raw, _decoded(raw))
        return self._decoded[feed][1]

    async def _update(self, feed: str, change: Callable[[Feed], Feed]) -> tuple[Feed, Feed]:
        """Replace what is known, also while another process does; return what was and what is."""
        key = self._prefix + feed
        async with self._redis.pipeline() as pipe:
            while True:
                await pipe.watch(key)
                before = _decoded(await pipe.get(key))
                after = change(before).changed_from(before, self._clock())
                pipe.multi()  # type: ignore[no-untyped-call] # redis-py gives it no types
                pipe.set(key, msgspec.json.encode(after), ex=LIFE)
                try:
                    await pipe.execute()
                except WatchError:
                    continue
                return before, after


def _unless_newer(known: Feed, *, change: Callable[[Feed], Feed], now: datetime) -> Feed:
    """Return what is known after a reading that began at an instant: the later of two counts."""
    return known if known.checked_at and known.checked_at > now else change(known)


def _decoded(value: Any) -> Feed:
    return Feed() if value is None else msgspec.json.decode(value, type=Feed)


def _by_feed(rooms: Rooms) -> dict[str, Rooms]:
    found: dict[str, dict[str, tuple[Source, ZoneInfo]]] = defaultdict(dict)
    for room, (source, zone) in rooms.items():
        found[source.feed][room] = (source, zone)
    return dict(found)


def _tell(source: Source, feed: str, before: Feed, after: Feed) -> None:
    """Warn of what began or goes on, and say when it is over."""
    telling = log.bind(calendar=source.shown, feed=feed)
    if after.told_failing and after.told_failing != before.told_failing:
        telling.warning(
            "calendar.failing",
            why=after.error,
            since=str(after.failing_since),
            last_good=str(after.good_at) if after.good_at else "never",
            next="look at the calendar where rooms.toml says it is; the last good reading is kept "
            "until it can be read again",
        )
    if before.failing_since and not after.failing_since:
        telling.info("calendar.mended", since=str(before.failing_since))
    if after.told_held and after.told_held != before.told_held:
        telling.warning(
            "calendar.emptied",
            rooms=sorted(after.held),
            since=str(after.held_since),
            next="usher calendar accept",
        )
