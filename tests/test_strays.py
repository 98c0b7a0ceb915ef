"""What is stored gets looked at, whichever of the other keys was lost."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import combinations

import community
import local_whop
import pytest

from webhooks.events import Delivery
from webhooks.inbox import Inbox, connect
from worker import jobs
from worker.leases import Leases
from worker.strays import COUNT, Strays
from worker.subjects import SWEPT_AT_ONCE, Subjects, milliseconds

ACCOUNT = "biz_te*t"
PREFIX = f"usher:{ACCOUNT}:"
KEYS = (f"{PREFIX}due", f"{PREFIX}job", f"{PREFIX}queue", "arq:*")
LOSSES = [loss for n in range(len(KEYS) + 1) for loss in combinations(KEYS, n)]
COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
"""


def now() -> datetime:
    return datetime.now(UTC)


def delivery(number: int, at: datetime | None = None) -> Delivery:
    subject = f"member:user_%d{number}"
    return Delivery(
        f"msg_{number}", "membership.updated", milliseconds(at or now()), subject=subject
    )


async def lose(redis, patterns) -> None:
    for pattern in patterns:
        keys = await redis.keys(pattern.replace("te*t", r"te\*t"))
        if keys:
            await redis.delete(*keys)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: "+".join(k[-5:] for k in loss) or "none")
def test_whatever_is_lost_besides_the_deliveries_their_subjects_get_a_job(redis_url, loss):
    async def main():
        redis = connect(redis_url)
        inbox = Inbox(redis, ACCOUNT)
        subjects = Subjects(redis, PREFIX, Leases(redis, PREFIX, "one"))
        try:
            await asyncio.gather(*(inbox.put(delivery(n)) for n in range(20)))
            await lose(redis, loss)
            soon = now() + timedelta(seconds=5)
            await subjects.sweep(soon)
            await Strays(redis, PREFIX).mend(milliseconds(soon))
            assert await redis.zcard(f"{PREFIX}due") == 20
            queued = await redis.zrange(f"{PREFIX}queue", 0, -1)
            whole = [job for job in queued if await redis.exists(b"arq:job:" + job)]
            names = {job.rpartition(b"@")[0].decode().removeprefix(PREFIX) for job in whole}
            assert names == {f"member:user_%d{n}" for n in range(20)}
            claims = [await subjects.claim(name, soon) for name in names]
            assert {d.id for c in claims for d in c.deliveries} == {f"msg_{n}" for n in range(20)}
        finally:
            await redis.aclose()

    asyncio.run(main())


def test_what_failed_for_good_is_no_stray_and_neither_is_what_waits_for_its_time(redis_url):
    async def main():
        redis = connect(redis_url)
        inbox = Inbox(redis, ACCOUNT)
        subjects = Subjects(redis, PREFIX, Leases(redis, PREFIX, "one"))
        try:
            await inbox.put(delivery(1, now() - timedelta(seconds=1)))
            claim = await subjects.claim("member:user_%d1", now())
            await subjects.dead(claim, now(), "no")
            await inbox.put(delivery(2))
            later = milliseconds(now() + timedelta(days=1))
            await inbox.mark("room:lounge", "look", later)
            assert await Strays(redis, PREFIX).mend(milliseconds(now())) == []
            assert await redis.zscore(f"{PREFIX}due", "room:lounge") == later
        finally:
            await redis.aclose()

    asyncio.run(main())


def test_a_walk_over_many_keys_comes_round_within_a_minute_and_takes_no_step_too_long(redis_url):
    async def main():
        redis = connect(redis_url)
        inbox = Inbox(redis, ACCOUNT)
        try:
            async with redis.pipeline(transaction=False) as pipe:
                for n in range(20 * COUNT):
                    pipe.set(f"other:{n}", "x")
                await pipe.execute()
            await asyncio.gather(*(inbox.put(delivery(n)) for n in range(50)))
            await lose(redis, KEYS)
            strays, mended = Strays(redis, PREFIX), set()
            sweeps = 0
            while len(mended) < 50:
                sweeps += 1
                mended |= set(await strays.mend(milliseconds(now())))
            assert 1 < sweeps <= 6
        finally:
            await redis.aclose()

    asyncio.run(main())


def test_a_flushed_queue_of_thousands_is_made_anew_by_one_sweep(redis_url):
    async def main():
        redis = connect(redis_url)
        inbox = Inbox(redis, ACCOUNT)
        subjects = Subjects(redis, PREFIX, Leases(redis, PREFIX, "one"))
        many = 3 * SWEPT_AT_ONCE + 7
        try:
            await asyncio.gather(*(inbox.put(delivery(n)) for n in range(many)))
            await lose(redis, [f"{PREFIX}queue"])
            soon = now() + timedelta(seconds=5)
            assert len(set(await subjects.sweep(soon))) == many
            assert await redis.zcard(f"{PREFIX}queue") == many
            assert list(await subjects.sweep(soon)) == []
        finally:
            await redis.aclose()

    asyncio.run(main())


def test_a_worker_mends_what_has_no_place_in_line_any_more(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, workers=0) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.until_delivered()
            await seller.redis.delete(f"{seller.prefix}due", f"{seller.prefix}queue")
            await seller.work()  # which sweeps at its start
            await local_whop.until(lambda: seller.calls("memberships.create"))
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")
            await jobs.sweep(seller.tools())

    asyncio.run(main())
