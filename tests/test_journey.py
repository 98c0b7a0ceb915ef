"""The whole journey over real sockets, for each of the five uses of a room.

Local Whop -> signed webhook -> receiver -> Redis -> worker -> local Whop. What came of it is asked
of the local Whop, not of us.
"""

import asyncio
import contextlib
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import community
import local_whop
import pytest
from community import Clock
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from webhooks.events import Delivery
from webhooks.inbox import Inbox
from worker.supervisor import end

LOUNGE = """
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic", "prod_vip"]
ban_urls = true
banned_words = ["telegram"]
welcome = "Welcome. Say hello."
"""
ANNOUNCEMENTS = """
[rooms.announcements]
name = "Announcements"
products = ["prod_basic", "prod_vip"]
who_can_post = "admins"
"""
VIP = """
[rooms.vip]
name = "VIP"
products = ["prod_vip"]
"""
COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
welcome = "Glad you are here."
"""
AMA = """
[rooms.ama]
name = "Live AMA"
products = ["prod_ticket"]
opens = "15m"
locks = "30m"
archives = "14d"
occurrences = [{ starts = 2024-12-05T18:00:00, lasts = "90m" }]
"""


@pytest.mark.parametrize("pinned", [True, False], ids=["flat payloads", "nested payloads"])
def test_a_purchase_opens_the_main_room_by_itself(redis_url, pinned):
    async def main():
        rooms = LOUNGE + ANNOUNCEMENTS + VIP
        async with community.running(redis_url, rooms, pinned=pinned) as seller:
            assert seller.rooms() == ["Announcements", "The Lounge", "VIP"]
            seller.whop.people.meet("eve")
            basic = seller.whop.memberships.buy("prod_basic", "ada")
            seller.whop.memberships.buy("prod_vip", "bob")
            await seller.settled()
            access = {
                (user, room): await seller.may_enter(user, room)
                for user in ("ada", "bob", "eve")
                for room in ("lounge", "announcements", "vip")
            }
            assert {key for key, may in access.items() if may} == {
                ("ada", "lounge"),
                ("ada", "announcements"),
                ("bob", "lounge"),
                ("bob", "announcements"),
                ("bob", "vip"),
            }
            lounge, notices = await seller.channel("lounge"), await seller.channel("announcements")
            assert (lounge.ban_urls, lounge.banned_words) == (True, ["telegram"])
            assert (lounge.who_can_post, notices.who_can_post) == ("everyone", "admins")
            assert [m.content for m in seller.whop.rooms.messages_in(lounge)] == [
                "Welcome. Say hello."
            ]
            seller.whop.memberships.cancel(basic.id)
            await seller.settled()
            assert not await seller.may_enter("ada", "lounge")
            assert seller.calls("memberships.create") == 0

    asyncio.run(main())


@pytest.mark.parametrize("pinned", [True, False], ids=["flat payloads", "nested payloads"])
def test_a_course_gives_a_seat_in_a_cohort_and_takes_it_back(redis_url, pinned):
    async def main():
        async with community.running(redis_url, COURSE, pinned=pinned) as seller:
            assert seller.rooms() == []  # it comes with its first buyer
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            assert seller.rooms() == ["Course, cohort 1"]
            assert await seller.may_enter("ada", "course/1")
            assert (seller.calls("memberships.list"), seller.calls("memberships.create")) == (1, 1)

            seller.whop.memberships.cancel(bought.id)
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")
            assert seller.calls("memberships.cancel") == 1

            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")  # the cohort that they were given
            assert seller.rooms() == ["Course, cohort 1"]

    asyncio.run(main())


def test_the_deliveries_of_ushers_own_grants_cause_no_calls(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            heard = Counter(d.event for d in seller.delivered())
            assert heard["membership.activated"] == 2  # the purchase's and the grant's
            assert seller.calls("memberships.list") == 1

    asyncio.run(main())


def test_an_invited_buyer_is_in_the_room_when_they_accept(redis_url):
    async def main():
        async with community.running(redis_url, COURSE + 'grant = "invite"\n') as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            (invitation,) = seller.whop.tables.invitations.values()
            assert not await seller.may_enter("ada", "course/1")
            seller.whop.memberships.accept(invitation.id)
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")
            seller.whop.memberships.cancel(bought.id)
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")
            assert seller.calls("memberships.invite") == 1

    asyncio.run(main())


@pytest.mark.parametrize("by", ["month", "week"])
def test_a_dated_cohort_is_the_one_of_the_purchase(redis_url, by):
    clock = Clock(datetime(2024, 12, 1, 4, 59, 50, tzinfo=UTC))  # 30 November in New York
    rooms = COURSE.replace('by = "seats", seats = 50', f'by = "{by}"')

    async def main():
        async with community.running(redis_url, rooms, clock=clock) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            clock.at += timedelta(days=7)
            seller.whop.memberships.buy("prod_course", "bob")
            await seller.settled()
            names = {
                "month": ["Course, cohort December 2024", "Course, cohort November 2024"],
                "week": ["Course, cohort week 48 of 2024", "Course, cohort week 49 of 2024"],
            }
            assert seller.rooms() == names[by]
            first, second = {"month": ("11", "12"), "week": ("W48", "W49")}[by]
            assert await seller.may_enter("ada", f"course/2024-{first}")
            assert not await seller.may_enter("ada", f"course/2024-{second}")

    asyncio.run(main())


def test_an_event_room_opens_and_locks_by_itself(redis_url):
    clock = Clock(datetime(2024, 12, 5, 22, 0, tzinfo=UTC))  # 17:00 in New York

    async def main():
        async with community.running(redis_url, AMA, clock=clock) as seller:
            seller.whop.memberships.buy("prod_ticket", "ada")
            await seller.settled()
            assert await seller.may_enter("ada", "ama")
            assert (await seller.channel("ama")).who_can_post == "admins"

            async def posting_at(at: datetime) -> tuple[str, str]:
                clock.at = at
                await seller.sweep()
                await seller.settled()
                channel = await seller.channel("ama")
                return channel.who_can_post, channel.who_can_react

            start, minute = datetime(2024, 12, 5, 23, tzinfo=UTC), timedelta(minutes=1)
            assert await posting_at(start - 14 * minute) == ("everyone", "everyone")
            assert await posting_at(start + 121 * minute) == ("admins", "everyone")
            assert await posting_at(start + timedelta(days=15)) == ("admins", "no_one")
            assert seller.calls("chat_channels.update") == 4

    asyncio.run(main())


def test_a_transition_comes_within_a_second_of_its_instant(redis_url):
    """A machine that is busy may be as much later as thirty questions to its Redis take longer."""

    async def main():
        began = time.monotonic()
        async with community.running(redis_url, VIP) as seller:
            took = time.monotonic() - began
            lasts = timedelta(seconds=2 + round(3 * took))
            starts = datetime.now(UTC).replace(microsecond=0) + lasts + timedelta(seconds=1)
            await seller.restart(FLASH.format(starts=starts, seconds=lasts.seconds))
            seller.whop.faults.latency_seconds = 0.1
            async with slowest_answer(seller) as slowest:
                await local_whop.until(lambda: seller.calls("chat_channels.update") >= 3)
            made, opened, locked = seller.server.journal.of("chat_channels.update")
            assert '"admins"' in made.body
            assert '"everyone"' in opened.body
            assert '"admins"' in locked.body
            bound = timedelta(seconds=1 + 30 * max(slowest))
            for change, due in ((opened, starts), (locked, starts + lasts)):
                assert timedelta(0) <= change.time - due < bound

    asyncio.run(main())


FLASH = """
[rooms.flash]
name = "Flash"
products = ["prod_vip"]
timezone = "UTC"
occurrences = [{{ starts = {starts:%Y-%m-%dT%H:%M:%S}, lasts = "{seconds}s" }}]
"""


@contextlib.asynccontextmanager
async def slowest_answer(seller):
    """Give out a list of how long answers of Redis take, this event loop's part in it included."""
    answers = [0.0]

    async def ask():
        while True:
            began = time.monotonic()
            await seller.redis.ping()
            answers.append(time.monotonic() - began)
            await asyncio.sleep(0.02)

    asking = asyncio.create_task(ask())
    try:
        yield answers
    finally:
        await end([asking])


def test_what_was_missed_while_nobody_worked_is_one_look_and_one_change(redis_url):
    clock = Clock(datetime(2024, 12, 5, 22, 0, tzinfo=UTC))

    async def main():
        async with community.running(redis_url, AMA, clock=clock) as seller:
            await seller.rest()
            clock.at += timedelta(days=30)  # opened, locked and archived meanwhile
            seen, changed, listed = (
                seller.calls(f"chat_channels.{what}") for what in ("retrieve", "update", "list")
            )
            await seller.work()
            await seller.sweep()
            await seller.settled()
            assert (await seller.channel("ama")).who_can_react == "no_one"
            assert seller.calls("chat_channels.update") == changed + 1
            looks = seller.calls("chat_channels.retrieve") - seen
            watched = seller.calls("chat_channels.list") - listed  # a cron may have it looked at
            assert looks - watched <= 3  # missed, asked for at the start, and when it was archived

    asyncio.run(main())


def test_a_room_is_made_for_its_first_ticket(redis_url):
    async def main():
        rooms = AMA.replace('locks = "30m"', 'locks = "30m"\nprovision = "on_purchase"')
        rooms = rooms.replace("2024", "2099")
        async with community.running(redis_url, rooms) as seller:
            assert seller.rooms() == []
            seller.whop.memberships.buy("prod_ticket", "ada")
            await seller.settled()
            assert seller.rooms() == ["Live AMA"]
            assert await seller.may_enter("ada", "ama")

    asyncio.run(main())


def test_a_room_of_the_sellers_own_is_adopted(redis_url):
    async def main():
        async with community.running(redis_url, VIP) as seller:
            own = seller.whop.tables.experiences[(await seller.place("vip")).experience]
            rooms = LOUNGE + f'experience = "{own.id}"\n'
            await seller.restart(rooms)
            assert (await seller.place("lounge")).experience == own.id
            assert seller.rooms() == ["VIP"]

    asyncio.run(main())


def test_a_product_that_leaves_the_rules_is_detached_and_others_stay(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE) as seller:
            room = seller.whop.tables.experiences[(await seller.place("lounge")).experience]
            by_hand = seller.whop.catalog.create_product(community.product("By hand"))
            seller.whop.rooms.attach(room.id, by_hand.id)
            fewer = LOUNGE.replace(', "prod_vip"', "")
            await seller.restart(fewer)
            assert set(room.product_ids) == {"prod_basic", by_hand.id}

    asyncio.run(main())


@pytest.mark.parametrize("on_refund", ["revoke", "keep"])
def test_a_refund_does_what_the_rules_say(redis_url, on_refund):
    async def main():
        rooms = COURSE + f'on_refund = "{on_refund}"\n'
        async with community.running(redis_url, rooms) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            seller.whop.till.refund(bought.id)
            await seller.settled()
            assert await seller.may_enter("ada", "course/1") is (on_refund == "keep")
            assert seller.whop.memberships.get(bought.id).status == "completed"  # never touched

    asyncio.run(main())


def test_a_refund_stands_whatever_comes_of_an_older_payment(redis_url):
    async def main():
        rooms = COURSE + 'on_refund = "revoke"\non_dispute = "revoke"\n'
        async with community.running(redis_url, rooms, one_time=()) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            older = seller.whop.till.dispute(bought.id)
            await seller.settled()
            renewed = seller.whop.till.charge(bought, 29.0, "usd", "subscription_cycle")
            seller.whop.till.refund(bought.id)
            await seller.settled()
            assert renewed.substatus == "refunded"
            seller.whop.till.decide(older.id, "won")  # January's dispute, February's refund
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_late_news_of_an_older_payment_does_not_undo_a_refund(redis_url):
    async def main():
        rooms = COURSE + 'on_refund = "revoke"\n'
        async with community.running(redis_url, rooms, one_time=()) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            (older,) = seller.whop.tables.payments.values()
            await seller.settled()
            seller.whop.till.charge(bought, 29.0, "usd", "subscription_cycle")
            seller.whop.till.refund(bought.id)
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")
            late = Delivery(
                id="msg_late",
                type="payment.succeeded",
                received=int(seller.clock().timestamp() * 1000),
                subject=f"member:{bought.user_id}",
                membership=bought.id,
                payment=older.id,
            )
            await Inbox(seller.redis, community.ACCOUNT).put(late)
            await seller.settled()
            assert older.substatus == "succeeded"
            assert seller.calls("payments.retrieve") >= 2
            assert not await seller.may_enter("ada", "course/1")

    asyncio.run(main())


@pytest.mark.parametrize("pinned", [True, False], ids=["flat payloads", "nested payloads"])
def test_a_dispute_revokes_until_it_is_won(redis_url, pinned):
    async def main():
        rooms = COURSE + 'on_dispute = "revoke"\n'
        async with community.running(redis_url, rooms, pinned=pinned) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            dispute = seller.whop.till.dispute(bought.id)
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")
            seller.whop.till.decide(dispute.id, "won")
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_a_membership_without_a_user_is_reported_and_does_no_harm(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            (plan,) = seller.whop.tables.plans
            seller.whop.memberships.open_unclaimed(plan)
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")
            assert await seller.dead() == {}

    asyncio.run(main())


def test_an_admin_who_buys_takes_no_seat(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.people.add_admin("boss")
            await seller.rest()
            await seller.redis.delete(f"{seller.prefix}team")
            await seller.work()
            await seller.until_team_is_known(2)  # the owner and the boss
            seller.whop.memberships.buy("prod_course", "boss")
            await seller.settled()
            assert seller.calls("memberships.create") == 0

    asyncio.run(main())


STORY = st.lists(
    st.tuples(st.sampled_from(["buy", "cancel"]), st.sampled_from(["ada", "bob", "cy"])),
    min_size=3,
    max_size=8,
)


@examples(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # each example takes a second: shrinking is for a person at a desk
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(STORY, st.integers(0, 1000))
def test_with_every_delivery_duplicated_and_the_order_shuffled_access_equals_purchases(
    redis_url, story, seed
):
    async def main():
        import redis.asyncio

        client = redis.asyncio.Redis.from_url(redis_url)
        await client.flushall()
        await client.aclose()
        rooms = (
            LOUNGE + COURSE.replace("50", "2") + AMA.replace("2024", "2099") + VIP + ANNOUNCEMENTS
        )
        async with community.running(redis_url, rooms, workers=2, seed=seed) as seller:
            seller.whop.faults.duplicate = 1.0
            seller.whop.faults.reorder = 0.7
            seller.whop.faults.reorder_seconds = 0.2
            held: dict[str, list[str]] = {"ada": [], "bob": [], "cy": []}
            for what, user in story:
                if what == "buy":
                    for product in ("prod_course", "prod_basic", "prod_ticket"):
                        held[user].append(seller.whop.memberships.buy(product, user).id)
                while what == "cancel" and held[user]:
                    seller.whop.memberships.cancel(held[user].pop())
                await asyncio.sleep(0.02)
            await seller.settled()
            for user, memberships in held.items():
                if user not in {bought for what, bought in story if what == "buy"}:
                    continue
                cohort = await seller.cohort("course", user)  # None: gone before anybody looked
                seated = cohort and await seller.may_enter(user, f"course/{cohort}")
                assert bool(seated) is bool(memberships)
                assert await seller.may_enter(user, "lounge") is bool(memberships)
                assert await seller.may_enter(user, "ama") is bool(memberships)
            assert max(Counter(seller.rooms()).values(), default=1) == 1
            assert await seller.dead() == {}

    asyncio.run(main())
