"""Access equals purchases, and one command proves it; a memory that was lost comes back."""

import asyncio
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import community
import msgspec
import pytest
from rich.console import Console

from webhooks.inbox import Inbox
from worker.commands.verify import VerifyError, verify
from worker.memory.members import Member
from worker.policy.differences import Cure, Kind
from worker.proof import inspection
from worker.sandbox.bodies import ChannelPatch, NewMessage
from worker.sandbox.faults import Failure
from worker.subjects import milliseconds

COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 3 }
welcome = "Glad you are here."
on_refund = "revoke"
"""
FORGETFUL = ["products.create", "variants.create", "experiences.create", "experiences.attach"]
FORGETFUL += ["messages.create", "memberships.create"]
"""A Whop that takes no notice of idempotency keys hides no second of anything."""
LOUNGE = """
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]
user_posts_cooldown_seconds = 5
banned_words = ["telegram"]
welcome = "Welcome."
"""


def event(now):
    local = (now + timedelta(minutes=5)).astimezone(community.rules.ZoneInfo("America/New_York"))
    return f"""
[rooms.ama]
name = "Live AMA"
products = ["prod_ticket"]
opens = "15m"
seats = 50
occurrences = [{{ starts = {local:%Y-%m-%dT%H:%M:%S}, lasts = "90m" }}]
messages = [{{ when = "opening", text = "We begin at {{starts}}.", pin = true }}]
"""


class Later:
    """A clock that a test puts forward."""

    def __init__(self):
        self.by = timedelta(0)

    def __call__(self):
        return datetime.now(UTC) + self.by


async def verified(seller, *, rooms=None, **options):
    """Run `usher verify`, when all news has had its time; return its code and JSON."""
    seller.clock.by += timedelta(minutes=11)
    return await verified_now(seller, rooms=rooms, **options)


async def verified_now(seller, *, rooms=None, **options):
    settings = community.settings(seller.settings, rooms) if rooms else seller.settings
    shown, document = io.StringIO(), io.BytesIO()
    console = Console(file=shown, width=200)
    code = await verify(
        settings, as_json=True, clock=seller.clock, console=console, out=document, **options
    )
    return code, json.loads(document.getvalue()), shown.getvalue()


def kinds(document):
    return sorted(one["kind"] for one in document["differences"])


def on_whop(seller):
    """Return all that exists on the local Whop, but for what nobody made."""
    tables = seller.whop.tables
    return {
        "products": {p.id: (p.visibility, p.metadata) for p in tables.products.values()},
        "plans": {p.id: (p.product_id, p.stock) for p in tables.plans.values()},
        "chats": {e.id: (e.name, e.product_ids) for e in tables.experiences.values()},
        "channels": {c.id: msgspec.to_builtins(c) for c in tables.channels.values()},
        "memberships": {m.id: (m.user_id, m.status) for m in tables.memberships.values()},
        "messages": {m.id: (m.content, m.is_pinned) for m in tables.messages.values()},
        "invitations": dict(tables.invitations),
    }


async def in_redis(seller):
    """Return what is remembered of members and rooms, but for how it came to be."""
    state = {}
    for key in sorted(await seller.redis.keys(f"{seller.prefix}*")):
        name = key.decode().removeprefix(seller.prefix)
        kind = name.partition(":")[0]
        if kind in ("seats", "filled"):
            state[name] = await seller.redis.hgetall(key)
        elif kind == "granted":
            state[name] = await seller.redis.smembers(key)
        elif kind == "sold":
            state[name] = await seller.redis.zrange(key, 0, -1)
        elif kind == "room":
            place = json.loads(await seller.redis.get(key))
            names = ("name", "product", "plan", "experience", "channel", "ready", "welcomed")
            state[name] = {one: place[one] for one in names}
        elif kind == "member":
            grants = json.loads(await seller.redis.get(key))["grants"]
            names = ("cohort", "product", "plan", "membership", "taken")
            if grants:
                told = {r: [grant.get(one) for one in names] for r, grant in grants.items()}
                state[name] = told
    return state


async def populate(seller):
    """Have people buy, leave and be refunded, through two cohorts, an event room and a lounge."""
    whop = seller.whop
    for n in range(5):
        whop.memberships.buy("prod_course", f"buyer{n}")
        await seller.settled()
    left = whop.memberships.buy("prod_course", "leaver")
    await seller.settled()
    whop.memberships.cancel(left.id)
    refunded = whop.memberships.buy("prod_course", "refunded")
    await seller.settled()
    whop.till.refund(refunded.id)
    for product in ("prod_basic", "prod_ticket"):
        whop.memberships.buy(product, "buyer0")
    await seller.settled()
    assert await seller.cohort("course", "leaver") == "2"
    assert await seller.cohort("course", "refunded") == "3"


@pytest.mark.parametrize("by", ["verify --repair", "a restart"])
def test_a_lost_memory_comes_back_from_whop_and_nothing_is_made_twice(redis_url, by):
    async def main():
        clock = Later()
        rules = COURSE + LOUNGE + event(clock())
        async with community.running(redis_url, rules, clock=clock) as seller:
            seller.whop.faults.ignore_idempotency = FORGETFUL
            await populate(seller)
            code, document, _ = await verified(seller)
            assert (code, document["differences"]) == (0, [])
            clock.by -= timedelta(minutes=11)
            whop, memory = on_whop(seller), await in_redis(seller)
            assert len(memory["granted:course/1"]) == 3
            await seller.rest()
            await seller.redis.flushall()
            if by == "a restart":
                await seller.work()
                await seller.settled()
            else:
                code, document, shown = await verified_now(seller, repair=True)
                assert (code, document["differences"]) == (0, []), shown
                assert {"grant.unrecorded", "room.unrecorded"} <= {
                    one["kind"] for one in document["repaired"]
                }
                await seller.work()
                await seller.settled()
            assert on_whop(seller) == whop
            assert await in_redis(seller) == memory
            seller.whop.memberships.buy("prod_course", "newcomer")
            await seller.settled()
            assert await seller.cohort("course", "newcomer") == "3"
            for n in range(2):
                seller.whop.memberships.buy("prod_course", f"later{n}")
                await seller.settled()
            assert await seller.cohort("course", "later0") == "3"
            assert await seller.cohort("course", "later1") == "4"
            back = seller.whop.memberships.buy("prod_course", "leaver")
            await seller.settled()
            assert back.entitled
            assert await seller.cohort("course", "leaver") == "2"
            assert await seller.may_enter("leaver", "course/2")
            assert seller.rooms() == sorted(
                [*(f"Course, cohort {n}" for n in "1234"), "Live AMA", "The Lounge"]
            )
            code, document, shown = await verified(seller)
            assert (code, document["differences"]) == (0, []), shown

    asyncio.run(main())


def test_a_memory_that_is_lost_while_a_worker_runs_gives_nobody_a_second_grant(redis_url):
    async def main():
        clock = Later()
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            seller.whop.faults.ignore_idempotency = FORGETFUL
            for n in range(4):
                seller.whop.memberships.buy("prod_course", f"buyer{n}")
                await seller.settled()
            grants = len(seller.whop.tables.memberships)
            await seller.redis.flushall()
            (hers, _) = [
                m
                for m in seller.whop.tables.memberships.values()
                if m.user_id == seller.whop.people.user("buyer3").id
            ]
            user = seller.whop.people.user("buyer3").id
            await Inbox(seller.redis, community.ACCOUNT).mark(
                f"member:{user}", "test", round(clock().timestamp() * 1000)
            )
            await seller.settled()
            assert hers.entitled
            assert len(seller.whop.tables.memberships) == grants
            assert await seller.cohort("course", "buyer3") == "2"
            seller.whop.memberships.buy("prod_course", "newcomer")
            await seller.settled()
            assert await seller.cohort("course", "newcomer") == "2"

    asyncio.run(main())


def test_one_record_that_is_lost_is_found_again_at_the_next_look(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            seller.whop.faults.ignore_idempotency = FORGETFUL
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            user = seller.whop.people.user("ada").id
            before = len(seller.whop.tables.memberships)
            await seller.redis.delete(f"{seller.prefix}member:{user}")
            await seller.redis.hdel(f"{seller.prefix}seats:course", user)
            code, document, _ = await verified(seller)
            assert (code, kinds(document)) == (1, ["grant.unrecorded"])
            code, document, shown = await verified(seller, repair=True)
            assert (code, document["differences"]) == (0, []), shown
            assert len(seller.whop.tables.memberships) == before
            assert await seller.cohort("course", "ada") == "1"

    asyncio.run(main())


def test_lost_deliveries_are_found_and_put_right_and_a_second_run_finds_nothing(redis_url):
    async def main():
        async with community.running(redis_url, COURSE + LOUNGE, clock=Later()) as seller:
            kept = seller.whop.memberships.buy("prod_course", "ada")
            gone = seller.whop.memberships.buy("prod_course", "bob")
            await seller.settled()
            seller.whop.faults.drop = 1.0
            seller.whop.memberships.cancel(gone.id)
            seller.whop.memberships.buy("prod_course", "cleo")
            seller.clock.by += timedelta(minutes=3)
            seller.whop.till.refund(kept.id)
            code, document, _ = await verified_now(seller)
            assert kinds(document) == ["member.let_in", "member.shut_out"]
            assert len(document["in_work"]) == 1  # the news of the refund may be on its way
            code, document, shown = await verified(seller)
            assert code == 1
            assert kinds(document) == ["member.let_in", "member.let_in", "member.shut_out"]
            assert "was refunded, and the rules say 'revoke'" in shown
            code, document, shown = await verified(seller, repair=True)
            assert (code, len(document["repaired"])) == (0, 3), shown
            assert "will do" in shown
            assert await seller.may_enter("cleo", "course/1")
            assert not await seller.may_enter("bob", "course/1")
            assert not await seller.may_enter("ada", "course/1")
            code, document, _ = await verified(seller, repair=True)
            assert (code, document["repaired"]) == (0, [])

    asyncio.run(main())


def test_a_new_room_for_a_product_that_people_own_gets_its_members(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE, clock=Later()) as seller:
            for n in range(4):
                seller.whop.memberships.buy("prod_basic", f"owner{n}")
            await seller.settled()
            await seller.rest()
            club = COURSE.replace("prod_course", "prod_basic").replace("course", "club")
            code, document, _ = await verified(seller, rooms=LOUNGE + club)
            assert (code, document["counts"]) == (1, {"member.shut_out": 4})
            code, document, shown = await verified(seller, rooms=LOUNGE + club, repair=True)
            assert (code, document["differences"]) == (0, []), shown
            assert await seller.store.count_granted(["club/1", "club/2"]) == {
                "club/1": 3,
                "club/2": 1,
            }
            code, document, _ = await verified(seller, rooms=LOUNGE + club)
            assert code == 0

    asyncio.run(main())


def test_who_joined_by_the_link_is_named_and_never_put_out(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            place = await seller.place("course/1")
            guest = seller.whop.memberships.buy(place.product, "guest")
            await seller.settled()
            for _ in range(2):
                code, document, _ = await verified(seller, repair=True)
                assert (code, kinds(document)) == (1, ["grant.not_ours"])
                (one,) = document["differences"]
                assert (one["cure"], one["id"]) == ("person", guest.id)
            await seller.rest()
            await seller.redis.flushall()
            code, document, _ = await verified(seller, repair=True)
            assert (code, kinds(document)) == (1, ["grant.not_ours"])
            assert guest.entitled
            assert (await seller.redis.hgetall(f"{seller.prefix}filled:course"))[b"1"] == b"1"

    asyncio.run(main())


def test_a_grant_that_somebody_ended_is_given_again_or_noted(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            bought = {name: seller.whop.memberships.buy("prod_course", name) for name in ("a", "b")}
            await seller.settled()
            seller.whop.faults.drop = 1.0
            for held in list(seller.whop.tables.memberships.values()):
                if held.id not in [one.id for one in bought.values()]:
                    seller.whop.memberships.cancel(held.id)
            seller.whop.memberships.cancel(bought["b"].id)
            code, document, _ = await verified(seller)
            assert (code, kinds(document)) == (1, ["grant.gone", "member.shut_out"])
            code, document, shown = await verified(seller, repair=True)
            assert code == 0, shown
            assert await seller.may_enter("a", "course/1")
            assert await seller.store.count_granted(["course/1"]) == {"course/1": 1}

    asyncio.run(main())


def test_rooms_that_are_gone_detached_or_doubled_are_found(redis_url):
    async def main():
        async with community.running(redis_url, COURSE + LOUNGE, clock=Later()) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            rooms = seller.whop.rooms
            course, lounge = await seller.place("course/1"), await seller.place("lounge")
            rooms.detach(lounge.experience, "prod_basic")
            rooms.attach(course.experience, "prod_basic")
            second = rooms.create_experience(community.chat("Course, cohort 1"))
            rooms.attach(second.id, "prod_course")
            code, document, _ = await verified(seller)
            assert (code, kinds(document)) == (
                1,
                ["room.detached", "room.doubled", "room.misattached"],
            )
            rooms.delete_experience(second.id)
            rooms.detach(course.experience, "prod_basic")
            rooms.delete_experience(course.experience)
            code, document, _ = await verified(seller)
            assert (code, kinds(document)) == (1, ["room.detached", "room.gone"])
            code, document, shown = await verified(seller, repair=True)
            assert code == 0, shown
            assert seller.rooms() == ["Course, cohort 1", "The Lounge"]
            assert await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_a_channel_that_is_set_otherwise_is_found_but_not_an_edit_that_is_respected(redis_url):
    async def main():
        reverting = COURSE.replace("welcome", 'manual_edits = "revert"\nban_urls = true\nwelcome')
        async with community.running(redis_url, reverting + LOUNGE, clock=Later()) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            await seller.rest()  # nobody watches
            course, lounge = await seller.place("course/1"), await seller.place("lounge")
            seller.whop.rooms.update_channel(course.channel, ChannelPatch(ban_urls=False))
            edit = ChannelPatch(user_posts_cooldown_seconds=60)
            seller.whop.rooms.update_channel(lounge.channel, edit)
            code, document, shown = await verified(seller)
            assert (code, kinds(document)) == (1, ["channel.differs"])
            assert "should have ban_urls = true" in shown
            code, _, shown = await verified(seller, repair=True)
            assert code == 0, shown
            assert (await seller.channel("course/1")).ban_urls
            assert (await seller.channel("lounge")).user_posts_cooldown_seconds == 60

    asyncio.run(main())


def test_a_room_and_a_user_can_be_asked_for_alone(redis_url):
    async def main():
        async with community.running(redis_url, COURSE + LOUNGE, clock=Later()) as seller:
            seller.whop.faults.drop = 1.0
            for name in ("ada", "bob"):
                seller.whop.memberships.buy("prod_course", name)
            lounge = await seller.place("lounge")
            seller.whop.rooms.detach(lounge.experience, "prod_basic")
            assert (await verified(seller, room="lounge"))[1]["counts"] == {"room.detached": 1}
            assert (await verified(seller, room="course"))[1]["counts"] == {"member.shut_out": 2}
            ada = seller.whop.people.user("ada").id
            assert (await verified(seller, user=ada))[1]["counts"] == {"member.shut_out": 1}
            assert (await verified(seller, user=ada, repair=True))[0] == 0
            assert (await verified(seller, room="course"))[1]["counts"] == {"member.shut_out": 1}
            with pytest.raises(VerifyError, match="no room is called 'nook'; there are course"):
                await verified(seller, room="nook")

    asyncio.run(main())


def test_what_is_being_worked_on_is_no_difference_and_what_was_given_up_is(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            seller.forbid("membership:create")
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            code, document, shown = await verified(seller)
            assert (code, kinds(document)) == (1, ["member.shut_out"])
            assert "Usher gave it up: POST /memberships: 403" in shown
            seller.allow_everything()
            seller.whop.faults.failures.append(
                Failure(operation="memberships.create", status=400, times=99)
            )
            code, document, _ = await verified(seller, repair=True)
            assert (code, len(document["in_work"]), document["repaired"]) == (1, 1, [])
            seller.whop.faults.failures.clear()
            seller.clock.by += timedelta(minutes=15)  # it goes on for too long
            code, document, _ = await verified(seller)
            assert (code, kinds(document)) == (1, ["member.shut_out"])
            assert (await verified(seller, repair=True))[0] == 0
            assert await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_a_whop_that_does_not_answer_is_no_difference(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            await seller.rest()
            seller.whop.faults.failures.append(Failure(operation="memberships.list", times=9))
            seller.whop.memberships.buy("prod_course", "ada")
            with pytest.raises(VerifyError, match="so nothing can be said: GET /memberships: 503"):
                await verified(seller)

    asyncio.run(main())


def test_the_night_reports_and_repairs_nothing(redis_url, capsys):
    async def main():
        clock = Later()
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            seller.whop.faults.drop = 1.0
            seller.whop.memberships.buy("prod_course", "ada")
            zone = seller.settings.rules.zone
            hour = clock().astimezone(zone).hour
            clock.by += timedelta(hours=(inspection.QUIET - hour - 1) % 24 + 24)
            before = len(seller.server.journal.of("memberships.list"))
            await seller.rest()  # a worker's cron does the same once in an hour
            await seller.redis.delete(f"{seller.prefix}verified")
            async with seller.workbench() as tools:
                while clock().astimezone(zone).hour != inspection.QUIET:
                    await inspection.nightly(tools)
                    assert len(seller.server.journal.of("memberships.list")) == before
                    clock.by += timedelta(minutes=15)
                await inspection.nightly(tools)
                assert "verify.found" in capsys.readouterr().out
                assert len(seller.whop.tables.memberships) == 1
                seller.whop.faults.drop = 0.0
                assert (await verified_now(seller, repair=True))[0] == 0
                await inspection.nightly(tools)
                assert "verify.in_order" in capsys.readouterr().out

    asyncio.run(main())


def test_a_night_in_which_nobody_worked_is_made_up_for(redis_url, capsys):
    async def main():
        clock = Later()
        async with community.running(redis_url, LOUNGE, clock=clock) as seller:
            zone = seller.settings.rules.zone
            hour = clock().astimezone(zone).hour
            clock.by += timedelta(hours=(inspection.QUIET - hour) % 24 + 2)
            await seller.rest()  # a worker's cron does the same once in an hour
            await seller.redis.delete(f"{seller.prefix}verified")
            async with seller.workbench() as tools:
                await inspection.nightly(tools)  # the first hour of all: nothing is missed yet
                capsys.readouterr()
                clock.by += timedelta(hours=24)
                await inspection.nightly(tools)
                assert "verify" not in capsys.readouterr().out
                clock.by += timedelta(hours=1)
                await inspection.nightly(tools)
                assert "verify.in_order" in capsys.readouterr().out
                await inspection.nightly(tools)
                assert "verify" not in capsys.readouterr().out

    asyncio.run(main())


def test_every_kind_has_words_for_people():
    from worker.commands.verify import REMEDIES, SAID

    assert SAID.keys() == set(Kind)
    assert REMEDIES.keys() == set(Cure)


def test_a_greeting_far_back_and_a_message_of_now_are_not_written_again(redis_url):
    async def main():
        clock = Later()
        rules = LOUNGE + event(clock())
        async with community.running(redis_url, rules, clock=clock) as seller:
            seller.whop.faults.ignore_idempotency = FORGETFUL
            for key in ("lounge", "ama"):
                channel = (await seller.place(key)).channel
                for n in range(130):
                    seller.whop.rooms.post(NewMessage(channel_id=channel, content=f"chatter {n}"))
            await seller.settled()
            before = on_whop(seller)["messages"]
            assert sum(1 for said, _ in before.values() if said.startswith("We begin")) == 1
            await seller.rest()
            await seller.redis.flushall()
            await seller.work()
            await seller.settled()
            assert on_whop(seller)["messages"] == before

    asyncio.run(main())


def test_the_stock_that_whop_holds_is_not_set_again_from_nothing(redis_url):
    async def main():
        rules = event(datetime.now(UTC))
        async with community.running(redis_url, rules, clock=Later()) as seller:
            plans = seller.whop.tables.plans.values()
            plan = next(p for p in plans if p.product_id == "prod_ticket")
            await seller.rest()
            rules = rules.replace("seats = 50", f'seats = 10\nplan = "{plan.id}"')
            seller.settings = community.settings(seller.settings, rules)
            await seller.work()
            await seller.settled()
            refunded = seller.whop.memberships.buy("prod_ticket", "ada")
            seller.whop.memberships.buy("prod_ticket", "bob")
            await seller.settled()
            seller.whop.memberships.cancel(refunded.id)
            await seller.settled()
            assert plan.stock == 8
            await seller.rest()
            await seller.redis.flushall()
            await seller.work()
            await seller.settled()
            assert plan.stock == 8
            assert len((await seller.store.buyers(["ama"]))["ama"]) == 1

    asyncio.run(main())


def test_a_repair_beside_workers_and_fresh_buyers_overfills_nothing(redis_url):
    async def main():
        clock = Later()
        async with community.running(redis_url, COURSE, workers=2, clock=clock) as seller:
            seller.whop.faults.drop = 1.0
            for n in range(8):
                seller.whop.memberships.buy("prod_course", f"missed{n}")
            clock.by += timedelta(minutes=3)
            seller.whop.faults.drop = 0.0
            seller.whop.faults.latency_seconds = 0.02
            repairs = [asyncio.create_task(verified_now(seller, repair=True)) for _ in range(2)]
            for n in range(4):
                seller.whop.memberships.buy("prod_course", f"fresh{n}")
            await asyncio.gather(*repairs)
            clock.by = timedelta(0)
            await seller.until_delivered()
            await seller.bring_forward()  # whom the repairs left, for arq goes by our clock
            await seller.settled()
            assert await seller.redis.hgetall(f"{seller.prefix}filled:course") == {
                **{str(n).encode(): b"3" for n in range(1, 5)},
                b"last": b"4",
            }
            assert seller.calls("memberships.create") == 12
            assert (await verified(seller))[:1] == (0,)

    asyncio.run(main())


def test_a_repair_waits_for_what_a_worker_holds(redis_url):
    async def main():
        clock = Later()
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            seller.whop.faults.drop = 1.0
            seller.whop.memberships.buy("prod_course", "ada")
            clock.by += timedelta(minutes=3)
            subject = f"member:{seller.whop.people.user('ada').id}"
            lock = f"{seller.prefix}lock:{subject}"
            await seller.redis.set(lock, "somebody else", px=600)
            code, document, _ = await verified_now(seller, repair=True)
            assert (code, len(document["repaired"])) == (0, 1)
            assert await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_seats_that_are_not_counted_are_counted_before_the_next_is_given(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            for n in range(4):
                seller.whop.memberships.buy("prod_course", f"buyer{n}")
                await seller.settled()
            filled = f"{seller.prefix}filled:course"
            await seller.redis.delete(filled)
            code, document, _ = await verified(seller)
            assert (code, document["counts"]) == (1, {"seats.lost": 2})
            code, document, shown = await verified(seller, repair=True)
            assert code == 0, shown
            assert await seller.redis.hgetall(filled) == {b"1": b"3", b"2": b"1", b"last": b"2"}

    asyncio.run(main())


def test_tickets_that_were_lost_or_ended_unheard_are_counted_anew(redis_url):
    async def main():
        rules = event(datetime.now(UTC)).replace("seats = 50", "seats = 1")
        async with community.running(redis_url, rules, clock=Later()) as seller:
            ended = seller.whop.memberships.buy("prod_ticket", "ada")
            await seller.settled()
            seller.whop.faults.drop = 1.0
            seller.whop.memberships.cancel(ended.id)
            for name in ("bob", "cleo"):
                seller.whop.memberships.buy("prod_ticket", name)
            code, document, _ = await verified(seller)
            assert (code, document["counts"]) == (1, {"ticket.miscounted": 3})
            code, document, _ = await verified(seller, repair=True)
            assert (code, document["counts"]) == (1, {"seats.oversold": 1})

    asyncio.run(main())


def test_a_member_of_two_cohort_rooms_is_recalled_with_both(redis_url):
    async def main():
        club = COURSE.replace("[rooms.course]", "[rooms.club]").replace("Course,", "Club,")
        async with community.running(redis_url, COURSE + club, clock=Later()) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            memory = await in_redis(seller)
            assert {"granted:club/1", "granted:course/1"} <= memory.keys()
            await seller.rest()
            await seller.redis.flushall()
            await seller.work()
            await seller.settled()
            assert await in_redis(seller) == memory

    asyncio.run(main())


def test_a_record_that_came_meanwhile_is_newer_than_what_was_recalled(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            user = seller.whop.people.user("ada").id
            known = await seller.store.member(user)
            older = Member(grants={"course": replace(known.grants["course"], taken=True)})
            await seller.store.remember_members({user: older})
            assert (await seller.store.member(user)) == known
            assert (await seller.redis.hgetall(f"{seller.prefix}filled:course"))[b"1"] == b"1"

    asyncio.run(main())


def test_a_loss_while_whop_is_down_is_made_good_before_the_first_seat_is_given(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            for n in range(4):
                seller.whop.memberships.buy("prod_course", f"buyer{n}")
                await seller.settled()
            await seller.rest()
            await seller.redis.flushall()
            seller.whop.faults.failures.append(Failure(operation="products.list", times=3))
            await seller.work()
            assert await seller.store.recalled() == frozenset()
            seller.whop.memberships.buy("prod_course", "newcomer")
            await seller.settled()
            assert await seller.cohort("course", "newcomer") == "2"
            assert await seller.cohort("course", "buyer0") == "1"
            assert seller.calls("memberships.create") == 5

    asyncio.run(main())


def test_a_change_of_this_very_instant_is_being_worked_on(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE, clock=Later()) as seller:
            await seller.rest()
            now, inbox = seller.clock(), Inbox(seller.redis, community.ACCOUNT)
            await inbox.mark("channel:lounge", "planned", milliseconds(now) + 2)
            await inbox.mark("room:lounge", "planned", milliseconds(now) + 60_000)
            asked = ["channel:lounge", "room:lounge", "member:user_a"]
            assert await seller.subjects.in_work(asked, now) == {"channel:lounge"}
            assert await seller.subjects.in_work(asked, now + timedelta(seconds=901)) == {
                "room:lounge"
            }

    asyncio.run(main())
