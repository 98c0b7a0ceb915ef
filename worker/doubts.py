"""Payments in doubt: refunded or disputed ones, by the membership that they paid for."""

from datetime import UTC, datetime
from typing import Final

from worker.memory.members import Member
from worker.policy.refunds import BACK, EARLY, IN_DISPUTE
from worker.whop.types import Payment

LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


def note_payment(known: Member, payment: Payment) -> None:
    """Keep what became of a payment; one without a membership speaks for all of its product's.

    A later payment for the same membership speaks for it anew, and what was paid for a period that
    is over says nothing of the one that runs.
    """
    bought = [id_ for id_, seen in known.seen.items() if seen.product == payment.product]
    at = payment.created_at or LONG_AGO
    for id_ in [payment.membership] if payment.membership else bought:
        for among, doubts in ((BACK, known.refunded), (IN_DISPUTE, known.disputed)):
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
