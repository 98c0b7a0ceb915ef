"""The webhook sender: takes what is due from the outbox, signs it, POSTs it, says what came."""

import asyncio
import base64
import hashlib
import hmac
from time import perf_counter

from worker.sandbox.outbox import Outcome
from worker.sandbox.records import Delivery, Outgoing, Webhook
from worker.sandbox.state import LocalWhop
from worker.sandbox.wire import Broken, Wire

CONCURRENCY = 64
PAUSE_CHECK_SECONDS = 0.05
TIMEOUT_SECONDS = 5.0
"""How long an endpoint may take. A redirect is not followed: it has failed (Whop: Webhooks)."""


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Sign as Whop does: the key is the literal bytes of the secret, its `ws_` included."""
    content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    digest = hmac.digest(secret.encode(), content, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


class Sender:
    """Delivers the outbox of one local Whop for as long as `run` runs."""

    def __init__(
        self,
        whop: LocalWhop,
        *,
        concurrency: int = CONCURRENCY,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._whop = whop
        self._concurrency = concurrency
        self._timeout_seconds = timeout_seconds
        self._wire = Wire()
        self._busy: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Deliver until canceled; what is on its way then is sent again after a restart."""
        self._whop.outbox.wake = self._news.set
        try:
            while True:
                self._news.clear()
                self._start_what_is_due()
                await self._wait()
        finally:
            for task in self._busy:
                task.cancel()
            await asyncio.gather(*self._busy, return_exceptions=True)
            self.close()

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._wire.close()

    def _start_what_is_due(self) -> None:
        free = self._concurrency - len(self._busy)
        for message in self._whop.outbox.take(self._whop.core.clock(), free):
            task = asyncio.create_task(self._deliver(message))
            self._busy.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._busy.discard(task)
        self._news.set()

    async def _wait(self) -> None:
        """Sleep until something is put, done or due."""
        try:
            async with asyncio.timeout(self._seconds_to_wait()):
                await self._news.wait()
        except TimeoutError:
            return

    def _seconds_to_wait(self) -> float | None:
        """Return how long nothing can be due; a pause of the deliveries may end unannounced."""
        if self._whop.faults.deliveries_paused:
            return PAUSE_CHECK_SECONDS
        due = self._whop.outbox.next_due()
        if due is None or len(self._busy) >= self._concurrency:
            return None
        return max((due - self._whop.core.clock()).total_seconds(), 0)

    async def _deliver(self, message: Outgoing) -> None:
        hook = self._whop.tables.webhooks.get(message.webhook_id)
        if hook is None or not hook.enabled:
            self._whop.outbox.forget(message)
            return
        outcome = await self._post(hook, message)
        self._whop.outbox.settle(message, outcome, self._whop.now())
        self._whop.core.touch()

    async def post(self, message: Outgoing) -> Delivery:
        """Deliver one message at once, without retries, and log it."""
        hook = self._whop.hooks.get(message.webhook_id)
        outcome = await self._post(hook, message)
        return self._whop.outbox.log(message, outcome, self._whop.now())

    async def _post(self, hook: Webhook, message: Outgoing) -> Outcome:
        """Make one attempt, signed with the time of now."""
        began = perf_counter()
        body = bytes(message.body)
        headers = self._headers(hook, message, body)
        try:
            answer = await self._wire.post(
                hook.url, headers, body, timeout_seconds=self._timeout_seconds
            )
        except (OSError, ValueError, Broken) as broken:
            reason = f"{type(broken).__name__}: {broken}".encode()
            return Outcome(0, reason, perf_counter() - began)
        return Outcome(answer.status, answer.body, perf_counter() - began)

    def _headers(self, hook: Webhook, message: Outgoing, body: bytes) -> dict[str, str]:
        timestamp = int(self._whop.core.clock().timestamp())
        return {
            "content-type": "application/json",
            "webhook-id": message.message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(hook.secret, message.message_id, timestamp, body),
        }
