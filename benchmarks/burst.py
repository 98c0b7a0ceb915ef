"""Three thousand purchases at once: how close to Whop's quota, and how exactly, workers go.

    .venv/bin/python benchmarks/burst.py

Each purchase is three deliveries, and needs one read and one grant. The local Whop allows 600
calls per 10 seconds and operation, and refuses what is more. The deliveries are held back until
everybody has bought; the clock runs from their release to the last grant's own timestamp.
"""

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import community

QUOTA = (600, 10)
SEATS = 200
TARGET = 1.1


@dataclass(frozen=True, slots=True)
class Burst:
    """What came of one burst."""

    workers: int
    purchases: int
    seconds: float
    refused: int
    reads: int
    grants: int
    cohorts: dict[str, int]
    curve: list[int]


def measure(workers: int, purchases: int) -> Burst:
    """Release a burst on so many worker processes and wait for its last grant."""
    with (
        tempfile.TemporaryDirectory() as folder,
        community.running(Path(folder), community.COURSE) as seller,
    ):
        seller.switch(rate_limit={"count": QUOTA[0], "seconds": QUOTA[1]}, deliveries_paused=True)
        for number in range(workers):
            seller.work(QUOTA, f"worker{number}")
        seller.until(lambda: _idle(seller, workers), "the workers")
        for number in range(purchases):
            seller.buy("prod_course", f"buyer{number}")
        time.sleep(QUOTA[1] + 2)  # what the start used of the quota has come back
        seller.forget_calls()
        began = datetime.now(UTC)
        seller.switch(deliveries_paused=False)
        patience = 3 * purchases * QUOTA[1] / QUOTA[0] + 60
        seller.until(lambda: seller.granted() >= purchases, "the last grant", patience)
        seller.until(lambda: seller.due() == 0, "the end of all work", 60)
        counts = seller.counts()
        grants = seller.grants()
    last = max(grant.granted for grant in grants)
    waited = [(grant.granted - began).total_seconds() for grant in grants]
    return Burst(
        workers=workers,
        purchases=purchases,
        seconds=(last - began).total_seconds(),
        refused=sum(statuses.get("429", 0) for statuses in counts.values()),
        reads=sum(counts["memberships.list"].values()),
        grants=sum(counts["memberships.create"].values()),
        cohorts=dict(Counter(grant.product for grant in grants)),
        curve=[sum(t <= s for t in waited) for s in range(5, int(max(waited)) + 6, 5)],
    )


def _idle(seller: community.Community, workers: int) -> bool:
    """Say whether all workers have started and nothing is left to do."""
    started = sum("worker.started" in seller.log(f"worker{n}") for n in range(workers))
    return started == workers and seller.due() == 0


def report(burst: Burst) -> None:
    """Print what came of a burst beside what the quota allows."""
    allowed = burst.purchases * QUOTA[1] / QUOTA[0]
    strict = allowed - QUOTA[1]
    ratio = burst.seconds / allowed
    full = sorted(burst.cohorts.values(), reverse=True)
    exact = burst.reads == burst.grants == burst.purchases
    print(f"{burst.workers} worker(s), {burst.purchases} purchases, three deliveries each")
    print(f"  took {burst.seconds:.1f} s; the quota allows {allowed:.0f} s")
    print(f"  ratio {ratio:.2f} (target {TARGET}: {_verdict(ratio <= TARGET)})")
    if strict > 0:
        words = f"where the first window is free, it is {strict:.0f} s"
        print(f"  {words}: ratio {burst.seconds / strict:.2f}")
    print(f"  refused with 429: {burst.refused} ({_verdict(burst.refused == 0)})")
    print(
        f"  reads {burst.reads / burst.purchases:.4f}, grants {burst.grants / burst.purchases:.4f} "
        f"a purchase ({_verdict(exact)})"
    )
    print(f"  seats per cohort {full} (never over {SEATS}: {_verdict(max(full) <= SEATS)})")
    print(f"  granted after each 5 s: {burst.curve}", flush=True)


def _verdict(holds: bool) -> str:  # noqa: FBT001 - it is the one thing said
    return "holds" if holds else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--purchases", type=int, default=3000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    for workers in options.workers:
        report(measure(workers, options.purchases))


if __name__ == "__main__":
    main()
