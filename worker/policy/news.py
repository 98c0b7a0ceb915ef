"""Whether a delivery tells anything that the last look at its member did not show.

A purchase sends several deliveries, and Usher's own grants send some too. Where all of them
describe memberships just as Whop showed them when we last read, there is nothing to read again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from worker.policy.access import ENTITLING, PAST_DUE, Membership

LAG = timedelta(seconds=5)
"""When to read again after a read that was behind a delivery."""


class Shown(Membership, Protocol):
    """A membership with the instant of its last change."""

    @property
    def updated_at(self) -> datetime | None:
        """When Whop last changed what it shows."""

    @property
    def period_start(self) -> datetime | None:
        """When the period began that is paid for."""


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

    @classmethod
    def of(cls, shown: Shown) -> "Seen":
        """Take down what Whop shows of a membership."""
        bought = (shown.plan, shown.created_at, shown.period_end, shown.period_start)
        return cls(shown.status, shown.product, shown.updated_at, *bought)


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
    def status(self) -> str | None:
        """The status that it says."""

    @property
    def updated_at(self) -> datetime | None:
        """When Whop last changed what it shows."""


def is_news(hint: Hint, seen: Mapping[str, Seen]) -> bool:
    """Say whether a member must be read again because of a delivery. In doubt: yes."""
    known = seen.get(hint.membership) if hint.membership else None
    if hint.type.startswith("membership."):
        return known is None or hint.status != known.status or _later(hint, known)
    if hint.type == "payment.succeeded":
        named = (
            [known] if hint.membership else [s for s in seen.values() if s.product == hint.product]
        )
        return not any(one and one.status in ENTITLING for one in named)
    if hint.type == "payment.failed":
        return known is None or known.status != PAST_DUE
    return True


def is_ahead(hint: Hint, seen: Mapping[str, Seen]) -> bool:
    """Say whether a delivery tells of a membership that a later read does not show, or shows older.

    Whop does not say that its lists are up to date when its deliveries go out.
    """
    if not hint.type.startswith("membership.") or hint.membership is None:
        return False
    known = seen.get(hint.membership)
    return known is None or (hint.updated_at is not None and _later(hint, known))


def _later(hint: Hint, known: Seen) -> bool:
    if hint.updated_at is None or known.updated_at is None:
        return True
    return hint.updated_at > known.updated_at
