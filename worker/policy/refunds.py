"""What becomes of a membership whose money went back, where the seller says `"cancel"`. Pure.

A refund or a lost dispute does not end a membership at Whop. Usher ends a paid one only on the
seller's word in the rules, and only where the payment itself shows that the money is gone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from worker.policy.access import GIVING
from worker.policy.rooms import Room

BACK: Final = frozenset({"refunded", "auto_refunded"})
"""Substatuses of a payment that was paid back whole (Whop: Payment.substatus)."""

LOST: Final = frozenset({"dispute_lost", "dispute_prevented"})
"""Substatuses of a payment that a dispute took back; `prevented`: before anybody ruled."""

IN_DISPUTE: Final = LOST | {"open_dispute", "dispute_needs_response", "dispute_under_review"}
"""Substatuses of a payment that is disputed or lost. An inquiry (`dispute_warning...`) moves no
money, and a dispute that was won is over."""

FAILED: Final = frozenset({"failed", "past_due", "canceled", "void", "uncollectible", "unresolved"})
"""Substatuses of a payment that brought no money."""

REFUND_FAILED: Final = frozenset({"failed", "canceled"})
"""Statuses of a refund that gives no money back."""

EARLY: Final = timedelta(days=2)
"""How long before a period its payment may be made."""


class Paid(Protocol):
    """The facts of one of Whop's payments that decide anything."""

    @property
    def id(self) -> str:
        """Its `pay_` id."""

    @property
    def substatus(self) -> str | None:
        """Whop's finer word for where it stands."""

    @property
    def created_at(self) -> datetime | None:
        """When it was made."""

    @property
    def membership(self) -> str | None:
        """The membership that it paid for."""


class Bought(Protocol):
    """The facts of a membership that decide whether it ends with its money."""

    @property
    def id(self) -> str:
        """Its `mem_` id."""

    @property
    def status(self) -> str:
        """Whop's word for where it stands."""

    @property
    def product(self) -> str | None:
        """The product that it opens."""

    @property
    def period_start(self) -> datetime | None:
        """When the period began that is paid for."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """A paid membership is to be cancelled at Whop: its money went back, and a room's rules say so.

    `told` says that a delivery told of it, which explains it.
    """

    room: Room
    membership: str
    payment: str
    why: str
    told: bool = False


@dataclass(frozen=True, slots=True)
class Stays:
    """A membership stays although money for it went back."""

    membership: str
    why: str


def cancels(room: Room) -> bool:
    """Say whether a room's rules have memberships cancelled whose money went back."""
    return "cancel" in (room.on_refund, room.on_dispute)


def asks(room: Room) -> bool:
    """Say whether a room's rules ask what became of payments."""
    return bool(room.on_refund or room.on_dispute)


def may_end(rooms: Iterable[Room], one: Bought) -> bool:
    """Say whether a membership runs, and opens a room whose rules would have it cancelled."""
    opens = any(cancels(room) and one.product in room.products for room in rooms)
    return opens and one.status in GIVING


def shown(substatus: str | None) -> bool:
    """Say whether a payment shows that something became of its money since it was made."""
    return substatus not in (None, "succeeded")


def judge(rooms: Iterable[Room], one: Bought, payments: Iterable[Paid]) -> Cancel | Stays | None:
    """Say whether a membership is to be cancelled; None where nothing asks for it.

    Of one that renews only its latest payment counts: an old month that was paid back ends no
    month that was not.

    Args:
        rooms: those of the rules.
        one: the membership.
        payments: all that is known of its owner's payments, each as it was read last.
    """
    if not may_end(rooms := tuple(rooms), one):
        return None
    mine = {p: p.created_at for p in payments if p.membership == one.id}
    mine = {p: at for p, at in mine.items() if p.substatus not in FAILED}
    dated = {p: at for p, at in mine.items() if at is not None}
    if not mine or len(dated) < len(mine):
        return Stays(one.id, "Whop does not say which of its payments is the latest")
    latest = max(dated.values())
    last = min((p for p, at in dated.items() if at == latest), key=_kept_first)
    for room in rooms:
        word = _word(room, last) if one.product in room.products else None
        if word and one.period_start and latest < one.period_start - EARLY:
            return Stays(one.id, f"{last.id} {_SAID[word]}, and paid for a period that is over")
        if word:
            why = f'{last.id} {_SAID[word]}, and the rules of {room.key} say {word} = "cancel"'
            return Cancel(room, one.id, last.id, why)
    return Stays(one.id, f"its latest payment {last.id} is {last.substatus}")


_SAID: Final[Mapping[str, str]] = {
    "on_refund": "was refunded whole",
    "on_dispute": "was lost in a dispute",
}


def _kept_first(paid: Paid) -> bool:
    """Sort, of payments of one instant, those first that brought money: they keep it open."""
    return paid.substatus in BACK | LOST


def _word(room: Room, paid: Paid) -> str | None:
    """Return the key of the rules by which a payment ends its membership, if one does."""
    if paid.substatus in BACK and room.on_refund == "cancel":
        return "on_refund"
    if paid.substatus in LOST and room.on_dispute == "cancel":
        return "on_dispute"
    return None


def in_words(room: Room) -> str:
    """Say what happens to buyers of a room whose money went back."""
    return f"{_refund(room)}; {_dispute(room)}"


_CANCEL: Final = "their membership is cancelled at Whop, with all that it opens"


def _refund(room: Room) -> str:
    match room.on_refund:
        case "cancel":
            return f"refunded whole, {_CANCEL}"
        case "revoke":
            return "refunded whole, they lose their seat; their membership stays"
        case "keep":
            return "refunded whole, they keep their seat, whatever becomes of their membership"
    ways = 'on_refund = "cancel" ends it'
    ways = f'on_refund = "revoke" takes the seat, {ways}' if room.cohort else ways
    stay = "keep their seat" if room.cohort else "stay in"
    return f"refunded, they {stay}: a refund does not end a membership at Whop ({ways})"


def _dispute(room: Room) -> str:
    match room.on_dispute:
        case "cancel":
            return f"a dispute lost, {_CANCEL}"
        case "revoke":
            return "disputing, they lose their seat until the dispute is won"
        case "keep":
            return "disputing, they keep their seat"
    return "a dispute changes nothing by itself"
