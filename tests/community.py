"""A whole community on real sockets, in one event loop: local Whop, receiver, Redis, workers.

async def main() -> None:
    async with community.running(redis_url, RULES) as seller:
        bought = seller.whop.memberships.buy("prod_course", "ada")
        await seller.settled()
        assert seller.may_enter("ada", "course/1")
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import local_whop
import redis.asyncio
from local_whop import ACCOUNT, API_KEY, PATIENCE, SECRET, Server

from webhooks.app import create_app
from webhooks.inbox import WAKE, Inbox, connect, job
from webhooks.signature import Secrets
from worker import jobs, main, rules
from worker.health import Pulse
from worker.leases import Leases
from worker.memory.places import Place
from worker.sandbox.bodies import NewExperience, NewProduct
from worker.sandbox.deliveries import Sender
from worker.sandbox.state import LATEST, LocalWhop, SeedProduct
from worker.store import Store
from worker.subjects import Subjects, milliseconds
from worker.tools import Tools
from worker.whop.client import CHAT_APP
from worker.whop.permissions import NEEDS


def head(account: str = ACCOUNT) -> str:
    """Return how the rules of an account begin."""
    return f'account = "{account}"\ntimezone = "America/New_York"\n'


HEAD = head()

_AGAIN = f"""{WAKE}
for i = 3, #ARGV do
  local subject = ARGV[i]
  local at = redis.call('ZSCORE', prefix .. 'due', subject)
  local body = string.gsub(ARGV[2], 'SUBJECT', function() return subject end)
  if at then wake(subject, at, body) end
end
"""
"""Lua: see to it that subjects have a job. The sweep would do more, and too much where it comes at
any moment: it takes a job that arq has just taken for a dead worker's, and arq runs it twice."""


def now() -> datetime:
    return datetime.now(UTC)


class Clock:
    """A clock that a test sets; the local Whop and the worker share it."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


@dataclass
class Community:
    """What a test drives and looks at."""

    whop: LocalWhop
    server: Server
    settings: main.Settings
    redis: Any
    receiver: str
    clock: Callable[[], datetime]
    latest: Any = None
    workers: list[tuple[asyncio.Event, asyncio.Task[None]]] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        return f"usher:{self.settings.rules.account}:"

    @property
    def store(self) -> Store:
        return Store(self.redis, self.prefix)

    async def work(self) -> None:
        """Start one more worker."""
        options = main.options(self.settings, clock=self.clock)
        worker = main.Lane("members", Pulse(time.monotonic), handle_signals=False, **options)
        self.latest = worker
        stopping = asyncio.Event()
        running = asyncio.create_task(main.run_until(stopping, worker))
        self.workers.append((stopping, running))
        async with asyncio.timeout(PATIENCE):
            while not worker._last_health_check and not running.done():  # noqa: ASYNC110 - arq has no event
                await asyncio.sleep(0.01)
            if not running.done():
                await worker.ctx["looking"]

    def tools(self) -> Any:
        """Return what the jobs of the worker that started last work with."""
        return self.latest.ctx["tools"]

    async def rest(self) -> None:
        """Stop the oldest worker as SIGTERM does."""
        stopping, running = self.workers.pop(0)
        stopping.set()
        await running

    async def restart(self, rooms: str | None = None) -> None:
        """Have another worker in the stead of the oldest, by other rules if there are any."""
        await self.rest()
        if rooms is not None:
            self.settings = settings(self.settings, rooms)
        await self.work()
        await self.settled()

    @contextlib.asynccontextmanager
    async def workbench(self) -> AsyncIterator[Tools]:
        """Give out what jobs work with, for a test that does them itself.

        Where no worker runs, nothing comes in between: no worker's cron either.
        """
        async with main._client(self.settings) as http:
            redis_ = connect(self.settings.redis_url)
            try:
                yield main.assemble(self.settings, redis_, http, self.clock)
            finally:
                await redis_.aclose()

    async def settled(self) -> None:
        """Wait until all deliveries are out, and nobody has anything to do now.

        Where a test has a clock of its own, arq, which goes by ours, takes a job before its time
        and drops it: then another is made at once. The sweep would do that after seconds.
        """
        ours = abs(self.clock() - now()) < timedelta(hours=1)
        async with asyncio.timeout(PATIENCE):
            while not await self._quiet(self.due):
                await asyncio.sleep(0.01)
                if not ours:
                    await self.wake()

    async def _quiet(self, waiting: Callable[[], Awaitable[Sized]]) -> bool:
        """Say whether nothing was out for delivery, and nobody waited, at one and the same time.

        While Redis is asked, a job may end whose last call is told of by a delivery: that was not
        out yet when the outbox was looked at, and the job waits no more.
        """
        outbox = self.whop.outbox
        before = outbox._seq  # it counts what is put into the outbox, and what comes of it
        return not (len(outbox) or len(await waiting()) or outbox._seq != before)

    async def wake(self) -> None:
        """Make anew the jobs that arq dropped of those who are due."""
        await self.redis.eval(_AGAIN, 0, self.prefix, job("SUBJECT", 0), *await self.due())

    async def due(self) -> list[str]:
        """Return the subjects that want a look now, or in the blink of an eye."""
        at = self.clock().timestamp() * 1000 + 50
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

    async def trail(self, subject: str) -> list[tuple[str, str]]:
        """Return what was done for a subject, and why, the oldest first."""
        rows = await self.redis.lrange(f"{self.prefix}trail:{subject}", 0, -1)
        steps = [json.loads(row) for row in rows]
        return [(step["what"], step.get("why") or "") for step in steps]

    async def cohort(self, room: str, user: str) -> str | None:
        """Return the cohort that a user was given, if any."""
        id_ = self.whop.people.user(user).id
        cohort = await self.redis.hget(f"{self.prefix}seats:{room}", id_)
        return cohort.decode() if cohort else None

    @property
    def subjects(self) -> Subjects:
        return Subjects(self.redis, self.prefix, Leases(self.redis, self.prefix, "test"))

    async def dead(self) -> dict[str, Any]:
        """Return what failed for good."""
        return await self.subjects.deaths()

    async def sweep(self) -> None:
        """Sweep, as a worker does every ten seconds: after a test moved its clock, nobody waits."""
        await self.subjects.sweep(self.clock())

    async def until_team_is_known(self, size: int) -> None:
        """Wait for a worker to have asked who the admins are."""
        async with asyncio.timeout(PATIENCE):
            while len(await self.store.team() or ()) < size:  # noqa: ASYNC110 - a worker asks
                await asyncio.sleep(0.01)

    def rooms(self) -> list[str]:
        """Return the names of all Chat experiences that exist, with repetitions."""
        return sorted(room.name for room in self.whop.tables.experiences.values())

    def forbid(self, action: str) -> None:
        """Take a permission from the key."""
        key = self.whop.tables.keys[API_KEY]
        every = {one for needs in NEEDS.values() for one in needs.split(", ")}
        key.permissions = frozenset(every - {action})

    def allow_everything(self) -> None:
        self.whop.tables.keys[API_KEY].permissions = None

    async def until_called(self, operation: str) -> None:
        """Wait for the first call of an operation to be answered or on its way back."""
        await local_whop.until(lambda: self.server.journal.of(operation))

    async def all_settled(self) -> None:
        """Wait for the pauses of what failed, too; for rooms without a schedule."""
        async with asyncio.timeout(PATIENCE):
            while not await self._quiet(self.waiting):  # noqa: ASYNC110 - others do the work
                await asyncio.sleep(0.02)

    async def waiting(self) -> list[str]:
        """Return the subjects that want a look, now or at some time."""
        found = await self.redis.zrange(f"{self.prefix}due", 0, -1)
        return [subject.decode() for subject in found]

    async def until_let_go(self, subject: str) -> None:
        """Wait until nobody looks at a subject."""
        async with asyncio.timeout(PATIENCE):
            while await self.redis.exists(f"{self.prefix}lock:{subject}"):  # noqa: ASYNC110 - a worker does
                await asyncio.sleep(0.01)

    async def until_delivered(self) -> None:
        """Wait for all deliveries to be out."""
        await local_whop.until(lambda: not len(self.whop.outbox))

    async def bring_forward(self) -> None:
        """Have everybody looked at who waits for a pause to end.

        Whoever is looked at just now comes after that: the look began before whatever the test has
        changed, and where it fails, its pause would be longer than our wish.
        """
        inbox = Inbox(self.redis, self.settings.rules.account)
        for subject in await self.waiting():
            await self.until_let_go(subject)
            await inbox.mark(subject, "test", milliseconds(self.clock()))

    async def age_failures(self, *, hours: int) -> None:
        """Have what fails now have begun to fail so long ago."""
        long_ago = milliseconds(self.clock() - timedelta(hours=hours))
        for subject in await self.redis.hkeys(f"{self.prefix}since"):
            await self.redis.hset(f"{self.prefix}since", subject, long_ago)

    def last_body(self, operation: str) -> str:
        """Return the body of the last call of an operation."""
        return self.server.journal.of(operation)[-1].body

    async def everything_in_redis(self) -> str:
        """Return all keys and values, as text."""
        parts = []
        for key in await self.redis.keys("*"):
            parts += [repr(key), repr(await self.redis.dump(key))]
            if await self.redis.type(key) == b"string":
                parts.append(repr(await self.redis.get(key)))
        return "\n".join(parts)

    def delivered(self) -> list[Any]:
        """Return every attempt that the local Whop made to deliver something."""
        (hook,) = self.whop.tables.webhooks
        return list(self.whop.outbox.newest_first(hook))

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
    seed: int = 1,
    account: str = ACCOUNT,
) -> AsyncIterator[Community]:
    """Run a community by the text of its rules, without their head."""
    parsed = rules.parse(head(account) + rooms)
    products = sorted({product for room in parsed.rooms for product in room.products})
    inbox = Inbox(connect(redis_url), account)
    app = create_app(
        inbox=inbox,
        account=account,
        secrets=Secrets.parse(SECRET),
        clock=lambda: clock().timestamp(),
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(inbox.close)  # after the receiver has ended its last request
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
            seed_number=seed,
            account=account,
        )
        patient = Sender(whop, timeout_seconds=PATIENCE)  # who is slow to answer is no failure
        server = await stack.enter_async_context(local_whop.running(whop, sender=patient))
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
            while seller.workers:
                await seller.rest()
            await client.aclose()


async def at(seller: Community, clock: Clock, t: datetime) -> None:
    """Let it be some seconds after an instant, and everything done that was due then."""
    clock.at = t + timedelta(seconds=4)
    await seller.settled()


async def watch(seller: Community) -> None:
    """Look for edits, as a worker does each minute."""
    await jobs.watch(seller.tools())
    await seller.settled()


async def said(seller: Community, key: str) -> list[str]:
    """Return what stands in a room's chat, the oldest first."""
    channel = await seller.channel(key)
    return [message.content for message in seller.whop.rooms.messages_in(channel)]


def settings(old: main.Settings, rooms: str) -> main.Settings:
    """Return the worker's settings with other rules."""
    return replace(old, rules=rules.parse(head(old.rules.account) + rooms))


def chat(name: str) -> NewExperience:
    """Return what a seller would send to make a chat by hand."""
    return NewExperience(account_id=ACCOUNT, app_id=CHAT_APP, name=name)


def product(title: str) -> NewProduct:
    """Return what a seller would send to make a product by hand."""
    return NewProduct(title=title)
