"""The webhook sender against a real endpoint: signatures, retries, replays, faults."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import local_whop
import pytest
from local_whop import SECRET, Endpoint, Server
from standardwebhooks import Webhook, WebhookVerificationError

from worker.sandbox import bodies
from worker.sandbox.deliveries import TIMEOUT_SECONDS, Sender, signature
from worker.sandbox.outbox import RETRY_SECONDS

QUICK = (0.02, 0.04, 0.08)


@contextlib.asynccontextmanager
async def heard(
    endpoint: Endpoint, *, retry_seconds: tuple[float, ...] = QUICK
) -> AsyncIterator[Server]:
    async with local_whop.serving(endpoint) as url:
        whop = local_whop.build(webhook_url=url, retry_seconds=retry_seconds)
        async with local_whop.running(whop) as server:
            yield server


def buy(server: Server, user: str = "ada") -> None:
    server.whop.memberships.buy("prod_basic", user)


def hook_id(server: Server) -> str:
    return next(iter(server.whop.tables.webhooks))


def test_whop_tries_twelve_times_more_over_about_71_hours() -> None:
    minute, hour = 60.0, 3600.0
    soon = (30.0, 2 * minute, 8 * minute, 30 * minute, hour, 3 * hour, 6 * hour)
    assert (*soon, *[12 * hour] * 5) == RETRY_SECONDS
    assert round(sum(RETRY_SECONDS) / hour) == 71
    assert local_whop.build().outbox.retry_seconds == RETRY_SECONDS


@dataclass
class Hours:
    """A clock that jumps ahead by an hour with each attempt."""

    endpoint: Endpoint

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=len(self.endpoint.heard))


def test_a_clock_that_runs_faster_shows_all_twelve_each_signed_anew_under_the_same_id() -> None:
    async def main() -> None:
        endpoint = Endpoint(answers=[500] * 12)
        async with local_whop.serving(endpoint) as url:
            whop = local_whop.build(webhook_url=url, clock=Hours(endpoint))
            async with local_whop.running(whop) as server:
                await server.control.patch("/sandbox/faults", json={"retry_clock": 1e7})
                said = whop.hooks.sample(hook_id(server), "membership.updated")
                whop.core.send_again(whop.hooks.get(hook_id(server)), said)
                await local_whop.until(lambda: not whop.outbox)
        assert len(endpoint.heard) == 13
        key = local_whop.standard_key(SECRET)
        stamps = []
        for one in endpoint.heard:
            headers = dict(one.headers)
            assert headers["webhook-id"] == said.message_id
            stamps.append(int(headers["webhook-timestamp"]))
            signed = signature(SECRET, said.message_id, stamps[-1], one.content)
            assert headers["webhook-signature"] == signed
        Webhook(key).verify(endpoint.heard[0].content, dict(endpoint.heard[0].headers))
        assert all(b - a >= 3600 for a, b in pairwise(stamps))
        log = list(whop.outbox.newest_first(next(iter(whop.tables.webhooks))))
        assert [one.success for one in log] == [True] + [False] * 12

    asyncio.run(main())


def test_a_clock_that_is_turned_while_a_delivery_waits_brings_its_next_attempt_nearer() -> None:
    async def main() -> None:
        endpoint = Endpoint(answers=[500])
        async with (
            local_whop.serving(endpoint) as url,
            local_whop.running(local_whop.build(webhook_url=url)) as server,
        ):
            said = server.whop.hooks.sample(hook_id(server), "membership.updated")
            server.whop.core.send_again(server.whop.hooks.get(hook_id(server)), said)
            await local_whop.until(lambda: server.whop.outbox._log)
            began = asyncio.get_running_loop().time()
            for wrong in (0, -1, "fast"):
                answer = await server.control.patch("/sandbox/faults", json={"retry_clock": wrong})
                assert answer.status_code == 422
            await server.control.patch("/sandbox/faults", json={"retry_clock": 600})
            await local_whop.until(lambda: not server.whop.outbox)
            assert asyncio.get_running_loop().time() - began < 25  # and not the 30 of Whop
            assert len(endpoint.heard) == 2

    asyncio.run(main())


def test_a_redirect_is_a_failure_and_nobody_follows_it() -> None:
    async def main() -> None:
        elsewhere = Endpoint()

        async def moved(scope, receive, send) -> None:
            if scope["type"] == "lifespan":
                await Endpoint()(scope, receive, send)
                return
            headers = [(b"location", url.encode()), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 307, "headers": headers})
            await send({"type": "http.response.body"})

        async with local_whop.serving(elsewhere) as url, local_whop.serving(moved) as first:
            whop = local_whop.build(webhook_url=first, retry_seconds=())
            async with local_whop.running(whop):
                whop.memberships.buy("prod_basic", "ada")
                await local_whop.until(lambda: not whop.outbox)
        log = list(whop.outbox.newest_first(next(iter(whop.tables.webhooks))))
        assert [(one.response_code, one.success) for one in log] == [(307, False)] * 3
        assert elsewhere.heard == []

    asyncio.run(main())


def test_the_signature_is_keyed_with_the_literal_secret() -> None:
    body = b'{"id":"msg_1"}'
    now = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signature(SECRET, "msg_1", now, body),
    }
    assert Webhook(local_whop.standard_key(SECRET)).verify(body, headers) == {"id": "msg_1"}
    with pytest.raises(WebhookVerificationError):
        Webhook(local_whop.standard_key(SECRET[3:])).verify(body, headers)


def test_a_failed_delivery_is_retried_with_its_id_and_given_up_after_the_last() -> None:
    async def main() -> None:
        endpoint = Endpoint(answers=[500] * 4)
        async with heard(endpoint) as server:
            began = asyncio.get_running_loop().time()
            said = server.whop.hooks.sample(hook_id(server), "membership.updated")
            hook = server.whop.hooks.get(hook_id(server))
            server.whop.core.send_again(hook, said)
            await local_whop.until(lambda: not server.whop.outbox)
            took = asyncio.get_running_loop().time() - began
            assert took >= sum(QUICK) - 0.001 * len(QUICK)  # its clock has whole milliseconds
            assert [one.headers["webhook-id"] for one in endpoint.heard] == [said.message_id] * 4
            assert hook.consecutive_failures == 1
            assert hook.last_failure_at is not None

    asyncio.run(main())


def test_a_delivery_that_recovers_is_not_sent_again() -> None:
    async def main() -> None:
        endpoint = Endpoint(answers=[503, 302, 404])
        async with heard(endpoint) as server:
            buy(server)
            await local_whop.until(lambda: not server.whop.outbox)
            assert len(endpoint.heard) == 6
            log = list(server.whop.outbox.newest_first(hook_id(server)))
            assert sum(entry.success for entry in log) == 3
            assert server.whop.hooks.get(hook_id(server)).consecutive_failures == 0

    asyncio.run(main())


def test_nobody_there_is_a_failure_without_a_code() -> None:
    async def main() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
            whop = local_whop.build(webhook_url=url, retry_seconds=())
            async with local_whop.running(whop):
                whop.memberships.buy("prod_basic", "ada")
                await local_whop.until(lambda: not whop.outbox)
            log = list(whop.outbox.newest_first(next(iter(whop.tables.webhooks))))
            assert [entry.response_code for entry in log] == [0, 0, 0]
            assert b"ConnectionRefusedError" in bytes(log[0].response_body)

    asyncio.run(main())


@pytest.mark.parametrize("url", ["http://a..b/", "http://localhost:99999/", "https://127.0.0.1:1"])
def test_an_address_that_cannot_be_reached_is_a_failure_like_any_other(url: str) -> None:
    async def main() -> None:
        whop = local_whop.build(webhook_url=url)
        hook = next(iter(whop.tables.webhooks))
        said = whop.hooks.sample(hook, "membership.updated")
        assert not (await Sender(whop).post(said)).success

    asyncio.run(main())


def test_a_connection_is_kept_and_a_stale_one_replaced() -> None:
    async def main() -> None:
        opened, closed = [], []

        async def two_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            opened.append(writer)
            with contextlib.suppress(asyncio.IncompleteReadError):
                for _ in range(2):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            writer.close()
            await writer.wait_closed()
            closed.append(writer)

        server = await asyncio.start_server(two_each, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/?a=b"
        async with server:
            whop = local_whop.build(webhook_url=url)
            sender = Sender(whop)
            said = whop.hooks.sample(next(iter(whop.tables.webhooks)), "membership.updated")
            assert [(await sender.post(said)).success for _ in range(5)] == [True] * 5
            assert len(opened) == 3
            sender.close()
            await local_whop.until(lambda: len(closed) == 3)

    asyncio.run(main())


def test_an_endpoint_has_five_seconds() -> None:
    assert TIMEOUT_SECONDS == 5.0


def test_an_endpoint_that_does_not_answer_in_time_has_failed() -> None:
    async def main() -> None:
        async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        silent = await asyncio.start_server(silence, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        whop = local_whop.build(webhook_url=f"http://127.0.0.1:{port}/", retry_seconds=())
        async with silent, local_whop.running(whop, sender=Sender(whop, timeout_seconds=0.05)):
            whop.memberships.buy("prod_basic", "ada")
            await local_whop.until(lambda: not whop.outbox)
        log = list(whop.outbox.newest_first(next(iter(whop.tables.webhooks))))
        assert {entry.response_code for entry in log} == {0}

    asyncio.run(main())


def test_an_endpoint_that_speaks_no_http_has_failed() -> None:
    async def main() -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"whatever\r\n\r\n")
            await writer.drain()
            writer.close()

        strange = await asyncio.start_server(babble, "127.0.0.1", 0)
        port = strange.sockets[0].getsockname()[1]
        whop = local_whop.build(webhook_url=f"http://127.0.0.1:{port}/", retry_seconds=())
        async with strange, local_whop.running(whop):
            whop.memberships.buy("prod_basic", "ada")
            await local_whop.until(lambda: not whop.outbox)
        log = list(whop.outbox.newest_first(next(iter(whop.tables.webhooks))))
        assert {entry.response_code for entry in log} == {0}

    asyncio.run(main())


def test_a_pause_holds_everything_back_and_its_end_lets_it_go() -> None:
    async def main() -> None:
        endpoint = Endpoint()
        async with heard(endpoint) as server:
            answer = await server.control.patch(
                "/sandbox/faults", content=b'{"deliveries_paused":true}'
            )
            assert answer.json()["deliveries_paused"] is True
            buy(server)
            await asyncio.sleep(0.05)
            assert endpoint.heard == []
            await server.control.patch("/sandbox/faults", content=b'{"deliveries_paused":false}')
            await local_whop.until(lambda: len(endpoint.heard) == 3)

    asyncio.run(main())


def test_a_replay_resends_each_failed_message_once_under_its_old_id_or_a_new_one() -> None:
    async def main() -> None:
        endpoint = Endpoint(answers=[500, 500])
        async with heard(endpoint, retry_seconds=()) as server:
            since = server.whop.now().isoformat()
            buy(server)
            await local_whop.until(lambda: not server.whop.outbox)
            first = [one.headers["webhook-id"] for one in endpoint.heard]
            endpoint.heard.clear()

            wanted = bodies.ReplayMany(sent_after=since, failed_only=True)
            assert server.whop.hooks.replay(hook_id(server), wanted) == 2
            await local_whop.until(lambda: not server.whop.outbox)
            assert {one.headers["webhook-id"] for one in endpoint.heard} == set(first[:2])

            endpoint.heard.clear()
            wanted = bodies.ReplayMany(
                sent_after=since, events=["payment.succeeded"], regenerate_ids=True
            )
            assert server.whop.hooks.replay(hook_id(server), wanted) == 1
            await local_whop.until(lambda: not server.whop.outbox)
            [fresh] = endpoint.heard
            assert fresh.headers["webhook-id"] not in first
            body = Webhook(local_whop.standard_key(SECRET)).verify(
                fresh.content, dict(fresh.headers)
            )
            assert body["id"] == fresh.headers["webhook-id"]

    asyncio.run(main())


def test_a_disabled_or_deleted_webhook_hears_nothing_more() -> None:
    async def main() -> None:
        endpoint = Endpoint()
        async with heard(endpoint) as server:
            whop = server.whop
            whop.faults.deliveries_paused = True
            buy(server)
            whop.hooks.update(hook_id(server), bodies.WebhookPatch(enabled=False))
            whop.faults.deliveries_paused = False
            await local_whop.until(lambda: not whop.outbox)
            buy(server)
            whop.hooks.delete(hook_id(server))
            buy(server)
            assert (len(whop.outbox), endpoint.heard) == (0, [])

    asyncio.run(main())


def test_many_deliveries_are_on_their_way_at_once() -> None:
    async def main() -> None:
        all_there = asyncio.Barrier(30)  # nobody is answered before the last one has come

        async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await all_there.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(patient, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        whop = local_whop.build(webhook_url=f"http://127.0.0.1:{port}/")
        sender = Sender(whop, timeout_seconds=60)
        async with server, local_whop.running(whop, sender=sender):
            for number in range(10):
                whop.memberships.buy("prod_basic", f"u{number}")
            await local_whop.until(lambda: not whop.outbox)

    asyncio.run(main())
