"""Two accounts on one Redis database: each does all its own work, and none sees the other's."""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime

import community
import local_whop
from community import Community

from worker import main

ONE, OTHER = community.ACCOUNT, "biz_Other000000001"
ROOMS = """
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]

[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 10 }
"""

_UNNAMED = """
for _, queue in ipairs({'queue', 'queue:rooms'}) do
  for _, at in ipairs({redis.call('ZRANGE', ARGV[1] .. queue, 0, -1, 'WITHSCORES')}) do
    for i = 1, #at, 2 do
      local old = string.sub(at[i], #ARGV[1] + 1)
      redis.call('RENAME', 'arq:job:' .. at[i], 'arq:job:' .. old)
      redis.call('ZREM', ARGV[1] .. queue, at[i])
      redis.call('ZADD', ARGV[1] .. queue, at[i + 1], old)
      redis.call('HSET', ARGV[1] .. 'job', string.match(old, '^(.*)@'), old)
    end
  end
end
"""
"""Lua: name the jobs that wait as older versions did, by their subject alone."""


@contextlib.asynccontextmanager
async def both(redis_url, *, workers):
    """Run two communities in which all ids but the accounts' are the same: the worst case."""
    async with (
        community.running(redis_url, ROOMS, workers=workers, account=ONE) as one,
        community.running(redis_url, ROOMS, workers=workers, account=OTHER) as other,
    ):
        yield one, other


async def has_all_that_it_paid_for(seller: Community, buyers: int) -> None:
    whole = buyers // 10
    assert seller.rooms() == [*(f"Course, cohort {n + 1}" for n in range(whole)), "The Lounge"]
    for n in range(buyers):
        cohort = await seller.cohort("course", f"buyer{n}")
        assert await seller.may_enter(f"buyer{n}", f"course/{cohort}")
    assert seller.calls("memberships.list") == seller.calls("memberships.create") == buyers
    assert await seller.dead() == {}


def test_two_accounts_on_one_database_get_all_their_work_done_and_none_sees_the_others(
    redis_url, capsys
):
    async def main():
        async with both(redis_url, workers=2) as (one, other):
            for n in range(60):
                one.whop.memberships.buy("prod_course", f"buyer{n}")
                if n < 40:
                    other.whop.memberships.buy("prod_course", f"buyer{n}")
            await asyncio.gather(one.settled(), other.settled())
            await has_all_that_it_paid_for(one, 60)
            await has_all_that_it_paid_for(other, 40)
            prefixes = (f"usher:{ONE}:", f"usher:{OTHER}:")
            arqs = (f"arq:{kind}:" for kind in ("job", "in-progress", "retry"))
            ours = (*prefixes, *(arq + prefix for arq in arqs for prefix in prefixes))
            for key in await one.redis.keys("*"):
                assert key.decode().startswith(ours)

    asyncio.run(main())
    out = capsys.readouterr().out
    assert "job.mended" not in out  # none of them lost a job to the other
    assert "job.broke" not in out


def test_what_keeps_house_for_one_account_does_so_for_the_other_at_the_same_instant(redis_url):
    async def main():
        async with both(redis_url, workers=0) as sellers:
            at, ids = datetime.now(UTC), []
            for seller in sellers:
                house = main_house(seller)
                for job in house.cron_jobs:
                    job.next_run = at
                await house.run_cron(at, 1)
                queued = await seller.redis.zrange(f"{seller.prefix}queue:house", 0, -1)
                assert len(queued) == len(house.cron_jobs)
                ids += queued
                await house.close()
            assert len(set(ids)) == len(ids)

    asyncio.run(main())


def main_house(seller: Community) -> main.Worker:
    """Return the lane that keeps a seller's house."""
    return main.Worker(handle_signals=False, **main._house(seller.settings))


def test_jobs_that_an_older_version_left_are_done_after_the_upgrade(redis_url, capsys, caplog):
    async def life():
        async with community.running(redis_url, ROOMS, workers=0) as seller:
            for n in range(10):
                seller.whop.memberships.buy("prod_course", f"buyer{n}")
            await seller.until_delivered()
            await seller.redis.eval(_UNNAMED, 0, seller.prefix)
            old = main._lane(seller.settings, "queue:house", 1)["redis_pool"]
            await main.ArqRedis.enqueue_job(
                old, "cron:take_in", _job_id="cron:take_in:1", _queue_name=old.default_queue_name
            )
            assert len(await seller.redis.keys("arq:job:member:*")) == 10
            await seller.work()
            await seller.settled()
            await has_all_that_it_paid_for(seller, 10)
            async with asyncio.timeout(local_whop.PATIENCE):
                while await seller.redis.exists("arq:job:cron:take_in:1"):  # noqa: ASYNC110 - a worker does it
                    await asyncio.sleep(0.01)
            assert await seller.redis.keys("arq:job:member:*") == []
            await old.aclose(close_connection_pool=True)

    with caplog.at_level(logging.WARNING, logger="arq"):
        asyncio.run(life())
    assert "job.mended" not in capsys.readouterr().out
    assert [r for r in caplog.records if r.name.startswith("arq")] == []
