"""What is kept of anybody: little, bounded, given out or erased on request, and never a secret."""

import asyncio
import contextlib
import json
import logging
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import community
import local_whop
import pytest
from ports import free_port

from webhooks.events import Delivery
from webhooks.inbox import Inbox
from worker import embedded, jobs, keys
from worker.commands import privacy
from worker.commands.evidence import NotFound, opened
from worker.commands.privacy import StillHere
from worker.policy.overrides import Hold
from worker.subjects import LOOKS, milliseconds

COURSE = """
[rooms.course]
name = "Course {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 2 }
on_refund = "revoke"
"""
EVENT = """
[rooms.ama]
name = "Live AMA"
products = ["prod_ticket"]
seats = 5
occurrences = [{ starts = 2030-12-05T18:00:00, lasts = "90m" }]
"""
CALENDAR = "https://calendar.example.com/private-0ca1e0da7/basic.ics"
NEAR = "http://127.0.0.1:1/private-0ca1e0da7/basic.ics"
"""What the calendar's address is taken for here: Usher asks for it, and nobody outside hears it."""

CHATTY = f"""
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]
[rooms.lounge.slow]
busy = 2
quiet = 1
steps = [5, 15]

[rooms.talks]
name = "Talks"
products = ["prod_basic"]
calendar = {{ url = "{CALENDAR}", word = "AMA" }}
"""

FOREVER, GONE = -1, -2
"""What Redis says of the life of a key that does not expire, and of one that is not there."""


def now() -> datetime:
    return datetime.now(UTC)


@contextlib.asynccontextmanager
async def running(redis_url, rooms, **how):
    """Run a community whose calendar is near."""
    async with community.running(redis_url, rooms, workers=0, **how) as seller:
        found = seller.settings.rules
        nearer = tuple(
            replace(room, calendar=replace(room.calendar, url=NEAR)) if room.calendar else room
            for room in found.rooms
        )
        seller.settings = replace(seller.settings, rules=replace(found, rooms=nearer))
        await seller.work()
        await seller.settled()
        yield seller


async def forget(seller, user: str, *, anyway: bool = False) -> tuple[privacy.Proof, str]:
    lines: list[str] = []
    proof = await privacy.forget(
        seller.settings.rules,
        seller.settings.redis_url,
        user,
        by="eve",
        now=seller.clock(),
        echo=lines.append,
        anyway=anyway,
    )
    return proof, "\n".join(lines)


async def gathered(seller, user: str) -> privacy.Kept:
    async with opened(seller.settings.rules, seller.settings.redis_url) as evidence:
        return await privacy.gather(evidence, user)


async def everything(seller) -> dict[str, bytes]:
    """Return what Redis holds, by key."""
    found = {key.decode(): await seller.redis.dump(key) for key in await seller.redis.keys("*")}
    return {key: dumped for key, dumped in found.items() if dumped}  # some expire meanwhile


async def find(seller, text: str) -> list[str]:
    """Return the keys in whose names or values a text stands."""
    found = []
    for key, dumped in (await everything(seller)).items():
        kind = await seller.redis.type(key)
        whole = [await _values(seller, key, kind.decode()), key.encode(), dumped]
        if any(text.encode() in part for part in whole):
            found.append(key)
    return found


async def _values(seller, key: str, kind: str) -> bytes:
    match kind:
        case "hash":
            pairs = await seller.redis.hgetall(key)
            return b" ".join([*pairs, *pairs.values()])
        case "list":
            return b" ".join(await seller.redis.lrange(key, 0, -1))
        case "set":
            return b" ".join(await seller.redis.smembers(key))
        case "zset":
            return b" ".join(await seller.redis.zrange(key, 0, -1))
        case _:
            return await seller.redis.get(key) or b""


async def let_go(seller) -> None:
    """Wait until arq, too, has let go of what is done: its own keys name whom a job was for."""
    await seller.settled()
    async with asyncio.timeout(local_whop.PATIENCE):
        while await seller.redis.zcount(f"{seller.prefix}queue", "-inf", milliseconds(now())):  # noqa: ASYNC110 - arq does
            await asyncio.sleep(0.01)


async def a_customer_who_left(seller) -> tuple[str, list[str]]:
    """Have ada buy a course and a ticket, and leave; return her id and those of her memberships."""
    whop = seller.whop.memberships
    bought = [whop.buy("prod_course", "ada"), whop.buy("prod_ticket", "ada")]
    await seller.settled()
    ada = seller.whop.people.user("ada").id
    inbox = Inbox(seller.redis, community.ACCOUNT)
    refund = Delivery(
        id="msg_nameless",
        type="refund.created",
        received=milliseconds(now()),
        subject=f"membership:{bought[0].id}",
        membership=bought[0].id,
    )
    await inbox.put(refund)
    for one in bought:
        whop.cancel(one.id)
    await let_go(seller)
    mine = [m.id for m in seller.whop.tables.memberships.values() if m.user_id == ada]
    return ada, mine


def test_who_is_forgotten_is_nowhere_and_their_neighbours_stay(redis_url):
    async def main():
        async with community.running(redis_url, COURSE + EVENT) as seller:
            seller.whop.memberships.buy("prod_course", "bob")
            ada, hers = await a_customer_who_left(seller)
            assert len(hers) == 3
            assert len(await find(seller, ada)) > 5
            before = await gathered(seller, ada)
            filled = await seller.redis.hgetall(f"{seller.prefix}filled:course")
            proof, text = await forget(seller, ada)
            for id_ in (ada, *hers):
                assert await find(seller, id_) == []
            assert proof.erased == before.counts
            assert {"member", "seats", "deliveries", "trails", "looks"} <= proof.erased.keys()
            assert ada not in text
            assert proof.digest in text
            assert await seller.redis.hgetall(f"{seller.prefix}filled:course") == filled
            assert await seller.may_enter("bob", "course/1")
            assert len((await gathered(seller, seller.whop.people.user("bob").id)).seats) == 1

    asyncio.run(main())


def test_a_later_request_finds_the_proof_and_nothing_else(redis_url):
    async def main():
        async with community.running(redis_url, COURSE + EVENT) as seller:
            ada, _ = await a_customer_who_left(seller)
            first, _ = await forget(seller, ada)
            kept = await gathered(seller, ada)
            assert kept.counts == {}
            assert kept.proofs == [first]
            again, text = await forget(seller, ada)
            assert (again.digest, again.erased) == (first.digest, {})
            assert "0 records erased" in text
            assert (await gathered(seller, "user_other")).proofs == []
            assert [p.by for p in (await gathered(seller, ada)).proofs] == ["eve", "eve"]

    asyncio.run(main())


def test_a_replay_of_what_was_forgotten_brings_nobody_back(redis_url):
    async def main():
        async with community.running(redis_url, COURSE + EVENT) as seller:
            ada, _ = await a_customer_who_left(seller)
            deliveries = (await gathered(seller, ada)).deliveries
            await forget(seller, ada)
            inbox = Inbox(seller.redis, community.ACCOUNT)
            assert [await inbox.put(one) for one in deliveries] == [False] * len(deliveries)
            assert len(deliveries) > 8
            await let_go(seller)
            assert await find(seller, ada) == []

    asyncio.run(main())


def test_the_seat_of_who_was_forgotten_is_nobody_elses_and_is_theirs_when_they_come_back(redis_url):
    async def main():
        async with community.running(redis_url, COURSE + EVENT) as seller:
            ada, _ = await a_customer_who_left(seller)
            await forget(seller, ada)
            for who in ("bob", "cyd", "ada"):
                seller.whop.memberships.buy("prod_course", who)
                await seller.settled()
            cohorts = [await seller.cohort("course", who) for who in ("bob", "cyd", "ada")]
            assert cohorts == ["1", "2", "1"]  # Whop still shows where she was
            assert await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_who_has_access_is_not_forgotten_unless_somebody_insists(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await let_go(seller)
            ada = seller.whop.people.user("ada").id
            with pytest.raises(StillHere, match=f"access still: .*{bought.id}") as refused:
                await forget(seller, ada)
            assert "--anyway" in str(refused.value)
            assert (await gathered(seller, ada)).member is not None
            await forget(seller, ada, anyway=True)
            assert await find(seller, ada) == []
            assert await seller.may_enter("ada", "course/1")  # Whop's memberships are Whop's

    asyncio.run(main())


def test_an_admin_and_who_is_worked_on_are_not_forgotten(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            await seller.rest()  # or it might ask Whop for the team just now
            await seller.store.save_team(frozenset({"user_boss"}))
            with pytest.raises(StillHere, match="admin of the account"):
                await forget(seller, "user_boss")
            with pytest.raises(NotFound, match="expected Whop's id of a person"):
                await forget(seller, "ada")
            at = milliseconds(now())
            await Inbox(seller.redis, community.ACCOUNT).mark("member:user_new", "test", at)
            with pytest.raises(StillHere, match="waits for a worker"):
                await forget(seller, "user_new")
            assert await seller.redis.exists(f"{seller.prefix}lock:member:user_new") == 0

    asyncio.run(main())


def test_an_export_is_all_that_is_kept_and_changes_nothing(redis_url, capsysbinary):
    async def main():
        async with community.running(redis_url, COURSE + EVENT) as seller:
            ada, hers = await a_customer_who_left(seller)
            await seller.rest()  # its log would stand among what is printed
            before = await everything(seller)
            capsysbinary.readouterr()
            await privacy.export(seller.settings.rules, redis_url, ada)
            document = json.loads(capsysbinary.readouterr().out)
            assert document["user"] == ada
            assert document["seats"] == {"course": "1"}
            assert set(document["member"]["seen"]) == set(hers)
            assert {"membership.activated", "refund.created"} <= {
                one["type"] for one in document["deliveries"]
            }
            assert any("usher" not in key for key in before) or before
            changed = {k for k, v in (await everything(seller)).items() if before.get(k) != v}
            assert not {k for k in changed if ada in k or "forget" in k}

    asyncio.run(main())


# --- bounds


async def an_eventful_day(seller) -> None:
    """Leave as many kinds of keys as a community does."""
    await jobs.read_calendars(seller.tools())
    ada, _ = await a_customer_who_left(seller)
    await forget(seller, ada)
    seller.whop.memberships.buy("prod_course", "bob")
    seller.whop.memberships.buy("prod_basic", "bob")
    seller.whop.memberships.buy("prod_ticket", "bob")
    await seller.settled()
    seller.forbid("membership:create")
    seller.whop.memberships.buy("prod_course", "cyd")
    await seller.settled()
    hold = Hold(since=now(), until=now() + timedelta(hours=1), who="eve", why="", phase=None)
    await seller.store.hold("lounge", hold)
    channel = await seller.channel("lounge")
    for n in range(12):
        bob = seller.whop.people.user("bob").id
        seller.whop.rooms.say(bob, channel.id, f"my number is 555-0199-{n}")
    await seller.settled()


def test_every_key_in_redis_is_known_with_its_bound(redis_url):
    async def main():
        async with running(redis_url, COURSE + EVENT + CHATTY) as seller:
            await an_eventful_day(seller)
            found = Counter()
            for raw in await seller.redis.keys("*"):
                key = raw.decode()
                kind = keys.kind_of(key, seller.prefix)
                assert kind, f"worker/keys.py does not know {key}"
                found[kind.name] += 1
                left = await seller.redis.ttl(raw)
                if left != GONE:
                    assert (left == FOREVER) is not kind.expires, (key, kind)
            wanted = (
                "delivery:{id} looks:{subject} trail:{subject} dead alarm:{channel} seats:{room}"
            )
            assert set(wanted.split()) <= found.keys(), found

    asyncio.run(main())


async def sizes(seller) -> dict[str, int]:
    """Return how large each key is that does not expire by itself."""
    count = {"list": "llen", "hash": "hlen", "set": "scard", "zset": "zcard", "string": "strlen"}
    found = {}
    for key in await seller.redis.keys("*"):
        if await seller.redis.ttl(key) == FOREVER:
            kind = (await seller.redis.type(key)).decode()
            found[key.decode()] = await getattr(seller.redis, count[kind])(key)
    return found


async def a_month(seller, number: int) -> None:
    """Have many deliveries for the same members, and the old ones expire."""
    inbox = Inbox(seller.redis, community.ACCOUNT)
    for n in range(120):
        user = seller.whop.people.user(("ada", "bob")[n % 2]).id
        at = milliseconds(now())
        await inbox.put(
            Delivery(
                id=f"msg_{number}_{n}",
                type="refund.created",
                received=at,
                subject=f"member:{user}",
                user=user,
            )
        )
        for subject in ("room:course/1", "channel:lounge"):
            await inbox.mark(subject, "start", at)
        if n % 10 == 0:
            await seller.settled()
    await seller.settled()
    await seller.redis.delete(*await seller.redis.keys(f"{seller.prefix}delivery:*"))
    await seller.sweep()
    await seller.sweep()


A_FEW = 20
"""Entries, or bytes: much less than the 240 deliveries of the months that are compared."""


def test_months_of_deliveries_for_the_same_members_leave_no_more_than_the_first(redis_url):
    async def main():
        async with running(redis_url, COURSE + CHATTY) as seller:
            for user in ("ada", "bob"):
                seller.whop.memberships.buy("prod_course", user)
                seller.whop.memberships.buy("prod_basic", user)
            await seller.settled()
            await a_month(seller, 1)
            first = await sizes(seller)
            await a_month(seller, 2)
            await a_month(seller, 3)
            last = await sizes(seller)
            grown = {key: size - first.get(key, 0) for key, size in last.items()}
            assert {key: by for key, by in grown.items() if by > A_FEW} == {}
            new = {keys.kind_of(key, seller.prefix).name for key in last.keys() - first.keys()}
            assert not {name for name in new if "{" in name} - {"queue:{lane}"}  # that come and go
            ada = seller.whop.people.user("ada").id
            assert await seller.redis.llen(f"{seller.prefix}looks:member:{ada}") == LOOKS

    asyncio.run(main())


# --- secrets


def test_no_secret_and_no_name_is_ever_written_to_redis_or_a_log(
    tmp_path: Path, capfd, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)

    async def main(url: str) -> tuple[str, str]:
        rooms = COURSE + EVENT + CHATTY
        async with running(url, rooms, pinned=False) as seller:
            await an_eventful_day(seller)
            bob = seller.whop.people.user("bob")
            assert (bob.name, bob.email) == ("Bob", "bob@example.com")
            return bob.id, " ".join(str(bytes(one.request_body)) for one in seller.delivered())

    with embedded.running(tmp_path, free_port(), fsync="no") as url:
        bob, told = asyncio.run(main(url))
    assert "bob@example.com" in told  # Whop did say it
    assert "555-0199" in told
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    (begun_with,) = (path for path in files if path.suffix == ".rdb")
    assert bob.encode() not in begun_with.read_bytes()  # it is empty, with a time and a checksum
    written = b"".join(path.read_bytes() for path in files if path != begun_with)
    out, err = capfd.readouterr()
    logged = (out + err + caplog.text).encode()
    assert bob.encode() in written  # so the file holds what Redis was told, word for word
    assert b"member.granted" in logged
    assert b"feed:" in written  # the calendar was asked for
    assert b"heard:" in written
    secrets = {
        "the API key": local_whop.API_KEY,
        "the webhook's secret": local_whop.SECRET,
        "an e-mail address": "@example.com",
        "a name": '"Bob"',
        "a calendar's address": "private-0ca1e0da7",
        "a message": "555-0199",
    }
    for what, secret in secrets.items():
        assert secret.encode() not in written, f"{what} is in Redis"
        assert secret.encode() not in logged, f"{what} is in a log"
    for protocol in b"\x02\x03\x04\x05":
        assert bytes([0x80, protocol]) + b"\x95" not in written, "something is pickled"
    assert b"\x80\x04" not in written
