"""What Whop says that is not so: lists that are empty, late or short, and a 404 that is not true.

A buyer who is put out by a lie of Whop's is our fault.
"""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import community
import pytest
from community import Clock
from deliveries import envelope
from local_whop import ACCOUNT

from webhooks import events
from webhooks.inbox import connect
from worker.admin import brakes
from worker.brake import Brake
from worker.commands.explain import explain
from worker.policy.brake import SECOND_LOOK, Word
from worker.sandbox.faults import Emptied, Failure
from worker.sight import MEMBERS
from worker.subjects import milliseconds

COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
"""
START = datetime(2026, 3, 2, 12, tzinfo=UTC)


async def passes(seller, clock: Clock, seconds: float) -> None:
    """Let time pass in steps, with all that is due in each."""
    end = clock.at + timedelta(seconds=seconds)
    while clock.at < end:
        clock.at = min(clock.at + timedelta(seconds=max(2, seconds / 20)), end)
        await seller.settled()


@pytest.mark.parametrize("lag", [3, 9, 60])
def test_a_buyer_whom_the_list_shows_late_is_let_in(redis_url, lag):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            seller.whop.faults.stale_lists_seconds = lag
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            await passes(seller, clock, 2 * lag + 4)
            assert await seller.may_enter("ada", "course/1")
            assert seller.calls("memberships.create") == 1

    asyncio.run(main())


@pytest.mark.parametrize("lag", [3, 60])
def test_a_payment_alone_lets_a_buyer_in_whom_the_list_shows_late(redis_url, lag):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            (hook,) = seller.whop.tables.webhooks.values()
            hook.events = ["payment.succeeded"]
            seller.whop.faults.stale_lists_seconds = lag
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            await passes(seller, clock, 2 * lag + 4)
            assert await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_an_end_that_the_list_shows_late_puts_its_member_out(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            clock.at += timedelta(minutes=5)
            seller.whop.faults.stale_lists_seconds = 60
            seller.whop.memberships.cancel(bought.id)
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")  # the object itself shows it

    asyncio.run(main())


def test_a_list_without_a_row_that_was_known_puts_nobody_out(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            seller.whop.faults.emptied = [Emptied(operation="memberships.list", times=99)]
            clock.at += timedelta(minutes=1)
            seller.whop.memberships.buy("prod_course", "ada")  # news of them
            await seller.settled()
            await passes(seller, clock, 1200)
            assert await seller.may_enter("ada", "course/1")
            assert seller.calls("memberships.cancel") == 0

    asyncio.run(main())


def test_a_purchase_that_neither_list_nor_id_shows_is_not_taken_for_ended(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            faults = seller.whop.faults
            faults.emptied = [Emptied(operation="memberships.list", times=10_000)]
            faults.failures = [Failure(operation="memberships.retrieve", status=404, times=10_000)]
            user = seller.whop.people.user("ada").id
            for _ in range(30):
                clock.at += timedelta(hours=1)
                await seller.settled()
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")
            faults.emptied, faults.failures = [], []
            seller.whop.memberships.cancel(bought.id)
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")
            assert user

    asyncio.run(main())


def test_without_the_permission_to_see_members_nothing_is_taken_and_all_goes_on_with_it(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            seller.forbid(MEMBERS)
            seller.whop.memberships.buy("prod_course", "ada")
            bob = seller.whop.memberships.buy("prod_course", "bob")
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")
            assert not await seller.may_enter("bob", "course/1")
            assert await seller.tools().sight.waiting() == 2
            assert await seller.tools().sight.lacking() == (MEMBERS,)
            assert await seller.dead() == {}

            seller.allow_everything()
            await seller.tools().sight.refresh()
            await seller.settled()
            assert await seller.may_enter("bob", "course/1")  # nobody told of him again
            assert await seller.tools().sight.waiting() == 0
            assert bob

    asyncio.run(main())


@pytest.mark.parametrize("known", [True, False], ids=["seen by its id", "unseen"])
def test_a_404_on_a_cancel_that_was_not_done_lets_nobody_stay(redis_url, known):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            lies = [Failure(operation="memberships.cancel", status=404)]
            if not known:
                lies.append(Failure(operation="memberships.retrieve", status=404))
                seller.whop.faults.emptied = []
            seller.whop.memberships.cancel(bought.id)
            seller.whop.faults.failures = lies
            await seller.settled()
            await passes(seller, clock, 60)
            assert not await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_a_take_that_nothing_explains_waits_for_a_second_look(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            await unexplained(seller, ["ada"])
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")
            assert "take.held" in [what for what, _ in await seller.trail(member(seller, "ada"))]
            clock.at += SECOND_LOOK + timedelta(seconds=1)
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")

    asyncio.run(main())


@pytest.mark.parametrize("word", Word)
def test_many_that_nothing_explains_wait_for_a_person(redis_url, word):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            names = [f"buyer{n}" for n in range(8)]
            await unexplained(seller, names)
            await seller.settled()
            await passes(seller, clock, 3600)
            assert [await seller.may_enter(name, "course/1") for name in names] == [True] * 8
            rules, url = seller.settings.rules, seller.settings.redis_url
            (found,) = await brakes.show(rules, url, None)
            assert found.engaged
            assert len(found.held) == 8
            about = await brakes.say(rules, url, "course", word, by="ann", why="seen", now=clock.at)
            assert len(about) == 8
            await seller.settled()
            await passes(seller, clock, 1800)
            stay = [await seller.may_enter(name, "course/1") for name in names]
            assert stay == [word is Word.REFUSED] * 8
            assert not (await brakes.show(rules, url, "course"))[0].engaged

    asyncio.run(main())


def test_a_membership_that_went_to_another_user_takes_its_seat_along(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            clock.at += timedelta(minutes=1)
            seller.whop.memberships.transfer(bought.id, "bob")
            await seller.settled()
            await passes(seller, clock, 10)
            assert await seller.may_enter("bob", "course/1")
            assert not await seller.may_enter("ada", "course/1")
            assert await seller.cohort("course", "ada") is None
            assert (await seller.store.filled(["course"]))["course"] == {"1": 1}

    asyncio.run(main())


def test_explain_says_what_whop_does_not_show_yet(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            faults = seller.whop.faults
            faults.stale_lists_seconds = 600
            faults.failures = [Failure(operation="memberships.retrieve", status=404, times=99)]
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            said: list[str] = []
            await explain(
                seller.settings.rules,
                seller.settings.redis_url,
                seller.whop.people.user("ada").id,
                None,
                now=clock.at,
                echo=said.append,
            )
            line = next(line for line in said if "does not show" in line)
            assert bought.id in line
            assert "next look in" in line

    asyncio.run(main())


def member(seller, name: str) -> str:
    return f"member:{seller.whop.people.user(name).id}"


async def unexplained(seller, names: list[str]) -> None:
    """Have buyers whose purchases Whop shows as ended, with no news of it and no date."""
    for name in names:
        seller.whop.memberships.buy("prod_course", name)
    await seller.settled()
    for name in names:
        user = seller.whop.people.user(name)
        for held in seller.whop.index.by_user[user.id]:
            if held.product_id == "prod_course":
                held.billing, held.updated_at = "canceled", seller.clock()
    for name in names:
        await seller.tools().inbox.mark(
            member(seller, name), "test", int(seller.clock().timestamp() * 1000)
        )


def test_a_word_on_who_does_not_wait_any_more_is_kept_of_nobody(redis_url):
    """A job may settle somebody while a person speaks."""

    async def main():
        redis = connect(redis_url)

        class Meanwhile(Brake):
            async def held(self, room):
                waiting = await super().held(room)
                await self.withdrawn(room, "user_a")
                return waiting

        brake = Meanwhile(redis, f"usher:{ACCOUNT}:", lambda: START)
        try:
            await brake.hold_all("course", {"user_a": "gone", "user_b": "gone"}, 9)
            users = ["user_a", "user_b"]
            meant = await brake.say("course", Word.RELEASED, users, by="ann", why="seen")
            assert meant == ["user_b"]
            assert {*await Brake.held(brake, "course")} == {"user_b"}
            assert not await brake.engaged()
        finally:
            await redis.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("ours", [True, False])
def test_a_delivery_without_an_account_is_ours_only_if_what_it_tells_is_found_here(redis_url, ours):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            (hook,) = seller.whop.tables.webhooks.values()
            hook.enabled = False
            held = seller.whop.memberships.buy("prod_course", "ada")
            id_ = held.id if ours else "mem_anothers00001"
            data = {
                "id": id_,
                "status": "completed",
                "user_id": held.user_id,
                "product_id": "prod_course",
            }
            body = envelope("msg_nameless", account_id=None, data=data)
            delivery = events.read(json.dumps(body).encode(), received=milliseconds(clock.at))
            assert await seller.tools().inbox.put(delivery)
            if not ours:
                seller.whop.memberships.cancel(held.id)
            await seller.settled()
            await passes(seller, clock, 1500)
            assert (await seller.cohort("course", "ada") == "1") is ours
            steps = await seller.store.steps(f"member:{held.user_id}")
            refused = [step.id for step in steps if step.what == "delivery.refused"]
            assert refused == ([] if ours else [id_])
            assert not (await seller.store.member(held.user_id)).unshown

    asyncio.run(main())
