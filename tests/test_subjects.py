"""The inbox and the claims on it: what is delivered is worked on, whatever happens in between."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import redis.asyncio
from local_whop import PATIENCE

from webhooks.events import Delivery
from webhooks.inbox import Inbox, connect
from worker.leases import LEASE, Leases
from worker.subjects import IN_PROGRESS, OVERDUE, Claim, Subjects, milliseconds

ACCOUNT = "biz_test"
PREFIX = f"usher:{ACCOUNT}:"


@dataclass
class Bench:
    redis: Any
    inbox: Inbox
    subjects: Subjects
    leases: Leases

    def another(self) -> Subjects:
        """Return the claims of one more worker."""
        return Subjects(self.redis, PREFIX, Leases(self.redis, PREFIX, "another"))

    async def jobs(self) -> list[bytes]:
        return await self.redis.zrange(f"{PREFIX}queue", 0, -1)


@asynccontextmanager
async def bench(url: str) -> AsyncIterator[Bench]:
    client: redis.asyncio.Redis = connect(url)
    leases = Leases(client, PREFIX, "one")
    try:
        yield Bench(client, Inbox(client, ACCOUNT), Subjects(client, PREFIX, leases), leases)
    finally:
        await client.aclose()


def now() -> datetime:
    return datetime.now(UTC)


def delivery(id_: str, subject: str = "member:user_1") -> Delivery:
    at = milliseconds(now() - timedelta(milliseconds=5))
    return Delivery(id=id_, type="membership.updated", received=at, subject=subject)


async def claimed(subjects: Subjects, subject: str = "member:user_1") -> Claim:
    claim = await subjects.claim(subject, now())
    assert claim is not None
    return claim


def test_many_deliveries_for_a_subject_are_one_job(redis_url):
    async def main():
        async with bench(redis_url) as b:
            new = await asyncio.gather(*(b.inbox.put(delivery(f"msg_{n}")) for n in range(50)))
            assert all(new)
            assert len(await b.jobs()) == 1
            claim = await claimed(b.subjects)
            assert {d.id for d in claim.deliveries} == {f"msg_{n}" for n in range(50)}

    asyncio.run(main())


def test_an_id_that_was_seen_is_a_duplicate_even_when_its_work_is_done(redis_url):
    async def main():
        async with bench(redis_url) as b:
            assert await b.inbox.put(delivery("msg_1"))
            await b.subjects.done(await claimed(b.subjects), now(), None)
            assert not await b.inbox.put(delivery("msg_1"))
            assert await b.redis.zcard(f"{PREFIX}due") == 0

    asyncio.run(main())


def test_what_arrives_during_the_work_gets_a_job_of_its_own(redis_url):
    async def main():
        async with bench(redis_url) as b:
            await b.inbox.put(delivery("msg_1"))
            claim = await claimed(b.subjects)
            first = await b.jobs()
            await b.inbox.put(delivery("msg_2"))
            assert await b.jobs() == first  # one job at a time
            await b.subjects.done(claim, now(), None)
            assert set(await b.jobs()) > set(first)  # arq ends the first by itself
            await asyncio.sleep(0.01)
            again = await claimed(b.subjects)
            assert again.taken == ("msg_2",)

    asyncio.run(main())


def test_a_subject_is_held_by_one_worker_at_a_time(redis_url):
    async def main():
        async with bench(redis_url) as b:
            await b.inbox.put(delivery("msg_1"))
            claim, other = await claimed(b.subjects), b.another()
            assert await other.claim("member:user_1", now()) is None
            await b.subjects.done(claim, now(), None)
            assert await other.claim("member:user_1", now()) is None  # nothing is due any more

    asyncio.run(main())


def test_a_deferred_look_is_brought_forward_by_a_delivery(redis_url):
    async def main():
        async with bench(redis_url) as b:
            await b.inbox.put(delivery("msg_1"))
            tomorrow = now() + timedelta(days=1)
            await b.subjects.done(await claimed(b.subjects), now(), tomorrow)
            assert await b.subjects.claim("member:user_1", now()) is None
            await b.inbox.put(delivery("msg_2"))
            (due,) = await b.redis.zrange(f"{PREFIX}queue", -1, -1, withscores=True)
            assert due[1] <= milliseconds(now())
            assert (await claimed(b.subjects)).taken == ("msg_2",)

    asyncio.run(main())


def test_a_failure_keeps_its_deliveries_and_counts_its_tries(redis_url):
    async def main():
        async with bench(redis_url) as b:
            await b.inbox.put(delivery("msg_1"))
            first = await claimed(b.subjects)
            await b.subjects.later(first, now(), now())
            await asyncio.sleep(0.01)
            second = await claimed(b.subjects)
            assert (first.tries, second.tries, second.taken) == (1, 2, ("msg_1",))
            assert second.first_try == first.first_try
            await b.subjects.dead(second, now(), "no")
            (death,) = (await b.subjects.deaths()).values()
            assert (death.reason, death.tries, death.deliveries) == ("no", 2, ("msg_1",))
            await b.inbox.put(delivery("msg_2"))  # news revives it
            third = await claimed(b.subjects)
            assert (third.tries, third.taken) == (1, ("msg_1", "msg_2"))
            await b.subjects.done(third, now(), None)
            assert await b.subjects.deaths() == {}

    asyncio.run(main())


def test_the_sweep_makes_a_lost_job_anew_and_leaves_the_others_alone(redis_url):
    async def main():
        async with bench(redis_url) as b:
            await b.inbox.put(delivery("msg_1", "member:lost"))
            (job,) = await b.jobs()
            await b.inbox.put(delivery("msg_2", "member:waiting"))
            await b.redis.delete(b"arq:job:" + job)
            later = now() + timedelta(seconds=5)
            assert await b.subjects.sweep(later) == ["member:lost"]
            assert await b.subjects.sweep(later) == []
            assert len(await b.jobs()) == 3  # the lost one's id, which arq drops, and two that live

    asyncio.run(main())


def test_the_sweep_frees_the_job_of_a_worker_that_was_killed(redis_url):
    async def main():
        async with bench(redis_url) as b:
            await b.inbox.put(delivery("msg_1"))
            (job,) = await b.jobs()
            later = now() + timedelta(seconds=5)
            await b.redis.set(b"arq:in-progress:" + job, "1", px=IN_PROGRESS)
            assert await b.subjects.sweep(later) == []  # it was picked just now
            await b.redis.set(b"arq:in-progress:" + job, "1", px=IN_PROGRESS - OVERDUE - 1)
            await claimed(b.subjects)
            assert await b.subjects.sweep(later) == []  # its lease is alive
            await b.redis.delete(f"{PREFIX}lock:member:user_1")  # as it ends after 15 seconds
            assert await b.subjects.sweep(later) == ["member:user_1"]
            assert not await b.redis.exists(b"arq:in-progress:" + job)

    asyncio.run(main())


def test_a_lease_is_renewed_and_a_lost_one_cancels_its_work(redis_url):
    async def main():
        async with bench(redis_url) as b:
            held = asyncio.Event()

            async def work() -> None:
                async with b.leases.holding("room"):
                    held.set()
                    with contextlib.suppress(asyncio.CancelledError):  # a client's timeout does so
                        await asyncio.sleep(60)
                    await asyncio.sleep(60)

            task = asyncio.create_task(work())
            await held.wait()
            await b.redis.pexpire(f"{PREFIX}lock:room", LEASE // 2)
            await b.leases.renew()
            assert await b.redis.pttl(f"{PREFIX}lock:room") > LEASE // 2
            await b.redis.set(f"{PREFIX}lock:room", "somebody else")
            await b.leases.renew()
            await b.leases.renew()
            await asyncio.wait([task], timeout=30)
            assert task.cancelled()
            assert await b.redis.get(f"{PREFIX}lock:room") == b"somebody else"

    asyncio.run(main())


def test_nothing_delivered_is_lost_among_many_workers(redis_url):
    """Deliver at random times while workers claim, finish, fail and are killed."""
    names = [f"member:{n}" for n in range(12)]
    rng = random.Random(7)
    worked: set[str] = set()
    sent = {f"msg_{n}" for n in range(1200)}

    async def main():
        async with bench(redis_url) as b:

            async def deliver(ids: list[str]) -> None:
                for id_ in ids:
                    await b.inbox.put(delivery(id_, rng.choice(names)))
                    await asyncio.sleep(rng.random() / 500)

            async def work(stop: asyncio.Event, name: str) -> None:
                subjects = Subjects(b.redis, PREFIX, Leases(b.redis, PREFIX, name))
                while not stop.is_set():
                    claim = await subjects.claim(rng.choice(names), now())
                    await asyncio.sleep(rng.random() / 200)
                    if claim:
                        await settle(subjects, claim)

            async def settle(subjects: Subjects, claim: Claim) -> None:
                fate = rng.random()
                if fate < 0.1:  # killed: the lease ends, nothing is settled
                    await b.redis.delete(f"{PREFIX}lock:{claim.subject}")
                elif fate < 0.3:
                    await subjects.later(claim, now(), now())
                else:
                    await subjects.done(claim, now(), None)
                    worked.update(claim.taken)

            stop, ids = asyncio.Event(), sorted(sent)
            workers = [asyncio.create_task(work(stop, f"w{n}")) for n in range(4)]
            await asyncio.gather(*(deliver(ids[n::6]) for n in range(6)))
            async with asyncio.timeout(PATIENCE):
                while await b.redis.zcard(f"{PREFIX}due"):  # noqa: ASYNC110 - the workers do it
                    await asyncio.sleep(0.01)
            stop.set()
            await asyncio.gather(*workers)
            assert not await b.redis.keys(f"{PREFIX}pending:*")

    asyncio.run(main())
    assert worked == sent


def test_a_look_that_is_far_off_keeps_its_job_until_then(redis_url):
    async def main():
        async with bench(redis_url) as b:
            await b.inbox.put(delivery("msg_1"))
            in_a_season = now() + timedelta(days=90)
            await b.subjects.done(await claimed(b.subjects), now(), in_a_season)
            job = await b.redis.hget(f"{PREFIX}job", "member:user_1")
            assert await b.redis.pttl(b"arq:job:" + job) > 90 * 24 * 3600 * 1000

    asyncio.run(main())


def test_a_claim_whose_answer_was_lost_may_be_repeated(redis_url):
    async def main():
        async with bench(redis_url) as b:
            await b.inbox.put(delivery("msg_1"))
            b.leases.token = lambda: "the same"
            assert await b.subjects.claim("member:user_1", now())
            assert await b.subjects.claim("member:user_1", now())

    asyncio.run(main())
