"""The whole journey over real sockets, for each of the five uses of a room."""

import asyncio

import community

COURSE = """
[rooms.course]
name = "Course, {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
welcome = "Glad you are here."
"""


def test_a_purchase_of_a_course_becomes_a_seat_in_a_cohort(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            assert seller.rooms() == []
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            assert seller.rooms() == ["Course, 1"]
            assert await seller.may_enter("ada", "course/1")
            print(seller.server.journal.counts)

    asyncio.run(main())
