"""Faults that were known and are mended: each test here failed before."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import community
import httpx
import pytest
from local_whop import ACCOUNT, API_KEY

from webhooks.inbox import connect
from worker import jobs
from worker.assembly import assemble
from worker.breaker import Breaker, asking
from worker.policy import retry
from worker.policy.breaker import (
    RAMP,
    Heard,
    Outage,
    Phase,
    State,
    probed,
    unanswered_since,
    wants_probe,
)
from worker.policy.differences import Cure, Kind
from worker.policy.occurrences import Occurrences, dates
from worker.proof.inspection import inspect
from worker.provision import ROOM_KEY
from worker.sandbox import app as local_whop
from worker.sandbox.bodies import ProductPatch
from worker.sandbox.faults import Failure

NEW_YORK = ZoneInfo("America/New_York")
NUUK = ZoneInfo("America/Nuuk")  # where the hour from 23:00 to midnight is skipped
SECOND, MINUTE, HOUR, DAY = (timedelta(**{u: 1}) for u in ("seconds", "minutes", "hours", "days"))
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
API = "http://whop.test/api/v1"
COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 2 }
"""
LOUNGE = """
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]
"""
FORGETFUL = ["products.create", "variants.create", "experiences.create", "memberships.create"]
"""A Whop that takes no notice of idempotency keys hides no second of anything."""


# --- where a recurrence ends (RFC 5545, section 3.3.10)


def starts(rule: str, first: str, zone: ZoneInfo = NEW_YORK, **more: tuple[datetime, ...]):
    """Return the local starts of a recurrence, without their seconds."""
    line = Occurrences(datetime.fromisoformat(first), HOUR, rule, **more)
    found = dates(line, zone)
    every = list(found)
    long_ago, late = datetime.fromisoformat(first) - DAY, datetime.fromisoformat(first) + 30 * DAY
    assert found.between(long_ago, late, inc=True) == every
    return [f"{start:%dT%H%M}" for start in every]


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("20261101T053000Z", ["31T0130", "01T0130"]),  # 01:30 EDT, when it starts
        ("20261101T052959Z", ["31T0130"]),
        ("20261101T061500Z", ["31T0130", "01T0130"]),  # 01:15 EST, after its only start
        ("20261101T013000", ["31T0130", "01T0130"]),  # the first of the two
        ("20261101T011500", ["31T0130"]),
    ],
)
def test_an_end_in_the_hour_that_comes_twice_is_an_instant(until, expected):
    assert starts(f"FREQ=DAILY;UNTIL={until}", "2026-10-31T01:30:00") == expected


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("20260308T073000Z", ["07T0230", "08T0230"]),  # its 02:30 is 03:30 EDT
        ("20260308T071500Z", ["07T0230"]),  # 03:15 EDT
        ("20260308T023000", ["07T0230", "08T0230"]),  # read as its start is read
        ("20260308T031500", ["07T0230"]),  # 03:15 comes before what 02:30 means
    ],
)
def test_an_end_beside_the_hour_that_is_skipped_is_an_instant(until, expected):
    assert starts(f"FREQ=DAILY;UNTIL={until}", "2026-03-07T02:30:00") == expected


def test_an_end_that_the_clock_skips_takes_in_what_starts_before_its_instant():
    rule = "FREQ=DAILY;UNTIL=20260308T023000"  # 03:30 EDT
    assert starts(rule, "2026-03-07T03:00:00") == ["07T0300", "08T0300"]


def test_an_end_without_a_time_takes_in_its_whole_day_and_nothing_of_the_next():
    assert starts("FREQ=DAILY;UNTIL=20260308", "2026-03-07T18:00:00") == ["07T1800", "08T1800"]
    skipped = "FREQ=DAILY;UNTIL=20260328;BYHOUR=0,23;BYMINUTE=30"
    assert starts(skipped, "2026-03-27T23:30:00", NUUK) == ["27T2330", "28T0030", "28T2330"]


def test_what_is_added_may_lie_behind_the_end_and_what_is_left_out_before_it():
    late, added = datetime(2026, 11, 1, 1, 45), datetime(2026, 11, 5, 1, 30)
    rule = "FREQ=DAILY;UNTIL=20261101T053000Z"
    left_out = (datetime(2026, 10, 31, 1, 30),)
    found = starts(rule, "2026-10-30T01:30:00", rdate=(late, added), exdate=left_out)
    assert found == ["30T0130", "01T0130", "01T0145", "05T0130"]


@pytest.mark.parametrize("until", ["99991231T235959Z", "99991231T235959", "99991231"])
def test_an_end_at_the_end_of_all_dates_is_none(until):
    line = Occurrences(datetime(2026, 3, 7, 18), HOUR, f"FREQ=WEEKLY;UNTIL={until}")
    for zone in (NEW_YORK, ZoneInfo("Asia/Tokyo")):
        found = dates(line, zone)
        assert next(iter(found)) == datetime(2026, 3, 7, 18)
        assert len(found.between(datetime(2027, 1, 1), datetime(2027, 2, 1), inc=True)) == 5


# --- a Whop that is down for somebody alone


def unanswered(*seconds: int, calls: int = 1) -> list[Heard]:
    """Return what is heard of failed calls, so many seconds ago."""
    return [Heard(NOW - timedelta(seconds=ago), calls, calls) for ago in seconds]


def answered(ago: int) -> Heard:
    return Heard(NOW - timedelta(seconds=ago), 1, 0)


@pytest.mark.parametrize(
    ("heard", "doubtful"),
    [
        (unanswered(40, 20, 0), True),
        (unanswered(3600, 0, calls=3), True),
        (unanswered(30, 15, 0), False),
        (unanswered(20, 10, 0, calls=3), False),
        (unanswered(40, 0), False),
        ([*unanswered(40, 20, 0), answered(10)], False),
        ([answered(50), *unanswered(40, 20, 0)], True),
        ([*unanswered(40, 20), Heard(NOW, 3, 2)], False),
        ([*unanswered(300), answered(200), *unanswered(20, 10, 0)], False),
    ],
    ids=[
        "one call that times out three times",
        "two tries an hour apart",
        "within the window",
        "too few for so short a time",
        "two calls",
        "somebody was answered meanwhile",
        "somebody was answered before",
        "somebody was answered in the same second",
        "not long enough since then",
    ],
)
def test_a_few_calls_without_an_answer_to_anybody_are_doubtful_too(heard, doubtful):
    assert wants_probe(State(), heard, NOW) is doubtful
    assert wants_probe(State(), heard[::-1], NOW) is doubtful


def test_an_outage_begins_when_the_answers_end():
    silent = unanswered_since(unanswered(90, 60, 0))
    state = probed(State(), NOW, answered=False, silent=silent)
    assert state.outages == (Outage(NOW - timedelta(seconds=90)),)
    assert unanswered_since([*unanswered(60), answered(0)]) is None
    assert unanswered_since([]) is None


def test_an_outage_begins_neither_in_the_one_before_nor_in_a_clocks_future():
    before = Outage(NOW - HOUR, NOW - timedelta(minutes=10))
    again = probed(State((before,)), NOW, answered=False, silent=NOW - HOUR)
    assert again.outages == (before, Outage(NOW - timedelta(minutes=10)))
    assert probed(State(), NOW, answered=False, silent=NOW + HOUR).outages == (Outage(NOW),)


def test_what_was_heard_is_kept_for_longer_than_the_longest_pause_between_two_tries(redis_url):
    async def main():
        redis = connect(redis_url)
        breaker = Breaker(redis, f"usher:{ACCOUNT}:", clock=community.now)
        breaker.called(answered=False)
        await breaker.turn(asking_nobody)
        assert await redis.pttl(f"usher:{ACCOUNT}:heard") > 1.5 * (retry.LONGEST / SECOND) * 1000
        await redis.aclose()

    asyncio.run(main())


async def asking_nobody() -> bool:
    raise AssertionError("one call is no reason to ask")


class Line(httpx.AsyncBaseTransport):
    """The way to a local Whop; what is `down` answers 503 and asks for two minutes."""

    def __init__(self, app):
        self.whop = httpx.ASGITransport(app)
        self.down = ""

    async def handle_async_request(self, request):
        if request.url.path.startswith(self.down):
            return httpx.Response(503, headers={"Retry-After": "120"}, request=request)
        return await self.whop.handle_async_request(request)


@contextlib.asynccontextmanager
async def one_job(redis_url):
    """Give out a job for the only buyer, the tools for it, its clock, and its line to Whop."""
    async with community.running(redis_url, COURSE, workers=0) as seller:
        seller.whop.memberships.buy("prod_course", "ada")
        await seller.until_delivered()
        (subject,) = await seller.due()
        line, clock = Line(local_whop.create_app(seller.whop)), community.Clock(community.now())
        key = {"Authorization": f"Bearer {API_KEY}"}
        async with httpx.AsyncClient(transport=line, base_url=API, headers=key) as http:
            tools = assemble(seller.settings, connect(redis_url), http, clock)
            yield seller, subject, tools, clock, line
            await tools.inbox.close()


async def go_on(seller, subject, tools, clock, until: datetime) -> None:
    """Let it be tried whenever it is due, with nobody else calling Whop but the probe."""
    while clock.at < until:
        if not tools.breaker.open:
            await jobs.run(tools, subject)
        await tools.breaker.turn(asking(tools.whop))
        due = await seller.redis.zscore(f"{seller.prefix}due", subject)
        if due is None:
            return
        coming = datetime.fromtimestamp(due / 1000, UTC) + SECOND
        clock.at = clock.at + 10 * MINUTE if tools.breaker.open else max(coming, clock.at)


def test_a_whop_that_is_down_for_days_does_not_bury_the_only_one_who_asks(redis_url):
    async def main():
        async with one_job(redis_url) as (seller, subject, tools, clock, line):
            began, line.down = clock.at, "/api/v1/"
            await go_on(seller, subject, tools, clock, began + 3 * DAY)
            assert tools.breaker.open
            assert tools.breaker.time_lost(began) > clock.at - began - MINUTE
            line.down = "nothing"
            await tools.breaker.turn(asking(tools.whop))
            clock.at += 2 * RAMP
            line.down = "/api/v1/memberships"  # one more failure would be the last
            await go_on(seller, subject, tools, clock, clock.at + HOUR)
            line.down = "nothing"
            await go_on(seller, subject, tools, clock, clock.at + DAY)
            assert await seller.dead() == {}
            assert await seller.may_enter("ada", "course/1")

    asyncio.run(main())


def test_the_only_one_who_asks_comes_to_an_end_where_whop_fails_for_them_alone(redis_url):
    async def main():
        async with one_job(redis_url) as (seller, subject, tools, clock, line):
            began, line.down = clock.at, "/api/v1/memberships"
            await go_on(seller, subject, tools, clock, began + 3 * DAY)
            assert tools.breaker.phase is Phase.CLOSED
            assert list(await seller.dead()) == [subject]
            assert retry.GIVE_UP <= clock.at - began < retry.GIVE_UP + 2 * retry.LONGEST

    asyncio.run(main())


# --- a hidden product that the seller archived


def archive(seller, product: str) -> None:
    seller.whop.catalog.update_product(product, ProductPatch(visibility="archived"))


async def buy(seller, *names: str) -> None:
    for name in names:
        seller.whop.memberships.buy("prod_course", name)
        await seller.settled()


def made(seller) -> tuple[int, int, int]:
    """Return how many products, chats and memberships there are on Whop."""
    tables = seller.whop.tables
    return len(tables.products), len(tables.experiences), len(tables.memberships)


def test_an_archived_cohort_is_not_made_a_second_time_after_a_loss(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.faults.ignore_idempotency = FORGETFUL
            await buy(seller, *(f"buyer{n}" for n in range(3)))
            before, places = made(seller), [await seller.place(f"course/{n}") for n in (1, 2)]
            for place in places:
                archive(seller, place.product)
            await seller.rest()
            await seller.redis.flushall()
            await seller.work()
            await seller.settled()
            assert made(seller) == before
            for n, place in enumerate(places, 1):
                assert (await seller.place(f"course/{n}")).product == place.product
            await buy(seller, "newcomer")
            assert await seller.cohort("course", "buyer0") == "1"
            assert await seller.cohort("course", "newcomer") == "2"
            assert made(seller) == (before[0], before[1], before[2] + 2)

    asyncio.run(main())


def test_an_archived_product_gives_way_to_the_living_one_of_its_cohort(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            await buy(seller, "buyer0")
            place = await seller.place("course/1")
            wanted = community.product("Course, cohort 1")
            wanted.metadata = {ROOM_KEY: "course/1"}
            second = seller.whop.catalog.create_product(wanted)  # which Whop lists first
            archive(seller, second.id)
            assert [p.id async for p in seller.tools().whop.products()][-1] == second.id
            await seller.rest()
            await seller.redis.flushall()
            await seller.work()
            await seller.settled()
            assert (await seller.place("course/1")).product == place.product
            assert (await inspect(seller.tools())).differences == []
            seller.whop.catalog.update_product(second.id, ProductPatch(visibility="hidden"))
            (found,) = (await inspect(seller.tools())).differences
            assert (found.kind, found.id) == (Kind.DOUBLED, second.id)

    asyncio.run(main())


def test_an_archived_cohort_that_was_forgotten_is_read_back_by_a_verification(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            await buy(seller, "buyer0")
            product = (await seller.place("course/1")).product
            archive(seller, product)
            await seller.rest()
            await seller.redis.flushall()
            redis = connect(redis_url)
            async with httpx.AsyncClient(
                base_url=seller.server.api_url, headers={"Authorization": f"Bearer {API_KEY}"}
            ) as http:
                tools = assemble(seller.settings, redis, http, community.now)
                found = (await inspect(tools)).differences
                await tools.inbox.close()
            assert (Kind.ROOM_UNRECORDED, Cure.RECALL) in {(one.kind, one.cure) for one in found}

    asyncio.run(main())


def test_whether_the_members_of_an_archived_cohort_are_in_is_a_persons_to_find_out(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            await buy(seller, *(f"buyer{n}" for n in range(3)))
            first, second = [(await seller.place(f"course/{n}")).product for n in (1, 2)]
            archive(seller, first)
            ids = [seller.whop.people.user(f"buyer{n}").id for n in (0, 2)]
            for scope in ({}, {"room": "course/1"}, {"user": ids[0]}):
                (found,) = (await inspect(seller.tools(), **scope)).differences
                assert (found.kind, found.cure) == (Kind.PUT_AWAY, Cure.PERSON)
                assert (found.room, found.id) == ("course/1", first)
            for scope in ({"room": "course/2"}, {"user": ids[1]}):
                assert (await inspect(seller.tools(), **scope)).differences == []
            seller.whop.catalog.update_product(first, ProductPatch(visibility="hidden"))
            archive(seller, second)
            for held in list(seller.whop.index.by_user[ids[1]]):
                seller.whop.memberships.cancel(held.id)
            await seller.settled()
            assert (await inspect(seller.tools())).differences == []  # nobody is in it

    asyncio.run(main())


def test_a_room_that_somebody_renamed_is_found_out_and_gets_its_name_back(redis_url):
    """By its name a main room is known again after a loss of Redis."""

    async def main():
        async with community.running(redis_url, LOUNGE) as seller:
            chat = seller.whop.rooms.experience((await seller.place("lounge")).experience)
            chat.name = "News"
            (found,) = (await inspect(seller.tools())).differences
            assert (found.kind, found.room, found.id) == (Kind.RENAMED, "lounge", chat.id)
            await seller.restart()
            assert (chat.name, seller.rooms()) == ("The Lounge", ["The Lounge"])
            assert (await inspect(seller.tools())).differences == []

    asyncio.run(main())


def test_a_chat_that_the_rules_name_by_its_id_may_be_called_otherwise(redis_url):
    async def main():
        async with community.running(redis_url, LOUNGE) as seller:
            chat = seller.whop.rooms.experience((await seller.place("lounge")).experience)
            await seller.restart(LOUNGE + f'experience = "{chat.id}"\n')
            chat.name = "News"
            await seller.restart()
            assert chat.name == "News"
            assert (await inspect(seller.tools())).differences == []

    asyncio.run(main())


def test_an_answer_that_whop_repeats_from_before_is_no_new_place(redis_url):
    """A try took effect and was not told of; somebody ended what it made; the buyer buys again."""

    async def main():
        async with (
            community.running(redis_url, COURSE, workers=0) as seller,
            seller.workbench() as tools,
        ):

            async def look():
                await seller.until_delivered()
                await jobs.run(tools, f"member:{ada.id}")

            seller.whop.memberships.buy("prod_course", "ada")
            ada = seller.whop.people.user("ada")
            fails = Failure(operation="memberships.create", status=500, after=True, times=1)
            seller.whop.faults.failures = [fails]
            await look()
            for one in list(seller.whop.index.by_user[ada.id]):
                seller.whop.memberships.set_status(one.id, "canceled")
            await look()
            seller.whop.memberships.buy("prod_course", "ada")
            await look()
            assert await seller.may_enter("ada", "course/1")
            live = [m for m in seller.whop.index.by_user[ada.id] if m.entitled]
            assert len(live) == 2  # the purchase, and one place

    asyncio.run(main())


def test_what_a_try_made_and_was_not_told_of_is_found_by_the_next(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            seller.whop.faults.ignore_idempotency = FORGETFUL
            seller.whop.faults.failures = [
                Failure(operation=operation, status=500, after=True, times=1)
                for operation in FORGETFUL
            ]
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.all_settled()
            assert await seller.may_enter("ada", "course/1")
            assert made(seller) == (
                2,
                1,
                2,
            )  # the seller's and the cohort's, the purchase and the place

    asyncio.run(main())
