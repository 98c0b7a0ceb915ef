"""How long a buyer waits: from the purchase to the membership that lets them into their room.

    .venv/bin/python benchmarks/latency.py

An idle worker and a local Whop that takes 100 ms a call. Both instants are the local Whop's own:
when it made the membership that was bought, and when it made the one that was granted. Two calls
lie between them, a read and a grant, so nobody can be faster than 200 ms.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import community

CALL = 0.1
FLOOR = 2 * CALL
TARGETS = {50: 0.5, 99: 1.0}


def measure(purchases: int, rng: random.Random) -> list[community.Grant]:
    """Buy one after another, at random moments; return the grants in the order of the purchases."""
    with (
        tempfile.TemporaryDirectory() as folder,
        community.running(Path(folder), community.COURSE) as seller,
    ):
        seller.usher("work")
        seller.buy("prod_course", "first")  # who has the first room made
        seller.until(lambda: seller.granted() == 1, "the first grant")
        time.sleep(2)  # until the worker is idle
        seller.switch(latency_seconds=CALL)
        for number in range(purchases):
            seller.buy("prod_course", f"buyer{number}")
            time.sleep(rng.uniform(0.3, 0.7))
        seller.until(lambda: seller.granted() == purchases + 1, "the last grant")
        seller.switch(latency_seconds=0)
        grants = sorted(seller.grants(), key=lambda grant: grant.bought)
    return grants[1:]


def percentile(sorted_seconds: list[float], percent: int) -> float:
    """Return the value that so many percent do not exceed."""
    return sorted_seconds[max(0, -(-len(sorted_seconds) * percent // 100) - 1)]


def report(grants: list[community.Grant]) -> None:
    """Print the figures, and those of the few who had their cohort's room made."""
    waits = sorted(grant.seconds for grant in grants)
    print(f"{len(waits)} purchases; nobody can be faster than {FLOOR:.3f} s (two calls)")
    for percent in (50, 95, 99, 100):
        wait, target = percentile(waits, percent), TARGETS.get(percent)
        held = "" if target is None else "holds" if wait <= target else "MISSED"
        verdict = "" if target is None else f"target {target} s: {held}"
        name = "max" if percent == 100 else f"p{percent}"
        print(f"  {name:<4} {wait:6.3f} s   {wait / FLOOR:5.2f} of the floor   {verdict}")
    print(f"  mean {statistics.mean(waits):6.3f} s")
    seen = {grants[0].product}
    for grant in grants:
        if grant.product not in seen:
            seen.add(grant.product)
            print(f"  the first buyer of a new cohort, whose room was made: {grant.seconds:.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--purchases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report(measure(options.purchases, random.Random(options.seed)))


if __name__ == "__main__":
    main()
