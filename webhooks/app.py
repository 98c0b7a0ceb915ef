"""The receiver's door: `POST /webhooks/whop`, and what watches over it.

A delivery meets the checks in the order of what they cost: size, signature, envelope, account,
type, and at last Redis. What is refused on the way never reaches Redis.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Literal, Protocol

import msgspec
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan, Receive, Scope, Send

from webhooks.events import INTERESTING, Delivery, Malformed, Message, read
from webhooks.inbox import InboxUnavailable
from webhooks.meters import UNREAD, Meters
from webhooks.signature import Forged, Headers, Secrets, verify

Status = Literal[
    "accepted", "duplicate", "ignored", "forged", "malformed", "oversized", "unavailable"
]

LARGEST: Final = 1024 * 1024
"""Bytes that a body may have."""

CODES: Final[dict[Status, int]] = {
    "accepted": 202,
    "duplicate": 200,
    "ignored": 200,
    "forged": 401,
    "malformed": 400,
    "oversized": 413,
    "unavailable": 503,
}

_ACKNOWLEDGED: Final = frozenset({"accepted", "duplicate", "ignored"})
_JSON: Final = (b"content-type", b"application/json")
_READY_WITHIN: Final = 3.0
_RETRY_AFTER: Final = (b"retry-after", b"5")
_EXTRA_HEADERS: Final[dict[Status, list[tuple[bytes, bytes]]]] = {
    "oversized": [(b"connection", b"close")],  # or the server would read the rest, to throw it away
    "unavailable": [_RETRY_AFTER],
}

_encode = msgspec.json.Encoder().encode
logger = structlog.get_logger()


class Store(Protocol):
    """The part of the inbox that the door needs."""

    async def put(self, delivery: Delivery, /) -> bool:
        """Keep a delivery and say whether it is new; a 2xx is given on this answer only.

        The store bounds the wait: a timer for each delivery would cost what its signature does.

        Raises:
            InboxUnavailable: after some seconds at most, if nobody confirms it.
        """

    async def hear(self, message: Message, /) -> bool:
        """Count a message and say whether it is new, on the same terms as `put`.

        Raises:
            InboxUnavailable: after some seconds at most, if nobody confirms it.
        """

    async def ready(self) -> bool:
        """Say whether deliveries can be kept now."""


class Answer(msgspec.Struct, frozen=True):
    """What Whop is told; `id` is null as long as nobody has vouched for it."""

    status: Status
    id: str | None = None
    reason: str | msgspec.UnsetType = msgspec.UNSET


class _Oversized(Exception):
    """The body is larger than any delivery of Whop's."""


class Door:
    """The ASGI endpoint that takes deliveries in."""

    def __init__(
        self,
        *,
        inbox: Store,
        account: str,
        secrets: Secrets,
        clock: Callable[[], float],
        meters: Meters,
    ) -> None:
        self._inbox = inbox
        self._account = account
        self._secrets = secrets
        self._clock = clock
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one delivery, as ASGI has it."""
        began = time.perf_counter()
        try:
            kind, answer = await self._hear(scope["headers"], receive)
        except ClientDisconnect:
            return  # nobody is left to be answered
        self._meters.answered(kind, answer.status)
        if answer.status in _ACKNOWLEDGED:
            self._meters.acknowledged(time.perf_counter() - began)
        else:
            self._refused(answer)
        await _send(send, answer)

    async def _hear(self, headers: Headers, receive: Receive) -> tuple[str, Answer]:
        """Return the type of the delivery and the answer to it."""
        try:
            body = await _whole(headers, receive)
            now = self._clock()
            name = verify(body, headers, self._secrets, now)
        except _Oversized:
            return UNREAD, Answer("oversized", None, f"a body may have {LARGEST} bytes")
        except Forged as forged:
            return UNREAD, Answer("forged", None, forged.reason)
        try:
            delivery = read(body, received=int(now * 1000))
        except Malformed as malformed:
            return UNREAD, Answer("malformed", name, str(malformed))
        return delivery.type, await self._judge(name, delivery)

    async def _judge(self, name: str, delivery: Delivery | Message) -> Answer:
        """Keep a delivery that Whop vouched for, unless it is none of our business."""
        if delivery.id != name:
            return Answer("malformed", name, "the body's id is not that of the header webhook-id")
        if delivery.account not in (None, self._account):
            logger.info("webhook.ignored", id=name, account=delivery.account)
            return Answer("ignored", name, f"it is for another account: {delivery.account}")
        if isinstance(delivery, Message):
            if delivery.uncounted:
                return Answer("ignored", name, delivery.uncounted)
            return await self._confirmed(name, self._inbox.hear(delivery))
        if delivery.type not in INTERESTING:
            return Answer("ignored", name, "nothing depends on this type")
        return await self._confirmed(name, self._inbox.put(delivery))

    async def _confirmed(self, name: str, asked: Awaitable[bool]) -> Answer:
        try:
            new = await asked
        except InboxUnavailable as unavailable:
            return Answer("unavailable", name, str(unavailable))
        return Answer("accepted" if new else "duplicate", name)

    def _refused(self, answer: Answer) -> None:
        if answer.status == "forged":
            self._meters.forged(str(answer.reason))
        logger.warning(
            "webhook.refused", answer=answer.status, id=answer.id, reason=str(answer.reason)
        )


def create_app(
    *,
    inbox: Store,
    account: str,
    secrets: Secrets,
    clock: Callable[[], float],
    registry: CollectorRegistry | None = None,
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """Build the receiver.

    Args:
        inbox: where deliveries go.
        account: the account whose deliveries are kept.
        secrets: the keys, any of which may have signed.
        clock: Unix seconds, now.
        registry: where the meters live; a new one by default.
        lifespan: what surrounds the serving, such as closing the inbox.
    """
    registry = registry or CollectorRegistry()
    meters = Meters(registry)

    async def healthz(_: Request) -> Response:
        return _page(200, "alive")

    async def readyz(_: Request) -> Response:
        return _page(200, "ready") if await _ready(inbox) else _page(503, "unavailable")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    door = Door(inbox=inbox, account=account, secrets=secrets, clock=clock, meters=meters)
    return Starlette(
        routes=[
            Route("/webhooks/whop", door, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ],
        lifespan=lifespan,
    )


async def _whole(headers: Headers, receive: Receive) -> bytes:
    """Return the body, or stop at the first sign that it is too large."""
    if _declared(headers) > LARGEST:
        raise _Oversized
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > LARGEST:
            raise _Oversized
        more = message.get("more_body", False)
    return b"".join(chunks)


def _declared(headers: Headers) -> int:
    """Return the length that the sender announces; chunked bodies announce none."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)  # the server has seen to it that these are digits
    return 0


async def _send(send: Send, answer: Answer) -> None:
    body = _encode(answer)
    headers = [_JSON, (b"content-length", b"%d" % len(body))]
    headers += _EXTRA_HEADERS.get(answer.status, ())
    await send({"type": "http.response.start", "status": CODES[answer.status], "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _ready(inbox: Store) -> bool:
    try:
        async with asyncio.timeout(_READY_WITHIN):
            return await inbox.ready()
    except TimeoutError:
        return False


def _page(code: int, status: str) -> Response:
    headers = {"retry-after": "5"} if code == CODES["unavailable"] else None
    return Response(_encode({"status": status}), code, headers, "application/json")
