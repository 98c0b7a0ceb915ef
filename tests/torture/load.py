"""Deliveries at a fixed rate, signed as Whop signs, and what became of each.

The rate is kept whatever the answers do, and a delay counts from when a delivery was due: a
receiver that stands still for a second is not spared the deliveries of that second. What is not
acknowledged is tried again, as Whop does, after pauses that are shorter than Whop's.
"""

import asyncio
import contextlib
import time
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from deliveries import ACCOUNT, PATH, SECRET

from webhooks.signature import sign

RETRIES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between tries: half a minute, where Whop takes 71 hours."""

CONNECTIONS = 48
PATIENCE = 8.0


@dataclass
class Tally:
    """What was answered, by number of delivery."""

    number: int
    codes: Counter[int] = field(default_factory=Counter)
    delays: array = field(default_factory=lambda: array("f"))

    def __post_init__(self) -> None:
        self.accepted = bytearray(self.number)
        self.acknowledged = bytearray(self.number)

    def count(self, n: int, code: int) -> bool:
        self.codes[code] += 1
        self.accepted[n] += code == 202
        self.acknowledged[n] |= code // 100 == 2
        return code // 100 == 2

    @property
    def kept(self) -> int:
        """How many were answered with a 2xx at last."""
        return sum(self.acknowledged)

    @property
    def twice(self) -> int:
        """How many were told twice that they are new."""
        return sum(times > 1 for times in self.accepted)


class Wire(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[int] | None = None
        self._heard = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if self._heard.endswith(b"}"):  # all of our answers are JSON objects
            self._settle(int(self._heard[9:12]))

    def connection_lost(self, _) -> None:
        self.transport = None
        self._settle(0)

    def _settle(self, code: int) -> None:
        self._heard = b""
        if self._answer and not self._answer.done():
            self._answer.set_result(code)

    async def ask(self, raw: bytes) -> int:
        self._answer = asyncio.get_running_loop().create_future()
        if self.transport is None:
            return 0
        self.transport.write(raw)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._answer
        except TimeoutError:
            if self.transport:
                self.transport.abort()
            return 0


class Load:
    """The sender, with its open connections."""

    def __init__(self, port: int, tag: str, number: int) -> None:
        self._port = port
        self._tag = tag
        self._idle: deque[Wire] = deque()
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._tasks: set[asyncio.Task[None]] = set()
        self.tally = Tally(number)

    def name(self, n: int) -> str:
        return f"msg_{self._tag}{n:08}"

    async def send(
        self, rate: float, *, every_second: int = 0, retries: Sequence[float] = RETRIES
    ) -> None:
        """Send all at a rate; each `every_second`-th of them comes twice at once."""
        began = time.perf_counter()
        for n in range(self.tally.number):
            due = began + n / rate
            ahead = due - time.perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
            for _ in range(2 if every_second and n % every_second == 0 else 1):
                self._begin(n, due, retries)
            if n % 20 == 0:
                await asyncio.sleep(0)
        while self._tasks:
            await asyncio.wait(self._tasks)
        for wire in self._idle:
            if wire.transport:
                wire.transport.close()

    def _begin(self, n: int, due: float, retries: Sequence[float]) -> None:
        task = asyncio.create_task(self._deliver(n, due, retries))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, n: int, due: float, retries: Sequence[float]) -> None:
        for pause in (*retries, None):
            async with self._slots:
                code = await self._ask(self._request(n))
            if self.tally.count(n, code):
                self.tally.delays.append(time.perf_counter() - due)
                return
            if pause is not None:
                await asyncio.sleep(pause)
                due = time.perf_counter()

    async def _ask(self, raw: bytes) -> int:
        wire = self._idle.pop() if self._idle else None
        if wire is None or wire.transport is None:
            wire = Wire()
            with contextlib.suppress(OSError):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: wire, "127.0.0.1", self._port)
        code = await wire.ask(raw)
        if wire.transport is not None:
            self._idle.append(wire)
        return code

    def _request(self, n: int) -> bytes:
        name, now = self.name(n), int(time.time())
        body = msgspec.json.encode(_envelope(name, f"{self._tag}{n:08}"))
        signature = sign(body, id=name, timestamp=now, secret=SECRET)
        return (
            f"POST {PATH} HTTP/1.1\r\nhost: usher.example\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nwebhook-id: {name}\r\nwebhook-timestamp: {now}\r\n"
            f"webhook-signature: {signature}\r\n\r\n"
        ).encode() + body


def _envelope(name: str, tag: str) -> dict[str, object]:
    data = {
        "id": f"mem_{tag}",
        "status": "active",
        "updated_at": "2026-11-22T09:00:00.000Z",
        "user_id": f"user_{tag}",
        "plan_id": "plan_0123456789abc",
        "product_id": "prod_0123456789abc",
        "metadata": {"campaign": "autumn", "note": "x" * 500},
    }
    return {
        "id": name,
        "api_version": "v1",
        "timestamp": "2026-11-22T09:00:00.000Z",
        "type": "membership.activated",
        "account_id": ACCOUNT,
        "data": data,
    }
