"""Event rooms over real sockets: made ahead, opened, announced, locked, archived; their seats."""

import asyncio
from datetime import UTC, datetime, timedelta

import community
import pytest
from community import Clock, at, said
from event_rooms import CALENDAR, LOCK, MESSAGES, OPENING, SERIES, TALKS, WEEK, feed, until_read

from worker.sandbox.faults import Failure


def test_an_occurrence_gets_its_room_ahead_of_it_and_loses_it_after(redis_url):
    clock = Clock(OPENING - timedelta(days=4))

    async def main():
        async with community.running(redis_url, TALKS, clock=clock) as seller:
            assert seller.rooms() == []
            await at(seller, clock, OPENING - timedelta(days=3))
            assert seller.rooms() == ["Talk of Thu 5 Dec 2024, 18:00"]
            key = "talks/2024-12-05T1800"
            assert (await seller.channel(key)).who_can_post == "admins"
            await at(seller, clock, OPENING)
            assert (await seller.channel(key)).who_can_post == "everyone"
            await at(seller, clock, LOCK)
            assert (await seller.channel(key)).who_can_post == "admins"
            room = seller.whop.rooms.experience((await seller.place(key)).experience)
            assert room.product_ids == ["prod_ticket"]
            await at(seller, clock, LOCK + timedelta(days=2))
            assert room.product_ids == []
            assert room.name == "Talk of Thu 5 Dec 2024, 18:00 (archived)"
            await at(seller, clock, OPENING + WEEK)
            assert "Talk of Thu 12 Dec 2024, 18:00" in seller.rooms()
            assert (await seller.channel("talks/2024-12-12T1800")).who_can_post == "everyone"

    asyncio.run(main())


def test_the_first_ticket_makes_the_next_occurrences_room_and_no_other(redis_url):
    clock = Clock(OPENING - timedelta(days=30))

    async def main():
        async with community.running(redis_url, TALKS, clock=clock) as seller:
            seller.whop.memberships.buy("prod_ticket", "ada")
            await seller.settled()
            assert seller.rooms() == ["Talk of Thu 5 Dec 2024, 18:00"]
            assert await seller.may_enter("ada", "talks/2024-12-05T1800")
            seller.whop.memberships.buy("prod_ticket", "bob")
            await seller.settled()
            assert len(seller.rooms()) == 1

    asyncio.run(main())


def test_a_room_with_a_lead_waits_for_it_or_for_the_first_ticket(redis_url):
    clock = Clock(OPENING - timedelta(days=30))
    rooms = SERIES + 'lead = "7d"\n'

    async def main():
        async with community.running(redis_url, rooms, clock=clock) as seller:
            assert seller.rooms() == []
            await at(seller, clock, OPENING - timedelta(days=7))
            assert seller.rooms() == ["Live AMA"]

    asyncio.run(main())


def test_a_series_with_new_dates_comes_back_from_the_archive(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, SERIES, clock=clock) as seller:
            await at(seller, clock, LOCK + timedelta(days=2))
            room = seller.whop.rooms.experience((await seller.place("ama")).experience)
            assert (room.name, room.product_ids) == ("Live AMA (archived)", [])
            more = SERIES.replace('"90m" }', '"90m", repeats = "FREQ=WEEKLY;COUNT=2" }')
            await seller.restart(more)
            assert (room.name, room.product_ids) == ("Live AMA", ["prod_ticket"])
            assert (await seller.channel("ama")).who_can_post == "admins"

    asyncio.run(main())


def test_messages_are_written_at_their_moments_and_the_last_one_is_pinned(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, MESSAGES, clock=clock) as seller:
            assert await said(seller, "ama") == []
            await at(seller, clock, OPENING - timedelta(hours=2))
            assert await said(seller, "ama") == ["We start Thu 5 Dec, 18:00 EST."]
            await at(seller, clock, OPENING)
            await at(seller, clock, LOCK)
            assert await said(seller, "ama") == [
                "We start Thu 5 Dec, 18:00 EST.",
                "We are live!",
                "Thank you all.",
            ]
            channel = await seller.channel("ama")
            pinned = [m.content for m in seller.whop.rooms.messages_in(channel) if m.is_pinned]
            assert pinned == ["We are live!"]

    asyncio.run(main())


def test_messages_whose_time_is_over_are_not_written_late(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, MESSAGES, clock=clock) as seller:
            await at(seller, clock, LOCK + timedelta(minutes=5))
            assert await said(seller, "ama") == ["Thank you all."]
            await at(seller, clock, LOCK + timedelta(days=1))
            assert await said(seller, "ama") == ["Thank you all."]

    asyncio.run(main())


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("step", ["messages.create", "messages.update", "chat_channels.update"])
def test_a_message_stands_there_once_whatever_fails_on_the_way(redis_url, step, after):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, MESSAGES, clock=clock, workers=2) as seller:
            seller.whop.faults.ignore_idempotency = ["messages.create"]
            seller.whop.faults.failures = [
                Failure(operation=step, status=500, times=4, after=after)
            ]
            for n in range(8):
                await at(seller, clock, OPENING + n * timedelta(seconds=30))
            assert await said(seller, "ama") == ["We are live!"]
            channel = await seller.channel("ama")
            assert channel.who_can_post == "everyone"
            assert [m.is_pinned for m in seller.whop.rooms.messages_in(channel)] == [True]

    asyncio.run(main())


def test_a_message_that_whop_refuses_keeps_no_room_shut(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, MESSAGES, clock=clock) as seller:
            seller.forbid("chat:message:create")
            await at(seller, clock, OPENING)
            assert (await seller.channel("ama")).who_can_post == "everyone"
            assert await said(seller, "ama") == []
            await at(seller, clock, LOCK)
            assert (await seller.channel("ama")).who_can_post == "admins"
            assert await seller.dead() == {}

    asyncio.run(main())


def test_a_lock_that_failed_for_good_does_not_take_the_next_opening_with_it(redis_url):
    clock = Clock(OPENING - timedelta(days=1))
    weekly = SERIES.replace('"90m" }', '"90m", repeats = "FREQ=WEEKLY;COUNT=2" }')

    async def main():
        async with community.running(redis_url, weekly, clock=clock) as seller:
            await at(seller, clock, OPENING)
            seller.forbid("chat:moderate")
            await at(seller, clock, LOCK)
            assert "channel:ama" in await seller.dead()
            seller.allow_everything()
            await at(seller, clock, OPENING + WEEK)
            await at(seller, clock, LOCK + WEEK)
            assert (await seller.channel("ama")).who_can_post == "admins"
            assert await seller.dead() == {}

    asyncio.run(main())


def test_what_is_sold_over_the_seats_is_a_list_and_nobody_is_refused(redis_url):
    clock = Clock(OPENING - timedelta(days=1))
    rooms = SERIES + "seats = 2\n"

    async def main():
        async with community.running(redis_url, rooms, clock=clock, workers=2) as seller:
            for name in ("ada", "bob", "cy", "dee"):
                seller.whop.memberships.buy("prod_ticket", name)
                await at(seller, clock, clock.at + timedelta(minutes=1))
                assert await seller.may_enter(name, "ama")
            ids = [seller.whop.people.user(name).id for name in ("ada", "bob", "cy", "dee")]
            assert (await seller.store.buyers(["ama"]))["ama"] == ids
            held = next(m for m in seller.whop.tables.memberships.values() if m.user_id == ids[0])
            seller.whop.memberships.cancel(held.id)
            await at(seller, clock, clock.at + timedelta(minutes=1))
            assert (await seller.store.buyers(["ama"]))["ama"] == ids[1:]

    asyncio.run(main())


def test_the_stock_of_a_rooms_own_plan_holds_its_seats(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, SERIES, clock=clock) as seller:
            plan = next(p for p in seller.whop.tables.plans.values())
            seller.whop.memberships.buy("prod_ticket", "early")
            await seller.settled()
            rooms = SERIES + f'seats = 3\nplan = "{plan.id}"\n'
            await seller.restart(rooms)
            assert (plan.stock, plan.unlimited_stock) == (2, False)  # one of three is sold
            seller.whop.memberships.buy("prod_ticket", "ada")
            await seller.settled()
            await seller.restart()
            assert plan.stock == 1  # a restart does not fill it up again

    asyncio.run(main())


def test_a_calendar_decides_on_rooms_and_what_moves_in_it_is_planned_anew(redis_url, tmp_path):
    clock = Clock(datetime(2024, 12, 1, 12, 0, tzinfo=UTC))
    file = tmp_path / "events.ics"
    file.write_text(feed("20241205T180000", "20241212T180000"))

    async def read(seller: community.Community) -> None:
        await seller.rest()
        clock.at += timedelta(minutes=1)  # nobody has read anything since
        await seller.work()  # a worker reads the calendars when it starts, and every ten minutes
        await until_read(seller, clock.at)
        await at(seller, clock, clock.at)

    async def main():
        rooms = CALENDAR.replace("FILE", str(file))
        async with community.running(redis_url, rooms, clock=clock) as seller:
            await read(seller)
            names = ["Live AMA Thu 12 Dec 2024, 18:00", "Live AMA Thu 5 Dec 2024, 18:00"]
            assert seller.rooms() == names
            file.write_text(feed("20241206T190000", "20241212T180000"))
            await read(seller)
            names[1] = "Live AMA Fri 6 Dec 2024, 19:00"  # the same room, by its new date
            assert seller.rooms() == sorted(names)
            keys = await seller.store.instances()
            (moved,) = [k for k in keys if (await seller.place(k)).name == names[1]]
            await at(seller, clock, datetime(2024, 12, 7, 0, 30, tzinfo=UTC))
            assert (await seller.channel(moved)).who_can_post == "everyone"
            file.write_text(feed("20241206T190000"))  # the second is cancelled
            await read(seller)
            (other,) = [k for k in keys if k != moved]
            await at(seller, clock, datetime(2024, 12, 12, 23, 30, tzinfo=UTC))
            assert (await seller.channel(other)).who_can_post == "admins"

    asyncio.run(main())
