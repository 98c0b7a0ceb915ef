"""The inspector: asks at an instant what `usher verify` would report, and disturbs nobody."""

import contextlib
import random
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

import httpx
from starlette.types import ASGIApp

from worker.policy.differences import Difference, Kind
from worker.proof.inspection import inspect
from worker.rules import Rules
from worker.sandbox.faults import Faults, RateLimit
from worker.sandbox.records import Key
from worker.sandbox.state import LocalWhop
from worker.settings import Settings
from worker.simulate.crew import equip
from worker.simulate.wire import CountedQuota

KEY: Final = "apik_inspecting"
"""A key of its own: what it asks is not counted to the worker."""


class Inspector:
    """Whoever runs `usher verify` besides the worker, with the same rules and the same Redis."""

    def __init__(
        self,
        rules: Rules,
        redis: Any,
        whop: LocalWhop,
        app: ASGIApp,
        clock: Callable[[], datetime],
    ) -> None:
        whop.tables.keys[KEY] = Key(secret=KEY)
        self._faults = whop.faults
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://whop.simulated/api/v1",
            headers={"Authorization": f"Bearer {KEY}"},
        )
        settings = Settings(rules=rules, api_key=KEY, redis_url="redis://simulated")
        rng = random.Random(0)  # noqa: S311 - nothing is tried twice
        self._tools = equip(settings, redis, self._http, clock, quota=CountedQuota(clock), rng=rng)

    async def look(self) -> list[Difference]:
        """Return what is not as it should be; tickets over the seats are the buyers' doing."""
        with _in_order(self._faults):
            found = await inspect(self._tools)
        return [one for one in found.differences if one.kind is not Kind.OVERSOLD]

    async def close(self) -> None:
        """Close the client."""
        await self._http.aclose()


@contextlib.contextmanager
def _in_order(faults: Faults) -> Iterator[None]:
    """Keep for the worker the failures that wait for its next calls."""
    kept = faults.failures, faults.rate_limit
    faults.failures, faults.rate_limit = [], RateLimit(count=10**9)
    try:
        yield
    finally:
        faults.failures, faults.rate_limit = kept
