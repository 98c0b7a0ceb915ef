"""A Hypothesis state machine over the real receiver and the real jobs, in virtual time.

Two workers, a local Whop, a real Redis; no sockets to Whop and no arq. Anything may happen in any
order: purchases and what ends them, deliveries that come twice, late, under new ids or never, calls
that fail before or after they took effect, workers that die between any two bytes they exchange.
The model is a dictionary of who paid for what. When the dust has settled access equals it.
"""

import asyncio
import contextlib
import io
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import redis.asyncio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rich.console import Console

from torture import figures
from webhooks.app import create_app
from webhooks.inbox import Inbox, connect
from webhooks.signature import Secrets
from worker import embedded, jobs, rules
from worker import main as process
from worker.commands.verify import mend
from worker.opening import open_up
from worker.policy.differences import Cure
from worker.proof.inspection import inspect
from worker.sandbox import app as local_whop
from worker.sandbox.bodies import ChannelPatch
from worker.sandbox.faults import Failure
from worker.sandbox.journal import Journal
from worker.sandbox.records import Experience
from worker.sandbox.refusals import Refusal
from worker.sandbox.state import LocalWhop, SeedProduct, seed
from worker.simulate.agenda import Clock
from worker.simulate.crew import API_KEY, at_once
from worker.simulate.wire import HOOK_URL, CountedQuota, Courier, Killed
from worker.simulate.world import SECRET
from worker.subjects import milliseconds
from worker.tools import Tools
from worker.whop.client import Whop
from worker.whop.errors import WhopError

ACCOUNT = "biz_Usher000000001"
GRACE = timedelta(days=3)
MONTH = timedelta(days=30)
SEATS = 2
RULES = f"""
account = "{ACCOUNT}"
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]
[rooms.course]
name = "Course {{cohort}}"
products = ["prod_course", "prod_bundle"]
cohort = {{ by = "seats", seats = {SEATS} }}
on_refund = "revoke"
welcome = "Glad you are here."
[rooms.club]
name = "Club {{cohort}}"
products = ["prod_club"]
cohort = {{ by = "month" }}
grace = "3d"
"""
OPENS = {
    "lounge": {"prod_basic"},
    "course": {"prod_course", "prod_bundle"},
    "club": {"prod_club"},
}
MONTHLY = {"prod_basic", "prod_club"}
DAY = timedelta(days=1)
EVERY_FIVE = timedelta(minutes=5)
RESTLESS = 300
"""Rounds of work at one instant after which something must be wrong."""


# --- the model


@dataclass
class Paid:
    """One purchase, and what became of it."""

    user: str
    product: str
    ends: datetime | None = None
    refunded: bool = False
    late: datetime | None = None
    bought: datetime = field(default_factory=lambda: datetime.min.replace(tzinfo=UTC))

    def opens(self, room: str, now: datetime) -> bool | None:
        """Say whether it opens a room; None where that depends on when Usher heard of it."""
        if self.product not in OPENS[room] or (self.ends and self.ends <= now):
            return False
        if self.refunded and room == "course":
            return False
        if self.late is None or room == "lounge":
            return True
        return True if now < self.late + GRACE else None

    def period_end(self, now: datetime) -> datetime:
        periods = (now - self.bought) // MONTH + 1
        return self.bought + MONTH * periods


# --- a worker that can die


class Fuse:
    """Kills whoever talks through it at one of the next steps; the dead never talk again."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.dead = False

    def step(self) -> None:
        if self.left is not None:
            self.left -= 1
            self.dead |= self.left <= 0
        if self.dead:
            raise Killed


class FusedConnection(redis.asyncio.Connection):
    """A connection to Redis with a step before each request and after each answer."""

    def __init__(self, *, fuse: Fuse, **options: Any) -> None:
        self._fuse = fuse
        super().__init__(**options)

    async def send_packed_command(self, *given: Any, **options: Any) -> None:
        self._fuse.step()
        await super().send_packed_command(*given, **options)

    async def read_response(self, *given: Any, **options: Any) -> Any:
        answer = await super().read_response(*given, **options)
        try:
            self._fuse.step()
        except Killed:
            await self.disconnect(nowait=True)
            raise
        return answer


class FusedLine(httpx.AsyncBaseTransport):
    """A line to the local Whop with a step before each call and after each answer.

    What happens `meanwhile` happens right after a call was answered, in the middle of a job.
    """

    def __init__(self, whop: Any, fuse: Fuse, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._whop = httpx.ASGITransport(whop)
        self._fuse = fuse
        self._meanwhile = meanwhile

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._fuse.step()
        answer = await self._whop.handle_async_request(request)
        await self._meanwhile()
        self._fuse.step()
        return answer


@dataclass
class Hand:
    """One worker process."""

    fuse: Fuse
    tools: Tools
    http: httpx.AsyncClient
    redis: Any

    async def close(self) -> None:
        await self.http.aclose()
        await self.redis.aclose()
        await self.redis.connection_pool.disconnect()


# --- the world


class Town:
    """The local Whop, the receiver, two workers, and a clock that stands still."""

    def __init__(self, redis_url: str, seed_number: int) -> None:
        self.clock = Clock(datetime(2026, 3, 3, 12, tzinfo=UTC))
        self.rng = random.Random(seed_number)
        self.whop = LocalWhop(ACCOUNT, clock=self.clock, rng=random.Random(seed_number))
        products = sorted(set().union(*OPENS.values()))
        stock = [
            SeedProduct(id=p, title=p, plan_type="renewal" if p in MONTHLY else "one_time")
            for p in products
        ]
        seed(self.whop, stock, api_key=API_KEY, webhook_url=HOOK_URL, webhook_secret=SECRET)
        self.journal = Journal()
        self.api = local_whop.create_app(self.whop, journal=self.journal)
        self.rules = rules.parse(RULES)
        self.url = redis_url
        self.admin: Any = connect(redis_url)
        self.inbox = Inbox(connect(redis_url), ACCOUNT)
        receiver = create_app(
            inbox=self.inbox,
            account=ACCOUNT,
            secrets=Secrets([SECRET]),
            clock=self.clock.unix,
        )
        self.courier = Courier(self.whop, receiver, self.clock)
        self.hands: list[Hand] = []
        self._kept_house = self.clock.now
        self.errands: list[tuple[int, Callable[[], None]]] = []
        self._calls = 0

    async def meanwhile(self) -> None:
        """Do what is to be done after so many calls, and have Whop tell of it at once."""
        self._calls += 1
        ready = [errand for at, errand in self.errands if at <= self._calls]
        self.errands = [(at, errand) for at, errand in self.errands if at > self._calls]
        for errand in ready:
            errand()
        if ready:
            await self.courier.deliver()

    def after(self, calls: int, errand: Callable[[], None]) -> None:
        """Enter an errand, so many calls from now."""
        self.errands.append((self._calls + calls, errand))

    async def open(self) -> None:
        await self.admin.flushall()
        for _ in range(2):
            self.hands.append(await self.hire())
        await self.settle()

    def assembled(self, fuse: Fuse) -> Hand:
        """Build a worker process: what it knew by heart is gone."""
        pool: Any = redis.asyncio.ConnectionPool.from_url(
            self.url, connection_class=FusedConnection, fuse=fuse
        )
        client: Any = redis.asyncio.Redis(connection_pool=pool)
        http = httpx.AsyncClient(
            transport=FusedLine(self.api, fuse, self.meanwhile),
            base_url="http://whop.simulated/api/v1",
            headers={"Authorization": f"Bearer {API_KEY}"},
        )
        given = process.Settings(rules=self.rules, api_key=API_KEY, redis_url=self.url)
        tools = process.assemble(given, client, http, self.clock)
        quota = CountedQuota(self.clock)
        whop = Whop(http, account=ACCOUNT, quota=quota, rng=self.rng, sleep=at_once)
        catch_up = type(tools.catch_up)(
            tools.inbox, whop, account=ACCOUNT, ours=given.webhook, clock=self.clock
        )
        tools = replace(tools, whop=whop, rng=self.rng, catch_up=catch_up)
        return Hand(fuse, tools, http, client)

    async def hire(self) -> Hand:
        """Start a worker, as `usher work` does."""
        hand = self.assembled(Fuse())
        await jobs.refresh_team(hand.tools)
        with contextlib.suppress(WhopError):  # a worker would look again
            await open_up(hand.tools)
        await jobs.sweep(hand.tools)
        return hand

    async def bury(self, hand: Hand) -> None:
        """End the leases of a dead worker: fifteen seconds, in which nothing else happens."""
        mine = hand.tools.leases._process.encode()
        for key in await self.admin.keys(f"usher:{ACCOUNT}:lock:*"):
            if (await self.admin.get(key) or b"").startswith(mine):
                await self.admin.delete(key)

    async def chore(self, chore: Any) -> None:
        """Have a worker do what arq's cron has it do."""
        hand = self.hands[0]
        try:
            await chore(hand.tools)
        except Killed:
            await self.bury(hand)
        await self.revive()

    async def revive(self) -> None:
        """Start anew whoever died."""
        for n, hand in enumerate(self.hands):
            if hand.fuse.dead:
                await self.bury(hand)
                await hand.close()
                self.hands[n] = await self.hire()

    async def work(self) -> bool:
        """Do all that is due, on all workers at once; say whether anything was."""
        now = milliseconds(self.clock())
        due = await self.admin.zrangebyscore(f"usher:{ACCOUNT}:due", "-inf", now)
        pairs = [(self.hands[n % len(self.hands)], s.decode()) for n, s in enumerate(due)]
        await asyncio.gather(*(self._job(hand, subject) for hand, subject in pairs))
        await self.revive()
        return bool(due)

    async def _job(self, hand: Hand, subject: str) -> None:
        try:
            await jobs.run(hand.tools, subject)
        except Killed:
            await self.bury(hand)

    async def settle(self) -> None:
        """Let everything happen that is due, until nothing is."""
        for _ in range(RESTLESS):
            self.whop.tick()
            if not any(await asyncio.gather(self.courier.deliver(), self.work())):
                return
        raise AssertionError("the workers find work without end, and time stands still")

    async def until(self, end: datetime) -> None:
        """Go from one instant at which something happens to the next."""
        await self.settle()
        while (at := await self._next()) <= end:
            self.clock.now = max(at, self.clock.now)
            if self.clock.now - self._kept_house >= EVERY_FIVE:
                await self.keep_house()
            await self.settle()
        self.clock.now = end
        await self.settle()

    async def keep_house(self) -> None:
        """Do what arq's cron does every few minutes: here where something happens, and daily."""
        self._kept_house = self.clock.now
        for chore in (jobs.sweep, jobs.watch, jobs.refresh_team, jobs.catch_up):
            await self.chore(chore)

    async def _next(self) -> datetime:
        first = await self.admin.zrange(f"usher:{ACCOUNT}:due", 0, 0, withscores=True)
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        due = epoch + timedelta(milliseconds=int(first[0][1])) if first else None
        instants = (due, self.whop.outbox.next_due(), self.whop.memberships.next_period_end())
        return min(at for at in (*instants, self._kept_house + DAY) if at)

    async def put_right(self) -> list[str]:
        """Do what `usher verify --repair` does; returns the differences that are left."""
        tools = self.hands[0].tools
        for _ in range(2):
            found = (await inspect(tools)).differences
            await mend(tools, found, Console(file=io.StringIO()))
            await self.settle()
        left = (await inspect(tools)).differences
        return [str(one) for one in left if one.cure is not Cure.PERSON]

    async def close(self) -> None:
        for hand in self.hands:
            await hand.close()
        await self.inbox.close()
        await self.admin.aclose()

    # --- what is true on Whop, whatever Usher remembers

    def hidden(self) -> dict[str, str]:
        """Return the cohorts' own products, with the key of each one's room."""
        products = self.whop.tables.products.values()
        return {p.id: p.metadata["usher_room"] for p in products if p.visibility == "hidden"}

    def rooms_of(self, room: str) -> list[Experience]:
        opened = {id_ for id_, key in self.hidden().items() if key.startswith(f"{room}/")}
        opened = opened or OPENS[room]
        every = self.whop.tables.experiences.values()
        return [one for one in every if opened & set(one.product_ids)]

    def inside(self, user: str, room: str) -> int:
        """Return how many rooms of this kind a user may enter."""
        id_ = self.whop.people.meet(user).id
        may = self.whop.rooms.may_enter
        return sum(may(id_, one) == "customer" for one in self.rooms_of(room))


# --- what may happen

USERS = st.sampled_from(["ada", "bob", "cy", "dee", "eve"])
PRODUCTS = st.sampled_from(["prod_basic", "prod_course", "prod_bundle", "prod_club", "prod_course"])
PICK = st.integers(0, 9)
OLDER = ["experiences.create", "messages.create"]
NEWER = ["products.create", "plans.create", "memberships.create", "memberships.cancel"]
"""Calls of which Whop says, or does not say, that it heeds an Idempotency-Key: all may be deaf."""

OPERATIONS = st.sampled_from(
    [
        "*",
        "*",
        "memberships.create",
        "memberships.list",
        "memberships.cancel",
        "experiences.create",
        "products.create",
        "experiences.attach",
        "messages.create",
        "plans.create",
    ]
)


class Machine(RuleBasedStateMachine):
    """Anything in any order; `redis_url` is set before it runs."""

    redis_url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.paid: dict[str, Paid] = {}
        self.kicked: set[str] = set()
        self.dropped = False
        self.town: Town | None = None

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    @property
    def here(self) -> Town:
        assert self.town
        return self.town

    @property
    def now(self) -> datetime:
        return self.here.clock()

    @initialize(number=st.integers(0, 1000), deaf=st.sampled_from([[], OLDER, OLDER + NEWER]))
    def open(self, number: int, deaf: list[str]) -> None:
        async def opened() -> Town:
            town = Town(self.redis_url, number)
            town.whop.faults.ignore_idempotency = deaf
            await town.open()
            return town

        self.town = self.run(opened())

    # --- people

    def _buy(self, user: str, product: str) -> None:
        held = self.here.whop.memberships.buy(product, user)
        self.paid[held.id] = Paid(user, product, bought=self.now)

    @rule(users=st.lists(USERS, min_size=1, unique=True), product=PRODUCTS)
    def buy(self, users: list[str], product: str) -> None:
        for user in users:
            self._buy(user, product)

    @rule(user=USERS, product=PRODUCTS, again=st.none() | PRODUCTS, calls=st.integers(1, 20))
    def change_their_mind_meanwhile(
        self, user: str, product: str, again: str | None, calls: int
    ) -> None:
        """Buy; and while a worker is about it, end that and perhaps buy something else."""
        self._buy(user, product)
        id_ = list(self.paid)[-1]

        def errand() -> None:
            if self.paid[id_].ends is None:
                self.here.whop.memberships.set_status(id_, "canceled")
                self.paid[id_].ends = self.now
            if again:
                self._buy(user, again)

        self.here.after(calls, errand)
        self.run(self.here.courier.deliver())
        self.run(self.here.work())

    @rule(
        users=st.lists(USERS, min_size=1, max_size=3, unique=True),
        product=PRODUCTS,
        steps=st.tuples(st.integers(1, 170), st.integers(1, 170)),
        failing=st.none()
        | st.sampled_from([(500, True), (503, False), (500, False), (429, False)]),
        calls=st.integers(0, 12),
    )
    def rush(
        self,
        users: list[str],
        product: str,
        steps: tuple[int, int],
        failing: tuple[int, bool] | None,
        calls: int,
    ) -> None:
        """Buy, all at once, with both workers dying in the middle of it and a call that fails."""
        self.buy(users, product)
        self.run(self.here.courier.deliver())
        for hand, left in zip(self.here.hands, steps, strict=True):
            hand.fuse.left = left
        if failing:
            failure = Failure(operation="*", status=failing[0], after=failing[1], times=1)
            self.here.after(calls, lambda: self.here.whop.faults.failures.append(failure))
        self.run(self.here.work())

    def _one(self, pick: int, *, monthly: bool | None = None) -> str | None:
        """Return a purchase that has not ended."""
        lasting = [
            id_
            for id_, one in self.paid.items()
            if (one.ends is None or one.ends > self.now)
            and (monthly is None or (one.product in MONTHLY) == monthly)
        ]
        return lasting[pick % len(lasting)] if lasting else None

    @rule(pick=PICK, status=st.sampled_from(["canceled", "expired"]))
    def end(self, pick: int, status: str) -> None:
        id_ = self._one(pick)
        if id_:
            self.here.whop.memberships.set_status(id_, status)
            self.paid[id_].ends = self.now

    @rule(pick=PICK)
    def cancel_at_the_end(self, pick: int) -> None:
        id_ = self._one(pick, monthly=True)
        if id_ and self.paid[id_].ends is None and self.paid[id_].late is None:
            self.here.whop.memberships.cancel(id_, at_period_end=True)
            self.paid[id_].ends = self.paid[id_].period_end(self.now)

    @rule(pick=PICK)
    def refund(self, pick: int) -> None:
        id_ = self._one(pick, monthly=False)
        if id_ and not self.paid[id_].refunded:
            self.here.whop.till.refund(id_)
            self.paid[id_].refunded = True

    @rule(pick=PICK)
    def fall_behind(self, pick: int) -> None:
        id_ = self._one(pick, monthly=True)
        if id_ and self.paid[id_].ends is None and self.paid[id_].late is None:
            self.here.whop.memberships.set_status(id_, "past_due")
            self.paid[id_].late = self.now

    @rule(pick=PICK)
    def pay_at_last(self, pick: int) -> None:
        late = [id_ for id_, one in self.paid.items() if one.late and one.ends is None]
        if late:
            self.here.whop.memberships.set_status(late[pick % len(late)], "active")
            self.paid[late[pick % len(late)]].late = None

    @rule(pick=PICK)
    def kick_by_hand(self, pick: int) -> None:
        """Somebody of the team ends a grant of Usher's: once for each member, not to contest it."""
        tables = self.here.whop.tables.memberships.values()
        live = [m for m in tables if m.product_id in self.here.hidden() and m.entitled]
        live = [m for m in live if m.user_id not in self.kicked]
        if live:
            one = live[pick % len(live)]
            self.kicked.add(one.user_id or "")
            self.here.whop.memberships.set_status(one.id, "canceled")

    @rule(pick=PICK, cooldown=st.integers(0, 60))
    def edit_by_hand(self, pick: int, cooldown: int) -> None:
        channels = list(self.here.whop.tables.channels.values())
        if channels:
            patch = ChannelPatch(user_posts_cooldown_seconds=cooldown)
            self.here.whop.rooms.update_channel(channels[pick % len(channels)].id, patch)

    # --- deliveries

    @rule(twice=st.sampled_from([0.0, 0.5, 1.0]), late=st.sampled_from([0.0, 0.5, 1.0]))
    def disorder(self, twice: float, late: float) -> None:
        faults = self.here.whop.faults
        faults.duplicate, faults.reorder, faults.reorder_seconds = twice, late, 60.0

    @rule(lost=st.sampled_from([0.0, 0.0, 0.5, 1.0]))
    def lose(self, lost: float) -> None:
        self.here.whop.faults.drop = lost
        self.dropped |= lost > 0

    @rule(seconds=st.sampled_from([5, 30, 100, 4000]))
    def close_the_door(self, seconds: int) -> None:
        self.here.courier.away_until = self.now + timedelta(seconds=seconds)

    @rule(regenerate=st.booleans(), all_=st.booleans())
    def replay(self, *, regenerate: bool, all_: bool) -> None:
        from worker.sandbox.bodies import ReplayMany

        wanted = ReplayMany(
            sent_after=(self.now - MONTH).isoformat(),
            failed_only=not all_,
            regenerate_ids=regenerate,
        )
        (hook,) = self.here.whop.tables.webhooks
        with contextlib.suppress(Refusal):
            self.here.whop.hooks.replay(hook, wanted)

    @rule()
    def deliver(self) -> None:
        self.run(self.here.courier.deliver())

    # --- trouble

    @rule(
        operation=OPERATIONS,
        status=st.sampled_from([429, 500, 502, 503]),
        after=st.booleans(),
        times=st.integers(1, 6),
    )
    def fail(self, operation: str, status: int, times: int, *, after: bool) -> None:
        failure = Failure(operation=operation, status=status, times=times, after=after)
        self.here.whop.faults.failures.append(failure)

    @rule(who=st.integers(0, 1), steps=st.integers(1, 150))
    def crash(self, who: int, steps: int) -> None:
        self.here.hands[who].fuse.left = steps

    @rule()
    def restart(self) -> None:
        for hand in self.here.hands:
            hand.fuse.dead = True
        self.run(self.here.revive())

    @rule()
    @precondition(lambda self: len(self.paid) > 2)
    def lose_the_memory(self) -> None:
        """Redis is emptied, and the workers are started again."""
        self.dropped = True
        self.run(self.here.admin.flushall())
        self.restart()

    # --- time and housekeeping

    @rule(seconds=st.sampled_from([0, 1, 15, 60, 700, 3700, 90_000, 4 * 86_400, 31 * 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.run(self.here.until(self.now + timedelta(seconds=seconds)))

    @rule()
    def work(self) -> None:
        self.run(self.here.work())

    @rule()
    def catch_up(self) -> None:
        self.run(self.here.chore(jobs.catch_up))

    @rule()
    def look_after(self) -> None:
        self.run(self.here.keep_house())

    # --- the laws

    @invariant()
    def nothing_is_twice_and_nothing_of_theirs_is_touched(self) -> None:
        if self.town is None:
            return
        hidden = self.here.hidden()
        assert len(set(hidden.values())) == len(hidden), "a cohort has two products"
        for id_, key in hidden.items():
            rooms = [e for e in self.here.whop.tables.experiences.values() if id_ in e.product_ids]
            assert len(rooms) <= 1, f"{key} has two rooms"
            held = [m for m in self.here.whop.index.by_product[id_] if m.entitled]
            users = {one.user_id for one in held}
            assert len(users) == len(held), f"somebody is in {key} twice"
            assert not key.startswith("course/") or len(users) <= SEATS, f"{key} is overfull"
        for call in self.here.journal.of("memberships.cancel"):
            assert not any(id_ in call.path for id_ in self.paid), "a paid membership was ended"
        self.here.journal.clear()

    def _compare(self, when: str) -> None:
        for user in ("ada", "bob", "cy", "dee", "eve"):
            for room, products in OPENS.items():
                mine = [one for one in self.paid.values() if one.user == user]
                each = [one.opens(room, self.now) for one in mine]
                should = True if True in each else None if None in each else False
                inside = self.here.inside(user, room)
                assert should is None or inside == should, (
                    f"{when}: {user} is in {inside} of {room}, and should be in {int(should)}: "
                    f"{[one for one in mine if one.product in products]}"
                )

    def teardown(self) -> None:
        try:
            if self.town:
                self._dust_settles()
        finally:
            if self.town:
                self.run(self.town.close())
            self.runner.close()

    def _dust_settles(self) -> None:
        faults = self.here.whop.faults
        faults.failures.clear()
        self.here.errands.clear()
        faults.drop = faults.duplicate = faults.reorder = 0.0
        self.here.courier.away_until = None
        for hand in self.here.hands:
            hand.fuse.left = None
        self.time_passes(7200)
        self.catch_up()
        self.time_passes(7200)
        hooks = self.here.whop.tables.webhooks.values()
        if not self.dropped and all(hook.enabled for hook in hooks):  # a disabled one hears nothing
            self._compare("without verify")
        left = self.run(self.here.put_right())
        self.time_passes(7200)
        assert not left, f"verify still finds {left}"
        self._compare("after verify")
        self.nothing_is_twice_and_nothing_of_theirs_is_touched()


def run(redis_url: str, *, examples: int, steps: int, random: bool, shrink: bool = True) -> None:
    """Run the machine so many times, so many steps each; to shrink a failure takes minutes."""
    Machine.redis_url = redis_url
    given = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=not random,
        database=None,
        print_blob=True,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=given)


def main(examples: int = 2000, steps: int = 40) -> None:
    import tempfile
    import time
    from pathlib import Path

    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded.running(Path(folder), embedded.free_port(), fsync="no") as url,
    ):
        run(url, examples=examples, steps=steps, random=True)
    rows = [{"examples": examples, "steps each": steps, "laws broken": 0}]
    seconds = round(time.monotonic() - began)
    figures.write("state_machine", rows, about="anything in any order", seconds=seconds)
