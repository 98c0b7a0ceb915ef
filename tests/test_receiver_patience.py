"""Whatever Redis does, and however many deliveries wait: a 503 within three seconds, and a 2xx
within one second of Redis being back.
"""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self

import pytest
import redis
import uvloop
from deliveries import PREFIX, Answer, ask, delivery, get, serving
from ports import free_port

from torture.processes import Sentinel, Valkey, wait_for
from webhooks.inbox import connect

Trouble = Callable[[Valkey], AbstractAsyncContextManager[int]]

LATEST = 3.0
BACK = 1.0


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    own = Valkey(tmp_path / "own", free_port(), appendfsync="no")
    own.start()
    yield own
    own.signal(signal.SIGCONT)
    own.stop()


async def timed(port: int, id_: str) -> tuple[Answer, float]:
    """Send a delivery, and return how long its answer took."""
    raw, began = delivery(id_), time.monotonic()
    return await ask(port, raw), time.monotonic() - began


async def are_refused_in_time(port: int, number: int, tag: str) -> None:
    told = await asyncio.gather(*(timed(port, f"msg_{tag}{n}") for n in range(number)))
    assert {(got.code, got.status) for got, _ in told} == {(503, "unavailable")}
    assert all(int(got.headers["retry-after"]) > 0 for got, _ in told)
    assert max(took for _, took in told) < LATEST


async def is_taken(port: int, id_: str, within: float) -> None:
    got, took = await timed(port, id_)
    assert got.code in (200, 202), got.body
    assert took < within


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run as the receiver's process does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(coroutine)


class Line:
    """A way to Redis that can go dead: what is open hangs for ever, and nobody says so.

    New connections are `taken`, but lead nowhere, until the line is `mended`; old ones stay dead.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self.port = port
        self.delay = 0.0
        self._target = target
        self._dead: list[asyncio.Event] = []
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._relays: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    def die(self) -> None:
        self._goes_on.clear()

    def mend(self) -> None:
        self._goes_on = asyncio.Event()
        self._goes_on.set()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        goes_on = self._goes_on
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.closing(sink):
                while data := await source.read(1 << 20):
                    if source is up_reader:
                        await asyncio.sleep(self.delay)
                    await goes_on.wait()
                    sink.write(data)

        for way in (carry(reader, up_writer), carry(up_reader, writer)):
            relay = asyncio.create_task(way)
            self._relays.add(relay)
            relay.add_done_callback(self._relays.discard)


@contextlib.asynccontextmanager
async def refused(valkey: Valkey) -> AsyncIterator[int]:
    valkey.stop()
    yield valkey.port


@contextlib.asynccontextmanager
async def stopped(valkey: Valkey) -> AsyncIterator[int]:
    valkey.signal(signal.SIGSTOP)
    yield valkey.port


@contextlib.asynccontextmanager
async def silent(valkey: Valkey) -> AsyncIterator[int]:
    async with Line(valkey.port) as line:
        line.die()
        yield line.port


@contextlib.asynccontextmanager
async def slow(valkey: Valkey) -> AsyncIterator[int]:
    async with Line(valkey.port) as line:
        line.delay = 4.0
        yield line.port


@contextlib.asynccontextmanager
async def unreachable(_: Valkey) -> AsyncIterator[int]:
    """A queue of connections that is full: the system answers no more, as a firewall does not."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("number", [1, 10, 200])
@pytest.mark.parametrize("trouble", [refused, stopped, silent, slow, unreachable])
def test_whatever_redis_does_and_however_many_wait_the_answer_comes_within_three_seconds(
    valkey: Valkey, trouble: Trouble, number: int
) -> None:
    async def live() -> None:
        async with trouble(valkey) as port, serving(f"redis://127.0.0.1:{port}/0") as door:
            await are_refused_in_time(door, number, "a")

    run(live())


def test_who_comes_while_others_wait_has_no_longer_wait_than_they(valkey: Valkey) -> None:
    """Ten at once were answered after two patiences, one after the other."""

    async def live() -> None:
        async with serving(valkey.url) as door:
            await is_taken(door, "msg_before", LATEST)
            valkey.signal(signal.SIGSTOP)
            waves = []
            for wave in range(8):
                waves.append(asyncio.create_task(are_refused_in_time(door, 10, f"{wave}_")))
                await asyncio.sleep(0.4)
            await asyncio.gather(*waves)
            assert (await get(door, "/readyz")).code == 503

    run(live())


def test_a_redis_that_was_stopped_takes_deliveries_at_once_when_it_goes_on(valkey: Valkey) -> None:
    async def live() -> None:
        async with serving(valkey.url) as door:
            await is_taken(door, "msg_before", LATEST)
            valkey.signal(signal.SIGSTOP)
            await are_refused_in_time(door, 50, "a")
            late = asyncio.create_task(timed(door, "msg_late"))
            await asyncio.sleep(1.5)
            valkey.signal(signal.SIGCONT)
            await is_taken(door, "msg_after", BACK)
            assert (await late)[0].code in (200, 202)  # it waited, and did not wait in vain
            assert (await get(door, "/readyz")).code == 200

    run(live())


def test_a_redis_that_was_started_again_takes_deliveries_at_once(valkey: Valkey) -> None:
    async def live() -> None:
        async with serving(valkey.url) as door:
            await is_taken(door, "msg_before", LATEST)
            for turn in range(2):
                valkey.kill()
                await are_refused_in_time(door, 20, f"{turn}_")
                valkey.start()
                await is_taken(door, f"msg_after{turn}", BACK)

    run(live())


@pytest.mark.parametrize("meanwhile", [0, 30], ids=["nobody came", "thirty came"])
def test_connections_that_died_without_a_word_do_not_keep_a_redis_away_that_is_back(
    valkey: Valkey, meanwhile: int
) -> None:
    async def live() -> None:
        async with (
            Line(valkey.port) as line,
            serving(f"redis://127.0.0.1:{line.port}/0") as door,
        ):
            await asyncio.gather(*(is_taken(door, f"msg_{n}", LATEST) for n in range(20)))
            line.die()
            if meanwhile:
                await are_refused_in_time(door, meanwhile, "a")
                waiting = [asyncio.create_task(ask(door, delivery(f"msg_b{n}"))) for n in range(9)]
                await asyncio.sleep(0.3)
            line.mend()
            await asyncio.gather(*(is_taken(door, f"msg_c{n}", BACK) for n in range(20)))
            if meanwhile:
                assert {(await got).code for got in waiting} <= {200, 202}

    run(live())


def test_a_redis_that_is_slow_and_not_too_slow_takes_each_delivery_once(valkey: Valkey) -> None:
    async def live() -> None:
        async with (
            Line(valkey.port) as line,
            serving(f"redis://127.0.0.1:{line.port}/0") as door,
        ):
            await is_taken(door, "msg_before", LATEST)
            line.delay = 0.6
            await asyncio.gather(*(is_taken(door, f"msg_{n}", LATEST) for n in range(20)))
        with redis.Redis.from_url(valkey.url) as client:
            (pending,) = client.keys(f"{PREFIX}pending:*")
            assert client.llen(pending) == len(client.keys(f"{PREFIX}delivery:*")) == 21

    run(live())


def test_of_several_sentinels_those_that_hang_keep_nobody_waiting(
    valkey: Valkey, tmp_path: Path
) -> None:
    knows = Sentinel(tmp_path / "sentinel", free_port(), valkey.port)
    knows.start()

    async def live() -> None:
        async with Line(knows.port) as one, Line(knows.port) as other:
            one.die()
            other.die()
            nodes = f"127.0.0.1:{one.port},127.0.0.1:{other.port},127.0.0.1:{knows.port}"
            async with serving(f"redis+sentinel://{nodes}/usher/0") as door:
                await asyncio.gather(*(is_taken(door, f"msg_{n}", BACK) for n in range(20)))
            client = connect(f"redis+sentinel://{nodes}/usher/0")  # as the workers and commands do
            async with asyncio.timeout(BACK):
                assert await client.ping()
            await client.aclose()

    try:
        run(live())
    finally:
        knows.stop()


def test_where_every_sentinel_hangs_the_answer_comes_within_three_seconds(valkey: Valkey) -> None:
    async def live() -> None:
        async with Line(valkey.port) as one, Line(valkey.port) as other:
            one.die()
            other.die()
            nodes = f"127.0.0.1:{one.port},127.0.0.1:{other.port}"
            async with serving(f"redis+sentinel://{nodes}/usher/0") as door:
                await are_refused_in_time(door, 10, "a")

    run(live())


def breaks_the_disk(client: "redis.Redis", valkey: Valkey) -> None:
    (valkey.folder / "dump.rdb").mkdir()
    client.config_set("save", "3600 1")
    client.bgsave()
    wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")


def mends_the_disk(client: "redis.Redis", valkey: Valkey) -> None:
    (valkey.folder / "dump.rdb").rmdir()
    client.bgsave()
    wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok")


TROUBLES = {
    "full": (
        lambda client, _: client.config_set("maxmemory", "1mb"),
        lambda client, _: client.config_set("maxmemory", "0"),
    ),
    "read-only": (
        lambda client, _: client.replicaof("127.0.0.1", free_port()),
        lambda client, _: client.replicaof("NO", "ONE"),
    ),
    "cannot write to its disk": (breaks_the_disk, mends_the_disk),
}


@pytest.mark.parametrize("how", TROUBLES)
def test_readiness_says_whether_a_delivery_could_be_stored_now(valkey: Valkey, how: str) -> None:
    async def live() -> None:
        async with serving(valkey.url) as door:
            assert (await get(door, "/readyz")).code == 200
            with redis.Redis.from_url(valkey.url) as client:
                before = client.dbsize()
                begin, end = TROUBLES[how]
                begin(client, valkey)
                got = await get(door, "/readyz")
                assert (got.code, got.status) == (503, "unavailable")
                assert (await ask(door, delivery())).code == 503
                end(client, valkey)
                assert client.dbsize() == before == 0  # asking leaves nothing
            assert (await get(door, "/readyz")).code == 200
            assert (await ask(door, delivery())).code == 202

    run(live())
