"""What Usher costs while nothing happens: the processor's time and the memory of its processes.

    .venv/bin/python benchmarks/idle.py

`usher work` with the example rooms.toml, after it has made its rooms, and `usher receive`; Linux
only, because /proc says it.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import community

TICK = os.sysconf("SC_CLK_TCK")
SETTLE = 5.0
TARGETS = {"work": (5.0, 80), "receive": (1.0, 60)}
"""Percent of a core, and MB."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took: percent of a core, and MB that it had at the end."""

    percent: float
    megabytes: float


def measure(seconds: float) -> dict[str, Cost]:
    """Leave both processes alone for a while; return what each took."""
    rules = (community.ROOT / "rooms.toml").read_text()
    with (
        tempfile.TemporaryDirectory() as folder,
        community.running(Path(folder), rules) as seller,
    ):
        seller.usher("work")
        seller.until(lambda: seller.log("work").count("room.ready") == 4, "the four rooms")
        seller.until(lambda: seller.due() == 0, "the end of all work")
        time.sleep(SETTLE)
        pids = {name: seller.children[name].pid for name in TARGETS}
        before = {name: _ticks(pid) for name, pid in pids.items()}
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        return {
            name: Cost(100 * (_ticks(pid) - before[name]) / TICK / took, _megabytes(pid))
            for name, pid in pids.items()
        }


def _ticks(pid: int) -> int:
    """Return the processor's time that a process has used (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _megabytes(pid: int) -> float:
    """Return the memory that a process holds (VmRSS)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(kilobytes) / 1024


def report(costs: dict[str, Cost]) -> None:
    """Print the figures beside their targets."""
    for name, cost in costs.items():
        percent, megabytes = TARGETS[name]
        held = cost.percent < percent and cost.megabytes < megabytes
        print(
            f"usher {name:<8} {cost.percent:5.2f} % of a core (target {percent:.0f})   "
            f"{cost.megabytes:5.1f} MB (target {megabytes}): {'holds' if held else 'MISSED'}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    for _ in range(options.rounds):
        report(measure(options.seconds))


if __name__ == "__main__":
    main()
