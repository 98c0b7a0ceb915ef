"""SIGKILL at every step of a purchase: to the receiver, to a worker, to Redis.

Everything that one purchase says on a wire is a step: a delivery to the receiver, a command to
Redis, a call to Whop. A dry run writes the steps down. Then, for each, a purchase is made in which
the sender or the server is killed, either before the step leaves or when its answer has come back
as far as the wire: it was done, and nobody was told. The dead process is started again, and the law
is held up: the buyer is in one room, by one grant, with one greeting; nothing else was touched.

A worker is stopped, too (SIGSTOP), for longer than its leases last: a second one does its work, the
buyer cancels and is put out, and then the first goes on where it stood, with what it was about to
write still on its way. Whatever it still believes, the buyer stays out.

A killed worker's leases end after 15 seconds; here they are ended by hand, to save the time.
"""

import asyncio
import contextlib
import hashlib
import inspect
import itertools
import json
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hiredis
import local_whop
import redis.asyncio
from local_whop import ACCOUNT, API_KEY, SECRET
from ports import free_port

import webhooks.inbox
import worker.breaker
import worker.fence
import worker.leases
import worker.memory.members
import worker.memory.seats
import worker.strays
import worker.subjects
from torture import figures
from torture.processes import Process, Valkey, ready, usher
from torture.wire import Gate, Passage
from worker.sandbox.app import create_app
from worker.sandbox.journal import Journal
from worker.sandbox.records import Membership
from worker.sandbox.state import LocalWhop, SeedProduct

RULES = f"""
account = "{ACCOUNT}"
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]
[rooms.course]
name = "Course {{cohort}}"
products = ["prod_course"]
cohort = {{ by = "seats", seats = 1 }}
welcome = "Glad you are here."
"""
LANES = 4
"""Deployments that are tortured beside each other: most of the time is waiting."""

PURCHASES = 5
"""For each point, at most: a job that meets others on its way makes another step now and then."""

OVERDUE = 3.2
"""Seconds after which the sweep of a worker that starts finds what a dead one left."""

DELIVERY, INBOX, STORE, CALL = (
    "Whop -> receiver",
    "receiver -> Redis",
    "worker -> Redis",
    "worker -> Whop",
)
STOPPED = "stopped worker"
VICTIMS = {
    DELIVERY: ("receiver",),
    INBOX: ("receiver", "redis"),
    STORE: ("worker", "redis", STOPPED),
    CALL: ("worker", STOPPED),
}


@dataclass(frozen=True)
class Step:
    """The n-th step of its kind on a wire, from 0: no two purchases make all steps in one order."""

    wire: str
    what: str
    n: int


@dataclass(frozen=True)
class Point:
    """Where to kill somebody: at a step, before it leaves or after it was done."""

    step: Step
    after: bool
    victim: str

    def __str__(self) -> str:
        when = "after" if self.after else "before"
        return f"{self.victim}, {when} {self.step.wire}: {self.step.what} #{self.step.n}"


@dataclass
class Trap:
    """Counts the steps, and kills at one of them."""

    kill: Callable[[str], None]
    seen: list[Step] = field(default_factory=list)
    armed: Point | None = None
    sprung: bool = False
    goes_on: asyncio.Event | None = None

    def arm(self, point: Point | None) -> None:
        self.seen = []
        self.armed, self.sprung = point, False
        stops = point is not None and point.victim == STOPPED
        self.goes_on = asyncio.Event() if stops else None

    async def outlived(self) -> bool:
        """Say whether the victim goes on, once it does; who was killed does not."""
        if self.goes_on is None:
            return False
        await self.goes_on.wait()
        return True

    def meet(self, wire: str, what: str) -> Step:
        """Count a step."""
        n = sum((step.wire, step.what) == (wire, what) for step in self.seen)
        self.seen.append(Step(wire, what, n))
        return self.seen[-1]

    def springs(self, step: Step, *, after: bool) -> bool:
        """Say whether somebody dies here, and see to it."""
        point = self.armed
        if point is None or (point.step, point.after) != (step, after):
            return False
        self.armed, self.sprung = None, True
        self.kill(point.victim)
        return True


class Tripwire(Gate):
    """A wire on which steps are counted; `steps` reads what a chunk of bytes asks for."""

    def __init__(self, target: int, wire: str, trap: Trap, steps: Callable[[], "Steps"]) -> None:
        super().__init__(target)
        self.wire = wire
        self.trap = trap
        self.steps = steps

    def passage(self) -> Passage:
        return _Watched(self)


Steps = Callable[[bytes], str | None]
"""Reads bytes of one connection; says what they ask for, or None where it is of no interest."""


class _Watched(Passage):
    def __init__(self, wire: Tripwire) -> None:
        self._wire = wire
        self._steps = wire.steps()
        self._step: Step | None = None

    async def asked(self, data: bytes) -> bool:
        what = self._steps(data)
        if what is None:
            return True
        trap = self._wire.trap
        self._step = trap.meet(self._wire.wire, what)
        return not trap.springs(self._step, after=False) or await trap.outlived()

    async def answered(self, _: bytes) -> bool:
        step, self._step = self._step, None
        trap = self._wire.trap
        return step is None or not trap.springs(step, after=True) or await trap.outlived()


# --- reading what is said to Redis


def _scripts() -> dict[bytes, str]:
    """Return the names of our Lua scripts, by how Redis calls them."""
    named = {}
    for module in (
        webhooks.inbox,
        worker.fence,
        worker.leases,
        worker.memory.members,
        worker.memory.seats,
        worker.subjects,
        worker.strays,
        worker.breaker,
    ):
        for name, text in inspect.getmembers(module, lambda one: isinstance(one, str)):
            for lua in (text, worker.fence._CHECK + text):
                named[hashlib.sha1(lua.encode(), usedforsecurity=False).hexdigest().encode()] = name
    return named


SCRIPTS = _scripts()
IDLE = {
    "CLIENT",
    "HELLO",
    "SELECT",
    "PING",
    "INFO",
    "CONFIG",
    "SCAN",
    "DBSIZE",
    "UNWATCH",
    "SCRIPT",
}
POLLS = {"WATCH", "EXISTS", "ZSCORE", "ZRANGEBYSCORE", "ZREM"}
"""What arq asks twenty times a second, also of jobs that run; its claim is the PSETEX."""

IDLE_SCRIPTS = {"_SWEEP", "_MEND", "_RENEW", "_BEGIN"}
IDLE_KEYS = (
    "health-check",
    "queue:house",
    ":breaker",
    ":heard",
    ":probing",
    "cron:",
    "catch-up",
    "caught_up",
    ":webhook",
    ":team",
    ":calendar",
    "arq:abort",
)


def redis_steps() -> Steps:
    """Read commands; those of a worker that has nothing to do are of no interest."""
    reader = hiredis.Reader()

    def steps(data: bytes) -> str | None:
        reader.feed(data)
        said = []
        while (command := reader.gets()) is not False:
            if what := _named(command):
                said.append(what)
        return "; ".join(dict.fromkeys(said)) or None

    return steps


def _named(command: Sequence[bytes]) -> str | None:
    name, rest = (
        command[0].decode().upper(),
        [part.decode(errors="replace") for part in command[1:]],
    )
    if name.startswith("EVALSHA"):
        script = SCRIPTS.get(command[1])
        rest = rest[1:]
        name = script.strip("_").lower() if script else "script"
        if script in IDLE_SCRIPTS:
            return None
    if name in IDLE or any(idle in part for part in rest for idle in IDLE_KEYS):
        return None
    if name in POLLS and rest[0].startswith("arq:in-progress"):
        return None
    if name in POLLS and rest[0].endswith(("queue", "queue:rooms")):
        return None
    key = next((part for part in rest if part.startswith(("usher:", "arq:"))), "")
    kind = key.removeprefix(f"usher:{ACCOUNT}:").split(":")[0:2]
    return f"{name} {':'.join(kind) if key.startswith('arq') else kind[0]}".strip()


def http_steps() -> Steps:
    def steps(data: bytes) -> str | None:
        return "delivery" if data.startswith(b"POST ") else None

    return steps


# --- a deployment whose every wire is watched


class Unsettled(Exception):
    """Something is still to be done, and nobody does it."""


class Lane:
    """A seller's whole deployment, and whoever starts again what was killed."""

    def __init__(self, folder: Path, whop: LocalWhop) -> None:
        self.folder = folder
        self.whop = whop
        self.trap = Trap(self._kill)
        self.buyers = 0
        self.processes: dict[str, Process] = {}
        self.dead: str | None = None
        self.canceled = False

    def _kill(self, victim: str) -> None:
        if victim == STOPPED:
            self.processes["worker"].signal(signal.SIGSTOP)
        else:
            self.processes[victim].kill()
        self.dead = victim

    @property
    def redis(self) -> Any:
        port = self.processes["redis"].port
        return redis.asyncio.Redis(port=port, socket_timeout=5)

    async def revive(self) -> None:
        """Start again whom the trap killed."""
        victim, self.dead = self.dead, None
        if victim is None:
            return
        if victim in {"worker", STOPPED}:
            await asyncio.sleep(OVERDUE - 1)
            async with self.redis as client:
                locks = await client.keys(f"usher:{ACCOUNT}:lock:*")
                if locks:
                    await client.delete(*locks)
        if victim == STOPPED:
            await self._succeeded()
        else:
            await asyncio.to_thread(self.processes[victim].start)

    async def _succeeded(self) -> None:
        """Have a successor do the work of a worker that stands still, and that one go on then."""
        successor, worker_ = self.processes["successor"], self.processes["worker"]
        await asyncio.to_thread(successor.start)
        try:
            await self.settled()
            (paid,) = self._paid(f"buyer{self.buyers}")
            self.whop.memberships.cancel(paid.id)
            self.canceled = True
            await self.settled()
            worker_.signal(signal.SIGCONT)
            assert self.trap.goes_on
            self.trap.goes_on.set()
            await self.settled()
        finally:
            worker_.signal(signal.SIGCONT)
            await asyncio.to_thread(successor.stop)

    async def settled(self, seconds: float = 100) -> None:
        """Wait until everything is delivered and nobody has anything to do, now or again."""
        deadline = time.monotonic() + seconds
        calm = 0
        while calm < 3:
            if time.monotonic() > deadline:
                raise Unsettled(await self._unsettled())
            await self.revive()
            calm = calm + 1 if not len(self.whop.outbox) and await self._idle() else 0
            await asyncio.sleep(0.05)

    async def _idle(self) -> bool:
        prefix = f"usher:{ACCOUNT}:"
        try:
            async with self.redis as client:
                soon = (time.time() + 0.3) * 1000
                due = await client.zcount(f"{prefix}due", "-inf", soon)
                return not due and not await client.hlen(f"{prefix}tries")
        except (redis.RedisError, OSError):
            return False

    async def _unsettled(self) -> str:
        prefix = f"usher:{ACCOUNT}:"
        async with self.redis as client:
            due = await client.zrange(f"{prefix}due", 0, -1, withscores=True)
            others = [await client.keys(name) for name in (f"{prefix}lock:*", "arq:*")]
            queues = [
                await client.zrange(f"{prefix}{name}", 0, -1, withscores=True)
                for name in ("queue", "queue:rooms", "queue:house")
            ]
        figures.FOLDER.mkdir(exist_ok=True)
        log = figures.FOLDER / f"kill_matrix-worker-{self.processes['worker'].pid}.log"
        log.write_text(self.processes["worker"].log)
        return f"it never settled: due {due}, {others}, {queues}, {len(self.whop.outbox)}; {log}"

    async def purchase(self, point: Point | None) -> list[str]:
        """Sell one course with somebody being killed; returns the laws that were broken."""
        self.trap.arm(point)
        self.canceled = False
        self.buyers += 1
        self.whop.memberships.buy("prod_course", f"buyer{self.buyers}")
        try:
            await self.settled()
        except Unsettled as why:
            return [str(why)]
        self.trap.armed = None
        return await self.broken(f"buyer{self.buyers}")

    async def broken(self, name: str) -> list[str]:
        """Hold up the laws after the purchase of one buyer."""
        tables, index = self.whop.tables, self.whop.index
        user = index.user_by_name[name].id
        hidden = {one.id: one for one in tables.products.values() if one.visibility == "hidden"}
        held, paid = index.by_user[user], self._paid(name)
        granted = [one for one in held if one.product_id in hidden]
        rooms = [one for one in tables.experiences.values() if one.name != "The Lounge"]
        inside = [one for one in rooms if self.whop.rooms.may_enter(user, one) == "customer"]
        wrong = []
        status = "canceled" if self.canceled else "completed"
        if len(paid) != 1 or paid[0].status != status or paid[0].cancellation_reason:
            wrong.append("a paid membership was touched")
        stays = not self.canceled
        if len(inside) != stays or [one.entitled for one in granted] != [stays]:
            wrong.append(f"{len(inside)} rooms by {len(granted)} grants")
        if len(rooms) != self.buyers or len(hidden) != self.buyers:
            wrong.append(f"{len(rooms)} rooms, {len(hidden)} products for {self.buyers} cohorts")
        if len({one.metadata["usher_room"] for one in hidden.values()}) != len(hidden):
            wrong.append("a cohort has two products")
        if any(len(self.whop.catalog.plans_of(id_)) != 1 for id_ in hidden):
            wrong.append("a product has not one plan")
        for room in inside:
            words = self.whop.rooms.messages_in(self.whop.rooms.channel(room.id))
            if len(words) != 1:
                wrong.append(f"{len(words)} greetings")
        wrong += await self._record_broken(user, [one.id for one in granted])
        return wrong + await self._deliveries_broken()

    async def _record_broken(self, user: str, granted: list[str]) -> list[str]:
        """See that what is remembered of a buyer is the last that was done, and no older thing."""
        async with self.redis as client:
            record = json.loads(await client.get(f"usher:{ACCOUNT}:member:{user}"))
        grant = record["grants"]["course"]
        if [grant.get("membership")] != granted or grant["taken"] is not self.canceled:
            return [f"the record says {grant}, and Whop {granted}"]
        return []

    def _paid(self, name: str) -> list[Membership]:
        user = self.whop.index.user_by_name[name].id
        return [one for one in self.whop.index.by_user[user] if one.product_id == "prod_course"]

    async def _deliveries_broken(self) -> list[str]:
        """See that what was acknowledged is kept, that all was, and nothing was new twice."""
        (hook,) = self.whop.tables.webhooks
        wrong, new = [], {}
        for attempt in self.whop.outbox.newest_first(hook):
            told = new.setdefault(attempt.message_id, [])
            told += [attempt.response_code] if attempt.success else []
        async with self.redis as client:
            prefix = f"usher:{ACCOUNT}:"
            for id_, told in new.items():
                event = next(d for d in self.whop.outbox.newest_first(hook) if d.message_id == id_)
                if event.event == "chat.message.created":
                    continue
                if not told:
                    wrong.append(f"{id_} was never acknowledged")
                elif told.count(202) > 1:
                    wrong.append(f"{id_} was new twice")
                elif not await client.exists(f"{prefix}delivery:{id_}"):
                    wrong.append(f"{id_} was acknowledged and is lost")
            if dead := await client.hgetall(f"{prefix}dead"):
                wrong.append(f"given up: {dead}")
        return wrong


def watched(app: Any, trap: Trap) -> Any:
    """Return the local Whop with its calls counted."""

    async def whop(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        skipped = ("webhooks", "authorized", "users", "permission", "team", "access")
        if scope["type"] != "http" or any(word in path for word in skipped):
            await app(scope, receive, send)
            return
        words = [word for word in path.split("/")[3:] if "_" not in word or "chat_" in word[:5]]
        step = trap.meet(CALL, f"{scope['method']} {'/'.join(words)}")
        if trap.springs(step, after=False):
            await trap.outlived()
            await _gone(send)
            return
        said: list[Any] = []
        await app(scope, receive, lambda message: _keep(said, message))
        if trap.springs(step, after=True) and not await trap.outlived():
            await _gone(send)
            return
        for message in said:
            await send(message)

    return whop


async def _keep(said: list[Any], message: Any) -> None:
    said.append(message)


async def _gone(send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer somebody who is not there any more."""
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def lane() -> AsyncIterator[Lane]:
    """Run a deployment, with its lounge made."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="usher-torture-")))
        (folder / "rooms.toml").write_text(RULES)
        port, redis_port = free_port(), free_port()
        whop = local_whop.build(
            products=["prod_basic", SeedProduct(id="prod_course", title="C", plan_type="one_time")],
            retry_seconds=(0.4, 0.8, 1.6, 3.2, 6.4, 12.8),
        )
        here = Lane(folder, whop)

        async def wire(target: int, name: str, steps: Callable[[], Steps]) -> int:
            gate = Tripwire(target, name, here.trap, steps)
            return await stack.enter_async_context(gate.running())

        app = watched(create_app(whop, journal=Journal()), here.trap)
        api = await stack.enter_async_context(local_whop.serving(app))
        door = await wire(port, DELIVERY, http_steps)
        inbox = await wire(redis_port, INBOX, redis_steps)
        store = await wire(redis_port, STORE, redis_steps)
        local_whop.seed(
            whop,
            [],
            webhook_url=f"http://127.0.0.1:{door}/webhooks/whop",
            webhook_secret=SECRET,
        )
        env = {"WHOP_API_KEY": API_KEY, "WHOP_API_URL": f"{api}/api/v1"}
        secret = {"WHOP_WEBHOOK_SECRET": SECRET, "USHER_PORT": str(port)}
        inbox_url, store_url = (f"redis://127.0.0.1:{one}/0" for one in (inbox, store))
        here.processes = {
            "redis": Valkey(folder / "valkey", redis_port),
            "receiver": usher("receive", folder, REDIS_URL=inbox_url, **secret),
            "worker": usher("work", folder, REDIS_URL=store_url, **env),
            "successor": usher(
                "work", folder, REDIS_URL=f"redis://127.0.0.1:{redis_port}/0", **env
            ),
        }
        for name, process in here.processes.items():
            if name != "successor":
                await asyncio.to_thread(process.start)
            stack.callback(process.stop)
        await asyncio.to_thread(ready, port)
        while not whop.tables.experiences:  # noqa: ASYNC110 - the worker makes it
            await asyncio.sleep(0.05)
        await here.settled()
        yield here


def points(seen: list[Step]) -> list[Point]:
    """Return everything that can be done to a purchase that made these steps."""
    return [
        Point(step, after, victim)
        for step in seen
        for victim, after in itertools.product(VICTIMS[step.wire], (False, True))
    ]


async def dry_run(here: Lane) -> list[Point]:
    """Make two purchases with nobody killed; the second one's steps are the points."""
    for _ in range(2):
        here.trap.arm(None)
        wrong = await here.purchase(None)
        assert not wrong, wrong
        seen = here.trap.seen
    return points(seen)


@dataclass
class Outcome:
    """What came of all points."""

    killed: dict[str, int] = field(default_factory=dict)
    missed: int = 0
    broken: list[str] = field(default_factory=list)


async def suffer(here: Lane, todo: list[Point], found: Outcome) -> None:
    """Go through the points that are left, until there are none."""
    while todo:
        point = todo.pop()
        wrong: list[str] = []
        for _ in range(PURCHASES):
            wrong = await here.purchase(point)
            if wrong or here.trap.sprung:
                break
        if here.trap.sprung:
            where = f"{point.victim}, on {point.step.wire}"
            found.killed[where] = found.killed.get(where, 0) + 1
        else:
            found.missed += 1
        found.broken += [f"{point}: {law}" for law in wrong]
        if wrong:
            figures.say(f"{point}: {wrong}")
            return


async def matrix(*, lanes: int = LANES, choose: Callable[[list[Point]], list[Point]]) -> Outcome:
    """Find the points, choose among them, and suffer them in some deployments at once."""
    found = Outcome()
    async with contextlib.AsyncExitStack() as stack:
        all_ = await asyncio.gather(*(stack.enter_async_context(lane()) for _ in range(lanes)))
        todo = choose(await dry_run(all_[0]))[::-1]
        await asyncio.gather(*(suffer(here, todo, found) for here in all_))
    return found


def main() -> None:
    began = time.monotonic()
    found = asyncio.run(matrix(choose=lambda every: every))
    rows = [{"killed": k, "points": n} for k, n in sorted(found.killed.items())]
    more = {"not reached": found.missed, "laws broken": found.broken or "none"}
    about = "one purchase for each point, and the law after it"
    seconds = round(time.monotonic() - began)
    figures.write("kill_matrix", rows, about=about, seconds=seconds, **more)
    assert not found.broken
