"""How fast the receiver is, beside the plain recipe and beside the same stack without a store.

    .venv/bin/python benchmarks/receiver.py

Three servers, one uvicorn process each, in interleaved rounds against one embedded Valkey that
flushes its file before each answer. Only the ratios of one run mean something: machines differ,
and one machine differs from minute to minute.
"""

import argparse
import contextlib
import itertools
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import redis
import uvicorn
from arq import ArqRedis, create_pool
from arq.connections import RedisSettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from webhooks.events import Delivery
from webhooks.main import build
from webhooks.settings import Settings
from webhooks.signature import Forged, Secrets, sign, verify
from worker import embedded

ACCOUNT = "biz_benchmark"
SECRET = "ws_" + "5" * 64
SECRETS = Secrets([SECRET])
CONNECTIONS = 50
TARGETS = {"recipe": 3.0, "no store": 0.6}


# The three servers


def recipe(url: str) -> Starlette:
    """Build what a tutorial would: verify, then one arq job whose id is the delivery's."""
    pools: list[ArqRedis] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        pools.append(await create_pool(RedisSettings.from_dsn(url)))
        yield
        await pools[0].aclose()

    async def hear(request: Request) -> Response:
        body = await request.body()
        try:
            name = verify(body, request.headers.raw, SECRETS, time.time())
        except Forged as forged:
            return JSONResponse({"status": "forged", "reason": forged.reason}, 401)
        job = await pools[0].enqueue_job("converge", body.decode(), _job_id=name)
        return JSONResponse({"status": "accepted" if job else "duplicate", "id": name}, 202)

    return Starlette(routes=[Route("/webhooks/whop", hear, methods=["POST"])], lifespan=lifespan)


def usher(url: str) -> Starlette:
    """Build the receiver as `usher receive` runs it."""
    return build(Settings(account=ACCOUNT, secrets=SECRETS, redis_url=url))


def no_store(url: str) -> Starlette:
    """Build the receiver with an inbox that keeps nothing."""
    return build(Settings(account=ACCOUNT, secrets=SECRETS, redis_url=url), store=Nowhere())


class Nowhere:
    """An inbox that forgets."""

    async def put(self, _: Delivery, /) -> bool:
        """Claim that the delivery is new."""
        return True

    async def ready(self) -> bool:
        """Claim to be there."""
        return True


SERVERS = {"recipe": recipe, "usher": usher, "no store": no_store}


def serve(name: str, port: int, url: str) -> None:
    """Run one of the three in this process."""
    uvicorn.run(
        SERVERS[name](url),
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
    )


@contextlib.contextmanager
def running(name: str, url: str) -> Iterator[int]:
    """Run one of the three in a process of its own; yields its port."""
    port = embedded.free_port()
    process = subprocess.Popen([sys.executable, __file__, "--serve", name, str(port), url])
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit(f"a server ended with {process.returncode}")


# The load


@dataclass
class Tally:
    """The answers of one round."""

    answers: dict[int, int] = field(default_factory=dict)

    def count(self, code: int) -> None:
        """Count one answer."""
        self.answers[code] = self.answers.get(code, 0) + 1

    @property
    def acknowledged(self) -> int:
        """How many were 2xx."""
        return sum(number for code, number in self.answers.items() if code // 100 == 2)


def load(port: int, requests: Iterator[bytes], seconds: float) -> tuple[Tally, float]:
    """Keep 50 connections busy; return the answers and how long it took to get them all.

    Bare sockets: what the load costs is taken from the servers, which share its cores.
    """
    tally, began = Tally(), time.perf_counter()
    with contextlib.ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        connections: dict[int, socket.socket] = {}
        for _ in range(CONNECTIONS):
            opened = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connections[opened.fileno()] = opened
            poll.register(opened, select.EPOLLIN)
            opened.sendall(next(requests))
        answers = dict.fromkeys(connections, b"")
        while connections:
            ready = poll.poll(20)
            if not ready:
                raise SystemExit("the server does not answer")
            for number, _ in ready:
                data = connections[number].recv(65_536)
                if not data:
                    raise SystemExit("the server hung up")
                answers[number] += data
                if not answers[number].endswith(b"}"):  # all answers are JSON objects
                    continue
                tally.count(int(answers[number][9:12]))
                answers[number] = b""
                request = next(requests, None)
                if request is None or time.perf_counter() - began >= seconds:
                    poll.unregister(number)
                    del connections[number]
                else:
                    connections[number].sendall(request)
    return tally, time.perf_counter() - began


def signed_requests(tag: str, number: int) -> list[bytes]:
    """Sign deliveries of about 1 KB, each with an id and a buyer of its own."""
    return [signed_request(f"{tag}{index:07}") for index in range(number)]


def signed_request(tag: str) -> bytes:
    """Sign one membership.activated, as Whop sends it, and make the HTTP request around it."""
    name, now = f"msg_{tag}", int(time.time())
    body = msgspec.json.encode(_envelope(name, tag))
    signature = sign(body, id=name, timestamp=now, secret=SECRET)
    return (
        f"POST /webhooks/whop HTTP/1.1\r\nhost: usher.example\r\nuser-agent: Whop\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nwebhook-id: {name}\r\n"
        f"webhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n\r\n"
    ).encode() + body


def _envelope(name: str, tag: str) -> dict[str, object]:
    data = {
        "id": f"mem_{tag}",
        "status": "active",
        "created_at": "2026-11-22T09:00:00.000Z",
        "updated_at": "2026-11-22T09:00:00.000Z",
        "manage_url": f"https://whop.com/billing/manage/mem_{tag}",
        "account": {"id": ACCOUNT, "title": "A seller", "route": "seller", "logo_url": None},
        "user_id": f"user_{tag}",
        "member_id": f"mber_{tag}",
        "plan_id": "plan_0123456789abc",
        "product_id": "prod_0123456789abc",
        "product": {"id": "prod_0123456789abc", "title": "The course", "logo_url": None},
        "cancel_at_period_end": False,
        "current_period_start": "2026-11-22T09:00:00.000Z",
        "current_period_end": "2026-12-22T09:00:00.000Z",
        "initial_price": {"amount": "49.00", "currency": "usd", "decimals": 2},
        "metadata": {"campaign": "autumn", "note": "x" * 150},
    }
    return {
        "id": name,
        "api_version": "v1",
        "api_version_date": "2026-10-15-1",
        "timestamp": "2026-11-22T09:00:00.000Z",
        "type": "membership.activated",
        "account_id": ACCOUNT,
        "data": data,
    }


# The rounds


def measure(rounds: int, seconds: float, url: str) -> dict[str, list[float]]:
    """Return each server's answers per second, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in SERVERS}
    with contextlib.ExitStack() as stack, redis.Redis.from_url(url) as store:
        ports = {name: stack.enter_context(running(name, url)) for name in SERVERS}
        for turn, (name, port) in itertools.product(range(-1, rounds), ports.items()):
            rate = _round(name, port, store, seconds if turn >= 0 else 1.0, f"{turn + 1}")
            if turn >= 0:  # the first turn only warms up
                rates[name].append(rate)
                print(f"  round {turn + 1}  {name:<9} {rate:7.0f} /s", flush=True)
    return rates


def _round(name: str, port: int, store: "redis.Redis", seconds: float, tag: str) -> float:
    store.flushdb()
    requests = signed_requests(f"{tag}{name[0]}", int(20_000 * seconds))
    tally, took = load(port, iter(requests), seconds)
    if set(tally.answers) != {202}:
        raise SystemExit(f"{name} answered {tally.answers}")
    if name == "usher":
        kept = sum(1 for _ in store.scan_iter(f"usher:{ACCOUNT}:delivery:*", count=10_000))
        if kept != tally.acknowledged:
            raise SystemExit(f"{tally.acknowledged} acknowledged, {kept} in Redis")
    return tally.acknowledged / took


def report(rates: dict[str, list[float]]) -> None:
    """Print the figures and the two ratios that have a target."""
    print(f"\n{'':<11}{'min':>8}{'median':>8}{'max':>8}  requests per second")
    for name, seen in rates.items():
        print(f"{name:<11}{min(seen):8.0f}{statistics.median(seen):8.0f}{max(seen):8.0f}")
    for other, target in TARGETS.items():
        pairs = [mine / theirs for mine, theirs in zip(rates["usher"], rates[other], strict=True)]
        ratio = statistics.median(rates["usher"]) / statistics.median(rates[other])
        verdict = "holds" if ratio >= target else "MISSED"
        print(
            f"usher / {other:<9}{ratio:5.2f}  (by round {min(pairs):.2f} to {max(pairs):.2f}; "
            f"target {target}: {verdict})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--serve", nargs=3, metavar=("SERVER", "PORT", "URL"), help="internal")
    options = parser.parse_args()
    if options.serve:
        name, port, url = options.serve
        serve(name, int(port), url)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded.running(Path(folder), embedded.free_port()) as url,
    ):
        report(measure(options.rounds, options.seconds, url))


if __name__ == "__main__":
    main()
