"""Rooms come into being: looked for before they are made, one step at a time, each step recorded.

The order is product, plan, experience, channel, settings, attachments, first message: nobody is
let into a room whose settings do not hold yet. A crash between two steps, or two workers at once,
never make two rooms: a lease admits one worker a room, every step looks first, and every POST
carries a key by which Whop knows it again.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import sha256

import msgspec
import structlog

from worker.channels import set_channel
from worker.doubts import LONG_AGO
from worker.memory.places import Place
from worker.memory.trail import Step
from worker.policy.access import ENTITLING
from worker.policy.phases import Phase
from worker.policy.rooms import Room, dated_title, instance, title
from worker.policy.schedule import phase_at
from worker.stock import hold_seats
from worker.subjects import milliseconds
from worker.tools import Tools
from worker.whop.errors import Missing, Rejected
from worker.whop.types import Experience, Plan

log = structlog.get_logger()

ARCHIVED = " (archived)"
ROOM_KEY = "usher_room"
"""The key in a hidden product's metadata that says which of our rooms it was made for."""


def fingerprint(room: Room) -> str:
    """Return a mark of what the rules say of a room: another one where they say something else.

    Dates that a calendar says are no part of the rules.
    """
    bare = replace(room, schedule=replace(room.schedule, dated=None))
    return sha256(msgspec.json.encode(bare, enc_hook=repr, order="sorted")).hexdigest()[:12]


async def ready_place(tools: Tools, room: Room, cohort: str | None) -> Place:
    """Return the room as it exists on Whop, making whatever is missing of it.

    Raises:
        Unavailable, Rejected: Whop did not let a step happen; the next call goes on from there.
    """
    key = instance(room, cohort)
    if key not in tools.places:
        place = await tools.store.place(key)
        tools.places[key] = place if place and place.ready else await provision(tools, room, cohort)
    return tools.places[key]


async def provision(tools: Tools, room: Room, part: str | None, *, anew: bool = False) -> Place:
    """Bring a room into being, or bring it up to date with the rules, under its lease.

    `anew` makes a new one in the stead of one that somebody deleted on Whop.
    """
    key = instance(room, part)
    async with tools.leases.holding(f"making:{key}"):
        place = await tools.store.place(key) or Place(name=name_of(room, part, None))
        if room.one_room_per == "occurrence" and part:
            place.occurrence = room.schedule.find(part) or place.occurrence
            if place.occurrence is None:
                return place  # the date was taken away before its room was made
        try:
            if anew and place.experience and not room.experience:
                await _forget_deleted(tools, key, place)
            await _Making(tools, room, part, place).every_step()
        except Rejected:
            place.salt += 1
            await tools.store.save_place(key, place)
            raise
        tools.places[key] = place
        return place


async def _forget_deleted(tools: Tools, key: str, place: Place) -> None:
    """Forget a chat that is not among the account's any more, and that Whop says is not there."""
    if any(chat.id == place.experience for chat in await tools.whop.chats()):
        return
    try:
        await tools.whop.experience(place.experience or "")
    except Missing:
        log.warning("room.deleted_on_whop", room=key, id=place.experience)
        place.experience = place.channel = None
        place.ready = place.welcomed = place.making = place.found = False
        place.attached = []
        place.salt += 1
        tools.places.pop(key, None)
        await tools.store.save_place(key, place)


def own_plan(plans: Sequence[Plan]) -> str | None:
    """Return Usher's plan of a hidden product: the first free one; a seller may add others."""
    free = [plan for plan in plans if plan.free]
    first = min(free, key=lambda plan: plan.created_at or LONG_AGO, default=None)
    return first.id if first else None


def name_of(room: Room, part: str | None, place: Place | None) -> str:
    """Return what a room is called: `ARCHIVED` follows it when it is over."""
    if room.one_room_per == "occurrence":
        one = (place and place.occurrence) or room.schedule.find(part or "")
        return dated_title(room, one) if one else room.name
    return title(room, part)


class _Making:
    """The steps of one room, in their order."""

    def __init__(self, tools: Tools, room: Room, part: str | None, place: Place) -> None:
        schedule = room.schedule_of(part, place.occurrence)
        self.tools = tools
        self.whop = tools.whop
        self.room = room
        self.key = instance(room, part)
        self.known_as = {self.key, *(f"{was}/{part}" for was in room.was)}
        self.place = place
        self.archived = phase_at(schedule, tools.clock()) is Phase.ARCHIVED
        self.title = name_of(room, part, place) + (ARCHIVED if self.archived else "")
        self.called = place.name

    async def every_step(self) -> None:
        if self.archived and not self.place.ready:
            return  # it is over before it began
        if self.room.cohort:
            await self.product()
            await self.plan()
        await self.experience()
        await self.channel()
        await self.settings()
        await self.attachments()
        await self.name()
        await self.count()
        await self.stock()
        await self.welcome()
        mark = fingerprint(self.tools.rules.room(self.room.key) or self.room)
        if not self.place.ready:
            await self.record("room.ready", self.place.experience, ready=True, rules=mark)
        elif self.place.rules != mark:
            self.place.rules = mark
            await self.tools.store.save_place(self.key, self.place)

    async def record(self, what: str, id_: str | None, **changes: object) -> None:
        """Remember a step that was done."""
        for name, value in changes.items():
            setattr(self.place, name, value)
        await self.tools.store.save_place(self.key, self.place)
        step = Step(self.tools.clock(), what, room=self.key, id=id_)
        await self.tools.store.trail(f"room:{self.key}", [step])
        log.info(what, room=self.key, id=id_)

    def idempotency(self, what: str) -> str:
        return f"usher/{self.tools.rules.account}/{self.key}/{what}/{self.place.salt}"

    async def product(self) -> None:
        if self.place.product:
            return
        async for product in self.whop.products():
            if product.metadata.get(ROOM_KEY) in self.known_as:
                await self.record("room.product_found", product.id, product=product.id)
                return
        made = await self.whop.create_hidden_product(
            title=self.place.name,
            metadata={ROOM_KEY: self.key},
            key=self.idempotency("product"),
        )
        await self.record("room.product_made", made.id, product=made.id)

    async def plan(self) -> None:
        product = self.place.product
        if self.place.plan or not product:
            return
        plan = own_plan(await self.whop.plans(product))
        if plan is None:
            key = self.idempotency("plan")
            plan = (await self.whop.create_free_plan(product=product, key=key)).id
        await self.record("room.plan_made", plan, plan=plan)

    async def experience(self) -> None:
        wanted = self.room.experience or self.place.experience
        if wanted is None:
            found = await self._like_ours()
            self.place.making = True
            await self.tools.store.save_place(self.key, self.place)
            made = found or await self.whop.create_chat(
                name=self.place.name, key=self.idempotency("chat")
            )
            what = "room.chat_found" if found else "room.chat_made"
            if found:  # keys that we used before we forgot the room are Whop's to repeat
                self.place.salt = self.place.salt or int(self.tools.clock().timestamp())
            await self.record(what, made.id, experience=made.id, found=bool(found))
        elif wanted != self.place.experience:
            await self.leave()
            new: dict[str, object] = {"channel": None, "attached": [], "ready": False}
            await self.record("room.chat_adopted", wanted, experience=wanted, **new)

    async def leave(self) -> None:
        """Close the chat that was the room's so far to the products by which Usher opened it."""
        for product in self.place.attached:
            id_ = self.place.experience or ""
            await self.whop.detach(id_, product, key=self.idempotency(f"leave/{id_}/{product}"))

    async def _like_ours(self) -> Experience | None:
        """Find a room of this name that belongs to our products, or that we began to make.

        One that belongs to nobody, and that we never began, is the team's own: not to be opened.
        """
        others = await self.tools.store.experiences(but=self.key)
        for product in self.products():
            chats = [c for c in await self.whop.chats(product=product) if c.id not in others]
            for chat in chats:
                if chat.name == self.place.name:
                    return chat
            if chats and product == self.place.product:
                return chats[-1]  # it is ours by its product, whatever somebody called it
        for chat in await self.whop.chats() if self.place.making else ():
            if chat.name == self.place.name and chat.id not in others:
                whole = await self.whop.experience(chat.id)
                if not whole.products:
                    return whole
        return None

    def products(self) -> list[str]:
        """Return the products whose members may come in while the room lives."""
        return [self.place.product] if self.place.product else list(self.room.products)

    async def attachments(self) -> None:
        id_ = self.place.experience or ""
        chat = await self.whop.experience(id_)
        self.called = self.place.name if self.room.experience else chat.name.strip()
        attached = chat.products or frozenset()
        wanted = [] if self.archived else self.products()
        leaving = [*self.place.attached, *(self.products() if self.archived else ())]
        missing = [product for product in wanted if product not in attached]
        if any(product in self.place.attached for product in missing):
            self.place.salt += 1  # somebody detached it, and Whop would repeat its old answer
            await self.tools.store.save_place(self.key, self.place)
        for product in missing:
            await self._attach(id_, product)
        for product in [p for p in dict.fromkeys(leaving) if p in attached and p not in wanted]:
            await self.whop.detach(id_, product, key=self.idempotency(f"detach/{product}"))
            log.info("room.detached", room=self.key, id=id_, product=product)
        mine = {*self.place.attached, self.place.product}
        ours = [product for product in wanted if product in mine or product in missing]
        if self.place.attached != ours:
            await self.record("room.attached", id_, attached=ours)

    async def _attach(self, id_: str, product: str) -> None:
        """Attach; what attaching twice answers is not documented, so look before believing a no."""
        try:
            await self.whop.attach(id_, product, key=self.idempotency(f"attach/{product}"))
        except Rejected:
            attached = (await self.whop.experience(id_)).products or frozenset()
            if product not in attached:
                raise

    async def name(self) -> None:
        """Call the room on Whop what it should be called: dates move, and rooms are archived.

        By its name a room is known again after a loss of Redis. A chat that the rules name by its
        id may be called otherwise.
        """
        if {self.called, self.place.name} != {self.title}:
            await self.whop.rename(self.place.experience or "", self.title)
            await self.record("room.renamed", self.place.experience, name=self.title)
        if self.place.archived != self.archived:
            what = "room.archived" if self.archived else "room.revived"
            await self.record(what, self.place.experience, archived=self.archived)

    async def stock(self) -> None:
        """Have Whop itself hold the seats, where the room has a plan of its own."""
        if await hold_seats(self.tools, self.room, self.key, found=self.place.found):
            await self.record("room.stock_set", self.room.plan)

    async def count(self) -> None:
        """Find out, once, who has a ticket already; deliveries tell of all that come later."""
        if not self.room.seats or self.place.counted:
            return
        async for one in self.whop.memberships_of(self.room.products):
            if one.user and one.status in ENTITLING:
                await self.tools.store.sold(self.room.key, one.user, one.created_at)
        await self.record("room.seats_counted", None, counted=True)

    async def channel(self) -> None:
        if not self.place.channel:
            channel = await self.whop.channel(self.place.experience or "")
            await self.record("room.channel_read", channel.id, channel=channel.id)

    async def settings(self) -> None:
        """Set a new room's channel; that of a room that stands is its own subject's to set."""
        coming: datetime | None = self.tools.clock()
        if not self.place.ready:
            coming = await set_channel(self.tools, self.room, self.key, self.place)
        if coming:
            at = milliseconds(coming)
            await self.tools.inbox.mark(f"channel:{self.key}", "planned", at)

    async def welcome(self) -> None:
        text, channel = self.room.welcome, self.place.channel or ""
        if not text or self.place.welcomed:
            return
        try:
            written = await self.whop.messages(channel)
            greeted = self.place.found and written  # by us, before our memory was lost
            if not (greeted or any(m.content == text for m in written)):
                await self.whop.post_message(channel, text, key=self.idempotency("welcome"))
        except Rejected as error:  # nobody stays outside for want of a greeting
            log.warning("room.not_welcomed", room=self.key, why=str(error))
        else:
            await self.record("room.welcomed", channel, welcomed=True)
