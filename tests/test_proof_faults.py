"""Where proof could do harm, or deceive: each as the sequence of events that once did."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import community
import local_whop
import pytest
from local_whop import PATIENCE
from test_breaker import Clock as Skewed
from test_breaker import Probes, fail
from test_catchup import bench
from test_policy_differences import HIDDEN, NOW, Row, on
from test_verify import FORGETFUL, Later, kinds, verified

from webhooks.inbox import Inbox, connect
from worker import jobs, main, opening
from worker.breaker import Breaker
from worker.commands import privacy
from worker.commands.privacy import StillHere
from worker.health import Pulse
from worker.policy import breaker as law
from worker.policy.breaker import Outage, Phase, State
from worker.policy.differences import found_grant
from worker.proof import inspection
from worker.sandbox.bodies import NewPlan
from worker.sandbox.faults import Failure
from worker.subjects import milliseconds
from worker.supervisor import end
from worker.whop.types import Attempt, Webhook

COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 3 }
on_refund = "revoke"
"""


async def forget(seller, user, *, anyway=False):
    return await privacy.forget(
        seller.settings.rules,
        seller.settings.redis_url,
        user,
        by="eve",
        now=seller.clock(),
        echo=lambda _: None,
        anyway=anyway,
    )


def test_who_was_forgotten_all_the_same_does_not_stay_in_when_their_purchase_ends(redis_url):
    async def main_():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            await forget(seller, seller.whop.people.user("ada").id, anyway=True)
            seller.whop.memberships.cancel(bought.id)
            await seller.settled()
            assert not await seller.may_enter("ada", "course/1")

    asyncio.run(main_())


def test_a_purchase_that_waits_for_its_turn_is_not_erased(redis_url):
    async def main_():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            first = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            seller.whop.memberships.cancel(first.id)
            await seller.settled()
            ada = seller.whop.people.user("ada").id
            seller.whop.faults.failures.append(Failure(operation="memberships.list", times=999))
            seller.whop.memberships.buy("prod_course", "ada")  # it fails, and is tried again later
            await seller.until_delivered()
            async with asyncio.timeout(PATIENCE):
                while True:
                    at = (await seller.subjects.due([f"member:{ada}"])).get(f"member:{ada}", 0)
                    if at > milliseconds(seller.clock()) + privacy.SOON + 500:
                        break
                    await asyncio.sleep(0.02)
            with pytest.raises(StillHere):
                await forget(seller, ada)
            seller.whop.faults.failures.clear()
            await seller.bring_forward()
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")

    asyncio.run(main_())


def test_a_repair_that_failed_is_not_called_repaired_and_ends_with_one(redis_url):
    async def main_():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            seller.whop.faults.drop = 1.0
            seller.whop.memberships.buy("prod_course", "ada")
            seller.whop.faults.failures.append(
                Failure(operation="memberships.create", status=400, times=99)
            )
            code, document, _ = await verified(seller, repair=True)
            assert not await seller.may_enter("ada", "course/1")
            assert document["repaired"] == []
            assert code == 1

    asyncio.run(main_())


def test_a_purchase_during_the_walk_is_no_difference(redis_url):
    async def main_():
        rooms = COURSE.replace('on_refund = "revoke"', "")
        async with community.running(redis_url, rooms, clock=Later()) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            tools = seller.tools()
            real = tools.whop

            class Meanwhile:
                def __getattr__(self, name):
                    return getattr(real, name)

                def at(self, _):
                    return self

                async def memberships_of(self, products):
                    async for row in real.memberships_of(products):
                        yield row
                    seller.whop.memberships.buy("prod_course", "bob")  # after the last page
                    await seller.settled()

            findings = await inspection.inspect(replace(tools, whop=Meanwhile()))
            assert [(one.kind, one.user) for one in findings.differences] == []

    asyncio.run(main_())


def test_a_seller_s_own_free_plan_is_not_taken_for_ours_after_a_loss(redis_url):
    async def main_():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            place = await seller.place("course/1")
            for _ in range(4):
                seller.whop.catalog.create_plan(
                    NewPlan(
                        product_id=place.product,
                        plan_type="one_time",
                        initial_price=0,
                        renewal_price=0,
                        visibility="hidden",
                    )
                )
            await seller.rest()
            await seller.redis.flushall()
            seller.whop.faults.ignore_idempotency = FORGETFUL  # a day later Whop repeats no answers
            await seller.work()
            await seller.settled()
            await verified(seller, repair=True)
            assert len(seller.whop.tables.memberships) == 2
            assert (await seller.place("course/1")).plan == place.plan

    asyncio.run(main_())


def test_a_grant_that_usher_ended_and_somebody_brought_back_is_seen(redis_url):
    async def main_():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            bought = seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            seller.whop.memberships.cancel(bought.id)
            await seller.settled()
            (grant,) = [m for m in seller.whop.tables.memberships.values() if m.id != bought.id]
            seller.whop.memberships.set_status(grant.id, "completed")
            await seller.settled()
            assert await seller.may_enter("ada", "course/1")
            _, document, _ = await verified(seller)
            assert kinds(document) == ["grant.not_ours"]
            seller.clock.by -= timedelta(minutes=11)  # arq goes by our clock
            seller.whop.memberships.buy("prod_course", "ada")
            await seller.settled()
            assert len(seller.whop.tables.memberships) == 3  # and no second grant beside it

    asyncio.run(main_())


def test_what_was_given_by_hand_after_the_purchase_ended_is_not_ours():
    from test_policy_differences import COURSE as ROOM

    ended = Row(  # its paid time ended five days ago; yesterday its money went back
        status="canceled",
        updated_at=NOW - timedelta(days=1),
        period_end=NOW - timedelta(days=5),
    )
    assert found_grant(ROOM, HIDDEN, [ended, on(1, ago=timedelta(days=3))], "biz_a") is None


def test_polling_for_what_somebody_holds_leaves_one_job_and_not_one_each(redis_url):
    async def main_():
        async with community.running(redis_url, COURSE, clock=Later()) as seller:
            await seller.rest()
            subject, prefix = "member:user_ada", seller.prefix
            inbox = Inbox(seller.redis, community.ACCOUNT)
            now = seller.clock()  # however long it takes: each second may leave one more
            await inbox.mark(subject, "test", milliseconds(now))
            await seller.redis.set(f"{prefix}lock:{subject}", "a worker", px=600_000)
            for _ in range(100):
                assert await seller.subjects.claim(subject, now) is None
            assert await seller.redis.zcard(f"{prefix}queue") <= 2

    asyncio.run(main_())


def test_a_webhook_that_was_deleted_is_not_called_enabled(redis_url):
    async def main_():
        async with bench(redis_url) as b:
            catch_up = b.catch_up()
            await catch_up.run()
            assert (await catch_up.webhook.health()).enabled
            b.whop.tables.webhooks.clear()
            assert await catch_up.run() is None
            assert await catch_up.webhook.health() is None

    asyncio.run(main_())


def test_an_attempt_that_is_on_its_way_does_not_end_the_reading(redis_url):
    async def main_():
        async with bench(redis_url) as b:
            catch_up = b.catch_up()
            hook = Webhook("hook_1", "https://x/webhooks/whop", True, 0, None, None, None)  # noqa: FBT003 - its fields in order
            lost = {"id": "msg_1", "type": "membership.activated", "data": {"user_id": "user_1"}}
            rows = [
                Attempt("whdel_2", None, False, {**lost, "id": "msg_2"}),  # noqa: FBT003 - not sent yet
                Attempt("whdel_1", b.now - timedelta(hours=1), False, lost),  # noqa: FBT003 - as above
            ]

            class Log:
                async def webhooks(self):
                    return [hook]

                async def attempts(self, _):
                    for row in rows:
                        yield row

            catch_up._whop = catch_up.webhook._whop = Log()
            found = await catch_up.run()
            assert found.stored == 1

    asyncio.run(main_())


def test_a_worker_whose_clock_is_behind_probes_and_goes_on(redis_url):
    async def main_():
        redis, fast, slow = connect(redis_url), Skewed(), Skewed()
        fast.ahead = timedelta(minutes=10)
        prefix = f"usher:{community.ACCOUNT}:"
        one, other = (Breaker(redis, prefix, clock=c) for c in (fast, slow))
        try:
            fail(one)
            await one.turn(Probes(answered=False))
            assert one.open
            back = Probes(answered=True)  # the first worker was killed; Whop is back
            for _ in range(3):
                await other.turn(back)
            assert back.count
            assert other.phase is not Phase.OPEN
        finally:
            await redis.aclose()

    asyncio.run(main_())


def test_an_end_in_a_clocks_future_holds_nobody_back():
    now = datetime(2026, 11, 27, tzinfo=UTC)
    state = State((Outage(now - timedelta(hours=1), now + timedelta(minutes=10)),))
    assert law.may_have_begun(state, now) > 0


def test_a_turn_that_breaks_is_not_the_last(redis_url, capsys):
    async def main_():
        redis, clock = connect(redis_url), Skewed()
        breaker = Breaker(redis, f"usher:{community.ACCOUNT}:", clock=clock)
        await redis.set(f"usher:{community.ACCOUNT}:breaker", "what is this")
        keeping = asyncio.create_task(breaker.keep(Probes(answered=True)))
        try:
            await local_whop.until(lambda: "breaker.broke" in capsys.readouterr().out)
            assert not keeping.done()
        finally:
            await end([keeping])
            await redis.aclose()

    asyncio.run(main_())


def test_catching_up_does_not_stand_in_line_behind_itself(redis_url):
    async def main_():
        async with community.running(redis_url, COURSE) as seller:
            tools = seller.tools()
            await seller.redis.set(f"{seller.prefix}lock:catch-up", "somebody")  # and for ever
            async with asyncio.timeout(PATIENCE):
                assert await jobs.catch_up(tools) is None

    asyncio.run(main_())


def test_a_lane_that_breaks_begins_anew(redis_url):
    class Breaks(Pulse):
        beaten = 0

        def beat(self, loop):
            self.beaten += 1
            if self.beaten == 1:
                raise RuntimeError("a bug of a library's, in arq's loop")
            super().beat(loop)

    async def main_():
        pulse, stopping = Breaks(lambda: 0.0), asyncio.Event()
        settings = community.main.Settings(
            rules=community.rules.parse(community.HEAD + COURSE), api_key="k", redis_url=redis_url
        )
        lane = main._lane(settings, "queue:rooms", 1)
        ctx = {"tools": None, "stopping": stopping}
        running = asyncio.create_task(main._aside(ctx, "rooms", lane, pulse))
        try:
            await local_whop.until(lambda: "rooms" in pulse.beats)
        finally:
            stopping.set()
            await running
            await lane["redis_pool"].connection_pool.disconnect()

    asyncio.run(main_())


def test_a_redis_emptied_under_a_running_worker_gets_its_rooms_back(redis_url):
    async def main_():
        async with community.running(redis_url, community_lounge(), clock=Later()) as seller:
            before = await seller.place("lounge")
            await seller.redis.flushall()
            await jobs.sweep(seller.tools())
            await opening.look_back(seller.tools())
            await seller.settled()
            assert (await seller.place("lounge")).experience == before.experience
            assert seller.rooms() == ["The Lounge"]

    asyncio.run(main_())


def community_lounge():
    return '[rooms.lounge]\nname = "The Lounge"\nproducts = ["prod_basic"]\n'
