"""Payments in doubt: refunded or disputed ones, by the membership that they paid for."""

from datetime import UTC, datetime, timedelta
from typing import Final

from worker.memory.members import Member
from worker.whop.types import Payment

MONEY_BACK: Final = frozenset({"refunded", "auto_refunded"})
"""Substatuses of a payment that was paid back whole (Whop: Payment.substatus)."""

IN_DISPUTE: Final = frozenset(
    {"open_dispute", "dispute_needs_response", "dispute_under_review", "dispute_lost"}
)
"""Substatuses of a payment that is disputed or lost. An inquiry (`dispute_warning...`) moves no
money, and a dispute that was won is over."""

EARLY: Final = timedelta(days=2)
"""How long before a period its payment may be made."""

LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


def note_payment(known: Member, payment: Payment) -> None:
    """Keep what became of a payment; one without a membership speaks for all of its product's.

    A later payment for the same membership speaks for it anew, and what was paid for a period that
    is over says nothing of the one that runs.
    """
    bought = [id_ for id_, seen in known.seen.items() if seen.product == payment.product]
    at = payment.created_at or LONG_AGO
    for id_ in [payment.membership] if payment.membership else bought:
        for among, doubts in ((MONEY_BACK, known.refunded), (IN_DISPUTE, known.disputed)):
            mine = doubts.pop(id_, {})
            mine.pop(payment.id, None)
            if payment.substatus in among and at >= _running_since(known, id_):
                mine[payment.id] = at
            elif payment.substatus == "succeeded":
                mine = {other: when for other, when in mine.items() if when > at}
            if mine:
                doubts[id_] = mine


def _running_since(known: Member, membership: str) -> datetime:
    """Return from when on a payment may be for the period that runs."""
    seen = known.seen.get(membership)
    return seen.period_start - EARLY if seen and seen.period_start else LONG_AGO
