"""Redis under the receiver: killed, without power, full, read-only; at 500 deliveries a second.

Each delivery's answer is written down, and then Redis is asked for every id. A power cut is staged:
a library that is preloaded into Valkey remembers how much of the append-only file was flushed to
the disk, and after kill -9 the file is cut off there.
"""

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from deliveries import ACCOUNT, PREFIX, SECRET
from ports import free_port

from torture import figures
from torture.load import Load
from torture.processes import Process, Valkey, ready, script, usher

RATE = 500.0
SECONDS = 12.0
FULL = "40mb"


@dataclass
class Site:
    """A receiver and its Redis."""

    folder: Path
    valkey: Valkey
    receiver: Process
    port: int

    def redis(self) -> "redis.Redis":
        return redis.Redis(port=self.valkey.port)


Fault = Callable[[Site], Awaitable[None]]


@contextlib.asynccontextmanager
async def site(
    *, shim: Path | None = None, wait: str | None = None, **settings: str
) -> AsyncIterator[Site]:
    """Run a receiver on a Valkey with these settings."""
    with tempfile.TemporaryDirectory(prefix="usher-torture-") as name:
        folder = Path(name)
        env = {"LD_PRELOAD": str(shim)} if shim else {}
        valkey = Valkey(folder / "valkey", free_port(), env, **settings)
        receiver, port = receiver_for(folder, valkey.url, wait=wait)
        valkey.start()
        receiver.start()
        try:
            await asyncio.to_thread(ready, port)
            yield Site(folder, valkey, receiver, port)
        finally:
            receiver.stop()
            valkey.stop()


def receiver_for(folder: Path, redis_url: str, *, wait: str | None) -> tuple[Process, int]:
    """Return a receiver on a free port, not yet started; one that waits, if it says for what."""
    (folder / "rooms.toml").write_text(f'account = "{ACCOUNT}"\n')
    port = free_port()
    env = {"REDIS_URL": redis_url, "WHOP_WEBHOOK_SECRET": SECRET, "USHER_PORT": str(port)}
    if wait:
        return script("waiting_receiver", folder, TORTURE_WAIT=wait, **env), port
    return usher("receive", folder, **env), port


def asked_for(client: "redis.Redis", load: Load) -> dict[str, Any]:
    """Ask Redis for every id, and return what was lost and what was doubled."""
    lost = kept = 0
    for begin in range(0, load.tally.number, 1000):
        some = range(begin, min(begin + 1000, load.tally.number))
        with client.pipeline(transaction=False) as pipe:
            for n in some:
                pipe.exists(f"{PREFIX}delivery:{load.name(n)}")
                pipe.llen(f"{PREFIX}pending:member:user_{load.name(n).removeprefix('msg_')}")
            answers = pipe.execute()
        for n, there, waiting in zip(some, answers[::2], answers[1::2], strict=True):
            lost += bool(load.tally.acknowledged[n]) and not (there and waiting)
            kept += bool(there)
            load.tally.accepted[n] += max(0, waiting - 1)
    return {"lost": lost, "doubled": load.tally.twice, "stored": kept}


async def suffer(
    name: str, fault: Fault, *, rate: float = RATE, seconds: float = SECONDS, **settings: Any
) -> dict[str, Any]:
    """Have a fault a third of the way through a load; return what came of it."""
    async with site(**settings) as here:
        load = Load(here.port, "f", int(rate * seconds))
        sending = asyncio.create_task(load.send(rate))
        await asyncio.sleep(seconds / 3)
        await fault(here)
        await sending
        found = await asyncio.to_thread(_ask, here, load)
        return row(name, load, found)


def _ask(here: Site, load: Load) -> dict[str, Any]:
    with here.redis() as client:
        return asked_for(client, load)


def row(name: str, load: Load, found: dict[str, Any]) -> dict[str, Any]:
    codes = load.tally.codes
    return {
        "what": name,
        "sent": load.tally.number,
        "acknowledged": load.tally.kept,
        "lost": found["lost"],
        "doubled": found["doubled"],
        "503": codes[503],
        "no answer": codes[0],
        "p99 ms": round(figures.percentile(load.tally.delays, 0.99) * 1000),
    }


# --- the faults


async def _nothing(_: Site) -> None:
    """Leave it in peace."""


async def _killed(here: Site) -> None:
    here.valkey.kill()
    await asyncio.sleep(1)
    await asyncio.to_thread(here.valkey.start)


async def _without_power(here: Site) -> None:
    here.valkey.kill()
    for file in here.valkey.folder.rglob("*.incr.aof"):
        note = file.with_name(f"{file.name}.synced")
        with file.open("r+b") as opened:
            opened.truncate(int(note.read_text()) if note.exists() else 0)
    await asyncio.sleep(1)
    await asyncio.to_thread(here.valkey.start)


async def _full(here: Site) -> None:
    with here.redis() as client:
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", used)
        await asyncio.sleep(3)
        client.config_set("maxmemory", 0)


async def _read_only(here: Site) -> None:
    """Make it a replica of nobody who is there, for three seconds."""
    with here.redis() as client:
        client.config_set("replica-serve-stale-data", "yes")
        client.slaveof("127.0.0.1", "1")
        await asyncio.sleep(3)
        client.slaveof()


async def _receiver_killed(here: Site) -> None:
    here.receiver.kill()
    await asyncio.to_thread(here.receiver.start)


async def _standing_still(here: Site) -> None:
    import signal

    here.valkey.signal(signal.SIGSTOP)
    await asyncio.sleep(6)
    here.valkey.signal(signal.SIGCONT)


def shim(folder: Path) -> Path | None:
    """Compile the library that stages a power cut; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "power_cut.so"
    source = Path(__file__).with_name("power_cut.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


async def all_of_them(*, rate: float = RATE, seconds: float = SECONDS) -> list[dict[str, Any]]:
    """Go through all faults, one after the other."""
    pace = {"rate": rate, "seconds": seconds}
    rows = [
        await suffer("nothing happens", _nothing, **pace),
        await suffer("receiver, kill -9", _receiver_killed, **pace),
    ]
    with tempfile.TemporaryDirectory() as folder:
        library = shim(Path(folder))
        for fsync in ("always", "everysec", "no"):
            settings = pace | {"appendfsync": fsync}
            rows.append(await suffer(f"Redis, kill -9, appendfsync {fsync}", _killed, **settings))
            if library:
                what = f"Redis without power, appendfsync {fsync}"
                settings |= {"shim": library}
                rows.append(await suffer(what, _without_power, **settings))
        if library:
            settings = pace | {"shim": library, "appendfsync": "everysec"}
            settings |= {"wait": "WAITAOF 1 0 3000"}
            what = "Redis without power, appendfsync everysec, with WAITAOF 1 0"
            rows.append(await suffer(what, _without_power, **settings))
    settings = pace | {"appendonly": "no", "save": "3600 1 300 100 60 10000"}
    rows.append(await suffer("Redis, kill -9, snapshots as by default", _killed, **settings))
    rows.append(await suffer("out of memory, noeviction", _full, **pace))
    evicting = pace | {"maxmemory_policy": "allkeys-lru"}
    rows.append(await suffer("out of memory, allkeys-lru", _full, **evicting))
    rows.append(await suffer("read-only replica for 3 s", _read_only, **pace))
    rows.append(await suffer("Redis stands still for 6 s", _standing_still, **pace))
    return rows


def main() -> None:
    rows = asyncio.run(all_of_them())
    figures.write("redis_faults", rows, about=f"{RATE:.0f} deliveries a second; Redis is hurt")
