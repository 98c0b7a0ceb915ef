"""Messages into the receiver, rates and wakes out of Redis: what lies between both processes."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import redis.asyncio

from webhooks.events import Message
from webhooks.inbox import Inbox, connect
from worker.chatter import Chatter
from worker.leases import Leases
from worker.policy.pace import Minute, Pace, State, step
from worker.subjects import Subjects, milliseconds

ACCOUNT = "biz_test"
PREFIX = f"usher:{ACCOUNT}:"
CHANNEL = "chat_feed_1"
SUBJECT = "channel:lounge"
PACE = Pace(busy=30, quiet=12, steps=(10, 60))
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


@dataclass
class Chat:
    redis: Any
    inbox: Inbox
    chatter: Chatter
    subjects: Subjects
    count: int = 0

    async def say(
        self, at: datetime, users: Iterable[object], heard: datetime | None = None
    ) -> None:
        """Have each of the users write one message at an instant."""
        await asyncio.gather(*(self.inbox.hear(self.message(at, user, heard)) for user in users))

    def message(self, at: datetime, user: object, heard: datetime | None = None) -> Message:
        self.count += 1
        return Message(
            id=f"msg_{self.count}",
            type="chat.message.created",
            received=milliseconds(heard or at),
            account=ACCOUNT,
            channel=CHANNEL,
            sender=f"user_{user}",
            at=milliseconds(at),
            uncounted=None,
        )

    async def wakes(self) -> int:
        return await self.redis.llen(f"{PREFIX}pending:{SUBJECT}")

    async def arm(self, at: datetime, state: State | None = None) -> None:
        await self.chatter.arm(CHANNEL, SUBJECT, PACE, state or State(), at)


@asynccontextmanager
async def chat(url: str) -> AsyncIterator[Chat]:
    client: redis.asyncio.Redis = connect(url)
    subjects = Subjects(client, PREFIX, Leases(client, PREFIX, "one"))
    try:
        yield Chat(client, Inbox(client, ACCOUNT), Chatter(client, PREFIX), subjects)
    finally:
        await client.aclose()


# Reading


def test_a_reading_counts_each_member_once_in_ten_seconds(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.say(NOON, [1] * 9 + [2, 3])
            await c.say(NOON + 10 * SECOND, [1, 1, 4])
            reading = await c.chatter.reading(CHANNEL, NOON + 15 * SECOND)
            assert reading.minutes == (Minute(5, 4), *[Minute()] * 9)

    asyncio.run(main())


def test_a_reading_slides_over_the_hour_and_looks_ten_minutes_back(redis_url):
    async def main():
        async with chat(redis_url) as c:
            for back in range(11):
                await c.say(NOON - back * MINUTE, range(back + 1))
            minutes = (await c.chatter.reading(CHANNEL, NOON)).minutes
            assert minutes == tuple(Minute(n, n) for n in range(1, 11))
            minutes = (await c.chatter.reading(CHANNEL, NOON + 59 * SECOND)).minutes
            assert minutes[0] == Minute(1, 1)
            minutes = (await c.chatter.reading(CHANNEL, NOON + 60 * SECOND)).minutes
            assert minutes[:2] == (Minute(0, 0), Minute(1, 1))

    asyncio.run(main())


def test_the_channels_of_an_account_are_counted_apart(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.say(NOON, [1, 2])
            assert (await c.chatter.reading("chat_feed_2", NOON)).minutes[0] == Minute()

    asyncio.run(main())


def test_a_thousand_members_are_counted_to_within_a_few_of_a_hundred(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.say(NOON, range(1000))
            newest = (await c.chatter.reading(CHANNEL, NOON)).minutes[0]
            assert 900 <= newest.voices <= 1000
            assert 950 <= newest.senders <= 1050

    asyncio.run(main())


def test_the_history_has_the_minutes_with_messages_and_what_they_held(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.say(NOON + 5 * SECOND, [1, 1, 2])
            await c.say(NOON + 55 * SECOND, [1])
            await c.say(NOON + 90 * MINUTE, [3])
            await c.say(NOON - MINUTE, [4])
            found = await c.chatter.history(CHANNEL, NOON, NOON + 2 * 60 * MINUTE)
            assert found == {NOON: Minute(3, 2, 4), NOON + 90 * MINUTE: Minute(1, 1, 1)}
            assert not await c.chatter.history(CHANNEL, NOON + MINUTE, NOON + 89 * MINUTE)

    asyncio.run(main())


def test_every_key_of_a_message_goes_by_itself(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.say(NOON, [1, 2])
            for key in await c.redis.keys("*"):
                life = await c.redis.ttl(key)
                longest = 15 * 24 * 3600 if key.startswith(f"{PREFIX}chat:".encode()) else 900
                assert 0 < life <= longest, key

    asyncio.run(main())


# The alarm


def test_without_an_alarm_nobody_is_woken(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.say(NOON, range(500))
            assert await c.wakes() == 0
            assert await c.redis.exists(f"{PREFIX}queue", f"{PREFIX}due") == 0

    asyncio.run(main())


def test_the_alarm_wakes_its_subject_at_the_threshold_with_a_job_that_can_be_claimed(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.arm(NOON)
            at = NOON + 10 * SECOND
            await c.say(at, range(29))
            assert await c.wakes() == 0
            await c.say(at, [29])
            assert await c.wakes() == 1
            claim = await c.subjects.claim(SUBJECT, at)
            assert claim is not None
            assert claim.reasons == {"busy"}
            job = await c.redis.hget(f"{PREFIX}job", SUBJECT)
            body = await c.redis.get(b"arq:job:" + job)
            assert f'"a":["{SUBJECT}"]'.encode() in body

    asyncio.run(main())


def test_what_the_alarm_hears_is_what_the_look_reads(redis_url):
    """Or a look would find nothing to do, set the alarm anew, and be woken again."""

    async def main():
        async with chat(redis_url) as c:
            await c.arm(NOON)
            for turn in range(6):
                at = NOON + (9 + turn * 10) * SECOND  # over six buckets, and none of them more
                await c.say(at, range(5 * turn, 5 * turn + 5))
                assert await c.wakes() == (turn == 5)
            state, _ = step(PACE, State(), await c.chatter.reading(CHANNEL, at), at)
            assert state.level == 1

    asyncio.run(main())


def test_the_window_of_the_alarm_slides(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.arm(NOON)
            await c.say(NOON + 9 * SECOND, range(20))
            await c.say(NOON + 60 * SECOND, range(20, 40))
            assert await c.wakes() == 0

    asyncio.run(main())


def test_one_loud_member_among_quiet_ones_does_not_set_the_alarm_off(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.arm(NOON)
            for second in range(10, 60, 5):
                await c.say(NOON + second * SECOND, ["loud"] * 50)
            await c.say(NOON + 59 * SECOND, range(20))
            assert await c.wakes() == 0

    asyncio.run(main())


def test_four_members_do_not_set_the_alarm_off_and_a_fifth_does(redis_url):
    async def main():
        async with chat(redis_url) as c:
            few = Pace(busy=10, quiet=5, steps=(10,))
            await c.chatter.arm(CHANNEL, SUBJECT, few, State(), NOON)
            for second in (10, 20, 30):
                await c.say(NOON + second * SECOND, range(4))
            assert await c.wakes() == 0
            await c.say(NOON + 32 * SECOND, [4])
            assert await c.wakes() == 1

    asyncio.run(main())


def test_an_alarm_that_nobody_sets_anew_goes_off_once_a_minute(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.arm(NOON)
            woken = 0
            for second in range(10, 130):
                await c.say(NOON + second * SECOND, range(second % 7, 100, 7))
                woken += await c.redis.delete(f"{PREFIX}pending:{SUBJECT}")
            assert woken == 2

    asyncio.run(main())


def test_the_alarm_rests_after_each_look_and_at_the_ceiling_there_is_none(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.arm(NOON)
            await c.say(NOON + 4 * SECOND, range(60))
            assert await c.wakes() == 0
            await c.say(NOON + 5 * SECOND, [1])
            assert await c.wakes() == 1
            await c.arm(NOON + 6 * SECOND, State(2, (NOON,), NOON))
            await c.say(NOON + 12 * SECOND, range(500))
            assert await c.wakes() == 1
            assert await c.redis.exists(f"{PREFIX}alarm:{CHANNEL}") == 0

    asyncio.run(main())


def test_right_after_a_step_up_only_a_raid_sets_the_alarm_off(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.arm(NOON, State(1, (NOON,), NOON))
            await c.say(NOON + 6 * SECOND, range(100))
            assert await c.wakes() == 0
            await c.say(NOON + 7 * SECOND, range(100, 130))
            assert await c.wakes() == 1

    asyncio.run(main())


def test_an_alarm_that_is_taken_down_is_silent(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.arm(NOON)
            await c.chatter.disarm(CHANNEL)
            await c.say(NOON + 10 * SECOND, range(100))
            assert await c.wakes() == 0

    asyncio.run(main())


def test_a_message_heard_late_counts_when_it_was_written(redis_url):
    async def main():
        async with chat(redis_url) as c:
            await c.arm(NOON - MINUTE)
            await c.say(NOON - 2 * MINUTE, range(60), heard=NOON)
            assert await c.wakes() == 0
            minutes = (await c.chatter.reading(CHANNEL, NOON)).minutes
            assert minutes[:3] == (Minute(), Minute(), Minute(60, 60))

    asyncio.run(main())


def test_many_receivers_at_once_wake_once(redis_url):
    async def main():
        async with chat(redis_url) as c, chat(redis_url) as other:
            await c.arm(NOON)
            at = NOON + 10 * SECOND
            heard = [c.message(at, user) for user in range(400)]
            both = zip(heard, [c.inbox, other.inbox] * 200, strict=True)
            assert all(await asyncio.gather(*(inbox.hear(one) for one, inbox in both)))
            assert await c.wakes() == 1
            assert not any(await asyncio.gather(*(other.inbox.hear(one) for one in heard)))
            found = await c.chatter.history(CHANNEL, NOON, at)
            assert found[NOON].messages == 400

    asyncio.run(main())


# The controller's state


def test_where_the_controller_stands_is_remembered(redis_url):
    async def main():
        async with chat(redis_url) as c:
            assert (await c.chatter.states([CHANNEL]))[CHANNEL] == State()
            state = State(2, (NOON, NOON + MINUTE), NOON + MINUTE)
            await c.chatter.save_state(CHANNEL, state)
            assert (await c.chatter.states([CHANNEL]))[CHANNEL] == state
            await c.chatter.save_state(CHANNEL, State())
            assert await c.redis.keys("*") == []

    asyncio.run(main())
