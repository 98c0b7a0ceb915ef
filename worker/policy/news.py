"""Whether a delivery tells anything that the last look at its member did not show.

A purchase sends several deliveries, and Usher's own grants send some too. Where all of them
describe memberships just as Whop showed them when we last read, there is nothing to read again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from worker.policy.access import ENTITLING, PAST_DUE, Membership


class Shown(Membership, Protocol):
    """A membership with the instant of its last change."""

    @property
    def updated_at(self) -> datetime | None:
        """When Whop last changed what it shows."""

    @property
    def period_start(self) -> datetime | None:
        """When the period began that is paid for."""

    @property
    def canceled_at(self) -> datetime | None:
        """When it was cancelled, or its cancellation was asked for."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A membership as Whop last showed it."""

    status: str
    product: str | None
    updated_at: datetime | None
    plan: str | None = None
    created_at: datetime | None = None
    period_end: datetime | None = None
    period_start: datetime | None = None
    canceled_at: datetime | None = None

    @classmethod
    def of(cls, shown: Shown) -> "Seen":
        """Take down what Whop shows of a membership."""
        bought = (shown.plan, shown.created_at, shown.period_end, shown.period_start)
        return cls(shown.status, shown.product, shown.updated_at, *bought, shown.canceled_at)


class Hint(Protocol):
    """The parts of a delivery that may be news."""

    @property
    def type(self) -> str:
        """Whop's name of the event."""

    @property
    def membership(self) -> str | None:
        """The membership that it speaks of."""

    @property
    def product(self) -> str | None:
        """The product that it speaks of."""

    @property
    def plan(self) -> str | None:
        """The plan that it speaks of."""

    @property
    def status(self) -> str | None:
        """The status that it says."""

    @property
    def updated_at(self) -> datetime | None:
        """When Whop last changed what it shows."""


def is_news(hint: Hint, seen: Mapping[str, Seen]) -> bool:
    """Say whether a member must be read again because of a delivery. In doubt: yes."""
    known = seen.get(hint.membership) if hint.membership else None
    if hint.type.startswith("membership."):
        return known is None or _differs(hint, known) or _later(hint, known)
    if hint.type == "payment.succeeded":
        named = (
            [known] if hint.membership else [s for s in seen.values() if s.product == hint.product]
        )
        return not any(one and one.status in ENTITLING for one in named)
    if hint.type == "payment.failed":
        return known is None or known.status != PAST_DUE
    return True


def _differs(hint: Hint, known: Seen) -> bool:
    """Say whether a membership is told otherwise than it was seen: moved to another plan, too."""
    pairs = ((hint.product, known.product), (hint.plan, known.plan))
    moved = any(told and shown and told != shown for told, shown in pairs)
    return moved or hint.status != known.status


def _later(hint: Hint, known: Seen) -> bool:
    if hint.updated_at is None or known.updated_at is None:
        return True
    return hint.updated_at > known.updated_at
