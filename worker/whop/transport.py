"""Calls to Whop over HTTP: sent in their turn, tried again, and their answers told apart.

Every call carries `Api-Version-Date` (without it two keys of one account can get different
shapes), waits for the shared quota, has a timeout, and is tried again a bounded number of times.
"""

import asyncio
import copy
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol
from urllib.parse import quote

import httpx
import msgspec

from webhooks.events import table, text
from worker.whop import answers
from worker.whop.errors import (
    Conflict,
    Forbidden,
    Limited,
    Missing,
    NotAvailable,
    Rejected,
    Unavailable,
    UnexpectedShape,
    WhopError,
)
from worker.whop.permissions import NEEDS
from worker.whop.quota import Quota, Rank
from worker.whop.types import Row

API_DATE: Final = "2026-10-15-1"
TIMEOUT: Final = httpx.Timeout(20.0, connect=5.0)
TRIES: Final = 3
"""Tries of one call. A POST that makes something is tried once, for Whop may take no notice of our
key, and even a refusal may come after the effect: whoever repeats it must look first."""

DELAY: Final = re.compile(r"(\d{1,9}(?:\.\d+)?)", re.ASCII)
PATIENCE: Final = 30.0
"""Seconds that a call waits at the most when Whop names a delay; longer is the job's matter."""

PAGE: Final = 100
PAGES: Final = 1_000
"""Pages that a list has at the most, but for those that say otherwise: a hundred thousand rows."""

TOO_MANY: Final = 429
TRY_AGAIN: Final = frozenset({408, TOO_MANY})
UNKNOWN_KEY: Final = 401
NOT_ALLOWED: Final = 403
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What bytes that are no JSON raise, or JSON that is too deep."""

REFUSALS: Final = {UNKNOWN_KEY: Forbidden, NOT_ALLOWED: Forbidden, 404: Missing, 409: Conflict}


class Listener(Protocol):
    """Whoever wants to know how calls fare."""

    def waited(self, seconds: float, /) -> None:
        """Hear how long a call waited for the quota."""

    def called(self, *, answered: bool) -> None:
        """Hear of each try: a refusal is an answer, and so is a quota that is used up."""


class Transport:
    """One key's way to Whop."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        quota: Quota,
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]],
        listener: Listener | None,
        lacks: Callable[[Sequence[str]], Awaitable[Sequence[str]]] | None = None,
        guard: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Go over a client.

        `lacks` says which of some permissions the key has not, and `guard` raises where the caller
        may change nothing any more: it is asked right before each call that does.
        """
        self._http = http
        self._quota = quota
        self._rng = rng
        self._sleep = sleep
        self._listener = listener
        self._lacks = lacks
        self._guard = guard
        self._rank = Rank.OTHER

    def at(self, rank: Rank) -> "Transport":
        """Return the same way, on which all calls go at a rank that have none of their own."""
        other = copy.copy(self)
        other._rank = rank  # noqa: SLF001 - it is one of us
        return other

    async def pages(
        self, path: str, query: Mapping[str, Any], id_: str = "", *, most: int = PAGES
    ) -> AsyncIterator[Row]:
        """Yield the rows of a list, page by page.

        Raises:
            UnexpectedShape: the list has no end: its cursor stands still, or it has more than
                `most` pages.
        """
        operation, after = f"GET /{path.format('{id}')}", ""
        for _ in range(most):
            cursor = {"after": after} if after else {}
            page = await self.call("GET", path, id_, query={**query, "first": PAGE, **cursor})
            for row in rows(operation, page):
                yield row
            info = table(page, "page_info")
            next_ = text(info, "end_cursor")
            if not (info.get("has_next_page") and next_):
                return
            if next_ == after:
                raise UnexpectedShape(operation, "a list whose cursor stands still", "end_cursor")
            after = next_
        why = f"a list of more than {most} pages of {PAGE}; nobody believes that it ends"
        raise UnexpectedShape(operation, why, "has_next_page")

    async def get(self, path: str, id_: str) -> Row:
        """Read one object."""
        return await self.call("GET", path, id_)

    async def post(
        self, path: str, body: Mapping[str, Any], id_: str = "", *, key: str, **how: Any
    ) -> Row:
        """Do something, with a key by which Whop may know it again."""
        return await self.call("POST", path, id_, body=body, key=key, **how)

    async def call(
        self,
        method: str,
        path: str,
        id_: str = "",
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
        date: str = API_DATE,
        tries: int = TRIES,
        rank: Rank = Rank.OTHER,
        needs: str = "",
    ) -> Row:
        """Call Whop; `path` has `{}` where the id goes, and `needs` are other permissions than
        those of the operation as a whole.

        Raises:
            Unavailable, Rejected: as `worker.whop.errors` tells them apart.
        """
        operation = f"{method} /{path.format('{id}')}"
        headers = {"Api-Version-Date": date} | ({"Idempotency-Key": key} if key else {})
        request = self._http.build_request(
            method,
            path.format(quote(id_, safe="")),
            params=query,
            headers=headers,
            json=body,
            timeout=TIMEOUT,
        )
        rank = self._rank if rank is Rank.OTHER else rank
        for attempt in range(tries):
            await self._turn(operation, rank)
            if self._guard and method != "GET":
                await self._guard()
            try:
                answer = await self._once(operation, request, needs or NEEDS.get(operation, ""))
            except WhopError as error:
                self._tell(answered=isinstance(error, Rejected | Limited))
                if not isinstance(error, Unavailable):
                    raise
                delay = (1 + error.after) if error.after else 0.2 * 2**attempt
                if attempt == tries - 1 or delay > PATIENCE:
                    raise
                await self._sleep(delay * self._rng.uniform(0.8, 1.2))
            else:
                self._tell(answered=True)
                return answer
        raise AssertionError("the last try returns or raises")

    async def _turn(self, operation: str, rank: Rank) -> None:
        began = asyncio.get_running_loop().time()
        await self._quota.wait(operation, rank)
        if self._listener:
            self._listener.waited(asyncio.get_running_loop().time() - began)

    def _tell(self, *, answered: bool) -> None:
        if self._listener:
            self._listener.called(answered=answered)

    async def _once(self, operation: str, request: httpx.Request, needs: str) -> Row:
        try:
            response = await self._http.send(request)
        except httpx.HTTPError as error:
            raise Unavailable(operation, f"{type(error).__name__} {error}".strip()) from error
        answers.note(operation, response)
        if response.is_success:
            return _object(operation, response)
        message = _message(response)
        if response.status_code in TRY_AGAIN or response.is_server_error:
            wait = _wait(response, message)
            kind = Limited if response.status_code == TOO_MANY else Unavailable
            raise kind(operation, f"{response.status_code} {message}", wait)
        refusal = REFUSALS.get(response.status_code, Rejected)
        message = f"{response.status_code} {message}"
        if response.status_code == UNKNOWN_KEY:
            message += " (the API key is not valid: it comes from WHOP_API_KEY)"
        if response.status_code == NOT_ALLOWED and needs:
            refusal, about = await self._why_not_allowed(needs)
            message += about
        raise refusal(operation, message, response.status_code)

    async def _why_not_allowed(self, needs: str) -> tuple[type[Rejected], str]:
        """Find out whether the key lacks a permission, or the account may not use the endpoint."""
        try:
            lacking = await self._lacks(needs.split(", ")) if self._lacks else []
        except WhopError:
            return Forbidden, f" (it needs {needs}; Whop does not say what the key has)"
        if lacking:
            return Forbidden, f" (the key lacks {', '.join(lacking)})"
        return NotAvailable, " (the key lacks nothing: Whop does not let the account use this)"


def _object(operation: str, response: httpx.Response) -> Row:
    try:
        answer = msgspec.json.decode(response.content)
    except UNREADABLE as error:
        raise UnexpectedShape(operation, f"an answer that is not JSON: {error}") from error
    return Row(answer if isinstance(answer, dict) else {"value": answer}, operation)


def rows(operation: str, page: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a page; an answer without any is none, whatever its status says.

    What is no object in it reads as one without any field.
    """
    found = page.get("data")
    if not isinstance(found, list) or (found and not any(isinstance(r, dict) for r in found)):
        why = f"an answer without rows; it has {sorted(map(str, page))[:20]}"
        raise UnexpectedShape(operation, why, "data")
    return [Row(row if isinstance(row, dict) else {}, operation) for row in found]


def _message(response: httpx.Response) -> str:
    """Return Whop's own words for an error, whatever shape they come in, and not too many."""
    try:
        body = msgspec.json.decode(response.content)
    except UNREADABLE:
        words = response.text
    else:
        error = body.get("error", body) if isinstance(body, dict) else body
        said = error.get("message", error) if isinstance(error, dict) else error
        words = "(without a word)" if said is None else str(said)
    return re.sub(r"\S+@\S+", "(an e-mail address)", words[:2000])[:300]


def _wait(response: httpx.Response, message: str) -> float | None:
    """Read how long Whop wants us to wait, in seconds: `Retry-After`, or else its own words.

    A date is measured against the answer's own `Date`, not against our clock. The documents put
    the delay of a 429 into the message (Whop: Troubleshooting).
    """
    header = response.headers.get("Retry-After", "")
    if DELAY.fullmatch(header):
        return float(header)
    try:
        dates = [parsedate_to_datetime(d) for d in (header, response.headers.get("Date", ""))]
        return max(0.0, (dates[0] - dates[1]).total_seconds())
    except (ValueError, TypeError):  # no date, or one of the two without a zone
        if response.status_code != TOO_MANY:
            return None
        said = re.search(DELAY.pattern + " ?s", message, re.ASCII)
        return float(said[1]) if said else None
