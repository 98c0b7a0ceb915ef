"""Workers of two versions of the rules, side by side while an update rolls, and what each knows."""

import asyncio

import community
from local_whop import until

from worker.reasons import VERIFY
from worker.subjects import milliseconds

ROOMS = 12


def rules(cooldown: int) -> str:
    return "".join(
        f"""
[rooms.room{n}]
name = "Room {n}"
products = ["prod_{n}"]
user_posts_cooldown_seconds = {cooldown}
"""
        for n in range(ROOMS)
    )


def cooldowns(seller) -> set[int | None]:
    return {one.user_posts_cooldown_seconds for one in seller.whop.tables.channels.values()}


def test_while_an_update_rolls_every_room_goes_by_the_newer_rules(redis_url):
    async def main():
        async with community.running(redis_url, rules(5), workers=2) as seller:
            assert cooldowns(seller) == {5}
            older = seller.settings
            seller.settings = community.settings(older, rules(30))
            await seller.work()
            await seller.settled()
            assert cooldowns(seller) == {30}

            await _everything_due(seller)  # with two old workers beside the new one
            await seller.settled()
            assert cooldowns(seller) == {30}

    asyncio.run(main())


def test_where_the_newer_rules_are_taken_back_the_older_ones_hold_again(redis_url):
    async def main():
        async with community.running(redis_url, rules(5)) as seller:
            seller.settings = community.settings(seller.settings, rules(30))
            await seller.work()
            await seller.settled()
            assert cooldowns(seller) == {30}
            seller.workers.reverse()
            await seller.rest()  # the new one
            await until(lambda: cooldowns(seller) == {5})

    asyncio.run(main())


async def _everything_due(seller) -> None:
    inbox = seller.tools().inbox
    for n in range(ROOMS):
        for kind in ("room", "channel"):
            await inbox.mark(f"{kind}:room{n}", VERIFY, milliseconds(seller.clock()))


def test_what_another_process_changed_of_a_room_is_known_at_the_next_look(redis_url):
    course = """
[rooms.course]
name = "Course {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
"""

    async def main():
        async with community.running(redis_url, course) as seller:
            for name in ("ada", "bob"):
                seller.whop.memberships.buy("prod_course", name)
                await seller.settled()
            assert "course/1" in seller.tools().places
            place = await seller.store.place("course/1")
            place.plan = "plan_another"
            await seller.store.save_place("course/1", place)  # another worker, or a command
            seller.whop.memberships.buy("prod_course", "cy")
            await seller.settled()
            assert seller.tools().places["course/1"].plan == "plan_another"

    asyncio.run(main())
