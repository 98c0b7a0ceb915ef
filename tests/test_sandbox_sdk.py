"""The official SDK as the judge: it parses every answer of the local Whop with its own types."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import local_whop
import pytest
from local_whop import ACCOUNT, API_KEY, SECRET, Server
from standardwebhooks import Webhook
from whop_sdk import AsyncWhop
from whop_sdk.chat_channels.types import ListChatChannelsResponse
from whop_sdk.disputes.types import PostDisputeCreatedPayload
from whop_sdk.environment import WhopEnvironment
from whop_sdk.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    TooManyRequestsError,
    UnauthorizedError,
    UnprocessableEntityError,
)
from whop_sdk.lib.verify_webhook import unwrap
from whop_sdk.memberships.types import PostMembershipActivatedPayload, PostMembershipUpdatedPayload
from whop_sdk.messages.types import PostChatMessageCreatedPayload
from whop_sdk.payments.types import PostPaymentFailedPayload, PostPaymentSucceededPayload
from whop_sdk.refunds.types import PostRefundCreatedPayload

from worker.sandbox.faults import RateLimit
from worker.sandbox.operations import OPERATIONS
from worker.sandbox.records import CHAT_APP, Key
from worker.sandbox.state import SeedProduct

TICKET = SeedProduct(id="prod_ticket", title="Ticket", plan_type="one_time")
NO_RETRY = {"max_retries": 0}


def sdk(server: Server, token: str = API_KEY) -> AsyncWhop:
    here = WhopEnvironment(api=server.api_url, vault=server.api_url)
    return AsyncWhop(token=token, environment=here, httpx_client=server.control)


@contextlib.asynccontextmanager
async def judged(**settings: object) -> AsyncIterator[tuple[Server, AsyncWhop]]:
    whop = local_whop.build(products=["prod_basic", TICKET], **settings)
    async with local_whop.running(whop) as server:
        yield server, sdk(server)


def test_the_sdk_calls_every_operation_and_understands_every_answer() -> None:
    async def main() -> None:
        async with judged() as (server, whop):
            await _sell(server, whop)
            await _open_a_room(whop)
            await _look_after_memberships(server, whop)
            await _read_the_rest(server, whop)
            called = {name for name, counts in server.journal.counts.items() if 200 in counts}
            beyond_the_sdk = {"memberships.create"}
            webhooks = {one.name for one in OPERATIONS if one.name.startswith("webhooks.")}
            assert called == {one.name for one in OPERATIONS} - beyond_the_sdk - webhooks

    asyncio.run(main())


async def _sell(server: Server, whop: AsyncWhop) -> None:
    product = await whop.products.create(
        title="Course, March",
        account_id=ACCOUNT,
        visibility="hidden",
        send_welcome_message=False,
        metadata={"usher": "course/1"},
    )
    assert product.id.startswith("prod_")
    assert product.visibility == "hidden"
    assert product.metadata == {"usher": "course/1"}
    assert (await whop.products.update(product.id, headline="Soon")).headline == "Soon"
    for plans in (whop.variants, whop.plans):
        plan = await plans.create(
            product_id=product.id,
            plan_type="one_time",
            initial_price=0,
            renewal_price=0,
            visibility="hidden",
            release_method="buy_now",
            unlimited_stock=True,
        )
        assert plan.initial_price_due.amount == "0.00"
        assert (await plans.retrieve(plan.id)).id == plan.id
        assert (await plans.update(plan.id, title="Seat")).title == "Seat"
        assert [one.id async for one in await plans.list(product_ids=[product.id])] == [plan.id]
        assert (await plans.delete(plan.id)).deleted
    assert (await whop.products.delete(product.id)).deleted
    assert (await whop.products.retrieve("prod_basic")).variants[0].renewal_price == 29
    titles = {one.title async for one in await whop.products.list(account_id=ACCOUNT)}
    assert titles == {"Basic", "Ticket"}
    assert server.journal.of("products.create")[0].status == 200


async def _open_a_room(whop: AsyncWhop) -> None:
    room = await whop.experiences.create(account_id=ACCOUNT, app_id=CHAT_APP, name="The Lounge")
    assert room.products == []
    attached = await whop.experiences.attach(room.id, product_id="prod_basic")
    assert [one.id for one in attached.products] == ["prod_basic"]
    listed = await whop.experiences.list(account_id=ACCOUNT, product_id="prod_basic")
    assert [one.name async for one in listed] == ["The Lounge"]
    assert (await whop.experiences.detach(room.id, product_id="prod_basic")).products == []
    await whop.experiences.attach(room.id, product_id="prod_basic")
    assert (await whop.experiences.update(room.id, name="Lounge")).name == "Lounge"
    assert (await whop.experiences.retrieve(room.id)).company.id == ACCOUNT

    channel = await whop.chat_channels.retrieve(room.id)
    assert channel.id.startswith("chat_feed_")
    changed = await whop.chat_channels.update(
        channel.id, who_can_post="admins", user_posts_cooldown_seconds=60, banned_words=["spam"]
    )
    assert (changed.who_can_post, changed.user_posts_cooldown_seconds) == ("admins", 60)
    assert changed.banned_words == ["spam"]
    assert [one.id async for one in await whop.chat_channels.list(account_id=ACCOUNT)] == [
        channel.id
    ]

    said = await whop.messages.create(channel_id=room.id, content="Welcome")
    assert (await whop.messages.update(said.id, is_pinned=True)).is_pinned
    assert (await whop.messages.retrieve(said.id)).content == "Welcome"
    assert [one.id async for one in await whop.messages.list(channel_id=channel.id)] == [said.id]
    assert await whop.messages.delete(said.id) is True
    other = await whop.experiences.create(account_id=ACCOUNT, app_id=CHAT_APP)
    assert await whop.experiences.delete(other.id) is True


async def _look_after_memberships(server: Server, whop: AsyncWhop) -> None:
    sold = await server.control.post(
        "/sandbox/buy", json={"product_id": "prod_basic", "user": "ada"}
    )
    membership_id, user_id = sold.json()["membership_id"], sold.json()["user_id"]
    support = await whop.support_channels.create(account_id=ACCOUNT, user_id=user_id)
    again = await whop.support_channels.create(account_id=ACCOUNT, user_id=user_id)
    assert (again.id, again.customer_user.id) == (support.id, user_id)
    listed = [one.id async for one in await whop.support_channels.list(account_id=ACCOUNT)]
    assert listed == [support.id]
    said = await whop.messages.create(channel_id=support.id, content="Your link")
    assert [one.id async for one in await whop.messages.list(channel_id=support.id)] == [said.id]
    held = await whop.memberships.retrieve(membership_id)
    assert (held.status, held.user_id, held.product_id) == ("active", user_id, "prod_basic")
    assert held.renewal_price is not None
    assert held.renewal_price.amount == "29.00"
    tagged = await whop.memberships.update(membership_id, metadata={"seat": "1"})
    assert tagged.metadata == {"seat": "1"}
    await whop.memberships.pause(membership_id)
    await whop.memberships.resume(membership_id)
    canceling = await whop.memberships.cancel(membership_id, cancel_at_period_end=True)
    assert canceling.status == "canceling"
    assert (await whop.memberships.cancel(membership_id)).status == "canceled"
    listed = await whop.memberships.list(user_id=user_id, statuses=["canceled", "expired"])
    assert [one.id async for one in listed] == [membership_id]

    free = await whop.variants.create(product_id="prod_ticket", initial_price=0)
    invited = await whop.memberships.invite(request={"plan_id": free.id, "user_id": user_id})
    assert invited.invitation_sent


async def _read_the_rest(server: Server, whop: AsyncWhop) -> None:
    held = server.whop.memberships.buy("prod_ticket", "grace")
    payment = await anext(aiter(await whop.payments.list(membership_id=held.id)))
    assert (payment.status, payment.substatus) == ("paid", "succeeded")
    assert payment.total is not None
    assert payment.total.amount == "49.00"
    refund = server.whop.till.refund(held.id)
    assert (await whop.refunds.retrieve(refund.id)).status == "succeeded"
    assert (await whop.payments.retrieve(payment.id)).substatus == "refunded"
    other = server.whop.memberships.buy("prod_ticket", "grace")
    dispute = server.whop.till.dispute(other.id)
    assert (await whop.disputes.retrieve(dispute.id)).buyer.username == "grace"

    members = await whop.members.list(account_id=ACCOUNT, access_level="customer")
    assert [one.display_name async for one in members] == ["Grace"]
    assert (await whop.members.retrieve(held.member_id)).usd_total_spent.amount == "49.00"
    assert (await whop.users.retrieve("grace")).id == held.user_id
    access = await whop.users.check_access("grace", "prod_ticket")
    assert (access.has_access, access.access_level) == (True, "customer")
    asked = await whop.permissions.list(resource_id=ACCOUNT, actions="chat:moderate,chat:read")
    assert [one.granted for one in asked.data] == [True, True]


def test_the_sdk_looks_after_webhooks() -> None:
    async def main() -> None:
        endpoint = local_whop.Endpoint()
        async with local_whop.serving(endpoint) as url, judged() as (server, whop):
            hook = await whop.webhooks.create(url=url, events=["membership.activated"])
            assert hook.webhook_secret is not None
            assert hook.webhook_secret.startswith("ws_")
            assert (await whop.webhooks.retrieve(hook.id)).webhook_secret is None
            assert [one.id async for one in await whop.webhooks.list()] == [hook.id]
            pinned = await whop.webhooks.update(hook.id, api_version_date="2026-10-15-1")
            assert pinned.api_version_date == "2026-10-15-1"

            server.whop.memberships.buy("prod_basic", "ada")
            await local_whop.until(lambda: not server.whop.outbox)
            deliveries = [one async for one in await whop.webhooks.list_deliveries(hook.id)]
            assert [one.success for one in deliveries] == [True]
            assert deliveries[0].request_body["type"] == "membership.activated"
            assert deliveries[0].response_body == {"heard": True}

            again = await whop.webhooks.replay_delivery(hook.id, deliveries[0].id)
            assert (again.status, again.success) == (200, True)
            since = server.whop.tables.account and deliveries[0].sent_at
            assert (await whop.webhooks.replay(hook.id, sent_after=since)).queued
            await local_whop.until(lambda: not server.whop.outbox)
            assert len(endpoint.heard) == 3
            assert (await whop.webhooks.test(hook.id, event="membership.updated")).success
            newest = [one async for one in await whop.webhooks.list_deliveries(hook.id)]
            assert newest[2].replayed_from == deliveries[0].id
            assert (await whop.webhooks.delete(hook.id)).deleted

    asyncio.run(main())


def test_the_sdk_walks_every_page_by_itself() -> None:
    async def main() -> None:
        async with judged() as (server, whop):
            wanted = [server.whop.memberships.buy("prod_basic", f"u{n}").id for n in range(25)]
            listed = await whop.memberships.list(product_id="prod_basic", first=10)
            assert [one.id async for one in listed] == wanted[::-1]
            oldest = await whop.memberships.list(first=10, direction="asc")
            assert [one.id async for one in oldest] == wanted
            page = await whop.chat_channels.list(account_id=ACCOUNT)
            assert isinstance(page.response, ListChatChannelsResponse)

    asyncio.run(main())


REFUSALS: list[tuple[type[Exception], str, Callable[[AsyncWhop], Awaitable[object]]]] = [
    (NotFoundError, "mem_none", lambda w: w.memberships.retrieve("mem_none")),
    (NotFoundError, "exp_none", lambda w: w.chat_channels.retrieve("exp_none")),
    (BadRequestError, "status", lambda w: w.memberships.list(status="asleep")),
    (BadRequestError, "cursor", lambda w: w.products.list(after="%%%")),
    (BadRequestError, "event", lambda w: w.webhooks.create(url="http://h", events=["no"])),
    (BadRequestError, "plan_id", lambda w: w.memberships.invite(request={"email": "a@b.c"})),
    (
        UnprocessableEntityError,
        "account_id",
        lambda w: w.experiences.create(account_id="", app_id=CHAT_APP),
    ),
    (
        UnprocessableEntityError,
        "who_can_post",
        lambda w: w.chat_channels.update("exp_none", who_can_post="nobody"),
    ),
]


@pytest.mark.parametrize(("error", "words", "ask"), REFUSALS)
def test_the_sdk_raises_its_typed_error(
    error: type[Exception], words: str, ask: Callable[[AsyncWhop], Awaitable[object]]
) -> None:
    async def main() -> None:
        async with local_whop.in_process(local_whop.build()) as server:
            with pytest.raises(error) as caught:
                await ask(sdk(server))
            told = caught.value.body["error"]
            assert words in told["message"]
            assert told["type"]

    asyncio.run(main())


def test_the_sdk_sees_unknown_keys_missing_permissions_conflicts_and_the_quota() -> None:
    async def main() -> None:
        noon = datetime(2026, 3, 1, 12, tzinfo=UTC)  # it stays noon, and the whole minute is left
        async with judged(clock=lambda: noon) as (server, whop):
            with pytest.raises(UnauthorizedError):
                await sdk(server, "apik_unknown").memberships.list()

            server.whop.tables.keys["apik_reader"] = Key(
                secret="apik_reader", permissions=frozenset({"member:basic:read"})
            )
            reader = sdk(server, "apik_reader")
            assert [one async for one in await reader.memberships.list()] == []
            with pytest.raises(ForbiddenError) as missing:
                await reader.experiences.create(account_id=ACCOUNT, app_id=CHAT_APP)
            assert "experience:create" in missing.value.body["error"]["message"]

            held = server.whop.memberships.buy("prod_basic", "ada")
            await whop.memberships.cancel(held.id)
            with pytest.raises(ConflictError):
                await whop.memberships.cancel(held.id, request_options=NO_RETRY)

            server.whop.faults.rate_limit = RateLimit(count=2, seconds=60)
            for _ in range(2):
                await whop.experiences.list(account_id=ACCOUNT)
            with pytest.raises(TooManyRequestsError) as limited:
                await whop.experiences.list(account_id=ACCOUNT, request_options=NO_RETRY)
            assert "wait 60 seconds" in limited.value.body["error"]["message"]
            assert limited.value.headers["retry-after"] == "60"

    asyncio.run(main())


PAYLOADS = {
    "membership.activated": PostMembershipActivatedPayload,
    "membership.updated": PostMembershipUpdatedPayload,
    "payment.succeeded": PostPaymentSucceededPayload,
    "payment.failed": PostPaymentFailedPayload,
    "refund.created": PostRefundCreatedPayload,
    "dispute.created": PostDisputeCreatedPayload,
    "chat.message.created": PostChatMessageCreatedPayload,
}


def test_both_verifiers_accept_our_signatures_and_the_sdk_parses_every_payload() -> None:
    async def main() -> None:
        endpoint = local_whop.Endpoint()
        async with local_whop.serving(endpoint) as url, judged(webhook_url=url) as (server, whop):
            held = server.whop.memberships.buy("prod_basic", "ada")
            server.whop.memberships.set_status(held.id, "past_due")
            server.whop.till.refund(held.id)
            server.whop.till.dispute(server.whop.memberships.buy("prod_ticket", "ada").id)
            room = await whop.experiences.create(account_id=ACCOUNT, app_id=CHAT_APP)
            await whop.messages.create(channel_id=room.id, content="Hello")
            await local_whop.until(lambda: not server.whop.outbox)

        types = set()
        for heard in endpoint.heard:
            event = unwrap(heard.content, headers=heard.headers, key=SECRET)
            encoded = local_whop.standard_key(SECRET)
            assert Webhook(encoded).verify(heard.content, dict(heard.headers)) == event
            assert event["id"] == heard.headers["webhook-id"]
            assert event["account_id"] == ACCOUNT
            types.add(event["type"])
            if event["type"] in PAYLOADS:
                PAYLOADS[event["type"]].model_validate(json.loads(heard.content))
        assert types >= PAYLOADS.keys()

    asyncio.run(main())
