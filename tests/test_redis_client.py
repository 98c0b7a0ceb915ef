"""Clients of Redis: what they say of one that does not let them in."""

import asyncio

import pytest
import redis
from ports import free_port
from redis.exceptions import AuthenticationError

from webhooks.redis_client import connect
from worker import embedded


@pytest.mark.parametrize("login", ["", ":wrong@"], ids=["no password", "a wrong one"])
def test_a_redis_that_wants_a_password_refuses_at_once_and_is_not_asked_for_ever(tmp_path, login):
    async def ask(url):
        client = connect(url)
        try:
            async with asyncio.timeout(10):
                with pytest.raises(AuthenticationError):
                    await client.get("x")
        finally:
            await client.aclose()

    with embedded.running(tmp_path, free_port(), fsync="no") as url:
        with redis.Redis.from_url(url) as client:
            client.config_set("requirepass", "right")
        asyncio.run(ask(url.replace("//", f"//{login}")))


def test_a_new_connection_is_used_without_a_look_at_its_health(redis_url):
    async def main():
        client = connect(redis_url)
        with redis.Redis.from_url(redis_url) as other:
            other.config_resetstat()
            assert await client.get("x") is None
            assert "cmdstat_ping" not in other.info("commandstats")
        await client.aclose()

    asyncio.run(main())
