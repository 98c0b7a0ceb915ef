"""A day offline with ten thousand missed deliveries: one start of a worker, and what came of it.

    .venv/bin/python benchmarks/offline.py

Each purchase is three deliveries; Whop tried each four times, a day ago, and gave up. The local
Whop allows 600 calls per 30 seconds and operation (Whop itself: per 60), and refuses what is more:
so many pages of the log are to be read first, and then one list of memberships for each buyer. The
clock runs from the worker's start to the last grant. Then another worker starts, and must send
nothing.
"""

import argparse
import contextlib
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import community
import httpx
import redis
import uvicorn

from worker import embedded, rules
from worker.sandbox.app import create_app
from worker.sandbox.faults import RateLimit
from worker.sandbox.outbox import Outcome
from worker.sandbox.state import LocalWhop, SeedProduct, seed

QUOTA = (600, 30)
KEY = "apik_benchmark"
ATTEMPTS = 9
"""So often Whop tries a delivery within a day."""
TARGET = 1.2
"""Usher leaves a twentieth of the quota unused, and its start takes seconds."""


def be_whop(port: int, purchases: int, receiver: str) -> None:
    """Be a Whop whose seller was offline yesterday."""
    behind = timedelta(days=1)
    whop = LocalWhop(
        community.ACCOUNT, clock=lambda: datetime.now(UTC) - behind, rng=random.Random(1)
    )
    product = SeedProduct(id="prod_course", title="Course", plan_type="one_time")
    seed(whop, [product], api_key=KEY, webhook_url=receiver, webhook_secret="ws_" + "5" * 64)
    whop.outbox.log_size = 30 * purchases
    for number in range(purchases):
        whop.memberships.buy("prod_course", f"buyer{number}")
    while taken := whop.outbox.take(datetime.now(UTC), 1_000_000):
        for message in taken:
            whop.outbox.settle(message, Outcome(0, b"nobody", 0.0), message.due)
    behind = timedelta(0)
    whop.faults.rate_limit = RateLimit(count=QUOTA[0], seconds=QUOTA[1])
    uvicorn.run(create_app(whop), port=port, log_level="warning", access_log=False)


@contextlib.contextmanager
def running(folder: Path, purchases: int) -> Iterator[community.Community]:
    """Run the local Whop, Valkey, and a receiver that is back; the workers are to come."""
    path, port, back = folder / "rooms.toml", embedded.free_port(), embedded.free_port()
    path.write_text(community.COURSE)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(embedded.running(folder / "valkey", embedded.free_port()))
        environ = {
            **os.environ,
            "WHOP_API_KEY": KEY,
            "WHOP_API_URL": f"http://127.0.0.1:{port}/api/v1",
            "WHOP_WEBHOOK_SECRET": "ws_" + "5" * 64,
            "REDIS_URL": url,
            "USHER_RULES": str(path),
            "USHER_PORT": str(back),
            "USHER_LOG": "json",
        }
        seller = community.Community(
            folder=folder,
            account=rules.parse(community.COURSE).account,
            environ=environ,
            whop=stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)),
            redis=stack.enter_context(redis.Redis.from_url(url)),
            stack=stack,
        )
        receiver = f"http://127.0.0.1:{back}/webhooks/whop"
        seller.start("whop", [__file__, "be-whop", str(port), str(purchases), receiver])
        seller.until(lambda: _listens(port), "local Whop", 120)
        seller.usher("receive")
        seller.until(lambda: _listens(back), "receiver")
        yield seller


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def measure(purchases: int) -> bool:
    """Start a worker after the day, then another one; print what came of it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), purchases) as seller,
    ):
        began = time.monotonic()
        first = seller.work(QUOTA, "first")
        patience = 4 * purchases * QUOTA[1] / QUOTA[0] + 120
        seller.until(lambda: seller.granted() > 0, "the first grant", patience)
        read = time.monotonic() - began
        seller.until(lambda: seller.granted() >= purchases, "the last grant", patience)
        granted = time.monotonic() - began
        seller.until(lambda: seller.due() == 0, "the end of all work", 120)
        counts, grants = seller.counts(), seller.grants()
        first.terminate()
        first.wait(20)
        del seller.children["first"]
        seller.forget_calls()
        seller.work(QUOTA, "second")
        seller.until(lambda: "webhooks.list_deliveries" in seller.counts(), "the second reading")
        seller.until(lambda: seller.due() == 0, "the second end", 60)
        time.sleep(2)
        again = seller.counts()
    return report(purchases, (read, granted), counts, grants, again)


def report(
    purchases: int,
    took: tuple[float, float],
    counts: dict[str, dict[str, int]],
    grants: list[community.Grant],
    again: dict[str, dict[str, int]],
) -> bool:
    """Print the figures; say whether all holds."""
    users = Counter(grant.user for grant in grants)
    lost, doubled = purchases - len(users), sum(n - 1 for n in users.values())
    refused = sum(statuses.get("429", 0) for statuses in counts.values())
    sent = {name: n for name, n in again.items() if name.endswith((".create", ".update"))}
    pages = -(-3 * purchases * ATTEMPTS // 100)
    read, seconds = took
    allowed = (pages + purchases) * QUOTA[1] / QUOTA[0]
    print(f"{3 * purchases} deliveries missed ({3 * purchases * ATTEMPTS} attempts in the log)")
    print(f"  {pages} pages of the log, {sum(counts['memberships.list'].values())} reads,")
    print(f"  {sum(counts['memberships.create'].values())} grants for {purchases} buyers")
    print(f"  the first grant after {read:.1f} s: the log is read to its end, seats go by age")
    print(f"  took {seconds:.1f} s; the quota allows {allowed:.0f} s: {seconds / allowed:.2f}")
    print(f"  lost {lost}, doubled {doubled}, refused with 429: {refused}")
    print(f"  the second start: {sum(sum(n.values()) for n in again.values())} calls, {sent} sent")
    holds = not (lost or doubled or refused or sent) and seconds <= TARGET * allowed
    print("holds" if holds else "MISSED", flush=True)
    return holds


def main() -> None:
    if sys.argv[1:2] == ["be-whop"]:
        be_whop(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--purchases", type=int, default=3334)
    sys.exit(not measure(parser.parse_args().purchases))


if __name__ == "__main__":
    main()
