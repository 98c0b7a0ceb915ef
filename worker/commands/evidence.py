"""What Redis holds of the past, opened for a command: deliveries, jobs, trails, the dead."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from webhooks.inbox import Inbox, connect
from worker.admin.reach import reaching
from worker.commands.deliveries import Deliveries
from worker.leases import Leases
from worker.rules import Rules
from worker.store import Store
from worker.subjects import Subjects
from worker.tables import duration

Echo = Callable[[str], None]
"""How a command prints a line."""


class NotFound(ValueError):
    """What was named is not there, or cannot be meant; the message says what to name instead."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One account's side of Redis, as the commands that look back need it."""

    rules: Rules
    redis: Any
    inbox: Inbox
    store: Store
    subjects: Subjects
    leases: Leases
    deliveries: Deliveries

    @property
    def prefix(self) -> str:
        """What all keys of the account begin with."""
        return self.inbox.prefix


@contextlib.asynccontextmanager
async def opened(rules: Rules, redis_url: str) -> AsyncIterator[Evidence]:
    """Open an account's evidence for the length of a block.

    Raises:
        Unreachable: Redis does not answer.
        ValueError: the URL is none.
    """
    redis = connect(redis_url)
    inbox = Inbox(redis, rules.account)
    leases = Leases(redis, inbox.prefix, "command")
    try:
        with reaching():
            yield Evidence(
                rules=rules,
                redis=redis,
                inbox=inbox,
                store=Store(redis, inbox.prefix),
                subjects=Subjects(redis, inbox.prefix, leases),
                leases=leases,
                deliveries=Deliveries(redis, inbox.prefix),
            )
    finally:
        await redis.aclose()


def before(now: datetime, age: str | None, option: str) -> datetime | None:
    """Return the instant that is an age such as 30m, 2h or 3d ago; None where none is said.

    Raises:
        NotFound: it is no length of time.
    """
    if age is None:
        return None
    try:
        return now - duration(age)
    except ValueError:
        raise NotFound(f"{option} {age}: expected a length of time such as 30m, 2h or 3d") from None
