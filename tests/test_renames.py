"""A room whose key became another: taken over with `was`, and without it not doubled."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from io import BytesIO

import community
import pytest
from rich.console import Console
from test_explain import told
from test_policy_access import COURSE as COHORTS
from test_policy_access import NOW
from test_rules import mistakes, room

from worker import rules
from worker.commands import report
from worker.commands.outlook import keyed
from worker.commands.verify import verify
from worker.memory.places import Place
from worker.policy.access import Facts, Hidden, strangers
from worker.policy.differences import found_grant
from worker.policy.marks import mark
from worker.policy.overrides import Hold
from worker.policy.renames import Renames, renames
from worker.policy.settings import Settings
from worker.subjects import milliseconds
from worker.whop.types import Membership

LOUNGE = """
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]
"""
COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 2 }
"""
BAR = """
[rooms.bar]
name = "The Bar"
products = ["prod_vip"]
"""
OTHER = BAR + BAR.replace("bar", "attic").replace("The Bar", "The Attic")


def called(text: str, old: str, new: str, *, was: bool = True) -> str:
    """Return rules with another key for a room."""
    word = f'was = "{old}"\n' if was else ""
    return text.replace(f"[rooms.{old}]\n", f"[rooms.{new}]\n{word}")


async def checked(seller) -> tuple[int, list[str]]:
    """Verify; returns the exit code and what is said of keys."""
    out = BytesIO()
    code = await verify(
        seller.settings, as_json=True, clock=Later(seller), console=Console(quiet=True), out=out
    )
    found = json.loads(out.getvalue())["differences"]
    return code, [one["why"] for one in found if one["kind"] == "room.key_unclear"]


class Later:
    """Five minutes on: news of no change is on its way any more."""

    def __init__(self, seller) -> None:
        self.seller = seller

    def __call__(self):
        return self.seller.clock() + timedelta(minutes=5)


def test_a_room_that_was_another_keeps_its_chat_its_holds_and_its_history(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE) as seller:
            seller.whop.memberships.buy("prod_basic", "ada")
            await seller.settled()
            before, chats = await seller.place("lounge"), seller.rooms()
            history = await seller.trail("room:lounge")
            now = seller.clock()
            held = Hold(now, now + timedelta(hours=2), "ann", settings=Settings(ban_urls=True))
            await seller.store.hold("lounge", held)
            for old, new in (("lounge", "salon"), ("salon", "lounge")):
                await seller.restart(called(LOUNGE.replace("lounge", old), old, new))
                assert seller.rooms() == chats
                assert await seller.store.instances() == [new]
                assert (await seller.place(new)).experience == before.experience
                assert (await seller.channel(new)).ban_urls
                assert (await seller.trail(f"room:{new}"))[: len(history)] == history
                assert await seller.may_enter("ada", new)
                assert not await seller.dead()
                assert await checked(seller) == (0, [])
                lost = [key async for key in seller.redis.scan_iter(f"*:{old}")]
                assert not lost

    asyncio.run(main())


def test_a_cohort_room_that_was_another_keeps_its_members_and_its_seats(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            made = seller.calls("memberships.create")
            for old, new in (("course", "academy"), ("academy", "course")):
                rooms = called(COURSE.replace("course]", f"{old}]"), old, new)
                await seller.restart(rooms)
                assert seller.calls("memberships.create") == made
                assert await seller.cohort(new, "ada") == "1"
                product = (await seller.place(f"{new}/1")).product
                assert (await seller.store.hidden([product]))[product].room == new
                assert await seller.may_enter("ada", f"{new}/1")
                assert f"{new}/1" in await told(seller, bought.user_id)
                assert await checked(seller) == (0, [])
            seller.whop.memberships.buy("prod_course", "grace")
            seller.whop.memberships.buy("prod_course", "joan")
            await seller.settled()
            cohorts = sorted([await seller.cohort("course", name) for name in ("grace", "joan")])
            assert cohorts == ["1", "2"]
            seller.whop.memberships.cancel(bought.id)
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")
            assert seller.rooms() == ["Course, cohort 1", "Course, cohort 2"]

    asyncio.run(main())


@pytest.mark.parametrize("text", [LOUNGE, COURSE], ids=["lounge", "course"])
def test_without_a_word_no_second_room_is_made_and_all_else_goes_on(redis_url, text, capsys):
    old = "lounge" if text is LOUNGE else "course"
    product = "prod_basic" if text is LOUNGE else "prod_course"

    async def main():
        async with community.running(redis_url, text + BAR) as seller:
            seller.whop.memberships.buy(product, "ada")
            await seller.settled()
            chats, products = seller.rooms(), len(seller.whop.tables.products)
            (key,) = [one for one in await seller.store.instances() if one != "bar"]
            await seller.restart(called(text, old, "salon", was=False) + OTHER)
            assert seller.rooms() == sorted([*chats, "The Attic"])
            assert len(seller.whop.tables.products) == products
            assert await seller.may_enter("ada", key)
            seller.whop.memberships.buy("prod_vip", "bob")
            await seller.settled()
            assert await seller.may_enter("bob", "attic")
            ways = f'write was = "{old}" in [rooms.salon]'
            code, (why,) = await checked(seller)
            assert code == 1
            assert ways in why
            assert "give it another name" in why
            url, ruled = seller.settings.redis_url, seller.settings.rules
            _, said = await keyed(ruled, url)
            assert ways in said["salon"]
            await report.rooms(ruled, url, seller.clock(), as_json=False)
            report.check(ruled, seller.clock(), said)
            shown = capsys.readouterr().out
            assert shown.count(ways) >= 2 + 1  # the log, and both commands
            await seller.restart(called(text, old, "salon") + OTHER)
            assert seller.rooms() == sorted([*chats, "The Attic"])
            assert await seller.may_enter("ada", key.replace(old, "salon"))
            assert await checked(seller) == (0, [])

    asyncio.run(main())


def test_until_a_worker_starts_with_the_new_rules_commands_show_the_old_key(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            seller.settings = community.settings(
                seller.settings, called(COURSE, "course", "academy")
            )
            text = await told(seller, bought.user_id)
            assert "course becomes academy when `usher work` starts" in text
            assert "is in, by Usher's grant" in text
            code, said = await checked(seller)
            assert (code, said) == (1, ["course becomes academy when `usher work` starts"])
            assert await seller.store.instances() == ["course/1"]  # nothing was changed

    asyncio.run(main())


def test_a_start_that_broke_off_in_the_middle_of_it_is_gone_on_with(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            made = seller.calls("memberships.create")
            await seller.rest()
            assert await seller.store._members("course", "academy") == 1
            rules_ = called(COURSE, "course", "academy")
            seller.settings = community.settings(seller.settings, rules_)
            await seller.work()
            await seller.settled()
            assert seller.calls("memberships.create") == made
            assert await seller.cohort("academy", "ada") == "1"
            assert await checked(seller) == (0, [])

    asyncio.run(main())


def test_after_a_loss_of_redis_a_renamed_cohort_is_known_again(redis_url):
    async def main():
        rooms = called(COURSE, "course", "academy")
        async with community.running(redis_url, COURSE) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            await seller.restart(rooms)
            await seller.rest()
            seller.whop.memberships.cancel(bought.id)  # nobody hears of it
            seller.whop.memberships.buy("prod_course", "grace")
            await seller.until_delivered()
            await seller.redis.flushall()
            await seller.work()
            await seller.settled()
            assert not await seller.may_enter("ada", "academy/1")
            user = f"member:{seller.whop.people.user('grace').id}"
            await seller.tools().inbox.mark(user, "test", milliseconds(seller.clock()))
            await seller.settled()
            assert await seller.may_enter("grace", "academy/1")
            assert seller.rooms() == ["Course, cohort 1"]

    asyncio.run(main())


def test_a_room_with_a_life_of_its_own_is_not_written_over(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE) as seller:
            salon = LOUNGE.replace("lounge", "salon").replace("The Lounge", "The Salon")
            await seller.restart(LOUNGE + salon)
            before = await seller.place("salon")
            await seller.restart(called(salon.replace("salon", "lounge"), "lounge", "salon"))
            assert (await seller.place("salon")).experience == before.experience
            assert await seller.store.instances() == ["lounge", "salon"]
            code, (why,) = await checked(seller)
            assert code == 1
            assert "lounge is not taken over: salon has rooms" in why

    asyncio.run(main())


def test_what_the_rules_may_say_of_an_older_key():
    assert rules.parse(room('was = "lounge"')).rooms[0].was == ("lounge",)
    assert rules.parse(room('was = ["b", "a"]')).rooms[0].was == ("b", "a")
    assert mistakes(room('was = "r"')) == [
        "rooms.r.was: rooms.r is there still; only a key that has gone was"
    ]
    other = '\n[rooms.s]\nname = "S"\nproducts = ["prod_s"]\nwas = "lounge"\n'
    assert mistakes(room('was = "lounge"') + other) == [
        "rooms.s.was: rooms.r takes over lounge too; a room becomes one room"
    ]
    assert mistakes(room('was = "The Lounge"')) == [
        "rooms.r.was: 'The Lounge' was no room's key: they have small letters only"
    ]


def test_a_grant_that_bears_the_mark_of_an_older_key_is_known_again():
    academy = replace(COHORTS, key="academy", was=("course",))
    hidden = {"prod_h": Hidden("academy", "1", "prod_h", "plan_h")}
    metadata = mark("biz_1", "course", "1")
    grant = Membership(
        id="mem_1",
        status="completed",
        user="user_1",
        product="prod_h",
        plan="plan_h",
        created_at=None,
        updated_at=None,
        period_end=None,
        metadata=metadata,
    )
    known = found_grant(academy, hidden, [grant], "biz_1")
    assert known
    assert known.membership == "mem_1"
    (out,) = strangers([academy], [grant], Facts(), hidden, now=NOW, account="biz_1")
    assert out.ours
    assert not found_grant(replace(academy, was=()), hidden, [grant], "biz_1")


def found(*rooms, **places) -> Renames:
    return renames(rooms, {key.replace("__", "/"): place for key, place in places.items()})


def test_only_a_room_of_the_same_name_and_products_is_taken_for_the_same():
    (lounge,) = rules.parse(community.HEAD + LOUNGE).rooms
    there = Place(name="The Lounge", experience="exp_1", attached=["prod_basic"])
    assert found(lounge, salon=there).refused == {"lounge": "salon"}
    assert not found(lounge, lounge=there).refused
    assert not found(lounge, salon=there, lounge=there).refused
    for other in (
        Place(name="The Lounge", experience="exp_1", attached=["prod_other"]),
        Place(name="The Bar", experience="exp_1", attached=["prod_basic"]),
        Place(name="The Lounge", attached=["prod_basic"]),
        Place(name="The Lounge", experience="exp_1", attached=["prod_basic"], archived=True),
    ):
        assert not found(lounge, salon=other).refused
    cohort = Place(name="Course 1", product="prod_hidden")
    assert found(COHORTS, old__1=cohort).refused == {"course": "old"}
    assert not found(COHORTS, old__2=cohort).refused
    assert not found(COHORTS, **{"old__2026-12-03T1800": cohort}).refused
