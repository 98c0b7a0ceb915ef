"""The seats: who was offered one and has not come, and how Usher gives them."""

from dataclasses import dataclass
from datetime import datetime

from worker.commands.evidence import Evidence, opened
from worker.policy import ways
from worker.policy.rooms import split
from worker.policy.ways import Refused, Way
from worker.rules import Rules
from worker.subjects import milliseconds

PROBE = "probe"
"""Why a member is due for whom Whop is to be asked again."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody who was offered a seat and has not taken it; instants are in UTC.

    Without a link they were invited. `told` is when they were written to in their support chat;
    None: nobody has written to them, and the link must be handed over.
    """

    room: str
    cohort: str
    user: str
    since: datetime
    link: str | None
    told: datetime | None
    reminded: datetime | None


@dataclass(frozen=True, slots=True)
class Probe:
    """What Whop had refused the account, and how many members it is asked for again at once."""

    refused: dict[Way, Refused]
    members: int


async def waiting(rules: Rules, redis_url: str) -> list[Waiting]:
    """Return everybody who was offered a seat and has not come, those who wait longest first.

    Raises:
        Unreachable: Redis does not answer.
    """
    async with opened(rules, redis_url) as evidence:
        return await _waiting(evidence)


async def _waiting(evidence: Evidence) -> list[Waiting]:
    keys = [f"{room.key}/" for room in evidence.rules.rooms if room.cohort]
    exist = [key for key in await evidence.store.instances() if key.startswith(tuple(keys))]
    found = []
    for key, users in (await evidence.store.offered_in(exist)).items() if keys else ():
        room, cohort = split(key)
        for user, member in (await evidence.store.members(users)).items():
            grant = member.grants.get(room)
            if grant and grant.offered and grant.cohort == cohort:
                told = grant.told if grant.in_chat else None
                found.append(
                    Waiting(room, cohort, user, grant.since, grant.link, told, grant.reminded)
                )
    return sorted(found, key=lambda one: (one.since, one.room, one.user))


async def probe(rules: Rules, redis_url: str, now: datetime) -> Probe:
    """Forget what Whop refused the account, and have it asked again for everybody who waits.

    Raises:
        Unreachable: Redis does not answer.
    """
    async with opened(rules, redis_url) as evidence:
        refused = await evidence.store.refusals()
        if refused:
            await evidence.store.allowed(*refused)
        users = {one.user for one in await _waiting(evidence) if one.link}
        for user in sorted(users):
            await evidence.inbox.mark(f"member:{user}", PROBE, milliseconds(now))
    return Probe(refused, len(users))


def named(way: Way) -> str:
    """Return a way as people call it."""
    return ways.NAMED[way]
