"""Does Redis keep what it promises? What production wants of it, and what is otherwise."""

from typing import TYPE_CHECKING, Final

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from redis.asyncio import Redis

WANTED: Final = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
"""With these, what was answered with a 2xx is on the disk, and nothing that waits is evicted."""


class Unknowable(Exception):
    """The server does not show its settings, as many managed ones do not."""


async def shortcomings(redis: "Redis") -> dict[str, str]:
    """Return the settings that are not what production wants, with the values found.

    Raises:
        Unknowable: the server does not let us ask.
        RedisError: it is away.
    """
    found: dict[str, str] = {}
    for name, wanted in WANTED.items():
        value = await _setting(redis, name)
        if value != wanted:
            found[name] = value
    return found


async def _setting(redis: "Redis", name: str) -> str:
    try:
        answer = await redis.config_get(name)
    except ResponseError as refusal:
        raise Unknowable(str(refusal)) from refusal
    if name not in answer:
        raise Unknowable(f"the server has no setting named {name}")
    return str(answer[name])
