"""Clients of Redis, by its URL: how long they wait, and how they find out that nobody is there.

No wait is without a bound: for a connection, for an answer, for each of several Sentinels. An idle
connection whose other side has gone without a word is found out by TCP's own keep-alive.
"""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError

_TO_CONNECT: Final = 2.0
_OF_A_SENTINEL: Final = 1.0
"""Seconds that a Sentinel has for each step: it answers from memory, and all are asked at once."""


def _keep_alive() -> dict[str, Any]:
    """Return what finds a dead peer in half a minute, of which not every system knows all."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
    known = {
        getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)
    }
    return {"socket_keepalive": True, "socket_keepalive_options": known}


def connect(url: str, *, timeout: float | None = 5.0) -> Redis:
    """Return a client for `redis://`, `rediss://`, `unix://` or `redis+sentinel://`.

    A Sentinel URL reads `redis+sentinel://[user:password@]host:port,host:port/service[/db]`.
    Nothing is opened yet. Without a timeout (seconds for each answer) the caller brings their
    own, as the inbox does. A call that lost its connection is tried twice more within a second,
    which is safe: our scripts are idempotent.

    Raises:
        ValueError: the URL is of none of these kinds.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": _TO_CONNECT,
        "socket_timeout": timeout,
        "retry": Retry(ExponentialBackoff(cap=0.4, base=0.1), 2),
        "retry_on_error": [OSError],
        "health_check_interval": 30,
    }
    if not url.startswith("unix://"):  # nobody can go away there without a word
        options |= _keep_alive()
    if url.startswith("redis+sentinel://"):
        return _sentinel(url, options)
    client: Redis = Redis.from_url(url, **options)
    return _hearing(client)


class _Hearing:
    """A connection, of whatever kind, that takes each word for a lost one for what it means.

    Where the other side hangs up just before we write, uvloop raises a RuntimeError, and a later
    Python a ConnectionResetError. The first nobody takes for an absence of Redis: not redis-py,
    which would try again, and not we.
    """

    _parser: Any
    _reader: asyncio.StreamReader | None
    _writer: asyncio.StreamWriter | None
    health_check_interval: float
    next_health_check: float

    async def on_connect(self) -> None:
        """Log in, as redis-py does, on a connection that needs no look at its health: it is new.

        redis-py would ping first. Where Redis wants a password, that fails, and opens a new
        connection to ping again, which pings first: for ever, and without a word.
        """
        now = asyncio.get_running_loop().time()
        self.next_health_check = now + self.health_check_interval
        await super().on_connect()  # type: ignore[misc]  # of redis-py's class beside it

    async def send_packed_command(self, *given: Any, **options: Any) -> None:
        """Send, as redis-py does.

        Raises:
            Disconnected: the connection is lost.
        """
        try:
            await super().send_packed_command(*given, **options)  # type: ignore[misc]  # of redis-py's class beside it
        except RuntimeError as closed:
            self.hang_up()
            raise Disconnected(str(closed)) from closed

    async def disconnect(self, nowait: bool = False) -> None:  # noqa: FBT001, FBT002 - redis-py's
        """Close the connection, as redis-py does; at once where nobody may be there any more."""
        if nowait:
            self.hang_up()
        else:
            await super().disconnect()  # type: ignore[misc]  # of redis-py's class beside it

    def hang_up(self) -> None:
        """Let go of the connection with all that is still to be sent.

        Closing alone waits until the other side has read that: for a quarter of an hour, where it
        has gone without a word.
        """
        self._parser.on_disconnect()
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


def _hearing(client: Redis) -> Redis:
    pool = client.connection_pool
    kind = pool.connection_class
    pool.connection_class = type(f"Hearing{kind.__name__}", (_Hearing, kind), {})
    return client


class _Sentinels(Sentinel):
    """Sentinels that are all asked at once: one that hangs keeps nobody waiting.

    redis-py asks one after the other, and every new connection to Redis would wait for the first.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return the address of the primary from whoever knows it first.

        Raises:
            MasterNotFoundError: nobody does.
        """
        asked = [asyncio.create_task(self._ask(one, service_name)) for one in self.sentinels]
        refused: list[str] = []
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    return await answer
                except (RedisError, OSError) as error:
                    refused.append(str(error) or type(error).__name__)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise MasterNotFoundError(f"no Sentinel knows {service_name!r}: {'; '.join(refused)}")

    async def _ask(self, sentinel: Any, service_name: str) -> tuple[str, int]:
        known: Mapping[str, Any] = await sentinel.sentinel_masters()
        state = known.get(service_name)
        if not state or not self.check_master_state(dict(state), service_name):
            raise MasterNotFoundError("it knows of none that is up")
        return state["ip"], state["port"]


class _SentinelPool(SentinelConnectionPool):
    """The connections to the primary, which take those to the Sentinels with them."""

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's
        """Close the connections; all of them at the end, and the idle ones at a failover."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def _sentinel(url: str, options: dict[str, Any]) -> Redis:
    parts = urlsplit(url.replace("redis+sentinel", "sentinel", 1))
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not hosts:
        raise ValueError("a Sentinel URL reads redis+sentinel://host:port,host:port/service/db")
    user, _, password = login.partition(":")
    nodes = [
        (host, int(port or 26379)) for host, _, port in (h.partition(":") for h in hosts.split(","))
    ]
    known = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    of_sentinels = {
        "password": known.get("sentinel_password"),
        "socket_connect_timeout": _OF_A_SENTINEL,
        "socket_timeout": _OF_A_SENTINEL,
        **_keep_alive(),
    }
    sentinel: Any = _Sentinels(nodes, sentinel_kwargs=of_sentinels, **options)  # type: ignore[no-untyped-call]  # redis-py's gap
    for one in sentinel.sentinels:
        _hearing(one)
    client: Redis = sentinel.master_for(
        service,
        connection_pool_class=_SentinelPool,
        db=int(db or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
    )
    return _hearing(client)
