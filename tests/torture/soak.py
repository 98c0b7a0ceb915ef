"""A soak in two phases: deliveries at a fixed rate, every id written down; then every id is asked
for, at the receiver's own door: one that it does not know any more was lost.

Each fiftieth comes twice at once. The default is a million at 1,500 a second: half an hour.
"""

import asyncio
from typing import Any

import redis
from deliveries import PREFIX

from torture import figures
from torture.load import Load
from torture.redis_faults import Site, site

TWICE = 50


def _memory(here: Site) -> dict[str, int]:
    with here.redis() as client:
        found = client.info("memory")
    return {
        "receiver KiB": here.receiver.memory(),
        "Redis KiB": here.valkey.memory(),
        "Redis used KiB": int(found["used_memory"]) // 1024,
    }


def _doubled(client: "redis.Redis", load: Load) -> int:
    """Return how many deliveries wait more than once for their subject."""
    doubled = 0
    for begin in range(0, load.tally.number, 1000):
        with client.pipeline(transaction=False) as pipe:
            for n in range(begin, min(begin + 1000, load.tally.number)):
                pipe.llen(f"{PREFIX}pending:member:user_{load.name(n).removeprefix('msg_')}")
            doubled += sum(waiting > 1 for waiting in pipe.execute())
    return doubled


async def soak(number: int, rate: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Do both phases; return the rows of figures, and what else is to be said."""
    async with site() as here:
        warm = Load(here.port, "w", 500)
        await warm.send(500)
        with here.redis() as client:
            client.flushall()
        before = _memory(here)
        load = Load(here.port, "k", number)
        await load.send(rate, every_second=TWICE)
        after = _memory(here)
        figures.FOLDER.mkdir(exist_ok=True)
        names = (load.name(n) for n in range(number) if load.tally.acknowledged[n])
        (figures.FOLDER / "soak-ids.txt").write_text("\n".join(names) + "\n")
        again = Load(here.port, "k", number)
        await again.send(rate)
        with here.redis() as client:
            doubled = load.tally.twice + await asyncio.to_thread(_doubled, client, load)
            stored = int(client.zcard(f"{PREFIX}received"))
        unknown = zip(again.tally.accepted, load.tally.acknowledged, strict=True)
        lost = sum(new and kept for new, kept in unknown)
        rows = [_row("deliver", load), _row("ask for each", again)]
        memory = {f"{k}, before/after": f"{v:,} / {after[k]:,}" for k, v in before.items()}
        grown = (after["Redis used KiB"] - before["Redis used KiB"]) * 1024
        return rows, {
            "accepted": load.tally.kept,
            "lost": lost,
            "doubled": doubled,
            "stored": stored,
            "Redis, bytes a delivery": round(grown / number),
            **memory,
        }


def _row(phase: str, load: Load) -> dict[str, Any]:
    codes, delays = load.tally.codes, load.tally.delays
    return {
        "phase": phase,
        "sent": load.tally.number,
        "202": codes[202],
        "200": codes[200],
        "503": codes[503],
        "no answer": codes[0],
        "p50 ms": round(figures.percentile(delays, 0.5) * 1000, 1),
        "p99 ms": round(figures.percentile(delays, 0.99) * 1000, 1),
    }


def main(number: int, rate: float) -> None:
    rows, more = asyncio.run(soak(number, rate))
    about = f"{number:,} deliveries at {rate:,.0f} a second"
    figures.write("soak", rows, about=about, **more)
