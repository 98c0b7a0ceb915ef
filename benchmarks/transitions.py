"""How late rooms open and lock, and whether locks come before everything else.

    .venv/bin/python benchmarks/transitions.py

An idle worker and a local Whop that takes 100 ms a call. A transition takes two calls, a read and
a change; it has happened when the local Whop has answered the change, by its own clock.

1. A thousand transitions at random seconds.
2. Two hundred rooms that change in the same second.
3. More rooms in the same second than the quota lets through at once, in the middle of a crowd of
   buyers: the locks must come before the openings, and before everything else.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import community

CALL = 0.1
FLOOR = 2 * CALL
TARGET = 1.0
REST = timedelta(seconds=65)
"""What passes after the rooms were made: that took calls of the same operations."""

CROWD = 300
"""Buyers who come at the same moment; their reads and grants wait for the quota for seconds."""

HEAD = f'account = "{community.ACCOUNT}"\ntimezone = "UTC"\n'
COURSE = '\n[rooms.course]\nname = "Course {cohort}"\nproducts = ["prod_course"]\n'
COURSE += 'cohort = { by = "seats", seats = 1000 }\n'


@dataclass(frozen=True, slots=True)
class Span:
    """When a room opens and locks."""

    opens: datetime
    locks: datetime


@dataclass(frozen=True, slots=True)
class Transition:
    """One that was planned, and when it had happened."""

    planned: datetime
    happened: datetime
    locks: bool

    @property
    def late(self) -> float:
        """Return by how many seconds."""
        return (self.happened - self.planned).total_seconds()


def rules(spans: dict[str, list[Span]]) -> str:
    """Write a rules file in which each room opens and locks so."""
    rooms = []
    for key, all_of_it in spans.items():
        lines = ", ".join(
            f'{{ starts = {span.opens:%Y-%m-%dT%H:%M:%S}, lasts = "{_seconds(span)}s" }}'
            for span in all_of_it
        )
        head = f'[rooms.{key}]\nname = "Room {key}"\nproducts = ["prod_ticket"]\n'
        rooms.append(f"{head}occurrences = [{lines}]")
    return "\n\n".join([HEAD + COURSE, *rooms]) + "\n"


def _seconds(span: Span) -> int:
    return round((span.locks - span.opens).total_seconds())


@contextmanager
def living(spans: dict[str, list[Span]], quota: tuple[int, int]) -> Iterator[community.Community]:
    """Run the community until all of it is over."""
    with (
        tempfile.TemporaryDirectory() as folder,
        community.running(Path(folder), rules(spans)) as seller,
    ):
        seller.work(quota, "work")
        seller.until(lambda: _ready(seller) >= len(spans), "the rooms", 200)
        first = min(span.opens for all_of_it in spans.values() for span in all_of_it)
        left = (first - datetime.now(UTC)).total_seconds()
        if left < 1:
            raise community.Failed(f"the rooms were ready {-left:.0f} s too late; start later")
        seller.switch(latency_seconds=CALL)
        seller.forget_calls()
        yield seller


def _ready(seller: community.Community) -> int:
    keys = seller.redis.keys(f"usher:{seller.account}:room:*")
    return sum(json.loads(seller.redis.get(key))["ready"] for key in keys)


def happened(seller: community.Community, spans: dict[str, list[Span]]) -> list[Transition]:
    """Match what the local Whop heard with what was planned, room by room."""
    channels = {}
    for key in spans:
        place = json.loads(seller.redis.get(f"usher:{seller.account}:room:{key}"))
        channels[place["channel"]] = key
    answer = seller.whop.get("/sandbox/requests", params={"operation": "chat_channels.update"})
    heard: dict[str, list[tuple[datetime, bool]]] = {key: [] for key in spans}
    for call in answer.json()["requests"]:
        key = channels[call["path"].rpartition("/")[2]]
        at = datetime.fromisoformat(call["time"]) + timedelta(seconds=CALL)
        heard[key].append((at, "admins" in call["body"]))
    found = []
    for key, all_of_it in spans.items():
        planned = [(t, t == span.locks) for span in all_of_it for t in (span.opens, span.locks)]
        if [locks for _, locks in heard[key]] != [locks for _, locks in planned]:
            raise community.Failed(f"{key}: planned {planned}, heard {heard[key]}")
        found += [
            Transition(plan, at, locks)
            for (plan, locks), (at, _) in zip(planned, heard[key], strict=True)
        ]
    return found


def until_over(spans: dict[str, list[Span]], more: float) -> None:
    """Wait for the last lock, and as many seconds more."""
    last = max(span.locks for all_of_it in spans.values() for span in all_of_it)
    time.sleep(max(0.0, (last - datetime.now(UTC)).total_seconds()) + more)


def report(title: str, found: list[Transition], target: float | None) -> None:
    """Print how late they were."""
    late = sorted(transition.late for transition in found)
    print(f"{title}: {len(late)} transitions; none can take less than {FLOOR:.1f} s (two calls)")
    for percent in (50, 99, 100):
        value = late[max(0, -(-len(late) * percent // 100) - 1)]
        verdict = ""
        if percent == 99 and target:
            verdict = f"target {target} s: {'holds' if value <= target else 'MISSED'}"
        name = "max" if percent == 100 else f"p{percent}"
        print(f"  {name:<4} {value:6.3f} s   {value / FLOOR:5.2f} of the floor   {verdict}")


def at_random(rng: random.Random) -> None:
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=25)
    spans: dict[str, list[Span]] = {}
    for n in range(50):
        spans[f"room{n}"] = []
        for turn in range(10):
            opens = start + timedelta(seconds=14 * turn + rng.randint(0, 5))
            spans[f"room{n}"].append(Span(opens, opens + timedelta(seconds=rng.randint(2, 6))))
    with living(spans, (600, 10)) as seller:
        until_over(spans, 3)
        report("at random seconds", happened(seller, spans), TARGET)


def together(rooms: int) -> None:
    opens = datetime.now(UTC).replace(microsecond=0) + REST + timedelta(seconds=30)
    spans = {f"room{n}": [Span(opens, opens + timedelta(seconds=20))] for n in range(rooms)}
    with living(spans, (600, 60)) as seller:
        until_over(spans, 10)
        report(f"{rooms} rooms in the same second", happened(seller, spans), None)


def over_the_quota(rooms: int, quota: tuple[int, int]) -> None:
    """Half of the rooms lock at the instant at which the other half opens."""
    now = datetime.now(UTC).replace(microsecond=0)
    turn = now + REST + timedelta(seconds=60)
    spans = {
        f"room{n}": [
            Span(turn - timedelta(seconds=20), turn)
            if n % 2
            else Span(turn, turn + timedelta(minutes=10))
        ]
        for n in range(rooms)
    }
    with living(spans, quota) as seller:
        time.sleep(max(0.0, (turn - datetime.now(UTC)).total_seconds() - 0.5))
        for n in range(CROWD):
            seller.buy("prod_course", f"buyer{n}")
        seller.until(lambda: _patched(seller) >= rooms * 1.5, "the rooms' turn", 120)
        found = _turned(seller, rooms, turn)
    amount, seconds = quota
    print(f"{rooms} rooms at one instant, {amount} calls in {seconds} s, {CROWD} buyers beside it:")
    for locks, name in ((True, "locks"), (False, "openings")):
        late = sorted(t.late for t in found if t.locks is locks)
        print(f"  {name:<9} first {late[0]:6.2f} s   last {late[-1]:6.2f} s")
    last_lock = max(t.happened for t in found if t.locks)
    before = sum(t.happened < last_lock for t in found if not t.locks)
    print(f"  openings before the last lock: {before} of {rooms // 2}")


def _patched(seller: community.Community) -> int:
    return sum(seller.counts().get("chat_channels.update", {}).values())


def _turned(seller: community.Community, rooms: int, turn: datetime) -> list[Transition]:
    """Return the transitions of the instant at which all rooms turn."""
    answer = seller.whop.get("/sandbox/requests", params={"operation": "chat_channels.update"})
    calls = [
        (datetime.fromisoformat(call["time"]) + timedelta(seconds=CALL), "admins" in call["body"])
        for call in answer.json()["requests"]
    ]
    found = [Transition(turn, at, locks) for at, locks in calls if at > turn]
    if len(found) != rooms:
        raise community.Failed(f"{len(found)} of {rooms} rooms turned")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    at_random(random.Random(options.seed))
    together(200)
    over_the_quota(300, (100, 10))


if __name__ == "__main__":
    main()
