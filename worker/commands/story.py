"""What happened to somebody, line by line, in words that support staff can read aloud."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from webhooks.events import Delivery
from worker.commands.deliveries import received
from worker.memory.trail import Step
from worker.subjects import Look

STEPS: Final[Mapping[str, str]] = {
    "member.granted": "Usher gave them a membership on {room}: {id}",
    "member.invited": "Usher invited them to {room}; it is their turn to accept",
    "member.found_in_room": "Usher found them in {room}, by {id}",
    "member.revoked": "Usher ended their membership on {room}: {id}",
    "member.left": "somebody else ended their membership on {room}: {id}",
    "purchase.cancelled": "Usher cancelled their membership {id} at Whop",
    "purchase.end_unproven": "Whop neither cancelled nor shows {id}",
    "purchase.kept": "Usher left their membership {id} as it is",
    "status.unknown": "Usher did not know what to make of it",
    "grant.contested": "Usher gave up giving the membership anew: a person must decide",
    "take.released": "a person let their seat in {room} be ended",
    "take.refused": "a person would not have their seat in {room} ended",
    "take.held": "Usher would end their seat in {room}, and waits",
    "whop.never_showed": "Whop does not show {id}",
    "delivery.refused": "what was told of {id} is not of this account",
    "member.end_unproven": "Whop neither ended nor shows {id}, by which they are in {room}",
    "job.discarded": "what had failed for good was discarded",
    "subject.passed_on": "it belongs to {id}, who was looked at",
    "membership.without_user": "it belongs to nobody whom Usher could look at",
}
"""The steps of a trail in words; one that is not here is shown by its own name."""

REASONS: Final[Mapping[str, str]] = {
    "team": "the team changed",
    "retried": "a person had it tried again",
    "revived": "a worker started",
    "asked": "a person asked for it",
    "verify": "a verification found something",
    "recalled": "it was read back from Whop",
    "sighted": "the key may see members again",
    "transferred": "a membership went from one Whop account to another",
    "released": "a person released what the brake held",
    "refused": "a person refused what the brake held",
}

ENDS: Final[Mapping[str, str]] = {
    "later": "did not succeed and will be repeated",
    "held": "was cut off, because Whop is down, and will be repeated",
    "dead": "failed for good",
}
"""How a job ended that was not done, in words."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a story. `kind` is delivery, step or look; `ids` are those that it speaks of."""

    at: datetime
    kind: str
    text: str
    ids: tuple[str, ...] = ()


def story(
    deliveries: Iterable[Delivery], steps: Iterable[Step], looks: Iterable[Look]
) -> list[Line]:
    """Put all that is known of somebody in order, the newest last.

    Of one instant, what was heard comes first, then what was done, and the end of the job last.
    """
    told = [_delivery(one) for one in deliveries]
    named = {one.ids[0] for one in told}
    lines = [*told, *(_step(one) for one in steps), *(_look(one, named) for one in looks)]
    return sorted(lines, key=lambda line: line.at)


def _delivery(one: Delivery) -> Line:
    about = one.payment if one.about in ("payment", "refund", "dispute") else one.membership
    subject = about or one.membership or one.payment or "it"
    told = f": {subject} is {one.status}" if one.status else f", about {subject}"
    product = f" (product {one.product})" if one.product else ""
    text = f"Whop told {one.type}{told}{product}"
    return Line(received(one), "delivery", text, (one.id,))


def _step(step: Step) -> Line:
    words = STEPS.get(step.what)
    text = words.format(room=step.room, id=step.id) if words else _plain(step)
    because = f", because {step.why}" if step.why else ""
    answered = f". Whop answered {step.call}" if step.call else ""
    return Line(step.at, "step", f"{text}{because}{answered}", step.deliveries)


def _plain(step: Step) -> str:
    return " ".join(filter(None, (step.what, step.room, step.id)))


def _look(look: Look, named: set[str]) -> Line:
    """Say how a job ended; deliveries that stand in the story themselves are named by their ids."""
    ids = tuple(one for one in look.took if one.startswith("msg_") or one in named)
    reasons = [REASONS.get(one, one) for one in look.took if one not in ids]
    because = ", ".join((*ids, *reasons)) or "it was time to"
    tried = f" (try {look.tries})" if look.tries > 1 else ""
    end = ENDS.get(look.outcome)
    text = (
        f"the job for {because}{tried} {end}: {look.why}"
        if end
        else f"Usher looked: {because}{tried}"
    )
    return Line(look.at, "look", text, ids)
