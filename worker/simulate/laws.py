"""The laws: what must hold at every settled instant, and the judge who watches over them.

What is wrong must be right a minute later, not counting the time in which Whop was away or no
worker ran. Seats have no such minute: one sold over is one too many.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from worker.policy.differences import Difference
from worker.policy.rooms import Room
from worker.rules import Rules
from worker.sandbox.records import Membership, Message, Record
from worker.sandbox.state import LocalWhop
from worker.simulate.entitled import Entitled
from worker.simulate.standing import Standing, Standings
from worker.simulate.troubles import Excuses
from worker.simulate.turns import Turns
from worker.store import Store

PATIENCE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
AGAIN: Final = timedelta(minutes=10)
"""The same words in the same room within so short a time are one message too many."""

ENOUGH: Final = 20
"""Broken laws after which a simulation ends: there is something to look at."""

WITHOUT: Final = "a member without their room"
TOO_MANY: Final = "a member too many"
WRONG_PHASE: Final = "a room in the wrong phase"
SEAT_OVER: Final = "a seat over"
TWICE: Final = "a message that was written twice"
MISSING: Final = "a room that is missing"
RESTLESS: Final = "a worker that comes to no end"
DIFFERENT: Final = "a difference that `usher verify` reports"


Hall = tuple[Room, list[Standing], int]
"""A room of the rules, what of it exists and is not archived, and how many a member may enter."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A law that was broken: when it was found, since when it was so, of whom or what."""

    at: datetime
    since: datetime
    law: str
    who: str
    what: str


class Judge:
    """Looks at the local Whop after every settled instant, until there is `enough` to look at."""

    def __init__(self, rules: Rules, whop: LocalWhop, store: Store, excuses: Excuses) -> None:
        self._rules = rules
        self._whop = whop
        self._excuses = excuses
        self._users: set[str] = set()
        self._keys: set[str] = set()
        self._wrong: dict[tuple[str, str], datetime] = {}
        self._told: set[tuple[str, str]] = set()
        self._coming: list[tuple[datetime, str, str]] = []
        self._said: dict[tuple[str, str], datetime] = {}
        self._until = whop.now()
        self.entitled = Entitled(rules, whop, excuses)
        self.standings = Standings(rules, whop, store, excuses)
        self.turns = Turns()
        self.breaches: list[Breach] = []
        self.enough = False
        whop.core.listeners.append(self._hear)

    def _hear(self, event: str, record: Record) -> None:  # noqa: ARG002 - a listener gets both
        """Note whom an event concerns: nobody else need be looked at."""
        if isinstance(record, Message):
            self._hear_message(record)
            return
        user = self.entitled.buyer(record)
        if user is not None:
            self._users.add(user)
            if isinstance(record, Membership):
                for at in self.entitled.hear(record, self._whop.now()):
                    heapq.heappush(self._coming, (at, "user", user))

    def _hear_message(self, message: Message) -> None:
        """See that Usher does not repeat itself, but for the pace of a busy chat."""
        if message.user_id != self._whop.tables.account.owner_id:
            return
        now, what = self._whop.now(), (message.channel_id, message.content)
        before = self._said.get(what)
        self._said[what] = now
        paced = [room.pace for room in self._rules.rooms if room.pace and room.pace.say]
        if before and now - before < AGAIN and not paced:
            self._break(TWICE, message.channel_id, before, message.content, now)

    def next(self) -> datetime | None:
        """Return when something must be looked at again that no event announces."""
        return self._coming[0][0] if self._coming else None

    async def begin_day(self, now: datetime) -> None:
        """Look at everything, and lay out the day that begins."""
        self._until = now + DAY
        self.standings.begin_day(now, self._until)
        for one in self.standings.by_key.values():
            self._expect(one)
        self._users |= self._whop.index.member_by_user.keys()
        self._keys |= self.standings.by_key.keys()
        await self.look(now)
        for room in self._rules.rooms:
            for key in self.standings.missing(room, now):
                self._note(MISSING, key, "", wrong=True, now=now)

    def _expect(self, one: Standing) -> None:
        for at in one.edges():
            heapq.heappush(self._coming, (at, "room", one.key))

    async def look(self, now: datetime) -> None:
        """Look at whatever may have changed: by an event, by a hand, or by the time alone."""
        for one in await self.standings.look(now, self._until):
            self._keys.add(one.key)
            self._expect(one)
            self._note(MISSING, one.key, "", wrong=False, now=now)
        self._keys |= {one.key for one in self.standings.by_key.values() if one.touched()}
        self._pass_time(now)
        for key in sorted(self._keys & self.standings.by_key.keys()):
            self._look_at_room(self.standings.by_key[key], now)
        if self._users:
            self._count_seats(now)
        halls = self._halls(now) if self._users else []
        for user in sorted(self._users - set(self._whop.tables.team)):
            self._look_at_member(user, halls, now)
        self._users, self._keys = set(), set()
        for (law, who), since in list(self._wrong.items()):
            if law == MISSING:
                self._judge(law, who, since, "it should exist by now", now)

    def _pass_time(self, now: datetime) -> None:
        while self._coming and self._coming[0][0] <= now:
            at, kind, who = heapq.heappop(self._coming)
            (self._users if kind == "user" else self._keys).add(who)
            if kind == "room" and (turn := self.standings.by_key[who].turn(at)):
                self.turns.begin(who, turn, at)

    def _look_at_room(self, one: Standing, now: datetime) -> None:
        different = self.standings.differences(one, now)
        if not different:
            self.turns.done(one.key, now)
        what = f"its channel should have {different}" if different else ""
        self._note(WRONG_PHASE, one.key, what, wrong=bool(different), now=now)

    def _count_seats(self, now: datetime) -> None:
        for one in self.standings.by_key.values():
            cohort = one.room.cohort
            if cohort and cohort.seats and len(self.standings.sold(one)) > cohort.seats:
                members = len({held.user_id for held in self.standings.sold(one)})
                if members > cohort.seats:
                    what = f"{members} members for {cohort.seats} seats"
                    self._break(SEAT_OVER, one.key, now, what, now)

    def _halls(self, now: datetime) -> list[Hall]:
        """Return what a member may find of each room of the rules."""
        halls = []
        for room in self._rules.rooms:
            exist = list(self.standings.of(room))
            alive = [one for one in exist if not one.archived(now)]
            single = room.cohort or not (exist or room.one_room_per == "occurrence")
            halls.append((room, alive, 1 if single else len(alive)))
        return halls

    def _look_at_member(self, user: str, halls: list[Hall], now: datetime) -> None:
        for room, alive, wanted in halls:
            should = self.entitled.may_enter(user, room, now)
            inside = [one.key for one in alive if self.standings.inside(user, one)]
            few = should is True and len(inside) < wanted
            many = should is not None and len(inside) > (wanted if should else 0)
            if few or many or self._wrong:
                who = f"{self._whop.tables.users[user].username} ({user}), room {room.key}"
                what = f"they are in {', '.join(inside) or 'none'}"
                self._note(WITHOUT, who, what, wrong=few, now=now, user=user)
                self._note(TOO_MANY, who, what, wrong=many, now=now, user=user)

    def _note(
        self, law: str, who: str, what: str, *, wrong: bool, now: datetime, user: str = ""
    ) -> None:
        """Take note of what is wrong, and judge it once its minute is over."""
        if not wrong:
            self._wrong.pop((law, who), None)
        elif (law, who) not in self._wrong:
            self._wrong[law, who] = now
            over = self._excuses.stretch(now, PATIENCE)
            kind = "user" if user else "room" if law == WRONG_PHASE else ""
            if kind:
                heapq.heappush(self._coming, (over, kind, user or who))
        else:
            self._judge(law, who, self._wrong[law, who], what, now)

    def _judge(self, law: str, who: str, since: datetime, what: str, now: datetime) -> None:
        over = self._excuses.stretch(since, PATIENCE)
        if now >= over:
            self._break(law, who, since, what, now)

    def _break(self, law: str, who: str, since: datetime, what: str, now: datetime) -> None:
        if (law, who) not in self._told:
            self._told.add((law, who))
            self.breaches.append(Breach(now, since, law, who, what))
            self.enough |= len(self.breaches) >= ENOUGH

    def verified(self, found: Iterable[Difference], now: datetime) -> None:
        """Hear what a verification says of a settled world: nothing, or it is a false alarm."""
        for one in found:
            who = " ".join(filter(None, (one.subject, one.room)))
            self._break(DIFFERENT, who, now, f"{one.kind}: {one.why}", now)

    def restless(self, now: datetime, subjects: list[str]) -> None:
        """Report that the worker finds work without end at one instant: time stands still."""
        self.enough = True
        self._break(RESTLESS, ", ".join(subjects), now, "they are due again and again", now)
