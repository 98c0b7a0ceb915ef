"""What Whop answered to the call that was made last: the evidence of a step."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

import httpx

REQUEST_ID: Final = "x-request-id"
"""The header in which servers name a request. Whop documents none: where there is one, it is what
their support can find the call by."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of Whop's: to which operation, with which status, and its name for the call."""

    operation: str
    status: int
    request: str | None

    def __str__(self) -> str:
        """Write it as it stands in a trail."""
        named = f" ({self.request})" if self.request else ""
        return f"{self.operation}: {self.status}{named}"


# Each job is a task with a context of its own, so that jobs never see each other's answers.
_last: ContextVar[Answer | None] = ContextVar("last answer of Whop's", default=None)


def note(operation: str, response: httpx.Response) -> None:
    """Keep what was answered, for the running job."""
    request = response.headers.get(REQUEST_ID)
    _last.set(Answer(operation, response.status_code, request[:100] if request else None))


def last() -> str | None:
    """Return what Whop last answered to the running job, as it stands in a trail."""
    answer = _last.get()
    return None if answer is None else str(answer)
