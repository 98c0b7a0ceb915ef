"""The rounds: every room as it stands on Whop, beside what the rules and the time want of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from worker.channels import differences
from worker.memory.places import Place
from worker.policy.access import Hidden
from worker.policy.differences import Cure, Difference, Kind
from worker.policy.phases import Phase
from worker.policy.rooms import Room, instance, split
from worker.policy.schedule import phase_at
from worker.proof.census import cohorts
from worker.provision import own_plan
from worker.tools import Tools
from worker.whop.errors import Missing
from worker.whop.types import Channel, Experience
from worker.words import words


@dataclass(slots=True)
class Rounds:
    """What was seen of the rooms; `hidden` are the cohorts' products, known here or not."""

    hidden: dict[str, Hidden] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    rooms: int = 0


async def look(tools: Tools, rooms: Sequence[Room], only: str | None, *, deep: bool) -> Rounds:
    """Look at the rooms' products; with `deep`, at their chats and channels too."""
    seen, by_key = Rounds(), {room.key: room for room in rooms}
    places = {}
    for key, place in (await tools.store.places()).items():
        room = by_key.get(split(key)[0])
        apart = room and (room.divided if split(key)[1] else bool(room.cohort))
        if bool(apart) == (split(key)[1] is not None) and room:
            places[key] = place
    await _products(tools, rooms, places, seen)
    if deep:
        await _Look(tools, by_key, places, seen).every(only)
    return seen


async def _products(
    tools: Tools, rooms: Sequence[Room], places: Mapping[str, Place], seen: Rounds
) -> None:
    """Take in the cohorts' hidden products: Whop's, and those that are recorded here."""
    for key, place in places.items():
        name, cohort = split(key)
        if place.product and cohort:
            seen.hidden[place.product] = Hidden(name, cohort, place.product, place.plan)
    first: dict[str, str] = {}
    for product, key in await cohorts(tools, rooms):
        name, cohort = split(key)
        mine = places.get(key)
        expected = mine.product if mine else first.setdefault(key, product)
        if expected and expected != product:
            why = f"a second hidden product, {product}, was made for it; delete the empty one"
            seen.differences.append(_person(Kind.DOUBLED, key, why, product))
        elif product not in seen.hidden and cohort:
            plan = own_plan(await tools.whop.plans(product))
            seen.hidden[product] = Hidden(name, cohort, product, plan)
            why = "Redis has no record of this room of Usher's"
            seen.differences.append(
                Difference(
                    Kind.ROOM_UNRECORDED, f"room:{key}", why, key, id=product, cure=Cure.RECALL
                )
            )


def _person(kind: Kind, key: str, why: str, id_: str | None) -> Difference:
    return Difference(kind, f"room:{key}", why, key, id=id_, cure=Cure.PERSON)


class _Look:
    """A look at each room's chat and channel."""

    def __init__(
        self, tools: Tools, rooms: Mapping[str, Room], places: Mapping[str, Place], seen: Rounds
    ) -> None:
        self.tools = tools
        self.rooms = rooms
        self.places = places
        self.seen = seen

    async def every(self, only: str | None) -> None:
        wanted = [key for key in self.places if only in (None, key, split(key)[0])]
        if wanted:
            self.chats = await self.tools.whop.chats()
            self.channels = {one.id: one async for one in self.tools.whop.channels()}
            known = await self.tools.store.standing(*wanted)
            self.standing = dict(zip(wanted, known, strict=True))
            ids = [self.places[key].channel or "" for key in wanted]
            self.states = await self.tools.chatter.states(ids)
        for key in wanted:
            await self.one(self.rooms[split(key)[0]], key, self.places[key])
        for room in self.rooms.values():
            for key in self.due(room):
                if key not in self.places and only in (None, key, room.key):
                    self.wrong(Kind.ROOM_MISSING, key, "it is time for it, and Usher knows of none")
        self.seen.rooms = len(wanted)

    def due(self, room: Room) -> list[str]:
        """Return the rooms that should exist by now without anybody's having bought them."""
        now = self.tools.clock()
        if room.cohort:
            return []
        if room.one_room_per == "occurrence":
            coming = room.to_make(now)[0] if room.provision == "ahead" else []
            return [instance(room, one.id) for one in coming]
        over = phase_at(room.schedule, now) is Phase.ARCHIVED
        at = None if over else room.due_from(None, now)
        return [room.key] if at and at <= now else []

    def wrong(self, kind: Kind, key: str, why: str, id_: str | None = None) -> None:
        self.seen.differences.append(Difference(kind, f"room:{key}", why, key, id=id_))

    async def one(self, room: Room, key: str, place: Place) -> None:
        schedule = room.schedule_of(split(key)[1], place.occurrence)
        archived = phase_at(schedule, self.tools.clock()) is Phase.ARCHIVED
        if not (place.ready and place.experience):
            if not archived:
                self.wrong(Kind.ROOM_MISSING, key, "its making was begun and is not done", None)
            return
        chat = await self.chat(place)
        if chat is None:
            why = f"its chat {place.experience} is not on Whop any more"
            if room.experience:
                self.seen.differences.append(_person(Kind.ROOM_GONE, key, why, place.experience))
            else:
                self.wrong(Kind.ROOM_GONE, key, f"{why}; a new one is made", place.experience)
            return
        if chat.name.strip() != place.name and not room.experience:
            why = f"it is called {chat.name!r} on Whop, and by its name it is known"
            self.wrong(Kind.RENAMED, key, why, place.experience)
        self.attached(room, key, place, chat, archived=archived)
        await self.doubled(key, place)
        self.channel(room, key, place)

    async def chat(self, place: Place) -> Experience | None:
        try:
            return await self.tools.whop.experience(place.experience or "")
        except Missing:
            return None

    def attached(
        self, room: Room, key: str, place: Place, chat: Experience, *, archived: bool
    ) -> None:
        products = [place.product] if place.product else list(room.products)
        wanted = [] if archived else products
        there = chat.products or frozenset()
        for product in wanted:
            if product not in there:
                why = f"it is not attached to {product}, whose members should come in"
                self.wrong(Kind.DETACHED, key, why, product)
        for product in sorted(there - set(wanted)):
            if product in place.attached or (archived and product in products):
                why = f"it is attached to {product}, whose members should not come in any more"
                self.wrong(Kind.MISATTACHED, key, why, product)
            elif room.cohort or not room.experience:
                why = f"somebody attached it to {product}: detach it, or name it in the rules"
                self.seen.differences.append(_person(Kind.MISATTACHED, key, why, product))

    async def doubled(self, key: str, place: Place) -> None:
        """Look for another chat of the same name that our products open."""
        others = [c for c in self.chats if c.name == place.name and c.id != place.experience]
        ours = {one.experience for one in self.places.values()}
        for other in [c for c in others if c.id not in ours]:
            products = (await self.tools.whop.experience(other.id)).products or frozenset()
            known = {p for room in self.rooms.values() for p in room.products} | set(
                self.seen.hidden
            )
            if products & known:
                why = f"a second chat of this name, {other.id}, is open to buyers; delete one"
                self.seen.differences.append(_person(Kind.DOUBLED, key, why, other.id))

    def channel(self, room: Room, key: str, place: Place) -> None:
        shown: Channel | None = self.channels.get(place.channel or "")
        if shown is None:
            why = f"its channel {place.channel} is not on Whop; look there what became of it"
            self.seen.differences.append(_person(Kind.ROOM_GONE, key, why, place.channel))
            return
        standing = replace(self.standing[key], place=place)
        state, now = self.states[shown.id], self.tools.clock()
        differ = differences(room, key, standing, state, shown, now=now)
        if differ:
            why = f"should have {words(differ)}"
            self.seen.differences.append(
                Difference(Kind.CHANNEL, f"channel:{key}", why, key, id=place.channel)
            )
