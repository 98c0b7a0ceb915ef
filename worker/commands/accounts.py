"""All that Usher can say of somebody: their rooms, what opens them, what happened, what comes.

It is read from Redis alone: it says what was last seen of Whop, and when.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from webhooks.events import Delivery
from worker.commands.evidence import Evidence, NotFound
from worker.commands.story import Line, story
from worker.memory.members import Member
from worker.memory.places import Place
from worker.policy.access import ENTITLING, PAST_DUE, Facts, Grant
from worker.policy.endings import Ending, standing
from worker.policy.news import Seen
from worker.policy.rooms import Room, instance, split
from worker.policy.ways import Refusals, why_in_use
from worker.subjects import Death
from worker.words import counted


@dataclass(frozen=True, slots=True)
class Known:
    """A membership as Whop last showed it, as policy reads one."""

    id: str
    status: str
    product: str | None
    plan: str | None
    created_at: datetime | None
    period_end: datetime | None


@dataclass(frozen=True, slots=True)
class InRoom:
    """How somebody stands with one room. `inside` is None where it cannot be told."""

    room: str
    name: str
    inside: bool | None
    verdict: str
    why: str
    rule: str
    grant: Grant | None
    endings: tuple[Ending, ...]
    trouble: tuple[str, ...]
    way: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """All that Usher can say of somebody."""

    user: str
    asked_at: datetime
    last_looked: datetime | None
    team: bool
    memberships: tuple[Known, ...]
    rooms: tuple[InRoom, ...]
    waiting: tuple[str, ...]
    next_look: datetime | None
    unshown: tuple[str, ...]
    dead: Death | None
    story: tuple[Line, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _View:
    """What the rooms of somebody are looked at with."""

    known: Member
    memberships: Sequence[Known]
    facts: Facts
    deaths: Mapping[str, Death]
    refused: Refusals
    now: datetime


async def gather(evidence: Evidence, user: str, room: str | None, now: datetime) -> Account:
    """Collect all that Usher can say of a user.

    Raises:
        NotFound: there is no such room.
    """
    subject, store = f"member:{user}", evidence.store
    known = await store.member(user)
    team = user in (await store.team() or ())
    facts = known.facts(team=team)
    memberships = tuple(_known(id_, seen) for id_, seen in sorted(known.seen.items()))
    steps, looks = await store.steps(subject), await evidence.subjects.looks(subject)
    waiting = await evidence.subjects.pending(subject)
    deaths = await evidence.subjects.deaths()
    ids = dict.fromkeys(
        [*(i for s in steps for i in s.deliveries), *(i for k in looks for i in k.took), *waiting]
    )
    deliveries = await evidence.deliveries.get(list(ids))
    due = (await evidence.subjects.due([subject])).get(subject)
    view = _View(known, memberships, facts, deaths, await store.refusals(), now)
    return Account(
        user=user,
        asked_at=now,
        last_looked=known.looked,
        team=team,
        memberships=memberships,
        rooms=tuple(await _rooms(evidence, view, room)),
        waiting=tuple(waiting),
        next_look=datetime.fromtimestamp(due / 1000, now.tzinfo) if due else None,
        unshown=tuple(_unshown(known, now)),
        dead=deaths.get(subject),
        story=tuple(story(deliveries, steps, looks)),
        unknown=tuple(_unknown(user, known, deliveries)),
    )


def _unshown(known: Member, now: datetime) -> list[str]:
    """Say what Whop told of and does not show, and when it is looked for again."""
    lines = []
    for id_, one in sorted(known.unshown.items()):
        told = "was known and is missing there" if one.missing else f"was told as {one.status}"
        told = "was paid for" if not one.missing and one.status is None else told
        seconds = round((one.due - now).total_seconds()) if one.due else None
        again = f"next look in {max(seconds, 0)} s" if seconds is not None else "look there"
        lines.append(f"Whop's list does not show {id_} yet, which {told}; {again}")
    for id_, one in sorted(known.told.items()):
        if one.due and one.status is None:
            seconds = max(round((one.due - now).total_seconds()), 0)
            lines.append(
                f"Whop told that the money of {id_} goes back, and {id_} does not show it yet; "
                f"next look in {seconds} s"
            )
    return lines


async def _rooms(evidence: Evidence, view: _View, wanted: str | None) -> list[InRoom]:
    rooms = await _keys(evidence, view.known, wanted)
    places = await evidence.store.places([key for _, key in rooms])
    return [_in_room(view, room, key, places.get(key)) for room, key in rooms]


async def _keys(evidence: Evidence, known: Member, wanted: str | None) -> list[tuple[Room, str]]:
    """Return the rooms that are meant, with the key of each as it exists on Whop for this user."""
    name, part = split(wanted) if wanted else (None, None)
    rooms = [room for room in evidence.rules.rooms if name in (None, room.key)]
    if not rooms:
        there_are = ", ".join(room.key for room in evidence.rules.rooms)
        raise NotFound(f"{wanted}: the rules have no such room; there are {there_are}")
    exist = await evidence.store.instances()
    keys: list[tuple[Room, str]] = []
    for room in rooms:
        grant = known.grants.get(room.key)
        if room.cohort:
            keys.append((room, instance(room, grant.cohort if grant else part)))
        elif room.divided:
            mine = [key for key in exist if split(key)[0] == room.key]
            keys += [(room, key) for key in mine if not part or key == wanted] or [(room, room.key)]
        else:
            keys.append((room, room.key))
    return keys


def _in_room(view: _View, room: Room, key: str, place: Place | None) -> InRoom:
    schedule = room.schedule_of(split(key)[1], place.occurrence if place else None)
    several = room.divided and "/" not in key  # no one room on Whop is meant
    over = None if several else schedule.archived_from
    stands = standing(room, view.memberships, view.facts, view.now, archived_from=over)
    grant = view.known.grants.get(room.key)
    if view.facts.team or not room.cohort:
        inside, verdict = _direct(stands.holds)
    else:
        inside, verdict = _granted(stands.holds, grant, view.known)
    if inside and not (place and place.ready):
        inside, verdict = False, "may come in, but the room is not there yet"
    return InRoom(
        room=key,
        name=place.name if place else room.name.replace("{cohort}", split(key)[1] or "..."),
        inside=inside,
        verdict=verdict,
        why=stands.why,
        rule=_rule(room),
        grant=grant,
        endings=stands.endings,
        way=why_in_use(room.grant, view.refused, view.now) if room.cohort else "",
        trouble=_trouble(place, key, view.deaths, which=not room.cohort or "/" in key),
    )


def _direct(holds: bool | None) -> tuple[bool | None, str]:  # noqa: FBT001 - it is what it is about
    if holds is None:
        return None, "cannot be told"
    return holds, "is in, by their own purchase" if holds else "is not in"


def _granted(
    holds: bool | None,  # noqa: FBT001 - it is what it is about
    grant: Grant | None,
    known: Member,
) -> tuple[bool | None, str]:
    """Say whether somebody is in a room by a grant, and how that agrees with their purchases."""
    if grant and grant.membership and not grant.taken:
        seen, by = known.seen.get(grant.membership), f"by Usher's grant {grant.membership}"
        if seen is None or seen.status in {*ENTITLING, PAST_DUE}:
            stays = {
                True: "is in, ",
                False: "should not be in any more, and is, ",
                None: "stays in, ",
            }
            return True, stays[holds] + by
    if holds is None:
        return None, "cannot be told"
    if not holds:
        ended = grant and grant.taken
        return False, "is not in: Usher's grant was ended" if ended else "is not in"
    if grant and grant.offered:
        return False, f"is not in yet: {_offered(grant)}"
    return False, "is not in, and should be"


def _offered(grant: Grant) -> str:
    if not grant.link:
        return "they were invited, and it is their turn to accept"
    if not grant.in_chat:
        return f"hand them their link, {grant.link}: nobody could write to them"
    told = f"{grant.told:%F %H:%M} UTC" if grant.told else "no time that is known"
    again = f", and reminded at {grant.reminded:%F %H:%M} UTC" if grant.reminded else ""
    return f"they were written their link, {grant.link}, at {told}{again}, and have not followed it"


def _known(id_: str, seen: Seen) -> Known:
    return Known(id_, seen.status, seen.product, seen.plan, seen.created_at, seen.period_end)


def _rule(room: Room) -> str:
    """Write what the rules say of who may be in a room."""
    products = " or ".join(room.products)
    money = [
        f'{name} = "{rule}"'
        for name, rule in (("on_refund", room.on_refund), ("on_dispute", room.on_dispute))
        if rule
    ]
    if not room.cohort:
        return ", ".join([f"whoever has {products} may come in", *money])
    size = (
        f"of {counted(room.cohort.seats, 'seat')}" if room.cohort.seats else f"a {room.cohort.by}"
    )
    long = room.grace.total_seconds() / 86400
    days = f"{long:g} {'day' if long == 1 else 'days'} of grace"
    return ", ".join([f"a seat in a cohort ({size}) for {products}", days, *money])


def _trouble(
    place: Place | None, key: str, deaths: Mapping[str, Death], *, which: bool
) -> tuple[str, ...]:
    """Say what is wrong with a room itself; nothing where it is not known `which` of many."""
    dead = [
        f"{subject} failed for good: {deaths[subject].reason}"
        for subject in (f"room:{key}", f"channel:{key}")
        if subject in deaths
    ]
    if place is None and not which:
        return tuple(dead)
    if place is None:
        return ("the room does not exist on Whop yet", *dead)
    return tuple(dead) if place.ready else ("the room is being made and is not ready", *dead)


def _unknown(user: str, known: Member, deliveries: Sequence[Delivery]) -> list[str]:
    """Say what the rest does not know."""
    asks = f"`usher verify --user {user}` asks it now"
    if known.looked is None:
        first = f"Usher has never asked Whop about them; {asks}"
    else:
        first = f"what Whop changed since it was last asked, if no delivery told it; {asks}"
    lines = [first]
    if not deliveries:
        lines.append(
            "why no delivery of theirs is here: none came, all are past the retention, or they "
            "were forgotten (`usher export` shows the proof)"
        )
    lines.append("deliveries past the retention, and jobs before the last 30")
    lines.append("whether Whop has passed a membership on to the chat: only Whop can tell")
    return lines
