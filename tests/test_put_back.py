"""A Redis that was put back to an older copy of itself: no seat is given twice for it."""

import asyncio
from datetime import UTC, datetime, timedelta

import community
import pytest
from community import Clock

from worker.policy.differences import Kind
from worker.proof.inspection import inspect

COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 3 }
"""
START = datetime(2026, 3, 2, 12, tzinfo=UTC)
SLOW = ("quota", "lock:")
"""Keys that a copy does not have: they live for seconds."""


async def copied(seller) -> dict[bytes, bytes]:
    """Take a copy of all that Redis knows."""
    keys = [key async for key in seller.redis.scan_iter("*")]
    keys = [key for key in keys if not any(word in key.decode() for word in SLOW)]
    return {key: value for key in keys if (value := await seller.redis.dump(key))}


async def put_back(seller, copy: dict[bytes, bytes]) -> None:
    await seller.redis.flushall()
    for key, value in copy.items():
        await seller.redis.restore(key, 0, value)


async def bought(seller, *names: str) -> None:
    for name in names:
        seller.whop.memberships.buy("prod_course", name)
        await seller.settled()


@pytest.mark.parametrize("restarted", [False, True], ids=["at work", "while nobody worked"])
def test_the_fourth_buyer_gets_no_seat_in_a_cohort_of_three(redis_url, restarted):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            await bought(seller, "ada")
            copy = await copied(seller)
            clock.at += timedelta(hours=1)
            await bought(seller, "bob", "cy")
            if restarted:
                await seller.rest()
            await put_back(seller, copy)
            if restarted:
                await seller.work()
                await seller.settled()
            clock.at += timedelta(minutes=1)
            await bought(seller, "dee")
            assert await seller.cohort("course", "dee") == "2"
            assert [await seller.cohort("course", one) for one in ("ada", "bob", "cy")] == ["1"] * 3
            async with seller.workbench() as tools:
                assert (await inspect(tools)).differences == []

    asyncio.run(main())


def test_a_member_of_whom_the_copy_knows_less_keeps_their_seat(redis_url):
    async def main():
        clock = Clock(START)
        rooms = COURSE.replace('prod_course"]', 'prod_course", "prod_club"]')
        async with community.running(redis_url, rooms, clock=clock) as seller:
            await bought(seller, "ada")
            seller.whop.people.meet("bob")
            seller.whop.memberships.buy("prod_club", "bob")
            await seller.settled()
            user = seller.whop.people.user("bob").id
            clock.at += timedelta(hours=1)
            await seller.redis.hdel(f"{seller.prefix}seats:course", user)
            known = await seller.store.member(user)
            known.grants.clear()
            await seller.store.save_member(user, known)  # as a copy of before may have it
            await seller.redis.hset(f"{seller.prefix}filled:course", "1", 1)
            await seller.redis.set(f"{seller.prefix}written", 1)
            await bought(seller, "cy", "dee")
            assert await seller.cohort("course", "bob") == "1"
            assert await seller.cohort("course", "dee") == "2"
            assert (await seller.store.member(user)).grants["course"].membership

    asyncio.run(main())


def test_a_cohort_with_more_members_than_seats_is_named(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            await bought(seller, "ada", "bob", "cy", "dee")
            user = seller.whop.people.user("dee").id
            await seller.redis.hset(f"{seller.prefix}seats:course", user, "1")
            async with seller.workbench() as tools:
                found = (await inspect(tools)).differences
            assert [(one.kind, one.room) for one in found if one.kind is Kind.OVERFULL] == [
                (Kind.OVERFULL, "course/1")
            ]

    asyncio.run(main())
