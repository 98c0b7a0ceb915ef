"""The brakes: whose seats would be ended without an explanation, and a person's word on them."""

from dataclasses import dataclass
from datetime import datetime

from worker.brake import Brake, Engaged, Held
from worker.commands.evidence import NotFound, opened
from worker.memory.trail import Step
from worker.policy.brake import Word
from worker.rules import Rules
from worker.subjects import milliseconds


@dataclass(frozen=True, slots=True)
class RoomBrake:
    """One room's brake: since when it is on (None: it is off), and who waits, by user."""

    room: str
    engaged: Engaged | None
    held: dict[str, Held]


async def show(rules: Rules, redis_url: str, room: str | None) -> list[RoomBrake]:
    """Return the brakes of all rooms that have somebody waiting, or of one room.

    Raises:
        NotFound: the rules have no such room.
        Unreachable: Redis does not answer.
    """
    if room:
        _known(rules, room)
    async with opened(rules, redis_url) as evidence:
        brake = Brake(evidence.redis, evidence.prefix, _nobody_asks)
        engaged = await brake.engaged()
        keys = [room] if room else [one.key for one in rules.rooms]
        brakes = [RoomBrake(key, engaged.get(key), await brake.held(key)) for key in keys]
    return [one for one in brakes if room or one.engaged or one.held]


async def say(
    rules: Rules,
    redis_url: str,
    room: str,
    word: Word,
    *,
    by: str,
    why: str,
    now: datetime,
    users: tuple[str, ...] = (),
) -> list[str]:
    """Release or refuse those who wait in a room, or some of them; returns whom it is about.

    Who is released is looked at again at once. It is written into the history of each.

    Raises:
        NotFound: the rules have no such room.
        Unreachable: Redis does not answer.
    """
    _known(rules, room)
    async with opened(rules, redis_url) as evidence:
        brake = Brake(evidence.redis, evidence.prefix, lambda: now)
        about = list(users) or [*await brake.held(room)]
        meant = await brake.say(room, word, about, by=by, why=why)
        for user in meant:
            step = Step(now, f"take.{word}", f"{by}: {why}", room)
            await evidence.store.trail(f"member:{user}", [step])
            await evidence.inbox.mark(f"member:{user}", str(word), milliseconds(now))
    return meant


def _nobody_asks() -> datetime:
    raise AssertionError("who only reads needs no clock")


def _known(rules: Rules, room: str) -> None:
    if rules.room(room) is None:
        known = ", ".join(one.key for one in rules.rooms)
        raise NotFound(f"no room is called {room!r}; there are {known}")
