"""What the parts of the local Whop share: the tables, the clock, the ids and the events."""

import string
from collections import deque
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any, Protocol, TypeVar, cast

import msgspec

from worker.sandbox import envelopes
from worker.sandbox.faults import Faults
from worker.sandbox.outbox import Outbox
from worker.sandbox.records import Membership, Outgoing, Payment, Record, Webhook
from worker.sandbox.tables import Index, Tables

ALPHABET = string.ascii_letters + string.digits
ID_LENGTH = 14
VERSIONS = 8
"""Earlier states of a membership or payment that are kept, for lists that are behind."""

R = TypeVar("R", bound=Record)


class Listener(Protocol):
    """Whoever wants to see every event as it happens, apart from the webhooks."""

    def __call__(self, event: str, record: Record) -> None:
        """Take notice of an event."""


class Core:
    """The one place where ids are made, records are kept and events are sent."""

    def __init__(self, tables: Tables, *, clock: Callable[[], datetime], rng: Random) -> None:
        self.clock = clock
        self.rng = rng
        self.faults = Faults()
        self.revision = 0
        self.listeners: list[Listener] = []
        self.tables = tables
        self.index = Index(tables)
        self._versions: dict[str, deque[tuple[datetime, Record]]] = {}
        self.outbox = Outbox(tables, faults=self.faults, rng=rng, new_id=self.new_id)

    def load(self, tables: Tables) -> None:
        """Take over other tables, as they were saved."""
        self.tables = tables
        self.index = Index(tables)
        self.outbox.load(tables)
        self.revision += 1

    def now(self) -> datetime:
        """Return the time in whole milliseconds, which is how Whop writes it."""
        now = self.clock()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def new_id(self, prefix: str) -> str:
        """Make an id in Whop's form: a prefix and 14 letters and digits."""
        return prefix + "".join(self.rng.choices(ALPHABET, k=ID_LENGTH))

    def stamp(self, prefix: str, given: str | None = None) -> dict[str, Any]:
        """Return the fields that every new record begins with."""
        now = self.now()
        self.tables.seq += 1
        record_id = given or self.new_id(prefix)
        return {"id": record_id, "seq": self.tables.seq, "created_at": now, "updated_at": now}

    def touch(self, record: Record | None = None) -> None:
        """Note a change, so that it is saved."""
        self.revision += 1
        if record is not None:
            record.updated_at = self.now()
            self._keep_version(record)

    def as_of(self, record: R, at: datetime) -> R | None:
        """Return a record as it was at an instant; None where it did not exist yet."""
        past = [then for since, then in self._versions.get(record.id, ()) if since <= at]
        if past:
            return cast("R", past[-1])
        return record if record.created_at <= at and record.id not in self._versions else None

    def _keep_version(self, record: Record) -> None:
        if isinstance(record, Membership | Payment):
            kept = self._versions.setdefault(record.id, deque(maxlen=VERSIONS))
            kept.append((self.clock(), msgspec.structs.replace(record)))

    def emit(self, event: str, record: Record, *, previous: dict[str, Any] | None = None) -> None:
        """Send an event to every webhook that subscribes to it, as things stand now."""
        self.touch()
        self._keep_version(record)
        for listener in self.listeners:
            listener(event, record)
        for hook in self.tables.webhooks.values():
            if hook.enabled and event in hook.events:
                self._send(hook, event, record, previous)

    def _send(
        self, hook: Webhook, event: str, record: Record, previous: dict[str, Any] | None
    ) -> None:
        now = self.now()
        message_id = self.new_id("msg_")
        pinned = hook.api_version_date is not None
        body = envelopes.envelope(
            self.tables,
            hook,
            message_id=message_id,
            event=event,
            now=now,
            content=envelopes.data(self.tables, record, pinned=pinned),
            previous=previous,
        )
        self.outbox.put(
            hook, message_id=message_id, event=event, resource_id=record.id, body=body, now=now
        )

    def send_again(self, hook: Webhook, message: Outgoing) -> None:
        """Queue a replay of a logged message."""
        self.outbox.put(
            hook,
            message_id=message.message_id,
            event=message.event,
            resource_id=message.resource_id,
            body=message.body,
            now=self.now(),
            replayed_from=message.replayed_from,
        )
