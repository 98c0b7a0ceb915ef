"""The seller's webhooks: their settings, and replays from the delivery log."""

import re
from datetime import datetime

from worker.sandbox import bodies, envelopes
from worker.sandbox.core import Core
from worker.sandbox.records import Delivery, Outgoing, Webhook
from worker.sandbox.refusals import BadRequest, Conflict, NotFound, Unprocessable
from worker.sandbox.tables import find

URL = re.compile(r"https?://[^\s/?#]+[^\s#]*")
EVENTS = frozenset(
    {
        "chat.message.created",
        "dispute.created",
        "dispute.updated",
        "membership.activated",
        "membership.cancel_at_period_end_changed",
        "membership.deactivated",
        "membership.trial_ending_soon",
        "membership.updated",
        "payment.failed",
        "payment.succeeded",
        "refund.created",
        "refund.updated",
    }
)
"""Events that somebody can subscribe to here; `trial_ending_soon` is never fired."""

OTHERS = (
    "account.",
    "card.",
    "chat.",
    "dispute_alert.",
    "entry.",
    "invoice.",
    "member.",
    "payment.",
    "plan.",
    "product.",
    "resolution_center_case.",
    "shipment.",
)
"""Events that Whop has besides, by how they begin: they can be subscribed to and never fire."""


class Hooks:
    """Where the seller listens."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def get(self, webhook_id: str) -> Webhook:
        """Return a webhook."""
        return find(self._core.tables.webhooks, webhook_id, "Webhook")

    def create(self, wanted: bodies.NewWebhook, *, secret: str | None = None) -> Webhook:
        """Create a webhook with a secret of Whop's form: `ws_` and 64 hex digits."""
        if wanted.api_version is not None:
            raise BadRequest("api_version is no longer accepted; new webhooks are always v1")
        if wanted.resource_id not in (None, self._core.tables.account.id):
            raise NotFound(f"Account not found: {wanted.resource_id}")
        _check_url(wanted.url)
        _check_events(wanted.events)
        hook = Webhook(
            **self._core.stamp("hook_"),
            url=wanted.url,
            secret=secret or f"ws_{self._core.rng.getrandbits(256):064x}",
            events=wanted.events,
            api_version_date=wanted.api_version_date,
            enabled=wanted.enabled,
            child_resource_events=wanted.child_resource_events,
        )
        self._core.tables.webhooks[hook.id] = hook
        self._core.touch()
        return hook

    def update(self, webhook_id: str, patch: bodies.WebhookPatch) -> Webhook:
        """Change the fields that were sent; enabling it again forgives its failures."""
        hook = self.get(webhook_id)
        changes = bodies.sent(patch)
        _check_url(changes.get("url", hook.url))
        _check_events(changes.get("events", []))
        if changes.get("enabled"):
            hook.consecutive_failures, hook.failing_since, hook.disabled_at = 0, None, None
        for name, value in changes.items():
            setattr(hook, name, value)
        self._core.touch(hook)
        return hook

    def delete(self, webhook_id: str) -> None:
        """Delete a webhook; what is still on its way to it is not sent."""
        del self._core.tables.webhooks[self.get(webhook_id).id]
        self._core.touch()

    def resend(self, webhook_id: str, delivery_id: str, *, regenerate: bool) -> Outgoing:
        """Return the message of one logged delivery, to be sent again now."""
        hook = self._enabled(webhook_id)
        delivery = self._core.outbox.delivery(delivery_id)
        if delivery is None or delivery.webhook_id != hook.id:
            raise NotFound(f"Delivery not found: {delivery_id}")
        return self._again(delivery, regenerate=regenerate)

    def replay(self, webhook_id: str, wanted: bodies.ReplayMany) -> int:
        """Queue every message of a window again, each once; return how many."""
        hook = self._enabled(webhook_id)
        since = _moment("sent_after", wanted.sent_after)
        until = _moment("sent_before", wanted.sent_before) if wanted.sent_before else None
        last: dict[str, Delivery] = {}
        for entry in self._core.outbox.newest_first(hook.id):
            inside = since <= entry.sent_at and (until is None or entry.sent_at <= until)
            if inside and (wanted.events is None or entry.event in wanted.events):
                last.setdefault(entry.message_id, entry)
        chosen = [one for one in last.values() if not (wanted.failed_only and one.success)]
        for delivery in reversed(chosen):
            self._core.send_again(hook, self._again(delivery, regenerate=wanted.regenerate_ids))
        return len(chosen)

    def _enabled(self, webhook_id: str) -> Webhook:
        hook = self.get(webhook_id)
        if not hook.enabled:
            raise Conflict("Only an enabled webhook can be replayed or tested")
        return hook

    def _again(self, delivery: Delivery, *, regenerate: bool) -> Outgoing:
        message_id = self._core.new_id("msg_") if regenerate else delivery.message_id
        body = delivery.request_body
        return Outgoing(
            seq=0,
            webhook_id=delivery.webhook_id,
            message_id=message_id,
            event=delivery.event,
            resource_id=delivery.resource_id,
            body=envelopes.renamed(body, message_id) if regenerate else body,
            due=self._core.now(),
            replayed_from=delivery.id,
        )

    def sample(self, webhook_id: str, event: str) -> Outgoing:
        """Return a sample of an event; its ids are not real (Whop: Test a webhook)."""
        hook = self._enabled(webhook_id)
        _check_events([event])
        now, message_id = self._core.now(), self._core.new_id("msg_")
        content = {"id": "sample_00000000000000", "status": "active", "metadata": {}}
        body = envelopes.envelope(
            self._core.tables,
            hook,
            message_id=message_id,
            event=event,
            now=now,
            content=content,
            previous=None,
        )
        return Outgoing(
            seq=0,
            webhook_id=hook.id,
            message_id=message_id,
            event=event,
            resource_id=self._core.tables.account.id,
            body=body,
            due=now,
        )


def _check_url(url: str) -> None:
    if not URL.fullmatch(url):
        raise Unprocessable("url: not an http or https URL")


def _check_events(events: list[str]) -> None:
    """Refuse names that Whop does not know, such as the retired `membership.went_valid`."""
    for event in events:
        if event not in EVENTS and not event.startswith(OTHERS):
            raise Unprocessable(f"events: {event[:80]!r} is not an event")


def _moment(field: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as wrong:
        raise Unprocessable(f"{field}: not an ISO 8601 timestamp") from wrong
    if moment.tzinfo is None:
        raise Unprocessable(f"{field}: has no time zone")
    return moment
