"""A look at a channel that changes nothing: what it costs Redis, and how much of the plan it reads.

The costs are counted, not timed.
"""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import community
import msgspec
import pytest
from community import Clock, Community
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from test_policy_schedule import slow, zones

from worker.channels import set_channel
from worker.memory.channels import Kept
from worker.policy.occurrences import Occurrences
from worker.policy.overrides import Hold, Overrides
from worker.policy.phases import Phase
from worker.policy.schedule import (
    DAY,
    Schedule,
    Timeline,
    Weekday,
    Window,
    changed,
    hours_of,
    next_change,
)
from worker.policy.settings import Settings, WhoCanPost

START = datetime(2026, 3, 26, 12, tzinfo=UTC)
NIGHTS = Window(time(22), time(7), settings=slow(60))

ROOMS = """
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]
[[rooms.lounge.windows]]
from = 22:00:00
to = 07:00:00
user_posts_cooldown_seconds = 60

[rooms.busy]
name = "The Busy One"
products = ["prod_basic"]
slow = { busy = 40, quiet = 10, steps = [5, 15, 60] }
"""

READS = {"get", "mget", "hget", "hmget", "hgetall", "lrange", "smembers", "zrange"}
WRITES = {"set", "del", "hset", "hdel", "rpush", "zadd", "zrem", "sadd", "srem"}


async def counted(redis: Any) -> dict[str, int]:
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}


async def look(seller: Community, tools: Any, key: str) -> dict[str, int]:
    """Look at a channel, and return what Redis was asked for."""
    place, before = await seller.place(key), await counted(seller.redis)
    await set_channel(tools, tools.rules.room(key), key, place)
    after = await counted(seller.redis)
    rose = {name: n - before.get(name, 0) for name, n in after.items()}
    return {name: n for name, n in rose.items() if n and name in READS | WRITES}


@pytest.mark.anyio
async def test_a_look_that_changes_nothing_reads_once_and_writes_nothing(redis_url):
    clock = Clock(START)
    async with community.running(redis_url, ROOMS, clock=clock) as seller:
        await seller.rest()
        async with seller.workbench() as tools:
            await look(seller, tools, "lounge")
            clock.at += timedelta(minutes=7)
            assert await look(seller, tools, "lounge") == {"mget": 1, "lrange": 1}


@pytest.mark.anyio
async def test_so_does_a_look_at_a_chat_that_might_get_busy_and_does_not(redis_url):
    clock = Clock(START)
    async with community.running(redis_url, ROOMS, clock=clock) as seller:
        await seller.rest()
        async with seller.workbench() as tools:
            await look(seller, tools, "busy")
            clock.at += timedelta(minutes=17)
            costs = await look(seller, tools, "busy")
    assert costs == {"mget": 1, "lrange": 1, "get": 1, "hgetall": 2}


@pytest.mark.anyio
async def test_an_alarm_that_went_off_is_set_anew_by_the_next_look(redis_url):
    clock = Clock(START)
    async with community.running(redis_url, ROOMS, clock=clock) as seller:
        await seller.rest()
        async with seller.workbench() as tools:
            await look(seller, tools, "busy")
            channel = (await seller.place("busy")).channel
            alarm = f"{seller.prefix}alarm:{channel}"
            clock.at += timedelta(minutes=7)
            rests = int((clock.at + timedelta(seconds=50)).timestamp() * 1000)
            await seller.redis.hset(alarm, "since", rests)
            assert (await look(seller, tools, "busy"))["hset"] == 1
            assert int(await seller.redis.hget(alarm, "since")) < rests


@pytest.mark.anyio
async def test_what_an_older_usher_wrote_down_of_a_channel_is_understood(redis_url):
    clock = Clock(START)
    async with community.running(redis_url, ROOMS, clock=clock) as seller:
        await seller.rest()
        async with seller.workbench() as tools:
            name = f"{seller.prefix}kept:lounge"
            old = msgspec.json.decode(await seller.redis.get(name))
            del old["coming"]
            await seller.redis.set(name, msgspec.json.encode(old))
            clock.at += timedelta(minutes=7)
            await look(seller, tools, "lounge")
            kept = msgspec.json.decode(await seller.redis.get(name), type=Kept)
            assert kept.coming == datetime(2026, 3, 27, 2, tzinfo=UTC)  # 22:00 in New York


# --- the plan


def laid_out(schedule: Schedule, overrides: Overrides) -> int:
    """Return how many hours of a window were worked out to find no next change."""
    hours_of.cache_clear()
    assert next_change(schedule, START, overrides) is None
    info = hours_of.cache_info()
    return info.hits + info.misses


UTC_ZONE = community.rules.UTC


@pytest.mark.parametrize(
    ("schedule", "overrides"),
    [
        (Schedule(UTC_ZONE, base=slow(60), windows=(NIGHTS,)), Overrides()),
        (Schedule(UTC_ZONE, windows=(NIGHTS,), paced=True), Overrides(pace=slow(90))),
        (Schedule(UTC_ZONE, windows=(replace(NIGHTS, until=time(22)),)), Overrides()),
    ],
    ids=["they are no tighter than the room", "a busy chat hides them", "they are always"],
)
def test_hours_that_make_no_difference_are_not_gone_through_day_by_day(schedule, overrides):
    assert laid_out(schedule, overrides) <= 20


def test_dates_that_make_no_difference_are_not_gone_through_one_by_one():
    daily = Occurrences(datetime(2026, 1, 1, 18), timedelta(hours=1), "FREQ=DAILY")
    same = Settings(who_can_post=WhoCanPost.EVERYONE)
    schedule = Schedule(
        UTC_ZONE, windows=(NIGHTS,), occurrences=(daily,), phases=dict.fromkeys(Phase, same)
    )
    assert next_change(schedule, START).at == START.replace(hour=22)
    assert schedule.lean(Settings()).occurrences == ()


def test_whether_the_plan_changed_since_the_last_look_is_asked_of_that_time_alone():
    hours_of.cache_clear()
    schedule = Schedule(UTC_ZONE, windows=(NIGHTS,))
    assert not changed(schedule, START, START + timedelta(minutes=1))
    assert changed(schedule, START, START + timedelta(hours=10))
    info = hours_of.cache_info()
    assert info.hits + info.misses <= 20


times = st.sampled_from([time(0), time(1), time(1, 30), time(2), time(2, 30), time(3), time(22)])
days = st.sampled_from([frozenset(Weekday), frozenset({Weekday.SUN, Weekday.FRI})])
windows = st.builds(Window, times, times, days, st.sampled_from([0, 20, 40, 60]).map(slow))
dates = st.sampled_from(
    [
        (),
        (Occurrences(datetime(2026, 1, 4, 18), timedelta(hours=2), "FREQ=MONTHLY;BYDAY=1SU"),),
        (Occurrences(datetime(2026, 1, 4, 18), timedelta(hours=2), "FREQ=WEEKLY;COUNT=30"),),
    ]
)
open_all = dict.fromkeys(Phase, Settings(WhoCanPost.EVERYONE))
schedules = st.builds(
    Schedule,
    zones,
    base=st.integers(0, 60).map(slow),
    windows=st.lists(windows, max_size=4).map(tuple),
    occurrences=dates,
    phases=st.sampled_from([{}, open_all, {Phase.OPEN: slow(40)}]),
    archives=st.sampled_from([None, timedelta(hours=3)]),
    cancelled=st.booleans(),
    paced=st.booleans(),
)
instants = st.integers(0, 400).map(
    lambda halves: datetime(2026, 1, 1, tzinfo=UTC) + halves * DAY / 2
)
holds = st.builds(
    lambda at, halves, phase, settings: Hold(at, at + halves * DAY / 2, "ada", "", phase, settings),
    instants,
    st.integers(1, 180),
    st.none() | st.sampled_from([Phase.OPEN, Phase.LOCKED]),
    st.sampled_from([Settings(), slow(40), slow(0)]),
)
laid = st.builds(
    Overrides,
    st.sampled_from([Settings(), slow(20), slow(60)]),
    st.none(),
    st.lists(holds, max_size=2).map(tuple),
)


@examples(max_examples=40)
@given(schedules, laid, instants)
def test_the_next_change_is_the_one_that_going_through_every_day_finds(schedule, overrides, t):
    every_day = next(Timeline(schedule, t, t + 100 * DAY, overrides).changes(), None)
    found = next_change(schedule, t, overrides)
    if every_day is None:
        assert found is None or found.at > t + 100 * DAY
    else:
        assert found == every_day
