"""What a worker says of itself: alive, ready, and in figures."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import community
import httpx
import local_whop
import pytest
from ports import free_port
from test_breaker import Probes, fail
from test_catchup import lose

from worker import health as pages
from worker import jobs, rules
from worker import main as worker
from worker.health import STALE, Health, PortTaken, Pulse, create_app, serving
from worker.meters import Meters
from worker.sandbox.faults import Failure

COURSE = """
[rooms.course]
name = "Course, cohort {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 50 }
"""


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def asking(health: Health) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(health))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker.test") as client:
        yield client


def idle() -> Health:
    return Health(Meters(), Pulse(Time()))


def test_a_worker_is_alive_as_long_as_each_of_its_loops_goes_round():
    async def main():
        time = Time()
        health = Health(Meters(), Pulse(time))
        async with asking(health) as client:
            assert (await client.get("/healthz")).status_code == 200
            health.pulse.beat("members")
            health.pulse.beat("house")
            time.now += STALE
            health.pulse.beat("members")
            assert (await client.get("/healthz")).status_code == 200
            time.now += 1
            answer = await client.get("/healthz")
            assert (answer.status_code, answer.json()["loops"]) == (503, ["house"])
            health.pulse.forget("house")
            assert (await client.get("/healthz")).json() == {"status": "alive"}

    asyncio.run(main())


def test_a_worker_that_has_not_started_is_not_ready_and_still_has_figures():
    async def main():
        async with asking(idle()) as client:
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
            assert (await client.get("/metrics")).status_code == 200

    asyncio.run(main())


def test_a_worker_is_ready_and_says_what_it_is_not(redis_url):
    async def main():
        async with (
            community.running(redis_url, COURSE, workers=0) as seller,
            worker._client(seller.settings) as http,
        ):
            health, redis = idle(), worker.connect(redis_url)
            health.tools = tools = worker.assemble(seller.settings, redis, http, community.now)
            await jobs.catch_up(tools)
            (hook,) = seller.whop.tables.webhooks.values()
            async with asking(health) as client:
                answer = await client.get("/readyz")
                told = {"redis": "answers", "breaker": "closed", "webhook": "enabled"}
                assert (answer.status_code, answer.json()) == (200, {"status": "ready", **told})
                hook.consecutive_failures = 1
                await jobs.catch_up(tools)
                answer = await client.get("/readyz")
                assert (answer.status_code, answer.json()["webhook"]) == (200, "failing")
                hook.failing_since = now = community.now() - timedelta(hours=25)
                await jobs.catch_up(tools)
                answer = await client.get("/readyz")
                off = f"{now + timedelta(hours=72):%F %H:%M} UTC at the earliest"
                assert answer.status_code == 200
                assert answer.json()["webhook"].startswith(f"failing; Whop turns it off at {off}")
                hook.enabled = False
                await jobs.catch_up(tools)
                answer = await client.get("/readyz")
                assert (answer.status_code, answer.json()["webhook"]) == (503, "disabled")
                hook.enabled = True
                await jobs.catch_up(tools)
                fail(tools.breaker, 500)
                await tools.breaker.turn(Probes(answered=False))
                answer = await client.get("/readyz")
                assert (answer.status_code, answer.json()["breaker"]) == (503, "open")
            await redis.aclose()

    asyncio.run(main())


def test_a_worker_without_redis_is_alive_and_not_ready():
    async def main():
        nowhere = "redis://127.0.0.1:1/0"
        settings = worker.Settings(
            rules=rules.parse(community.HEAD + COURSE), api_key="apik_x", redis_url=nowhere
        )
        async with worker._client(settings) as http:
            health = idle()
            redis = worker.connect(nowhere)
            health.tools = worker.assemble(settings, redis, http, community.now)
            async with asking(health) as client:
                answer = await client.get("/readyz")
                assert (answer.status_code, answer.json()["redis"][:4]) == (503, "away")
                assert (await client.get("/healthz")).status_code == 200
                assert (await client.get("/metrics")).status_code == 200
            await redis.aclose()

    asyncio.run(main())


def test_the_figures_tell_of_jobs_calls_the_backlog_and_the_webhook(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, workers=0) as seller:
            seller.whop.memberships.buy("prod_course", "lost")
            lose(seller.whop, community.now() - timedelta(hours=1))
            async with worker._client(seller.settings) as http:
                redis = worker.connect(redis_url)
                tools = worker.assemble(seller.settings, redis, http, community.now)
                health = Health(tools.meters, Pulse(Time()))
                health.tools = tools
                assert (await jobs.catch_up(tools)).stored == 3
                async with asking(health) as client:
                    before = await figures(client)
                    (subject,) = await seller.due()
                    await jobs.run(tools, subject)
                    broken = Failure(operation="memberships.list", status=500, times=3)
                    seller.whop.faults.failures = [broken]
                    await tools.inbox.mark("member:user_x", "test", 1)
                    await jobs.run(tools, "member:user_x")
                    after = await figures(client)
                assert before["usher_due"] == 1
                assert before["usher_caught_up_deliveries_total"] == 3
                assert before["usher_webhook_failures"] == 3
                assert before["usher_webhook_enabled"] == 1
                assert before['usher_breaker{phase="closed"}'] == 1
                assert before['usher_breaker{phase="open"}'] == 0
                assert after['usher_jobs_total{kind="member",outcome="done"}'] == 1
                assert after['usher_jobs_total{kind="member",outcome="later"}'] == 1
                assert after['usher_whop_calls_total{result="failed"}'] == 3
                assert after['usher_whop_calls_total{result="answered"}'] > 2
                await redis.aclose()

    asyncio.run(main())


async def figures(client: httpx.AsyncClient) -> dict[str, float]:
    lines = (await client.get("/metrics")).text.splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def test_every_set_of_labels_is_closed():
    meters = Meters()
    for kind in ("member:a", "member:b", "unknown:msg_1", "anything"):
        meters.ended(kind, "done")
    families = {f.name: f.samples for f in meters.registry.collect()}
    kinds = {s.labels["kind"] for s in families["usher_jobs"]}
    assert kinds == {"member", "other"}


def test_a_wait_for_the_quota_is_counted_and_a_mere_look_is_not():
    meters = Meters()
    meters.waited(0.001)
    meters.waited(2.5)
    samples = {s.name: s.value for f in meters.registry.collect() for s in f.samples}
    assert samples["usher_quota_waits_total"] == 1
    assert samples["usher_quota_wait_seconds_total"] == 2.5


def test_the_pages_are_served_where_a_port_is_said_and_nowhere_else():
    async def main():
        port = free_port()
        async with serving(idle(), "127.0.0.1", port), httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{port}/healthz")
            assert json.loads(answer.content) == {"status": "alive"}
            with pytest.raises(PortTaken, match="USHER_WORK_PORT"):
                async with serving(idle(), "127.0.0.1", port):
                    pass
        async with serving(idle(), "127.0.0.1", None):
            with pytest.raises(httpx.ConnectError):
                await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/healthz")

    asyncio.run(main())


def test_the_loops_of_a_whole_worker_are_heard(redis_url):
    async def main():
        async with community.running(redis_url, COURSE, workers=0) as seller:
            health = worker._health()
            options = worker.options(seller.settings, health=health)
            lane = worker.Lane("members", health.pulse, handle_signals=False, **options)
            stopping = asyncio.Event()
            running = asyncio.create_task(worker.run_until(stopping, lane))
            read = seller.server.journal.of  # at its start it catches up, among other things
            await local_whop.until(lambda: read("webhooks.list_deliveries"))
            await local_whop.until(lambda: len(health.pulse.beats) == 3)
            assert sorted(health.pulse.beats) == ["house", "members", "rooms"]
            assert (await health.ready())[0]
            stopping.set()
            await running
            assert sorted(health.pulse.beats) == ["members"]

    asyncio.run(main())


SETTINGS = {"WHOP_API_KEY": "apik_x", "REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("USHER_WORK_PORT", "http"),
        ("USHER_WORK_PORT", "65536"),
        ("USHER_ENABLE_WEBHOOK", "true"),
        ("WHOP_WEBHOOK", "usher.example/webhooks/whop"),
    ],
)
def test_a_variable_that_says_nothing_sensible_is_named(tmp_path, variable, value):
    rules = tmp_path / "rooms.toml"
    rules.write_text(community.HEAD + COURSE)
    environ = SETTINGS | {"USHER_RULES": str(rules), variable: value}
    with pytest.raises(worker.SettingsError, match=variable):
        worker.Settings.from_env(environ)


def test_the_variables_of_the_webhook_and_the_pages_are_read(tmp_path):
    rules = tmp_path / "rooms.toml"
    rules.write_text(community.HEAD + COURSE)
    environ = SETTINGS | {"USHER_RULES": str(rules)}
    silent = worker.Settings.from_env(environ)
    assert (silent.webhook.said, silent.webhook.enable, silent.port) == (None, False, None)
    said = worker.Settings.from_env(
        environ
        | {"WHOP_WEBHOOK": "hook_1", "USHER_ENABLE_WEBHOOK": "yes", "USHER_WORK_PORT": "9100"}
    )
    assert (said.webhook.said, said.webhook.enable, said.port) == ("hook_1", True, 9100)


def test_the_readiness_of_a_redis_that_hangs_is_known_in_seconds():
    assert pages.READY_WITHIN <= 5
