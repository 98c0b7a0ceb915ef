"""What failed for good, and the deliveries behind it: listed, shown, tried again, discarded."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Self

import community
import pytest
import redis.asyncio

from webhooks.events import Delivery
from webhooks.inbox import REMEMBERED, Inbox, connect
from worker import rules
from worker.admin.reach import Unreachable
from worker.commands import dead, delivery_report
from worker.commands.deliveries import Deliveries, Filter
from worker.commands.evidence import NotFound, before
from worker.leases import Leases
from worker.subjects import Subjects, milliseconds

COURSE = """
[rooms.course]
name = "Course {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
"""
RULES = rules.parse(community.HEAD + COURSE)
PREFIX = f"usher:{RULES.account}:"


def now() -> datetime:
    return datetime.now(UTC)


def delivery(id_: str, user: str = "user_1", age: timedelta = timedelta(0), **facts) -> Delivery:
    at = milliseconds(now() - age)
    type_ = facts.pop("type", "membership.updated")
    return Delivery(id=id_, type=type_, received=at, subject=f"member:{user}", user=user, **facts)


class Bench:
    """An inbox with a hand that works on it, and what commands printed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis = redis.asyncio.Redis.from_url(url)
        self.inbox = Inbox(connect(url), RULES.account)
        self.subjects = Subjects(self.redis, PREFIX, Leases(self.redis, PREFIX, "test"))
        self.lines: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.inbox.close()
        await self.redis.aclose()

    async def bury(self, subject: str, reason: str, *ids: str, age: timedelta | None = None):
        """Have a subject fail for good, a while ago."""
        died = now() - (age or timedelta(0))
        for id_ in ids or ("start",):
            await self.inbox.mark(subject, id_, milliseconds(died) - 5)
        claim = await self.subjects.claim(subject, now())
        assert claim
        await self.subjects.dead(claim, died, reason)

    async def retry(self, **chosen) -> int:
        choice = dead.Choice(**chosen)
        return await dead.retry(RULES, self.url, choice, now=now(), echo=self.lines.append)

    async def discard(self, **chosen) -> int:
        said = {"who": "eve", "why": "they asked for their money back"}
        choice = dead.Choice(**chosen)
        echo = self.lines.append
        return await dead.discard(RULES, self.url, choice, **said, now=now(), echo=echo)

    async def due(self) -> list[str]:
        return [one.decode() for one in await self.redis.zrange(f"{PREFIX}due", 0, -1)]


def graveyard(b: Bench):
    """Bury one of each kind, each for another reason and another while ago."""

    async def dig():
        await b.bury("member:user_1", "POST /memberships: 403 no", "msg_1", age=timedelta(hours=5))
        await b.bury("room:course/1", "POST /experiences: 422 name", age=timedelta(hours=3))
        await b.bury("payment:pay_1", "GET /payments/{id}: 403 no", age=timedelta(hours=1))

    return dig()


CHOICES = [
    ({"everything": True}, ["member:user_1", "payment:pay_1", "room:course/1"]),
    ({"kind": "room"}, ["room:course/1"]),
    ({"reason": "403 NO"}, ["member:user_1", "payment:pay_1"]),
    ({"older": timedelta(hours=2)}, ["member:user_1", "room:course/1"]),
    ({"newer": timedelta(hours=4)}, ["payment:pay_1", "room:course/1"]),
    ({"subjects": ("room:course/1", "payment:pay_1")}, ["payment:pay_1", "room:course/1"]),
    ({"kind": "member", "reason": "422"}, []),
]


@pytest.mark.parametrize(("chosen", "meant"), CHOICES, ids=[str([*c]) for c, _ in CHOICES])
def test_a_retry_makes_those_due_that_were_chosen_and_no_others(redis_url, chosen, meant):
    chosen = {k: now() - v if isinstance(v, timedelta) else v for k, v in chosen.items()}

    async def main():
        async with Bench(redis_url) as b:
            await graveyard(b)
            assert await b.retry(**chosen) == len(meant)
            assert sorted(await b.due()) == meant
            assert len(await b.subjects.deaths()) == 3  # until they succeed

    asyncio.run(main())


def test_a_command_on_many_wants_to_be_told_which(redis_url):
    async def main():
        async with Bench(redis_url) as b:
            await graveyard(b)
            for command in (b.retry, b.discard):
                with pytest.raises(NotFound, match="--all"):
                    await command()
                with pytest.raises(NotFound, match="member:user_9: not among"):
                    await command(subjects=("member:user_1", "member:user_9"))
            assert await b.due() == []
            assert len(await b.subjects.deaths()) == 3

    asyncio.run(main())


def test_what_is_discarded_leaves_a_note_and_nothing_that_waits(redis_url):
    async def main():
        async with Bench(redis_url) as b:
            await graveyard(b)
            assert await b.discard(kind="member") == 1
            assert sorted(await b.subjects.deaths()) == ["payment:pay_1", "room:course/1"]
            assert await b.subjects.pending("member:user_1") == []
            row = await b.redis.lindex(f"{PREFIX}trail:member:user_1", -1)
            step = json.loads(row)
            assert step["what"] == "job.discarded"
            assert step["why"] == (
                "eve said so: they asked for their money back; "
                "it had failed with: POST /memberships: 403 no"
            )
            assert step["deliveries"] == ["msg_1"]

    asyncio.run(main())


def test_what_came_after_the_death_is_not_discarded_with_it(redis_url):
    async def main():
        async with Bench(redis_url) as b:
            await graveyard(b)
            await b.inbox.put(delivery("msg_2"))
            await b.discard(subjects=("member:user_1",))
            assert await b.subjects.pending("member:user_1") == ["msg_2"]
            assert await b.due() == ["member:user_1"]

    asyncio.run(main())


def test_what_is_being_tried_again_just_now_is_not_discarded(redis_url):
    async def main():
        async with Bench(redis_url) as b:
            await graveyard(b)
            await b.retry(kind="member")
            claim = await b.subjects.claim("member:user_1", now())
            assert await b.discard(kind="member") == 0
            await b.subjects.done(claim, now(), None)
            assert "member:user_1" not in await b.subjects.deaths()
            assert any("left alone" in line for line in b.lines)

    asyncio.run(main())


def test_the_dead_are_listed_and_shown_with_what_they_were_for(redis_url, capsysbinary):
    async def main():
        async with Bench(redis_url) as b:
            await b.inbox.put(delivery("msg_1", status="completed"))
            claim = await b.subjects.claim("member:user_1", now())
            await b.subjects.dead(claim, now(), "POST /memberships: 403 no")
            await dead.list_(RULES, b.url, dead.Choice(), echo=print, as_json=True)
            (row,) = json.loads(capsysbinary.readouterr().out)
            assert row["subject"] == "member:user_1"
            assert (row["reason"], row["tries"]) == ("POST /memberships: 403 no", 1)
            await dead.list_(RULES, b.url, dead.Choice(), echo=b.lines.append)
            assert b.lines[-2].endswith(
                "  member:user_1  1      1        POST /memberships: 403 no"
            )
            assert b.lines.pop() == "1 failed for good."
            await dead.show(RULES, b.url, "member:user_1", echo=b.lines.append)
            text = "\n".join(b.lines)
            assert "for msg_1  membership.updated  completed" in text
            assert "try 1: POST /memberships: 403 no" in text
            assert "usher dead retry member:user_1" in text
            with pytest.raises(NotFound):
                await dead.show(RULES, b.url, "member:user_2", echo=b.lines.append)
            await dead.show(RULES, b.url, "member:user_1", echo=b.lines.append, as_json=True)
            assert json.loads(capsysbinary.readouterr().out)["told"][0]["id"] == "msg_1"

    asyncio.run(main())


def test_a_member_who_failed_for_good_gets_in_by_a_retry(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.forbid("membership:create")
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            (subject,) = await seller.dead()
            seller.allow_everything()
            said: list[str] = []
            choice = dead.Choice(reason="membership:create")
            rules_ = seller.settings.rules
            await dead.retry(rules_, redis_url, choice, now=now(), echo=said.append)
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")
            assert await seller.dead() == {}
            assert said[0] == f"{subject}: will be tried again"

    asyncio.run(main())


def test_a_reason_that_nobody_mends_does_not_pile_up(redis_url):
    async def main():
        async with Bench(redis_url) as b:
            for _ in range(50):
                await b.bury("channel:lounge", "403 no", "edited", "busy")
            assert await b.subjects.pending("channel:lounge") == ["edited", "busy"]
            claim_again = await _during_a_look(b)
            assert claim_again.taken == ("edited",)

    asyncio.run(main())


async def _during_a_look(b: Bench):
    """Mark a subject for the same reason while it is looked at; return the claim that follows."""
    await b.inbox.mark("channel:vip", "edited", milliseconds(now()) - 5)
    claim = await b.subjects.claim("channel:vip", now())
    await b.inbox.mark("channel:vip", "edited", milliseconds(now()) - 5)
    await b.subjects.done(claim, now() - timedelta(milliseconds=5), None)
    return await b.subjects.claim("channel:vip", now())


# --- deliveries


def listed(capsysbinary) -> list[str]:
    return [row["id"] for row in json.loads(capsysbinary.readouterr().out)]


FILTERS = [
    (Filter(), ["msg_4", "msg_3", "msg_2", "msg_1"]),
    (Filter(type="payment"), ["msg_4"]),
    (Filter(type="membership.updated"), ["msg_3", "msg_2", "msg_1"]),
    (Filter(type="member"), []),
    (Filter(user="user_2"), ["msg_4", "msg_2"]),
]


@pytest.mark.parametrize(("wanted", "found"), FILTERS)
def test_deliveries_are_listed_newest_first_by_type_and_user(
    redis_url, capsysbinary, wanted, found
):
    async def main():
        async with Bench(redis_url) as b:
            for n in (3, 1, 2):
                age = timedelta(hours=10 - n)
                await b.inbox.put(delivery(f"msg_{n}", f"user_{2 - n % 2}", age))
            await b.inbox.put(delivery("msg_4", "user_2", type="payment.succeeded"))
            await delivery_report.list_(RULES, b.url, wanted, limit=9, echo=print, as_json=True)
            assert listed(capsysbinary) == found

    asyncio.run(main())


def test_deliveries_are_listed_back_to_an_instant_and_to_a_limit(redis_url, capsysbinary):
    async def main():
        async with Bench(redis_url) as b:
            for n in range(1200):
                await b.inbox.put(delivery(f"msg_{n:04}", age=timedelta(minutes=1200 - n)))
            since = Filter(since=now() - timedelta(minutes=3, seconds=30))
            await delivery_report.list_(RULES, b.url, since, limit=50, echo=print, as_json=True)
            assert listed(capsysbinary) == ["msg_1199", "msg_1198", "msg_1197"]
            await delivery_report.list_(
                RULES, b.url, Filter(), limit=1100, echo=print, as_json=True
            )
            assert len(set(listed(capsysbinary))) == 1100
            await delivery_report.list_(RULES, b.url, Filter(), limit=2, echo=b.lines.append)
            assert b.lines[-1] == "2 deliveries; --limit shows more."
            assert "msg_1199  waits  membership.updated  member:user_1" in b.lines[1]

    asyncio.run(main())


def test_what_arrives_between_two_pages_is_not_told_twice(redis_url):
    async def main():
        async with Bench(redis_url) as b:
            for n in range(700):
                await b.inbox.put(delivery(f"msg_{n}", age=timedelta(minutes=700 - n)))
            seen = []
            async for one in Deliveries(b.redis, PREFIX).newest(Filter()):
                if not seen:
                    await b.inbox.put(delivery("msg_late"))
                seen.append(one.id)
            assert len(seen) == len(set(seen)) == 700

    asyncio.run(main())


def test_a_delivery_says_what_became_of_it(redis_url, capsysbinary):
    async def main():
        async with Bench(redis_url) as b:
            for n in (1, 2, 3):
                await b.inbox.put(delivery(f"msg_{n}", f"user_{n}", timedelta(minutes=n)))
            done = await b.subjects.claim("member:user_1", now())
            await b.subjects.done(done, now(), None)
            died = await b.subjects.claim("member:user_2", now())
            await b.subjects.dead(died, now(), "403 no")
            await delivery_report.list_(RULES, b.url, Filter(), limit=9, echo=print, as_json=True)
            rows = json.loads(capsysbinary.readouterr().out)
            assert [row["state"] for row in rows] == ["done", "dead", "waits"]
            await delivery_report.show(RULES, b.url, "msg_2", echo=b.lines.append)
            text = "\n".join(b.lines)
            assert "member:user_2, try 1: dead: 403 no" in text
            await delivery_report.show(RULES, b.url, "msg_3", echo=b.lines.append)
            assert "nobody has looked because of it yet" in b.lines[-1]
            await delivery_report.show(RULES, b.url, "msg_1", echo=b.lines.append, as_json=True)
            shown = json.loads(capsysbinary.readouterr().out)
            assert shown["looks"][0]["outcome"] == "done"
            with pytest.raises(NotFound, match="msg_9: no such delivery"):
                await delivery_report.show(RULES, b.url, "msg_9", echo=b.lines.append)

    asyncio.run(main())


def test_a_retried_delivery_is_looked_at_though_it_is_no_news(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            reads = seller.calls("memberships.list")
            newest = Deliveries(seller.redis, seller.prefix).newest(Filter())
            (one, *_) = [delivery.id async for delivery in newest]
            said: list[str] = []
            rules_ = seller.settings.rules
            await delivery_report.retry(rules_, redis_url, [one], now=now(), echo=said.append)
            await seller.settled()
            assert seller.calls("memberships.list") == reads + 1
            assert seller.calls("memberships.create") == 1
            with pytest.raises(NotFound):
                await delivery_report.retry(
                    rules_, redis_url, [one, "msg_9"], now=now(), echo=said.append
                )
            assert len(said) == 1

    asyncio.run(main())


def test_the_index_of_deliveries_loses_what_is_gone(redis_url):
    async def main():
        async with Bench(redis_url) as b:
            for n in range(3):
                await b.inbox.put(delivery(f"msg_{n}", age=timedelta(minutes=3 - n)))
            await b.redis.delete(f"{PREFIX}delivery:msg_0", f"{PREFIX}delivery:msg_1")
            await b.subjects.sweep(now())
            assert await b.redis.zrange(f"{PREFIX}received", 0, -1) == [b"msg_2"]

    asyncio.run(main())


@pytest.mark.parametrize(("asked", "kept"), [(60, REMEMBERED), (90 * 86400, 90 * 86400)])
def test_the_retention_can_be_longer_and_never_shorter_than_whop_replays(redis_url, asked, kept):
    async def main():
        async with Bench(redis_url) as b:
            inbox = Inbox(b.redis, RULES.account, kept=asked)
            await inbox.put(delivery("msg_1"))
            assert kept - 60 <= await b.redis.ttl(f"{PREFIX}delivery:msg_1") <= kept

    asyncio.run(main())


def test_an_age_is_a_length_of_time():
    at = now()
    assert before(at, None, "--older") is None
    assert before(at, "90m", "--older") == at - timedelta(minutes=90)
    with pytest.raises(NotFound, match="--older soon: expected a length of time"):
        before(at, "soon", "--older")


def test_a_redis_that_does_not_answer_is_named():
    with pytest.raises(Unreachable, match="does not answer"):
        asyncio.run(dead.list_(RULES, "redis://127.0.0.1:1", dead.Choice(), echo=print))
