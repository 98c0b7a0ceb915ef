"""Anything in any order, and access equals purchases; the long version is `make torture`."""

import logging

import pytest
import structlog

from torture import state_machine


@pytest.fixture(autouse=True)
def quiet():
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def test_whatever_happens_access_equals_purchases_when_the_dust_has_settled(redis_url):
    state_machine.run(redis_url, examples=15, steps=25, random=False)
