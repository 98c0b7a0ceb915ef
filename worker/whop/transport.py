"""Calls to Whop over HTTP: sent in their turn, tried again, and their answers told apart.

Every call carries `Api-Version-Date` (without it two keys of one account can get different
shapes), waits for the shared quota, has a timeout, and is tried again a bounded number of times.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol
from urllib.parse import quote

import httpx
import msgspec

from webhooks.events import table
from worker.whop import answers
from worker.whop.errors import (
    Conflict,
    Forbidden,
    Limited,
    Missing,
    Rejected,
    Unavailable,
    WhopError,
)
from worker.whop.permissions import NEEDS
from worker.whop.quota import Quota, Rank

API_DATE: Final = "2026-10-15-1"
TIMEOUT: Final = httpx.Timeout(20.0, connect=5.0)
TRIES: Final = 3
"""Tries of one call. A POST that makes something is tried once, for Whop may take no notice of our
key, and even a refusal may come after the effect: whoever repeats it must look first."""

DELAY: Final = re.compile(r"(\d{1,9}(?:\.\d+)?)", re.ASCII)
PATIENCE: Final = 30.0
"""Seconds that a call waits at the most when Whop names a delay; longer is the job's matter."""

PAGE: Final = 100
TOO_MANY: Final = 429
TRY_AGAIN: Final = frozenset({408, TOO_MANY})
UNKNOWN_KEY: Final = 401
NOT_ALLOWED: Final = 403
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
    ) -> None:
        self._http = http
        self._quota = quota
        self._rng = rng
        self._sleep = sleep
        self._listener = listener

    async def pages(
        self, path: str, query: Mapping[str, Any], id_: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the rows of a list, page by page."""
        after: dict[str, str] = {}
        while True:
            page = await self.call("GET", path, id_, query={**query, "first": PAGE, **after})
            for row in rows(f"GET /{path.format('{id}')}", page):
                yield row
            info = table(page, "page_info")
            if not (info.get("has_next_page") and info.get("end_cursor")):
                return
            after = {"after": info["end_cursor"]}

    async def get(self, path: str, id_: str) -> dict[str, Any]:
        """Read one object."""
        return await self.call("GET", path, id_)

    async def post(
        self, path: str, body: Mapping[str, Any], id_: str = "", *, key: str, **how: Any
    ) -> dict[str, Any]:
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
    ) -> dict[str, Any]:
        """Call Whop; `path` has `{}` where the id goes.

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
        for attempt in range(tries):
            await self._turn(operation, rank)
            try:
                answer = await self._once(operation, request)
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

    async def _once(self, operation: str, request: httpx.Request) -> dict[str, Any]:
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
        message = f"{response.status_code} {message}{_about_key(operation, response.status_code)}"
        raise refusal(operation, message, response.status_code)


def _about_key(operation: str, status: int) -> str:
    """Say what is wrong with the key itself, or what it lacks for a call, if that is why."""
    if status == UNKNOWN_KEY:
        return " (the API key is not valid: it comes from WHOP_API_KEY)"
    if status == NOT_ALLOWED and operation in NEEDS:
        return f" (the key needs {NEEDS[operation]})"
    return ""


def _object(operation: str, response: httpx.Response) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(operation, f"an answer that is not JSON: {error}") from error
    return answer if isinstance(answer, dict) else {"value": answer}


def rows(operation: str, page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a page; an answer without any is none, whatever its status says."""
    found = page.get("data")
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise Unavailable(operation, f"an answer without rows; it has {sorted(page)[:20]}")
    return found


def _message(response: httpx.Response) -> str:
    """Return Whop's own words for an error, whatever shape they come in, and not too many."""
    try:
        body = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        words = response.text
    else:
        error = body.get("error", body) if isinstance(body, dict) else body
        words = str(error.get("message", error) if isinstance(error, dict) else error)
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
