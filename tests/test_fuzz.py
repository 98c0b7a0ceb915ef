"""Hostile bytes get an answer, soon, and never a 500; the long version is `make torture`."""

import asyncio

import pytest
from deliveries import get, serving

from torture import fuzz


def test_every_request_is_judged_by_the_signature_and_the_envelope_alone():
    found = fuzz.whole(250, random=False)
    assert found.keys() >= {"accepted", "malformed", "forged", "oversized", "hung up"}


@pytest.mark.parametrize("secret", [fuzz.SECRET, fuzz.STANDARD], ids=["ws", "whsec"])
def test_a_genuine_delivery_is_kept_however_it_is_cut_into_pieces(secret):
    body = fuzz.encoded({"id": "msg_1", "type": "payment.failed", "data": {}})
    attempt = fuzz.Attempt(body, secret, 0, (), None, (1, 2, 30), ends=True, announces=False)
    assert asyncio.run(fuzz.judged(fuzz.Door(), attempt)) == "accepted"


def test_the_dearest_body_costs_a_bounded_amount_of_memory():
    worst = max(peak for peak, _ in fuzz.dearest().values())
    assert worst < fuzz.MEMORY


def test_requests_that_lie_about_themselves_leave_the_server_answering(redis_url):
    async def storm():
        async with serving(redis_url) as port:
            found = await fuzz.stormed(port, fuzz.hostile())
            answer = await get(port, "/readyz")
        return found, answer.code

    found, ready = asyncio.run(storm())
    assert found["400"] > 0
    assert ready == 200
