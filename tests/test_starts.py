"""A start: what it reads, and what it leaves to others."""

import asyncio

import community
import pytest

from worker import rules
from worker.memory.places import Place
from worker.opening import AT_ONCE
from worker.provision import fingerprint
from worker.sandbox.faults import Emptied, Failure

ROOMS = 300


def many(rooms: int, *, products: int = 1, **more: str) -> str:
    """Return the rules of many rooms."""
    text = []
    for n in range(rooms):
        text.append(f'[rooms.r{n}]\nname = "Room {n}"\nproducts = ["prod_{n % products}"]')
        text += [f"{key} = {value}" for key, value in more.items()]
    return "\n".join(text) + "\n"


COURSE = """
[rooms.course]
name = "Course {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 10 }
"""


async def calls_of_a_start(seller, text=None) -> dict[str, int]:
    """Have another worker in the oldest one's stead; return what Whop was asked meanwhile."""
    before = {op: sum(n.values()) for op, n in seller.server.journal.counts.items()}
    await seller.restart(text)
    after = {op: sum(n.values()) for op, n in seller.server.journal.counts.items()}
    return {op: n - before.get(op, 0) for op, n in after.items() if n > before.get(op, 0)}


@pytest.mark.parametrize("products", [1, 60])
def test_a_start_with_300_rooms_that_are_in_order_reads_lists_and_no_room(redis_url, products):
    async def main_():
        text = many(ROOMS, products=products)
        async with community.running(redis_url, text, quota=(100_000, 60)) as seller:
            await seller.all_settled()
            calls = await calls_of_a_start(seller)
            assert "experiences.retrieve" not in calls
            assert "chat_channels.retrieve" not in calls
            assert sum(calls.values()) <= 20, calls

    asyncio.run(main_())


def test_a_start_has_those_rooms_looked_at_whose_rules_have_changed(redis_url):
    async def main_():
        text = many(12)
        changed = text.replace(
            'name = "Room 7"', 'name = "Room 7"\nuser_posts_cooldown_seconds = 30'
        )
        async with community.running(redis_url, text) as seller:
            calls = await calls_of_a_start(seller, changed)
            assert calls["experiences.retrieve"] == 1
            assert (await seller.channel("r7")).user_posts_cooldown_seconds == 30

    asyncio.run(main_())


@pytest.mark.parametrize("wrong", ["renamed", "detached", "deleted"])
def test_what_the_lists_show_otherwise_is_looked_at(redis_url, wrong):
    async def main_():
        async with community.running(redis_url, many(12)) as seller:
            await seller.rest()
            chat = (await seller.place("r3")).experience
            room = seller.whop.rooms.experience(chat)
            match wrong:
                case "renamed":
                    room.name = "Somebody's"
                case "detached":
                    seller.whop.rooms.detach(chat, "prod_0")
                case "deleted":
                    seller.whop.rooms.delete_experience(chat)
            await seller.work()
            await seller.settled()
            match wrong:
                case "renamed":
                    assert room.name == "Room 3"
                case "detached":
                    assert room.product_ids == ["prod_0"]
                case "deleted":
                    assert "room:r3" in await seller.subjects.failing(["room:r3"])

    asyncio.run(main_())


def test_an_empty_list_of_chats_at_a_start_costs_one_more_call_and_no_room_a_look(redis_url):
    async def main_():
        async with community.running(redis_url, many(30)) as seller:
            seller.whop.faults.emptied = [Emptied(operation="experiences.list")]
            calls = await calls_of_a_start(seller)
            assert "experiences.retrieve" not in calls
            assert calls["experiences.list"] == 3  # twice all of them, and once by the product
            assert len(seller.rooms()) == 30

    asyncio.run(main_())


def test_a_list_that_goes_on_leaving_out_most_chats_is_not_believed(redis_url, capsys):
    async def main_():
        async with community.running(redis_url, many(30)) as seller:
            await seller.rest()
            seller.whop.faults.emptied = [Emptied(operation="experiences.list", times=2)]
            before = seller.calls("experiences.retrieve")
            await seller.work()  # which has looked again when it is done
            await seller.settled()
            assert seller.calls("experiences.retrieve") == before
            assert "leaves out 30 of 30" in capsys.readouterr().out

    asyncio.run(main_())


def test_the_looks_of_a_start_leave_the_last_fifth_to_a_buyer(redis_url):
    async def main_():
        text = many(90) + COURSE
        changed = text.replace('"]\n', '"]\nuser_posts_cooldown_seconds = 30\n').replace(
            COURSE, COURSE
        )
        async with community.running(redis_url, text, quota=(100_000, 60)) as seller:
            await seller.all_settled()
            seller.settings = community.replace(seller.settings, quota=(100, 600))
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.rest()
            seller.settings = community.settings(seller.settings, changed)
            await seller.work()
            seller.whop.memberships.buy("prod_course", "bob")

            async def inside(user):
                while not await seller.cohort("course", user):  # noqa: ASYNC110 - a worker gives it
                    await asyncio.sleep(0.01)

            async with asyncio.timeout(20):
                await inside("bob")

    asyncio.run(main_())


def test_buyers_are_served_while_a_worker_still_looks_round(redis_url):
    async def main_():
        async with community.running(redis_url, many(3) + COURSE, workers=1) as seller:
            await seller.rest()
            seller.whop.faults.failures.append(Failure(operation="experiences.list", times=99))
            starting = asyncio.create_task(seller.work())
            seller.whop.memberships.buy("prod_course", "ada")
            async with asyncio.timeout(20):
                while not await seller.cohort("course", "ada"):  # noqa: ASYNC110 - a worker gives it
                    await asyncio.sleep(0.01)
            assert not starting.done()
            seller.whop.faults.failures.clear()
            await starting

    asyncio.run(main_())


def test_the_mark_of_a_room_is_that_of_its_own_rules():
    text = many(2)
    before = rules.parse(community.HEAD + text).rooms
    after = rules.parse(community.HEAD + text.replace("Room 1", "Another")).rooms
    same = [fingerprint(a) == fingerprint(b) for a, b in zip(before, after, strict=True)]
    assert same == [True, False]


def test_a_place_of_before_is_read_and_looked_at_once():
    assert Place("Room").rules == ""
    assert AT_ONCE > 0
