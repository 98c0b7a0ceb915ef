"""Whop's client: its requests beside the official SDK's, and how it bears what comes back."""

import asyncio
import contextlib
import inspect
import json
import operator
import random
import re
import selectors
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any, get_args
from urllib.parse import parse_qs

import httpx
import local_whop
import pytest
import redis.asyncio
from local_whop import ACCOUNT, API_KEY
from whop_sdk import AsyncWhop
from whop_sdk.core.api_error import ApiError
from whop_sdk.environment import WhopEnvironment
from whop_sdk.types import PermissionAction

from worker.our_webhook import Ours, OurWebhook
from worker.sandbox import bodies
from worker.sandbox.faults import Failure, RateLimit
from worker.sandbox.operations import OPERATIONS
from worker.sandbox.records import Key
from worker.sandbox.refusals import Unprocessable
from worker.whop.client import CHAT_APP, Whop
from worker.whop.errors import (
    Conflict,
    Forbidden,
    Missing,
    NotAvailable,
    Rejected,
    Unavailable,
    UnexpectedShape,
    WhopError,
)
from worker.whop.permissions import NEEDS, WELCOME
from worker.whop.quota import RESERVED, USED, Quota, Rank
from worker.whop.transport import API_DATE, PATIENCE, TRIES
from worker.whop.types import (
    Channel,
    Experience,
    Membership,
    Message,
    Payment,
    Plan,
)

API = "https://whop.test/api/v1"
KEY = "usher/test"


class Free:
    """A quota that lets every call go, and notes them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ranks: list[Rank] = []

    async def wait(self, operation: str, rank: Rank = Rank.OTHER) -> None:
        self.asked.append(operation)
        self.ranks.append(rank)


class Answers:
    """A Whop that gives these answers in turn, the last of them for ever."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@contextlib.asynccontextmanager
async def speaking(app: Answers, quota: Any = None) -> AsyncIterator[Whop]:
    """Speak to a small application, as `worker.main` sets the client up."""
    transport, headers = httpx.MockTransport(app), {"Authorization": f"Bearer {API_KEY}"}
    async with httpx.AsyncClient(base_url=API, transport=transport, headers=headers) as http:
        yield Whop(http, account=ACCOUNT, quota=quota or Free(), rng=random.Random(1))


class Patient(selectors.DefaultSelector):
    """A selector that never waits: it moves the loop's clock instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0
        return super().select(0)


def in_no_time(main: Coroutine[Any, Any, None]) -> float:
    """Run without waiting for any pause; return how many seconds it would have taken."""
    selector = Patient()

    def make() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(selector)
        loop.time = lambda: selector.now  # type: ignore[method-assign]
        return loop

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main)
    return selector.now


# --- the SDK as judge


Call = Callable[[Any], Any]
CALLS: dict[str, tuple[Call, Call]] = {
    "memberships": (
        lambda us: us.memberships("user_a"),
        lambda sdk: sdk.memberships.list(account_id=ACCOUNT, user_id="user_a", first=100),
    ),
    "memberships_of": (
        lambda us: us.memberships_of(["prod_a", "prod_b"]),
        lambda sdk: sdk.memberships.list(
            account_id=ACCOUNT, product_ids=["prod_a", "prod_b"], first=100
        ),
    ),
    "memberships_since": (
        lambda us: us.memberships_since(datetime(2026, 3, 1, tzinfo=UTC)),
        lambda sdk: sdk.memberships.list(
            account_id=ACCOUNT, created_after="2026-03-01T00:00:00+00:00", first=100
        ),
    ),
    "membership": (
        lambda us: us.membership("mem_a"),
        lambda sdk: sdk.memberships.retrieve("mem_a"),
    ),
    "payment": (
        lambda us: us.payment("pay_a"),
        lambda sdk: sdk.payments.retrieve("pay_a"),
    ),
    "payments": (
        lambda us: us.payments(product="prod_a"),
        lambda sdk: sdk.payments.list(account_id=ACCOUNT, product_id="prod_a", first=100),
    ),
    "admins": (
        lambda us: us.admins(),
        lambda sdk: sdk.members.list(account_id=ACCOUNT, access_level="admin", first=100),
    ),
    "invite": (
        lambda us: us.invite(plan="plan_a", user="user_a", key=KEY),
        lambda sdk: sdk.memberships.invite(request={"plan_id": "plan_a", "user_id": "user_a"}),
    ),
    "mark": (
        lambda us: us.mark("mem_a", {"usher_room": "a"}),
        lambda sdk: sdk.memberships.update("mem_a", metadata={"usher_room": "a"}),
    ),
    "support_chat": (
        lambda us: us.support_chat("user_a", key=KEY),
        lambda sdk: sdk.support_channels.create(account_id=ACCOUNT, user_id="user_a"),
    ),
    "write_to_customer": (
        lambda us: us.write_to_customer("chat_feed_a", "Hello", key=KEY),
        lambda sdk: sdk.messages.create(channel_id="chat_feed_a", content="Hello"),
    ),
    "cancel": (
        lambda us: us.cancel("mem_a", key=KEY),
        lambda sdk: sdk.memberships.cancel("mem_a", cancel_at_period_end=False),
    ),
    "products": (
        lambda us: us.products(),
        lambda sdk: sdk.products.list(
            account_id=ACCOUNT, visibilities=["visible", "hidden"], first=100
        ),
    ),
    "create_hidden_product": (
        lambda us: us.create_hidden_product(title="Câfé", metadata={"usher_room": "a/1"}, key=KEY),
        lambda sdk: sdk.products.create(
            account_id=ACCOUNT,
            title="Câfé",
            visibility="hidden",
            send_welcome_message=False,
            metadata={"usher_room": "a/1"},
        ),
    ),
    "plans": (
        lambda us: us.plans("prod_a"),
        lambda sdk: sdk.variants.list(
            account_id=ACCOUNT,
            product_ids=["prod_a"],
            visibilities=["visible", "hidden", "archived"],
            first=100,
        ),
    ),
    "create_free_plan": (
        lambda us: us.create_free_plan(product="prod_a", key=KEY),
        lambda sdk: sdk.variants.create(
            account_id=ACCOUNT,
            product_id="prod_a",
            plan_type="one_time",
            initial_price=0,
            renewal_price=0,
            visibility="hidden",
            release_method="buy_now",
            unlimited_stock=True,
        ),
    ),
    "set_stock": (
        lambda us: us.set_stock("plan_a", 40),
        lambda sdk: sdk.variants.update("plan_a", stock=40, unlimited_stock=False),
    ),
    "chats": (
        lambda us: us.chats(product="prod_a"),
        lambda sdk: sdk.experiences.list(
            account_id=ACCOUNT, app_id=CHAT_APP, product_id="prod_a", first=100
        ),
    ),
    "experience": (
        lambda us: us.experience("exp_a"),
        lambda sdk: sdk.experiences.retrieve("exp_a"),
    ),
    "create_chat": (
        lambda us: us.create_chat(name="The Lounge", key=KEY),
        lambda sdk: sdk.experiences.create(account_id=ACCOUNT, app_id=CHAT_APP, name="The Lounge"),
    ),
    "rename": (
        lambda us: us.rename("exp_a", "The Lounge, 3 Dec"),
        lambda sdk: sdk.experiences.update("exp_a", name="The Lounge, 3 Dec"),
    ),
    "attach": (
        lambda us: us.attach("exp_a", "prod_a", key=KEY),
        lambda sdk: sdk.experiences.attach("exp_a", product_id="prod_a"),
    ),
    "detach": (
        lambda us: us.detach("exp_a", "prod_a", key=KEY),
        lambda sdk: sdk.experiences.detach("exp_a", product_id="prod_a"),
    ),
    "channels": (
        lambda us: us.channels(),
        lambda sdk: sdk.chat_channels.list(account_id=ACCOUNT, first=100),
    ),
    "channel": (
        lambda us: us.channel("exp_a"),
        lambda sdk: sdk.chat_channels.retrieve("exp_a"),
    ),
    "update_channel": (
        lambda us: us.update_channel("chat_feed_a", {"ban_urls": True, "banned_words": []}),
        lambda sdk: sdk.chat_channels.update("chat_feed_a", ban_urls=True, banned_words=[]),
    ),
    "messages": (
        lambda us: us.messages("chat_feed_a"),
        lambda sdk: sdk.messages.list(channel_id="chat_feed_a", direction="desc", first=100),
    ),
    "messages_since": (
        lambda us: us.messages_since("chat_feed_a", datetime(2026, 12, 3, tzinfo=UTC)),
        lambda sdk: sdk.messages.list(channel_id="chat_feed_a", direction="desc", first=100),
    ),
    "post_message": (
        lambda us: us.post_message("chat_feed_a", "**Hi** & bye", key=KEY),
        lambda sdk: sdk.messages.create(channel_id="chat_feed_a", content="**Hi** & bye"),
    ),
    "pin_message": (
        lambda us: us.pin_message("msg_a", pinned=False),
        lambda sdk: sdk.messages.update("msg_a", is_pinned=False),
    ),
    "webhooks": (
        lambda us: us.webhooks(),
        lambda sdk: sdk.webhooks.list(account_id=ACCOUNT, first=100),
    ),
    "webhook": (
        lambda us: us.webhook("hook_a"),
        lambda sdk: sdk.webhooks.retrieve("hook_a"),
    ),
    "enable_webhook": (
        lambda us: us.enable_webhook("hook_a"),
        lambda sdk: sdk.webhooks.update("hook_a", enabled=True),
    ),
    "attempts": (
        lambda us: us.attempts("hook_a"),
        lambda sdk: sdk.webhooks.list_deliveries("hook_a", first=100),
    ),
    "permitted": (
        lambda us: us.permitted(["chat:read", "chat:moderate"]),
        lambda sdk: sdk.permissions.list(resource_id=ACCOUNT, actions="chat:read,chat:moderate"),
    ),
}
BEYOND_THE_SDK = "create_membership"


def test_every_call_is_judged() -> None:
    ours = {name for name in vars(Whop) if not name.startswith("_")} - {"at"}  # it calls nothing
    assert ours == CALLS.keys() | {BEYOND_THE_SDK}


@pytest.mark.parametrize("name", CALLS)
def test_the_sdk_sends_the_same_request(name: str) -> None:
    async def main() -> None:
        ours, theirs = CALLS[name]
        app = Answers(httpx.Response(400, json={"error": {"message": "Recorded"}}))
        async with speaking(app) as whop:
            with pytest.raises(Rejected):
                await finish(ours(whop))
        async with httpx.AsyncClient(transport=httpx.MockTransport(app)) as http:
            sdk = AsyncWhop(
                token=API_KEY,
                api_version_date=API_DATE,
                environment=WhopEnvironment(api=API, vault=API),
                httpx_client=http,
            )
            with pytest.raises(ApiError):
                await theirs(sdk)
        mine, judge = app.requests
        assert seen(mine) == seen(judge)
        assert mine.headers["api-version-date"] == judge.headers["api-version-date"] == API_DATE
        assert mine.headers["authorization"] == judge.headers["authorization"]
        assert mine.headers.get("idempotency-key") == (KEY if mine.method == "POST" else None)

    asyncio.run(main())


def asked_of(theirs: Call) -> str:
    """Return the docstring of the SDK's method that stands beside a call of ours."""
    path: list[str] = []

    class Path:
        def __getattr__(self, name: str) -> "Path":
            path.append(name)
            return self

        def __call__(self, *_: object, **__: object) -> None:
            pass

    theirs(Path())
    return inspect.getdoc(operator.attrgetter(".".join(path))(AsyncWhop(token=API_KEY))) or ""


def test_the_permissions_that_we_name_are_those_that_the_sdk_documents() -> None:
    async def main() -> None:
        known = set(get_args(get_args(PermissionAction)[0]))
        compared = set()
        for ours, theirs in CALLS.values():
            quota = Free()
            async with speaking(Answers(json_error(400)), quota) as whop:
                with pytest.raises(Rejected):
                    await finish(ours(whop))
            named = set(NEEDS.get(quota.asked[0], "").split(", ")) - {""}
            assert named <= known
            listed = REQUIRED.search(asked_of(theirs))
            if listed:  # the newer half of Whop's API documents none in the SDK
                compared.add(quota.asked[0])
                needed = set(re.findall(r"`(.*)`", listed["all"]))
                assert named < needed if listed["any"] else named == needed, quota.asked
        assert compared == {
            one
            for one in NEEDS
            if one.split("/")[1] in {"experiences", "chat_channels", "messages", "support_channels"}
        }

    asyncio.run(main())


REQUIRED = re.compile(r"Required permissions(?P<any> \(one of\))?:\n(?P<all>(?: +- `.*`\n)+)")


async def finish(call: Any) -> object:
    """Await a call, or walk what it yields."""
    return [row async for row in call] if inspect.isasyncgen(call) else await call


def seen(request: httpx.Request) -> tuple[str, str, dict[str, list[str]], Any]:
    """Return what Whop reads of a request."""
    query = parse_qs(request.url.query.decode(), keep_blank_values=True)
    path = request.url.raw_path.partition(b"?")[0].decode()
    body = json.loads(request.content) if request.content else None
    return request.method, path, query, body


def test_an_id_stays_one_part_of_the_path() -> None:
    async def main() -> None:
        app = Answers(httpx.Response(404))
        async with speaking(app) as whop:
            with pytest.raises(Missing):
                await whop.payment("../me?x=1#y")
        assert app.requests[0].url.raw_path == b"/api/v1/payments/..%2Fme%3Fx%3D1%23y"

    asyncio.run(main())


def test_a_membership_is_created_as_whop_documents_it() -> None:
    async def main() -> None:
        app = Answers(httpx.Response(200, json={"id": "mem_a", "status": "completed"}))
        async with speaking(app) as whop:
            await whop.create_membership(
                plan="plan_a", user="user_a", key=KEY, metadata={"usher_room": "a"}
            )
        (request,) = app.requests
        body = {"plan_id": "plan_a", "user_id": "user_a", "metadata": {"usher_room": "a"}}
        assert seen(request) == ("POST", "/api/v1/memberships", {}, body)
        assert request.headers["api-version-date"] == "2026-06-09"
        assert request.headers["idempotency-key"] == KEY

    asyncio.run(main())


# --- a Whop that is out of order


def json_error(status: int, message: str = "No", **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, json={"error": {"message": message}})


BROKEN: dict[str, httpx.Response | Exception] = {
    "408": json_error(408),
    "429 without a delay": json_error(429, "Slow down"),
    "500": json_error(500),
    "503 in HTML": httpx.Response(503, html="<h1>Away</h1>"),
    "no connection": httpx.ConnectError("refused"),
    "no answer in time": httpx.ReadTimeout("slow"),
    "half an answer": httpx.RemoteProtocolError("peer closed connection"),
    "not JSON": httpx.Response(200, html="<h1>Hello</h1>"),
    "not UTF-8": httpx.Response(200, content=b'{"id": "\xff"}'),
    "empty": httpx.Response(200),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_a_call_that_finds_whop_out_of_order_is_tried_three_times(
    answer: httpx.Response | Exception,
) -> None:
    app, quota = Answers(answer), Free()

    async def main() -> None:
        async with speaking(app, quota) as whop:
            with pytest.raises(Unavailable) as caught:
                await whop.cancel("mem_a", key=KEY)
            assert caught.value.operation == "POST /memberships/{id}/cancel"
            assert caught.value.after is None

    assert 0.8 * 0.6 <= in_no_time(main()) <= 1.2 * 0.6
    assert len(app.requests) == TRIES == 3
    assert {request.headers["idempotency-key"] for request in app.requests} == {KEY}
    assert quota.asked == ["POST /memberships/{id}/cancel"] * 3  # a repetition counts, too


@pytest.mark.parametrize("failures", [1, 2])
def test_a_call_that_succeeds_in_the_end_is_nobodys_matter(failures: int) -> None:
    held = httpx.Response(200, json={"id": "mem_a", "status": "active"})
    app = Answers(*[json_error(502)] * failures, held)

    async def main() -> None:
        async with speaking(app) as whop:
            assert (await whop.membership("mem_a")).status == "active"

    in_no_time(main())
    assert len(app.requests) == failures + 1


@pytest.mark.parametrize(
    "post",
    [
        lambda whop: whop.create_chat(name="Lounge", key=KEY),
        lambda whop: whop.post_message("chat_feed_a", "Hi", key=KEY),
        lambda whop: whop.create_membership(plan="plan_a", user="user_a", key=KEY, metadata={}),
        lambda whop: whop.invite(plan="plan_a", user="user_a", key=KEY),
        lambda whop: whop.create_hidden_product(title="Room", metadata={}, key=KEY),
        lambda whop: whop.create_free_plan(product="prod_a", key=KEY),
    ],
    ids=["a chat", "a message", "a membership", "an invitation", "a product", "a plan"],
)
@pytest.mark.parametrize("answer", [json_error(500), httpx.ReadTimeout("slow")], ids=repr)
def test_what_whop_may_do_twice_is_tried_once(
    post: Call, answer: httpx.Response | Exception
) -> None:
    app = Answers(answer)

    async def main() -> None:
        async with speaking(app) as whop:
            with pytest.raises(Unavailable):
                await post(whop)

    assert in_no_time(main()) == 0
    assert len(app.requests) == 1


def test_every_call_has_a_timeout() -> None:
    async def main() -> None:
        app = Answers(httpx.Response(200, json={"id": "mem_a", "status": "active"}))
        async with speaking(app) as whop:
            await whop.membership("mem_a")
        wanted = {"connect": 5.0, "read": 20.0, "write": 20.0, "pool": 20.0}
        assert app.requests[0].extensions["timeout"] == wanted

    asyncio.run(main())


WAITS: dict[str, tuple[httpx.Response, float]] = {
    "in seconds": (json_error(503, **{"Retry-After": "7"}), 7),
    "in parts of seconds": (json_error(429, **{"Retry-After": "1.5"}), 1.5),
    "a date, beside the answer's own": (
        json_error(
            503,
            **{
                "Retry-After": "Wed, 21 Oct 2015 07:28:09 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
        ),
        9,
    ),
    "a date that has passed": (
        json_error(
            503,
            **{
                "Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:30 GMT",
            },
        ),
        -0.8,  # no pause that was asked for: our own
    ),
    "in the words of a 429": (json_error(429, "Please wait 12 seconds and try again"), 12),
    "the header before the words": (
        json_error(429, "Please wait 12 seconds", **{"Retry-After": "3"}),
        3,
    ),
}


@pytest.mark.parametrize(("answer", "asked"), WAITS.values(), ids=WAITS)
def test_a_call_waits_as_long_as_whop_asks(answer: httpx.Response, asked: float) -> None:
    app = Answers(answer, httpx.Response(200, json={"id": "mem_a", "status": "active"}))

    async def main() -> None:
        async with speaking(app) as whop:
            await whop.membership("mem_a")

    waited = in_no_time(main())
    assert 0.8 * (1 + asked) <= waited <= 1.2 * (1 + asked)
    assert len(app.requests) == 2


def test_a_delay_that_is_too_long_for_a_call_is_left_to_the_job() -> None:
    app = Answers(json_error(429, "Please wait 55 seconds and try again"))

    async def main() -> None:
        async with speaking(app) as whop:
            with pytest.raises(Unavailable) as caught:
                await whop.membership("mem_a")
            assert caught.value.after == 55 > PATIENCE

    assert in_no_time(main()) == 0
    assert len(app.requests) == 1


STRANGE = ["soon", "-1", "", "²", "9" * 400, "Wed, 21 Oct 2015 07:28:09 GMT"]


@pytest.mark.parametrize("value", STRANGE)
def test_a_delay_that_nobody_can_read_is_none(value: str) -> None:
    answer = httpx.Response(503, headers=[(b"Retry-After", value.encode("latin-1"))])
    app = Answers(answer)

    async def main() -> None:
        async with speaking(app) as whop:
            with pytest.raises(Unavailable):
                await whop.membership("mem_a")

    assert in_no_time(main()) < 1
    assert len(app.requests) == 3


def test_a_pause_is_slept_with_what_was_handed_in() -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def main() -> None:
        transport = httpx.MockTransport(Answers(json_error(503, **{"Retry-After": "29"})))
        async with httpx.AsyncClient(base_url=API, transport=transport) as http:
            whop = Whop(http, account=ACCOUNT, quota=Free(), rng=random.Random(1), sleep=sleep)
            with pytest.raises(Unavailable):
                await whop.membership("mem_a")

    assert in_no_time(main()) == 0
    assert len(slept) == TRIES - 1
    assert all(0.8 * 30 <= seconds <= 1.2 * 30 for seconds in slept)


@pytest.mark.parametrize("rank", Rank)
def test_a_channel_is_read_and_set_with_the_rank_of_what_is_to_be_done(rank: Rank) -> None:
    async def main() -> None:
        quota = Free()
        channel = httpx.Response(200, json={"id": "chat_feed_a"})
        async with speaking(Answers(json_error(503), channel), quota) as whop:
            await whop.channel("chat_feed_a", rank=rank)
            await whop.update_channel("chat_feed_a", {"ban_urls": True}, rank=rank)
            await whop.channel("chat_feed_a")
        assert quota.ranks == [rank, rank, rank, Rank.OTHER]  # a second try ranks as the first

    in_no_time(main())


# --- a Whop that refuses


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Rejected),
        (401, Forbidden),
        (403, Forbidden),
        (404, Missing),
        (409, Conflict),
        (422, Rejected),
        (302, Rejected),
    ],
)
def test_a_refusal_is_final_and_keeps_whops_words(status: int, error: type[Rejected]) -> None:
    async def main() -> None:
        app = Answers(json_error(status, "Not like this"))
        async with speaking(app) as whop:
            with pytest.raises(error) as caught:
                await whop.membership("mem_a")
        assert type(caught.value) is error
        assert caught.value.status == status
        assert "GET /memberships/{id}" in str(caught.value)
        assert "Not like this" in str(caught.value)
        assert ("key" in str(caught.value)) == (error is Forbidden)
        asked = [request.url.path for request in app.requests]
        assert asked[1:] == (["/api/v1/permissions"] if status == 403 else [])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"type": "x", "message": "In an object"}}', "In an object"),
        (b'{"error": "As a text"}', "As a text"),
        (b'{"message": "At the top"}', "At the top"),
        (b"[1, 2]", "[1, 2]"),
        (b"<h1>Nginx</h1>", "<h1>Nginx</h1>"),
    ],
)
def test_the_words_of_a_refusal_are_found_in_any_shape(body: bytes, words: str) -> None:
    async def main() -> None:
        async with speaking(Answers(httpx.Response(422, content=body))) as whop:
            with pytest.raises(Rejected, match=r"422") as caught:
                await whop.membership("mem_a")
            assert words in str(caught.value)

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        json_error(422, "ada@example.com is not known"),
        httpx.Response(400, text="ada@example.com is not known"),
    ],
    ids=["in JSON", "in a text"],
)
def test_an_e_mail_address_in_whops_words_is_not_kept(answer: httpx.Response) -> None:
    async def main() -> None:
        async with speaking(Answers(answer)) as whop:
            with pytest.raises(Rejected, match="is not known") as caught:
                await whop.membership("mem_a")
            assert "ada" not in str(caught.value)

    asyncio.run(main())


def test_a_page_of_html_does_not_fill_the_log() -> None:
    async def main() -> None:
        async with speaking(Answers(httpx.Response(400, html="x" * 10_000))) as whop:
            with pytest.raises(Rejected) as caught:
                await whop.membership("mem_a")
            assert len(str(caught.value)) < 400

    asyncio.run(main())


def test_an_answer_that_is_no_object_harms_nobody() -> None:
    async def main() -> None:
        async with speaking(Answers(httpx.Response(200, json=True))) as whop:
            await whop.attach("exp_a", "prod_a", key=KEY)

    asyncio.run(main())


@pytest.mark.parametrize("body", [{}, [], {"data": None}, {"data": ["row"]}, "data"], ids=repr)
@pytest.mark.parametrize(
    "name",
    [
        "memberships",
        "memberships_of",
        "admins",
        "products",
        "channels",
        "messages",
        "permitted",
    ],
)
def test_a_page_without_rows_is_no_answer(name: str, body: Any) -> None:
    async def main() -> None:
        async with speaking(Answers(httpx.Response(200, json=body))) as whop:
            with pytest.raises(Unavailable, match="without rows"):
                await finish(CALLS[name][0](whop))

    asyncio.run(main())


# --- beside the local Whop


@contextlib.asynccontextmanager
async def local() -> AsyncIterator[tuple[local_whop.Server, Whop]]:
    """Speak to a local Whop over a socket."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with (
        local_whop.running(local_whop.build()) as server,
        httpx.AsyncClient(base_url=server.api_url, headers=headers) as http,
    ):
        yield server, Whop(http, account=ACCOUNT, quota=Free(), rng=random.Random(1))


def test_a_room_is_made_read_and_written() -> None:
    async def main() -> None:
        async with local() as (server, whop):
            server.whop.people.add_admin("boss")
            made = await whop.create_hidden_product(title="Course", metadata={"a": "1"}, key="1")
            assert {p.id: p.metadata for p in [p async for p in whop.products()]} == {
                "prod_basic": {},
                made.id: {"a": "1"},
            }
            plan = await whop.create_free_plan(product=made.id, key="2")
            assert await whop.plans(made.id) == [plan]
            chat = await whop.create_chat(name="Room", key="3")
            await whop.attach(chat.id, made.id, key="4")
            assert (await whop.experience(chat.id)).products == {made.id}
            assert [c.id for c in await whop.chats(product=made.id)] == [chat.id]
            assert await whop.chats(product="prod_basic") == []
            assert [c.id for c in await whop.chats()] == [chat.id]
            channel = await whop.channel(chat.id)
            changed = await whop.update_channel(channel.id, {"who_can_post": "admins"})
            assert changed.settings["who_can_post"] == "admins"
            assert [c.id async for c in whop.channels()] == [channel.id]
            assert (await whop.rename(chat.id, "Room, 3 Dec")).name == "Room, 3 Dec"
            assert [c.name for c in await whop.chats()] == ["Room, 3 Dec"]
            first = await whop.post_message(channel.id, "Hello", key="5")
            second = await whop.post_message(channel.id, "Welcome", key="5a")
            assert await whop.messages(channel.id) == [second, first]
            assert (first.content, second.content) == ("Hello", "Welcome")
            for pinned in (True, True, False):
                await whop.pin_message(first.id, pinned=pinned)
                assert server.whop.rooms.message(first.id).is_pinned is pinned
            await whop.detach(chat.id, made.id, key="6")
            assert (await whop.experience(chat.id)).products == frozenset()
            ada = server.whop.people.meet("ada").id
            given = await whop.create_membership(plan=plan.id, user=ada, key="7", metadata={})
            assert (given.product, given.plan, given.user) == (made.id, plan.id, ada)
            await whop.invite(plan=plan.id, user=ada, key="8")
            assert (await whop.cancel(given.id, key="9")).status == "canceled"
            assert (await whop.membership(given.id)).status == "canceled"
            held = [m.id async for m in whop.memberships_of([made.id])]
            assert held == [given.id]
            assert [m async for m in whop.memberships_of(["prod_basic"])] == []
            assert len(await whop.admins()) == 2  # the owner and the boss
            assert await whop.permitted(["chat:read"]) == {"chat:read"}

    asyncio.run(main())


def test_all_pages_are_walked_and_every_status_is_there() -> None:
    async def main() -> None:
        async with local() as (server, whop):
            bought = [server.whop.memberships.buy("prod_basic", "ada") for _ in range(230)]
            server.whop.memberships.cancel(bought[0].id)
            held = await whop.memberships(bought[0].user_id)
            assert {one.id for one in held} == {one.id for one in bought}
            assert len(held) == 230
            assert len(server.journal.of("memberships.list")) == 3
            assert {one.status for one in held} == {"active", "canceled"}
            assert await whop.memberships("user_nobody") == []

    asyncio.run(main())


def test_every_channel_of_many_is_there_once() -> None:
    async def main() -> None:
        async with local() as (server, whop):
            wanted = bodies.NewExperience(account_id=ACCOUNT, app_id=CHAT_APP, name="Room")
            rooms = [server.whop.rooms.create_experience(wanted) for _ in range(205)]
            feeds = [server.whop.rooms.channel(room.id).id for room in rooms]
            server.whop.rooms.update_channel(
                feeds[0], bodies.ChannelPatch(user_posts_cooldown_seconds=30)
            )
            found = [channel async for channel in whop.channels()]
            assert [channel.id for channel in found] == feeds[::-1]
            assert found[-1].settings["user_posts_cooldown_seconds"] == 30
            assert len(server.journal.of("chat_channels.list")) == 3

    asyncio.run(main())


def test_a_stock_limits_a_plan_that_had_none() -> None:
    async def main() -> None:
        async with local() as (server, whop):
            (plan,) = await whop.plans("prod_basic")
            assert (await whop.set_stock(plan.id, 1)).id == plan.id
            server.whop.memberships.buy("prod_basic", "ada")
            with pytest.raises(Unprocessable, match="stock"):
                server.whop.memberships.buy("prod_basic", "grace")
            await whop.set_stock(plan.id, 2)
            server.whop.memberships.buy("prod_basic", "grace")
            await whop.set_stock(plan.id, 0)
            with pytest.raises(Unprocessable, match="stock"):
                server.whop.memberships.buy("prod_basic", "lin")

    asyncio.run(main())


def test_a_repeated_post_is_done_once() -> None:
    async def main() -> None:
        async with local() as (server, whop):
            plan = await whop.create_free_plan(product="prod_basic", key="plan")
            ada = server.whop.people.meet("ada").id
            lost = Failure(operation="memberships.create", status=502, after=True)
            server.whop.faults.failures = [lost]
            with pytest.raises(Unavailable):  # who asks again looks first, as converge does
                await whop.create_membership(plan=plan.id, user=ada, key="ada", metadata={})
            given = await whop.create_membership(plan=plan.id, user=ada, key="ada", metadata={})
            calls = server.journal.of("memberships.create")
            assert [(c.status, c.idempotency_key) for c in calls] == [(502, "ada"), (200, "ada")]
            assert [m.id for m in await whop.memberships(ada)] == [given.id]

    asyncio.run(main())


def test_a_missing_permission_is_named_at_once() -> None:
    async def main() -> None:
        async with local() as (server, whop):
            key = server.whop.tables.keys[API_KEY]
            key.permissions = frozenset({"member:basic:read"})
            with pytest.raises(Forbidden, match="experience:create") as caught:
                await whop.create_chat(name="Room", key=KEY)
            assert caught.value.status == 403
            key.permissions = frozenset({"chat:read"})
            with pytest.raises(Forbidden, match=r"\(the key lacks member:basic:read\)") as caught:
                await whop.membership("mem_a")
            assert caught.value.status == 403
            assert server.journal.counts == {
                "experiences.create": {403: 1},
                "memberships.retrieve": {403: 1},
                "permissions.list": {200: 2},
            }

    asyncio.run(main())


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_whop_does_not_know_is_not_told_as_a_missing_permission(
    status: int, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = status == 403

    async def main() -> None:
        async with local() as (server, whop), redis.asyncio.Redis.from_url(redis_url) as client:
            server.whop.tables.keys[API_KEY].permissions = frozenset({"chat:read"})
            if status == 401:
                del server.whop.tables.keys[API_KEY]
            with pytest.raises(Forbidden) as caught:
                await finish(whop.products())
            assert caught.value.status == status
            assert ("access_pass:basic:read" in str(caught.value)) == named
            assert ("not valid: it comes from WHOP_API_KEY" in str(caught.value)) != named
            ours = OurWebhook(client, "test:", whop, ours=Ours(), clock=lambda: datetime.now(UTC))
            assert await ours.look_after() is None

    asyncio.run(main())
    told = capsys.readouterr().out
    assert "webhook.unseen" in told
    assert ("developer:manage_webhook" in told) == named
    assert ("put a valid key into WHOP_API_KEY" in told) != named


def test_a_call_without_a_permission_of_its_own_is_refused_as_it_is() -> None:
    async def main() -> None:
        async with speaking(Answers(json_error(403, "No"))) as whop:
            with pytest.raises(Forbidden) as caught:
                await whop.permitted(["chat:read"])
            assert str(caught.value).endswith(": 403 No")

    asyncio.run(main())


def test_a_key_with_the_permissions_that_we_name_may_do_all_that_we_do() -> None:
    async def main() -> None:
        async with local() as (server, whop):
            named = {action for needs in NEEDS.values() for action in needs.split(", ")}
            key = Key(secret=API_KEY, permissions=frozenset(named | WELCOME))
            server.whop.tables.keys[API_KEY] = key
            app = Answers(json_error(400))
            async with speaking(app) as recorded:
                for ours, _ in CALLS.values():
                    with pytest.raises(Rejected):
                        await finish(ours(recorded))
            for ours, _ in CALLS.values():
                with contextlib.suppress(Missing, Conflict, Rejected):
                    await finish(ours(whop))
            statuses = {s for counts in server.journal.counts.values() for s in counts}
            assert 403 not in statuses

    asyncio.run(main())


def test_a_key_without_a_permission_that_we_name_is_refused() -> None:
    async def main() -> None:
        named = {action for needs in NEEDS.values() for action in needs.split(", ")}
        refused = set()
        async with local() as (server, whop):
            server.whop.faults.ignore_idempotency = [one.name for one in OPERATIONS]
            for ours, _ in CALLS.values():
                quota = Free()
                async with speaking(Answers(json_error(400)), quota) as recorded:
                    with pytest.raises(Rejected):
                        await finish(ours(recorded))
                (operation,) = quota.asked
                if ours is CALLS["write_to_customer"][0]:
                    continue  # which is POST /messages with another permission
                for action in NEEDS.get(operation, "").split(", "):
                    rest = Key(secret=API_KEY, permissions=frozenset(named - {action}))
                    server.whop.tables.keys[API_KEY] = rest
                    if action and operation != "GET /memberships":  # which is empty, and no error
                        with pytest.raises(Forbidden, match=f"permission: {action}"):
                            await finish(ours(whop))
                        refused.add(operation)
        assert refused == NEEDS.keys() - {"POST /memberships", "GET /memberships"}

    asyncio.run(main())


def test_the_local_whops_refusals_are_of_the_right_kind() -> None:
    async def main() -> None:
        async with local() as (server, whop):
            with pytest.raises(Missing):
                await whop.channel("exp_none")
            held = server.whop.memberships.buy("prod_basic", "ada")
            await whop.cancel(held.id, key="once")
            with pytest.raises(Conflict):
                await whop.cancel(held.id, key="twice")
            with pytest.raises(Rejected, match="price"):
                await whop.create_membership(
                    plan=held.plan_id, user=held.user_id, key=KEY, metadata={}
                )
            with pytest.raises(Rejected, match="who_can_post"):
                await whop.update_channel("exp_none", {"who_can_post": "nobody"})
            server.whop.faults.rate_limit = RateLimit(count=0, seconds=90)
            with pytest.raises(Unavailable) as limited:
                await whop.membership(held.id)
            assert limited.value.after == 90
            assert server.journal.counts["memberships.retrieve"] == {429: 1}

    asyncio.run(main())


def test_nobody_listens() -> None:
    async def main() -> None:
        async with local() as (server, _):
            closed = server.api_url
        async with httpx.AsyncClient(base_url=closed) as http:
            whop = Whop(http, account=ACCOUNT, quota=Free(), rng=random.Random(1))
            with pytest.raises(WhopError, match="ConnectError"):
                await whop.create_chat(name="Room", key=KEY)

    asyncio.run(main())


# --- both shapes of an answer


AT = datetime(2026, 12, 3, 18, tzinfo=UTC)
WRITTEN = "2026-12-03T13:00:00-05:00"


@pytest.mark.parametrize(
    "references",
    [
        {"user_id": "user_a", "product_id": "prod_a", "plan_id": "plan_a", "membership_id": "m"},
        {
            "user": {"id": "user_a"},
            "product": {"id": "prod_a"},
            "plan": {"id": "plan_a"},
            "membership": {"id": "m"},
        },
    ],
    ids=["flat", "nested"],
)
def test_both_shapes_are_read(references: dict[str, Any]) -> None:
    times = {"created_at": WRITTEN, "updated_at": WRITTEN}
    period = {"current_period_end": WRITTEN, "expires_at": None}
    held = Membership.read({"id": "mem_a", "status": "active", **references, **times, **period})
    assert held == Membership("mem_a", "active", "user_a", "prod_a", "plan_a", AT, AT, AT)
    paid = Payment.read({"id": "pay_a", "substatus": "refunded", **references, **times})
    facts = (paid.membership, paid.user, paid.product, paid.plan)
    assert facts == ("m", "user_a", "prod_a", "plan_a")
    assert (paid.id, paid.substatus, paid.created_at) == ("pay_a", "refunded", AT)


@pytest.mark.parametrize(
    "write", [float, lambda price: {"amount": f"{price}.00"}], ids=["a number", "a table"]
)
def test_a_price_is_read_in_both_shapes(write: Callable[[int], Any]) -> None:
    def free(initial: int, renewal: int) -> bool:
        prices = {"initial_price": write(initial), "renewal_price": write(renewal)}
        return Plan.read({"id": "plan_a", **prices}).free

    assert free(0, 0)
    assert not free(0, 29)
    assert not free(29, 0)


@pytest.mark.parametrize("name", ["expires_at", "current_period_end", "renewal_period_end"])
def test_a_period_ends_under_any_of_its_names(name: str) -> None:
    assert Membership.read({"id": "m", "status": "active", name: WRITTEN}).period_end == AT


def test_what_is_absent_reads_as_absent() -> None:
    bare = Membership.read({"id": "mem_a", "status": "drafted", "user": None, "product": 7})
    assert bare == Membership("mem_a", "drafted", None, None, None, None, None, None)
    assert Experience.read({"id": "exp_a", "name": "Room"}).products is None
    assert Experience.read({"id": "e", "name": "R", "products": []}).products == frozenset()
    assert Channel.read({"id": "chat_feed_a", "ban_urls": True}).settings["ban_urls"] is True


def test_a_message_is_read_with_its_time_and_without_words_too() -> None:
    said = Message.read({"id": "msg_a", "content": "Hi", "created_at": WRITTEN})
    assert said == Message("msg_a", "Hi", AT)
    assert Message.read({"id": "msg_a", "content": None}) == Message("msg_a", "", None)


def test_an_answer_without_what_all_have_says_so() -> None:
    with pytest.raises(UnexpectedShape, match="status"):
        Membership.read({"id": "mem_a"})


# --- the quota


def test_several_workers_share_one_quota_and_nobody_exceeds_it(redis_url: str) -> None:
    amount, seconds, callers = 100, 1, 200
    went: list[float] = []

    async def call(quota: Quota) -> None:
        await quota.wait("GET /memberships")
        went.append(time.monotonic())

    async def main() -> None:
        clients = [redis.asyncio.Redis.from_url(redis_url) for _ in range(3)]
        quotas = [share(client, (amount, seconds)) for client in clients]
        for quota in quotas:
            await quota.wait("GET /members")  # connections are opened, scripts are loaded
        async with asyncio.TaskGroup() as calls:
            for number in range(callers):
                calls.create_task(call(quotas[number % 3]))
        for client in clients:
            await client.aclose()

    asyncio.run(main())
    went.sort()
    windows = [later - earlier for earlier, later in zip(went, went[amount:], strict=False)]
    assert min(windows) > seconds  # never more than a hundred in any window


def test_what_the_quota_allows_goes_at_once_and_the_next_call_waits(redis_url: str) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client, asyncio.timeout(60):
            quota = share(client, (100, 600))
            for _ in range(int(100 * USED)):
                await quota.wait("GET /memberships")
            next_ = asyncio.create_task(quota.wait("GET /memberships"))
            assert await asyncio.wait([next_], timeout=0.1) == (set(), {next_})
            next_.cancel()
            await asyncio.wait([next_])

    asyncio.run(main())


def share(client: Any, quota: tuple[int, int], *, who: str = "key") -> Quota:
    return Quota(client.connection_pool, prefix="usher:test:quota", who=who, quota=quota)


def test_each_operation_and_each_key_has_a_quota_of_its_own(redis_url: str) -> None:
    async def main() -> None:
        client = redis.asyncio.Redis.from_url(redis_url)
        mine, yours = share(client, (1, 600)), share(client, (1, 600), who="another key")
        async with asyncio.timeout(60):
            await all_of(
                mine.wait("GET /memberships"), mine.wait("POST /memberships"), yours.wait("GET /x")
            )
            await yours.wait("GET /memberships")
        waiting = asyncio.create_task(mine.wait("GET /memberships"))
        async with asyncio.timeout(60):
            await yours.wait("POST /memberships")  # who waits stands in nobody else's way
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])
        await client.aclose()

    asyncio.run(main())


FULL = (4, 1)
"""A quota of four calls a second, of which Usher uses three."""


def test_where_calls_wait_a_lock_goes_first_then_an_opening_then_the_order_of_asking(
    redis_url: str,
) -> None:
    went: list[str] = []

    async def call(quota: Quota, name: str, rank: Rank) -> None:
        await quota.wait("PATCH /chat_channels/{id}", rank)
        went.append(name)

    async def main() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client, asyncio.timeout(60):
            quota = share(client, FULL, who="ranks")
            for _ in range(3):
                await quota.wait("PATCH /chat_channels/{id}")
            ranks = {
                "next": Rank.OTHER,
                "second": Rank.OTHER,
                "opening": Rank.OPENING,
                "third": Rank.OTHER,
                "lock": Rank.LOCK,
                "another lock": Rank.LOCK,
            }
            async with asyncio.TaskGroup() as calls:
                for name, rank in ranks.items():
                    calls.create_task(call(quota, name, rank))

    asyncio.run(main())
    # whose turn has come already keeps it: that costs a lock one call's time
    assert went == ["next", "lock", "another lock", "opening", "second", "third"]


def test_a_call_that_is_given_up_while_it_waits_neither_blocks_nor_loses_a_turn(
    redis_url: str,
) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client, asyncio.timeout(60):
            quota = share(client, FULL, who="given up")
            for _ in range(3):
                await quota.wait("GET /x")
            at_turn, waiting, *rest = [asyncio.create_task(quota.wait("GET /x")) for _ in range(5)]
            await asyncio.sleep(0)  # all have begun: the first has its turn, the others wait for it
            at_turn.cancel()
            waiting.cancel()
            await asyncio.gather(at_turn, waiting, return_exceptions=True)
            assert at_turn.cancelled()
            assert waiting.cancelled()
            await asyncio.gather(*rest)
            await quota.wait("GET /x")

    asyncio.run(main())


def test_a_call_that_is_given_up_just_when_its_turn_comes_passes_it_on(redis_url: str) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client, asyncio.timeout(60):
            quota = share(client, (600, 60), who="just then")
            calls: list[asyncio.Task[None]] = []

            async def first() -> None:
                await quota.wait("GET /x")
                calls[1].cancel()  # its turn has come, and it has not run since

            calls.append(asyncio.create_task(first()))
            calls.extend(asyncio.create_task(quota.wait("GET /x")) for _ in range(2))
            await asyncio.wait(calls)
            assert [call.cancelled() for call in calls] == [False, True, False]
            await quota.wait("GET /x")

    asyncio.run(main())


def test_what_nobody_waits_for_leaves_a_fifth_of_the_window_to_those_who_wait(
    redis_url: str,
) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client, asyncio.timeout(60):
            mine, another = (share(client, (100, 600), who="aside") for _ in range(2))
            allowed = int(int(100 * USED) * (1 - RESERVED))
            for n in range(allowed):  # whoever they are, and in whichever worker
                rank = Rank.OTHER if n % 2 else Rank.BACKGROUND
                await (mine if n % 3 else another).wait("GET /memberships", rank)
            look = asyncio.create_task(mine.wait("GET /memberships", Rank.BACKGROUND))
            assert await asyncio.wait([look], timeout=0.1) == (set(), {look})
            for n in range(int(100 * USED) - allowed):  # and it stands in nobody's way
                await (mine if n % 2 else another).wait("GET /memberships")
            look.cancel()
            await asyncio.wait([look])

    asyncio.run(main())


def test_what_nobody_waits_for_goes_as_soon_as_the_window_has_room_for_it(redis_url: str) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client, asyncio.timeout(60):
            quota = share(client, (10, 1), who="aside again")
            await asyncio.gather(*(quota.wait("GET /x") for _ in range(int(10 * USED))))
            began = time.monotonic()
            await quota.wait("GET /x", Rank.BACKGROUND)
            assert time.monotonic() - began > 0.5

    asyncio.run(main())


def test_calls_in_the_background_are_so_at_every_page_and_urgent_ones_stay_urgent() -> None:
    async def main() -> None:
        quota = Free()
        page = {"data": [{"id": "chat_feed_a"}], "page_info": {"has_next_page": False}}
        answers = Answers(httpx.Response(200, json=page), httpx.Response(200, json={"id": "c"}))
        async with speaking(answers, quota) as whop:
            aside = whop.at(Rank.BACKGROUND)
            assert [one.id async for one in aside.channels()] == ["chat_feed_a"]
            await aside.channel("chat_feed_a", rank=Rank.LOCK)
            await whop.channel("chat_feed_a")
        assert quota.ranks == [Rank.BACKGROUND, Rank.LOCK, Rank.OTHER]

    in_no_time(main())


async def all_of(*calls: Awaitable[None]) -> None:
    await asyncio.gather(*calls)


def test_no_call_goes_without_asking_the_quota() -> None:
    async def main() -> None:
        app, quota = Answers(json_error(400)), Free()
        async with speaking(app, quota) as whop:
            for ours, _ in CALLS.values():
                with pytest.raises(Rejected):
                    await finish(ours(whop))
        assert len(quota.asked) == len(app.requests) == len(CALLS)
        assert documented(quota.asked) <= set(NEEDS)

    asyncio.run(main())


def documented(operations: Iterable[str]) -> set[str]:
    """Leave out the calls for which Whop names no permission."""
    free = {"GET /experiences", "GET /experiences/{id}", "GET /permissions"}
    return set(operations) - free


# --- answers that are not what they should be

HOSTILE = {
    "html": b"<!doctype html><h1>One moment please</h1>",
    "empty": b"",
    "null": b"null",
    "a list": b"[1, 2, 3]",
    "a text": b'"ok"',
    "null error": b'{"error": null}',
    "an empty object": b"{}",
    "rows of all kinds": b'{"data": [1, null, "x", [], {}, {"id": 7}, {"id": null, "name": {}}]}',
    "rows that are no list": b'{"data": {"id": "mem_1"}}',
    "odd fields": b'{"id": "x", "name": 7, "status": 7, "products": [1, {"id": 2}], '
    b'"banned_words": 3, "user_posts_cooldown_seconds": "soon", '
    b'"initial_price": {"amount": "dear"}, "created_at": 5, "metadata": [], '
    b'"data": [{"id": "x", "products": 1, "initial_price": "much"}]}',
    "odd pages": b'{"data": [], "page_info": {"has_next_page": "yes", "end_cursor": 5}}',
    "not utf-8": b"\xff\xfe{}",
    "deep": b"[" * 5000,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", CALLS)
def test_no_answer_passes_the_client_but_as_one_of_its_own_errors(name: str, body: bytes) -> None:
    async def main() -> None:
        async with speaking(Answers(httpx.Response(200, content=body))) as whop:
            with contextlib.suppress(WhopError):
                await finish(CALLS[name][0](whop))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (lambda whop: whop.membership("mem_1"), "memberships.retrieve"),
        (lambda whop: whop.experience("exp_1"), "experiences.retrieve"),
    ],
)
def test_a_field_that_is_missing_is_named_with_its_operation(call: Any, path: str) -> None:
    async def main() -> None:
        async with speaking(Answers(httpx.Response(200, json={"status": "active"}))) as whop:
            with pytest.raises(UnexpectedShape, match="'id' is missing") as caught:
                await call(whop)
        assert caught.value.field == "id"
        assert caught.value.operation.startswith("GET /")
        assert path

    asyncio.run(main())


@pytest.mark.parametrize("name", ["memberships", "memberships_of", "products", "channels"])
def test_a_list_whose_cursor_stands_still_ends_with_an_error(name: str) -> None:
    async def main() -> None:
        page = {"data": [], "page_info": {"has_next_page": True, "end_cursor": "again"}}
        app = Answers(httpx.Response(200, json=page))
        async with speaking(app) as whop:
            with pytest.raises(UnexpectedShape, match="stands still"):
                await finish(CALLS[name][0](whop))
        assert len(app.requests) == 2

    asyncio.run(main())


def test_a_list_that_goes_on_for_ever_ends_with_an_error() -> None:
    class Endless(Answers):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            info = {"has_next_page": True, "end_cursor": str(len(self.requests))}
            return httpx.Response(200, json={"data": [], "page_info": info})

    async def main() -> None:
        app = Endless()
        async with speaking(app) as whop:
            with pytest.raises(UnexpectedShape, match="more than 100 pages"):
                await whop.memberships("user_1")
        assert len(app.requests) == 100

    asyncio.run(main())


def test_one_row_in_a_hundred_that_cannot_be_read_does_not_stop_the_others() -> None:
    async def main() -> None:
        rows = [{"id": f"mem_{n}", "status": "active"} for n in range(100)]
        del rows[50]["id"]
        async with speaking(Answers(httpx.Response(200, json={"data": rows}))) as whop:
            found = await whop.memberships("user_1")
        assert len(found) == 99

    asyncio.run(main())


def test_an_endpoint_that_the_account_may_not_use_is_no_missing_permission() -> None:
    async def main() -> None:
        async with local() as (server, whop):
            server.whop.faults.unavailable = ["memberships.create"]
            with pytest.raises(NotAvailable, match="not available for your account"):
                await whop.create_membership(plan="plan_1", user="user_1", key=KEY, metadata={})

    asyncio.run(main())
