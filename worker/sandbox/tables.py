"""The account's objects by id, and the indexes that keep lists from scanning them."""

import heapq
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

import msgspec

from worker.sandbox.records import (
    Account,
    Channel,
    Delivery,
    Dispute,
    Experience,
    Invitation,
    Key,
    Member,
    Membership,
    Message,
    Outgoing,
    Payment,
    Plan,
    Product,
    Record,
    Refund,
    SupportChannel,
    User,
    Webhook,
)
from worker.sandbox.refusals import NotFound

R = TypeVar("R", bound=Record)


class Tables(msgspec.Struct, kw_only=True):
    """Everything that survives a restart, in the form in which it is saved."""

    account: Account
    seq: int = 0
    keys: dict[str, Key] = {}
    team: list[str] = []
    users: dict[str, User] = {}
    members: dict[str, Member] = {}
    products: dict[str, Product] = {}
    plans: dict[str, Plan] = {}
    experiences: dict[str, Experience] = {}
    channels: dict[str, Channel] = {}
    messages: dict[str, Message] = {}
    memberships: dict[str, Membership] = {}
    payments: dict[str, Payment] = {}
    refunds: dict[str, Refund] = {}
    disputes: dict[str, Dispute] = {}
    invitations: dict[str, Invitation] = {}
    support_channels: dict[str, SupportChannel] = {}
    webhooks: dict[str, Webhook] = {}
    outgoing: list[Outgoing] = []
    deliveries: list[Delivery] = []


class Index:
    """What can be found without a scan; derived from the tables, never saved."""

    def __init__(self, tables: Tables) -> None:
        self.user_by_name: dict[str, User] = {}
        self.user_by_email: dict[str, User] = {}
        self.member_by_user: dict[str, Member] = {}
        self.channel_by_experience: dict[str, Channel] = {}
        self.by_channel: defaultdict[str, dict[str, Message]] = defaultdict(dict)
        self.by_user: defaultdict[str, list[Membership]] = defaultdict(list)
        self.by_product: defaultdict[str, list[Membership]] = defaultdict(list)
        self.by_plan: defaultdict[str, list[Membership]] = defaultdict(list)
        self.payments_by_membership: defaultdict[str, list[Payment]] = defaultdict(list)
        self._ends: list[tuple[datetime, int, Membership]] = []
        for table in (tables.users, tables.members, tables.channels):
            self._add_all(table)
        self._add_all(tables.messages)
        self._add_all(tables.memberships)
        self._add_all(tables.payments)

    def _add_all(self, table: Mapping[str, Record]) -> None:
        for record in table.values():
            self.add(record)

    def add(self, record: Record) -> None:
        """Index a new record; records that are only read by id need nothing."""
        match record:
            case User():
                self.user_by_name[record.username] = record
                self.user_by_email[record.email] = record
            case Member():
                self.member_by_user[record.user_id] = record
            case Channel():
                self.channel_by_experience[record.experience_id] = record
            case Message():
                self.by_channel[record.channel_id][record.id] = record
            case Membership():
                self._add_membership(record)
            case Payment():
                self.payments_by_membership[record.membership_id].append(record)

    def _add_membership(self, membership: Membership) -> None:
        self.by_product[membership.product_id].append(membership)
        self.by_plan[membership.plan_id].append(membership)
        if membership.user_id is not None:
            self.by_user[membership.user_id].append(membership)
        self.will_end(membership)

    def move(self, membership: Membership, user_id: str) -> None:
        """Note that a membership is another user's."""
        if membership.user_id is not None:
            self.by_user[membership.user_id].remove(membership)
        self.by_user[user_id].append(membership)

    def will_end(self, membership: Membership) -> None:
        """Note the end of a membership's period, if it has one and goes on until then."""
        if membership.period_end is not None and not membership.ended:
            heapq.heappush(self._ends, (membership.period_end, membership.seq, membership))

    def next_end(self) -> Membership | None:
        """Return the membership whose period ends first of all; None where none will."""
        while self._ends:
            at, _, membership = self._ends[0]
            if membership.period_end == at and not membership.ended:
                return membership
            heapq.heappop(self._ends)  # it has ended, or has another period by now
        return None


def find(table: Mapping[str, R], record_id: str, noun: str) -> R:
    """Return the record, or refuse as Whop does.

    Raises:
        NotFound: nothing has this id.
    """
    record = table.get(record_id)
    if record is None:
        raise NotFound(f"{noun} not found: {record_id}")
    return record


def iso(moment: datetime | None) -> str | None:
    """Write a moment as Whop does: ISO 8601, UTC, milliseconds, `Z`."""
    return None if moment is None else when(moment)


def when(moment: datetime) -> str:
    """Write a moment that is there, as `iso` does."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
