"""A whole community on real sockets, in one event loop: local Whop, receiver, Redis, workers.

async def main() -> None:
    async with community.running(redis_url, RULES) as seller:
        bought = seller.whop.memberships.buy("prod_course", "ada")
        await seller.settled()
        assert seller.may_enter("ada", "course/1")
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import local_whop
import redis.asyncio
from arq.worker import Worker
from local_whop import ACCOUNT, API_KEY, SECRET, Server

from webhooks.app import create_app
from webhooks.inbox import Inbox, connect
from webhooks.signature import Secrets
from worker import main, rules
from worker.sandbox.state import LATEST, LocalWhop, SeedProduct
from worker.store import Place, Store

HEAD = f'account = "{ACCOUNT}"\ntimezone = "America/New_York"\n'


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Community:
    """What a test drives and looks at."""

    whop: LocalWhop
    server: Server
    settings: main.Settings
    redis: Any
    receiver: str
    clock: Callable[[], datetime]
    workers: list[Worker] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        return f"usher:{ACCOUNT}:"

    @property
    def store(self) -> Store:
        return Store(self.redis, self.prefix)

    async def work(self) -> Worker:
        """Start one more worker."""
        worker = Worker(**main.options(self.settings, clock=self.clock), handle_signals=False)
        worker.running = asyncio.create_task(worker.async_run())
        self.workers.append(worker)
        return worker

    async def rest(self, worker: Worker) -> None:
        """Stop a worker as SIGTERM does."""
        self.workers.remove(worker)
        await _stop(worker)

    async def settled(self, seconds: float = 20) -> None:
        """Wait until all deliveries are out, and nobody has anything to do now."""
        async with asyncio.timeout(seconds):
            while len(self.whop.outbox) or await self.due():
                await asyncio.sleep(0.01)

    async def due(self) -> list[str]:
        """Return the subjects that want a look now."""
        at = self.clock().timestamp() * 1000
        found = await self.redis.zrangebyscore(f"{self.prefix}due", "-inf", at)
        return [subject.decode() for subject in found]

    async def place(self, key: str) -> Place:
        place = await self.store.place(key)
        assert place is not None, f"no room {key}"
        return place

    async def may_enter(self, user: str, key: str) -> bool:
        """Ask the local Whop, not us, whether a user can see a room."""
        room = self.whop.rooms.experience((await self.place(key)).experience or "")
        return self.whop.rooms.may_enter(self.whop.people.user(user).id, room) != "no_access"

    async def channel(self, key: str) -> Any:
        return self.whop.rooms.channel((await self.place(key)).channel or "")

    def rooms(self) -> list[str]:
        """Return the names of all Chat experiences that exist, with repetitions."""
        return sorted(room.name for room in self.whop.tables.experiences.values())

    def calls(self, operation: str) -> int:
        """Return how many calls of an operation succeeded."""
        counts = self.server.journal.counts.get(operation, {})
        return sum(n for status, n in counts.items() if status < 300)



@contextlib.asynccontextmanager
async def running(
    redis_url: str,
    rooms: str,
    *,
    workers: int = 1,
    one_time: tuple[str, ...] = ("prod_course", "prod_ticket"),
    clock: Callable[[], datetime] = now,
    pinned: bool = True,
    retry_seconds: tuple[float, ...] = (0.2, 0.4, 0.8),
    quota: tuple[int, int] = (600, 60),
) -> AsyncIterator[Community]:
    """Run a community by the text of its rules, without their head."""
    parsed = rules.parse(HEAD + rooms)
    products = sorted({product for room in parsed.rooms for product in room.products})
    inbox = Inbox(connect(redis_url), ACCOUNT)
    app = create_app(
        inbox=inbox, account=ACCOUNT, secrets=Secrets.parse(SECRET), clock=time.time
    )
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(local_whop.serving(app))
        whop = local_whop.build(
            products=[
                SeedProduct(
                    id=id_, title=id_, plan_type="one_time" if id_ in one_time else "renewal"
                )
                for id_ in products
            ],
            webhook_url=f"{receiver}/webhooks/whop",
            api_version_date=LATEST if pinned else None,
            clock=clock,
            retry_seconds=retry_seconds,
        )
        server = await stack.enter_async_context(local_whop.running(whop))
        client = redis.asyncio.Redis.from_url(redis_url)
        settings = main.Settings(
            rules=parsed,
            api_key=API_KEY,
            redis_url=redis_url,
            api_url=server.api_url,
            quota=quota,
        )
        seller = Community(whop, server, settings, client, receiver, clock)
        try:
            for _ in range(workers):
                await seller.work()
            await seller.settled()
            yield seller
        finally:
            for worker in seller.workers:
                await _stop(worker)
            await client.aclose()
            await inbox.close()


async def _stop(worker: Worker) -> None:
    worker.main_task.cancel()
    await asyncio.wait([worker.running])
    with contextlib.suppress(asyncio.CancelledError):
        await worker.close()
