"""The breaker: while Whop is down jobs wait, no try is counted, and nothing else opens it."""

import asyncio
import math
from datetime import UTC, datetime, timedelta

import community
import httpx
import local_whop
import msgspec
import pytest
from local_whop import ACCOUNT

from webhooks.inbox import connect
from worker import jobs, rules
from worker import main as worker
from worker.breaker import Breaker, asking
from worker.policy.breaker import (
    AT_FIRST,
    DOUBLES,
    ENOUGH,
    KEPT,
    PROBE_EVERY,
    RAMP,
    WINDOW,
    Heard,
    Outage,
    Phase,
    State,
    may_have_begun,
    phase,
    probed,
    time_lost,
    wants_probe,
)
from worker.sandbox.faults import Failure
from worker.subjects import milliseconds

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
"""


def heard(*counts: tuple[int, int], until: datetime = NOW) -> list[Heard]:
    """Return what was heard in each of the last seconds: calls, and how many failed."""
    return [Heard(until - n * SECOND, *count) for n, count in enumerate(reversed(counts))]


# --- the law


@pytest.mark.parametrize(
    ("counts", "doubtful"),
    [
        ([(ENOUGH, ENOUGH)], True),
        ([(1, 1)] * ENOUGH, True),
        ([(ENOUGH - 1, ENOUGH - 1)], False),
        ([(20, 18)], True),
        ([(20, 17)], False),
        ([(1, 1)] * 9 + [(9, 0)], False),
        ([], False),
    ],
    ids=["all of ten", "one each second", "too few", "nine in ten", "fewer", "half", "nothing"],
)
def test_a_probe_is_wanted_where_nearly_all_calls_of_half_a_minute_failed(counts, doubtful):
    assert wants_probe(State(), heard(*counts), NOW) is doubtful


def test_what_failed_longer_ago_is_forgotten():
    assert not wants_probe(State(), heard((50, 50), until=NOW - WINDOW), NOW)


def test_a_probe_that_is_answered_opens_nothing_and_the_next_one_waits():
    """So one operation, or one member, that always fails, never makes the others wait."""
    state = probed(State(), NOW, answered=True)
    assert phase(state, NOW) is Phase.CLOSED
    trace = heard((50, 50), until=NOW + PROBE_EVERY)
    assert not wants_probe(state, trace, NOW + PROBE_EVERY - SECOND)
    assert wants_probe(state, trace, NOW + PROBE_EVERY)


def test_it_opens_when_the_probe_fails_too_and_stays_open_until_one_is_answered():
    state, at = probed(State(), NOW, answered=False), NOW
    for _ in range(30):
        assert phase(state, at) is Phase.OPEN
        assert may_have_begun(state, at) == 0
        assert not wants_probe(state, [], at + PROBE_EVERY - SECOND)
        at += PROBE_EVERY
        assert wants_probe(state, [], at)
        state = probed(state, at, answered=False)
    state = probed(state, at, answered=True)
    assert phase(state, at) is Phase.RAMPING
    assert state.outages == (Outage(NOW, at),)


def test_jobs_go_on_a_few_at_first_then_twice_as_many_every_ten_seconds_then_all():
    state = State((Outage(NOW - SECOND, NOW),))
    seconds = [may_have_begun(state, NOW + n * DOUBLES) for n in range(7)]
    assert seconds == [AT_FIRST * 2**n for n in range(6)] + [math.inf]
    assert phase(state, NOW + RAMP) is Phase.CLOSED


def test_an_outage_that_was_not_over_goes_on():
    state = State((Outage(NOW - SECOND, NOW),))
    late = NOW + 15 * SECOND
    assert not wants_probe(state, heard((9, 9), until=NOW), late)  # heard while it was open
    assert wants_probe(state, heard((6, 3), until=late), late)
    again = probed(state, late, answered=False)
    assert again.outages == (Outage(NOW - SECOND),)
    assert probed(state, late, answered=True).outages == state.outages


def test_the_time_in_which_whop_was_down_is_nobodys_time():
    hour = timedelta(hours=1)
    state = State((Outage(NOW, NOW + hour), Outage(NOW + 3 * hour)))
    assert time_lost(state, NOW - hour, NOW + 5 * hour) == 3 * hour
    assert time_lost(state, NOW + hour / 2, NOW + 2 * hour) == hour / 2
    assert time_lost(state, NOW + 2 * hour, NOW + 2.5 * hour) == timedelta(0)


def test_no_more_outages_are_remembered_than_matter():
    state = State()
    for n in range(3 * KEPT):
        at = NOW + n * timedelta(hours=1)
        state = probed(probed(state, at, answered=False), at + SECOND, answered=True)
    assert len(state.outages) == KEPT


# --- shared by the workers


class Clock:
    """A clock that a test moves; in between it goes on by itself."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return community.now() + self.ahead


class Probes:
    """A probe that answers what it is told to, and counts."""

    def __init__(self, *, answered: bool) -> None:
        self.answered = answered
        self.count = 0

    async def __call__(self) -> bool:
        self.count += 1
        await asyncio.sleep(0.01)
        return self.answered


def fail(breaker: Breaker, calls: int = ENOUGH) -> None:
    for _ in range(calls):
        breaker.called(answered=False)


def test_what_one_worker_hears_all_of_them_heed_and_one_probes(redis_url):
    async def main():
        redis, clock, whop = connect(redis_url), Clock(), Probes(answered=False)
        workers = [Breaker(redis, f"usher:{ACCOUNT}:", clock=clock) for _ in range(4)]
        try:
            for one in workers:
                fail(one, 3)  # no one of them has heard enough
            for _ in range(2):
                await asyncio.gather(*(one.turn(whop) for one in workers))
            await asyncio.gather(*(one.turn(whop) for one in workers))
            assert all(one.open for one in workers)
            assert whop.count == 1
            whop.answered = True
            await asyncio.gather(*(one.turn(whop) for one in workers))
            assert whop.count == 1  # not so soon
            clock.ahead += PROBE_EVERY
            for _ in range(2):
                await asyncio.gather(*(one.turn(whop) for one in workers))
            assert whop.count == 2
            assert {one.phase for one in workers} == {Phase.RAMPING}
        finally:
            await redis.aclose()

    asyncio.run(main())


def test_the_jobs_of_all_workers_together_go_on_gently_and_in_order(redis_url):
    async def main():
        redis, clock, whop = connect(redis_url), community.Clock(NOW), Probes(answered=False)
        workers = [Breaker(redis, f"usher:{ACCOUNT}:", clock=clock) for _ in range(2)]
        begun: list[int] = []

        async def job(number: int) -> None:
            assert await workers[number % 2].gate(ahead=False)
            begun.append(number)

        async def look() -> None:
            for one in workers:
                await one.turn(whop)

        try:
            fail(workers[0])
            await look()
            waiting = [asyncio.create_task(job(n)) for n in range(60)]
            room = asyncio.create_task(workers[0].gate(ahead=True))
            await asyncio.sleep(0.3)
            assert not begun
            assert not room.done()
            whop.answered = True
            clock.at += PROBE_EVERY
            await look()
            await look()
            assert await room
            await local_whop.until(lambda: len(begun) >= AT_FIRST)
            await asyncio.sleep(0.3)
            assert len(begun) == AT_FIRST
            clock.at += 2 * DOUBLES
            await local_whop.until(lambda: len(begun) >= 4 * AT_FIRST)
            await asyncio.sleep(0.3)
            assert len(begun) == 4 * AT_FIRST
            for mine in (0, 1):
                order = [n for n in begun if n % 2 == mine]
                assert order == sorted(order)
            clock.at += RAMP
            await asyncio.wait(waiting)
            assert len(begun) == 60
        finally:
            await redis.aclose()

    asyncio.run(main())


def test_a_job_that_is_cut_off_while_it_waits_gives_its_place_to_the_next(redis_url):
    async def main():
        redis, clock, whop = connect(redis_url), Clock(), Probes(answered=False)
        breaker = Breaker(redis, f"usher:{ACCOUNT}:", clock=clock)
        try:
            fail(breaker)
            await breaker.turn(whop)
            first, second = (asyncio.create_task(breaker.gate(ahead=False)) for _ in range(2))
            await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.wait([first])
            whop.answered, clock.ahead = True, PROBE_EVERY
            await breaker.turn(whop)
            assert await second
        finally:
            await redis.aclose()

    asyncio.run(main())


def test_a_probe_that_took_longer_than_its_turn_leaves_the_next_ones_alone(redis_url):
    """A worker that was stopped for a minute in the middle of a probe knows nothing new."""

    async def main():
        redis, clock = connect(redis_url), Clock()
        slow, quick = (Breaker(redis, f"usher:{ACCOUNT}:", clock=clock) for _ in range(2))
        turn = f"usher:{ACCOUNT}:probing"
        told = msgspec.json.encode(State(probed=clock()))

        async def overtaken() -> bool:
            await redis.set(turn, "another's")
            await redis.set(f"usher:{ACCOUNT}:breaker", told)
            return False

        try:
            fail(slow)
            await slow.turn(overtaken)
            assert await redis.get(turn) == b"another's"
            assert await redis.get(f"usher:{ACCOUNT}:breaker") == told
            assert not slow.open
            await redis.delete(turn)
            clock.ahead += PROBE_EVERY
            fail(quick)
            await quick.turn(Probes(answered=False))
            assert quick.open
            assert not await redis.exists(turn)
        finally:
            await redis.aclose()

    asyncio.run(main())


# --- with a local Whop


@pytest.mark.parametrize(
    ("trouble", "there"),
    [
        ([], True),
        ([("*", 503)], False),
        ([("*", 500)], False),
        ([("*", 429)], True),
        ([("permissions.list", 503)], True),
        ([("products.list", 503)], True),
        ([("*", 403)], True),
    ],
    ids=["in order", "503", "500", "quota used up", "one question", "the other", "refused"],
)
def test_a_probe_is_answered_if_either_question_is(redis_url, trouble, there):
    async def main():
        whop = local_whop.build()
        whop.faults.failures = [Failure(operation=o, status=s, times=99) for o, s in trouble]
        async with local_whop.running(whop) as server, httpx.AsyncClient(base_url=server.url) as h:
            settings = worker.Settings(
                rules=rules.parse(community.HEAD + COURSE),
                api_key=local_whop.API_KEY,
                redis_url=redis_url,
                api_url=server.api_url,
            )
            assert h
            async with worker._client(settings) as http:
                tools = worker.assemble(settings, connect(redis_url), http, community.now)
                assert await asking(tools.whop)() is there
                await tools.inbox.close()

    asyncio.run(main())


def member(user: str) -> str:
    return f"member:{user}"


def test_a_whop_that_is_down_for_two_days_costs_nobody_a_try(redis_url):
    async def main():
        clock = Clock()
        clock.ahead = -timedelta(
            days=2, minutes=2
        )  # arq, which has a clock of its own, is not late
        async with community.running(redis_url, COURSE, clock=clock) as seller:
            tools, prefix = seller.tools(), seller.prefix
            seller.whop.faults.failures = [Failure(operation="*", status=503, times=10**9)]
            for n in range(16):
                seller.whop.memberships.buy("prod_course", f"buyer{n}")
            await local_whop.until(lambda: tools.breaker.open)
            tries = {k: int(v) for k, v in (await seller.redis.hgetall(f"{prefix}tries")).items()}
            calls = seller.server.journal.counts["memberships.list"][503]
            clock.ahead += timedelta(days=2)  # longer than anything is tried for
            late = [f"buyer{n}" for n in range(16, 20)]
            for name in late:
                seller.whop.memberships.buy("prod_course", name)
            await seller.until_delivered()
            users = [seller.whop.people.user(name).id for name in late]
            await local_whop.until(lambda: tools.leases._held.keys() >= {*map(member, users)})
            await asyncio.sleep(2.5)
            assert tools.breaker.open
            after = {k: int(v) for k, v in (await seller.redis.hgetall(f"{prefix}tries")).items()}
            assert all(after[k] <= tries.get(k, 0) + 1 for k in after)  # one that is to come
            asked = seller.server.journal.of("memberships.list")
            assert not [call for call in asked if any(user in call.query for user in users)]
            assert len(asked) <= calls + 2 * 16  # whoever had begun ends what they had begun
            await seller.rest()  # those who wait give up by themselves, and nobody cuts them off
            for user in users:
                assert (await seller.subjects.looks(member(user)))[-1].outcome == "held"
            await seller.work()
            tools = seller.tools()
            assert tools.breaker.open  # before its first job
            seller.whop.faults.failures = []
            clock.ahead += PROBE_EVERY
            await local_whop.until(lambda: not tools.breaker.open)
            clock.ahead += RAMP
            await seller.bring_forward()
            await seller.settled()
            assert await seller.dead() == {}
            for n in range(20):
                cohort = await seller.cohort("course", f"buyer{n}")
                assert await seller.may_enter(f"buyer{n}", f"course/{cohort}")

    asyncio.run(main())


def test_a_job_that_fails_while_whop_is_down_counts_no_try_and_keeps_what_waited(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, workers=0) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.until_delivered()
            (subject,) = await seller.due()
            async with seller.workbench() as tools:
                seller.whop.faults.failures = [Failure(operation="*", status=503, times=3)]
                job = asyncio.create_task(jobs.run(tools, subject))
                await local_whop.until(lambda: seller.server.journal.of(None))
                seller.whop.faults.latency_seconds = 1  # it is tried twice more, and not at once
                fail(tools.breaker)
                await tools.breaker.turn(Probes(answered=False))
                await job
                assert await seller.redis.hgetall(f"{seller.prefix}tries") == {}
                assert await seller.redis.hgetall(f"{seller.prefix}since") == {}
                assert len(await tools.subjects.pending(subject)) == 3
                assert (await tools.subjects.looks(subject))[-1].outcome == "held"

    asyncio.run(main())


@pytest.mark.parametrize("down", [True, False])
def test_the_time_for_which_a_job_is_tried_does_not_run_while_whop_is_down(redis_url, down):
    async def main():
        async with community.running(redis_url, COURSE, workers=0) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.until_delivered()
            (subject,) = await seller.due()
            ago = community.now() - timedelta(hours=31)
            await seller.redis.hset(f"{seller.prefix}since", subject, milliseconds(ago))
            outage = Outage(ago + SECOND, community.now() - 2 * RAMP)
            state = State((outage,) if down else ())
            await seller.redis.set(f"{seller.prefix}breaker", msgspec.json.encode(state))
            async with seller.workbench() as tools:
                await tools.breaker.learn()
                seller.whop.faults.failures = [Failure(operation="*", status=500, times=99)]
                await jobs.run(tools, subject)
                assert (await seller.dead() == {}) is down

    asyncio.run(main())


def test_one_member_whom_whop_always_fails_for_makes_nobody_wait(redis_url):
    async def main():
        async with community.running(redis_url, COURSE) as seller:
            tools = seller.tools()
            seller.whop.faults.failures = [
                Failure(operation="memberships.list", status=500, times=10**9)
            ]
            for n in range(16):
                seller.whop.memberships.buy("prod_course", f"buyer{n}")
            asked = len(seller.server.journal.of("permissions.list"))
            await local_whop.until(
                lambda: len(seller.server.journal.of("permissions.list")) > asked
            )
            await asyncio.sleep(1.2)
            assert tools.breaker.phase is Phase.CLOSED
            seller.whop.faults.failures = []
            await seller.bring_forward()
            await seller.settled()

    asyncio.run(main())
