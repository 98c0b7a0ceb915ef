"""What 5,000 rooms with weekly windows cost: their plan for 14 days, and what is due each minute.

    .venv/bin/python benchmarks/plan.py

A third of the rooms are event rooms with weekly occurrences; the hours are random, in 20 zones.
(a) `usher plan --days 14` as a process of its own, into nothing, beside a process that only reads
the same TOML and asks dateutil for the same dates. (b) What policy costs a worker in each minute of
a week: of the rooms that are due, what they should be and when they change next; and, beside it,
asking all rooms at once what they should be now.
"""

import argparse
import heapq
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from worker import rules
from worker.policy.rooms import Room
from worker.policy.schedule import Timeline, next_change, settings_at

START = datetime(2026, 11, 22, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WEEK = 7 * 24 * 60
PLAN = 2.0
"""Seconds that the plan may take."""

DUE = 0.050
"""Seconds that working out what is due may take in a minute."""

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ZONES = (
    *("America/New_York", "America/Los_Angeles", "America/Chicago", "America/Denver"),
    *("America/Sao_Paulo", "America/Mexico_City", "America/Toronto", "Europe/London"),
    *("Europe/Berlin", "Europe/Paris", "Europe/Madrid", "Europe/Istanbul"),
    *("Africa/Lagos", "Africa/Johannesburg", "Asia/Kolkata", "Asia/Dubai"),
    *("Asia/Singapore", "Asia/Tokyo", "Australia/Sydney", "Pacific/Auckland"),
)

REFERENCE = """
import sys, tomllib
from datetime import datetime, timedelta
from dateutil.rrule import rrulestr
since = datetime(2026, 11, 22)
for room in tomllib.load(open(sys.argv[1], "rb"))["rooms"].values():
    for line in room.get("occurrences", ()):
        rule = rrulestr(line["repeats"], dtstart=line["starts"], cache=True)
        for one in rule.between(since, since + timedelta(days=14)):
            print(one)
"""


def rules_text(count: int, rng: random.Random) -> str:
    """Return a rules file of so many rooms."""
    return 'account = "biz_Bench"\n' + "\n".join(_room(n, rng) for n in range(count))


def _room(n: int, rng: random.Random) -> str:
    day = f"2026-{rng.randint(1, 9):02}-{rng.randint(1, 28):02}"
    start = f"{day}T{rng.randrange(24):02}:{rng.randrange(0, 60, 15):02}:00"
    event = f"""opens = "15m"
locks = "30m"
occurrences = [{{ starts = {start}, lasts = "90m", repeats = "FREQ=WEEKLY" }}]
"""
    return f"""[rooms.r{n}]
name = "Room {n}"
products = ["prod_{n % 50}"]
timezone = "{rng.choice(ZONES)}"
{event if n % 3 == 0 else ""}[[rooms.r{n}.windows]]
days = ["{rng.choice(DAYS)}"]
from = {rng.randrange(24):02}:{rng.randrange(60):02}:00
to = {rng.randrange(24):02}:{rng.randrange(60):02}:00
user_posts_cooldown_seconds = 60
"""


def planned(path: Path, rounds: int) -> None:
    """Print how long the plan takes as a process, beside the reference in the same round."""
    environ = {**os.environ, "USHER_RULES": str(path)}
    asked = ["--days", "14", "--from", START.strftime("%Y-%m-%d")]
    plan = [sys.executable, "-m", "worker.cli.main", "plan", *asked]
    reference = [sys.executable, "-c", REFERENCE, str(path)]
    pairs = [(_cost(reference, environ), _cost(plan, environ)) for _ in range(rounds)]
    beside, took = ([cost[0] for cost in costs] for costs in zip(*pairs, strict=True))
    cpu = [mine[1] for _, mine in pairs]
    ratios = [mine[1] / other[1] for other, mine in pairs]
    held = "holds" if statistics.median(took) < PLAN else "MISSED"
    print(f"plan for 14 days   {_spread(took)} s (target {PLAN}): {held}")
    print(f"  of the processor {_spread(cpu)} s")
    print(f"TOML and dateutil  {_spread(beside)} s")
    print(f"ratio (processor)  {_spread(ratios)}", flush=True)


def _cost(command: Sequence[str], environ: dict[str, str]) -> tuple[float, float]:
    """Run a command; return its seconds by the clock, and those of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _spread(figures: Sequence[float]) -> str:
    return f"{min(figures):.2f} / {statistics.median(figures):.2f} / {max(figures):.2f}"


def due(rooms: Sequence[Room]) -> None:
    """Print what policy costs in each minute of a week, worst and mean."""
    waiting: list[tuple[datetime, int]] = []
    for n, room in enumerate(rooms):
        change = next_change(room.schedule, START)
        if change:
            heapq.heappush(waiting, (change.at, n))
    costs, looks = [], 0
    for minute in range(WEEK):
        now = START + minute * MINUTE
        began = time.perf_counter()
        while waiting and waiting[0][0] <= now:
            _, n = heapq.heappop(waiting)
            settings_at(rooms[n].schedule, now)
            change = next_change(rooms[n].schedule, now)
            looks += 1
            if change:
                heapq.heappush(waiting, (change.at, n))
        costs.append(time.perf_counter() - began)
    mean, worst = statistics.mean(costs), max(costs)
    held = "holds" if worst < DUE else "MISSED"
    print(f"what is due        {1000 * mean:.3f} ms a minute, {1000 * worst:.2f} ms in the worst "
          f"(target {1000 * DUE:.0f}): {held}; {looks} looks in a week")  # fmt: skip
    began = time.perf_counter()
    for room in rooms:
        Timeline(room.schedule, START, START).settings(START)
    everything = time.perf_counter() - began
    print(f"all rooms at once  {1000 * everything:.0f} ms; the mean minute costs "
          f"{mean / everything:.2%} of it", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    text = rules_text(options.rooms, random.Random(options.seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rooms.toml"
        path.write_text(text)
        planned(path, options.rounds)
    began = time.perf_counter()
    found = rules.parse(text)
    print(f"reading the rules  {time.perf_counter() - began:.2f} s of that", flush=True)
    due(found.rooms)


if __name__ == "__main__":
    main()
