"""SIGKILL and SIGSTOP in the middle of a purchase, at a handful of places.

`make torture` tries them all.
"""

import asyncio
from functools import partial

import pytest
import redis
import uvloop

from torture import kill_matrix
from torture.kill_matrix import CALL, INBOX, STOPPED, STORE, Point
from webhooks.inbox import connect

CHOSEN = {
    (INBOX, "put", True, "receiver"),
    (CALL, "POST memberships", True, "worker"),
    (STORE, "settle", False, "worker"),
    (STORE, "claim", True, "redis"),
}


STOPS = {
    (CALL, "POST memberships", True, STOPPED),
    (CALL, "POST experiences", False, STOPPED),
    (STORE, "write member", False, STOPPED),
    (STORE, "settle", False, STOPPED),
}


def first_of(kinds: set[tuple[str, str, bool, str]], points: list[Point]) -> list[Point]:
    """Choose the first point of each kind."""
    found = {(p.step.wire, p.step.what, p.after, p.victim): p for p in reversed(points)}
    return [found[kind] for kind in sorted(kinds)]


def test_whoever_is_killed_in_the_middle_of_a_purchase_it_is_done_exactly_once():
    found = asyncio.run(kill_matrix.matrix(lanes=2, choose=partial(first_of, CHOSEN)))
    assert found.broken == []
    assert sum(found.killed.values()) == len(CHOSEN)


def test_a_worker_that_stood_still_for_longer_than_its_lease_writes_over_nobody():
    found = asyncio.run(kill_matrix.matrix(lanes=2, choose=partial(first_of, STOPS)))
    assert found.broken == []
    assert sum(found.killed.values()) == len(STOPS)


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_connection_that_is_closed_under_us_means_that_redis_is_away(redis_url, loop):
    """Python 3.11 says so in uvloop's words, asyncio and Python 3.13 in their own."""

    async def writing() -> None:
        client = connect(redis_url)
        connection = await client.connection_pool.get_connection()
        connection._writer.transport.abort()
        try:
            await connection.send_command("PING")
        finally:
            await client.aclose()

    with (
        asyncio.Runner(loop_factory=loop) as runner,
        pytest.raises(redis.ConnectionError, match=r"closed|Connection lost"),
    ):
        runner.run(writing())
