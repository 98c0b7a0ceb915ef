"""Why the local Whop says no.

Refusal
├── BadRequest       400  the request itself is malformed
├── Unauthorized     401  no key, or an unknown one
├── Forbidden        403  the key lacks a permission, which is named
├── NotFound         404
├── Conflict         409  the object's state does not allow it
├── Unprocessable    422  a field is missing or wrong; native endpoints say 400 for it
└── TooManyRequests  429  the quota of this operation and key is used up
"""

from typing import ClassVar


class Refusal(Exception):
    """An answer that is not a success, as Whop words it: a type and a message."""

    status: ClassVar[int]
    type: ClassVar[str]

    def __init__(self, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers or {}

    def body(self) -> dict[str, dict[str, str]]:
        """Return the error body of Whop's native endpoints."""
        return {"error": {"type": self.type, "message": self.message}}


class BadRequest(Refusal):
    """The request is malformed."""

    status = 400
    type = "bad_request"


class Unauthorized(Refusal):
    """The key is missing or unknown."""

    status = 401
    type = "unauthorized"


class Forbidden(Refusal):
    """The key lacks a permission."""

    status = 403
    type = "forbidden"


class NotFound(Refusal):
    """There is no such object, or it is not for this caller to see."""

    status = 404
    type = "not_found"


class Conflict(Refusal):
    """The object's state does not allow the request."""

    status = 409
    type = "conflict"


class Unprocessable(Refusal):
    """A field is missing or has a value that Whop does not take."""

    status = 422
    type = "unprocessable_entity"


class TooManyRequests(Refusal):
    """The quota is used up; the wait is in the message, and in `Retry-After`."""

    status = 429
    type = "rate_limited"
