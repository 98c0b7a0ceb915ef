"""What the tests share: a real Redis-compatible server on a free port, emptied for each test."""

import logging
import zoneinfo
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from ports import free_port

from worker import embedded

zoneinfo.reset_tzpath(())  # as the command line does

# The same examples each time, however busy the machine: a test that fails has a reason in the code.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("valkey")
    with embedded.running(folder, free_port(), fsync="no") as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    import redis

    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture(autouse=True)
def nobody_elses_logs() -> Iterator[None]:
    """Log as before after a command that was run in this process, and set up logs of its own."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level
