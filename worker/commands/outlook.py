"""What commands show besides the rules: the dates that calendars say, and what lies on the plan."""

from dataclasses import replace
from datetime import datetime

from redis.asyncio import Redis

from webhooks.inbox import Inbox, connect
from worker.calendars.reading import read
from worker.calendars.refresh import Calendars
from worker.chatter import Chatter
from worker.memory.channels import Standing
from worker.policy import pace
from worker.policy.occurrences import Occurrence
from worker.policy.overrides import Overrides
from worker.policy.pace import State
from worker.policy.rooms import Room, split
from worker.policy.settings import Settings
from worker.renames import as_it_is
from worker.rules import Rules
from worker.store import Store


async def outlook(
    rules: Rules, redis_url: str | None, now: datetime
) -> tuple[Rules, dict[str, Overrides]]:
    """Return the rules with their calendars' dates, and what lies on the plan of each room.

    With Redis it is what the workers know; without, calendars are read on the spot.

    Raises:
        RedisError, OSError: Redis does not answer.
        Broken: a calendar cannot be read, and there is no Redis with what was known of it.
    """
    if redis_url is None:
        rooms = [await _read_now(room, now) for room in rules.rooms]
        return replace(rules, rooms=tuple(rooms)), {}
    redis = connect(redis_url)
    try:
        prefix = Inbox(redis, rules.account).prefix
        return await dated(rules, redis, prefix, now), await _overrides(
            rules, Store(redis, prefix), Chatter(redis, prefix)
        )
    finally:
        await redis.aclose()


async def keyed(rules: Rules, redis_url: str) -> tuple[Rules, dict[str, str]]:
    """Return the rules by the keys under which their rooms exist, and what is to be said of them.

    Raises:
        RedisError, OSError: Redis does not answer.
    """
    redis = connect(redis_url)
    try:
        return await as_it_is(rules, Store(redis, Inbox(redis, rules.account).prefix))
    finally:
        await redis.aclose()


async def standing(rules: Rules, redis_url: str) -> dict[str, Occurrence | None]:
    """Return the rooms that exist and are not archived, each with the date that it was made for.

    Raises:
        RedisError, OSError: Redis does not answer.
    """
    redis = connect(redis_url)
    try:
        store = Store(redis, Inbox(redis, rules.account).prefix)
        places = await store.places()
        return {key: one.occurrence for key, one in places.items() if not one.archived}
    finally:
        await redis.aclose()


async def dated(rules: Rules, redis: Redis, prefix: str, now: datetime) -> Rules:
    """Return the rules with the dates that the workers know of their calendars."""
    calendars = Calendars(redis, prefix, clock=lambda: now)
    known = await calendars.known(rules.calendars)
    rooms = (
        replace(room, schedule=replace(room.schedule, dated=known[room.key]))
        if room.key in known
        else room
        for room in rules.rooms
    )
    return replace(rules, rooms=tuple(rooms))


async def _read_now(room: Room, now: datetime) -> Room:
    if room.calendar is None:
        return room
    dates = await read(room.calendar, room.schedule.zone, now)
    return replace(room, schedule=replace(room.schedule, dated=dates))


async def _overrides(rules: Rules, store: Store, chatter: Chatter) -> dict[str, Overrides]:
    keys = await store.instances()
    known = dict(zip(keys, await store.standing(*keys), strict=True))
    states = await chatter.states([one.kept.id for one in known.values() if one.kept])
    return {
        key: laid(rules.room(split(key)[0]), one, states.get(one.kept.id, State()))
        for key, one in known.items()
        if one.kept
    }


def laid(room: Room | None, standing: Standing, state: State) -> Overrides:
    """Return what lies on the plan of a room as it exists, where its chat's controller is so."""
    kept = standing.kept
    slower = pace.settings(room.pace, state) if room and room.pace and kept else Settings()
    return Overrides(slower, kept.edit if kept else None, standing.holds)
