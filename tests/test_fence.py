"""Who lost a lease writes nothing under it, and changes nothing at Whop."""

import asyncio
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from worker.chatter import Chatter
from worker.fence import Lost
from worker.leases import LEASE, Leases
from worker.memory.channels import Kept, Posted
from worker.memory.members import Member
from worker.memory.places import Place
from worker.memory.seats import Stock
from worker.memory.trail import Step
from worker.policy.access import Grant
from worker.policy.pace import State
from worker.policy.settings import Settings
from worker.store import Store
from worker.subjects import Subjects, milliseconds

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
PREFIX = "usher:biz_a:"
GRANT = Grant("1", "prod_1", "plan_1", NOW, "mem_1")
HELD = Member(grants={"course": GRANT})

WRITES = {
    "a member": lambda store, _: store.save_member("user_a", HELD),
    "a grant": lambda store, _: store.granted("user_a", HELD, "course/1"),
    "an offer": lambda store, _: store.offered("user_a", HELD, "course/1"),
    "an end": lambda store, _: store.taken("user_a", HELD, "course/1"),
    "a holder": lambda store, _: store.note_holder("user_a", ["mem_1"]),
    "a lost grant": lambda store, _: store.remember_grant("user_a", HELD, "course", GRANT),
    "lost members": lambda store, _: store.remember_members({"user_a": HELD}),
    "a seat": lambda store, _: store.seat("course", "user_a", cohort=None, seats=3),
    "a seat that is free": lambda store, _: store.free_seat("course", "user_a", "1"),
    "a ticket": lambda store, _: store.sold("stage", "user_a", NOW),
    "a stock": lambda store, _: store.save_stock("stage", Stock(40)),
    "a room": lambda store, _: store.save_place("course/1", Place(name="Course")),
    "a room that is gone": lambda store, _: store.gone("course/1"),
    "settings": lambda store, _: store.save_kept("course/1", Kept(Settings())),
    "a message": lambda store, _: store.save_posted("course/1", "m", Posted(NOW)),
    "the trail": lambda store, _: store.trail("member:user_a", [Step(NOW, "member.granted")]),
    "a pace": lambda _, chats: chats.save_state("chat_feed_a", State(level=1)),
}


async def everything(redis: Redis) -> dict[bytes, bytes | None]:
    return {key: await redis.dump(key) for key in sorted(await redis.keys("*"))}


@pytest.mark.parametrize("name", WRITES)
def test_whoever_lost_a_lease_writes_nothing_over_their_successor(redis_url, name):
    async def main():
        async with Redis.from_url(redis_url) as redis:
            await tried(redis, WRITES[name])

    async def tried(redis, write):
        store, chats = Store(redis, PREFIX), Chatter(redis, PREFIX)
        await store.save_member("user_a", Member(salt=7))
        await store.seat("course", "user_a", cohort=None, seats=3)
        stopped, successor = Leases(redis, PREFIX, "one"), Leases(redis, PREFIX, "two")
        async with stopped.holding("member:user_a"):
            await redis.delete(f"{PREFIX}lock:member:user_a")  # as time does
            await asyncio.create_task(_taken_over(successor))
            before = await everything(redis)
            with pytest.raises(Lost):
                await write(store, chats)
            assert await everything(redis) == before
            with pytest.raises(Lost):
                await stopped.check()
        await write(store, chats)  # without a lease, as a command does

    asyncio.run(main())


async def _taken_over(successor: Leases) -> None:
    token = successor.token()
    assert await successor._take(keys=[f"{PREFIX}lock:member:user_a"], args=[token, LEASE])


def test_whoever_lost_a_claim_settles_nothing(redis_url):
    async def main():
        async with Redis.from_url(redis_url) as redis:
            subjects = Subjects(redis, PREFIX, Leases(redis, PREFIX, "one"))
            await redis.zadd(f"{PREFIX}due", {"member:user_a": milliseconds(NOW)})
            claim = await subjects.claim("member:user_a", NOW)
            assert claim
            await redis.delete(f"{PREFIX}lock:member:user_a")
            with pytest.raises(Lost):
                await subjects.done(claim, NOW, None)
            assert await subjects.due(["member:user_a"])

    asyncio.run(main())
