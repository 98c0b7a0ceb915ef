"""Senders that stall and senders that pour are cut, and a delivery beside them is not late."""

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from deliveries import ACCOUNT, SECRET, answer, ask, chunked, delivery, head, serving
from ports import free_port

from torture.processes import Process, ready, usher, wait_for
from webhooks.connections import Bounds, Crowd

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

HALF_A_HEAD = b"POST /webhooks/whop HTTP/1.1\r\nhost: usher.example\r\nwebhook-i"
ONE_BYTE = head([("content-length", "1000")]) + b"x"
STALLED = {"half a head": HALF_A_HEAD, "one byte of a body": ONE_BYTE, "nothing": b""}


@pytest.fixture
def crowd() -> Crowd:
    return Crowd(Bounds(connections=20, held=200_000, whole_within=0.5, taken_within=0.5))


class Seller:
    """A receiver with a crowd before it, and connections that a test holds."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._held: list[Streams] = []

    async def opened(self, raw: bytes) -> Streams:
        streams = await asyncio.open_connection("127.0.0.1", self.port)
        self._held.append(streams)
        streams[1].write(raw)
        return streams

    async def crowded(self, raw: bytes, number: int) -> list[Streams]:
        return [await self.opened(raw) for _ in range(number)]

    async def end(self) -> None:
        for _, writer in self._held:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def meeting(redis_url: str, crowd: Crowd) -> AsyncIterator[Seller]:
    async with serving(redis_url, crowd=crowd) as port:
        seller = Seller(port)
        try:
            yield seller
        finally:
            await seller.end()


async def rest(streams: Streams, within: float = 5.0) -> bytes:
    """Return what comes until the other side hangs up."""
    async with asyncio.timeout(within):
        try:
            return await streams[0].read()
        except ConnectionError:
            return b""


async def until(true: Any) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - it is the server that is looked at
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("raw", STALLED.values(), ids=STALLED)
def test_a_request_that_is_not_whole_in_time_is_cut(
    redis_url: str, crowd: Crowd, raw: bytes
) -> None:
    async def live() -> None:
        async with meeting(redis_url, crowd) as seller:
            began = time.monotonic()
            said = await rest(await seller.opened(raw))
            assert 0.4 < time.monotonic() - began < 1.5
            assert said.startswith(b"HTTP/1.1 408 ") if raw else said == b""
            await until(lambda: len(crowd) == 0)
            assert crowd.held == 0

    asyncio.run(live())


def test_a_request_that_trickles_is_cut_though_it_never_stops(redis_url: str, crowd: Crowd) -> None:
    async def live() -> None:
        async with meeting(redis_url, crowd) as seller:
            _, writer = streams = await seller.opened(ONE_BYTE)
            began = time.monotonic()
            ended = asyncio.create_task(rest(streams))
            while not ended.done():
                assert time.monotonic() - began < 2
                writer.write(b"x")
                await asyncio.sleep(0.05)
            assert (await ended).startswith(b"HTTP/1.1 408 ")

    asyncio.run(live())


def test_an_answered_request_whose_body_never_ends_is_cut_too(redis_url: str, crowd: Crowd) -> None:
    async def live() -> None:
        async with meeting(redis_url, crowd) as seller:
            endless = head([("content-length", "1000000")], first="GET /healthz HTTP/1.1")
            streams = await seller.opened(endless)
            assert (await answer(streams[0])).code == 200
            began = time.monotonic()
            await rest(streams)
            assert time.monotonic() - began < 2

    asyncio.run(live())


def test_a_connection_that_is_idle_between_two_deliveries_is_kept(
    redis_url: str, crowd: Crowd
) -> None:
    async def live() -> None:
        async with meeting(redis_url, crowd) as seller:
            reader, writer = await seller.opened(delivery("msg_1"))
            assert (await answer(reader)).code == 202
            await asyncio.sleep(2 * crowd.bounds.whole_within)
            writer.write(delivery("msg_2"))
            assert (await answer(reader)).code == 202
            assert crowd.cut == {}

    asyncio.run(live())


def test_a_delivery_that_comes_in_pieces_within_the_time_is_taken(
    redis_url: str, crowd: Crowd
) -> None:
    async def live() -> None:
        async with meeting(redis_url, crowd) as seller:
            raw = delivery()
            reader, writer = await seller.opened(raw[:100])
            for at in range(100, len(raw), 100):
                await asyncio.sleep(0.02)
                writer.write(raw[at : at + 100])
            assert (await answer(reader)).code == 202

    asyncio.run(live())


def test_where_there_are_too_many_the_oldest_that_stalls_goes_first_then_the_oldest_idle_one(
    redis_url: str,
) -> None:
    crowd = Crowd(Bounds(connections=20))

    async def live() -> None:
        async with meeting(redis_url, crowd) as seller:
            idle = [await seller.opened(delivery(f"msg_{n}")) for n in range(10)]
            assert {(await answer(reader)).code for reader, _ in idle} == {202}
            stalled = await seller.crowded(ONE_BYTE, 10)
            await until(lambda: len(crowd.reading) == 10)
            assert (await ask(seller.port, delivery("msg_a"))).code == 202
            assert await rest(stalled[0]) == b""
            assert crowd.cut == {"crowded": 1}
            later = [await seller.opened(delivery(f"msg_b{n}")) for n in range(12)]
            assert {(await answer(reader)).code for reader, _ in later} == {202}
            await asyncio.gather(*(rest(one) for one in stalled))
            await rest(idle[0])
            assert not idle[-1][0].at_eof()
            assert len(crowd) <= crowd.bounds.connections

    asyncio.run(live())


def test_the_bytes_of_all_bodies_together_are_bounded_and_the_oldest_goes_first(
    redis_url: str,
) -> None:
    crowd = Crowd(Bounds(held=1_000_000))

    async def live() -> None:
        async with meeting(redis_url, crowd) as seller:
            pouring = head([("content-length", "500000")]) + bytes(400_000)
            greedy = []
            for _ in range(6):
                greedy.append(await seller.opened(pouring))
                await asyncio.sleep(0.05)
                assert crowd.held <= crowd.bounds.held
            assert await rest(greedy[0]) == b""
            assert crowd.cut["greedy"] == 4
            assert (await ask(seller.port, delivery())).code == 202

    asyncio.run(live())


def test_what_is_answered_is_held_no_more(redis_url: str, crowd: Crowd) -> None:
    async def live() -> None:
        async with meeting(redis_url, crowd) as seller:
            reader, writer = await seller.opened(b"")
            for turn in range(20):
                body = b" " * 50_000
                writer.write(chunked([body, body, body], []))
                assert (await answer(reader)).code == 401
                assert crowd.held == 0, turn

    asyncio.run(live())


@pytest.mark.parametrize(
    "raw",
    [HALF_A_HEAD + b"d: " + b"x" * 1_200_000, b"POST /" + b"x" * 1_200_000],
    ids=["a header", "an address"],
)
def test_a_head_without_an_end_is_cut(redis_url: str, raw: bytes) -> None:
    async def live() -> None:
        async with meeting(redis_url, Crowd()) as seller:
            assert await rest(await seller.opened(raw)) == b""
            assert (await ask(seller.port, delivery())).code == 202

    asyncio.run(live())


def test_who_sends_requests_and_reads_no_answer_is_cut(redis_url: str) -> None:
    crowd = Crowd()

    async def live() -> None:
        async with meeting(redis_url, crowd) as seller:
            said = await rest(await seller.opened(delivery() * 100))
            assert b"HTTP/1.1 400 " in said
            await until(lambda: len(crowd) == 0)

    asyncio.run(live())


def test_a_few_requests_on_one_connection_at_once_are_answered_in_turn(redis_url: str) -> None:
    async def live() -> None:
        async with meeting(redis_url, Crowd()) as seller:
            raws = [delivery(f"msg_{n}") for n in range(8)]
            reader, _ = await seller.opened(b"".join(raws))
            assert [(await answer(reader)).json["id"] for _ in raws] == [
                f"msg_{n}" for n in range(8)
            ]

    asyncio.run(live())


def test_who_never_reads_the_answers_is_cut(redis_url: str, crowd: Crowd) -> None:
    async def live() -> None:
        async with meeting(redis_url, crowd) as seller:
            with socket.socket() as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                deaf.connect(("127.0.0.1", seller.port))
                deaf.settimeout(0)
                asking = head([], first="GET /metrics HTTP/1.1") * 4
                async with asyncio.timeout(60):
                    while not crowd.cut:
                        if not crowd.answering:  # it is done with what it was asked before
                            with contextlib.suppress(ConnectionError):  # it is cut just now
                                deaf.send(asking)
                        await asyncio.sleep(0.01)
            assert crowd.cut == {"untaken": 1}
            assert (await ask(seller.port, delivery())).code == 202

    asyncio.run(live())


# The real process


@pytest.fixture
def receiver(redis_url: str, tmp_path: Path) -> Iterator[tuple[Process, int]]:
    (tmp_path / "rooms.toml").write_text(f'account = "{ACCOUNT}"\n[rooms.lounge]\n')
    port = free_port()
    environ = {
        "WHOP_WEBHOOK_SECRET": SECRET,
        "REDIS_URL": redis_url,
        "USHER_PORT": str(port),
    }
    process = usher("receive", tmp_path, **environ)
    process.start()
    try:
        ready(port)
        yield process, port
    finally:
        process.stop()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 6_000:
        pytest.skip("the system gives a process too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (6_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def took(port: int, id_: str) -> float:
    """Send a delivery on a connection of its own, and return how long its 202 took."""
    raw, began = delivery(id_), time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as door:
        door.sendall(raw)
        assert door.recv(4096).startswith(b"HTTP/1.1 202 ")
    return time.monotonic() - began


def metrics(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/metrics").text


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("raw", STALLED.values(), ids=STALLED)
def test_a_delivery_beside_five_thousand_that_stall_is_not_late(
    receiver: tuple[Process, int], raw: bytes
) -> None:
    process, port = receiver
    descriptors = Path(f"/proc/{process.pid}/fd")
    if not descriptors.exists():
        pytest.skip("only Linux tells")
    before = process.memory()
    with contextlib.ExitStack() as stack:
        for _ in range(5_000):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            with contextlib.suppress(ConnectionError):
                one.sendall(raw)
        times = [took(port, f"msg_{n}") for n in range(30)]
        assert sorted(times)[-2] < 0.2  # all but one, on a machine that others share
        assert len(list(descriptors.iterdir())) < 2_100
        assert process.memory() - before < 60 * 1024
        wait_for(lambda: len(list(descriptors.iterdir())) < 50, 15)
    assert 'usher_connections_cut_total{reason="crowded"} 3' in metrics(port)
    assert took(port, "msg_after") < 0.2
    assert process.log.count("connections.cut") == 1  # a line for each would be its own flood
