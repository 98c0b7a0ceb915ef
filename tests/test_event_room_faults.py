"""Event rooms where something goes wrong: at Whop, in a calendar, or while nobody works."""

import asyncio
from datetime import UTC, datetime, timedelta

import community
import pytest
from community import Clock, at, said, watch
from event_rooms import (
    CALENDAR,
    LOCK,
    MESSAGES,
    OPENING,
    SERIES,
    TALKS,
    WEEKLY,
    feed,
    read_calendars,
    until_read,
)

from worker.sandbox.faults import Failure
from worker.subjects import milliseconds

LONG = 1_000_000
"""More calls than any test makes."""

WEEKLY_MESSAGES = WEEKLY + MESSAGES[len(SERIES) :]
ONE_ROOM = """
[rooms.ama]
name = "Live AMA"
products = ["prod_ticket"]
archives = "2d"
calendar = { file = "FILE", word = "AMA" }
"""
COURSE = """
[rooms.course]
name = "Course {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 1000 }
"""


@pytest.fixture
def calendar(tmp_path):
    """Return the file of a seller's calendar, with the AMA of 5 December in it."""
    file = tmp_path / "events.ics"
    file.write_text(feed("20241205T180000"))
    return file


# --- a lock comes, whatever happened since the opening


def test_a_room_locks_though_its_messages_could_not_be_written(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, WEEKLY_MESSAGES, clock=clock) as seller:
            seller.whop.faults.failures = [
                Failure(operation=f"messages.{what}", times=LONG) for what in ("create", "list")
            ]
            await at(seller, clock, OPENING)
            assert (await seller.channel("ama")).who_can_post == "everyone"
            seller.whop.faults.failures = []
            clock.at = LOCK + timedelta(seconds=4)
            await seller.bring_forward()
            await seller.settled()
            await watch(seller)
            assert (await seller.channel("ama")).who_can_post == "admins"

    asyncio.run(main())


def test_an_opening_whose_answer_was_lost_is_no_edit_by_hand(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, WEEKLY, clock=clock) as seller:
            seller.whop.faults.failures = [
                Failure(operation="chat_channels.update", times=3, after=True)
            ]
            await at(seller, clock, OPENING)
            assert (await seller.channel("ama")).who_can_post == "everyone"
            seller.whop.faults.failures = []
            clock.at = LOCK + timedelta(seconds=4)
            await seller.bring_forward()
            await seller.settled()
            assert (await seller.channel("ama")).who_can_post == "admins"
            assert "edit.respected" not in dict(await seller.trail("channel:ama"))

    asyncio.run(main())


def test_a_room_that_was_opened_by_hand_while_nobody_worked_locks_after_its_date(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, WEEKLY, clock=clock) as seller:
            await seller.rest()
            channel = await seller.channel("ama")
            channel.who_can_post = "everyone"  # the team opens it, since Usher is down
            clock.at = LOCK + timedelta(minutes=30)
            await seller.work()
            await seller.settled()
            assert channel.who_can_post == "admins"

    asyncio.run(main())


def test_a_lock_that_was_refused_once_is_made_up_for_within_minutes(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, WEEKLY, clock=clock) as seller:
            await at(seller, clock, OPENING)
            seller.whop.faults.failures = [Failure(operation="chat_channels.update", status=403)]
            await at(seller, clock, LOCK)
            assert seller.server.journal.counts["chat_channels.update"][403] == 1
            for minutes in (1, 2, 3):
                clock.at = LOCK + timedelta(minutes=minutes)
                await watch(seller)
            assert (await seller.channel("ama")).who_can_post == "admins"

    asyncio.run(main())


def test_the_pause_after_many_failures_does_not_outlast_a_lock(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, WEEKLY, clock=clock) as seller:
            await at(seller, clock, OPENING)
            await seller.redis.hset(f"{seller.prefix}tries", "channel:ama", 20)
            seller.whop.faults.failures = [Failure(operation="chat_channels.retrieve", times=LONG)]
            clock.at = LOCK - timedelta(minutes=10)
            await seller.bring_forward()
            await seller.settled()
            seller.whop.faults.failures = []
            due = await seller.subjects.due(["channel:ama"])
            assert due["channel:ama"] > milliseconds(LOCK + timedelta(minutes=30))
            clock.at = LOCK + timedelta(minutes=2)
            await watch(seller)
            assert (await seller.channel("ama")).who_can_post == "admins"

    asyncio.run(main())


def test_a_setting_that_usher_does_not_know_breaks_no_room(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, SERIES, clock=clock) as seller:
            channel = await seller.channel("ama")
            channel.who_can_react = "members"
            await watch(seller)
            await at(seller, clock, OPENING)
            assert channel.who_can_post == "everyone"
            assert await seller.store.all_kept()  # and it can be read again

    asyncio.run(main())


# --- the archive


def test_a_room_is_archived_though_no_setting_changes_with_it(redis_url):
    clock = Clock(OPENING - timedelta(days=1))
    rooms = SERIES + '[rooms.ama.locked]\nwho_can_react = "no_one"\n'

    async def main():
        async with community.running(redis_url, rooms, clock=clock) as seller:
            for t in (OPENING, LOCK, LOCK + timedelta(days=2)):
                await at(seller, clock, t)
            room = seller.whop.rooms.experience((await seller.place("ama")).experience)
            assert room.product_ids == []

    asyncio.run(main())


def test_an_archived_chat_that_somebody_deleted_is_let_go(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, SERIES, clock=clock) as seller:
            await at(seller, clock, LOCK + timedelta(days=2))
            id_ = (await seller.place("ama")).experience
            seller.whop.rooms.delete_experience(id_)
            await seller.restart()
            assert await seller.redis.hgetall(f"{seller.prefix}tries") == {}
            assert await seller.dead() == {}
            assert await seller.store.place("ama") is None

    asyncio.run(main())


# --- calendars


def test_an_entry_in_the_place_of_one_that_moved_gets_a_room_of_its_own(redis_url, calendar):
    clock = Clock(datetime(2024, 12, 1, 12, 0, tzinfo=UTC))

    async def main():
        rooms = CALENDAR.replace("FILE", str(calendar))
        async with community.running(redis_url, rooms, clock=clock) as seller:
            await read_calendars(seller)
            assert seller.rooms() == ["Live AMA Thu 5 Dec 2024, 18:00"]
            clock.at += timedelta(minutes=10)
            calendar.write_text(feed("20241212T180000", "20241205T180000"))
            await read_calendars(seller)
            assert seller.rooms() == [
                "Live AMA Thu 12 Dec 2024, 18:00",
                "Live AMA Thu 5 Dec 2024, 18:00",
            ]
            places = [await seller.place(key) for key in await seller.store.instances()]
            assert len({place.experience for place in places}) == len(places) == 2

    asyncio.run(main())


def test_an_archived_room_stays_so_when_its_past_dates_leave_the_calendar(redis_url, calendar):
    clock = Clock(datetime(2024, 12, 5, 12, 0, tzinfo=UTC))

    async def main():
        rooms = ONE_ROOM.replace("FILE", str(calendar))
        async with community.running(redis_url, rooms, clock=clock) as seller:
            await read_calendars(seller)
            await at(seller, clock, datetime(2024, 12, 8, 12, 0, tzinfo=UTC))
            room = seller.whop.rooms.experience((await seller.place("ama")).experience)
            assert (room.name, room.product_ids) == ("Live AMA (archived)", [])
            calendar.write_text(feed())
            await read_calendars(seller)
            assert (room.name, room.product_ids) == ("Live AMA (archived)", [])

    asyncio.run(main())


def test_a_new_address_without_a_calendar_leaves_an_open_room_open(redis_url, calendar):
    clock = Clock(datetime(2024, 12, 5, 12, 0, tzinfo=UTC))

    async def main():
        rooms = ONE_ROOM.replace("FILE", str(calendar))
        async with community.running(redis_url, rooms, clock=clock) as seller:
            await read_calendars(seller)
            await at(seller, clock, datetime(2024, 12, 5, 23, 10, tzinfo=UTC))
            assert (await seller.channel("ama")).who_can_post == "everyone"
            await seller.restart(ONE_ROOM.replace("FILE", str(calendar.with_name("gone.ics"))))
            await read_calendars(seller)
            await seller.bring_forward()
            await seller.settled()
            assert (await seller.channel("ama")).who_can_post == "everyone"

    asyncio.run(main())


def test_no_room_is_made_for_a_date_that_was_taken_away_meanwhile(redis_url):
    clock = Clock(OPENING - timedelta(days=4))

    async def main():
        async with community.running(redis_url, TALKS, clock=clock) as seller:
            seller.whop.faults.failures = [Failure(operation="experiences.list", times=LONG)]
            await at(seller, clock, OPENING - timedelta(days=3))
            assert seller.rooms() == []
            await seller.rest()
            seller.whop.faults.failures = []
            clock.at += timedelta(minutes=10)
            fewer = TALKS.replace('COUNT=3"', 'COUNT=3", exdate = [2024-12-05T18:00:00]')
            seller.settings = community.settings(seller.settings, fewer)
            await seller.work()
            await seller.settled()
            assert seller.rooms() == []
            await at(seller, clock, OPENING + timedelta(days=4))
            assert seller.rooms() == ["Talk of Thu 12 Dec 2024, 18:00"]

    asyncio.run(main())


def test_calendars_are_read_while_a_crowd_of_buyers_waits(redis_url, calendar):
    clock = Clock(datetime(2024, 12, 5, 12, 0, tzinfo=UTC))
    rooms = COURSE + ONE_ROOM.replace("FILE", str(calendar))

    async def main():
        async with community.running(redis_url, rooms, clock=clock, workers=0) as seller:
            for n in range(30):  # more than a worker serves at a time
                seller.whop.memberships.buy("prod_course", f"member{n}")
            await seller.until_delivered()
            lease = f"{seller.prefix}lock:making:course/1"
            await seller.redis.set(lease, "somebody")  # all of them wait for their room
            await seller.work()
            await until_read(seller, clock.at)
            assert seller.calls("memberships.create") == 0
            await seller.redis.delete(lease)
            await seller.settled()
            assert await seller.may_enter("member29", "course/1")

    asyncio.run(main())


# --- messages


def test_a_message_that_is_put_above_another_does_not_bring_that_back(redis_url):
    clock = Clock(OPENING - timedelta(days=1))
    live = '\n[[rooms.ama.messages]]\nwhen = "opening"\ntext = "We are live!"\n'
    soon = '\n[[rooms.ama.messages]]\nwhen = "before"\ntext = "Soon."\n'

    async def main():
        async with community.running(redis_url, SERIES + live, clock=clock) as seller:
            await at(seller, clock, OPENING)
            assert await said(seller, "ama") == ["We are live!"]
            await seller.restart(SERIES + soon + live)
            assert await said(seller, "ama") == ["We are live!"]

    asyncio.run(main())


def test_a_message_is_found_again_in_a_busy_chat_and_not_written_twice(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, MESSAGES, clock=clock) as seller:
            seller.whop.faults.ignore_idempotency = ["messages.create"]
            seller.whop.memberships.buy("prod_ticket", "ada")
            await seller.settled()
            seller.whop.faults.failures = [Failure(operation="messages.create", after=True)]
            await at(seller, clock, OPENING)
            channel, ada = await seller.channel("ama"), seller.whop.people.user("ada").id
            for n in range(150):  # more than a page of them
                seller.whop.rooms.say(ada, channel.id, f"hello {n}")
            await at(seller, clock, OPENING + timedelta(minutes=2))
            assert (await said(seller, "ama")).count("We are live!") == 1
            assert "message.written" in dict(await seller.trail("channel:ama"))

    asyncio.run(main())


def test_a_message_that_cannot_be_pinned_stands_all_the_same(redis_url):
    clock = Clock(OPENING - timedelta(days=1))

    async def main():
        async with community.running(redis_url, MESSAGES, clock=clock) as seller:
            seller.whop.faults.failures = [Failure(operation="messages.update", status=403)]
            await at(seller, clock, OPENING)
            assert await said(seller, "ama") == ["We are live!"]
            done = dict(await seller.trail("channel:ama"))
            assert "message.written" in done
            assert "message.refused" not in done

    asyncio.run(main())
