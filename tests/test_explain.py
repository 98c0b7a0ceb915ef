"""`usher explain`: why somebody is in a room or is not, and what would end it."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import community
import pytest
from local_whop import PATIENCE

from worker import rules
from worker.commands import explain
from worker.commands.accounts import gather
from worker.commands.evidence import NotFound, opened
from worker.policy.access import Facts
from worker.policy.endings import standing
from worker.policy.news import Seen
from worker.sandbox.faults import Failure

COURSE = """
[rooms.course]
name = "Course {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
grace = "3d"
on_refund = "revoke"
"""
LOUNGE = """
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]
"""
EVENT = """
[rooms.ama]
name = "Live AMA"
products = ["prod_ticket"]
archives = "2d"
locks = "30m"
occurrences = [{ starts = 2030-12-05T18:00:00, lasts = "90m" }]
"""


def now() -> datetime:
    return datetime.now(UTC)


async def told(seller, who: str, room: str | None = None) -> str:
    """Return what the command prints."""
    lines: list[str] = []
    rules_ = seller.settings.rules
    url = seller.settings.redis_url
    await explain.explain(rules_, url, who, room, now=seller.clock(), echo=lines.append)
    return "\n".join(lines)


async def account(seller, user: str, room: str | None = None):
    async with opened(seller.settings.rules, seller.settings.redis_url) as evidence:
        return await gather(evidence, seller.whop.people.user(user).id, room, seller.clock())


def test_a_purchase_is_told_from_the_delivery_to_the_call_and_its_answer(redis_url):
    async def main():
        async with community.running(redis_url, COURSE + LOUNGE) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            ada = await account(seller, "ada", "course")
            (course,) = ada.rooms
            grant = course.grant.membership
            assert (course.room, course.inside) == ("course/1", True)
            assert course.verdict == f"is in, by Usher's grant {grant}"
            assert course.why == f"{bought.id} is completed"
            kinds = [line.kind for line in ada.story]
            assert kinds.index("delivery") < kinds.index("step") < kinds.index("look")
            (given,) = [line for line in ada.story if line.kind == "step"]
            assert given.text.startswith(f"Usher gave them a membership on course/1: {grant}, ")
            assert f"because {bought.id} is completed" in given.text
            assert "Whop answered POST /memberships: 200" in given.text
            assert given.ids
            text = await told(seller, ada.user)
            assert f"{bought.id} is completed, product prod_course" in text
            assert f"{bought.id} was bought once and for all: it does not end by itself" in text
            assert 'a refund would end it at once: on_refund = "revoke"' in text
            assert "lounge  The Lounge: is not in" in text
            assert "no purchase opens it" in text

    asyncio.run(main())


def test_an_end_is_told_with_its_reason_and_its_call(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            seller.whop.memberships.cancel(bought.id)
            await seller.settled()
            ada = await account(seller, "ada")
            (course,) = ada.rooms
            assert not course.inside
            assert course.verdict == "is not in: Usher's grant was ended"
            assert course.why == f"{bought.id} is canceled"
            assert course.endings == ()
            last = [line for line in ada.story if line.kind == "step"][-1]
            assert "Usher ended their membership on course/1" in last.text
            assert "Whop answered POST /memberships/{id}/cancel: 200" in last.text

    asyncio.run(main())


def test_a_renewing_purchase_says_when_its_time_ends(redis_url):
    async def main():
        async with community.running(redis_url, COURSE + LOUNGE, one_time=()) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            (ending, *_) = (await account(seller, "ada", "course")).rooms[0].endings
            held = seller.whop.tables.memberships[bought.id]
            assert ending.at == held.period_end
            assert ending.why.startswith(f"{bought.id} is active, and a payment is due")
            seller.whop.memberships.cancel(bought.id, at_period_end=True)
            await seller.settled()
            (ending, *_) = (await account(seller, "ada", "course")).rooms[0].endings
            assert (
                "the time that is paid for ends" in ending.why or "a payment is due" in ending.why
            )
            assert ending.at == held.period_end

    asyncio.run(main())


def test_a_room_without_grants_is_explained_by_its_product(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE + EVENT) as seller:
            bought = seller.whop.memberships.buy("prod_basic", "ada")
            seller.whop.memberships.buy("prod_ticket", "ada")
            await seller.settled()
            lounge, ama = (await account(seller, "ada")).rooms
            assert lounge.inside
            assert lounge.grant is None
            assert lounge.why == f"{bought.id} is active, and Whop itself lets its owner in"
            assert lounge.rule == "whoever has prod_basic may come in"
            ends = datetime(2030, 12, 8, 1, 0, tzinfo=UTC)  # 20:00 in New York, two days later
            assert [one.at for one in ama.endings if "archived" in one.why] == [ends]

    asyncio.run(main())


def test_somebody_whose_grant_fails_is_told_why_and_what_comes(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.faults.failures = [
                Failure(operation="memberships.create", status=500, times=99)
            ]
            seller.whop.memberships.buy("prod_course", "ada")
            user = seller.whop.people.user("ada").id
            async with asyncio.timeout(PATIENCE):
                while not await seller.subjects.looks(f"member:{user}"):  # noqa: ASYNC110 - a worker writes
                    await asyncio.sleep(0.02)
            text = await told(seller, user)
            assert "course/1  Course 1: is not in, and should be" in text
            assert "POST /memberships: 500" in text
            assert "did not succeed and will be repeated" in text
            assert "the next look, for msg_" in text

    asyncio.run(main())


def test_somebody_whose_grant_was_refused_for_good_is_told_what_a_person_must_do(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.forbid("membership:create")
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            user = seller.whop.people.user("ada").id
            text = await told(seller, user)
            assert "given up at try 1: POST /memberships: 403" in text
            assert f"`usher dead retry member:{user}` tries again" in text

    asyncio.run(main())


def test_a_person_is_found_by_what_is_theirs(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            user = seller.whop.people.user("ada").id
            assert (await told(seller, bought.id)).startswith(user)
            payment = next(iter(seller.whop.tables.payments.values()))
            assert (await told(seller, payment.id)).startswith(user)
            for who, why in (
                ("ada", "Usher keeps no names"),
                ("mem_9", "no delivery that is kept"),
            ):
                with pytest.raises(NotFound, match=why):
                    await told(seller, who)
            with pytest.raises(NotFound, match="no such room; there are course"):
                await told(seller, user, "curse")

    asyncio.run(main())


def test_a_refund_that_names_no_member_is_in_the_story_of_its_owner(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, pinned=False) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            await seller.redis.flushdb()
            user = seller.whop.people.user("ada").id
            subject = f"membership:{bought.id}"
            tools = seller.tools()
            await tools.inbox.mark(subject, "msg_refund", 1)
            await seller.settled()
            (step,) = await seller.store.steps(subject)
            assert (step.what, step.id, step.deliveries) == (
                "subject.passed_on",
                user,
                ("msg_refund",),
            )
            assert (await told(seller, bought.id)).startswith(user)

    asyncio.run(main())


def test_it_says_what_it_does_not_know(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            text = await told(seller, "user_nobody")
            assert "Whop was last asked: never" in text
            assert "Nothing is known to have happened." in text
            assert "Usher has never asked Whop about them" in text
            assert "usher verify --user" in text
            assert "Course ...: is not in" in text
            assert "does not exist" not in text

    asyncio.run(main())


def test_an_admin_is_left_alone(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            await seller.rest()  # or it might ask Whop for the team just now
            await seller.store.save_team(frozenset({"user_boss"}))
            text = await told(seller, "user_boss")
            assert text.startswith("user_boss, an admin of the account")
            assert "Usher leaves the team alone" in text

    asyncio.run(main())


def test_json_says_the_same(redis_url, capsysbinary):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            await seller.rest()  # its log would stand among what is printed
            capsysbinary.readouterr()
            user = seller.whop.people.user("ada").id
            await explain.explain(
                seller.settings.rules,
                redis_url,
                user,
                None,
                now=now(),
                echo=print,
                as_json=True,
            )
            document = json.loads(capsysbinary.readouterr().out)
            assert document["user"] == user
            assert document["rooms"][0]["inside"] is True
            assert {line["kind"] for line in document["story"]} == {"delivery", "step", "look"}
            assert document["unknown"]

    asyncio.run(main())


# --- what would end it, purely

ROOMS = {room.key: room for room in rules.parse(community.HEAD + COURSE + LOUNGE + EVENT).rooms}
AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
LATER = AT + timedelta(days=10)


class Held:
    """A membership as `explain` reads it back."""

    def __init__(self, status: str, product: str, ends: datetime | None = None) -> None:
        self.id, self.status, self.product, self.plan = "mem_1", status, product, "plan_1"
        self.created_at, self.period_end = AT - timedelta(days=20), ends


STANDINGS = [
    ("course", "active", LATER, True, [LATER, None]),
    ("course", "completed", None, True, [None, None]),
    ("course", "completed", LATER, True, [LATER, None]),
    ("course", "canceling", LATER, True, [LATER, None]),
    ("course", "past_due", AT - timedelta(days=1), True, [AT + timedelta(days=2), None]),
    ("course", "past_due", AT - timedelta(days=5), False, []),
    ("course", "canceled", AT, False, []),
    ("course", "frozen", AT, None, []),
    ("lounge", "active", LATER, True, [LATER]),
    ("lounge", "past_due", AT, True, [None]),
    ("lounge", "expired", AT, False, []),
    ("lounge", "frozen", AT, None, []),
]


@pytest.mark.parametrize(("key", "status", "ends", "holds", "endings"), STANDINGS)
def test_what_ends_an_access_and_when(key, status, ends, holds, endings):
    room = ROOMS[key]
    held = Held(status, room.products[0], ends)
    found = standing(room, [held], Facts(), AT, archived_from=None)
    assert found.holds is holds
    assert [one.at for one in found.endings] == endings
    assert "mem_1" in found.why


def test_two_purchases_keep_a_room_open_until_the_last_ends():
    room = ROOMS["lounge"]
    both = [Held("active", "prod_basic", LATER), Held("canceling", "prod_basic", AT)]
    found = standing(room, both, Facts(), AT, archived_from=None)
    assert "the last one to end decides" in found.endings[-1].why


def test_a_room_that_is_archived_lets_nobody_in():
    room = ROOMS["ama"]
    held = [Held("completed", "prod_ticket")]
    found = standing(room, held, Facts(), AT, archived_from=AT)
    assert found.holds is False
    assert found.why == "the room was archived at 2026-11-20 12:00 UTC"
    found = standing(room, held, Facts(), AT, archived_from=LATER)
    assert found.endings[-1].at == LATER


def test_what_whop_shows_is_taken_down_whole():
    held = Held("active", "prod_basic", LATER)
    held.updated_at = held.period_start = AT
    held.canceled_at = None
    seen = Seen.of(held)
    assert (seen.status, seen.product, seen.updated_at) == ("active", "prod_basic", AT)
    assert (seen.plan, seen.created_at, seen.period_end) == ("plan_1", held.created_at, LATER)
