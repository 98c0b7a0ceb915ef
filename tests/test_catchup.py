"""Catching up: what Whop could not deliver comes in by its log, once, and nothing is left out."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import community
import httpx
import local_whop
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_whop import ACCOUNT, API_KEY
from redis.exceptions import RedisError

from webhooks.events import Malformed
from webhooks.inbox import Inbox, InboxUnavailable, connect
from worker import jobs
from worker.catchup import CatchUp, Mark, opened
from worker.our_webhook import Ours, Unknown, ours
from worker.policy.backlog import OVERLAP, REACH, Reading, begins
from worker.sandbox.bodies import NewWebhook
from worker.sandbox.faults import Failure
from worker.sandbox.outbox import Outcome
from worker.sandbox.records import Webhook as Record
from worker.sandbox.state import LocalWhop
from worker.whop.client import Whop
from worker.whop.errors import Unavailable
from worker.whop.quota import Quota
from worker.whop.types import Attempt, Webhook

URL = "http://127.0.0.1:9/webhooks/whop"
"""Nobody listens there."""

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
"""


def lose(whop: LocalWhop, at: datetime, *, then: int | None = None) -> None:
    """Have every delivery that waits fail from an instant until now, or succeed `then`."""
    while taken := whop.outbox.take(datetime.now(UTC), 1_000_000):
        for message in taken:
            sent = max(message.due, at) if message.attempt else at
            answered = then is not None and message.attempt >= then
            whop.outbox.settle(message, Outcome(200 if answered else 503, b"{}", 0.1), sent)


# --- the law of the log


MINUTES = st.integers(0, 240).map(lambda n: timedelta(seconds=15 * n))
MESSAGES = st.lists(
    st.tuples(MINUTES, st.integers(0, 5), st.integers(0, 3)),  # when; which try succeeds; how late
    max_size=30,
)


@settings(max_examples=200)
@given(MESSAGES, st.lists(MINUTES, max_size=8), st.integers(-900, 120))
def test_whatever_never_arrived_is_found_by_one_reading_or_another(messages, readings, skew):
    """Whop's clock may differ from ours by minutes, and the log need not be in order."""
    log: list[tuple[datetime, datetime, str, bool]] = []  # entered, sent, message, arrived
    for n, (after, succeeds, late) in enumerate(messages):
        for attempt, delay in enumerate((0, 30, 150, 630, 2430)):
            sent = NOW + after + timedelta(seconds=delay)
            entered = sent + timedelta(seconds=75 * late)
            log.append((entered, sent, f"msg_{n}", attempt == succeeds))
            if attempt == succeeds:
                break
    found, mark = set(), None
    for at in [*sorted(NOW + r for r in readings), NOW + timedelta(hours=2)]:
        reading = Reading[str](at + timedelta(seconds=skew))
        first = begins(mark, reading.now)
        seen = sorted((row for row in log if row[0] <= at), key=lambda row: row[0], reverse=True)
        for _, sent, message, arrived in seen:
            if sent > first:
                reading.note(message, sent, message, arrived=arrived)
        found |= set(reading.lost())
        after = reading.complete_until(mark)
        assert mark is None or (after and after >= mark)
        mark = after
    assert found >= {f"msg_{n}" for n, (_, succeeds, _) in enumerate(messages) if succeeds == 5}


def test_what_failed_once_is_taken_though_whop_will_try_again():
    reading = Reading[str](NOW)
    young = NOW - timedelta(seconds=1)
    reading.note("msg_young", young, "young", arrived=False)
    reading.note("msg_old", NOW - timedelta(hours=1), "old", arrived=False)
    assert reading.lost() == ["old", "young"]
    assert reading.complete_until(None) == young - OVERLAP


def test_an_attempt_that_succeeded_speaks_for_the_failures_before_it():
    reading = Reading[str](NOW)
    reading.note("msg_1", NOW - timedelta(minutes=59), "one", arrived=True)
    reading.note("msg_1", NOW - timedelta(minutes=60), "one", arrived=False)
    assert reading.lost() == []


def test_what_is_lost_comes_the_oldest_first_and_once():
    reading = Reading[str](NOW)
    for minutes, message in ((10, "c"), (11, "b"), (12, "a"), (13, "a")):
        reading.note(message, NOW - timedelta(minutes=minutes), message, arrived=False)
    assert reading.lost() == ["a", "b", "c"]


def test_what_was_tried_again_is_as_old_as_its_first_attempt():
    """Seats go by the order of buying, and Whop's twelfth try is three days after its first."""
    reading = Reading[str](NOW)
    for minutes, message in ((1, "first"), (5, "second"), (60, "first")):
        reading.note(message, NOW - timedelta(minutes=minutes), message, arrived=False)
    assert reading.lost() == ["first", "second"]


def test_the_mark_goes_to_the_newest_attempt_when_the_log_has_been_quiet():
    reading, newest = Reading[str](NOW), NOW - timedelta(hours=1)
    reading.note("msg_1", newest, "one", arrived=False)
    assert reading.complete_until(None) == newest
    assert reading.complete_until(NOW) == NOW  # and never back


def test_what_is_entered_into_the_log_after_a_later_attempt_is_read_the_next_time():
    reading, newest = Reading[str](NOW), NOW - timedelta(seconds=1)
    reading.note("msg_1", newest, "one", arrived=True)
    mark = reading.complete_until(None)
    assert mark == newest - OVERLAP
    assert begins(mark, NOW + timedelta(hours=1)) == mark


def test_the_log_is_read_from_the_mark_and_thirty_days_back_at_most():
    assert begins(None, NOW) == NOW - REACH
    assert begins(NOW - timedelta(days=40), NOW) == NOW - REACH
    assert begins(NOW - timedelta(days=1), NOW) == NOW - timedelta(days=1)
    assert begins(NOW, NOW, NOW - timedelta(days=2)) == NOW - timedelta(days=2)


# --- which webhook is ours


def hook(id_: str, url: str) -> Webhook:
    return Webhook.read({"id": id_, "url": url})


def test_our_webhook_is_the_one_that_ends_in_our_address():
    ended = hook("hook_a", "https://usher.example/webhooks/whop?x=1")
    assert ours([hook("hook_b", "https://else.example/in"), ended], None) is ended


def test_a_url_that_is_said_is_our_webhooks_whatever_it_ends_in():
    said = hook("hook_b", "https://else.example/in")
    assert ours([hook("hook_a", URL), said], said.url) is said


@pytest.mark.parametrize(
    ("hooks", "said"),
    [
        ([], None),
        ([hook("hook_a", URL), hook("hook_b", URL)], None),
        ([hook("hook_a", URL)], "https://else.example/in"),
        ([hook("hook_a", "http://[broken/webhooks/whop")], None),
    ],
    ids=["none", "two", "another URL", "a broken URL"],
)
def test_where_it_cannot_be_told_nobody_guesses(hooks, said):
    with pytest.raises(Unknown):
        ours(hooks, said)


# --- a body as Whop may have logged it


BODY = {"id": "msg_1", "type": "membership.activated", "data": {"id": "mem_1", "user_id": "user_1"}}


@pytest.mark.parametrize("body", [BODY, msgspec.json.encode(BODY).decode()], ids=["object", "text"])
def test_a_body_is_read_as_an_object_and_as_a_text(body):
    delivery = opened(Attempt("whdel_1", NOW, success=False, body=body), 7)
    assert (delivery.id, delivery.subject, delivery.received) == ("msg_1", "member:user_1", 7)


@pytest.mark.parametrize("body", [None, 7, [], "not JSON", {}, {"id": "msg_1"}])
def test_a_body_that_says_nothing_is_malformed(body):
    with pytest.raises(Malformed):
        opened(Attempt("whdel_1", NOW, success=False, body=body), 7)


# --- against a local Whop


@dataclass
class Bench:
    whop: LocalWhop
    server: local_whop.Server
    http: httpx.AsyncClient
    inbox: Inbox
    redis: Any
    now: datetime

    def catch_up(self, *, enable: bool = False, said: str | None = None) -> CatchUp:
        client = Whop(
            self.http,
            account=ACCOUNT,
            quota=Quota(self.redis.connection_pool, prefix="test", who="key"),
            rng=random.Random(1),
            sleep=_no_time,
        )
        ours_ = Ours(said, enable)
        return CatchUp(self.inbox, client, account=ACCOUNT, ours=ours_, clock=lambda: self.now)

    def buy(self, *users: str) -> None:
        for user in users:
            self.whop.memberships.buy("prod_basic", user)

    @property
    def hook(self) -> Record:
        return next(iter(self.whop.tables.webhooks.values()))

    async def mark(self) -> Mark | None:
        record = await self.redis.get(f"usher:{ACCOUNT}:caught_up")
        return record and msgspec.json.decode(record, type=Mark)

    async def stored(self) -> int:
        return len(await self.redis.keys(f"usher:{ACCOUNT}:delivery:*"))


async def _no_time(_: float) -> None:
    """Sleep not at all."""


@contextlib.asynccontextmanager
async def bench(redis_url: str, url: str = URL) -> AsyncIterator[Bench]:
    whop = local_whop.build(webhook_url=url)
    async with (
        local_whop.running(whop) as server,
        httpx.AsyncClient(
            base_url=server.api_url, headers={"Authorization": f"Bearer {API_KEY}"}
        ) as http,
    ):
        redis = connect(redis_url)
        inbox = Inbox(redis, ACCOUNT)
        try:
            yield Bench(whop, server, http, inbox, redis, datetime.now(UTC))
        finally:
            await redis.aclose()


def test_what_whop_gave_up_is_stored_once_and_the_second_time_nothing_is(redis_url):
    async def main():
        async with bench(redis_url) as b:
            b.buy("ada", "bob")
            lose(b.whop, b.now - timedelta(hours=1), then=2)  # these arrived at the third try
            b.buy("cora", "dan")
            lose(b.whop, b.now - timedelta(minutes=30))
            lost = {d.message_id for d in b.whop.outbox.newest_first(b.hook.id)}
            lost -= {d.message_id for d in b.whop.outbox.newest_first(b.hook.id) if d.success}
            found = await b.catch_up().run()
            assert (found.stored, found.known) == (len(lost), 0)
            keys = await b.redis.keys(f"usher:{ACCOUNT}:delivery:*")
            assert {key.decode().rpartition(":")[2] for key in keys} == lost
            again = await b.catch_up().run()
            assert (again.stored, again.known) == (0, 0)

    asyncio.run(main())


def test_every_page_is_read_and_the_mark_spares_them_the_next_time(redis_url):
    async def main():
        async with bench(redis_url) as b:
            b.buy(*(f"user{n}" for n in range(90)))
            lose(b.whop, b.now - timedelta(hours=1))
            found = await b.catch_up().run()
            assert found.attempts == 90 * 3 * 5
            assert found.stored == await b.stored() == 90 * 3
            calls = b.server.journal.counts["webhooks.list_deliveries"]
            assert calls == {200: 14}
            b.buy("late")
            lose(b.whop, b.now - timedelta(minutes=20))
            found = await b.catch_up().run()
            assert found.stored == 3
            assert calls == {200: 15}

    asyncio.run(main())


def test_what_fails_while_the_log_is_read_is_found_in_the_end(redis_url):
    async def main():
        async with bench(redis_url) as b:
            b.buy(*(f"user{n}" for n in range(30)))
            lose(b.whop, b.now - timedelta(hours=1))

            def meanwhile(attempts: int, _: int) -> None:
                if attempts:
                    b.buy(f"late{attempts}")  # pushes every row of the log on
                    lose(b.whop, b.now - timedelta(seconds=90))

            await b.catch_up().run(tell=meanwhile)
            assert await b.stored() == 30 * 3
            b.now += timedelta(minutes=5)
            await b.catch_up().run()
            assert await b.stored() == 34 * 3

    asyncio.run(main())


def test_a_delivery_is_taken_after_its_first_failure_and_whops_next_try_is_nothing_new(redis_url):
    async def main():
        async with bench(redis_url) as b:
            b.buy("ada")
            lose(b.whop, b.now - timedelta(seconds=1))
            found = await b.catch_up().run()
            assert (found.attempts, found.stored) == (3, 3)
            log = list(b.whop.outbox.newest_first(b.hook.id))
            bodies = [
                opened(Attempt(one.id, one.sent_at, success=False, body=one.request_body), 0)
                for one in log
            ]
            assert [await b.inbox.put(body) for body in bodies] == [False] * 3

    asyncio.run(main())


def test_the_mark_stays_while_redis_takes_nothing(redis_url):
    async def main():
        async with bench(redis_url) as b:
            b.buy("ada")
            lose(b.whop, b.now - timedelta(hours=1))
            await b.catch_up().run()
            before = await b.mark()
            b.buy(*(f"user{n}" for n in range(3)))
            lose(b.whop, b.now - timedelta(minutes=15))
            await b.redis.config_set("maxmemory", 1)
            try:
                with pytest.raises((InboxUnavailable, RedisError)):
                    await b.catch_up().run()
            finally:
                await b.redis.config_set("maxmemory", 0)
            assert await b.mark() == before
            assert (await b.catch_up().run()).stored == 9
            assert (await b.mark()).until > before.until

    asyncio.run(main())


def test_what_was_read_is_stored_where_whop_breaks_off_and_the_mark_stays(redis_url):
    async def main():
        async with bench(redis_url) as b:
            b.buy(*(f"user{n}" for n in range(40)))
            lose(b.whop, b.now - timedelta(hours=1))

            def breaks(attempts: int, _: int) -> None:
                trouble = Failure(operation="webhooks.list_deliveries", times=3)
                b.whop.faults.failures = [trouble] if attempts == 100 else []

            with pytest.raises(Unavailable):
                await b.catch_up().run(tell=breaks)
            assert 0 < await b.stored() < 120
            assert await b.mark() is None
            b.whop.faults.failures = []
            await b.catch_up().run()
            assert await b.stored() == 120
            assert await b.mark()

    asyncio.run(main())


def test_somebody_may_have_an_earlier_stretch_read_again_and_a_later_one_leaves_the_mark(redis_url):
    async def main():
        async with bench(redis_url) as b:
            b.whop.outbox.retry_seconds = ()
            b.buy("ada")
            lose(b.whop, b.now - timedelta(days=2))
            b.buy("bob")
            lose(b.whop, b.now - timedelta(hours=1))
            found = await b.catch_up().run(since=b.now - timedelta(days=1))
            assert (found.stored, await b.mark()) == (3, None)
            assert (await b.catch_up().run()).stored == 3
            mark = await b.mark()
            again = await b.catch_up().run(since=b.now - timedelta(days=3))
            assert (again.attempts, again.known) == (6, 6)
            assert await b.mark() == mark

    asyncio.run(main())


def test_a_body_that_nobody_can_read_is_reported_once_and_blocks_nothing(redis_url, capsys):
    async def main():
        async with bench(redis_url) as b:
            b.buy("ada")
            lose(b.whop, b.now - timedelta(minutes=5))
            rows = list(b.whop.outbox.newest_first(b.hook.id))
            broken = rows[0].message_id
            for row in rows:
                text = bytes(row.request_body).decode()
                row.request_body = msgspec.Raw(
                    msgspec.json.encode("gone" if row.message_id == broken else text)
                )
            for _ in range(3):
                found = await b.catch_up().run()
                assert len(found.unreadable) == 3
            assert await b.stored() == 2
            assert await b.mark()

    asyncio.run(main())
    assert capsys.readouterr().out.count("catch_up.unreadable") == 3


def test_what_is_none_of_our_business_is_left_out(redis_url):
    async def main():
        async with bench(redis_url) as b:
            b.buy("ada")
            lose(b.whop, b.now - timedelta(hours=1))
            changes = iter([{"account_id": "biz_other"}, {"type": "chat.message.created"}])
            change: dict[str, dict[str, str]] = {}
            for row in b.whop.outbox.newest_first(b.hook.id):
                body = msgspec.json.decode(row.request_body)
                change.setdefault(body["id"], next(changes, {}))
                row.request_body = msgspec.Raw(msgspec.json.encode(body | change[body["id"]]))
            found = await b.catch_up().run()
            assert (found.stored, found.ignored) == (1, 2)

    asyncio.run(main())


def test_without_the_permission_it_is_said_once_and_nobody_is_harmed(redis_url, capsys):
    async def main():
        async with bench(redis_url) as b:
            b.whop.tables.keys[API_KEY].permissions = frozenset({"member:basic:read"})
            catching = b.catch_up()
            for _ in range(3):
                assert await catching.run() is None

    asyncio.run(main())
    out = capsys.readouterr().out
    assert out.count("webhook.unseen") == 1
    assert "developer:manage_webhook" in out
    assert "usher verify" in out


def test_where_the_webhook_is_not_known_it_is_said_once_how_to_name_it(redis_url, capsys):
    async def main():
        async with bench(redis_url, url="http://127.0.0.1:9/elsewhere") as b:
            catching = b.catch_up()
            for _ in range(3):
                assert await catching.run() is None
            assert await b.catch_up(said="hook_nobodys").run() is None
            assert await b.catch_up(said=b.hook.id).run()
            assert await b.catch_up(said=b.hook.url).run()

    asyncio.run(main())
    out = capsys.readouterr().out
    assert out.count("webhook.unknown") == 2
    assert "WHOP_WEBHOOK" in out


def test_another_webhooks_mark_says_nothing_of_ours(redis_url):
    async def main():
        async with bench(redis_url) as b:
            b.buy("ada")
            lose(b.whop, b.now - timedelta(hours=1))
            await b.catch_up().run()
            other = b.whop.hooks.create(
                NewWebhook(url="http://127.0.0.1:9/x", events=b.hook.events)
            )
            b.buy("bob")
            lose(b.whop, b.now - timedelta(hours=2))
            found = await b.catch_up(said=other.id).run()
            assert found.stored == 3

    asyncio.run(main())


def test_a_webhook_that_fails_is_spoken_of_loudly_long_before_whop_gives_it_up(redis_url, capsys):
    async def main():
        async with bench(redis_url) as b:
            b.buy("ada")
            lose(b.whop, b.now - timedelta(hours=1))
            catching = b.catch_up()
            await catching.run()
            health = await catching.webhook.health()
            assert (health.enabled, health.failures) == (True, 3)
            assert health.failing_since

    asyncio.run(main())
    assert "webhook.failing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("hours", "failures", "said"),
    [
        (23.9, 40, None),
        (24, 40, "Whop turns it off at 2026-11-24 12:00 UTC; "),
        (71, 40, "Whop turns it off at 2026-11-22 13:00 UTC; "),
        (
            30,
            4,
            "Whop turns it off at 2026-11-24 06:00 UTC at the earliest, once 10 deliveries",
        ),
        (100, 4, "Whop turns it off once 10 deliveries have failed (4 have); "),
    ],
)
def test_after_a_day_of_failing_it_is_said_when_whop_turns_the_webhook_off(
    redis_url, capsys, hours, failures, said
):
    async def main():
        async with bench(redis_url) as b:
            b.now = NOW
            b.hook.consecutive_failures = failures
            b.hook.failing_since = NOW - timedelta(hours=hours)
            await b.catch_up().run()

    asyncio.run(main())
    out = capsys.readouterr().out
    assert "webhook.failing" in out
    assert ("webhook.endangered" in out) is (said is not None)
    assert (said or "") in out


@pytest.mark.parametrize("enable", [False, True])
def test_a_webhook_that_whop_disabled_is_enabled_where_the_settings_allow(
    redis_url, capsys, enable
):
    async def main():
        async with bench(redis_url) as b:
            for days in (4, 0):
                b.buy("ada", "bob")
                lose(b.whop, b.now - timedelta(days=days, minutes=5))
            assert not b.hook.enabled
            catching = b.catch_up(enable=enable)
            found = await catching.run()
            assert found.stored == await b.stored() > 0
            assert b.hook.enabled is (await catching.webhook.health()).enabled is enable

    asyncio.run(main())
    out = capsys.readouterr().out
    assert ("webhook.enabled" in out, "webhook.disabled" in out) == (enable, not enable)


def test_a_webhook_that_the_seller_disabled_stays_so(redis_url, capsys):
    async def main():
        async with bench(redis_url) as b:
            b.hook.enabled = False
            await b.catch_up(enable=True).run()
            assert not b.hook.enabled

    asyncio.run(main())
    assert "the seller disabled it" in capsys.readouterr().out


def test_of_two_processes_that_begin_at_once_one_reads_the_log(redis_url, capsys):
    async def main():
        async with (
            community.running(redis_url, COURSE, workers=0) as seller,
            seller.workbench() as one,
            seller.workbench() as other,
        ):
            seller.whop.faults.latency_seconds = 0.2
            found = await asyncio.gather(jobs.catch_up(one), jobs.catch_up(other))
            assert sorted(f is None for f in found) == [False, True]
            assert seller.calls("webhooks.list") == 1
            assert await jobs.catch_up(other)  # and when the one is done, another may

    asyncio.run(main())
    assert capsys.readouterr().out.count("catch_up.under_way") == 1


# --- the whole


def test_an_absence_with_five_hundred_missed_deliveries_is_made_good_by_one_start(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, workers=0) as seller:
            buyers = [f"buyer{n}" for n in range(167)]
            for user in buyers:
                seller.whop.memberships.buy("prod_course", user)
            lose(seller.whop, community.now() - timedelta(days=1))
            await seller.work()
            everybody = lambda: seller.calls("memberships.create") >= len(buyers)  # noqa: E731 - read once
            await local_whop.until(everybody, seconds=300)
            await seller.settled()
            for user in buyers:
                assert await seller.may_enter(user, f"course/{await seller.cohort('course', user)}")
            assert seller.calls("memberships.list") == len(buyers)
            assert seller.calls("memberships.create") == len(buyers)
            cohorts = Counter(await seller.redis.hvals(f"{seller.prefix}seats:course"))
            assert cohorts == {b"1": 50, b"2": 50, b"3": 50, b"4": 17}
            await seller.rest()  # a worker's cron calls Whop, too
            seller.server.journal.clear()
            async with seller.workbench() as tools:
                found = await jobs.catch_up(tools)
            assert (found.stored, found.known) == (0, 0)
            called = {call.operation for call in seller.server.journal.of()}
            assert called == {"webhooks.list", "webhooks.list_deliveries"}

    asyncio.run(main())
