"""What Usher writes into an event room, and when: ahead of an opening, at it, and at the lock."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from worker.policy.occurrences import Occurrence
from worker.policy.schedule import LOOKAHEAD, Schedule

LATE: Final = timedelta(hours=1)
"""How long after a lock its message still makes sense."""


class When(StrEnum):
    """The moments of an occurrence at which a message may be written."""

    BEFORE = "before"
    OPENING = "opening"
    LOCK = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of the rules file; `ahead` is how long before the opening a `before` is written."""

    when: When
    text: str
    ahead: timedelta = timedelta(hours=1)
    pin: bool = False


@dataclass(frozen=True, slots=True)
class Due:
    """A message with its moment; after `until` it is no longer written.

    `key` names it among all messages of its room: an occurrence that is moved to another day gets
    its messages anew, one that is moved by some minutes does not.
    """

    key: str
    text: str
    pin: bool
    at: datetime
    until: datetime


def messages_between(
    schedule: Schedule, messages: Sequence[Message], since: datetime, until: datetime
) -> list[Due]:
    """Return the messages whose moments lie in [since, until], in order."""
    if not messages or schedule.cancelled:
        return []
    ahead = max(message.ahead for message in messages)
    found = [
        _due(schedule, one, message)
        for one in schedule.between(since, until + ahead)
        for message in messages
    ]
    return sorted((due for due in found if since <= due.at <= until), key=lambda due: due.at)


def messages_at(schedule: Schedule, messages: Sequence[Message], t: datetime) -> list[Due]:
    """Return the messages that should stand in the room at an instant, in order.

    What a worker that was away missed is not among them: nobody wants yesterday's invitation.
    """
    if not messages or schedule.cancelled:
        return []
    ahead = max(message.ahead for message in messages)
    found = [
        _due(schedule, one, message)
        for one in schedule.between(t - LATE, t + ahead)
        for message in messages
    ]
    return sorted((due for due in found if due.at <= t < due.until), key=lambda due: due.at)


def next_message(schedule: Schedule, messages: Sequence[Message], t: datetime) -> datetime | None:
    """Return the moment of the next message after an instant, if any."""
    since = t
    for reach in LOOKAHEAD:
        found = messages_between(schedule, messages, since, t + reach)
        later = [due.at for due in found if due.at > t]
        if later:
            return min(later)
        since = t + reach
    return None


def _due(schedule: Schedule, one: Occurrence, message: Message) -> Due:
    opens, locks = schedule.span(one)
    day = one.starts.astimezone(schedule.zone)
    begins, ends = {
        When.BEFORE: (opens - message.ahead, opens),
        When.OPENING: (opens, locks),
        When.LOCK: (locks, locks + LATE),
    }[message.when]
    return Due(
        key=f"{one.id}@{day:%Y-%m-%d}/{message.when}-{_digest(message)}",
        text=_filled(message.text, one, schedule),
        pin=message.pin,
        at=begins,
        until=ends,
    )


def _digest(message: Message) -> str:
    """Tell messages of one kind apart: one text may be written a day and an hour ahead."""
    return hashlib.sha256(f"{message.ahead} {message.text}".encode()).hexdigest()[:8]


def _filled(text: str, one: Occurrence, schedule: Schedule) -> str:
    """Write out `{starts}` and `{ends}` in the room's zone; other braces are the seller's own."""
    for name, t in (("{starts}", one.starts), ("{ends}", one.ends)):
        text = text.replace(name, f"{t.astimezone(schedule.zone):%a %-d %b, %H:%M %Z}")
    return text
