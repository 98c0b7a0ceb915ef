"""The wire without sockets: calls to the local Whop, and its deliveries to the receiver."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import httpx
from starlette.types import ASGIApp

from worker.sandbox.deliveries import signature
from worker.sandbox.outbox import Outcome
from worker.sandbox.records import Outgoing, Webhook
from worker.sandbox.state import LocalWhop
from worker.whop.quota import DEFAULT, Quota, Rank

HOOK_URL: Final = "http://usher.simulated/webhooks/whop"
AT_ONCE: Final = 1000
"""Messages that are taken from the outbox at a time."""

MINUTE: Final = timedelta(seconds=DEFAULT[1])


class Killed(BaseException):
    """The worker's process ended in the middle of a job."""


class Line(httpx.AsyncBaseTransport):
    """The worker's line to the local Whop; on request the worker dies at one of its next calls."""

    def __init__(self, whop: ASGIApp) -> None:
        self._whop = httpx.ASGITransport(whop)
        self._fuse: int | None = None
        self._after = False

    def trip(self, calls: int, *, after: bool) -> None:
        """Kill the worker at its so-manieth call from now: before it leaves, or once it arrived."""
        self._fuse, self._after = calls, after

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a call on.

        Raises:
            Killed: this is the call that the worker does not survive.
        """
        dies = self._burn()
        if dies and not self._after:
            raise Killed
        answer = await self._whop.handle_async_request(request)
        if dies:
            raise Killed
        return answer

    def _burn(self) -> bool:
        if self._fuse is None:
            return False
        self._fuse -= 1
        if self._fuse > 0:
            return False
        self._fuse = None
        return True


@dataclass(frozen=True, slots=True)
class Worst:
    """The most calls of one operation in any 60 seconds, and when that was."""

    operation: str
    calls: int
    at: datetime


class CountedQuota(Quota):
    """Counts calls and lets each go at once: the local Whop itself refuses what is too many."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._recent: defaultdict[str, deque[datetime]] = defaultdict(deque)
        self.calls: Counter[str] = Counter()
        self.worst: Worst | None = None

    async def wait(self, operation: str, rank: Rank = Rank.OTHER) -> None:  # noqa: ARG002 - nobody waits
        """Count a call of an operation."""
        now, recent = self._clock(), self._recent[operation]
        self.calls[operation] += 1
        recent.append(now)
        while recent[0] <= now - MINUTE:
            recent.popleft()
        if self.worst is None or len(recent) > self.worst.calls:
            self.worst = Worst(operation, len(recent), now)


class Courier:
    """Delivers the local Whop's messages to the receiver, signed as Whop signs."""

    def __init__(self, whop: LocalWhop, receiver: ASGIApp, clock: Callable[[], datetime]) -> None:
        self._whop = whop
        self._receiver = httpx.ASGITransport(receiver)
        self._clock = clock
        self.away_until: datetime | None = None
        self.answers: Counter[int] = Counter()

    async def deliver(self) -> bool:
        """Deliver all that is due; say whether anything was."""
        due = self._whop.outbox.take(self._clock(), AT_ONCE)
        for message in due:
            hook = self._whop.tables.webhooks.get(message.webhook_id)
            if hook is None or not hook.enabled:
                self._whop.outbox.forget(message)
            else:
                outcome = await self._post(hook, message)
                self.answers[outcome.code] += 1
                self._whop.outbox.settle(message, outcome, self._whop.now())
        return bool(due)

    async def _post(self, hook: Webhook, message: Outgoing) -> Outcome:
        now = self._clock()
        if self.away_until is not None and now < self.away_until:
            return Outcome(0, b"nobody listens", 0.0)
        body, moment = bytes(message.body), int(now.timestamp())
        headers = {
            "content-type": "application/json",
            "webhook-id": message.message_id,
            "webhook-timestamp": str(moment),
            "webhook-signature": signature(hook.secret, message.message_id, moment, body),
        }
        request = httpx.Request("POST", hook.url, content=body, headers=headers)
        answer = await self._receiver.handle_async_request(request)
        return Outcome(answer.status_code, await answer.aread(), 0.0)
