"""With replicas, nothing is acknowledged that the primary alone has: on two real servers."""

import asyncio
import contextlib
import time
from pathlib import Path

import pytest
import redis
from local_whop import PATIENCE
from ports import free_port

from webhooks.events import Delivery
from webhooks.inbox import Inbox, InboxUnavailable, connect
from worker import embedded

ONE = Delivery(id="msg_one", type="membership.activated", received=1_700_000_000_000)


def follow(replica: str, primary: str) -> None:
    """Have one server follow another, and wait until it does."""
    with redis.Redis.from_url(replica) as one, redis.Redis.from_url(primary) as other:
        one.replicaof(*_address(primary))
        deadline = time.monotonic() + PATIENCE
        while (other.info("replication").get("slave0") or {}).get("state") != "online":
            assert time.monotonic() < deadline, "the replica did not come"
            time.sleep(0.05)


def _address(url: str) -> tuple[str, str]:
    host, _, port = url.removeprefix("redis://").partition("/")[0].partition(":")
    return host, port


async def put(url: str) -> bool:
    inbox = Inbox(connect(url, timeout=None), "biz_Replicas000001", replicas=1)
    try:
        return await inbox.put(ONE)
    finally:
        await inbox.close()


async def put_until_taken(url: str) -> bool:
    """Put it in as Whop sends it, again while it is refused: a busy replica confirms late."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(InboxUnavailable):
                return await put(url)


def test_a_delivery_that_no_replica_has_is_not_acknowledged_until_one_has_it(tmp_path: Path):
    with (
        embedded.running(tmp_path / "one", free_port(), fsync="no") as primary,
        embedded.running(tmp_path / "two", free_port(), fsync="no") as replica,
    ):
        with pytest.raises(InboxUnavailable, match="no replica of Redis has confirmed it"):
            asyncio.run(put(primary))
        follow(replica, primary)
        new = asyncio.run(put_until_taken(primary))
        assert new is False  # it was stored before, and is confirmed now
        with redis.Redis.from_url(replica) as other:
            assert other.exists("usher:biz_Replicas000001:delivery:msg_one")
