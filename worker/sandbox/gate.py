"""What stands before every call: the key, the version, the quota, the Idempotency-Key."""

from collections import defaultdict, deque
from datetime import datetime, timedelta
from math import ceil

import msgspec

from worker.sandbox.faults import RateLimit
from worker.sandbox.records import Key
from worker.sandbox.refusals import BadRequest, Conflict, TooManyRequests, Unauthorized
from worker.sandbox.state import LATEST
from worker.sandbox.tables import Tables

CREATE_MEMBERSHIP_VERSION = "2026-06-09"
"""The one date at which Whop documents POST /memberships."""
SUPPORTED = (CREATE_MEMBERSHIP_VERSION, LATEST)
KEY_BYTES = 255
REPLAY_LIFE = timedelta(hours=24)
SERVER_ERROR = 500


def caller(tables: Tables, authorization: str | None) -> Key:
    """Return the key that calls.

    Raises:
        Unauthorized: there is none, or nobody knows it.
    """
    scheme, _, secret = (authorization or "").partition(" ")
    key = tables.keys.get(secret.strip())
    if scheme.lower() != "bearer" or key is None:
        raise Unauthorized("Invalid API key")
    return key


def version(date: str | None) -> str:
    """Return the Api-Version-Date of a call.

    Without the header the key's own pin counts; new keys are pinned to the newest version, and
    so are all of the local Whop's. It speaks the shapes of that one version, and 2026-06-09 is
    known besides for the call that exists at no other date.

    Raises:
        BadRequest: another date; the supported ones are listed.
    """
    if date is None:
        return LATEST
    if date not in SUPPORTED:
        raise BadRequest(f"Unknown Api-Version-Date {date!r}; supported: {', '.join(SUPPORTED)}")
    return date


class Quota:
    """So many calls per operation and key within a sliding window; a refused one does not count."""

    def __init__(self) -> None:
        self._calls: defaultdict[tuple[str, str], deque[datetime]] = defaultdict(deque)

    def admit(self, operation: str, key: Key, limit: RateLimit, now: datetime) -> None:
        """Count a call.

        Raises:
            TooManyRequests: with the wait in its message and in `Retry-After`. Whop documents
                the message; the header is what its SDKs look for.
        """
        calls = self._calls[operation, key.secret]
        window = timedelta(seconds=limit.seconds)
        while calls and calls[0] <= now - window:
            calls.popleft()
        if len(calls) >= limit.count:
            oldest = calls[len(calls) - limit.count] if limit.count else now
            wait = max(1, ceil((oldest + window - now).total_seconds()))
            raise TooManyRequests(
                f"Rate limit exceeded for this operation. Please wait {wait} seconds and try again",
                headers={"Retry-After": str(wait)},
            )
        calls.append(now)


class Answer(msgspec.Struct, frozen=True):
    """A whole answer, as it goes over the wire."""

    status: int
    body: bytes
    headers: dict[str, str] = {}


class _Kept(msgspec.Struct):
    fingerprint: tuple[str, ...]
    since: datetime
    answer: Answer | None = None


class Replays:
    """Answers to POSTs by Idempotency-Key: for 24 hours, per key, 2xx and 4xx (Whop: Idempotency).

    Not documented, and chosen here: a 5xx is not kept, and while a first call is still being
    answered a second one with its key is a 409.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Kept] = {}

    def begin(
        self, caller: str, key: str, fingerprint: tuple[str, ...], now: datetime
    ) -> Answer | None:
        """Return the answer that was given before; None reserves the key for this call.

        Raises:
            BadRequest: the key is too long, or was used with another request.
            Conflict: the first call with this key is still running.
        """
        if len(key.encode()) > KEY_BYTES:
            raise BadRequest(f"Idempotency-Key must be at most {KEY_BYTES} bytes")
        self._expire(now)
        kept = self._kept.get((caller, key))
        if kept is None:
            self._kept[caller, key] = _Kept(fingerprint, now)
            return None
        if kept.fingerprint != fingerprint:
            raise BadRequest("This Idempotency-Key was already used with a different request")
        if kept.answer is None:
            raise Conflict("A request with this Idempotency-Key is still being processed")
        return kept.answer

    def end(self, caller: str, key: str, answer: Answer) -> None:
        """Keep the answer, or forget the key after a server's error."""
        if answer.status >= SERVER_ERROR:
            self.forget(caller, key)
        else:
            self._kept[caller, key].answer = answer

    def forget(self, caller: str, key: str) -> None:
        """Let the key be used again."""
        del self._kept[caller, key]

    def _expire(self, now: datetime) -> None:
        """Forget what is older than a day; the oldest come first."""
        while self._kept:
            oldest, kept = next(iter(self._kept.items()))
            if now - kept.since <= REPLAY_LIFE:
                return
            del self._kept[oldest]
