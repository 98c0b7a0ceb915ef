"""The worker under strain: many at once, crashes between steps, refusals, lost jobs."""

import asyncio
import json
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta

import community
import local_whop
import pytest

from webhooks.events import Delivery
from webhooks.inbox import Inbox
from worker import jobs
from worker.sandbox.faults import Failure
from worker.sandbox.records import Membership
from worker.subjects import milliseconds
from worker.supervisor import end

COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
welcome = "Glad you are here."
"""
LOUNGE = """
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]
user_posts_cooldown_seconds = 5
banned_words = ["telegram"]
welcome = "Welcome."
"""

STEPS = [
    "products.list",
    "products.create",
    "variants.list",
    "variants.create",
    "experiences.list",
    "experiences.create",
    "chat_channels.retrieve",
    "experiences.retrieve",
    "experiences.attach",
    "messages.list",
    "messages.create",
    "memberships.list",
    "memberships.create",
]


def test_two_hundred_buyers_fill_four_cohorts_of_fifty_through_four_workers(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, workers=4) as seller:
            for n in range(200):
                seller.whop.memberships.buy("prod_course", f"buyer{n}")
            await seller.settled()
            assert seller.rooms() == [f"Course, cohort {n}" for n in (1, 2, 3, 4)]
            cohorts = Counter([await seller.cohort("course", f"buyer{n}") for n in range(200)])
            assert cohorts == {"1": 50, "2": 50, "3": 50, "4": 50}
            for n in range(200):
                cohort = await seller.cohort("course", f"buyer{n}")
                assert await seller.may_enter(f"buyer{n}", f"course/{cohort}")
            assert seller.calls("memberships.list") == seller.calls("memberships.create") == 200
            assert await seller.store.count_granted([f"course/{n}" for n in "1234"]) == {
                f"course/{n}": 50 for n in "1234"
            }

    asyncio.run(main())


def test_two_workers_that_need_one_room_make_one_room(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, workers=2) as seller:
            seller.whop.faults.latency_seconds = 0.05
            for n in range(8):
                seller.whop.memberships.buy("prod_course", f"buyer{n}")
            await seller.settled()
            assert seller.rooms() == ["Course, cohort 1"]
            assert seller.calls("products.create") == seller.calls("experiences.create") == 1
            channel = await seller.channel("course/1")
            assert len(seller.whop.rooms.messages_in(channel)) == 1

    asyncio.run(main())


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_is_done_in_the_end_and_nothing_twice(redis_url, step, after):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.faults.ignore_idempotency = ["experiences.create", "messages.create"]
            seller.whop.faults.failures = [
                Failure(operation=step, status=500, times=3, after=after)
            ]
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.all_settled()
            assert await seller.may_enter("ada", "course/1")
            tables = seller.whop.tables
            grants = [m for m in tables.memberships.values() if m.plan_id != _sold(seller)]
            assert len(grants) == 1
            assert seller.rooms() == ["Course, cohort 1"]
            messages = seller.whop.rooms.messages_in(await seller.channel("course/1"))
            assert [message.content for message in messages] == ["Glad you are here."]
            hidden = [p for p in tables.products.values() if p.visibility == "hidden"]
            assert len(hidden) == 1

    asyncio.run(main())


def _sold(seller: community.Community) -> str:
    return next(p.id for p in seller.whop.tables.plans.values() if p.product_id == "prod_course")


def test_a_delivery_that_arrives_while_its_member_is_converged_is_not_lost(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.faults.latency_seconds = 0.2
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.until_called("memberships.list")
            seller.whop.memberships.cancel(bought.id)  # read as bought, and now it is not
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")
            assert seller.calls("memberships.list") >= 2

    asyncio.run(main())


def test_deliveries_in_their_hundreds_for_one_member_are_one_subject(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, workers=2) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            user = seller.whop.people.user("ada").id
            inbox = Inbox(seller.redis, community.ACCOUNT)
            await asyncio.gather(*(inbox.put(_hint(f"msg_{n}", user)) for n in range(300)))
            await seller.settled()
            assert await seller.redis.llen(f"{seller.prefix}pending:member:{user}") == 0
            assert seller.calls("memberships.list") < 60
            assert seller.calls("memberships.create") == 1

    asyncio.run(main())


def _echo(held: Membership) -> Delivery:
    """Return a delivery that tells just what was seen when the work failed."""
    return Delivery(
        id="msg_echo",
        type="membership.updated",
        received=milliseconds(datetime.now(UTC)),
        subject=f"member:{held.user_id}",
        user=held.user_id,
        membership=held.id,
        product="prod_course",
        status="completed",
        updated_at=held.updated_at,
    )


def test_a_room_that_is_refused_does_not_hold_up_the_others(redis_url):
    two = (
        COURSE
        + """
[rooms.bonus]
name = "Bonus {cohort}"
products = ["prod_course"]
cohort = { by = "month" }
"""
    )

    async def main():
        async with community.running(redis_url, two) as seller:
            seller.whop.faults.failures = [
                Failure(operation="products.create", status=422, times=1)  # the course's
            ]
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            cohort = await seller.cohort("bonus", "ada")
            assert await seller.may_enter("ada", f"bonus/{cohort}")
            await seller.all_settled()
            assert await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_more_seats_in_the_rules_never_overfill_a_cohort(redis_url):
    async def main():
        async with community.running(redis_url, COURSE.replace("50", "3")) as seller:
            for n in range(7):
                seller.whop.memberships.buy("prod_course", f"early{n}")
            await seller.settled()
            await seller.rest()
            seller.settings = community.settings(seller.settings, COURSE.replace("50", "4"))
            await seller.work()
            for n in range(6):
                seller.whop.memberships.buy("prod_course", f"late{n}")
            await seller.settled()
            cohorts = await seller.redis.hvals(f"{seller.prefix}seats:course")
            assert Counter(cohorts) == {b"1": 3, b"2": 3, b"3": 4, b"4": 3}

    asyncio.run(main())


def test_a_room_that_becomes_a_cohort_room_is_not_taken_from_its_buyers(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE) as seller:
            seller.whop.memberships.buy("prod_basic", "ada")
            await seller.settled()
            before = seller.whop.rooms.experience((await seller.place("lounge")).experience)
            await seller.rest()
            other = LOUNGE.replace("Lounge", "Lounge {cohort}") + 'cohort = { by = "month" }\n'
            seller.settings = community.settings(seller.settings, other)
            await seller.work()
            await seller.settled()
            assert before.product_ids == ["prod_basic"]
            assert await seller.may_enter("ada", "lounge")

    asyncio.run(main())


def test_a_chat_of_the_teams_own_is_not_opened_to_buyers(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            own = seller.whop.rooms.create_experience(community.chat("The Lounge"))
            await seller.rest()
            seller.settings = community.settings(seller.settings, LOUNGE)
            seller.whop.catalog.create_product(community.product("Basic"), given_id="prod_basic")
            await seller.work()
            await seller.settled()
            assert own.product_ids == []
            assert (await seller.place("lounge")).experience != own.id

    asyncio.run(main())


def test_a_grant_that_the_seller_ended_meanwhile_is_as_good_as_taken(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            seller.whop.faults.failures = [
                Failure(operation="memberships.cancel", status=409, times=1),
            ]
            seller.whop.memberships.cancel(bought.id)
            await seller.all_settled()  # a 409 while the grant lives is tried again
            assert not await seller.may_enter("ada", "course/1")
            assert await seller.dead() == {}

    asyncio.run(main())


def test_work_that_is_cut_off_gives_its_subject_back(redis_url):
    async def main():
        async with (
            community.running(redis_url, COURSE, workers=0) as seller,
            seller.workbench() as tools,
        ):
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.until_delivered()
            (subject,) = await seller.due()
            seller.whop.faults.latency_seconds = 1
            running = asyncio.create_task(jobs.run(tools, subject))
            lock = f"{seller.prefix}lock:{subject}"
            await local_whop.until(lambda: tools.leases._held)  # it has it, and knows
            assert await seller.redis.exists(lock)
            await end([running])
            assert running.cancelled()
            assert not await seller.redis.exists(lock)
            assert await seller.due() == [subject]  # and whoever comes next does it

    asyncio.run(main())


def test_a_job_that_cannot_be_settled_does_not_keep_its_subject(redis_url):
    async def main():
        async with (
            community.running(redis_url, COURSE, workers=0) as seller,
            seller.workbench() as tools,
        ):
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.until_delivered()
            (subject,) = await seller.due()
            seller.whop.faults.latency_seconds = 0.1
            running = asyncio.create_task(jobs.run(tools, subject))
            await local_whop.until(lambda: tools.leases._held)
            await seller.redis.rename(f"{seller.prefix}job", "aside")
            await seller.redis.set(f"{seller.prefix}job", "Redis refuses to settle with this")
            await asyncio.wait([running])
            assert running.exception() is not None
            assert tools.leases._held == {}  # or it would be renewed, and nobody could claim it

    asyncio.run(main())


def _hint(id_: str, user: str) -> Delivery:
    at = milliseconds(datetime.now(UTC))
    return Delivery(id=id_, type="refund.created", received=at, subject=f"member:{user}", user=user)


def test_a_missing_permission_stops_at_once_and_a_restart_tries_again(redis_url, capsys):
    async def main():
        async with community.running(redis_url, COURSE, workers=0) as seller:
            seller.forbid("membership:create")
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.until_delivered()  # one that comes after the death is one more try
            await seller.work()
            await seller.settled()
            (death,) = (await seller.dead()).values()
            assert "membership:create" in death.reason
            assert seller.server.journal.counts["memberships.create"] == {403: 1}
            seller.allow_everything()
            await seller.rest()
            await seller.work()
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")
            assert await seller.dead() == {}

    asyncio.run(main())
    assert "job.died" in capsys.readouterr().out


def test_what_whop_refuses_is_tried_for_a_day_and_then_kept(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.faults.failures = [
                Failure(operation="memberships.create", status=422, times=99)
            ]
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            assert await seller.dead() == {}
            await seller.age_failures(hours=31)
            await seller.bring_forward()
            await seller.settled()
            (death,) = (await seller.dead()).values()
            assert "422" in death.reason
            seller.whop.faults.failures = []
            bought = next(iter(seller.whop.tables.memberships.values()))
            pending = f"{seller.prefix}pending:member:{bought.user_id}"
            await seller.redis.lrem(pending, 0, "test")  # only deliveries wait, as in real life
            await Inbox(seller.redis, community.ACCOUNT).put(_echo(bought))  # nothing new in it
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")
            assert await seller.dead() == {}

    asyncio.run(main())


def test_what_fails_for_more_than_a_day_is_kept_with_its_reason(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.faults.failures = [
                Failure(operation="memberships.list", status=503, times=99)
            ]
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            assert await seller.dead() == {}
            await seller.age_failures(hours=31)
            await seller.bring_forward()
            await seller.settled()
            (death,) = (await seller.dead()).values()
            assert "503" in death.reason
            assert death.deliveries

    asyncio.run(main())


def test_a_job_that_was_lost_is_made_anew(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, workers=0) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.until_delivered()
            await seller.redis.delete(f"{seller.prefix}queue")  # a flushed queue
            for key in await seller.redis.keys("arq:job:*"):
                await seller.redis.delete(key)
            assert await seller.subjects.sweep(datetime.now(UTC) + timedelta(seconds=5))
            await seller.work()
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_a_patch_sends_only_what_differs_and_nothing_where_nothing_does(redis_url):
    async def main():
        rooms = LOUNGE + 'manual_edits = "revert"\n'
        async with community.running(redis_url, rooms) as seller:
            seller.forbid("chat:moderate")
            before = dict(seller.server.journal.counts["chat_channels.update"])
            await seller.rest()
            await seller.work()  # looks again at every room; the words read empty now
            await seller.settled()
            assert seller.server.journal.counts["chat_channels.update"] == before
            assert await seller.dead() == {}
            channel = await seller.channel("lounge")
            assert channel.banned_words == ["telegram"]
            seller.allow_everything()
            channel.user_posts_cooldown_seconds = 90  # by hand
            await seller.rest()
            await seller.work()
            await community.watch(seller)
            patch = json.loads(seller.last_body("chat_channels.update"))
            assert patch == {"user_posts_cooldown_seconds": 5}

    asyncio.run(main())


def test_a_bug_in_a_job_is_logged_and_tried_again(redis_url, capsys):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            inbox = Inbox(seller.redis, community.ACCOUNT)
            at = milliseconds(datetime.now(UTC))
            await seller.redis.set(f"{seller.prefix}member:user_x", "not JSON")
            await inbox.mark("member:user_x", "test", at)
            await seller.settled()
            assert await seller.redis.zscore(f"{seller.prefix}due", "member:user_x") > at
            await seller.redis.delete(f"{seller.prefix}member:user_x")
            await seller.bring_forward()
            await seller.settled()
            assert await seller.redis.zscore(f"{seller.prefix}due", "member:user_x") is None

    asyncio.run(main())
    assert "job.broke" in capsys.readouterr().out


def test_no_secret_and_no_person_is_in_redis_or_in_a_line(redis_url, capsys, caplog):
    async def main():
        async with community.running(redis_url, COURSE, pinned=False) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            everything = await seller.everything_in_redis()
            for secret in (community.API_KEY, community.SECRET, "ada@", "@example"):
                assert secret not in everything

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
    lines = capsys.readouterr().out + caplog.text
    for secret in (community.API_KEY, community.SECRET, "ada@", "@example"):
        assert secret not in lines


def test_jobs_module_names_its_two_kinds_of_failure():
    assert jobs._advice(RuntimeError("x")) != jobs._advice(jobs.Forbidden("GET /x", "no", 403))
