"""`usher export` and `usher forget`: all that is kept of a person, given out or erased.

    forget_salt          random text: with it a person's id becomes the digest of a proof
    forgotten:{digest}   list of Proof: that somebody was forgotten, without saying who; 3 years

What is erased and what stays is decided in docs/decisions/0020-what-is-kept.md.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from redis.exceptions import WatchError

from webhooks.events import Delivery
from worker.commands.deliveries import Filter, subject_of
from worker.commands.delivery_report import print_json
from worker.commands.evidence import Echo, Evidence, NotFound, opened
from worker.memory.members import Member
from worker.memory.trail import Step
from worker.policy.access import ENTITLING, PAST_DUE
from worker.rules import Rules
from worker.subjects import Death, Look, milliseconds
from worker.words import counted

PROOF_LIFE: Final = timedelta(days=3 * 366)
"""How long a proof is kept: as long as somebody may ask for it."""

PATIENCE: Final = 10.0
"""Seconds to wait for a worker that has the person just now."""

BATCH: Final = 1000

SOON: Final = 1500
"""Milliseconds: a job that finds our lease comes back after a second."""


class StillHere(ValueError):
    """Somebody has access, or is being worked on: what was erased would come back."""


class Proof(msgspec.Struct, frozen=True):
    """That a person was forgotten: when, who asked, and how many records of which kind."""

    digest: str
    at: datetime
    by: str
    erased: dict[str, int]


@dataclass(slots=True)
class Kept:
    """All that is kept of a person; `seats`, `granted`, `offered` and `sold` by room."""

    user: str
    member: Member | None = None
    team: bool = False
    seats: dict[str, str] = field(default_factory=dict)
    granted: list[str] = field(default_factory=list)
    offered: list[str] = field(default_factory=list)
    sold: dict[str, float] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    trails: dict[str, list[Step]] = field(default_factory=dict)
    looks: dict[str, list[Look]] = field(default_factory=dict)
    pending: dict[str, list[str]] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    dead: dict[str, Death] = field(default_factory=dict)
    proofs: list[Proof] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many records there are of which kind, without the proofs of earlier requests."""
        counted = {
            "member": int(self.member is not None),
            "seats": len(self.seats),
            "granted": len(self.granted),
            "offered": len(self.offered),
            "sold": len(self.sold),
            "deliveries": len(self.deliveries),
            "trails": sum(len(steps) for steps in self.trails.values()),
            "looks": sum(len(looks) for looks in self.looks.values()),
            "pending": sum(len(ids) for ids in self.pending.values()),
            "due": len(self.due),
            "dead": len(self.dead),
        }
        return {name: n for name, n in counted.items() if n}

    @property
    def subjects(self) -> list[str]:
        """The person's subjects: their own, and their memberships' and payments'."""
        ids = {subject_of(one) for one in self.deliveries}
        ids |= {f"membership:{one.membership}" for one in self.deliveries if one.membership}
        ids |= {f"payment:{one.payment}" for one in self.deliveries if one.payment}
        ids |= {f"membership:{id_}" for id_ in (self.member.seen if self.member else ())}
        return [f"member:{self.user}", *sorted(ids - {f"member:{self.user}"})]


async def export(rules: Rules, redis_url: str, user: str) -> None:
    """Print all that is kept of a person as JSON.

    Raises:
        NotFound: that is no id of a person.
        Unreachable: Redis does not answer.
    """
    async with opened(rules, redis_url) as evidence:
        print_json(await gather(evidence, named(user)))


async def forget(
    rules: Rules,
    redis_url: str,
    user: str,
    *,
    by: str,
    now: datetime,
    echo: Echo,
    anyway: bool = False,
) -> Proof | None:
    """Erase a person, and leave a proof that does not say who it was; none of a stranger.

    `anyway` erases somebody who has access still, too; Usher then meets them anew.

    Raises:
        NotFound: that is no id of a person.
        StillHere: they have access, or a worker has them just now.
        Unreachable: Redis does not answer.
    """
    async with opened(rules, redis_url) as evidence:
        user = named(user)
        kept = await gather(evidence, user)
        _refuse(kept, anyway=anyway)
        if not (kept.counts or kept.proofs):
            echo(f"Nothing is kept of {user}.")
            return None
        proof = Proof(await _digest(evidence, user, make=True), now, by, kept.counts)
        try:
            async with asyncio.timeout(PATIENCE), evidence.leases.holding(f"member:{user}"):
                await _erase(evidence, kept, now, proof)
        except TimeoutError:
            raise StillHere(f"a worker is busy with {user}; try again in a minute") from None
    for name, count in proof.erased.items():
        echo(f"  {name:<12}{count}")
    echo(f"{counted(sum(proof.erased.values()), 'record')} erased. Proof: {proof.digest}")
    echo("Log files, backups of Redis, and what Whop keeps are not Usher's to erase.")
    return proof


def named(user: str) -> str:
    """Return a person's id.

    Raises:
        NotFound: it is none.
    """
    if not user.startswith("user_"):
        raise NotFound(f"{user}: expected Whop's id of a person (user_...)")
    return user


async def gather(evidence: Evidence, user: str) -> Kept:
    """Collect all that is kept of a person; it walks all keys, and takes seconds where many are."""
    redis, prefix = evidence.redis, evidence.prefix
    raw = await redis.get(f"{prefix}member:{user}")
    kept = Kept(user, msgspec.json.decode(raw, type=Member) if raw else None)
    kept.team = user in (await evidence.store.team() or ())
    async for key in _keys(evidence, "seats:*"):
        if cohort := await redis.hget(f"{prefix}{key}", user):
            kept.seats[key.partition(":")[2]] = cohort.decode()
    for kind, rooms in (("granted", kept.granted), ("offered", kept.offered)):
        async for key in _keys(evidence, f"{kind}:*"):
            if await redis.sismember(f"{prefix}{key}", user):
                rooms.append(key.partition(":")[2])
    async for key in _keys(evidence, "sold:*"):
        if at := await redis.zscore(f"{prefix}{key}", user):
            kept.sold[key.partition(":")[2]] = at
    kept.deliveries = await _deliveries(evidence, kept)
    deaths = await evidence.subjects.deaths()
    kept.due = await evidence.subjects.due(kept.subjects)
    for subject in kept.subjects:
        _put(kept.trails, subject, await evidence.store.steps(subject))
        _put(kept.looks, subject, await evidence.subjects.looks(subject))
        _put(kept.pending, subject, await evidence.subjects.pending(subject))
        if subject in deaths:
            kept.dead[subject] = deaths[subject]
    digest = await _digest(evidence, user, make=False)
    rows = await redis.lrange(f"{prefix}forgotten:{digest}", 0, -1) if digest else []
    kept.proofs = [msgspec.json.decode(row, type=Proof) for row in rows]
    return kept


def _put(by_subject: dict[str, list[Any]], subject: str, rows: list[Any]) -> None:
    if rows:
        by_subject[subject] = rows


async def _keys(evidence: Evidence, pattern: str) -> AsyncIterator[str]:
    async for key in evidence.redis.scan_iter(match=f"{evidence.prefix}{pattern}", count=BATCH):
        yield key.decode().removeprefix(evidence.prefix)


async def _deliveries(evidence: Evidence, kept: Kept) -> list[Delivery]:
    """Return a person's deliveries, and those that name only a membership or payment of theirs."""
    mine, nobodys = list[Delivery](), list[Delivery]()
    async for one in evidence.deliveries.newest(Filter()):
        if one.user == kept.user:
            mine.append(one)
        elif one.user is None:
            nobodys.append(one)
    ids = {*(one.membership for one in mine), *(one.payment for one in mine)} - {None}
    ids |= kept.member.seen.keys() if kept.member else set()
    for one in nobodys:
        passed_on = await evidence.store.steps(subject_of(one))
        if {one.membership, one.payment} & ids or any(step.id == kept.user for step in passed_on):
            mine.append(one)
    return mine


def _refuse(kept: Kept, *, anyway: bool) -> None:
    """Raise StillHere where what is erased would come back by itself."""
    if kept.team:
        raise StillHere(
            f"{kept.user} is an admin of the account: take them off the team on Whop, wait ten "
            "minutes, and forget them then"
        )
    seen = kept.member.seen if kept.member else {}
    open_ = [id_ for id_, one in seen.items() if one.status in {*ENTITLING, PAST_DUE}]
    if open_ and not anyway:
        raise StillHere(
            f"{kept.user} has access still: {', '.join(sorted(open_))}. End these on Whop, and "
            "forget them then; or say --anyway: Usher then meets them anew at their next news"
        )


async def _erase(evidence: Evidence, kept: Kept, now: datetime, proof: Proof) -> None:
    """Erase in one transaction; it gives the lease back, so that nobody works on in between."""
    prefix, user = evidence.prefix, kept.user
    async with evidence.redis.pipeline(transaction=True) as pipe:
        await pipe.watch(*(f"{prefix}pending:{subject}" for subject in kept.subjects))
        await _refuse_what_waits(evidence, kept, now)
        jobs = [job.decode() for job in await _jobs(evidence, kept.subjects) if job]
        pipe.multi()
        pipe.delete(f"{prefix}member:{user}")
        for subject in kept.subjects:
            of_subject = ("trail", "looks", "pending", "lock")
            pipe.delete(*(f"{prefix}{kind}:{subject}" for kind in of_subject))
            pipe.zrem(f"{prefix}due", subject)
            for kind in ("job", "tries", "since", "dead"):
                pipe.hdel(f"{prefix}{kind}", subject)
        for job in jobs:
            pipe.zrem(f"{prefix}queue", job)
            pipe.delete(f"arq:job:{job}", f"arq:retry:{job}")
        _erase_holdings(pipe, prefix, user, kept.member or Member())
        for room in kept.seats:
            pipe.hdel(f"{prefix}seats:{room}", user)
        for room in kept.granted:
            pipe.srem(f"{prefix}granted:{room}", user)
        for room in kept.offered:
            pipe.srem(f"{prefix}offered:{room}", user)
        for room in kept.sold:
            pipe.zrem(f"{prefix}sold:{room}", user)
        for one in kept.deliveries:  # its id stays known, or a replay of it would be new
            pipe.set(f"{prefix}delivery:{one.id}", "", xx=True, keepttl=True)
        name = f"{prefix}forgotten:{proof.digest}"
        pipe.rpush(name, msgspec.json.encode(proof))
        pipe.expire(name, PROOF_LIFE)
        try:
            await pipe.execute()
        except WatchError:
            raise StillHere(f"news of {user} came just now; try again in a minute") from None


def _erase_holdings(pipe: Any, prefix: str, user: str, member: Member) -> None:
    if member.seen:
        pipe.hdel(f"{prefix}holders", *member.seen)
        pipe.hdel(f"{prefix}unmarked", *member.seen)
    for room in member.braked:
        pipe.hdel(f"{prefix}brake:{room}", user)
        pipe.zrem(f"{prefix}takes:{room}", user)


async def _refuse_what_waits(evidence: Evidence, kept: Kept, now: datetime) -> None:
    """Raise StillHere where a worker is at it, or what was delivered is not dealt with yet."""
    due = await evidence.subjects.due(kept.subjects)
    waits = {subject for subject, at in due.items() if at <= milliseconds(now) + SOON}
    for subject in due.keys() - kept.dead.keys():
        if await evidence.deliveries.get(await evidence.subjects.pending(subject)):
            waits.add(subject)
    if waits:
        names = ", ".join(sorted(waits))
        raise StillHere(f"{names} waits for a worker; try again when that is done")


async def _jobs(evidence: Evidence, subjects: Sequence[str]) -> list[bytes | None]:
    rows: list[bytes | None] = await evidence.redis.hmget(f"{evidence.prefix}job", subjects)
    return rows


async def _digest(evidence: Evidence, user: str, *, make: bool) -> str:
    """Return what stands for a person in a proof; only who knows their id can tell whose it is.

    It is empty where nobody was ever forgotten, unless the salt is to be made.
    """
    name = f"{evidence.prefix}forget_salt"
    if make:
        await evidence.redis.set(name, secrets.token_hex(32), nx=True)
    salt: bytes | None = await evidence.redis.get(name)
    return hmac.new(salt, user.encode(), hashlib.sha256).hexdigest()[:32] if salt else ""
