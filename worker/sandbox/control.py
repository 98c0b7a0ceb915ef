"""The controls, `/sandbox/...`: what people do on Whop's own pages, and what tests switch.

They need no key: the local Whop listens on the loopback and keeps nothing that is worth one. But
a web page from elsewhere, open in the same browser, is refused: it sends its `Origin`.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from worker.sandbox.journal import Journal
from worker.sandbox.overview import overview
from worker.sandbox.records import Membership
from worker.sandbox.refusals import BadRequest, Forbidden, Refusal, Unprocessable
from worker.sandbox.state import LocalWhop

Body = TypeVar("Body", bound=msgspec.Struct)


class Buy(msgspec.Struct):
    """Buy a product as a user, who is made when nobody has the name."""

    product_id: str
    user: str
    plan_id: str | None = None


class Join(msgspec.Struct):
    """Follow a plan's link as a user, who is made when nobody has the name."""

    plan_id: str
    user: str


class Cancel(msgspec.Struct):
    """Cancel a membership as its holder."""

    membership_id: str
    at_period_end: bool = False


class Refund(msgspec.Struct):
    """Give a payment for a membership back, or a part of it."""

    membership_id: str
    payment_id: str | None = None
    amount: float | None = None


class OpenDispute(msgspec.Struct):
    """Dispute the last payment for a membership; a `warning_` is an inquiry."""

    membership_id: str
    status: Literal["needs_response", "warning_needs_response"] = "needs_response"


class Transfer(msgspec.Struct):
    """Move a membership to another user."""

    membership_id: str
    user: str


class Decide(msgspec.Struct):
    """Move a dispute on, with Whop's words."""

    dispute_id: str
    status: Literal[
        "under_review", "warning_under_review", "won", "lost", "prevented", "warning_closed"
    ]


class SetStatus(msgspec.Struct):
    """Put a membership into a status."""

    membership_id: str
    status: str


class Accept(msgspec.Struct):
    """Accept an invitation."""

    invitation_id: str


class Say(msgspec.Struct):
    """Write into a channel as a user, under the channel's settings."""

    channel_id: str
    user: str
    content: str


class Admin(msgspec.Struct):
    """Put a user on the team."""

    user: str


class Control:
    """Answers the controls."""

    def __init__(self, whop: LocalWhop, journal: Journal) -> None:
        self._whop = whop
        self._journal = journal

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            _route("POST", "/sandbox/buy", Buy, self._buy),
            _route("POST", "/sandbox/join", Join, self._join),
            _route("POST", "/sandbox/cancel", Cancel, self._cancel),
            _route("POST", "/sandbox/refund", Refund, self._refund),
            _route("POST", "/sandbox/dispute", OpenDispute, self._dispute),
            _route("POST", "/sandbox/transfer", Transfer, self._transfer),
            _route("POST", "/sandbox/dispute/decide", Decide, self._decide),
            _route("POST", "/sandbox/status", SetStatus, self._status),
            _route("POST", "/sandbox/accept", Accept, self._accept),
            _route("POST", "/sandbox/say", Say, self._say),
            _route("POST", "/sandbox/admin", Admin, self._admin),
            Route("/sandbox/faults", self._faults, methods=["GET", "PATCH"]),
            Route("/sandbox/requests", self._requests, methods=["GET", "DELETE"]),
            Route("/sandbox/state", self._state, methods=["GET"]),
        ]

    def _sold(self, held: Membership) -> dict[str, Any]:
        user = self._whop.tables.users.get(held.user_id or "")
        return {
            "membership_id": held.id,
            "user_id": held.user_id,
            "username": None if user is None else user.username,
            "status": held.status,
        }

    def _buy(self, wanted: Buy) -> dict[str, Any]:
        held = self._whop.memberships.buy(wanted.product_id, wanted.user, plan_id=wanted.plan_id)
        return self._sold(held)

    def _join(self, wanted: Join) -> dict[str, Any]:
        plan = self._whop.catalog.plan(wanted.plan_id)
        held = self._whop.memberships.buy(plan.product_id, wanted.user, plan_id=plan.id)
        return self._sold(held)

    def _cancel(self, wanted: Cancel) -> dict[str, Any]:
        held = self._whop.memberships.cancel(
            wanted.membership_id, at_period_end=wanted.at_period_end
        )
        return self._sold(held)

    def _transfer(self, wanted: Transfer) -> dict[str, Any]:
        return self._sold(self._whop.memberships.transfer(wanted.membership_id, wanted.user))

    def _refund(self, wanted: Refund) -> dict[str, Any]:
        refund = self._whop.till.refund(
            wanted.membership_id, payment_id=wanted.payment_id, amount=wanted.amount
        )
        return {"refund_id": refund.id, "payment_id": refund.payment_id}

    def _dispute(self, wanted: OpenDispute) -> dict[str, Any]:
        dispute = self._whop.till.dispute(wanted.membership_id, wanted.status)
        return {"dispute_id": dispute.id, "payment_id": dispute.payment_id}

    def _decide(self, wanted: Decide) -> dict[str, Any]:
        dispute = self._whop.till.decide(wanted.dispute_id, wanted.status)
        return {"dispute_id": dispute.id, "payment_id": dispute.payment_id}

    def _status(self, wanted: SetStatus) -> dict[str, Any]:
        return self._sold(self._whop.memberships.set_status(wanted.membership_id, wanted.status))

    def _accept(self, wanted: Accept) -> dict[str, Any]:
        return self._sold(self._whop.memberships.accept(wanted.invitation_id))

    def _say(self, wanted: Say) -> dict[str, Any]:
        user = self._whop.people.meet(wanted.user)
        said = self._whop.rooms.say(user.id, wanted.channel_id, wanted.content)
        return {"message_id": said.id, "user_id": user.id}

    def _admin(self, wanted: Admin) -> dict[str, Any]:
        user = self._whop.people.add_admin(wanted.user)
        return {"user_id": user.id, "username": user.username}

    async def _faults(self, request: Request) -> Response:
        """Show the switches, or set those that the body names."""
        if request.method == "PATCH":
            before = self._whop.faults.retry_clock
            try:
                _refuse_strangers(request)
                self._whop.faults.change(await request.body())
            except Refusal as refusal:
                return _refused(refusal)
            except msgspec.DecodeError as wrong:
                return _refused(Unprocessable(str(wrong)))
            self._whop.outbox.hasten(self._whop.faults.retry_clock / before, self._whop.now())
        return _json(self._whop.faults)

    async def _requests(self, request: Request) -> Response:
        """Show the calls of the API so far and their counts, or forget them."""
        if request.method == "DELETE":
            self._journal.clear()
        entries = self._journal.of(request.query_params.get("operation"))
        return _json({"requests": entries, "counts": self._journal.counts})

    async def _state(self, _request: Request) -> Response:
        """Show what the page shows."""
        return _json(overview(self._whop, self._journal))


def _route(
    method: str, path: str, kind: type[Body], act: Callable[[Body], dict[str, Any]]
) -> Route:
    """Make a route that reads a body of this kind and answers with what comes of it."""

    async def endpoint(request: Request) -> Response:
        try:
            _refuse_strangers(request)
            return _json(act(_read(await request.body(), kind)))
        except Refusal as refusal:
            return _refused(refusal)

    return Route(path, endpoint, methods=[method])


def _refuse_strangers(request: Request) -> None:
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise Forbidden("The controls are for the local Whop's own page and for programs")


def _read(raw: bytes, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as wrong:
        raise Unprocessable(str(wrong)) from wrong
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise BadRequest("The request body is not valid JSON") from wrong


def _refused(refusal: Refusal) -> Response:
    return _json(refusal.body(), refusal.status)


def _json(content: object, status: int = 200) -> Response:
    body = msgspec.json.encode(content)
    return Response(body, status_code=status, media_type="application/json")
