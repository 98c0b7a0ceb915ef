"""How a seat is given on accounts that Whop lets do less: an invitation, or a link for each."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import community
import pytest
from community import Clock
from local_whop import ACCOUNT

from worker.admin import seats
from worker.commands.explain import explain
from worker.marking import mark_grants
from worker.policy import ways
from worker.policy.brake import SECOND_LOOK
from worker.policy.marks import is_marked, mark
from worker.policy.ways import Refused, Way
from worker.sandbox.faults import Failure

COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 2 }
on_refund = "revoke"
"""
START = datetime(2026, 3, 2, 12, tzinfo=UTC)
CREATE, INVITE = "memberships.create", "memberships.invite"


def refuse(seller, *operations: str) -> None:
    """Have Whop let the account use these operations no more."""
    seller.whop.faults.unavailable = list(operations)


def tries(seller, operation: str) -> int:
    return len(seller.server.journal.of(operation))


def written(seller, name: str) -> list[str]:
    """Return what stands in a customer's support chat."""
    user = seller.whop.people.user(name).id
    chat = seller.whop.rooms.support_channel(user)
    return [message.content for message in seller.whop.rooms.said_in(chat.id)]


async def waiting(seller) -> list[seats.Waiting]:
    return await seats.waiting(seller.settings.rules, seller.settings.redis_url)


async def follow(seller, name: str, link: str):
    """Follow a link, as a user, and let everything happen that comes of it."""
    plan = seller.whop.catalog.plan(link.rpartition("/")[2])
    held = seller.whop.memberships.buy(plan.product_id, name, plan_id=plan.id)
    await seller.settled()
    return held


def test_an_account_that_may_neither_create_nor_invite_hands_each_buyer_a_link(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            refuse(seller, CREATE, INVITE)
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            (one,) = await waiting(seller)
            assert (one.room, one.cohort, one.told) == ("course", "1", START)
            assert one.link
            assert one.link in written(seller, "ada")[0]
            assert not await seller.may_enter("ada", "course/1")

            await follow(seller, "ada", one.link)
            assert await seller.may_enter("ada", "course/1")
            assert await waiting(seller) == []
            assert await seller.dead() == {}

    asyncio.run(main())


def test_what_was_refused_costs_the_next_buyer_nothing(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            refuse(seller, CREATE)
            for name in ("ada", "bob", "cy"):
                seller.whop.memberships.buy("prod_course", name)
                await seller.settled()
            assert tries(seller, CREATE) == 1
            assert len(seller.whop.tables.invitations) == 3
            clock.at += timedelta(days=1, minutes=1)
            seller.whop.memberships.buy("prod_course", "dee")
            await seller.settled()
            assert tries(seller, CREATE) == 2
            refused = await seller.store.refusals()
            assert (refused[Way.CREATE].since, refused[Way.CREATE].asked) == (START, clock.at)

    asyncio.run(main())


@pytest.mark.parametrize("fault", ["gone", "unavailable"])
def test_an_endpoint_that_is_gone_is_told_from_a_plan_that_is(redis_url, fault):
    async def main():
        async with community.running(redis_url, COURSE, clock=Clock(START)) as seller:
            setattr(seller.whop.faults, fault, [CREATE])
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            assert len(seller.whop.tables.invitations) == 1
            assert set(await seller.store.refusals()) == {Way.CREATE}

    asyncio.run(main())


def test_a_permission_that_is_missing_is_named_and_nothing_else_is_tried(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, clock=Clock(START)) as seller:
            seller.forbid("membership:create")
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            (death,) = (await seller.dead()).values()
            assert "lacks membership:create" in death.reason
            assert await seller.store.refusals() == {}

    asyncio.run(main())


def test_where_the_key_may_not_write_to_a_buyer_the_seller_has_the_link(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            refuse(seller, CREATE, INVITE)
            seller.forbid("support_chat:create")
            for name in ("ada", "bob"):
                seller.whop.memberships.buy("prod_course", name)
                await seller.settled()
            found = await waiting(seller)
            assert [(one.told, bool(one.link)) for one in found] == [(None, True)] * 2
            assert tries(seller, "support_channels.create") == 1

    asyncio.run(main())


def test_a_link_that_nobody_used_is_told_once_more_and_then_no_more(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            refuse(seller, CREATE, INVITE)
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            for _ in range(5):
                clock.at += timedelta(days=1, minutes=1)
                await seller.settled()
            first, second = written(seller, "ada")
            assert second == ways.REMINDER + first
            assert await seller.dead() == {}

    asyncio.run(main())


def test_an_answer_that_was_lost_does_not_write_to_a_buyer_twice(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            refuse(seller, CREATE, INVITE)
            lost = Failure(operation="messages.create", status=502, times=2, after=True)
            seller.whop.faults.failures = [lost]
            seller.whop.memberships.buy("prod_course", "ada")
            for _ in range(3):
                await seller.settled()
                await seller.bring_forward()
            await seller.settled()
            assert len(written(seller, "ada")) == 1

    asyncio.run(main())


def test_a_seat_that_was_offered_is_reserved_and_free_again_when_the_money_goes(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            refuse(seller, CREATE, INVITE)
            for name in ("ada", "bob", "cy"):
                held = seller.whop.memberships.buy("prod_course", name)
                await seller.settled()
                clock.at += timedelta(seconds=5)
                if name == "ada":
                    first = held
            assert [one.cohort for one in await waiting(seller)] == ["1", "1", "2"]
            link = (await waiting(seller))[0].link
            clock.at += timedelta(minutes=5)
            seller.whop.memberships.cancel(first.id)
            await seller.settled()
            seller.whop.memberships.buy("prod_course", "dee")
            await seller.settled()
            assert await seller.cohort("course", "dee") == "1"
            assert await seller.cohort("course", "ada") is None

            came = await follow(seller, "ada", link)  # all the same
            assert came.status == "canceled"
            assert not await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_who_comes_by_a_link_that_was_not_theirs_is_out_at_the_second_look(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            refuse(seller, CREATE, INVITE)
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            (one,) = await waiting(seller)
            came = await follow(seller, "eve", one.link)
            assert came.status == "completed"  # one look is none
            clock.at += SECOND_LOOK + timedelta(seconds=5)
            await seller.settled()
            assert came.status == "canceled"
            assert [one.user for one in await waiting(seller)] == [
                seller.whop.people.user("ada").id
            ]

    asyncio.run(main())


def test_a_stranger_is_only_reported_where_the_rules_say_so_or_seats_are_not_given_by_links(
    redis_url,
):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            place = await seller.store.place("course/1")
            came = await follow(seller, "eve", f"/{place.plan}")
            clock.at += timedelta(hours=1)
            await seller.settled()
            assert came.status == "completed"

    asyncio.run(main())


def test_a_probe_has_whop_asked_again_for_all_who_wait(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            refuse(seller, CREATE, INVITE)
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            refuse(seller)
            clock.at += timedelta(minutes=5)
            settings = seller.settings
            asked = await seats.probe(settings.rules, settings.redis_url, clock.at)
            assert (set(asked.refused), asked.members) == ({Way.CREATE, Way.INVITE}, 1)
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")
            assert await waiting(seller) == []

    asyncio.run(main())


def test_explain_says_which_way_is_in_use_and_why(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            refuse(seller, CREATE, INVITE)
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            lines: list[str] = []
            rules, url = seller.settings.rules, seller.settings.redis_url
            user = seller.whop.people.user("ada").id
            await explain(rules, url, user, None, now=clock.at, echo=lines.append)
            said = "\n".join(lines)
            assert "Whop refuses Create Membership and invitations to this account since" in said
            assert "they were written their link" in said

    asyncio.run(main())


def test_a_grant_is_marked_on_whop_and_where_the_creation_does_not_take_it_afterwards(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, clock=Clock(START)) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            seller.whop.faults.create_takes_metadata = False
            seller.whop.memberships.buy("prod_course", "bob")
            await seller.settled()
            given = [
                held
                for held in seller.whop.tables.memberships.values()
                if held.product_id != "prod_course"
            ]
            assert [is_marked(one.metadata, ACCOUNT, ("course",), "1") for one in given] == [
                True,
                False,
            ]
            await mark_grants(seller.tools())
            assert given[1].metadata == mark(ACCOUNT, "course", "1")
            assert await seller.store.to_mark() == {}

    asyncio.run(main())


def test_a_marked_grant_whose_purchase_ended_while_redis_was_lost_is_ended(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            await seller.rest()
            clock.at += timedelta(days=3)
            seller.whop.memberships.set_status(bought.id, "canceled")
            await seller.until_delivered()
            await seller.redis.flushall()
            clock.at += timedelta(days=3)
            await seller.work()
            await seller.settled()
            clock.at += SECOND_LOOK + timedelta(minutes=1)
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_ways_are_tried_in_their_order_and_what_was_refused_is_left_out_for_a_day():
    refused = {Way.CREATE: Refused(START, START, "403")}
    soon, later = START + timedelta(hours=23), START + timedelta(hours=25)
    assert ways.to_try("auto", {}, START) == [Way.CREATE, Way.INVITE, Way.LINK]
    assert ways.to_try("auto", refused, soon) == [Way.INVITE, Way.LINK]
    assert ways.to_try("auto", refused, later) == [Way.CREATE, Way.INVITE, Way.LINK]
    assert ways.to_try("create", refused, soon) == [Way.CREATE]
    assert ways.why_in_use("auto", {}, START) == "by Create Membership"


@pytest.mark.parametrize(
    ("status", "words", "not_available", "for_good"),
    [
        (403, "not available for your account", True, True),
        (404, "Not Found", False, True),
        (410, "Gone", False, True),
        (404, "No such User: user_1", False, False),
        (422, "plan_id: must be free", False, False),
    ],
)
def test_a_refusal_of_one_buyer_is_none_of_the_account(status, words, not_available, for_good):
    assert ways.is_for_good(status, words, not_available=not_available) is for_good


def test_a_message_has_the_link_and_the_words_of_the_seller():
    room = community.rules.parse(community.HEAD + COURSE).rooms[0]
    mine = replace(room, link_message="{name} ({cohort}): {link}")
    said = ways.message(mine, name="Course", cohort="1", link="https://x", again=False)
    assert said == "Course (1): https://x"
