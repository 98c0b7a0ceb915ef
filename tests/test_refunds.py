"""What becomes of the membership whose money went back, where the seller says `"cancel"`."""

import asyncio
from datetime import UTC, datetime, timedelta

import community
import pytest
from click.testing import CliRunner
from community import Clock
from test_explain import told
from test_lies import passes

from worker import rules
from worker.cli.main import main as usher
from worker.commands import plan as planned
from worker.commands.verify import verify
from worker.reasons import VERIFY
from worker.subjects import milliseconds

LOUNGE = """
[rooms.lounge]
name = "Lounge"
products = ["prod_lounge"]
on_refund = "cancel"
on_dispute = "cancel"
"""
COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
on_refund = "cancel"
on_dispute = "cancel"
"""
START = datetime(2026, 3, 2, 12, tzinfo=UTC)


def status(seller, bought):
    return seller.whop.memberships.get(bought.id).status


async def past_news(seller, clock):
    """Let the time go by in which a change may still be on its way to us."""
    clock.at += timedelta(minutes=5)
    await seller.settled()


def test_a_refund_cancels_the_membership_of_a_room_that_the_purchase_itself_opens(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE, one_time=("prod_lounge",)) as seller:
            bought = seller.whop.memberships.buy("prod_lounge", "ada")
            other = seller.whop.memberships.buy("prod_lounge", "grace")
            await seller.settled()
            assert await seller.may_enter("ada", "lounge")
            seller.whop.till.refund(bought.id)
            await seller.settled()
            assert status(seller, bought) == "canceled"
            assert not await seller.may_enter("ada", "lounge")
            assert status(seller, other) == "completed"
            trail = await seller.trail(f"member:{bought.user_id}")
            (why,) = [why for what, why in trail if what == "purchase.cancelled"]
            assert 'and the rules of lounge say on_refund = "cancel"' in why
            assert f"Usher cancelled their membership {bought.id}" in await told(
                seller, bought.user_id
            )

    asyncio.run(main())


def test_a_refund_of_a_cohorts_buyer_ends_the_purchase_and_the_seat(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            seller.whop.till.refund(bought.id)
            await seller.settled()
            assert status(seller, bought) == "canceled"
            assert not await seller.may_enter("ada", "course/1")
            assert not await seller.dead()

    asyncio.run(main())


def test_a_part_of_the_money_back_ends_nothing(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE, one_time=("prod_lounge",)) as seller:
            bought = seller.whop.memberships.buy("prod_lounge", "ada")
            await seller.settled()
            seller.whop.till.refund(bought.id, amount=1.0)
            await seller.settled()
            assert status(seller, bought) == "completed"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("first", "then", "ends"),
    [
        ("needs_response", "won", False),
        ("needs_response", "under_review", False),
        ("needs_response", "lost", True),
        ("needs_response", "prevented", True),
        ("warning_needs_response", "warning_closed", False),
    ],
)
def test_only_a_dispute_that_was_lost_ends_a_membership(redis_url, first, then, ends):
    async def main():
        async with community.running(redis_url, LOUNGE, one_time=("prod_lounge",)) as seller:
            bought = seller.whop.memberships.buy("prod_lounge", "ada")
            await seller.settled()
            dispute = seller.whop.till.dispute(bought.id, first)
            await seller.settled()
            assert status(seller, bought) == "completed"
            seller.whop.till.decide(dispute.id, then)
            await seller.settled()
            assert (status(seller, bought) == "canceled") is ends

    asyncio.run(main())


def test_of_a_membership_that_renews_only_the_latest_payment_counts(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE) as seller:
            bought = seller.whop.memberships.buy("prod_lounge", "ada")
            (first,) = seller.whop.tables.payments.values()
            await seller.settled()
            seller.whop.till.charge(bought, 29.0, "usd", "subscription_cycle")
            seller.whop.till.refund(bought.id, payment_id=first.id)
            await seller.settled()
            assert status(seller, bought) == "active"
            trail = await seller.trail(f"member:{bought.user_id}")
            assert any(what == "purchase.kept" and "is succeeded" in why for what, why in trail)
            seller.whop.till.refund(bought.id)
            await seller.settled()
            assert status(seller, bought) == "canceled"

    asyncio.run(main())


def test_a_payment_that_cannot_be_read_yet_is_tried_again(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(
            redis_url, LOUNGE, one_time=("prod_lounge",), clock=clock
        ) as seller:
            seller.whop.faults.payment_readable_after_seconds = 60
            bought = seller.whop.memberships.buy("prod_lounge", "ada")
            seller.whop.till.refund(bought.id)
            await seller.settled()
            assert status(seller, bought) == "completed"
            said = await told(seller, bought.user_id)
            assert "does not show it yet; next look in 2 s" in said
            await passes(seller, clock, 130)
            assert status(seller, bought) == "canceled"

    asyncio.run(main())


def test_a_list_of_payments_that_is_behind_ends_nothing_until_it_shows_them(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(
            redis_url, LOUNGE, one_time=("prod_lounge",), clock=clock
        ) as seller:
            seller.whop.faults.stale_lists_seconds = 60
            bought = seller.whop.memberships.buy("prod_lounge", "ada")
            seller.whop.till.refund(bought.id)
            await seller.settled()
            await passes(seller, clock, 20)
            assert status(seller, bought) == "completed"
            await passes(seller, clock, 200)
            assert status(seller, bought) == "canceled"

    asyncio.run(main())


def test_a_second_look_that_shows_the_money_as_kept_ends_nothing(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE, one_time=("prod_lounge",)) as seller:
            bought = seller.whop.memberships.buy("prod_lounge", "ada")
            await seller.settled()
            (payment,) = seller.whop.tables.payments.values()
            reads = 0
            read = seller.whop.till.payment

            def once_refunded(payment_id):
                nonlocal reads
                reads += 1
                payment.substatus = "refunded" if reads == 1 else "succeeded"
                return read(payment_id)

            await seller.rest()
            seller.whop.till.refund(bought.id)
            await seller.until_delivered()
            seller.whop.till.payment = once_refunded
            await seller.work()
            await seller.settled()
            assert reads >= 2
            assert status(seller, bought) == "completed"

    asyncio.run(main())


def test_an_admin_of_the_account_keeps_what_they_bought(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE, one_time=("prod_lounge",)) as seller:
            bought = seller.whop.memberships.buy("prod_lounge", "ada")
            seller.whop.people.add_admin("ada")
            await seller.restart()
            await seller.until_team_is_known(1)
            seller.whop.till.refund(bought.id)
            await seller.settled()
            assert status(seller, bought) == "completed"

    asyncio.run(main())


def test_a_refund_whose_news_was_lost_is_found_and_many_wait_for_a_person(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(
            redis_url, LOUNGE, one_time=("prod_lounge",), clock=clock
        ) as seller:
            bought = [seller.whop.memberships.buy("prod_lounge", f"b{n}") for n in range(7)]
            await seller.settled()
            (hook,) = seller.whop.tables.webhooks.values()
            hook.events = ["membership.activated"]
            seller.whop.till.refund(bought[0].id)
            await past_news(seller, clock)
            assert await verify(seller.settings, repair=True, clock=clock) == 0
            assert status(seller, bought[0]) == "canceled"
            for one in bought[1:]:
                seller.whop.till.refund(one.id)
            await past_news(seller, clock)
            assert await verify(seller.settings, repair=True, clock=clock) == 1
            assert [status(seller, one) for one in bought[1:]] == ["completed"] * 6
            assert "lounge" in await seller.tools().brake.engaged()
            await past_news(seller, clock)
            await verify(seller.settings, repair=True, take=6, clock=clock)
            await past_news(seller, clock)
            assert [status(seller, one) for one in bought[1:]] == ["canceled"] * 6

    asyncio.run(main())


def test_what_no_delivery_told_of_is_under_the_brake_in_the_worker_too(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(
            redis_url, LOUNGE, one_time=("prod_lounge",), clock=clock
        ) as seller:
            bought = [seller.whop.memberships.buy("prod_lounge", f"b{n}") for n in range(7)]
            await seller.settled()
            (hook,) = seller.whop.tables.webhooks.values()
            hook.events = ["membership.activated"]
            for one in bought:
                seller.whop.till.refund(one.id)
                await seller.tools().inbox.mark(
                    f"member:{one.user_id}", VERIFY, milliseconds(clock())
                )
                await seller.settled()
            assert [status(seller, one) for one in bought].count("canceled") == 5
            assert "lounge" in await seller.tools().brake.engaged()

    asyncio.run(main())


def test_many_refunds_that_were_told_of_need_nobodys_word(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE, one_time=("prod_lounge",)) as seller:
            bought = [seller.whop.memberships.buy("prod_lounge", f"b{n}") for n in range(9)]
            await seller.settled()
            for one in bought:
                seller.whop.till.refund(one.id)
            await seller.settled()
            assert {status(seller, one) for one in bought} == {"canceled"}

    asyncio.run(main())


def test_what_the_rules_do_to_refunded_buyers_is_said_before_it_happens(tmp_path):
    quiet = LOUNGE.replace('on_refund = "cancel"\non_dispute = "cancel"\n', "")
    for text, line in (
        (LOUNGE, "buyers, refunded whole, their membership is cancelled at Whop"),
        (quiet, "buyers, refunded, they stay in: a refund does not end a membership at Whop"),
    ):
        path = tmp_path / "rooms.toml"
        path.write_text(community.HEAD + text)
        found = CliRunner().invoke(usher, ["check", str(path)])
        assert line in found.output, found.output
    loud = rules.parse(community.HEAD + LOUNGE)
    made = planned.plan(loud.rooms, START, START + timedelta(days=1))
    assert any("their membership is cancelled" in line for line in planned.lines(loud.rooms, made))
    assert planned.document(made, loud.rooms)["money_back"] == [
        {"room": "lounge", "on_refund": "cancel", "on_dispute": "cancel"}
    ]
    assert planned.document(made, rules.parse(community.HEAD + quiet).rooms)["money_back"] == []
