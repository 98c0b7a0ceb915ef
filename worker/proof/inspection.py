"""Inspection: all that is on Whop beside all that should be there, both ways, changing nothing.

What is being worked on at this moment, or was changed on Whop a moment ago, is no difference.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from worker.doubts import note_payment
from worker.memory.members import Member
from worker.observe import observe
from worker.policy import evidence, refunds
from worker.policy.access import ENTITLING, GIVING, Hidden
from worker.policy.differences import Cure, Difference, Kind, in_scope, of_member, young
from worker.policy.news import Seen
from worker.policy.phases import Phase
from worker.policy.rooms import Room, split
from worker.policy.schedule import phase_at
from worker.proof import rounds
from worker.proof.census import Census, count
from worker.rooms import with_dates
from worker.sight import MEMBERS
from worker.tools import Tools
from worker.whop.client import ARCHIVED
from worker.whop.errors import WhopError
from worker.whop.types import Membership

log = structlog.get_logger()

BATCH: Final = 500
QUIET: Final = 4
"""The hour of the night, in the account's zone, in which the inspection runs by itself."""


HASTY: Final = {Kind.SHUT_OUT, Kind.LET_IN, Kind.GONE, Kind.TICKET, Kind.PAID_BACK}
"""What may look so for a moment, while the news of a change on Whop is on its way."""


@dataclass(slots=True)
class Findings:
    """What an inspection found, and how much it looked at.

    `in_work` are the subjects that were left out, because somebody is at work on them.
    """

    at: datetime
    differences: list[Difference] = field(default_factory=list)
    in_work: set[str] = field(default_factory=set)
    members: int = 0
    memberships: int = 0
    rooms: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many differences there are of each kind."""
        kinds = sorted(one.kind.value for one in self.differences)
        return {kind: len(list(group)) for kind, group in itertools.groupby(kinds)}


async def inspect(tools: Tools, *, room: str | None = None, user: str | None = None) -> Findings:
    """Look at every member, room and channel; or at one room's, or at one user.

    Raises:
        Unavailable, Rejected: Whop did not tell all of it, so nothing can be said.
    """
    tools = tools.in_background()
    await tools.sight.require(MEMBERS)
    findings = Findings(tools.clock())
    team = await tools.store.team()
    if team is None:
        await tools.store.save_team(await tools.whop.admins())
    rooms = [await with_dates(tools, one) for one in tools.rules.rooms if in_scope(one, room)]
    look = await rounds.look(tools, rooms, room, deep=user is None)
    findings.rooms = look.rooms
    census = await count(tools, rooms, look.hidden, user)
    findings.memberships, findings.members = census.rows, len(census.memberships)
    found = [*look.differences] if user is None else []
    found += [] if user else _not_made(tools, room)
    if look.hidden:
        archived = frozenset([one.id async for one in tools.whop.products(ARCHIVED)])
        found = [one for one in found if not (one.kind is Kind.DOUBLED and one.id in archived)]
        found += _put_away(look.hidden, archived, census)
    found += await _Members(tools, rooms, look.hidden, census, findings).all(user)
    if user is None:
        found += await _unopened(tools, rooms, census)
    if room and split(room)[1]:
        found = [one for one in found if one.room == room]
    subjects, busy = sorted({one.subject for one in found}), set[str]()
    for n in range(0, len(subjects), BATCH):
        busy |= await tools.subjects.in_work(subjects[n : n + BATCH], tools.clock())
    findings.in_work |= busy
    deaths = await tools.subjects.deaths()
    for one in found:
        if one.subject not in busy:
            death = deaths.get(one.subject)
            gave_up = f"; Usher gave it up: {death.reason}" if death else ""
            findings.differences.append(replace(one, why=one.why + gave_up))
    return findings


def _not_made(tools: Tools, room: str | None) -> list[Difference]:
    """Return the rooms that the rules want and that are left out for their keys."""
    return [
        Difference(Kind.KEY_UNCLEAR, f"room:{key}", why, key, cure=Cure.PERSON)
        for key, why in tools.not_made.items()
        if room in (None, key)
    ]


def _put_away(
    hidden: Mapping[str, Hidden], archived: frozenset[str], census: Census
) -> list[Difference]:
    """Return the cohorts that have members and whose product the seller archived.

    Whop does not say whether they keep their access. Nothing is made in its stead: it is theirs
    to bring back.
    """
    rows = itertools.chain.from_iterable(census.memberships.values())
    members = Counter(m.product for m in rows if m.status in GIVING)
    found = []
    for one in hidden.values():
        if one.product in archived and members[one.product]:
            key = f"{one.room}/{one.cohort}"
            why = (
                "its hidden product is archived, and Whop does not say whether its members "
                f"({members[one.product]}) keep their access; make it hidden again"
            )
            found.append(
                Difference(Kind.PUT_AWAY, f"room:{key}", why, key, id=one.product, cure=Cure.PERSON)
            )
    return found


class _Members:
    """The inspection of the members, some hundreds at a time."""

    def __init__(
        self,
        tools: Tools,
        rooms: Sequence[Room],
        hidden: Mapping[str, Hidden],
        census: Census,
        findings: Findings,
    ) -> None:
        self.tools = tools
        self.rooms = rooms
        self.divided = [room for room in rooms if room.cohort]
        self.counted = [room for room in rooms if room.seats]
        self.hidden = hidden
        self.census = census
        self.findings = findings
        self.before: dict[str, dict[str, Seen]] = {}

    async def all(self, only: str | None) -> list[Difference]:
        store = self.tools.store
        self.team = await store.team() or frozenset()
        self.recalled = await store.recalled()
        self.refused = await store.refusals()
        divided = [room.key for room in self.divided]
        seats, filled = await store.seats(divided), await store.filled(divided)
        self.buyers = await self._buyers()
        known = {user for taken in seats.values() for user in taken}
        known |= {user for users in self.buyers.values() for user in users}
        users = sorted({only} if only else known | self.census.memberships.keys())
        found: list[Difference] = []
        for n in range(0, len(users), BATCH):
            found += await self._some(users[n : n + BATCH])
        if not only:
            found += self._seats(seats, filled, found)
            found += self._oversold() + self._overfull(seats)
        return found

    async def _buyers(self) -> dict[str, set[str]]:
        """Return who is known to have a ticket, for the rooms whose tickets were counted."""
        if not self.counted:
            return {}
        places = await self.tools.store.places()
        counted = {split(key)[0] for key, place in places.items() if place.counted}
        rooms = [room.key for room in self.counted if room.key in counted]
        return {room: set(users) for room, users in (await self.tools.store.buyers(rooms)).items()}

    async def _some(self, users: Sequence[str]) -> list[Difference]:
        known = await self.tools.store.members(users)
        found: list[Difference] = []
        for user in users:
            member = known.get(user) or Member()
            self.before[user] = dict(member.seen)
            rows = self.census.memberships.get(user, [])
            wrong = self._one(user, member, rows)
            if wrong:
                wrong = self._one(user, member, await self._second_look(user, member, rows))
            recent = young([*rows, *self.census.payments_of(user)], self.findings.at)
            if recent and any(one.kind in HASTY for one in wrong):
                self.findings.in_work.add(f"member:{user}")
                wrong = [one for one in wrong if one.kind not in HASTY]
            found += wrong
        return found

    async def _second_look(
        self, user: str, member: Member, rows: Sequence[Membership]
    ) -> Sequence[Membership]:
        """Look as a job would, where something seems to be wrong and the walk may have missed it.

        A worker may have seen the member later than the walk did; a list may leave rows out.
        """
        gone = evidence.missing((m.id for m in rows), self.before[user])
        if not (gone or _stale(member, rows, self.findings.at)):
            return rows
        member.seen = dict(self.before[user])
        observed = await observe(self.tools, user, member, ())
        return observed.rows

    def _one(self, user: str, member: Member, rows: Sequence[Membership]) -> list[Difference]:
        member.seen |= {m.id: Seen.of(m) for m in rows}
        member.past_due = evidence.still_past_due(member.past_due, rows, self.findings.at)
        for payment in self.census.payments_of(user):
            note_payment(member, payment)
        facts = member.facts(team=user in self.team)
        wrong = of_member(
            user,
            self.divided,
            rows,
            facts,
            hidden=self.hidden,
            recalled=self.recalled,
            now=self.findings.at,
            account=self.tools.rules.account,
            refused=self.refused,
        )
        wrong += self._tickets(user, rows)
        return wrong if facts.team else wrong + self._paid_back(user, rows)

    def _paid_back(self, user: str, rows: Sequence[Membership]) -> list[Difference]:
        """Return the memberships that run on, and should not by what became of their money."""
        paid = self.census.payments_of(user)
        judged = [refunds.judge(self.rooms, one, paid) for one in rows]
        return [
            Difference(
                Kind.PAID_BACK,
                f"member:{user}",
                one.why,
                one.room.key,
                user,
                id=one.membership,
                explained=False,
            )
            for one in judged
            if isinstance(one, refunds.Cancel)
        ]

    def _tickets(self, user: str, rows: Sequence[Membership]) -> list[Difference]:
        found = []
        for room in self.counted:
            if room.key not in self.buyers:
                continue
            has = any(m.product in room.products and m.status in ENTITLING for m in rows)
            if has != (user in self.buyers[room.key]):
                why = "has a ticket that is not counted" if has else "is counted without a ticket"
                subject = f"member:{user}"
                found.append(Difference(Kind.TICKET, subject, why, room=room.key, user=user))
        return found

    def _seats(
        self,
        seats: Mapping[str, Mapping[str, str]],
        counted: Mapping[str, Mapping[str, int]],
        found: Sequence[Difference],
    ) -> list[Difference]:
        """Compare the count of the seats with the seats, cohort by cohort."""
        lost = []
        for room in self.divided:
            if room.key not in self.recalled and any(
                one.cure is Cure.RECALL and split(one.room or "")[0] == room.key for one in found
            ):
                continue  # it comes with the grants
            filled, taken = counted[room.key], seats[room.key]
            for cohort in sorted({*taken.values(), *filled}):
                given = sum(1 for one in taken.values() if one == cohort)
                if given > filled.get(cohort, 0):
                    why = f"{given} have a seat in it, and {filled.get(cohort, 0)} are counted"
                    key = f"{room.key}/{cohort}"
                    lost.append(
                        Difference(Kind.SEATS_LOST, f"room:{key}", why, key, cure=Cure.RECALL)
                    )
        return lost

    def _overfull(self, seats: Mapping[str, Mapping[str, str]]) -> list[Difference]:
        """Return the cohorts in which more people have a seat, or are, than it has."""
        inside = {(one.room, one.cohort): set[str]() for one in self.hidden.values()}
        for user, rows in self.census.memberships.items():
            for row in rows:
                place = self.hidden.get(row.product or "")
                if place and place.plan == row.plan and row.status in GIVING:
                    inside[place.room, place.cohort].add(user)
        found = []
        for room in self.divided:
            size = room.cohort.seats if room.cohort else 0
            given = Counter(seats[room.key].values())
            for cohort in sorted(given.keys() | {c for key, c in inside if key == room.key}):
                many = max(given[cohort], len(inside.get((room.key, cohort), ())))
                if size and many > size:
                    key = f"{room.key}/{cohort}"
                    why = f"{many} have a seat of {size}; `usher explain` says why each of them"
                    subject = f"room:{key}"
                    found.append(Difference(Kind.OVERFULL, subject, why, key, cure=Cure.PERSON))
        return found

    def _oversold(self) -> list[Difference]:
        return [
            Difference(
                Kind.OVERSOLD,
                f"room:{room.key}",
                f"{len(self.buyers[room.key])} were sold of {room.seats}; `usher rooms` names them",
                room.key,
                cure=Cure.PERSON,
            )
            for room in self.counted
            if room.key in self.buyers and len(self.buyers[room.key]) > (room.seats or 0)
        ]


def _stale(member: Member, rows: Sequence[Membership], began: datetime) -> bool:
    """Say whether a worker saw a member later than the walk did, or while it went on."""
    if member.looked and member.looked >= began:
        return True
    for row in rows:
        seen = member.seen.get(row.id)
        if seen and seen.updated_at and row.updated_at and seen.updated_at > row.updated_at:
            return True
    return False


async def _unopened(tools: Tools, rooms: Sequence[Room], census: Census) -> list[Difference]:
    """Return the rooms that wait for their first buyer, and have one."""
    now, wanted = tools.clock(), list[str]()
    for room in rooms:
        over = room.one_room_per == "series" and phase_at(room.schedule, now) is Phase.ARCHIVED
        if over or not room.waits:
            continue
        bought = [
            m.created_at or now
            for rows in census.memberships.values()
            for m in rows
            if m.status in ENTITLING and m.product in room.products
        ]
        key = room.bought_key(max(bought), now) if bought else None
        if key:
            wanted.append(key)
    ready = {key for key, one in (await tools.store.places(wanted)).items() if one.ready}
    why = "somebody has bought it, and it does not exist"
    return [
        Difference(Kind.ROOM_MISSING, f"room:{key}", why, key) for key in wanted if key not in ready
    ]


MISSED: Final = timedelta(hours=24, minutes=30)
"""How long after an inspection the next one is missed."""


async def nightly(tools: Tools) -> None:
    """Inspect everything and write down what was found, once a night; nothing is repaired.

    A night in which nobody worked, or Whop did not tell, is made up for in the next hour.
    """
    now, last = tools.clock(), await tools.store.verified()
    if last is None:
        await tools.store.save_verified(now)
    missed = last is not None and now - last > MISSED
    if now.astimezone(tools.rules.zone).hour != QUIET and not missed:
        return
    try:
        findings = await inspect(tools)
    except WhopError as error:
        log.warning("verify.unfinished", why=str(error), next="it runs again in an hour")
        return
    await tools.store.save_verified(now)
    looked = {"members": findings.members, "rooms": findings.rooms}
    if findings.differences:
        next_ = "see `usher verify`; `usher verify --repair` puts it right"
        log.error("verify.found", **findings.counts, **looked, next=next_)
    else:
        log.info("verify.in_order", **looked)
