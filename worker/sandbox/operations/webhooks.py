"""Webhooks, their delivery log, replays and tests."""

from itertools import dropwhile

from worker.sandbox import bodies, shapes
from worker.sandbox.call import Call, Operation
from worker.sandbox.pages import paginate
from worker.sandbox.records import Delivery, Webhook
from worker.sandbox.shapes import Json
from worker.sandbox.tables import when

LOG_PAGE = 50
"""Attempts on a page of the delivery log where nobody says how many."""


def listing(call: Call) -> Json:
    """List webhooks."""
    mine, failing = call.account(), call.flag("has_failures")
    rows = (
        hook
        for hook in call.whop.tables.webhooks.values()
        if mine and failing in (None, hook.consecutive_failures > 0)
    )
    page = paginate(rows, lambda hook: (hook.seq,), call.window())
    return page.json(lambda hook: _answer(call, hook))


def _answer(call: Call, hook: Webhook, *, reveal: bool = False) -> Json:
    return shapes.webhook(call.whop.tables, hook, reveal=reveal)


def create(call: Call) -> Json:
    """Create a webhook; the one answer that tells its secret."""
    return _answer(call, call.whop.hooks.create(call.body(bodies.NewWebhook)), reveal=True)


def retrieve(call: Call) -> Json:
    """Read one webhook."""
    return _answer(call, call.whop.hooks.get(call.id))


def update(call: Call) -> Json:
    """Change the fields that were sent."""
    return _answer(call, call.whop.hooks.update(call.id, call.body(bodies.WebhookPatch)))


def delete(call: Call) -> Json:
    """Delete a webhook."""
    call.whop.hooks.delete(call.id)
    return {"id": call.id, "deleted": True}


def deliveries(call: Call) -> Json:
    """List the attempts, the newest first."""
    hook = call.whop.hooks.get(call.id)
    rows, wanted = call.whop.outbox.newest_first(hook.id), call.window(LOG_PAGE)
    if wanted.after and isinstance(below := wanted.after[0], int):
        rows = dropwhile(lambda entry: entry.seq >= below, rows)  # a long log is read page by page
    page = paginate(rows, lambda entry: (entry.seq,), wanted, ordered=True)
    return page.json(_attempt)


def _attempt(entry: Delivery) -> Json:
    return {
        "id": entry.id,
        "event": entry.event,
        "resource_id": entry.resource_id,
        "request_body": entry.request_body,
        "response_body": entry.response_body,
        "response_code": entry.response_code,
        "sent_at": when(entry.sent_at),
        "success": entry.success,
        "total_time": entry.total_time,
        "replayed_from": entry.replayed_from,
    }


async def replay_one(call: Call) -> Json:
    """Send one logged delivery again, now, and say what came of it."""
    wanted = call.body(bodies.ReplayOne)
    delivery_id = call.path["delivery_id"]
    message = call.whop.hooks.resend(call.id, delivery_id, regenerate=wanted.regenerate_id)
    return _outcome(await call.post(message))


def replay_many(call: Call) -> Json:
    """Queue the messages of a window again."""
    call.whop.hooks.replay(call.id, call.body(bodies.ReplayMany))
    return {"queued": True}


async def test(call: Call) -> Json:
    """Send a sample of an event, now."""
    message = call.whop.hooks.sample(call.id, call.body(bodies.TestEvent).event)
    return _outcome(await call.post(message))


def _outcome(entry: Delivery) -> Json:
    answer = bytes(entry.response_body).decode()
    return {"status": entry.response_code, "success": entry.success, "body": answer}


PATH = "/webhooks/{id}"
NEED = ("developer:manage_webhook",)

OPERATIONS = (
    Operation("webhooks.list", "GET", "/webhooks", NEED, listing),
    Operation("webhooks.create", "POST", "/webhooks", NEED, create),
    Operation("webhooks.retrieve", "GET", PATH, NEED, retrieve),
    Operation("webhooks.update", "PATCH", PATH, NEED, update),
    Operation("webhooks.delete", "DELETE", PATH, NEED, delete),
    Operation("webhooks.list_deliveries", "GET", f"{PATH}/deliveries", NEED, deliveries),
    Operation(
        "webhooks.replay_delivery",
        "POST",
        f"{PATH}/deliveries/{{delivery_id}}/replay",
        NEED,
        replay_one,
    ),
    Operation("webhooks.replay", "POST", f"{PATH}/replay", NEED, replay_many),
    Operation("webhooks.test", "POST", f"{PATH}/test", NEED, test),
)
