"""What commands ask of Redis: as often for many rooms as for a few, while they fit on a page."""

import asyncio
import contextlib
import io

import community
import pytest
import redis
from redis.asyncio.connection import AbstractConnection

from worker.commands import accounts, outlook, report, verify
from worker.commands.evidence import opened
from worker.memory.shelf import PAGE

FEW, MANY = 3, 24
"""Rooms of each kind: chats that slow down, and cohorts."""


def rules(rooms: int) -> str:
    """Return the rules of some chats that slow down, and of as many cohorts."""
    text = []
    for n in range(rooms):
        text.append(f'[rooms.chat{n}]\nname = "Chat {n}"\nproducts = ["prod_0"]')
        text.append(f"slow = {{ busy = {20 + n}, quiet = 5, steps = [5, 30] }}")
        text.append(f'[rooms.course{n}]\nname = "Course {n} {{cohort}}"\nproducts = ["prod_1"]')
        text.append('cohort = { by = "seats", seats = 2 }')
    return "\n".join(text) + "\n"


@contextlib.contextmanager
def round_trips(monkeypatch):
    """Count what is sent to Redis about the account, a pipeline once; not each call's quota."""
    sent: list[bytes] = []
    send = AbstractConnection.send_packed_command

    async def counted(self, command, check_health=True):  # noqa: FBT002 - as redis-py has it
        whole = command if isinstance(command, bytes) else b"".join(command)
        if b"usher:" in whole and b":quota:" not in whole:
            sent.append(whole)
        await send(self, command, check_health)

    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", counted)
        yield sent


async def ask(command: str, seller, user: str) -> None:
    ruled, now = seller.settings.rules, seller.clock()
    match command:
        case "rooms":
            await report.lines(ruled, seller.settings.redis_url, now)
        case "plan":
            await outlook.outlook(ruled, seller.settings.redis_url, now)
            await outlook.standing(ruled, seller.settings.redis_url)
        case "explain":
            async with opened(ruled, seller.settings.redis_url) as evidence:
                await accounts.gather(evidence, user, None, now)
        case "verify":
            out = io.BytesIO()
            await verify.verify(seller.settings, as_json=True, out=out, clock=seller.clock)


@pytest.mark.parametrize("command", ["rooms", "plan", "explain", "verify"])
def test_many_rooms_cost_a_command_no_more_round_trips_than_few(redis_url, command, monkeypatch):
    async def count(rooms: int) -> list[bytes]:
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        async with community.running(redis_url, rules(rooms), quota=(100_000, 60)) as seller:
            user = seller.whop.memberships.buy("prod_1", "ann").user_id
            await seller.all_settled()
            await seller.rest()
            with round_trips(monkeypatch) as sent:
                await ask(command, seller, user)
            return sent

    few = asyncio.run(count(FEW))
    many = asyncio.run(count(MANY))
    assert 2 * MANY < PAGE
    assert 0 < len(many) <= len(few)
