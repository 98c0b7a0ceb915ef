"""The outgoing webhooks: what is due, what is on its way, what came of it. No I/O, no clock.

Whop sends at least once and in no promised order: the first attempt and up to twelve more, the
last about 71 hours after the first, and then it gives up (Whop: Webhooks). `Faults.retry_clock`
makes those hours shorter.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from random import Random

import msgspec

from worker.sandbox.faults import Faults
from worker.sandbox.records import Delivery, Outgoing, Webhook
from worker.sandbox.tables import Tables

RETRY_SECONDS = (30.0, 120.0, 480.0, 1800.0, 3600.0, 10_800.0, 21_600.0, *[43_200.0] * 5)
"""How long after an attempt that failed the next one comes."""
PATIENCE = timedelta(hours=72)
FAILURES = 10
"""Whop disables a webhook of which every delivery failed for so long, if so many did."""
RETENTION = timedelta(days=30)
SUCCESS_CLASS = 2
LOG_SIZE = 10_000
"""Whop keeps deliveries for 30 days; the local Whop no more than this many of them, unless it
is told otherwise."""

Due = tuple[datetime, int, Outgoing]


class Outcome(msgspec.Struct, frozen=True):
    """What an endpoint answered; code 0 means that no answer came."""

    code: int
    body: bytes
    seconds: float

    @property
    def success(self) -> bool:
        """Say whether Whop takes this for an acknowledgement: any 2xx."""
        return self.code // 100 == SUCCESS_CLASS


class Outbox:
    """Messages to deliver, ordered by when they are due, and the log of the attempts."""

    def __init__(
        self,
        tables: Tables,
        *,
        faults: Faults,
        rng: Random,
        new_id: Callable[[str], str],
        retry_seconds: Sequence[float] = RETRY_SECONDS,
    ) -> None:
        self.faults = faults
        self.retry_seconds = retry_seconds
        self.log_size = LOG_SIZE
        self.wake: Callable[[], None] = lambda: None
        self.dropped = 0
        self._rng = rng
        self._new_id = new_id
        self._seq = 0
        self.load(tables)

    def load(self, tables: Tables) -> None:
        """Take over what was waiting, or on its way, when the tables were saved."""
        self._tables = tables
        self._in_flight: dict[int, Outgoing] = {}
        self._due: list[Due] = [(out.due, out.seq, out) for out in tables.outgoing]
        heapq.heapify(self._due)
        self._log: deque[Delivery] = deque(tables.deliveries)
        self._by_id = {delivery.id: delivery for delivery in tables.deliveries}
        seen = [out.seq for out in tables.outgoing] + [one.seq for one in tables.deliveries]
        self._seq = max([self._seq, *seen])

    def store(self) -> None:
        """Write what is waiting or on its way, and the log, into the tables."""
        waiting = [out for _, _, out in self._due]
        self._tables.outgoing = [*self._in_flight.values(), *waiting]
        self._tables.deliveries = list(self._log)

    def __len__(self) -> int:
        return len(self._due) + len(self._in_flight)

    def put(
        self,
        hook: Webhook,
        *,
        message_id: str,
        event: str,
        resource_id: str,
        body: msgspec.Raw,
        now: datetime,
        replayed_from: str | None = None,
    ) -> None:
        """Queue a message, with whatever the faults do to it."""
        if self._happens(self.faults.drop):
            self.dropped += 1
            return
        for _ in range(2 if self._happens(self.faults.duplicate) else 1):
            message = Outgoing(
                seq=self._next(),
                webhook_id=hook.id,
                message_id=message_id,
                event=event,
                resource_id=resource_id,
                body=body,
                due=now + self._hold_back(),
                replayed_from=replayed_from,
            )
            heapq.heappush(self._due, (message.due, message.seq, message))
        self.wake()

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability

    def _hold_back(self) -> timedelta:
        held = self._happens(self.faults.reorder)
        return timedelta(seconds=self._rng.uniform(0, self.faults.reorder_seconds) if held else 0)

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def next_due(self) -> datetime | None:
        """Return when the next message is due; None while there is none or deliveries pause."""
        return self._due[0][0] if self._due and not self.faults.deliveries_paused else None

    def take(self, now: datetime, limit: int) -> list[Outgoing]:
        """Take up to `limit` messages that are due; each must be settled, or it is sent again."""
        taken: list[Outgoing] = []
        while len(taken) < limit and (due := self.next_due()) is not None and due <= now:
            message = heapq.heappop(self._due)[2]
            self._in_flight[message.seq] = message
            taken.append(message)
        return taken

    def settle(self, message: Outgoing, outcome: Outcome, now: datetime) -> Delivery:
        """Log an attempt; after a failure plan the next one, or give up."""
        del self._in_flight[message.seq]
        delivery = self.log(message, outcome, now)
        hook = self._tables.webhooks.get(message.webhook_id)
        if hook is not None:
            self._remember_health(hook, message, outcome, now)
            if not outcome.success:
                self._retry(message, now)
        return delivery

    def forget(self, message: Outgoing) -> None:
        """Drop a message whose webhook is gone or disabled."""
        del self._in_flight[message.seq]

    def _retry(self, message: Outgoing, now: datetime) -> None:
        if message.attempt >= len(self.retry_seconds):
            return
        pause = self.retry_seconds[message.attempt] / self.faults.retry_clock
        message.due = now + timedelta(seconds=pause)
        message.attempt += 1
        heapq.heappush(self._due, (message.due, message.seq, message))
        self.wake()

    def hasten(self, times: float, now: datetime) -> None:
        """Have what waits for another attempt come so many times sooner: the clock was changed."""
        for _, _, message in self._due:
            if message.attempt:
                message.due = now + (message.due - now) / times
        self._due = [(message.due, message.seq, message) for _, _, message in self._due]
        heapq.heapify(self._due)
        self.wake()

    def _remember_health(
        self, hook: Webhook, message: Outgoing, outcome: Outcome, now: datetime
    ) -> None:
        """Keep the health fields as Whop describes them; only first attempts count as failures."""
        if outcome.success:
            hook.consecutive_failures, hook.failing_since = 0, None
            return
        if message.attempt == 0:
            hook.consecutive_failures += 1
            hook.failing_since = hook.failing_since or now
        if message.attempt >= len(self.retry_seconds):
            hook.last_failure_at = now
        since = hook.failing_since or now
        long = now - since >= PATIENCE / self.faults.retry_clock
        if long and hook.consecutive_failures >= FAILURES:
            hook.enabled, hook.disabled_at = False, now

    def log(self, message: Outgoing, outcome: Outcome, now: datetime) -> Delivery:
        """Enter one attempt into the delivery log."""
        delivery = Delivery(
            id=self._new_id("whdel_"),
            seq=self._next(),
            webhook_id=message.webhook_id,
            message_id=message.message_id,
            event=message.event,
            resource_id=message.resource_id,
            request_body=message.body,
            response_body=_as_json(outcome.body),
            response_code=outcome.code,
            sent_at=now,
            success=outcome.success,
            total_time=outcome.seconds,
            replayed_from=message.replayed_from,
        )
        self._log.append(delivery)
        self._by_id[delivery.id] = delivery
        while len(self._log) > self.log_size or self._log[0].sent_at < now - RETENTION:
            del self._by_id[self._log.popleft().id]
        return delivery

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return one entry of the log."""
        return self._by_id.get(delivery_id)

    def newest_first(self, webhook_id: str) -> Iterator[Delivery]:
        """Yield a webhook's entries of the log."""
        return (entry for entry in reversed(self._log) if entry.webhook_id == webhook_id)


def _as_json(body: bytes) -> msgspec.Raw:
    """Return a JSON object as it is, and anything else as Whop logs it: `{error, raw_body}`."""
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raw = body[:100].decode(errors="replace")
        return msgspec.Raw(msgspec.json.encode({"error": "not JSON", "raw_body": raw}))
    return msgspec.Raw(body)
