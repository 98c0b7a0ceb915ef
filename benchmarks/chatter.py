"""What a very busy chat costs: a thousand messages a second for the receiver, Redis and a worker.

    .venv/bin/python benchmarks/chatter.py

One receiver with an embedded Valkey that flushes its file before each answer, 1,000 signed
deliveries a second on an open schedule: a slow answer does not slow the load, it makes the next
answers late. In turn: ordinary deliveries; messages of 5,000 members, a raid; messages of four
members, whom the alarm hears and never goes off for. The worker here does what a look at a
channel does, but for the calls to Whop. Only the ratios of one run mean something.
"""

import argparse
import asyncio
import collections
import contextlib
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import receiver
import redis

from webhooks.inbox import connect
from webhooks.signature import sign
from worker import embedded
from worker.chatter import Chatter
from worker.leases import Leases
from worker.policy.pace import Pace, State, step
from worker.subjects import Subjects

PREFIX = f"usher:{receiver.ACCOUNT}:"
CHANNEL = "chat_feed_0123456789abc"
SUBJECT = "channel:lounge"
PACE = Pace(busy=60, quiet=20, steps=(10, 30, 60, 120))
TICK = os.sysconf("SC_CLK_TCK")


# The deliveries


def signed_message(tag: str, written: float, user: str) -> bytes:
    """Sign one chat.message.created of about 1 KB and make the HTTP request around it."""
    name, at = f"msg_{tag}", datetime.fromtimestamp(written, UTC).isoformat()
    body = msgspec.json.encode(_envelope(name, tag, at, user))
    now = int(time.time())
    signature = sign(body, id=name, timestamp=now, secret=receiver.SECRET)
    return (
        f"POST /webhooks/whop HTTP/1.1\r\nhost: usher.example\r\nuser-agent: Whop\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nwebhook-id: {name}\r\n"
        f"webhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n\r\n"
    ).encode() + body


def _envelope(name: str, tag: str, at: str, user: str) -> dict[str, object]:
    message = {
        "id": f"post_{tag}",
        "content": "What a night! " * 20,
        "user": {"id": user, "username": f"name_of_{user}", "name": "A Member"},
        "is_pinned": False,
        "is_edited": False,
        "message_type": "regular",
        "mentions": [],
        "mentions_everyone": False,
        "poll": None,
        "reaction_counts": [],
        "replying_to_message_id": None,
        "created_at": at,
        "updated_at": at,
    }
    return {
        "id": name,
        "api_version": "v1",
        "api_version_date": "2026-10-15-1",
        "timestamp": at,
        "type": "chat.message.created",
        "account_id": receiver.ACCOUNT,
        "data": {
            "audience": {"type": "channel", "user_ids": None},
            "channel": {"id": CHANNEL, "type": "chat", "experience_id": "exp_0123456789abc"},
            "message": message,
            "reason": "message_created",
        },
    }


def ordinary(tag: str, number: int, _: int) -> list[bytes]:
    """Sign deliveries as `benchmarks/receiver.py` has them, each with a buyer of its own."""
    return receiver.signed_requests(tag, number)


def messages_of(members: int) -> Callable[[str, int, int], list[bytes]]:
    """Return a maker of messages that so many members take turns to write."""

    def make(tag: str, number: int, rate: int) -> list[bytes]:
        begins = time.time() + number / 10_000  # about when the last of them is signed
        return [
            signed_message(f"{tag}{n:07}", begins + n / rate, f"user_{n % members:09}")
            for n in range(number)
        ]

    return make


SCENES = {"ordinary": ordinary, "raid": messages_of(5000), "four loud": messages_of(4)}


# The load


@dataclass
class Load:
    """Requests at the instants of a schedule, over as many connections as it takes, up to 200."""

    port: int
    waits: list[float] = field(default_factory=list)
    answers: collections.Counter[int] = field(default_factory=collections.Counter)

    def run(self, requests: list[bytes], rate: int) -> float:
        """Send them all and return the seconds that it took; each wait is from its due time."""
        with contextlib.ExitStack() as stack:
            poll = stack.enter_context(select.epoll())
            free = collections.deque(self._connection(stack, poll) for _ in range(200))
            busy: dict[int, tuple[socket.socket, float]] = {}
            heard: collections.defaultdict[int, bytes] = collections.defaultdict(bytes)
            began, sent = time.perf_counter(), 0
            while sent < len(requests) or busy:
                due = began + sent / rate
                while sent < len(requests) and free and due <= time.perf_counter():
                    connection = free.popleft()  # in turn: an idle one would be closed
                    connection.sendall(requests[sent])
                    busy[connection.fileno()] = (connection, due)
                    sent += 1
                    due = began + sent / rate
                if time.perf_counter() - due > 10:
                    raise SystemExit("the receiver is ten seconds behind")
                pause = max(0.0, due - time.perf_counter()) if sent < len(requests) else 5
                for number, _ in poll.poll(pause if free else 5):
                    connection, since = busy[number]
                    heard[number] += connection.recv(65_536)
                    if not heard[number].endswith(b"}"):  # all answers are JSON objects
                        continue
                    self.answers[int(heard.pop(number)[9:12])] += 1
                    del busy[number]
                    self.waits.append(time.perf_counter() - since)
                    free.append(connection)
            return time.perf_counter() - began

    def _connection(self, stack: contextlib.ExitStack, poll: select.epoll) -> socket.socket:
        opened = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), 20))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(opened, select.EPOLLIN)
        return opened


# The worker


async def work(url: str) -> None:
    """Look at the channel whenever it is due, until SIGTERM; then say how often that was."""
    client = connect(url)
    chatter, subjects = (
        Chatter(client, PREFIX),
        Subjects(client, PREFIX, Leases(client, PREFIX, "w")),
    )
    ended, looks, levels = asyncio.Event(), 0, [0]
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await chatter.arm(CHANNEL, SUBJECT, PACE, State(), datetime.now(UTC))
    print("armed", flush=True)
    while not ended.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 0.1)
        now = datetime.now(UTC)
        claim = await subjects.claim(SUBJECT, now)
        if claim is None:
            continue
        reading = await chatter.reading(CHANNEL, now)
        state, look = step(PACE, (await chatter.states([CHANNEL]))[CHANNEL], reading, now)
        await chatter.save_state(CHANNEL, state)
        await chatter.arm(CHANNEL, SUBJECT, PACE, state, now)
        await subjects.done(claim, now, look)
        looks += 1
        levels += [state.level] if state.level != levels[-1] else []
    await client.aclose()
    print(f"{looks} looks, levels {levels}", flush=True)


# The rounds


@dataclass(frozen=True)
class Figures:
    """What one scene cost; the shares are of one core."""

    receiver: float
    valkey: float
    p50: float
    p99: float
    jobs: int
    worker: str


def cpu(pid: int) -> float:
    """Return the seconds of processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@contextlib.contextmanager
def child(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a Python script in a process of its own."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _line(process: "subprocess.Popen[str]") -> str:
    return process.stdout.readline().strip() if process.stdout else ""


def measure(name: str, url: str, rate: int, seconds: int) -> Figures:
    """Run one scene on an empty Redis."""
    port = embedded.free_port()
    with (
        redis.Redis.from_url(url) as store,
        child(receiver.__file__, "--serve", "usher", str(port), url) as server,
        contextlib.ExitStack() as stack,
    ):
        store.flushdb()
        worker = stack.enter_context(child(__file__, "--work", url))
        _line(worker)
        receiver._wait_for(port, server)  # noqa: SLF001 - the benchmark next door
        Load(port).run(SCENES["ordinary"]("warm", rate, rate), rate)
        store.delete(*store.keys("arq:job:*member:*"))
        requests = SCENES[name](name[0], rate * seconds, rate)
        valkey = int(store.info("server")["process_id"])
        before, load = (cpu(server.pid), cpu(valkey)), Load(port)
        began = cpu(worker.pid)
        took = load.run(requests, rate)
        shares = [
            (cpu(pid) - b) / took for pid, b in zip((server.pid, valkey), before, strict=True)
        ]
        if set(load.answers) != {202}:
            raise SystemExit(f"{name}: answers {dict(load.answers)}")
        used = (cpu(worker.pid) - began) / took
        worker.terminate()
        said = f"{_line(worker)}, {used:.1%}"
        waits = sorted(load.waits)
        return Figures(
            *shares,
            statistics.median(waits) * 1000,
            waits[len(waits) * 99 // 100] * 1000,
            sum(1 for _ in store.scan_iter("arq:job:*", count=10_000)),
            said,
        )


def report(found: dict[str, Figures], rate: int) -> None:
    """Print the figures, and the receiver's ratio."""
    print(
        f"\n{rate} deliveries a second{'receiver':>12}{'valkey':>9}{'p50':>9}{'p99':>9}{'jobs':>8}"
    )
    for name, its in found.items():
        print(
            f"{name:<24}{its.receiver:>10.0%}{its.valkey:>9.0%}{its.p50:>6.1f} ms{its.p99:>6.1f} ms"
            f"{its.jobs:>8}   worker: {its.worker}"
        )
    for name, its in found.items():
        if name != "ordinary":
            ratio = its.receiver / found["ordinary"].receiver
            print(f"{name} / ordinary: {ratio:.2f} of the receiver's time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--work", metavar="URL", help="internal")
    options = parser.parse_args()
    if options.work:
        asyncio.run(work(options.work))
        return
    found: dict[str, Figures] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded.running(Path(folder), embedded.free_port()) as url,
    ):
        for name in SCENES:
            found[name] = measure(name, url, options.rate, options.seconds)
    report(found, options.rate)


if __name__ == "__main__":
    main()
