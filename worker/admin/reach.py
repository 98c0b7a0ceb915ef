"""What keeps a command from Redis, in words; whatever else goes wrong there is a fault of ours."""

import contextlib
from collections.abc import Iterator
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as Late

from webhooks.inbox import InboxUnavailable

_MEANT: Final = (
    (
        (AuthenticationError, AuthorizationError, NoPermissionError),
        "Redis refuses the user or password of REDIS_URL",
    ),
    (OutOfMemoryError, "Redis is full, so it takes nothing; give it more memory"),
    (ReadOnlyError, "REDIS_URL leads to a replica, and must lead to the primary"),
    ((Disconnected, Late, BusyLoadingError), "Redis does not answer at REDIS_URL"),
    (InboxUnavailable, "Redis did not confirm it, so it may not be done; try again"),
)
"""What each error means; the first that fits."""

_REFUSALS: Final = ("CLUSTERDOWN", "DB index is out of range", "MISCONF", "NOREPLICAS")
"""What is in those other answers that are about the state of Redis, and not about our command."""


class Unreachable(Exception):
    """Redis does not do what it should; the message says what, and what to do."""


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Do something with Redis.

    Raises:
        Unreachable: it does not answer, or refuses for a reason of its own.
    """
    try:
        yield
    except Exception as error:
        said = trouble(error)
        if said is None:
            raise
        raise Unreachable(said) from error


def trouble(error: Exception) -> str | None:
    """Say what is the matter with Redis; None where it is not Redis that has gone wrong."""
    said = next((words for kinds, words in _MEANT if isinstance(error, kinds)), None)
    if isinstance(error, ResponseError) and any(one in str(error) for one in _REFUSALS):
        said = "Redis refuses what it is asked for"
    return f"{said}: {error}" if said else None
