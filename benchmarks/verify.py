"""What `usher verify` costs: calls, seconds and memory, with 10,000 members in 50 cohorts.

    .venv/bin/python benchmarks/verify.py

First with an empty Redis (`--repair` reads everything back from Whop), then once more with nothing
to find. The local Whop keeps Whop's limit of 600 calls a minute and operation.
"""

import argparse
import asyncio
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import community

from webhooks import log
from worker import main
from worker.clock import now
from worker.commands.verify import verify

SEATS = 200
MOST_MEGABYTES = 200
CHAT = "app_xml5hbizmZPgUT"


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what it called, and what it took."""

    calls: dict[str, int]
    seconds: float
    megabytes: float
    document: dict[str, Any]


def populate(seller: community.Community, members: int) -> int:
    """Fill the local Whop as workers would have; returns how many memberships there are."""
    key = {"Authorization": f"Bearer {seller.environ['WHOP_API_KEY']}"}

    def post(path: str, **body: object) -> dict[str, Any]:
        dates = {"Api-Version-Date": "2026-06-09" if path == "memberships" else "2026-10-15-1"}
        answer = seller.whop.post(f"/api/v1/{path}", json=body, headers=key | dates)
        answer.raise_for_status()
        made: dict[str, Any] = answer.json()
        return made

    seller.switch(drop=1.0, rate_limit={"count": 10_000_000, "seconds": 60})
    account = {"account_id": seller.account}
    for cohort in range(math.ceil(members / SEATS)):
        name = f"course/{cohort + 1}"
        meant = {"visibility": "hidden", "metadata": {"usher_room": name}}
        product = post("products", title=name, **meant, **account)["id"]
        free = {"initial_price": 0, "renewal_price": 0, "plan_type": "one_time"}
        plan = post("variants", product_id=product, visibility="hidden", **free, **account)["id"]
        chat = post("experiences", app_id=CHAT, name=f"Course, cohort {cohort + 1}", **account)
        post(f"experiences/{chat['id']}/attach", product_id=product)
        for n in range(cohort * SEATS, min((cohort + 1) * SEATS, members)):
            sold = seller.whop.post(
                "/sandbox/buy", json={"product_id": "prod_course", "user": f"buyer{n}"}
            ).json()
            post("memberships", plan_id=plan, user_id=sold["user_id"])
    seller.switch(rate_limit={"count": 600, "seconds": 60})
    return 2 * members


def run(seller: community.Community, *options: str) -> Run:
    """Run it as a process of its own."""
    seller.forget_calls()
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--child", *options],
        env=seller.environ,
        cwd=community.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.monotonic() - began
    if not done.stdout:
        raise community.Failed(done.stderr[-3000:])
    answer = json.loads(done.stdout)
    calls = {op: sum(counts.values()) for op, counts in seller.counts().items()}
    return Run(calls, took, answer["megabytes"], answer["document"])


def child(*, repair: bool) -> None:
    """Be the process: print what was found, and the most memory that was used."""
    import io  # noqa: PLC0415 - the parent measures nothing of it

    from rich.console import Console  # noqa: PLC0415 - as above

    log.configure("json")
    out = io.BytesIO()
    settings = main.Settings.from_env(os.environ)
    asyncio.run(
        verify(
            settings,
            repair=repair,
            as_json=True,
            clock=lambda: now() + timedelta(minutes=11),
            console=Console(file=io.StringIO()),
            out=out,
        )
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    document = json.loads(out.getvalue())
    counts = {name: len(document[name]) for name in ("differences", "repaired", "in_work")}
    print(json.dumps({"megabytes": peak, "document": {**document["looked_at"], **counts}}))


def report(name: str, one: Run) -> None:
    print(f"{name}: {one.seconds:.1f} s, {one.megabytes:.0f} MB at the most, {one.document}")
    for operation, n in sorted(one.calls.items()):
        print(f"  {n:6} {operation}")


def measure(members: int) -> bool:
    """Print the figures; say whether they are within what was promised."""
    with (
        tempfile.TemporaryDirectory() as folder,
        community.running(Path(folder), community.COURSE) as seller,
    ):
        memberships = populate(seller, members)
        rebuilt = run(seller, "--repair")
        report("with an empty Redis, --repair", rebuilt)
        clean = run(seller)
        report("with nothing to find", clean)
    pages = math.ceil(memberships / 100)
    as_few = clean.calls["memberships.list"] == pages
    right = not (rebuilt.document["differences"] or clean.document["differences"])
    small = max(rebuilt.megabytes, clean.megabytes) < MOST_MEGABYTES
    print(f"pages {pages}, calls for them {clean.calls['memberships.list']}")
    return as_few and right and small and not rebuilt.calls.get("memberships.create")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--repair", action="store_true")
    given = parser.parse_args()
    if given.child:
        child(repair=given.repair)
    else:
        sys.exit(0 if measure(given.members) else 1)
