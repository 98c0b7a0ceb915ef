"""Who paid for what, judged from Whop's side alone: nothing that Usher remembers is asked."""

from datetime import datetime, timedelta
from typing import Final

from worker.policy.rooms import Room
from worker.rules import Rules
from worker.sandbox.records import Membership, Record
from worker.sandbox.state import LocalWhop
from worker.simulate.troubles import Excuses

PAST_DUE: Final = "past_due"
REFUNDED: Final = frozenset({"refunded"})
LOST: Final = frozenset({"dispute_lost", "dispute_prevented"})
DISPUTED: Final = frozenset({"dispute_needs_response", "dispute_lost"})


class Entitled:
    """The purchases, with what the rules make of each at an instant."""

    def __init__(self, rules: Rules, whop: LocalWhop, excuses: Excuses) -> None:
        self._rules = rules
        self._whop = whop
        self._excuses = excuses
        self._past_due: dict[str, datetime] = {}

    def hear(self, held: Membership, now: datetime) -> list[datetime]:
        """Take note of a change; returns when time alone changes what this purchase opens."""
        if held.status != PAST_DUE:
            self._past_due.pop(held.id, None)
            return []
        since = self._past_due.setdefault(held.id, now)
        return [since + room.grace for room in self._rules.rooms if room.cohort]

    def may_enter(self, user: str, room: Room, now: datetime) -> bool | None:
        """Say whether a member should be in a room; None where either is right."""
        held = self._whop.index.by_user[user]
        each = [self._opens(one, room, now) for one in held if one.product_id in room.products]
        if True in each:
            return None if self._invited(user) else True
        return None if None in each else False

    def _opens(self, held: Membership, room: Room, now: datetime) -> bool | None:
        for rule, doubt in ((room.on_refund, REFUNDED), (room.on_dispute, LOST)):
            if rule == "cancel" and self._doubted(held, doubt):
                return False
        if room.cohort is None:
            return held.entitled
        for rule, doubt in ((room.on_refund, REFUNDED), (room.on_dispute, DISPUTED)):
            if rule not in (None, "cancel") and self._doubted(held, doubt):
                return rule == "keep"
        if held.status != PAST_DUE:
            return held.entitled
        return self._in_grace(self._past_due[held.id], room.grace, now)

    def _doubted(self, held: Membership, doubt: frozenset[str]) -> bool:
        """Say whether the money for a membership's running period went back, or is disputed."""
        payments = self._whop.index.payments_by_membership[held.id]
        settled = [one.substatus for one in payments if one.substatus != PAST_DUE]
        return bool(settled) and settled[-1] in doubt

    def _in_grace(self, since: datetime, grace: timedelta, now: datetime) -> bool | None:
        """Say whether the grace lasts; Usher reckons it from when it could first know."""
        if now < since + grace:
            return True
        known = self._excuses.stretch(since, timedelta(0))
        return None if known > since and now < known + grace else False

    def _invited(self, user: str) -> bool:
        """Say whether an invitation, or a link, waits for the member's own word."""
        tables = self._whop.tables
        if any(one.user_id == user for one in tables.support_channels.values()):
            return True
        invitations = tables.invitations.values()
        return any(one.user_id == user and one.accepted_at is None for one in invitations)

    def buyer(self, record: Record) -> str | None:
        """Return the user whom a record of Whop's concerns."""
        tables = self._whop.tables
        payment = tables.payments.get(getattr(record, "payment_id", ""))
        user = getattr(payment or record, "user_id", None)
        return user if isinstance(user, str) else None
